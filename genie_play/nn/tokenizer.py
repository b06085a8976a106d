"""The video tokenizer: pictures to discrete tokens and back, causal in time.

Two trunks: "conv" (ours: convolutions learn fastest per minute, ST blocks on the token grid carry colour and time
across it) and "patch" (the paper's ST-ViViT: linear patches and ST blocks only; section 2.1, table 7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_play.config import LOOK_OFFSETS, TokenizerConfig
from genie_play.nn.look import Look, Recall, cut
from genie_play.nn.quantize import Quantized, Quantizer
from genie_play.nn.st_transformer import LayerKV, LayerPast, STBlock, stream_blocks


@dataclass(frozen=True)
class CacheShape:
    """What a ring of keys and values must hold."""

    layers: int
    heads: int
    head_dim: int
    window: int
    anchor: bool = False  # of the frames in the window one is always the first


@dataclass
class Reconstruction:
    """A training pass of the tokenizer."""

    pixels: Tensor  # (B, T, H, W, 3), about 0..1, not clamped
    latents: Tensor  # (B, T, N, d) before quantisation
    quantized: Quantized


class Conv(nn.Module):
    """A convolution whose weight is stored as a matrix (out, in * k * k), so that Muon can train it."""

    def __init__(self, channels: int, out: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        # three places, or all that a stride steps over and one more on each side
        self.stride, (down, across) = stride, (3 if step == 1 else step + 2 for step in stride)
        self.shape, numbers = (out, channels, down, across), channels * down * across
        self.weight = nn.Parameter(torch.randn(out, numbers) * numbers**-0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, out, h, w), each way divided by the stride."""
        return F.conv2d(x, self.weight.view(self.shape), self.bias, self.stride, padding=1)


class Spread(nn.Module):
    """Channels of a place as so many rows and columns of finer places; a pixel shuffle that may be oblong."""

    def __init__(self, places: tuple[int, int]) -> None:
        super().__init__()
        self.places = places

    def forward(self, x: Tensor) -> Tensor:
        """(B, C * rows * columns, h, w) to (B, C, h * rows, w * columns)."""
        x = x.unflatten(1, (-1, *self.places)).permute(0, 4, 2, 5, 3, 1)  # (B, h, rows, w, columns, C)
        return x.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class ConvBlock(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = Conv(channels, channels)
        self.second = Conv(channels, channels)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        return x + self.second(F.relu(self.first(self.norm(x))))


class Encoder(nn.Module):
    """Pictures to latents (B, T, N, d)."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width, cell = config.encoder_width, config.cell
        if config.trunk == "conv":
            self.trunk = nn.Sequential(
                nn.PixelUnshuffle(cell),
                nn.Conv2d(3 * cell**2, config.stem, 3, padding=1),
                ConvBlock(config.stem),
                ConvBlock(config.stem),
                Conv(config.stem, width, stride=config.cells),
                *(ConvBlock(width) for _ in range(config.encoder_blocks)),
            )
        else:
            self.trunk = nn.Sequential(nn.PixelUnshuffle(cell), nn.Conv2d(3 * cell**2, width, 1))
        self.place = nn.Parameter(torch.zeros(config.n_tokens, width))
        self.blocks = nn.ModuleList(
            STBlock(width, config.encoder_heads, config.head_dim, config.ffn, config.window, config.grid, rotary=False)
            for _ in range(config.encoder_layers)
        )
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.out = nn.Linear(width, config.code_dim)

    def forward(self, pixels: Tensor, hidden_clips: Tensor | None = None) -> Tensor:
        """(B, T, H, W, 3) in 0..1 to latents (B, T, N, d)."""
        x = self._embed(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        for block in self.blocks:
            x = block(x, hidden_clips)
        return self.out(self.norm(x))

    def stream(self, pixels: Tensor, past: list[LayerPast]) -> tuple[Tensor, list[LayerKV]]:
        """One frame (B, H, W, 3) against the past: latents (B, N, d) and the frame's keys and values."""
        x, kept = stream_blocks(self.blocks, self._embed(pixels), past)
        return self.out(self.norm(x)), kept

    def _embed(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) to (B, N, D)."""
        return self.trunk(_whole(pixels, self.config)).flatten(2).mT + self.place


def _whole(pixels: Tensor, config: TokenizerConfig) -> Tensor:
    """Pictures (B, H, W, 3) in 0..1 as a trunk takes them: (B, 3, H, W) in -1..1, filled up to whole patches."""
    (rows, columns), (down, across) = config.grid, config.patch_size
    x = pixels.permute(0, 3, 1, 2) * 2 - 1
    x = F.pad(x, (0, columns * across - config.width, 0, rows * down - config.height), mode="replicate")
    return x.contiguous(memory_format=torch.channels_last)


class Decoder(nn.Module):
    """Unit codes (B, T, N, d) to pictures; with `look` in the light of a picture that was given."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width, cell = config.decoder_width, config.cell
        self.enter = nn.Linear(config.code_dim, width)
        self.place = nn.Parameter(torch.zeros(config.n_tokens, width))
        self.blocks = nn.ModuleList(
            STBlock(width, config.decoder_heads, config.head_dim, config.ffn, config.window, config.grid, rotary=False)
            for _ in range(config.decoder_layers)
        )
        if config.look:
            self.recall = Recall(config)
        self.rise = config.decoder_blocks + 2  # layers of a conv trunk before the finer places
        if config.trunk == "conv":
            self.trunk = nn.Sequential(
                *(ConvBlock(width) for _ in range(config.decoder_blocks)),
                Conv(width, math.prod(config.cells) * config.stem),
                Spread(config.cells),
                ConvBlock(config.stem),
                ConvBlock(config.stem),
                nn.GroupNorm(8, config.stem),
                nn.Conv2d(config.stem, 3 * cell**2, 3, padding=1),
                nn.PixelShuffle(cell),
            )
        else:
            self.norm = nn.RMSNorm(width, eps=1e-6)
            self.trunk = nn.Sequential(nn.Conv2d(width, 3 * cell**2, 1), nn.PixelShuffle(cell))

    def forward(self, codes: Tensor, hidden_clips: Tensor | None = None, look: Look | None = None) -> Tensor:
        """(B, T, N, d) to pixels (B, T, H, W, 3), about 0..1."""
        x, seen = self.begin(codes, look)
        for block in self.blocks:
            x = block(x, hidden_clips)
        return self._paint(x.flatten(0, 1), None if seen is None else seen.flatten(0, 1)).unflatten(0, codes.shape[:2])

    def stream(self, codes: Tensor, past: list[LayerPast], look: Look | None = None) -> tuple[Tensor, list[LayerKV]]:
        """One frame (B, N, d) against the past: pixels (B, H, W, 3) and the frame's keys and values."""
        x, seen = self.begin(codes, look)
        x, kept = stream_blocks(self.blocks, x, past)
        return self._paint(x, seen), kept

    def begin(self, codes: Tensor, look: Look | None) -> tuple[Tensor, Tensor | None]:
        """Codes (B, ..., N, d) as the blocks take them, (B, ..., N, D), and what they recall of the look, if any."""
        kind = self.place.dtype
        x = self.enter(codes.to(kind)) + self.place
        if look is None:
            return x, None
        seen = self.recall(codes, look).to(kind)
        return x + self.recall.hint(seen), seen

    def patches(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, N, D) as all but the trunk's last shuffle leaves it: (B, 3 cell^2, places, places)."""
        last = self.trunk[-2].weight
        assert isinstance(last, Tensor)
        x = self.grid(x).to(last.dtype)
        if seen is None:
            made: Tensor = self.trunk[:-1](x)
            return made
        x = self.trunk[: self.rise](x)
        made = self.trunk[self.rise : -1](x + self.recall.channels(seen).to(x.dtype))
        return made

    def _paint(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """(B, N, D) to (B, H, W, 3)."""
        pixels = self.trunk[-1](self.patches(x, seen))[:, :, : self.config.height, : self.config.width]
        return pixels.permute(0, 2, 3, 1) * 0.5 + 0.5

    def grid(self, x: Tensor) -> Tensor:
        """(B, N, D) as the trunk takes it: (B, D, rows, columns)."""
        if self.config.trunk == "patch":
            x = self.norm(x)
        return x.mT.unflatten(2, self.config.grid).contiguous(memory_format=torch.channels_last)


class Tokenizer(nn.Module):
    """Encoder, quantizer and decoder."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        if config.trunk not in ("conv", "patch"):
            raise ValueError(f"no tokenizer trunk is called {config.trunk!r}")
        if config.look and config.trunk != "conv":
            raise ValueError("a decoder that keeps to a look has a conv trunk")
        if any(side % config.cell or (config.look and side % LOOK_OFFSETS) for side in config.patch_size):
            raise ValueError(f"patches of {config.patch_size} pixels do not divide into places of {config.cell}")
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = Quantizer(config.codes, config.code_dim)
        self.decoder = Decoder(config)
        self.encoder_shape = CacheShape(config.encoder_layers, config.encoder_heads, config.head_dim, config.window)
        self.decoder_shape = CacheShape(config.decoder_layers, config.decoder_heads, config.head_dim, config.window)

    def forward(self, pixels: Tensor, hidden_clips: Tensor | None = None) -> Reconstruction:
        """A training pass over clips (B, T, H, W, 3) in 0..1; `hidden_clips` (B,) bool: no history for these."""
        latents = self.encoder(pixels, hidden_clips)
        quantized = self.quantizer(latents)
        return Reconstruction(
            self.decoder(quantized.vectors, hidden_clips, self.look(pixels[:, 0])), latents, quantized
        )

    @torch.no_grad()
    def look(self, pictures: Tensor) -> Look | None:
        """What the decoder keeps of pictures (B, H, W, 3) in 0..1; None where its config has no look."""
        config = self.config
        if not config.look:
            return None
        shifted, pieces = cut(_whole(pictures, config), config.patch_size)
        frames = (shifted.permute(0, 1, 3, 4, 2) * 0.5 + 0.5)[:, :, : config.height, : config.width]
        latents = self.encoder(frames.flatten(0, 1)[:, None]).unflatten(0, frames.shape[:2]).flatten(1, 3)
        return Look(F.normalize(latents.float(), dim=-1), pieces)

    def encode(self, pixels: Tensor) -> Tensor:
        """Clips (B, T, H, W, 3) in 0..1 to tokens (B, T, N) int64."""
        return self.quantizer(self.encoder(pixels)).tokens

    def decode(self, tokens: Tensor, look: Look | None = None) -> Tensor:
        """Tokens (B, T, N) to pixels (B, T, H, W, 3), about 0..1."""
        return self.decoder(self.quantizer.lookup(tokens), None, look)

    def encode_step(self, pixels: Tensor, past: list[LayerPast]) -> tuple[Tensor, list[LayerKV]]:
        """One frame (B, H, W, 3) in 0..1 to tokens (B, N) int64, and its keys and values."""
        latents, kept = self.encoder.stream(pixels, past)
        return self.quantizer(latents).tokens, kept

    def decode_step(
        self, tokens: Tensor, past: list[LayerPast], look: Look | None = None
    ) -> tuple[Tensor, list[LayerKV]]:
        """One frame of tokens (B, N) to pixels (B, H, W, 3), about 0..1, and its keys and values."""
        return self.decoder.stream(self.quantizer.lookup(tokens), past, look)
