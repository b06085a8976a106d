"""A stack of ST blocks run on one frame against a fixed ring: as the networks do it, or as the kernels do.

Two ways with one face. `PlainStack` calls `STBlock.stream`; `FusedStack` (`fused.py`) makes few launches of it. Knows
nothing of tokens, pictures or what a pass is for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from genie_play.engine.fixed import FixedRing, next_ages, stacked
from genie_play.nn.st_transformer import LayerKV, LayerPast, STBlock


class Stack(Protocol):
    """Blocks and the norm after them. Frames are (B, N, D); the ring's one past serves all rows."""

    def look(self, ring: FixedRing) -> Any:
        """What the passes of a frame must know of the ring, once a frame."""
        ...

    def read(self, x: Tensor, ring: FixedRing, view: Any) -> Tensor:
        """Hidden states, normed."""
        ...

    def keep(self, x: Tensor, ring: FixedRing, first: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """The same, and keys and values: temporal (2, L, B, N, h, hd), spatial (2, L, B, h, N, hd) or None.

        `first`: there is no frame before this one.
        """
        ...

    def pair(self, old: Tensor, new: Tensor, ring: FixedRing) -> Tensor:
        """Commit a frame (1, N, D) to the ring and run those after it, (B, N, D): hidden states, in one pass."""
        ...


class PlainStack:
    """The blocks' own `stream`. `norm` follows them; `stream` may be a compiled one."""

    def __init__(
        self,
        blocks: nn.ModuleList,
        norm: nn.Module | None,
        stream: Callable[[STBlock, Tensor, LayerPast], tuple[Tensor, LayerKV]] = STBlock.stream,
    ) -> None:
        self.blocks = [block for block in blocks if isinstance(block, STBlock)]
        self.norm = norm or nn.Identity()
        self.stream = stream

    def look(self, ring: FixedRing) -> list[LayerPast]:
        return ring.past(first=False)

    def read(self, x: Tensor, ring: FixedRing, view: list[LayerPast]) -> Tensor:
        for block, past in zip(self.blocks, view, strict=True):
            x, _ = self.stream(block, x, past)
        hidden: Tensor = self.norm(x)
        return hidden

    def keep(self, x: Tensor, ring: FixedRing, first: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        kept = []
        for block, past in zip(self.blocks, ring.past(first=first), strict=True):
            x, kv = self.stream(block, x, past)
            kept.append(kv)
        return self.norm(x), *stacked(kept, ring.cross_frame)

    def pair(self, old: Tensor, new: Tensor, ring: FixedRing) -> Tensor:
        ring.keep()
        ages = next_ages(ring)
        for layer, block in enumerate(self.blocks):
            old, kv = self.stream(block, old, ring.past(first=False)[layer])
            ring.put(slice(layer, layer + 1), *stacked([kv], ring.cross_frame))
            new, _ = self.stream(block, new, ring.past(first=False)[layer]._replace(ages=ages))
        ring.turn()
        hidden: Tensor = self.norm(new)
        return hidden


def compiled(backend: Any = "inductor") -> Callable[[STBlock, Tensor, LayerPast], tuple[Tensor, LayerKV]]:
    """`STBlock.stream` compiled, without graphs of its own; one compilation serves all layers of a shape."""
    mode = "max-autotune-no-cudagraphs" if backend == "inductor" else None
    made: Callable[[STBlock, Tensor, LayerPast], tuple[Tensor, LayerKV]] = torch.compile(
        STBlock.stream, mode=mode, dynamic=False, backend=backend
    )
    return made
