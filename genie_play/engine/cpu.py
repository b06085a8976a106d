"""The ST block as a CPU runs it, one frame at a time: the fast twin of `STBlock.stream`.

The same function with less to do: the weights of the norms are folded into the projections that follow, rotary
positions are one product of complex numbers (the channels of queries and keys are put in that order beforehand, which
no product of the two notices), and linear layers are those of an arithmetic (`arithmetic.py`). What runs along the
layers, norms and softmax are in float32 in every arithmetic; attention is in bfloat16 under bf16. Keys that a block
caches are read by the same block only. Knows nothing of tokens, pictures or paths.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_play.engine import arithmetic as arithmetics
from genie_play.nn.genie import Genie
from genie_play.nn.st_transformer import Attention, LayerKV, LayerPast, STBlock, attend

EPSILON = 1e-6  # of every norm, as in `STBlock`
SOFTMAX_WIDTH = 16  # float32 numbers in a vector register: shorter rows take torch's softmax three times as long
SMALL_PRODUCT = 400  # below as many products torch leaves MKL for loops of its own, which are slower than two sweeps


class CpuBlock(nn.Module):
    """`STBlock.stream` on one CPU in one arithmetic, made of a block that stays as it is."""

    time_bias: Tensor
    turn: Tensor
    previous_key: Tensor
    after_ages: Tensor

    def __init__(self, block: STBlock, arithmetic: str) -> None:
        super().__init__()
        layer = arithmetics.layer(arithmetic)
        self.window, self.cross_frame, self.rotary = block.window, block.cross_frame, block.rotary
        self.spatial = _Attention(block.spatial, block.spatial_norm.weight, arithmetic, block.rotary)
        self.temporal = _Attention(block.temporal, block.temporal_norm.weight, arithmetic, False)
        self.ffn_in = layer(block.ffn_in.weight * block.ffn_norm.weight, relu=True)
        self.ffn_out = layer(block.ffn_out.weight)
        # one more age than can be seen, for slots that hold nothing
        nothing = torch.full_like(block.time_bias[:, :1], -torch.inf)
        self.register_buffer("time_bias", torch.cat((block.time_bias.detach(), nothing), 1).float(), persistent=False)
        after_ages = torch.full((-block.window % SOFTMAX_WIDTH + 1,), block.window)
        after_ages[0] = 0
        self.register_buffer("after_ages", after_ages, persistent=False)
        order = self.spatial.order
        if block.rotary:
            cos, sin = (t[..., order].unflatten(-1, (-1, 2))[..., 1] for t in (block.rotary_cos, block.rotary_sin))
            self.register_buffer("turn", torch.complex(cos.float(), sin.float()), persistent=False)  # (N, 1, 1, hd/2)
        if block.cross_frame:
            previous = block.previous_key.detach()[..., order].to(self.spatial.dtype)
            self.register_buffer("previous_key", previous, persistent=False)

    def stream(self, x: Tensor, past: LayerPast, rows: Tensor | None = None) -> tuple[Tensor, LayerKV]:
        """Run one frame (B, N, D) against the past; return it and its own keys and values.

        With `rows` (R,), positions, only their part of the frame is worked out, (B, R, D), and only their temporal keys
        and values are returned.
        """
        own, v = self.spatial.project(x)  # (B, N, 2, h, hd), (B, N, h, hd)
        if self.rotary:
            turned = torch.view_as_complex(own.unflatten(-1, (-1, 2))).mul_(self.turn)
            own = torch.view_as_real(turned).flatten(-2)
        q, k = own.to(v.dtype).unbind(2)
        if rows is not None:
            x, q = x.index_select(1, rows), q.index_select(1, rows)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, h, N, hd)
        keys, values = self._with_the_frame_before(k, v, past) if self.cross_frame else (k, v)
        fused = q.dtype != torch.bfloat16 or len(q) > 1 or has_tiles()
        seen = F.scaled_dot_product_attention(q, keys, values, scale=1.0) if fused else attend(q, keys, values)
        x = x + self.spatial.out(seen.transpose(1, 2).flatten(2))

        own, tv = self.temporal.project(x)
        tq, tk = own.to(tv.dtype).unbind(2)  # (B, N, h, hd)
        ring_k, ring_v = past.temporal_k, past.temporal_v
        if rows is not None:
            ring_k, ring_v = ring_k.index_select(1, rows), ring_v.index_select(1, rows)
        seen = temporal(tq, tk, tv, ring_k, ring_v, self._bias(past.ages))
        x = x + self.temporal.out(seen.flatten(2))

        hidden = self.ffn_in(_normed(x))
        return x + self.ffn_out(hidden.mul_(hidden)), LayerKV(k, v, tk, tv)

    def _with_the_frame_before(self, k: Tensor, v: Tensor, past: LayerPast) -> tuple[Tensor, Tensor]:
        """Keys and values (B, h, 2N, hd): of the frame before, or of this one where there is none, and of this one."""
        before_k = k if past.spatial_k is None else past.spatial_k.expand_as(k)
        before_v = v if past.spatial_v is None else past.spatial_v.expand_as(v)
        return torch.cat((before_k + self.previous_key, k), 2), torch.cat((before_v, v), 2)

    def _bias(self, ages: Tensor) -> Tensor:
        """(h, Q): the bias of each slot, then of the frame itself, then -inf; Q as `temporal` wants it."""
        return self.time_bias[:, torch.cat((ages.clamp(max=self.window), self.after_ages))]


@lru_cache(maxsize=1)
def has_tiles() -> bool:
    """Whether the CPU multiplies matrices as such (AMX). Without, fused attention in bfloat16 takes twice as long as
    two products; eight actions at once are too large for these to gain (docs/performance.md)."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def temporal(q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, bias: Tensor) -> Tensor:
    """The fast twin of `ops.reference.temporal`; more columns of `bias` than P + 1, all -inf, make softmax faster.

    Products of a matrix and a vector by the thousand are slow or fast by their form and size; what is used here was
    measured (see docs/performance.md).
    """
    batch, n_tokens, heads, size = q.shape
    slots, shared = ring_k.shape[3], len(ring_k) < batch
    if shared:
        # the rows read the ring once, as the columns of one product at each place and head
        before = (ring_k[0] @ q.permute(1, 2, 3, 0)).permute(3, 0, 1, 2)  # (B, N, h, P)
    else:
        rows = q.reshape(-1, 1, size)
        before = torch.bmm(rows, ring_k.flatten(0, 2).mT).view(batch, n_tokens, heads, slots)
    own = (q * k).sum(-1, keepdim=True)  # (B, N, h, 1)
    nothing = own.new_zeros(()).expand(batch, n_tokens, heads, bias.shape[1] - slots - 1)
    weights = (torch.cat((before, own, nothing), -1).float() + bias).softmax(-1).to(v.dtype)
    past = weights[..., :slots]
    if shared:
        seen = (past.permute(1, 2, 0, 3) @ ring_v[0]).permute(2, 0, 1, 3)
    elif slots * size < SMALL_PRODUCT:
        seen = (past[..., None] * ring_v).sum(-2)
    else:
        seen = (past[..., None, :] @ ring_v)[..., 0, :]
    return torch.addcmul(seen, weights[..., slots, None], v)


class _Attention(nn.Module):
    """The projections of one attention, the norm before them included."""

    scale: Tensor

    def __init__(self, attention: Attention, norm: Tensor, arithmetic: str, rotary: bool) -> None:
        super().__init__()
        layer = arithmetics.layer(arithmetic)
        heads, size = attention.heads, attention.head_dim
        self.heads, self.head_dim = heads, size
        self.dtype = torch.bfloat16 if arithmetic == "bf16" else torch.float32
        # the two channels that a rotary position turns into each other come side by side
        self.order = torch.arange(size)
        if rotary:
            self.order = self.order.view(2, 2, -1).transpose(1, 2).flatten()
        weight = (attention.qkv.weight * norm).unflatten(0, (3, heads, size))
        qk = weight[:2, :, self.order.to(weight.device)]
        self.qkv = layer(torch.cat((qk, weight[2:])).flatten(0, 2))
        self.out = layer(attention.out.weight)
        scale = torch.stack((attention.q_scale * size**-0.5, attention.k_scale))[:, None]
        self.register_buffer("scale", scale.detach()[..., self.order].float(), persistent=False)  # (2, 1, hd)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D) to queries and keys (B, N, 2, h, hd) float32, normed and scaled, and values (B, N, h, hd)."""
        both = self.qkv(_normed(x)).unflatten(-1, (3, self.heads, self.head_dim))
        return _normed(both[..., :2, :, :].float()).mul_(self.scale), both[..., 2, :, :]


def place(genie: Genie, arithmetic: str) -> None:
    """Put the networks of a world in the form in which a CPU plays them, in place.

    The decoder's pictures are not held to anything, and under int8 it stays in float32: convolutions are most of it.
    """
    genie.dynamics.blocks = placed(genie.dynamics.blocks, arithmetic)
    decoder = genie.tokenizer.decoder
    decoder.blocks = placed(decoder.blocks, "bf16" if arithmetic == "bf16" else "fp32")
    if arithmetic == "bf16":
        decoder.trunk.bfloat16()


def placed(old: nn.ModuleList, arithmetic: str) -> nn.ModuleList:
    """Blocks in the form in which a CPU runs them; the old ones stay as they are."""
    return nn.ModuleList(CpuBlock(block, arithmetic) for block in old if isinstance(block, STBlock))


def _normed(x: Tensor) -> Tensor:
    """RMSNorm over the last dimension, its weight left out."""
    return x * (x * x).mean(-1, keepdim=True).add_(EPSILON).rsqrt_()
