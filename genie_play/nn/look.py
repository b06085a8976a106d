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
    """What is kept of pictures: of M pieces of each the unit latents (B, M, d) and pixels (B, M, P), -1..1. P counts
    the colours of the pixels of a patch."""

    latents: Tensor
    pieces: Tensor


class Recall(nn.Module):
    """What the pieces say to a picture that is being decoded: a hint to each token, and channels for finer places."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.grid, self.patch_size = config.grid, config.patch_size
        self.sharpness = nn.Parameter(torch.linspace(math.log(SHARPEST), math.log(SOFTEST), LOOK_WAYS))
        channels, cell = 3 * LOOK_WAYS, config.cell
        numbers = channels * math.prod(config.patch_size)
        self.hint = nn.Linear(numbers, config.decoder_width)
        self.paste = nn.Sequential(nn.PixelUnshuffle(cell), nn.Conv2d(channels * cell**2, config.stem, 3, padding=1))
        nn.init.normal_(self.hint.weight, std=0.3 * numbers**-0.5)

    def forward(self, codes: Tensor, look: Look) -> Tensor:
        """Of unit codes (B, ..., N, d) the pieces that are like them, softly chosen at each sharpness:
        (B, ..., N, S * P). A look of one picture serves the whole batch."""
        alike = codes.flatten(1, -2).float() @ look.latents.mT
        weights = (alike[:, None] * self.sharpness.float().exp()[:, None, None]).softmax(-1)  # (B, S, ..N, M)
        seen = weights.to(look.pieces.dtype) @ look.pieces[:, None]
        return seen.transpose(1, 2).flatten(2).view(*codes.shape[:-1], -1)

    def channels(self, seen: Tensor) -> Tensor:
        """(B, N, S * P) as features (B, stem, h, w) of the trunk's finer places."""
        (rows, columns), (down, across) = self.grid, self.patch_size
        whole = seen.view(-1, rows, columns, 3 * LOOK_WAYS, down, across).permute(0, 3, 1, 4, 2, 5)
        features: Tensor = self.paste(whole.flatten(4, 5).flatten(2, 3))
        return features


def cut(pictures: Tensor, patch_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, H, W), whole patches, shifted by every offset, the border repeated: (B, O, 3, H, W), and their
    pieces (B, O * N, P)."""
    down, across = (range(0, side, side // LOOK_OFFSETS) for side in patch_size)
    shifted = [F.pad(pictures, (0, x, 0, y), mode="replicate")[..., y:, x:] for y in down for x in across]
    return torch.stack(shifted, 1), torch.cat([_pieces(one, *patch_size) for one in shifted], 1)


def _pieces(pictures: Tensor, down: int, across: int) -> Tensor:
    """Pictures (B, 3, H, W) to their patches, row by row, (B, N, 3 * down * across)."""
    patches = pictures.unflatten(3, (-1, across)).unflatten(2, (-1, down))  # (B, 3, rows, down, columns, across)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
