"""How the decoder keeps to the look of a picture that a person gave: codes say what is where, the picture how it looks.

A code is ten bits, the same for every picture: it cannot say with which pen the ground was drawn. So the picture is cut
into pieces of a token's size, each with the encoder's latent beside it, and a code is shown the pieces whose latents
are nearest to it. Nothing of this is learned but how sharp the choice is and what to make of it. Ours; the paper's
decoder sees tokens alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_play.config import LOOK_OFFSETS, LOOK_WAYS, TokenizerConfig

SHARPEST, SOFTEST = 40.0, 5.0  # choices at the start of training: about the nearest piece, and a mean of many


class Look(NamedTuple):
    """What is kept of pictures: of M pieces of each the unit latents (B, M, d) and pixels (B, M, 3 patch^2), -1..1."""

    latents: Tensor
    pieces: Tensor


class Recall(nn.Module):
    """What the pieces say to a picture that is being decoded: a hint to each token, and channels for finer places."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.grid, self.patch = config.grid, config.patch
        self.sharpness = nn.Parameter(torch.linspace(math.log(SHARPEST), math.log(SOFTEST), LOOK_WAYS))
        channels, side = 3 * LOOK_WAYS, config.patch // 2
        self.hint = nn.Linear(channels * config.patch**2, config.decoder_width)
        self.paste = nn.Sequential(nn.PixelUnshuffle(side), nn.Conv2d(channels * side**2, config.stem, 3, padding=1))
        nn.init.normal_(self.hint.weight, std=0.3 * (channels * config.patch**2) ** -0.5)

    def forward(self, codes: Tensor, look: Look) -> Tensor:
        """Of unit codes (B, ..., N, d) the pieces that are like them, softly chosen at each sharpness:
        (B, ..., N, S * 3 patch^2). A look of one picture serves the whole batch."""
        alike = codes.flatten(1, -2).float() @ look.latents.mT
        weights = (alike[:, None] * self.sharpness.float().exp()[:, None, None]).softmax(-1)  # (B, S, ..N, M)
        seen = weights.to(look.pieces.dtype) @ look.pieces[:, None]
        return seen.transpose(1, 2).flatten(2).view(*codes.shape[:-1], -1)

    def channels(self, seen: Tensor) -> Tensor:
        """(B, N, S * 3 patch^2) as features (B, stem, 2 rows, 2 columns)."""
        picture = F.pixel_shuffle(seen.mT.unflatten(2, self.grid), self.patch)
        features: Tensor = self.paste(picture)
        return features


def cut(pictures: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, H, W), whole patches, shifted by every offset, the border repeated: (B, O, 3, H, W), and their
    pieces (B, O * N, 3 patch^2)."""
    steps = range(0, patch, patch // LOOK_OFFSETS)
    shifted = [F.pad(pictures, (0, x, 0, y), mode="replicate")[..., y:, x:] for y in steps for x in steps]
    pieces = [F.pixel_unshuffle(one, patch).flatten(2).mT for one in shifted]
    return torch.stack(shifted, 1), torch.cat(pieces, 1)
