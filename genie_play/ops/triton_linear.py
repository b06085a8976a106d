"""The products of an ST layer as Triton kernels, with all that stands before and after them. See `reference_layers.py`.

RMSNorm needs no pass of its own: its factor is one number a row, so the squares are summed while the row goes by in the
product and the factor is applied to the result, rms(x) @ W.T = (x @ W.T) / sqrt(mean(x**2) + eps). The gain is folded
into the weight once, by the caller, or multiplied in on the way. Operands stay bfloat16, sums are float32; float32
operands are multiplied in float32 proper, not in TF32.

Heads: a tile holds whole heads, so QK-norm is a reduction inside it. Rotary positions turn pairs (j, j + hd / 4); the
rows of the weight are read in an order that puts the two of a pair side by side, and they are split without moving.

Float8: where the weight is `Rows8`, 128 columns of x at a time are scaled by their largest and rounded to e4m3 in
registers, so nothing is quantised beforehand and the sums of 128 products are added in float32 (DeepSeek-V3, arXiv
2412.19437, 3.3.2: tensor cores keep 14 bits of a float8 sum).

Tiles: as large as leaves nearly every SM of an H200 one; row blocks lie next to one another, so that those in flight
share their part of the weight in the L2 cache.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return, operator, assignment"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from genie_play.ops import reference_layers as twin
from genie_play.ops.reference_layers import E4M3_MAX, EPSILON, GROUP, Heads, Rotary, Rows8
from genie_play.ops.triton_sampler import INTERPRETED, PROGRAMS, block

# rows, columns, warps
TILES = ((128, 128, 8), (64, 128, 8), (64, 64, 4), (32, 64, 4), (16, 64, 4))


def project_heads(
    x: Tensor,
    gain: Tensor | None,
    weight: Tensor | Rows8,
    q_scale: Tensor,
    k_scale: Tensor,
    rotary: Rotary | None = None,
) -> Heads:
    """See `reference.project_heads`. The three are views of one tensor, (B, N, 3, h, hd)."""
    head_dim = len(q_scale)
    if head_dim & (head_dim - 1):
        # a tile cannot hold whole heads of other sizes
        return twin.project_heads(x, gain, weight, q_scale, k_scale, rotary)
    values, scales = _parts(weight)
    x, columns = x.contiguous(), len(values)
    rows, n_tokens = x.shape[0] * x.shape[1], x.shape[1]
    block_m, block_f, warps = linear_tiles(rows, columns, values.dtype)
    block_f = max(block_f, head_dim)
    qkv = torch.empty((*x.shape[:2], columns), dtype=x.dtype, device=x.device)
    cos, sin = (q_scale, q_scale) if rotary is None else (a.contiguous() for a in rotary)
    _heads_kernel[(triton.cdiv(rows, block_m), triton.cdiv(columns, block_f))](
        x, x if gain is None else gain, values, scales, q_scale, k_scale, cos, sin, qkv, rows, n_tokens,
        WIDTH=x.shape[2], COLUMNS=columns, HEAD_DIM=head_dim, Q_FACTOR=head_dim**-0.5, EPS=EPSILON,
        GAIN=gain is not None, FP8=isinstance(weight, Rows8), ROTARY=rotary is not None, UPCAST=INTERPRETED,
        BLOCK_M=block_m, BLOCK_F=block_f, BLOCK_D=_depth(x, weight), num_warps=warps, enable_fp_fusion=True,
    )  # fmt: skip
    q, k, v = qkv.unflatten(-1, (3, -1, head_dim)).unbind(2)
    return Heads(q, k, v)


def feed_in(x: Tensor, gain: Tensor | None, weight: Tensor | Rows8) -> Tensor:
    """See `reference.feed_in`."""
    return _linear(x, gain, weight, None)


def add_product(x: Tensor, a: Tensor, weight: Tensor | Rows8) -> Tensor:
    """See `reference.add_product`."""
    return _linear(a, None, weight, x)


def quantize_rows(x: Tensor, gain: Tensor | None = None, norm: bool = False) -> Rows8:
    """See `reference.quantize_rows`."""
    x = x.contiguous()
    width = x.shape[-1]
    values = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)
    if x.numel():
        block_d = triton.next_power_of_2(width)
        _quantize_kernel[(x.numel() // width,)](
            x, x if gain is None else gain, values, scales, WIDTH=width, EPS=EPSILON, LARGEST=E4M3_MAX, NORM=norm,
            GAIN=norm and gain is not None, UPCAST=INTERPRETED, BLOCK_D=block_d,
            num_warps=min(max(block_d // 1024, 1), 16), enable_fp_fusion=True,
        )  # fmt: skip
    return Rows8(values, scales)


def linear_tiles(rows: int, columns: int, weight: torch.dtype) -> tuple[int, int, int]:
    """Rows and columns of a tile, and its warps."""
    # larger tiles do not fit the registers: float32 has no tensor cores here, float8 adds up twice; tensor cores take
    # float8 from 64 rows on
    fit = {torch.float32: TILES[3:], torch.float8_e4m3fn: TILES[1:3]}.get(weight, TILES)
    for block_m, block_f, warps in fit:
        # no tile is twice as high as the frame
        if block_m < 2 * rows and triton.cdiv(rows, block_m) * triton.cdiv(columns, block_f) >= PROGRAMS * 3 // 4:
            return block_m, block_f, warps
    return fit[-1]


def _linear(x: Tensor, gain: Tensor | None, weight: Tensor | Rows8, residual: Tensor | None) -> Tensor:
    """relu(rms(x) * gain @ weight.T) ** 2, or residual + x @ weight.T."""
    values, scales = _parts(weight)
    x, columns, rows = x.contiguous(), len(values), x.shape[0] * x.shape[1]
    block_m, block_f, warps = linear_tiles(rows, columns, values.dtype)
    kind = x.dtype if residual is None else residual.dtype
    y = torch.empty((*x.shape[:2], columns), dtype=kind, device=x.device)
    _linear_kernel[(triton.cdiv(rows, block_m), triton.cdiv(columns, block_f))](
        x, x if gain is None else gain, values, scales, y if residual is None else residual.contiguous(), y, rows,
        WIDTH=x.shape[2], COLUMNS=columns, EPS=EPSILON,
        GAIN=gain is not None, FP8=isinstance(weight, Rows8), FEED=residual is None, UPCAST=INTERPRETED,
        BLOCK_M=block_m, BLOCK_F=block_f, BLOCK_D=_depth(x, weight), num_warps=warps, enable_fp_fusion=True,
    )  # fmt: skip
    return y


def _parts(weight: Tensor | Rows8) -> tuple[Tensor, Tensor]:
    if isinstance(weight, Rows8):
        return weight.values.contiguous(), weight.scales
    return weight.contiguous(), weight


def _depth(x: Tensor, weight: Tensor | Rows8) -> int:
    """Columns of x that are multiplied at a time."""
    if isinstance(weight, Rows8):
        return GROUP
    # float32 has no tensor cores here, and tiles twice the bytes
    return block(x.shape[-1], 64 if x.element_size() == 2 else 32)


@triton.jit
def _e4m3(x, UPCAST: tl.constexpr):
    """float32 to float8, to nearest even; the interpreter would cut, so there it is rounded before."""
    if UPCAST:
        bits = x.to(tl.int32, bitcast=True)
        normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000).to(tl.float32, bitcast=True)
        # below 2**-6 the step is 2**-9, that of a float32 near 1.5 * 2**14
        x = tl.where(tl.abs(x) < 0.015625, (x + 24576.0) - 24576.0, normal)
    return x.to(tl.float8e4nv)


@triton.jit
def _product(
    x_ptr, gain_ptr, weight_ptr, scales_ptr, row, column, rows,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, EPS: tl.constexpr,
    NORM: tl.constexpr, GAIN: tl.constexpr, FP8: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """x[row] @ weight[column].T in float32, with the factor of RMSNorm where NORM and the gain where GAIN."""
    y = tl.zeros((BLOCK_M, BLOCK_F), tl.float32)
    squares = tl.zeros((BLOCK_M,), tl.float32)
    x_rows, weight_rows = x_ptr + row[:, None] * WIDTH, weight_ptr + column.to(tl.int64)[None, :] * WIDTH
    for start in range(0, WIDTH, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        x = tl.load(x_rows + d[None, :], mask=(row < rows)[:, None] & (d < WIDTH)[None, :], other=0.0)
        w = tl.load(weight_rows + d[:, None], mask=(column < COLUMNS)[None, :] & (d < WIDTH)[:, None], other=0.0)
        wide = x.to(tl.float32)
        if NORM:
            squares += tl.sum(wide * wide, axis=1)
        if GAIN:
            wide = wide * tl.load(gain_ptr + d, mask=d < WIDTH, other=0.0).to(tl.float32)[None, :]
        if FP8:
            largest = tl.max(tl.abs(wide), axis=1)
            scale = tl.where(largest > 0, largest / 448.0, 1.0)
            x = _e4m3(wide / scale[:, None], UPCAST)
            if UPCAST:
                x, w = x.to(tl.float32), w.to(tl.float32)
            y += tl.dot(x, w) * scale[:, None]
        else:
            if GAIN:
                x = wide.to(x.dtype)
            if UPCAST:
                x, w = x.to(tl.float32), w.to(tl.float32)
            y = tl.dot(x, w, y, input_precision="ieee")
    if FP8:
        y = y * tl.load(scales_ptr + column, mask=column < COLUMNS, other=0.0)[None, :]
    if NORM:
        y = y * tl.rsqrt(squares / WIDTH + EPS)[:, None]
    return y


@triton.jit(do_not_specialize=["rows"])
def _linear_kernel(
    x_ptr, gain_ptr, weight_ptr, scales_ptr, residual_ptr, y_ptr, rows,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, EPS: tl.constexpr,
    GAIN: tl.constexpr, FP8: tl.constexpr, FEED: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One tile of relu(rms(x) @ W.T) ** 2 where FEED, of residual + x @ W.T elsewhere."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    y = _product(
        x_ptr, gain_ptr, weight_ptr, scales_ptr, row, column, rows,
        WIDTH, COLUMNS, EPS, FEED, GAIN, FP8, UPCAST, BLOCK_M, BLOCK_F, BLOCK_D,
    )  # fmt: skip
    at = row[:, None] * COLUMNS + column[None, :]
    there = (row < rows)[:, None] & (column < COLUMNS)[None, :]
    if FEED:
        y = tl.where(y > 0, y, y * 0.0)  # a maximum would hide what is not a number
        y = y * y
    else:
        y = y + tl.load(residual_ptr + at, mask=there, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["rows"])
def _heads_kernel(
    x_ptr, gain_ptr, weight_ptr, scales_ptr, q_scale_ptr, k_scale_ptr, cos_ptr, sin_ptr, qkv_ptr, rows, n_tokens,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, HEAD_DIM: tl.constexpr, Q_FACTOR: tl.constexpr, EPS: tl.constexpr,
    GAIN: tl.constexpr, FP8: tl.constexpr, ROTARY: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """BLOCK_F // HEAD_DIM whole heads of BLOCK_M rows: RMSNorm, product, QK-norm, scale and rotary positions."""
    HEADS: tl.constexpr = COLUMNS // HEAD_DIM // 3
    HERE: tl.constexpr = BLOCK_F // HEAD_DIM
    row = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    first = tl.program_id(1) * HERE
    c = tl.arange(0, BLOCK_F)
    head, inner = first + c // HEAD_DIM, c % HEAD_DIM
    if ROTARY:
        # axis, frequency, half: the two that turn together are neighbours
        inner = inner // (HEAD_DIM // 2) * (HEAD_DIM // 2) + inner % 2 * (HEAD_DIM // 4)
        inner += c % (HEAD_DIM // 2) // 2
    column = head * HEAD_DIM + inner
    y = _product(
        x_ptr, gain_ptr, weight_ptr, scales_ptr, row, column, rows,
        WIDTH, COLUMNS, EPS, True, GAIN, FP8, UPCAST, BLOCK_M, BLOCK_F, BLOCK_D,
    )  # fmt: skip
    q_scale = tl.load(q_scale_ptr + inner).to(tl.float32) * Q_FACTOR
    k_scale = tl.load(k_scale_ptr + inner).to(tl.float32)
    scale = tl.where(head < HEADS, q_scale, tl.where(head < 2 * HEADS, k_scale, 1.0))
    heads = tl.reshape(y, (BLOCK_M, HERE, HEAD_DIM))
    normed = (first + tl.arange(0, HERE) < 2 * HEADS)[None, :]
    factor = tl.where(normed, tl.rsqrt(tl.sum(heads * heads, axis=2) / HEAD_DIM + EPS), 1.0)
    y = tl.reshape(heads * factor[:, :, None], (BLOCK_M, BLOCK_F)) * scale[None, :]
    if ROTARY:
        left, right = tl.split(tl.reshape(y, (BLOCK_M, BLOCK_F // 2, 2)))
        pair = tl.arange(0, BLOCK_F // 2)
        head = first + pair // (HEAD_DIM // 2)
        inner = pair % (HEAD_DIM // 2)
        inner = inner // (HEAD_DIM // 4) * (HEAD_DIM // 2) + inner % (HEAD_DIM // 4)
        turned = (row < rows)[:, None] & (head < 2 * HEADS)[None, :]
        place = (row % n_tokens)[:, None] * HEAD_DIM + inner[None, :]
        cos = tl.load(cos_ptr + place, mask=turned, other=1.0).to(tl.float32)
        # of the left one: it is signed
        sin = tl.load(sin_ptr + place, mask=turned, other=0.0).to(tl.float32)
        column = head * HEAD_DIM + inner
        at = row[:, None] * COLUMNS + column[None, :]
        there = (row < rows)[:, None] & (column < COLUMNS)[None, :]
        tl.store(qkv_ptr + at, (left * cos + right * sin).to(qkv_ptr.dtype.element_ty), mask=there)
        tl.store(qkv_ptr + at + HEAD_DIM // 4, (right * cos - left * sin).to(qkv_ptr.dtype.element_ty), mask=there)
    else:
        at = row[:, None] * COLUMNS + column[None, :]
        there = (row < rows)[:, None] & (column < COLUMNS)[None, :]
        tl.store(qkv_ptr + at, y.to(qkv_ptr.dtype.element_ty), mask=there)


@triton.jit
def _quantize_kernel(
    x_ptr, gain_ptr, values_ptr, scales_ptr,
    WIDTH: tl.constexpr, EPS: tl.constexpr, LARGEST: tl.constexpr, NORM: tl.constexpr, GAIN: tl.constexpr,
    UPCAST: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One row: y = x or rms(x) * gain; scale = max |y| / 448; values = y / scale."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    x = tl.load(x_ptr + row * WIDTH + d, mask=d < WIDTH, other=0.0).to(tl.float32)
    if NORM:
        x = x * tl.rsqrt(tl.sum(x * x, axis=0) / WIDTH + EPS)
    if GAIN:
        x = x * tl.load(gain_ptr + d, mask=d < WIDTH, other=0.0).to(tl.float32)
    largest = tl.max(tl.abs(x), axis=0)
    scale = tl.where(largest > 0, largest / LARGEST, 1.0)
    tl.store(values_ptr + row * WIDTH + d, _e4m3(x / scale, UPCAST), mask=d < WIDTH)
    tl.store(scales_ptr + row, scale)
