"""What the engine remembers between frames: rings of cached keys and values, and a pool of their copies.

Memory is allocated once. A frame is written over the slot it falls on and nothing is ever moved: its position says
which slot that is, and a vector of ages what may be seen. Knows nothing of tokens, actions or pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from genie_play.nn.st_transformer import LayerKV, LayerPast
from genie_play.nn.tokenizer import CacheShape

POOL_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Snapshot:
    """A copy of a ring after some frame."""

    temporal: Tensor
    spatial: Tensor
    ages: Tensor
    position: int
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return _nbytes(self.temporal, self.spatial, self.ages)


class Ring:
    """Keys and values of the last W - 1 frames of one network, all layers; `batch` play-throughs side by side. With an
    anchor the first frame after a clear keeps slot 0 for good, its age stops at W - 1, and the others share the rest.

    `position` is that of the next frame to be committed. With `cross_frame` the spatial keys and values of the last
    frame are kept too. The last commit can be undone, once.
    """

    def __init__(
        self,
        shape: CacheShape,
        n_tokens: int,
        cross_frame: bool,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        batch: int = 1,
    ) -> None:
        layers, heads, head_dim = shape.layers, shape.heads, shape.head_dim
        self.slots, self.window, self.cross_frame = shape.window - 1, shape.window, cross_frame
        self.anchor = shape.anchor
        # a layer reaches back its window, and one frame more where it reads the keys of the frame before
        self.reach = layers * (self.slots - self.anchor + cross_frame)
        self.position = self.start = 0

        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, device=device, dtype=dtype)

        self._temporal = zeros(2, layers, batch, n_tokens, heads, self.slots, head_dim)  # keys, values
        # this frame's and the one before it, so that a commit can be undone by turning back
        self._spatial = zeros(2, 2, layers if cross_frame else 0, batch, heads, n_tokens, head_dim)
        self._turn = 0
        self._ages = torch.zeros(self.slots, dtype=torch.int64, device=device)
        self._evicted = torch.zeros_like(self._temporal[..., 0, :]) if self.slots else None
        self._evicted_ages = torch.zeros_like(self._ages)
        self._can_rewind = False
        self._pasts = [
            [
                LayerPast(
                    self._spatial[turn, 0, layer] if cross_frame and turn is not None else None,
                    self._spatial[turn, 1, layer] if cross_frame and turn is not None else None,
                    self._temporal[0, layer],
                    self._temporal[1, layer],
                    self._ages,
                )
                for layer in range(layers)
            ]
            for turn in (0, 1, None)
        ]
        self.clear()

    def clear(self, position: int = 0) -> None:
        """Forget everything; the next frame is at `position`."""
        self.position = self.start = position
        self._ages.fill_(self.window)
        self._can_rewind = False

    def skip(self, position: int) -> None:
        """Go on at `position` after the anchor alone: the frames between are left out."""
        if not self.anchor or self.position != self.start + 1:
            raise ValueError("only a ring that holds an anchor alone can leave frames out")
        self.position = position
        self._ages[0] = min(position - self.start, self.slots)
        self._can_rewind = False

    def past(self) -> list[LayerPast]:
        """What the layers may read, as views: good until the next change."""
        return self._pasts[2 if self.position == self.start else self._turn]

    def commit(self, kept: list[LayerKV], row: int | None = None) -> None:
        """Write the keys and values of the next frame; `row` takes one of a batch into a ring of batch 1."""
        rows = slice(None) if row is None else slice(row, row + 1)
        if self.slots:
            slot = self._slot()
            assert self._evicted is not None
            self._evicted.copy_(self._temporal[..., slot, :])
            self._evicted_ages.copy_(self._ages)
            for layer, kv in enumerate(kept):
                self._temporal[0, layer, :, :, :, slot] = kv.temporal_k[rows]
                self._temporal[1, layer, :, :, :, slot] = kv.temporal_v[rows]
            self._ages += 1
            self._ages[slot] = 1
            if self.anchor:
                self._ages[:1].clamp_(max=self.slots)
        if self.cross_frame:
            self._turn = 1 - self._turn
            for layer, kv in enumerate(kept):
                self._spatial[self._turn, 0, layer] = kv.spatial_k[rows]
                self._spatial[self._turn, 1, layer] = kv.spatial_v[rows]
        self.position += 1
        self._can_rewind = True

    def rewind(self) -> None:
        """Undo the last commit, bit for bit."""
        if not self._can_rewind:
            raise ValueError("there is no commit to undo")
        self.position -= 1
        if self.slots:
            assert self._evicted is not None
            self._temporal[..., self._slot(), :] = self._evicted
            self._ages.copy_(self._evicted_ages)
        self._turn = 1 - self._turn
        self._can_rewind = False

    def snapshot(self) -> Snapshot:
        """A copy of everything but the way back."""
        return Snapshot(
            self._temporal.clone(), self._spatial[self._turn].clone(), self._ages.clone(), self.position, self.start
        )

    def load(self, snapshot: Snapshot) -> None:
        """Become what a snapshot was taken of."""
        self._temporal.copy_(snapshot.temporal)
        self._spatial[self._turn].copy_(snapshot.spatial)
        self._ages.copy_(snapshot.ages)
        self.position, self.start = snapshot.position, snapshot.start
        self._can_rewind = False

    @property
    def nbytes(self) -> int:
        """Bytes of a snapshot."""
        return _nbytes(self._temporal, self._spatial[0], self._ages)

    def _slot(self) -> int:
        return slot_of(self.position, self.start, self.slots, self.anchor)


def slot_of(position: int, start: int, slots: int, anchor: bool) -> int:
    """The slot that the frame at `position` falls on, in a ring that was cleared to `start`."""
    if not anchor:
        return position % max(slots, 1)
    return 0 if position == start else 1 + (position - start - 1) % (slots - 1)


class Pool:
    """Snapshots by key, bounded in bytes; the one used longest ago goes first."""

    def __init__(self, limit: int = POOL_BYTES) -> None:
        self.limit, self.nbytes = limit, 0
        self._kept: OrderedDict[bytes, tuple[Snapshot, ...]] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: bytes, snapshots: tuple[Snapshot, ...]) -> None:
        """Keep the snapshots under a key, and let older ones go to stay within the limit."""
        self.discard(key)
        self._kept[key] = snapshots
        self.nbytes += _size(snapshots)
        while self.nbytes > self.limit:
            self.discard(next(iter(self._kept)))

    def get(self, key: bytes) -> tuple[Snapshot, ...]:
        """The snapshots under a key, which now count as used; KeyError if there are none."""
        self._kept.move_to_end(key)
        return self._kept[key]

    def discard(self, key: bytes) -> None:
        """Let go of a key, if it is there."""
        self.nbytes -= _size(self._kept.pop(key, ()))

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        self.nbytes = 0


def _nbytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _size(snapshots: tuple[Snapshot, ...]) -> int:
    return sum(snapshot.nbytes for snapshot in snapshots)
