"""One ST layer on one frame as a single Triton kernel: from its heads to the heads of the layer after it.

Of a layer only spatial attention mixes places. So a program takes 16 places and goes with them all the way: attention
inside the frame, the way back to the residual stream, attention along time, the feed-forward, and the product that the
next layer begins with, after which the programs have to meet again. A layer is one launch in place of eight, and its
sums stay in registers; the price is that every program reads all weights of the layer, from the L2 cache, and that a
frame keeps N / 16 SMs busy. Eight hypotheses keep eight times as many.

A row of registers cannot be cut, so where a product needs a stretch of columns the others are summed away.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return, operator, assignment"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from genie_play.ops import reference_layers as twin
from genie_play.ops.reference_layers import EPSILON, Entry, Heads, Layer, Layered
from genie_play.ops.triton_attention import spatial, temporal
from genie_play.ops.triton_linear import add_product, feed_in, project_heads
from genie_play.ops.triton_sampler import INTERPRETED

ROWS = 16  # places of a program: the fewest that tensor cores take
WIDEST = 256  # of a residual stream that a program holds: at 512 registers spill


def layer(
    x: Tensor,
    heads: Heads,
    before: tuple[Tensor, Tensor] | None,
    previous_key: Tensor | None,
    rings: tuple[Tensor, Tensor],
    bias: Tensor,
    weights: Layer,
    entry: Entry | None = None,
) -> Layered:
    """See `reference.layer`. Where `fits` is False it is the eight launches."""
    batch, n_tokens, width = x.shape
    count, head_dim = heads.q.shape[2:]
    hidden, slots = len(weights.feed_in), rings[0].shape[3]
    if not (fits(width, count, head_dim, hidden) and slots):
        parts = spatial, add_product, project_heads, temporal, feed_in
        return twin.layer(x, heads, before, previous_key, rings, bias, weights, entry, parts)
    x, bias = x.contiguous(), bias.contiguous()
    weights = Layer(*(w.contiguous() for w in weights))
    q, k, v = (a if a.stride(-1) == 1 else a.contiguous() for a in heads)
    earlier = [k, v]
    if previous_key is not None and before is not None:
        earlier = [a.expand(batch, *a.shape[1:]) for a in before]
        earlier = [a if a.stride(-1) == 1 else a.contiguous() for a in earlier]
    ring_k, ring_v = (ring.contiguous() for ring in rings)
    out = torch.empty_like(x)
    kept_k, kept_v = (torch.empty(batch, n_tokens, count, head_dim, dtype=x.dtype, device=x.device) for _ in range(2))
    after = torch.empty(batch, n_tokens, 3, count, head_dim, dtype=x.dtype, device=x.device) if entry else x
    rotary = entry.rotary if entry else None
    gain, qkv, q_scale, k_scale = (a.contiguous() for a in entry[:4]) if entry else (x, x, x, x)
    cos, sin = (x, x) if rotary is None else (a.contiguous() for a in rotary)
    strides = [stride for a in (q, k, v, *earlier) for stride in a.stride()[:3]]
    narrow = x.element_size() == 2
    _layer_kernel[(triton.cdiv(n_tokens, ROWS), batch)](
        x, q, k, v, *earlier, x if previous_key is None else previous_key.contiguous(), ring_k, ring_v, bias, *weights,
        gain, qkv, q_scale, k_scale, cos, sin, out, kept_k, kept_v, after, *strides,
        N_TOKENS=n_tokens, WIDTH=width, HEADS=count, HEAD_DIM=head_dim, HIDDEN=hidden, SLOTS=slots,
        Q_FACTOR=head_dim**-0.5, EPS=EPSILON, CROSS=previous_key is not None, ENTRY=entry is not None,
        ROTARY=rotary is not None, UPCAST=INTERPRETED, BLOCK_M=ROWS, BLOCK_N=32, BLOCK_P=2,
        BLOCK_D=min(64 if narrow else 16, width, count * head_dim), BLOCK_F=64 if narrow and hidden % 64 == 0 else 16,
        num_warps=4 if width <= 128 else 8, enable_fp_fusion=True,
    )  # fmt: skip
    return Layered(out, kept_k, kept_v, Heads(*after.unbind(2)) if entry else None)


def fits(width: int, heads: int, head_dim: int, hidden: int) -> bool:
    """Whether one kernel can be made of a layer: powers of two, and a residual stream that registers hold."""
    inner = heads * head_dim
    powers = not any(n & (n - 1) for n in (width, heads, head_dim))
    return powers and head_dim >= 16 and width >= 16 and max(width, inner) <= WIDEST and hidden % 16 == 0


@triton.jit
def _layer_kernel(
    x_ptr, q_ptr, k_ptr, v_ptr, earlier_k_ptr, earlier_v_ptr, previous_key_ptr, ring_k_ptr, ring_v_ptr, bias_ptr,
    spatial_out_ptr, time_gain_ptr, time_qkv_ptr, time_q_ptr, time_k_ptr, time_out_ptr, feed_gain_ptr, feed_in_ptr,
    feed_out_ptr, next_gain_ptr, next_qkv_ptr, next_q_ptr, next_k_ptr, cos_ptr, sin_ptr,
    out_ptr, kept_k_ptr, kept_v_ptr, after_ptr,
    q_b, q_n, q_h, k_b, k_n, k_h, v_b, v_n, v_h, ek_b, ek_n, ek_h, ev_b, ev_n, ev_h,
    N_TOKENS: tl.constexpr, WIDTH: tl.constexpr, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, HIDDEN: tl.constexpr,
    SLOTS: tl.constexpr, Q_FACTOR: tl.constexpr, EPS: tl.constexpr, CROSS: tl.constexpr, ENTRY: tl.constexpr,
    ROTARY: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """BLOCK_M places of one frame of the batch through a layer."""
    INNER: tl.constexpr = HEADS * HEAD_DIM
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    batch = tl.program_id(1).to(tl.int64)
    there = m < N_TOKENS
    row = batch * N_TOKENS + m
    width, inner = tl.arange(0, WIDTH), tl.arange(0, INNER)
    at = row[:, None] * WIDTH + width[None, :]
    kind = x_ptr.dtype.element_ty
    nothing = tl.zeros((BLOCK_M, INNER), tl.float32)
    x = tl.load(x_ptr + at, mask=there[:, None], other=0.0).to(tl.float32)

    seen = _spatial(
        q_ptr + batch * q_b, k_ptr + batch * k_b, v_ptr + batch * v_b, earlier_k_ptr + batch * ek_b,
        earlier_v_ptr + batch * ev_b, previous_key_ptr, m, q_n, q_h, k_n, k_h, v_n, v_h, ek_n, ek_h, ev_n, ev_h,
        N_TOKENS, HEADS, HEAD_DIM, CROSS, UPCAST, BLOCK_M, BLOCK_N,
    )  # fmt: skip
    x = _add_product(x, seen, spatial_out_ptr, width, INNER, UPCAST, BLOCK_M, BLOCK_D)

    normed = _normed(x, time_gain_ptr, width, WIDTH, EPS)
    q = _add_product(nothing, normed, time_qkv_ptr, inner, WIDTH, UPCAST, BLOCK_M, BLOCK_D)
    q = _qk_normed(q, time_q_ptr, Q_FACTOR, inner % HEAD_DIM, HEADS, HEAD_DIM, EPS, BLOCK_M)
    k = _add_product(nothing, normed, time_qkv_ptr, INNER + inner, WIDTH, UPCAST, BLOCK_M, BLOCK_D)
    k = _qk_normed(k, time_k_ptr, 1.0, inner % HEAD_DIM, HEADS, HEAD_DIM, EPS, BLOCK_M).to(kind)
    v = _add_product(nothing, normed, time_qkv_ptr, 2 * INNER + inner, WIDTH, UPCAST, BLOCK_M, BLOCK_D).to(kind)
    kept = row[:, None] * INNER + inner[None, :]
    tl.store(kept_k_ptr + kept, k, mask=there[:, None])
    tl.store(kept_v_ptr + kept, v, mask=there[:, None])
    seen = _temporal(
        q.to(kind), k, v, ring_k_ptr, ring_v_ptr, bias_ptr, m, there, HEADS, HEAD_DIM, SLOTS, BLOCK_M, BLOCK_P
    )
    x = _add_product(x, seen, time_out_ptr, width, INNER, UPCAST, BLOCK_M, BLOCK_D)

    normed = _normed(x, feed_gain_ptr, width, WIDTH, EPS).to(kind)
    for start in range(0, HIDDEN, BLOCK_F):
        f = start + tl.arange(0, BLOCK_F)
        w = tl.load(feed_in_ptr + f[None, :] * WIDTH + width[:, None])
        fed = _dot(normed, w, tl.zeros((BLOCK_M, BLOCK_F), tl.float32), UPCAST)
        fed = tl.where(fed > 0, fed, fed * 0.0)  # a maximum would hide what is not a number
        w = tl.load(feed_out_ptr + width[None, :] * HIDDEN + f[:, None])
        x = _dot((fed * fed).to(kind), w, x, UPCAST)
    tl.store(out_ptr + at, x.to(kind), mask=there[:, None])

    if ENTRY:
        normed = _normed(x.to(kind).to(tl.float32), next_gain_ptr, width, WIDTH, EPS)
        to = after_ptr + row[:, None] * (3 * INNER)
        if ROTARY:
            # axis, frequency, half: the two that turn together are neighbours
            turned = inner % HEAD_DIM // (HEAD_DIM // 2) * (HEAD_DIM // 2) + inner % 2 * (HEAD_DIM // 4)
            turned += inner % (HEAD_DIM // 2) // 2
        else:
            turned = inner % HEAD_DIM
        column = inner // HEAD_DIM * HEAD_DIM + turned
        for part in tl.static_range(2):
            heads = _add_product(nothing, normed, next_qkv_ptr, part * INNER + column, WIDTH, UPCAST, BLOCK_M, BLOCK_D)
            if part == 0:
                heads = _qk_normed(heads, next_q_ptr, Q_FACTOR, turned, HEADS, HEAD_DIM, EPS, BLOCK_M)
            else:
                heads = _qk_normed(heads, next_k_ptr, 1.0, turned, HEADS, HEAD_DIM, EPS, BLOCK_M)
            if ROTARY:
                _turn(heads, to + part * INNER, cos_ptr, sin_ptr, m, there, HEADS, HEAD_DIM, BLOCK_M)
            else:
                tl.store(to + part * INNER + column[None, :], heads.to(kind), mask=there[:, None])
        values = _add_product(nothing, normed, next_qkv_ptr, 2 * INNER + inner, WIDTH, UPCAST, BLOCK_M, BLOCK_D)
        tl.store(to + 2 * INNER + inner[None, :], values.to(kind), mask=there[:, None])


@triton.jit
def _dot(a, b, total, UPCAST: tl.constexpr):
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def _add_product(
    total, a, weight_ptr, column, DEPTH: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """total + a (BLOCK_M, DEPTH) @ weight[column].T, a rounded to the kind of the weight."""
    PARTS: tl.constexpr = DEPTH // BLOCK_D
    parts = tl.reshape(a.to(weight_ptr.dtype.element_ty), (BLOCK_M, PARTS, BLOCK_D))
    which = tl.arange(0, PARTS)[None, :, None]
    for part in range(PARTS):
        d = part * BLOCK_D + tl.arange(0, BLOCK_D)
        w = tl.load(weight_ptr + column[None, :] * DEPTH + d[:, None])
        stretch = tl.sum(tl.where(which == part, parts.to(tl.float32), 0.0), axis=1)
        total = _dot(stretch.to(w.dtype), w, total, UPCAST)
    return total


@triton.jit
def _normed(x, gain_ptr, width, WIDTH: tl.constexpr, EPS: tl.constexpr):
    """rms(x) * gain, a row at a time, in float32."""
    factor = tl.rsqrt(tl.sum(x * x, axis=1) / WIDTH + EPS)
    return x * factor[:, None] * tl.load(gain_ptr + width).to(tl.float32)[None, :]


@triton.jit
def _qk_normed(
    y, scale_ptr, factor, inside, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, EPS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """rms(y) * scale * factor over each head; `inside`, (h * hd,), is where in its head a column is."""
    heads = tl.reshape(y, (BLOCK_M, HEADS, HEAD_DIM))
    heads = heads * tl.rsqrt(tl.sum(heads * heads, axis=2) / HEAD_DIM + EPS)[:, :, None]
    scale = tl.load(scale_ptr + inside).to(tl.float32) * factor
    return tl.reshape(heads, (BLOCK_M, HEADS * HEAD_DIM)) * scale[None, :]


@triton.jit
def _turn(heads, to, cos_ptr, sin_ptr, m, there, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr):
    """Store heads whose pairs lie side by side, turned by their places."""
    left, right = tl.split(tl.reshape(heads, (BLOCK_M, HEADS * HEAD_DIM // 2, 2)))
    pair = tl.arange(0, HEADS * HEAD_DIM // 2)
    inside = pair % (HEAD_DIM // 2)
    inside = inside // (HEAD_DIM // 4) * (HEAD_DIM // 2) + inside % (HEAD_DIM // 4)
    place = m[:, None] * HEAD_DIM + inside[None, :]
    cos = tl.load(cos_ptr + place, mask=there[:, None], other=1.0).to(tl.float32)
    # of the left one: it is signed
    sin = tl.load(sin_ptr + place, mask=there[:, None], other=0.0).to(tl.float32)
    column = pair // (HEAD_DIM // 2) * HEAD_DIM + inside
    kind = to.dtype.element_ty
    tl.store(to + column[None, :], (left * cos + right * sin).to(kind), mask=there[:, None])
    tl.store(to + column[None, :] + HEAD_DIM // 4, (right * cos - left * sin).to(kind), mask=there[:, None])


@triton.jit
def _spatial(
    q_ptr, k_ptr, v_ptr, earlier_k_ptr, earlier_v_ptr, previous_key_ptr, m,
    q_n, q_h, k_n, k_h, v_n, v_h, ek_n, ek_h, ev_n, ev_h,
    N_TOKENS: tl.constexpr, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, CROSS: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Attention inside the frame, all heads at once, (BLOCK_M, h * hd) float32."""
    h, d = tl.arange(0, HEADS), tl.arange(0, HEAD_DIM)
    at = q_ptr + h[:, None, None] * q_h + m[None, :, None] * q_n + d[None, None, :]
    q = tl.load(at, mask=(m < N_TOKENS)[None, :, None], other=0.0)  # (h, M, hd)
    seen = tl.zeros((HEADS, BLOCK_M, HEAD_DIM), tl.float32)
    peak = tl.full((HEADS, BLOCK_M), -float("inf"), tl.float32)
    total = tl.zeros((HEADS, BLOCK_M), tl.float32)
    if CROSS:
        previous = tl.load(previous_key_ptr + h[:, None] * HEAD_DIM + d[None, :]).to(tl.float32)
        added = tl.sum(q.to(tl.float32) * previous[:, None, :], axis=2)
        seen, peak, total = _look(
            q, added, earlier_k_ptr, earlier_v_ptr, ek_n, ek_h, ev_n, ev_h, seen, peak, total,
            N_TOKENS, HEADS, HEAD_DIM, UPCAST, BLOCK_N,
        )  # fmt: skip
    seen, peak, total = _look(
        q,
        tl.zeros((HEADS, BLOCK_M), tl.float32),
        k_ptr,
        v_ptr,
        k_n,
        k_h,
        v_n,
        v_h,
        seen,
        peak,
        total,
        N_TOKENS,
        HEADS,
        HEAD_DIM,
        UPCAST,
        BLOCK_N,
    )
    seen = tl.permute(seen / total[:, :, None], (1, 0, 2))
    return tl.reshape(seen, (BLOCK_M, HEADS * HEAD_DIM))


@triton.jit
def _look(
    q, added, k_ptr, v_ptr, k_n, k_h, v_n, v_h, seen, peak, total,
    N_TOKENS: tl.constexpr, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, UPCAST: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Take the N keys and values of one frame into a running softmax; `added` goes on every score of a query."""
    h, d = tl.arange(0, HEADS), tl.arange(0, HEAD_DIM)
    for start in range(0, N_TOKENS, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        inside = n < N_TOKENS
        k = tl.load(
            k_ptr + h[:, None, None] * k_h + n[None, None, :] * k_n + d[None, :, None],
            mask=inside[None, None, :],
            other=0.0,
        )
        v = tl.load(
            v_ptr + h[:, None, None] * v_h + n[None, :, None] * v_n + d[None, None, :],
            mask=inside[None, :, None],
            other=0.0,
        )
        scores = _dot(q, k, tl.zeros((HEADS, q.shape[1], BLOCK_N), tl.float32), UPCAST) + added[:, :, None]
        scores = tl.where(inside[None, None, :], scores, -float("inf"))
        higher = tl.maximum(peak, tl.max(scores, axis=2))
        weights = tl.exp(scores - higher[:, :, None])
        fade = tl.exp(peak - higher)
        total = total * fade + tl.sum(weights, axis=2)
        seen = _dot(weights.to(v.dtype), v, seen * fade[:, :, None], UPCAST)
        peak = higher
    return seen, peak, total


@triton.jit
def _temporal(
    q, k, v, ring_k_ptr, ring_v_ptr, bias_ptr, m, there,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, SLOTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Attention along time, (BLOCK_M, h * hd) float32: each place to its past in the ring, BLOCK_P slots at a time."""
    h, d = tl.arange(0, HEADS), tl.arange(0, HEAD_DIM)
    q = tl.reshape(q.to(tl.float32), (BLOCK_M, HEADS, HEAD_DIM))
    k = tl.reshape(k.to(tl.float32), (BLOCK_M, HEADS, HEAD_DIM))
    v = tl.reshape(v.to(tl.float32), (BLOCK_M, HEADS, HEAD_DIM))
    own_bias = tl.load(bias_ptr + h * (SLOTS + 1) + SLOTS).to(tl.float32)
    peak = tl.sum(q * k, axis=2) + own_bias[None, :]
    total, seen = tl.full((BLOCK_M, HEADS), 1.0, tl.float32), v
    place = ((m[:, None] * HEADS + h[None, :]) * (SLOTS * HEAD_DIM))[:, :, None, None] + d[None, None, None, :]
    for start in range(0, SLOTS, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        at = place + p[None, None, :, None] * HEAD_DIM
        read = there[:, None, None, None] & (p < SLOTS)[None, None, :, None]
        keys = tl.load(ring_k_ptr + at, mask=read, other=0.0).to(tl.float32)  # (M, h, P, hd)
        bias = tl.load(
            bias_ptr + h[:, None] * (SLOTS + 1) + p[None, :], mask=(p < SLOTS)[None, :], other=-float("inf")
        ).to(tl.float32)
        scores = tl.sum(keys * q[:, :, None, :], axis=3) + bias[None, :, :]
        higher = tl.maximum(peak, tl.max(scores, axis=2))
        weights, fade = tl.exp(scores - higher[:, :, None]), tl.exp(peak - higher)
        values = tl.load(ring_v_ptr + at, mask=read, other=0.0).to(tl.float32)
        seen = seen * fade[:, :, None] + tl.sum(weights[:, :, :, None] * values, axis=2)
        total = total * fade + tl.sum(weights, axis=2)
        peak = higher
    return tl.reshape(seen / total[:, :, None], (BLOCK_M, HEADS * HEAD_DIM))
