"""The ST-transformer block: attention inside a frame, attention along time, one feed-forward after both.

Bruce et al. 2024, section 2 (the block); DESIGN 4 (banded temporal window, keys of the previous frame). Positions in
space are 2-D rotary, positions in time a learned bias per head and distance, so that a ring of cached keys needs no
rotation and its slots no order. Knows nothing of tokens, pictures or masks.

A block runs in three ways that compute the same function:
- `forward` over a clip, one stream (B, T, N, D);
- `forward` over a clip, two streams (2, B, T, N, D): stream 0 is clean; frame t of stream 1 sees the clean frames
  before t and itself (complete teacher forcing, Zhou et al. 2025, arXiv 2501.12389);
- `stream` over one frame against cached keys and values.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_play.ops.reference import temporal

ROTARY_BASE = 100.0  # the grids are a few dozen tokens wide


class LayerPast(NamedTuple):
    """Cached keys and values that one layer reads. Batch 1 broadcasts over the batch of the frame.

    spatial_k, spatial_v: (B, h, N, hd) of the frame before; None where the recipe has none, or before the first frame.
    temporal_k, temporal_v: (B, N, h, P, hd) ring of P slots. ages: (P,) int64, how many frames ago each slot was;
    1..W-1 is seen, anything else is not. With an anchor the first frame is W-1 old when it is older.
    """

    spatial_k: Tensor | None
    spatial_v: Tensor | None
    temporal_k: Tensor
    temporal_v: Tensor
    ages: Tensor


class LayerKV(NamedTuple):
    """Keys and values of the current frame: spatial (B, h, N, hd), temporal (B, N, h, hd)."""

    spatial_k: Tensor
    spatial_v: Tensor
    temporal_k: Tensor
    temporal_v: Tensor


class Attention(nn.Module):
    """Projections of multi-head attention with QK-norm (Henry et al. 2020); what attends to what is the caller's."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, width, bias=False)
        self.q_scale = nn.Parameter(torch.full((head_dim,), 1.5))
        self.k_scale = nn.Parameter(torch.full((head_dim,), 1.5))
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.zeros_(self.out.weight)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) to queries and keys (..., 2, h, hd) and values (..., h, hd); queries come scaled by hd**-0.5."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.head_dim))
        scale = torch.stack((self.q_scale * self.head_dim**-0.5, self.k_scale))[:, None]
        qk = F.rms_norm(qkv[..., :2, :, :], (self.head_dim,), eps=1e-6) * scale.to(qkv.dtype)
        return qk, qkv[..., 2, :, :]


class STBlock(nn.Module):
    """One block. `rotary`: 2-D rotary positions in space; `cross_frame`: a frame also reads the one before it;
    `anchor`: the oldest place of the window is the first frame's for good, however long ago it was."""

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        ffn: float,
        window: int,
        grid: tuple[int, int],
        *,
        rotary: bool = True,
        cross_frame: bool = False,
        anchor: bool = False,
    ) -> None:
        super().__init__()
        self.window, self.grid, self.rotary, self.cross_frame = window, grid, rotary, cross_frame
        self.anchor = anchor
        self.spatial_norm = nn.RMSNorm(width, eps=1e-6)
        self.spatial = Attention(width, heads, head_dim)
        self.temporal_norm = nn.RMSNorm(width, eps=1e-6)
        self.temporal = Attention(width, heads, head_dim)
        self.time_bias = nn.Parameter(torch.zeros(heads, window))
        self.ffn_norm = nn.RMSNorm(width, eps=1e-6)
        hidden = int(width * ffn)
        self.ffn_in = nn.Linear(width, hidden, bias=False)
        self.ffn_out = nn.Linear(hidden, width, bias=False)
        nn.init.normal_(self.ffn_in.weight, std=width**-0.5)
        nn.init.zeros_(self.ffn_out.weight)
        if cross_frame:
            self.previous_key = nn.Parameter(torch.zeros(heads, 1, head_dim))
        if rotary:
            self.register_buffer("rotary_cos", None, persistent=False)
            self.register_buffer("rotary_sin", None, persistent=False)
            self.place_rotary()

    def place_rotary(self, device: torch.device | str | None = None) -> None:
        """Compute the rotary tables (again): they are not stored, and a model built on the meta device has none."""
        if self.rotary:
            cos, sin = rotary_table(self.grid, self.spatial.head_dim)
            self.rotary_cos, self.rotary_sin = cos.to(device), sin.to(device)

    def forward(self, x: Tensor, hidden_clips: Tensor | None = None) -> Tensor:
        """Run over whole clips: (B, T, N, D), or (2, B, T, N, D) for a clean and a masked stream.

        `hidden_clips` (B,) bool: clips whose history the temporal layer may not see (one stream only).
        """
        streams = x if x.dim() == 5 else x[None]
        streams = streams + self._spatial(self.spatial_norm(streams))
        streams = streams + self._temporal(self.temporal_norm(streams), hidden_clips)
        streams = streams + self._feed_forward(streams)
        return streams if x.dim() == 5 else streams[0]

    def stream(self, x: Tensor, past: LayerPast, rows: Tensor | None = None) -> tuple[Tensor, LayerKV]:
        """Run one frame (B, N, D) against the past; return it and its own keys and values.

        With `rows` (R,), positions, only their part of the frame is worked out, (B, R, D), and only their temporal keys
        and values are returned.
        """
        qk, v = self.spatial.project(self.spatial_norm(x))
        q, k = self._rotate(qk).transpose(1, 3).unbind(2)  # (B, h, N, hd)
        if rows is not None:
            x, q = x.index_select(1, rows), q.index_select(2, rows)
        v = v.transpose(1, 2)
        keys, values = k, v
        if self.cross_frame:
            before_k = k if past.spatial_k is None else past.spatial_k.expand_as(k)
            before_v = v if past.spatial_v is None else past.spatial_v.expand_as(v)
            keys, values = torch.cat((before_k + self.previous_key, k), 2), torch.cat((before_v, v), 2)
        seen = attend(q, keys, values)
        x = x + self.spatial.out(seen.transpose(1, 2).flatten(2))

        qk, tv = self.temporal.project(self.temporal_norm(x))
        tq, tk = qk.unbind(2)  # (B, N, h, hd)
        bias = torch.cat((self._past_bias(past.ages), self.time_bias[:, :1]), -1)
        ring_k, ring_v = past.temporal_k, past.temporal_v
        if rows is not None:
            ring_k, ring_v = ring_k.index_select(1, rows), ring_v.index_select(1, rows)
        seen = temporal(tq, tk, tv, ring_k, ring_v, bias)
        x = x + self.temporal.out(seen.flatten(2))
        return x + self._feed_forward(x), LayerKV(k, v, tk, tv)

    def _spatial(self, x: Tensor) -> Tensor:
        """x (S, B, T, N, D), normalised."""
        qk, v = self.spatial.project(x)
        q, k = self._rotate(qk).transpose(3, 5).unbind(4)  # (S, B, T, h, N, hd)
        v = v.transpose(3, 4)
        if self.cross_frame:
            # the frame before the first is the first itself; the frame before any other is the clean one
            before_k, before_v = (
                torch.cat((a[:, :, :1], a[:1, :, :-1].expand(a.shape[0], -1, -1, -1, -1, -1)), 2) for a in (k, v)
            )
            k, v = torch.cat((before_k + self.previous_key.to(k.dtype), k), -2), torch.cat((before_v, v), -2)
        seen = attend(*(a.flatten(0, 2) for a in (q, k, v)))
        return self.spatial.out(seen.transpose(1, 2).flatten(2).unflatten(0, x.shape[:3]))

    def _temporal(self, x: Tensor, hidden_clips: Tensor | None) -> Tensor:
        """x (S, B, T, N, D), normalised; both streams attend in one product of length S * T."""
        streams, frames = x.shape[0], x.shape[2]
        qk, v = self.temporal.project(x)
        q, k, v = (a.permute(1, 3, 4, 0, 2, 5).flatten(3, 4) for a in (*qk.unbind(4), v))  # (B, N, h, S*T, hd)
        scores = q @ k.mT + self._band(streams, frames).to(q.dtype)
        if hidden_clips is not None:
            others = ~torch.eye(frames, dtype=torch.bool, device=x.device)
            scores = scores.masked_fill(hidden_clips[:, None, None, None, None] & others, -math.inf)
        seen = (scores.softmax(-1).to(v.dtype) @ v).unflatten(3, (streams, frames))  # (B, N, h, S, T, hd)
        return self.temporal.out(seen.permute(3, 0, 4, 1, 2, 5).flatten(4))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.ffn_out(F.relu(self.ffn_in(self.ffn_norm(x))).square())

    def _rotate(self, x: Tensor) -> Tensor:
        """(..., N, 2, h, hd) turned by its place on the grid."""
        return rotate(x, self.rotary_cos.to(x.dtype), self.rotary_sin.to(x.dtype)) if self.rotary else x

    def _past_bias(self, ages: Tensor) -> Tensor:
        """(h, P): the bias of each slot, -inf where it is not to be seen."""
        seen = (ages > 0) & (ages < self.window)
        return self.time_bias[:, ages.clamp(0, self.window - 1)].masked_fill(~seen, -math.inf)

    def _band(self, streams: int, frames: int) -> Tensor:
        """(h, S*T, S*T): time bias inside the window, -inf outside; the masked stream sees clean frames before it."""
        time = torch.arange(frames, device=self.time_bias.device)
        age = time[:, None] - time[None, :]  # (T, T) how long before the query the key is
        # a place for every age there is, those to come first: an index that is clamped instead ends Inductor (2.11)
        known = min(self.window - self.anchor, frames)
        never = self.time_bias.new_full((self.time_bias.shape[0], frames), -math.inf)
        bias = torch.cat((never[:, 1:], self.time_bias[:, :known], never[:, known:]), -1)
        own = bias[:, age + frames - 1]
        if self.anchor:
            oldest = self.time_bias[:, -1:].expand(-1, frames - known)
            first = torch.cat((self.time_bias[:, :known], oldest), -1)
            own = torch.cat((first[..., None], own[..., 1:]), -1)
        if streams == 1:
            return own
        past_only, itself = own.masked_fill(age < 1, -math.inf), own.masked_fill(age != 0, -math.inf)
        nothing = torch.full_like(own, -math.inf)
        return torch.cat((torch.cat((own, nothing), -1), torch.cat((past_only, itself), -1)), -2)


def stream_blocks(
    blocks: nn.ModuleList, x: Tensor, past: list[LayerPast], rows: Tensor | None = None
) -> tuple[Tensor, list[LayerKV]]:
    """Run one frame (B, N, D) through a stack of blocks; return it and what each block would have cached.

    With `rows` (R,), positions, the last block works out their part of the frame alone, (B, R, D): after it nothing
    mixes places any more. Its temporal keys and values are then those of the rows.
    """
    kept = []
    for number, (block, layer_past) in enumerate(zip(blocks, past, strict=True), start=1):
        x, kv = cast(STBlock, block).stream(x, layer_past, rows if number == len(blocks) else None)
        kept.append(kv)
    return x, kept


def rotary_table(grid: tuple[int, int], head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines (N, 1, 1, hd) of 2-D rotary positions: half the dimensions turn with the row, half with
    the column (Su et al. 2021, per axis)."""
    if head_dim % 4:
        raise ValueError("2-D rotary positions need a head size that is a multiple of 4")
    frequencies = ROTARY_BASE ** -(torch.arange(head_dim // 4, dtype=torch.float32) / (head_dim // 4))
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angles = torch.stack((rows.flatten(), columns.flatten()), -1)[..., None].float() * frequencies  # (N, 2, f)
    cos = torch.stack((angles.cos(), angles.cos()), -2).flatten(1)
    sin = torch.stack((-angles.sin(), angles.sin()), -2).flatten(1)
    return cos[:, None, None], sin[:, None, None]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over (B, h, N, hd), everything seen, queries scaled already.

    On a CPU two products beat the fused operator (measured: its backward is several times slower at these sizes).
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return (q @ k.mT).softmax(-1).to(v.dtype) @ v


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply a rotary table to (..., N, 2, h, hd)."""
    swapped = x.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3)
    return x * cos + swapped * sin
