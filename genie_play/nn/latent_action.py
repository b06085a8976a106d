"""The latent action model: which of eight codes explains what happened between two frames, from video alone.

Two forms behind one face:
- "shift" (ours). The encoder sees only a cost volume between the frames, so that a code cannot be about colour; the
  decoder moves the first frame by code-conditioned shift kernels; the loss is relative to each pair's own copy error.
  Each of the three was found necessary on two CPU cores (DESIGN 4).
- "paper" (Bruce et al. 2024, section 2.1, table 5). ST-transformers on pixels: the encoder sees the frames up to and
  with the next one, the decoder the frames before it and the codes.

A pair of frames shows a motion, and a code that is a motion cannot be obeyed everywhere: holding "up" flies for ever.
With `ActionsConfig.motions` the codebook holds that many motions and the codes are keys over them (`nn/keys.py`).

Only the encoder and the codebook are needed after training, and for play not even these: a key is a code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_play.config import ActionsConfig
from genie_play.nn.keys import Keys
from genie_play.nn.quantize import Quantized, Quantizer
from genie_play.nn.st_transformer import STBlock

ALIKE = 0.975  # cosine from which two motions are one to the keys: a code split in two splits keys (measured)
CELLS = (8, 8)  # the grid that motion is summed over


@dataclass
class Inference:
    """A training pass of a latent action model over clips of T frames."""

    predicted: Tensor  # (B, T-1, h, w, 3) the next frames as the decoder paints them
    target: Tensor  # (B, T-1, h, w, 3) what they were
    source: Tensor  # (B, T-1, h, w, 3) the frames before: copying them is the baseline
    latents: Tensor  # (B, T-1, d)
    quantized: Quantized


class LatentActions(nn.Module):
    """Either form. Frames are (B, T, H, W, 3) in 0..1; code t leads from frame t to frame t + 1."""

    motion: Tensor

    def __init__(self, config: ActionsConfig, size: tuple[int, int]) -> None:
        super().__init__()
        if config.recipe not in ("shift", "paper"):
            raise ValueError(f"no latent action recipe is called {config.recipe!r}")
        self.config = config
        self.form: ShiftActions | PixelActions = (
            ShiftActions(config) if config.recipe == "shift" else PixelActions(config, size)
        )
        # 1% of use over the steps in which a code may lie idle: eight codes die easily
        entries = config.motions or config.codes
        self.quantizer = Quantizer(entries, config.code_dim, decay=0.95, restart_after=50)
        self.keys = Keys(config.codes, config.motions, config.width) if config.motions else None
        # for each entry the one that keys know it as; follows from the codebook whenever weights are loaded
        self.register_buffer("motion", torch.arange(entries), persistent=False)
        self.register_load_state_dict_post_hook(_merge)

    def forward(self, frames: Tensor) -> Inference:
        """A training pass of encoder, codebook and decoder."""
        small = self.form.prepare(frames)
        latents = self.form.encode(small)
        quantized = self.quantizer(latents)
        predicted = self.form.decode(small, quantized.vectors)
        return Inference(predicted, small[:, 1:], small[:, :-1], latents, quantized)

    def infer(self, frames: Tensor) -> Tensor:
        """The code (B, T-1) int64 of every transition; keys are read off the whole clip."""
        small, seen = self.read(frames)
        return seen if self.keys is None else self.keys.infer(small, seen)

    def draw(self, frames: Tensor, uniforms: Tensor) -> Tensor:
        """Codes (B, T-1) to train dynamics with: keys drawn from their posterior by uniform numbers (B, T-1)."""
        small, seen = self.read(frames)
        return seen if self.keys is None else self.keys.draw(small, seen, uniforms)

    def read(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared frames (B, T, h, w, 3) and the codebook entry (B, T-1) int64 of every transition; to keys entries
        that are nearly one are one."""
        small = self.form.prepare(frames)
        return small, self.motion[self.quantizer(self.form.encode(small)).tokens]

    def paint(self, frames: Tensor, codes: Tensor) -> Inference:
        """Next frames as the decoder paints them for codes (B, T-1) of one's choice."""
        small, seen = self.read(frames)
        entries = codes if self.keys is None else self.keys.lead(small, seen, codes)
        vectors = self.quantizer.lookup(entries)
        quantized = Quantized(vectors, entries, vectors.new_zeros(()))
        return Inference(self.form.decode(small, vectors), small[:, 1:], small[:, :-1], vectors, quantized)

    def loss(self, inference: Inference) -> Tensor:
        """Error of each pair relative to its own copy error, still pairs weighted 0.1, plus the commitment.

        Without the division big falls own the loss and sideways motion is never found.
        """
        error = (inference.predicted - inference.target).square().mean((-3, -2, -1))
        copy = (inference.source - inference.target).square().mean((-3, -2, -1))
        weight = torch.where(copy < 1e-4, 0.1, 1.0)
        relative = (weight * error / (copy + 2e-3)).sum() / weight.sum()
        return relative + 0.25 * inference.quantized.commitment


def _merge(actions: LatentActions, _: object) -> None:
    book = actions.quantizer
    every = torch.arange(book.codes, device=book.codebook.device)
    actions.motion = every if actions.keys is None else book.merged(ALIKE, actions.config.codes)


class ShiftActions(nn.Module):
    """Cost volume in, shift kernels out, on pictures averaged over `pool` pixels."""

    def __init__(self, config: ActionsConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.motion = Motion(config.reach, width)
        self.to_latent = nn.Sequential(nn.Linear(width * 5, width), nn.ReLU(), nn.Linear(width, config.code_dim))
        self.kernels = nn.Sequential(
            nn.Linear(config.code_dim, 2 * width), nn.ReLU(), nn.Linear(2 * width, 2 * self.motion.shifts)
        )
        self.told = nn.Linear(config.code_dim, width // 2)
        self.mask_in = nn.Conv2d(3, width // 2, 5, padding=2)
        self.mask_mid = nn.Conv2d(width // 2, width // 2, 5, padding=2)
        self.mask_out = nn.Conv2d(width // 2, 4, 3, padding=1)
        nn.init.zeros_(self.mask_out.weight)

    def prepare(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) to (B, T, h, w, 3), averaged over pool x pool pixels."""
        flat = frames.flatten(0, 1).permute(0, 3, 1, 2)
        return F.avg_pool2d(flat, self.config.pool).permute(0, 2, 3, 1).unflatten(0, frames.shape[:2])

    def encode(self, frames: Tensor) -> Tensor:
        """(B, T, h, w, 3) to latents (B, T-1, d)."""
        return self.to_latent(self.motion(frames))

    def decode(self, frames: Tensor, codes: Tensor) -> Tensor:
        """Paint frames 1..T-1 from the frame before each and its code (B, T-1, d)."""
        batch, pairs = codes.shape[:2]
        told = codes.flatten(0, 1)
        source = frames[:, :-1].flatten(0, 1).permute(0, 3, 1, 2)  # (P, 3, h, w)
        height, width = source.shape[-2:]
        kernels = self.kernels(told).unflatten(-1, (2, -1)).softmax(-1)  # (P, 2, S)
        moved = kernels @ shifted(source, self.config.reach).flatten(2)  # (P, 2, 3 * h * w)
        moved = moved.view(-1, 2, 3, height, width)
        x = F.relu(self.mask_in(source - 0.5) + self.told(told)[..., None, None])
        x = self.mask_out(F.relu(self.mask_mid(x)))
        mask = x[:, :1].sigmoid()
        painted = mask * moved[:, 0] + (1 - mask) * moved[:, 1] + 0.1 * x[:, 1:]
        return painted.permute(0, 2, 3, 1).view(batch, pairs, height, width, 3)


class Motion(nn.Module):
    """Features of the motion between neighbouring frames, from a cost volume: they cannot tell colours."""

    def __init__(self, reach: tuple[int, int], width: int) -> None:
        super().__init__()
        self.reach, self.shifts = reach, (2 * reach[0] + 1) * (2 * reach[1] + 1)
        self.body = nn.Sequential(
            nn.Conv2d(self.shifts, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, h, w, 3) to (B, T-1, 5 * width)."""
        before = frames[:, :-1].flatten(0, 1).permute(0, 3, 1, 2)
        after = frames[:, 1:].flatten(0, 1).permute(0, 3, 1, 2)
        # every other pixel is enough to tell a shift, at a quarter of the work
        cost = (after[:, None, :, ::2, ::2] - shifted(before, self.reach, 2)).abs().mean(2)  # (P, S, h/2, w/2)
        cost = F.adaptive_avg_pool2d(cost, CELLS)
        # what matters is which shift fits best in a cell, not how much contrast the cell has
        low, mean = cost.amin(1, keepdim=True), cost.mean(1, keepdim=True)
        cost = (cost - low) / (mean - low + 0.01)
        return _summary(self.body(cost)).unflatten(0, (frames.shape[0], frames.shape[1] - 1))


class PixelActions(nn.Module):
    """The paper's form: ST-transformers over pixel patches."""

    def __init__(self, config: ActionsConfig, size: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.size = config, size
        patch, width = config.patch, config.width
        self.grid = -(-size[0] // patch), -(-size[1] // patch)
        tokens = self.grid[0] * self.grid[1]

        def stack() -> nn.ModuleList:
            return nn.ModuleList(
                STBlock(width, config.heads, config.head_dim, config.ffn, config.window, self.grid, rotary=False)
                for _ in range(config.layers)
            )

        self.encoder_in = nn.Linear(3 * patch**2, width)
        self.encoder_place = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.encoder = stack()
        self.encoder_norm = nn.RMSNorm(width, eps=1e-6)
        self.to_latent = nn.Linear(width, config.code_dim)
        self.decoder_in = nn.Linear(3 * patch**2, width)
        self.decoder_place = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.told = nn.Linear(config.code_dim, width)
        self.decoder = stack()
        self.decoder_norm = nn.RMSNorm(width, eps=1e-6)
        self.paint = nn.Linear(width, 3 * patch**2)

    def prepare(self, frames: Tensor) -> Tensor:
        """Frames as they are."""
        return frames

    def encode(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) to latents (B, T-1, d): the latent of a transition has seen the frame it leads to."""
        x = self.encoder_in(self._patches(frames)) + self.encoder_place
        for block in self.encoder:
            x = block(x)
        return self.to_latent(self.encoder_norm(x[:, 1:]).mean(2))

    def decode(self, frames: Tensor, codes: Tensor) -> Tensor:
        """Paint frames 1..T-1 from the frames before each and the codes (B, T-1, d), added to every token."""
        x = self.decoder_in(self._patches(frames[:, :-1])) + self.decoder_place + self.told(codes)[:, :, None]
        for block in self.decoder:
            x = block(x)
        return self._pictures(self.paint(self.decoder_norm(x)).sigmoid())

    def _patches(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) to (B, T, N, 3 * patch**2), padded by repeating the edge."""
        (rows, columns), patch = self.grid, self.config.patch
        flat = frames.flatten(0, 1).permute(0, 3, 1, 2)
        flat = F.pad(flat, (0, columns * patch - self.size[1], 0, rows * patch - self.size[0]), mode="replicate")
        return F.pixel_unshuffle(flat, patch).flatten(2).mT.unflatten(0, frames.shape[:2])

    def _pictures(self, patches: Tensor) -> Tensor:
        """(B, T, N, 3 * patch**2) to (B, T, H, W, 3)."""
        flat = patches.flatten(0, 1).mT.unflatten(2, self.grid)
        pictures = F.pixel_shuffle(flat, self.config.patch)[..., : self.size[0], : self.size[1]]
        return pictures.permute(0, 2, 3, 1).unflatten(0, patches.shape[:2])


def shifted(pictures: Tensor, reach: tuple[int, int], stride: int = 1) -> Tensor:
    """(P, 3, h, w) to (P, S, 3, h/stride, w/stride): the picture moved by each shift in reach, edges repeated."""
    height, width = pictures.shape[-2:]
    padded = F.pad(pictures, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
    return torch.stack(
        [
            padded[..., y : y + height : stride, x : x + width : stride]
            for y in range(2 * reach[0] + 1)
            for x in range(2 * reach[1] + 1)
        ],
        1,
    )


def _summary(x: Tensor) -> Tensor:
    """(P, C, h, w) to (P, 5 * C): the mean of all cells, and the four around the middle, where a camera keeps what it
    follows."""
    height, width = x.shape[-2:]
    middle = x[..., height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1]
    return torch.cat((x.mean((-2, -1)), middle.flatten(1)), -1)
