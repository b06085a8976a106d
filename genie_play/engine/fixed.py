"""A ring of keys and values that is written by a list of operations that never changes: for captured frames.

The same memory and the same meaning as `state.Ring` of batch 1, but the slot of the next frame is a number in device
memory and every write goes through it. The spatial keys of the frame before are kept in place, with a copy to undo a
commit by. With `fp8` past frames are stored in e4m3, a scale for each (location, head, slot).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genie_play.engine.state import Snapshot, slot_of
from genie_play.nn.st_transformer import LayerKV, LayerPast
from genie_play.nn.tokenizer import CacheShape
from genie_play.ops.between_reference import FP8, Rows, dequantise, quantise_rows


@dataclass(frozen=True)
class FixedSnapshot(Snapshot):
    """A copy of a fixed ring after some frame; scales (2, L, 1, N, h, P) of a ring in fp8, else empty."""

    scales: Tensor

    @property
    def nbytes(self) -> int:
        return super().nbytes + _nbytes(self.scales)


class FixedRing:
    """Keys and values of the last W - 1 frames of one network, all layers, at addresses that never change.

    `write` is what a captured frame does, `advance` tells the host of it; `commit` is both. `past(first=True)` is what
    the first frame after a clear reads. `quantise` makes the rows of a ring in fp8; a kernel does it in one pass.
    """

    def __init__(
        self,
        shape: CacheShape,
        n_tokens: int,
        cross_frame: bool,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        fp8: bool = False,
        quantise: Callable[[Tensor], Rows] = quantise_rows,
    ) -> None:
        layers, heads, head_dim = shape.layers, shape.heads, shape.head_dim
        self.slots, self.window, self.cross_frame, self.fp8 = shape.window - 1, shape.window, cross_frame, fp8
        self.anchor, self.quantise = shape.anchor, quantise
        # a layer reaches back its window, and one frame more where it reads the keys of the frame before
        self.reach = layers * (self.slots - self.anchor + cross_frame)
        self.position = self.start = 0
        self.dtype = dtype

        def zeros(*size: int, kind: torch.dtype = dtype) -> Tensor:
            return torch.zeros(size, device=device, dtype=kind)

        # keys, values; e4m3 lives as bytes, which every operation can move
        kind = torch.uint8 if fp8 else dtype
        self.temporal = zeros(2, layers, 1, n_tokens, heads, self.slots, head_dim, kind=kind)
        self.scales = zeros(2, layers, 1, n_tokens, heads, self.slots if fp8 else 0, kind=torch.float32)
        self.spatial = zeros(2, layers if cross_frame else 0, 1, heads, n_tokens, head_dim)
        self.ages = zeros(self.slots, kind=torch.int64)
        self.slot = zeros(1, kind=torch.int64)
        self._held = [(a, torch.zeros_like(a)) for a in (self.spatial, self.ages)]  # and what they were, to undo
        rings = [(a, dim) for a, dim in ((self.temporal, 5), (self.scales, 5)) if a.shape[dim]]
        self._rings = [(a, dim, torch.zeros_like(a.narrow(dim, 0, 1))) for a, dim in rings]
        self._can_rewind = False
        self.clear()

    def clear(self, position: int = 0) -> None:
        """Forget everything; the next frame is at `position`."""
        self.position = self.start = position
        self.ages.fill_(self.window)
        self._point()
        self._can_rewind = False

    def skip(self, position: int) -> None:
        """Go on at `position` after the anchor alone: the frames between are left out."""
        if not self.anchor or self.position != self.start + 1:
            raise ValueError("only a ring that holds an anchor alone can leave frames out")
        self.position = position
        self.ages[0] = min(position - self.start, self.slots)
        self._point()
        self._can_rewind = False

    def past(self, first: bool | None = None) -> list[LayerPast]:
        """What the layers may read, as views (copies in fp8); `first` leaves out the frame before."""
        first = self.position == self.start if first is None else first
        keys, values = self.plain()
        spatial = self.spatial if self.cross_frame and not first else None
        return [
            LayerPast(
                None if spatial is None else spatial[0, layer],
                None if spatial is None else spatial[1, layer],
                keys[layer],
                values[layer],
                self.ages,
            )
            for layer in range(self.temporal.shape[1])
        ]

    def plain(self) -> Tensor:
        """(2, L, 1, N, h, P, hd) in the arithmetic of the network."""
        if not self.fp8 or not self.slots:
            return self.temporal if not self.fp8 else self.temporal.to(self.dtype)
        return dequantise(self.temporal.view(FP8), self.scales[..., None]).to(self.dtype)

    # what a captured frame does

    def keep(self) -> None:
        """Remember what a write will replace."""
        for ring, dim, evicted in self._rings:
            evicted.copy_(ring.index_select(dim, self.slot))
        for held, before in self._held:
            before.copy_(held)

    def write(self, temporal: Tensor, spatial: Tensor | None, row: Tensor | None = None) -> None:
        """Take row (1,), or 0, of a batch: temporal (2, L, B, N, h, hd), spatial (2, L, B, h, N, hd)."""
        self.keep()
        self.put(slice(None), _row(temporal, row), None if spatial is None else _row(spatial, row))
        self.turn()

    def put(self, layers: slice, temporal: Tensor, spatial: Tensor | None) -> None:
        """Write keys and values of some layers, (2, l, 1, N, h, hd) and (2, l, 1, h, N, hd), over the next slot."""
        if self.slots and self.fp8:
            numbers, scales = self.quantise(temporal)
            self.temporal[:, layers].index_copy_(5, self.slot, numbers.view(torch.uint8).unsqueeze(5))
            self.scales[:, layers].index_copy_(5, self.slot, scales)
        elif self.slots:
            self.temporal[:, layers].index_copy_(5, self.slot, temporal.unsqueeze(5))
        if self.cross_frame:
            assert spatial is not None
            self.spatial[:, layers].copy_(spatial)

    def turn(self) -> None:
        """Let time pass: the frame just written is 1 old, the next one goes to the next slot."""
        if self.slots:
            self.ages.copy_(next_ages(self))
            if self.anchor:
                self.slot.remainder_(self.slots - 1).add_(1)
            else:
                self.slot.add_(1).remainder_(self.slots)

    # what the host does

    def advance(self) -> None:
        """A frame was written."""
        self.position += 1
        self._can_rewind = True

    def commit(self, kept: list[LayerKV], row: int | None = None) -> None:
        """Write the keys and values of the next frame; `row` is that of a batch."""
        self.write(*stacked(kept, self.cross_frame), None if row is None else self.slot.new_tensor([row]))
        self.advance()

    def rewind(self) -> None:
        """Undo the last commit, bit for bit."""
        if not self._can_rewind:
            raise ValueError("there is no commit to undo")
        self.position -= 1
        self._point()
        for ring, dim, evicted in self._rings:
            ring.index_copy_(dim, self.slot, evicted)
        for held, before in self._held:
            held.copy_(before)
        self._can_rewind = False

    def snapshot(self) -> FixedSnapshot:
        """A copy of everything but the way back."""
        copies = (self.temporal.clone(), self.spatial.clone(), self.ages.clone())
        return FixedSnapshot(*copies, self.position, self.start, self.scales.clone())

    def load(self, snapshot: Snapshot) -> None:
        """Become what a snapshot was taken of."""
        assert isinstance(snapshot, FixedSnapshot)
        self.temporal.copy_(snapshot.temporal)
        self.scales.copy_(snapshot.scales)
        self.spatial.copy_(snapshot.spatial)
        self.ages.copy_(snapshot.ages)
        self.position, self.start = snapshot.position, snapshot.start
        self._point()
        self._can_rewind = False

    @property
    def nbytes(self) -> int:
        """Bytes of a snapshot."""
        return _nbytes(self.temporal, self.scales, self.spatial, self.ages)

    def _point(self) -> None:
        self.slot.fill_(slot_of(self.position, self.start, self.slots, self.anchor))


def next_ages(ring: FixedRing) -> Tensor:
    """(P,) int64: how old the slots will be once the frame under way is in the ring."""
    if not ring.slots:
        return ring.ages
    ages = (ring.ages + 1).index_fill(0, ring.slot, 1)
    if ring.anchor:
        ages[:1].clamp_(max=ring.slots)
    return ages


def stacked(kept: list[LayerKV], cross_frame: bool) -> tuple[Tensor, Tensor | None]:
    """The keys and values of all layers: temporal (2, L, B, N, h, hd), spatial (2, L, B, h, N, hd) or None."""
    temporal = torch.stack([kv.temporal_k for kv in kept] + [kv.temporal_v for kv in kept])
    temporal = temporal.unflatten(0, (2, len(kept)))
    if not cross_frame:
        return temporal, None
    spatial = torch.stack([kv.spatial_k for kv in kept] + [kv.spatial_v for kv in kept])
    return temporal, spatial.unflatten(0, (2, len(kept)))


def _row(batch: Tensor, row: Tensor | None) -> Tensor:
    return batch if batch.shape[2] == 1 else batch[:, :, :1] if row is None else batch.index_select(2, row)


def _nbytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
