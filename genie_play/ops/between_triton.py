"""The operations of `between_reference.py` as Triton kernels: same names, same signatures.

Each is one launch and one pass over its memory. `temporal` reads the ring once for a whole batch of actions.

Runs on an NVIDIA GPU, or anywhere under TRITON_INTERPRET=1, set before this module is imported.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return, operator, assignment"
# (a kernel's arguments are Triton values, which have no Python types)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from genie_play.ops.between_reference import FP8, SMALLEST_PEAK, Rows
from genie_play.ops.reference_layers import E4M3_MAX

LARGEST_TILE = 4096  # numbers of a ring's keys, or values, that one program of `temporal` holds


def quantise_rows(x: Tensor) -> Rows:
    """See `between_reference.quantise_rows`."""
    return _rows(x, None, None)[1]


def square_quantise(x: Tensor) -> Rows:
    """See `between_reference.square_quantise`."""
    return _rows(x, None, None, square=True)[1]


def add_norm_quantise(x: Tensor, y: Tensor | None, gain: Tensor, eps: float = 1e-6) -> tuple[Tensor, Rows]:
    """See `between_reference.add_norm_quantise`."""
    return _rows(x, y, gain, eps)


def split_heads(
    qkv: Tensor, q_scale: Tensor, k_scale: Tensor, rotary: tuple[Tensor, Tensor] | None = None, eps: float = 1e-6
) -> tuple[Tensor, Tensor, Tensor]:
    """See `between_reference.split_heads`."""
    (batch, n_tokens, width), head_dim = qkv.shape, len(q_scale)
    heads, qkv = width // (3 * head_dim), qkv.contiguous()
    q, k, v = (torch.empty(batch, n_tokens, heads, head_dim, dtype=qkv.dtype, device=qkv.device) for _ in range(3))
    cos, sin = rotary or (qkv, qkv)
    _split_kernel[(batch * n_tokens,)](
        qkv, q, k, v, q_scale, k_scale, cos, sin, n_tokens, heads, head_dim**-0.5, eps,
        HEAD_DIM=head_dim, BLOCK_H=triton.next_power_of_2(heads), ROTARY=rotary is not None, num_warps=4,
        enable_fp_fusion=True,
    )  # fmt: skip
    return q, k, v


def temporal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring_k: Tensor,
    ring_v: Tensor,
    bias: Tensor,
    scales_k: Tensor | None = None,
    scales_v: Tensor | None = None,
) -> Tensor:
    """See `between_reference.temporal`."""
    q, k, v, bias = (a.contiguous() for a in (q, k, v, bias))
    batch, n_tokens, heads, head_dim = q.shape
    slots, seen = ring_k.shape[-2], torch.empty_like(q)
    fp8 = scales_k is not None
    if fp8:
        ring_k, ring_v = ring_k.view(FP8), ring_v.view(FP8)
    block_p = triton.next_power_of_2(slots)
    block_h = max(1, min(triton.next_power_of_2(heads), LARGEST_TILE // (block_p * head_dim)))
    _temporal_kernel[(n_tokens, triton.cdiv(heads, block_h))](
        q, k, v, ring_k, ring_v, scales_k if fp8 else q, scales_v if fp8 else q, bias, seen,
        batch, n_tokens, heads, slots,
        HEAD_DIM=head_dim, BLOCK_H=block_h, BLOCK_P=block_p, SCALED=fp8, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return seen


def _rows(
    x: Tensor, y: Tensor | None, gain: Tensor | None, eps: float = 0.0, square: bool = False
) -> tuple[Tensor, Rows]:
    x = x.contiguous()
    y = None if y is None else y.contiguous()
    width = x.shape[-1]
    total = x if y is None else torch.empty_like(x)
    numbers = torch.empty(x.shape, dtype=FP8, device=x.device)
    scales = torch.empty(*x.shape[:-1], 1, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    _rows_kernel[(x.numel() // width,)](
        x, x if y is None else y, total, x if gain is None else gain, numbers, scales, width, eps,
        ADD=y is not None, NORM=gain is not None, SQUARE=square, LARGEST=E4M3_MAX, SMALLEST=SMALLEST_PEAK,
        BLOCK=block, num_warps=min(max(block // 512, 1), 8), enable_fp_fusion=True,
    )  # fmt: skip
    return total, Rows(numbers, scales)


@triton.jit
def _rows_kernel(
    x_ptr, y_ptr, total_ptr, gain_ptr, numbers_ptr, scales_ptr, width, eps,
    ADD: tl.constexpr, NORM: tl.constexpr, SQUARE: tl.constexpr, LARGEST: tl.constexpr, SMALLEST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One row: add, norm or square, and quantise."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    live = column < width
    at = row * width + column
    x = tl.load(x_ptr + at, mask=live, other=0.0).to(tl.float32)
    if ADD:
        # what goes on is what the next layer will read: rounded to its kind
        total = (x + tl.load(y_ptr + at, mask=live, other=0.0).to(tl.float32)).to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + at, total, mask=live)
        x = total.to(tl.float32)
    if SQUARE:
        x = tl.maximum(x, 0.0)
        x = x * x
    if NORM:
        gain = tl.load(gain_ptr + column, mask=live, other=0.0).to(tl.float32)
        x = x * tl.rsqrt(tl.sum(x * x, axis=0) / width + eps) * gain
    scale = tl.maximum(tl.max(tl.abs(x), axis=0), SMALLEST) * (1.0 / LARGEST)
    x = tl.minimum(tl.maximum(x / scale, -LARGEST), LARGEST)
    tl.store(numbers_ptr + at, x.to(tl.float8e4nv), mask=live)
    tl.store(scales_ptr + row, scale)


@triton.jit
def _turned(x_ptr, at, live, swapped, scale_ptr, n, cos_ptr, sin_ptr, factor, eps, d,
            HEAD_DIM: tl.constexpr, ROTARY: tl.constexpr):  # fmt: skip
    """Heads (BLOCK_H, HEAD_DIM) at `at`, normed, scaled and turned by their place n."""
    x = tl.load(x_ptr + at + d[None, :], mask=live[:, None], other=0.0).to(tl.float32)
    level = tl.rsqrt(tl.sum(x * x, axis=1) / HEAD_DIM + eps)[:, None]
    x = x * level * (tl.load(scale_ptr + d).to(tl.float32) * factor)[None, :]
    if ROTARY:
        other = tl.load(x_ptr + at + swapped[None, :], mask=live[:, None], other=0.0).to(tl.float32)
        other = other * level * (tl.load(scale_ptr + swapped).to(tl.float32) * factor)[None, :]
        cos = tl.load(cos_ptr + n * HEAD_DIM + d).to(tl.float32)
        sin = tl.load(sin_ptr + n * HEAD_DIM + d).to(tl.float32)
        x = x * cos[None, :] + other * sin[None, :]
    return x


@triton.jit
def _split_kernel(
    qkv_ptr, q_ptr, k_ptr, v_ptr, q_scale_ptr, k_scale_ptr, cos_ptr, sin_ptr, n_tokens, heads, factor, eps,
    HEAD_DIM: tl.constexpr, BLOCK_H: tl.constexpr, ROTARY: tl.constexpr,
):  # fmt: skip
    """All heads of one place."""
    row = tl.program_id(0).to(tl.int64)
    n = row % n_tokens
    h, d = tl.arange(0, BLOCK_H), tl.arange(0, HEAD_DIM)
    live, width = h < heads, heads * HEAD_DIM
    # each half of a head turns its own two quarters into each other
    swapped = d ^ (HEAD_DIM // 4)
    at = row * 3 * width + h[:, None] * HEAD_DIM
    q = _turned(qkv_ptr, at, live, swapped, q_scale_ptr, n, cos_ptr, sin_ptr, factor, eps, d, HEAD_DIM, ROTARY)
    k = _turned(qkv_ptr, at + width, live, swapped, k_scale_ptr, n, cos_ptr, sin_ptr, 1.0, eps, d, HEAD_DIM, ROTARY)
    v = tl.load(qkv_ptr + at + 2 * width + d[None, :], mask=live[:, None], other=0.0)
    to = row * width + h[:, None] * HEAD_DIM + d[None, :]
    tl.store(q_ptr + to, q.to(q_ptr.dtype.element_ty), mask=live[:, None])
    tl.store(k_ptr + to, k.to(k_ptr.dtype.element_ty), mask=live[:, None])
    tl.store(v_ptr + to, v, mask=live[:, None])


@triton.jit
def _temporal_kernel(
    q_ptr, k_ptr, v_ptr, ring_k_ptr, ring_v_ptr, scales_k_ptr, scales_v_ptr, bias_ptr, seen_ptr,
    batch, n_tokens, heads, slots,
    HEAD_DIM: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_P: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """BLOCK_H heads of one place, for every row of the batch; keys and values are read once."""
    n = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    p, d = tl.arange(0, BLOCK_P), tl.arange(0, HEAD_DIM)
    live, there = h < heads, (h < heads)[:, None] & (p < slots)[None, :]
    slot = (n * heads + h)[:, None] * slots + p[None, :]
    at = slot[:, :, None] * HEAD_DIM + d[None, None, :]
    keys = tl.load(ring_k_ptr + at, mask=there[:, :, None], other=0.0).to(tl.float32)
    values = tl.load(ring_v_ptr + at, mask=there[:, :, None], other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + h[:, None] * (slots + 1) + p[None, :], mask=there, other=-float("inf")).to(tl.float32)
    own_bias = tl.load(bias_ptr + h * (slots + 1) + slots, mask=live, other=0.0).to(tl.float32)
    if SCALED:
        key_scales = tl.load(scales_k_ptr + slot, mask=there, other=0.0)
        value_scales = tl.load(scales_v_ptr + slot, mask=there, other=0.0)
    for b in range(batch):
        to = ((b * n_tokens + n) * heads + h)[:, None] * HEAD_DIM + d[None, :]
        q = tl.load(q_ptr + to, mask=live[:, None], other=0.0).to(tl.float32)
        k = tl.load(k_ptr + to, mask=live[:, None], other=0.0).to(tl.float32)
        v = tl.load(v_ptr + to, mask=live[:, None], other=0.0).to(tl.float32)
        score = tl.sum(keys * q[:, None, :], axis=2)
        if SCALED:
            score = score * key_scales
        score += bias
        own = tl.sum(q * k, axis=1) + own_bias
        top = tl.maximum(tl.max(score, axis=1), own)
        weights, own = tl.exp(score - top[:, None]), tl.exp(own - top)
        total = tl.sum(weights, axis=1) + own
        if SCALED:
            weights = weights * value_scales
        seen = tl.sum(weights[:, :, None] * values, axis=1) + own[:, None] * v
        tl.store(seen_ptr + to, (seen / total[:, None]).to(seen_ptr.dtype.element_ty), mask=live[:, None])
