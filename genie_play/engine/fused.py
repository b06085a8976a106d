"""A stack of ST blocks in few launches, for small layers and for large ones.

`KernelStack` makes eight kernels of a layer (`ops`), `LayerStack` one: where a layer is small, launches are what
costs. `LibraryStack` leaves the products to the library, and puts the rest into the kernels of `ops.between_*`: where a
layer is large, products are what costs; in fp8 every activation is quantised by the kernel that makes it. All are the
same function as `STBlock.stream` to rounding: sums are taken in another order. Know nothing of tokens or what a pass is
for.
"""

from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_play.engine.fixed import FixedRing, next_ages
from genie_play.nn.fp8 import Fp8Linear
from genie_play.nn.st_transformer import Attention, STBlock, attend
from genie_play.ops.between_reference import Rows
from genie_play.ops.reference_layers import Entry, Layer, Rotary


class LibraryStack:
    """See `stack.Stack`. `between` is `between_reference` or `between_triton`, `ops` a backend of the same kind."""

    def __init__(self, blocks: nn.ModuleList, norm: nn.Module | None, ops: ModuleType, between: ModuleType) -> None:
        self.blocks = [block for block in blocks if isinstance(block, STBlock)]
        self.norm, self.ops, self.between = norm or nn.Identity(), ops, between
        self.time_bias = torch.stack([block.time_bias.detach().float() for block in self.blocks])  # (L, h, W)
        self.rotary: tuple[Tensor, Tensor] | None = None
        first = self.blocks[0]
        if first.rotary:
            self.rotary = first.rotary_cos.flatten(1).contiguous(), first.rotary_sin.flatten(1).contiguous()

    def look(self, ring: FixedRing) -> Tensor:
        """(L, h, P + 1): the bias of each slot and of the frame itself, -inf where a slot is not to be seen."""
        return self._bias(ring.ages)

    def read(self, x: Tensor, ring: FixedRing, view: Tensor) -> Tensor:
        return self._run(x, ring, view, first=False, kept=None)

    def keep(self, x: Tensor, ring: FixedRing, first: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        kept: list[tuple[Tensor, ...]] = []
        hidden = self._run(x, ring, self.look(ring), first, kept)
        spatial_k, spatial_v, temporal_k, temporal_v = zip(*kept, strict=True)
        temporal = torch.stack(temporal_k + temporal_v).unflatten(0, (2, len(kept)))
        if not ring.cross_frame:
            return hidden, temporal, None
        spatial = torch.stack(spatial_k + spatial_v).transpose(2, 3).unflatten(0, (2, len(kept)))
        return hidden, temporal, spatial

    def pair(self, old: Tensor, new: Tensor, ring: FixedRing) -> Tensor:
        ring.keep()
        now, after = self._bias(ring.ages), self._bias(next_ages(ring))
        flow = _Flow(torch.cat((old, new)))
        for layer, block in enumerate(self.blocks):
            q, k, v = self._heads(flow, block.spatial_norm, block.spatial, self.rotary)
            spatial = torch.stack((k[:1], v[:1])).transpose(2, 3)[:, None]  # (2, 1, 1, h, N, hd)
            before = None
            if block.cross_frame:
                rows = (len(new), -1, -1, -1)
                before = torch.cat((ring.spatial[:, layer], spatial[:, 0].expand(-1, *rows)), 1)
            self._back(flow, self._spatial(block, q, k, v, before), block.spatial.out)
            q, k, v = self._heads(flow, block.temporal_norm, block.temporal)
            first = self._temporal(layer, q[:1], k[:1], v[:1], ring, now)
            ring.put(slice(layer, layer + 1), torch.stack((k[:1], v[:1]))[:, None], spatial)
            rest = self._temporal(layer, q[1:], k[1:], v[1:], ring, after)
            self._back(flow, torch.cat((first, rest)), block.temporal.out)
            self._feed_forward(flow, block)
        ring.turn()
        hidden: Tensor = self.norm(flow.done()[1:])
        return hidden

    def _run(
        self, x: Tensor, ring: FixedRing, bias: Tensor, first: bool, kept: list[tuple[Tensor, ...]] | None
    ) -> Tensor:
        flow = _Flow(x)
        for layer, block in enumerate(self.blocks):
            q, k, v = self._heads(flow, block.spatial_norm, block.spatial, self.rotary)
            before = ring.spatial[:, layer] if block.cross_frame and not first else None
            self._back(flow, self._spatial(block, q, k, v, before), block.spatial.out)
            tq, tk, tv = self._heads(flow, block.temporal_norm, block.temporal)
            self._back(flow, self._temporal(layer, tq, tk, tv, ring, bias), block.temporal.out)
            self._feed_forward(flow, block)
            if kept is not None:
                kept.append((k, v, tk, tv))
        hidden: Tensor = self.norm(flow.done())
        return hidden

    def _heads(
        self, flow: _Flow, norm: nn.RMSNorm, attention: Attention, rotary: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, N, h, hd) of the normed stream."""
        q, k, v = self.between.split_heads(
            self._product_of_normed(flow, norm, attention.qkv), attention.q_scale, attention.k_scale, rotary
        )
        return q, k, v

    def _product_of_normed(self, flow: _Flow, norm: nn.RMSNorm, linear: nn.Module) -> Tensor:
        if isinstance(linear, Fp8Linear):
            rows: Rows
            flow.x, rows = self.between.add_norm_quantise(flow.x, flow.pending, norm.weight)
            flow.pending = None
            return linear.of_rows(*rows)
        made: Tensor = linear(norm(flow.done()))
        return made

    def _back(self, flow: _Flow, a: Tensor, linear: nn.Module) -> None:
        """Add a product to the residual stream: (B, N, h, hd) or (B, N, F)."""
        if a.dim() == 4:
            a = a.flatten(2)
        if isinstance(linear, Fp8Linear):
            flow.add(linear.of_rows(*self.between.quantise_rows(a)))
        else:
            assert isinstance(linear, nn.Linear)
            flow.add_product(a, linear.weight)

    def _spatial(self, block: STBlock, q: Tensor, k: Tensor, v: Tensor, before: Tensor | None) -> Tensor:
        """Attention inside a frame, (B, N, h, hd); before (2, B or 1, h, N, hd) is the frame before."""
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        keys, values = k, v
        if block.cross_frame:
            before_k, before_v = (k, v) if before is None else before.expand(-1, len(k), -1, -1, -1)
            keys = torch.cat((before_k + block.previous_key, k), 2)
            values = torch.cat((before_v, v), 2)
        return attend(q, keys, values).transpose(1, 2)

    def _temporal(self, layer: int, q: Tensor, k: Tensor, v: Tensor, ring: FixedRing, bias: Tensor) -> Tensor:
        """Attention along time, (B, N, h, hd)."""
        if not ring.slots:
            return v
        scales = (ring.scales[0, layer, 0], ring.scales[1, layer, 0]) if ring.fp8 else (None, None)
        seen: Tensor = self.between.temporal(
            q, k, v, ring.temporal[0, layer, 0], ring.temporal[1, layer, 0], bias[layer], *scales
        )
        return seen

    def _feed_forward(self, flow: _Flow, block: STBlock) -> None:
        hidden = self._product_of_normed(flow, block.ffn_norm, block.ffn_in)
        if isinstance(block.ffn_out, Fp8Linear):
            flow.add(block.ffn_out.of_rows(*self.between.square_quantise(hidden)))
        else:
            self._back(flow, F.relu(hidden).square(), block.ffn_out)

    def _bias(self, ages: Tensor) -> Tensor:
        window = self.time_bias.shape[-1]
        seen = (ages > 0) & (ages < window)
        past = self.time_bias[:, :, ages.clamp(0, window - 1)].masked_fill(~seen, -torch.inf)
        return torch.cat((past, self.time_bias[:, :, :1]), -1)


class KernelStack(LibraryStack):
    """The same with a kernel for each product and all that stands before and after it."""

    def _heads(
        self, flow: _Flow, norm: nn.RMSNorm, attention: Attention, rotary: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        turn = None if rotary is None else Rotary(*rotary)
        scales = attention.q_scale, attention.k_scale
        q, k, v = self.ops.project_heads(flow.x, norm.weight, attention.qkv.weight, *scales, turn)
        return q, k, v

    def _back(self, flow: _Flow, a: Tensor, linear: nn.Module) -> None:
        flow.x = self.ops.add_product(flow.x, a.flatten(2), linear.weight)

    def _spatial(self, block: STBlock, q: Tensor, k: Tensor, v: Tensor, before: Tensor | None) -> Tensor:
        earlier = (None, None) if before is None else before.transpose(2, 3)
        seen: Tensor = self.ops.spatial(q, k, v, *earlier, block.previous_key if block.cross_frame else None)
        return seen

    def _temporal(self, layer: int, q: Tensor, k: Tensor, v: Tensor, ring: FixedRing, bias: Tensor) -> Tensor:
        if ring.fp8:
            return super()._temporal(layer, q, k, v, ring, bias)
        seen: Tensor = self.ops.temporal(q, k, v, ring.temporal[0, layer], ring.temporal[1, layer], bias[layer])
        return seen

    def _feed_forward(self, flow: _Flow, block: STBlock) -> None:
        hidden = self.ops.feed_in(flow.x, block.ffn_norm.weight, block.ffn_in.weight)
        self._back(flow, hidden, block.ffn_out)


class LayerStack(KernelStack):
    """The same with one kernel a layer, where a layer is small enough for that; else, and in `pair`, eight."""

    def __init__(self, blocks: nn.ModuleList, norm: nn.Module | None, ops: ModuleType, between: ModuleType) -> None:
        super().__init__(blocks, norm, ops, between)
        turn = None if self.rotary is None else Rotary(*self.rotary)
        self.weights, self.entries = [], []
        for b in self.blocks:
            s, t = b.spatial, b.temporal
            self.entries.append(Entry(b.spatial_norm.weight, s.qkv.weight, s.q_scale, s.k_scale, turn))
            along = b.temporal_norm.weight, t.qkv.weight, t.q_scale, t.k_scale, t.out.weight
            self.weights.append(Layer(s.out.weight, *along, b.ffn_norm.weight, b.ffn_in.weight, b.ffn_out.weight))

    def _run(
        self, x: Tensor, ring: FixedRing, bias: Tensor, first: bool, kept: list[tuple[Tensor, ...]] | None
    ) -> Tensor:
        if ring.fp8:
            return super()._run(x, ring, bias, first, kept)
        heads = self.ops.project_heads(x, *self.entries[0])
        for layer, block in enumerate(self.blocks):
            before = None
            if block.cross_frame and not first:
                before = ring.spatial[0, layer].transpose(1, 2), ring.spatial[1, layer].transpose(1, 2)
            key = block.previous_key if block.cross_frame else None
            rings = ring.temporal[0, layer], ring.temporal[1, layer]
            entry = self.entries[layer + 1] if layer + 1 < len(self.blocks) else None
            made = self.ops.layer(x, heads, before, key, rings, bias[layer], self.weights[layer], entry)
            if kept is not None:
                kept.append((heads.k, heads.v, made.k, made.v))
            x, heads = made.x, made.heads
        hidden: Tensor = self.norm(x)
        return hidden


class _Flow:
    """The residual stream (B, N, D), and what is still to be added to it."""

    def __init__(self, x: Tensor) -> None:
        self._given, self.x = x, x
        self.pending: Tensor | None = None

    def add(self, y: Tensor) -> None:
        """Add (B, N, D), sooner or later."""
        self.pending = y if self.pending is None else self.pending + y

    def add_product(self, a: Tensor, weight: Tensor) -> None:
        """Add a (B, N, F) times weight (D, F), in one product; the first time to a copy, as the input is not ours."""
        x = self.done()
        flat = a.flatten(0, 1), weight.t()
        if x is self._given:
            self.x = torch.addmm(x.flatten(0, 1), *flat).view(x.shape)
        else:
            x.view(-1, x.shape[-1]).addmm_(*flat)

    def done(self) -> Tensor:
        """The stream with everything added."""
        if self.pending is not None:
            self.x, self.pending = self.x + self.pending, None
        return self.x
