"""Attention of one frame as Triton kernels: inside it, and along time. See `reference_layers.py`.

Temporal: one query against at most 16 keys, N * h times over. It moves the ring and computes next to nothing, so there
are no tensor cores: a program loads keys and values of a few places once, in one contiguous run each, and every row of
the batch (the hypotheses that differ in their action) attends to them from registers.

Spatial: the library's fused operator does it where a frame sees itself alone. Where it also reads the frame before, the
operator needs both frames' keys and values in one tensor: a sum and two concatenations in each layer and pass, which
cost more launches than all the rest of the attention. The kernel here reads them where they are (online softmax,
Milakov and Gimelshein 2018), and adds previous_key as one number a query, q . (k + p) = q . k + q . p.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return, operator, assignment"

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from genie_play.ops.reference_layers import check_rings
from genie_play.ops.triton_sampler import INTERPRETED, PROGRAMS

NUMBERS = 4096  # of a tile of keys in the temporal kernel: 32 a thread, and as many of values


def temporal(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, bias: Tensor, slot: Tensor | None = None
) -> Tensor:
    """See `reference.temporal`."""
    check_rings(q, ring_k, ring_v, bias, slot)
    batch, n_tokens, heads, head_dim = q.shape
    rows, slots = ring_k.shape[0], ring_k.shape[3]
    if not slots:
        return v.to(q.dtype, copy=True)
    q, k, v = (a if a.stride(-1) == 1 else a.contiguous() for a in (q, k, v))
    inside = (heads * slots * head_dim, slots * head_dim, head_dim, 1)
    if any(ring.stride()[1:] != inside for ring in (ring_k, ring_v)) or ring_k.stride(0) != ring_v.stride(0):
        if slot is not None:
            raise ValueError("to write a slot, the rings have to be contiguous inside a row of the batch")
        ring_k, ring_v = ring_k.contiguous(), ring_v.contiguous()
    block_p, block_d = triton.next_power_of_2(slots), triton.next_power_of_2(head_dim)
    block_n = temporal_block(n_tokens, rows * heads, block_p * block_d)
    seen = torch.empty((batch, n_tokens, heads, head_dim), dtype=q.dtype, device=q.device)
    _temporal_kernel[(triton.cdiv(n_tokens, block_n), heads, rows)](
        q, k, v, ring_k, ring_v, bias.contiguous(), q if slot is None else slot, seen,
        n_tokens, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], ring_k.stride(0), batch // rows,
        HEADS=heads, HEAD_DIM=head_dim, SLOTS=slots, WRITE=slot is not None,
        BLOCK_N=block_n, BLOCK_P=block_p, BLOCK_D=block_d,
        num_warps=min(max(block_n * block_p * block_d // 1024, 1), 4), enable_fp_fusion=True,
    )  # fmt: skip
    return seen


def temporal_block(n_tokens: int, repeats: int, numbers: int) -> int:
    """Places of a temporal tile: as many as registers hold, fewer where SMs would go without one."""
    # the interpreter pays by the program
    fewest = NUMBERS if INTERPRETED else max(n_tokens * repeats // PROGRAMS, 1)
    return max(min(NUMBERS // numbers, 1 << (fewest.bit_length() - 1)), 1)


def spatial(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    before_k: Tensor | None = None,
    before_v: Tensor | None = None,
    previous_key: Tensor | None = None,
) -> Tensor:
    """See `reference.spatial`."""
    batch, n_tokens, heads, head_dim = q.shape
    if previous_key is None:
        queries, keys, values = (a.transpose(1, 2) for a in (q, k, v))
        return F.scaled_dot_product_attention(queries, keys, values, scale=1.0).transpose(1, 2)
    earlier_k, earlier_v = (own if before is None else before for own, before in ((k, before_k), (v, before_v)))
    earlier_k, earlier_v = (a.expand(batch, *a.shape[1:]) for a in (earlier_k, earlier_v))
    q, k, v, earlier_k, earlier_v = (
        a if a.stride(-1) == 1 else a.contiguous() for a in (q, k, v, earlier_k, earlier_v)
    )
    seen = torch.empty((batch, n_tokens, heads, head_dim), dtype=q.dtype, device=q.device)
    block_m, block_n = spatial_blocks(n_tokens, batch * heads)
    strides = [stride for a in (q, k, v, earlier_k, earlier_v) for stride in a.stride()[:3]]
    _spatial_kernel[(triton.cdiv(n_tokens, block_m), heads, batch)](
        q, k, v, earlier_k, earlier_v, previous_key.contiguous(), seen, *strides,
        N_TOKENS=n_tokens, HEADS=heads, HEAD_DIM=head_dim, UPCAST=INTERPRETED,
        BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_D=max(triton.next_power_of_2(head_dim), 16),
        num_warps=8 if block_m > 64 else 4, enable_fp_fusion=True,
    )  # fmt: skip
    return seen


def spatial_blocks(n_tokens: int, repeats: int) -> tuple[int, int]:
    """Queries and keys of a spatial tile: large ones where each SM still gets one, small ones where frames are."""
    block_m = 16
    while block_m < 128 and triton.cdiv(n_tokens, 2 * block_m) * repeats >= PROGRAMS:
        block_m *= 2
    return block_m, min(max(triton.next_power_of_2(n_tokens), 16), 64)


@triton.jit
def _temporal_kernel(
    q_ptr, k_ptr, v_ptr, ring_k_ptr, ring_v_ptr, bias_ptr, slot_ptr, seen_ptr,
    n_tokens, q_b, q_n, q_h, k_b, k_n, k_h, v_b, v_n, v_h, ring_b, rows_per_ring,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, SLOTS: tl.constexpr, WRITE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """BLOCK_N places of one head, all rows of the batch that share their ring.

    s[p] = ring_k[p] . q + bias[p], s_own = k . q + bias[P]; seen = softmax(s, s_own) . (ring_v, v), by multiplying and
    adding in float32. The slot is written once everybody in the program has read it; no other program reads it.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    head, ring = tl.program_id(1), tl.program_id(2).to(tl.int64)
    p, d = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_D)
    here = (n < n_tokens)[:, None] & (d < HEAD_DIM)[None, :]
    there = here[:, None, :] & (p < SLOTS)[None, :, None]
    place = ring * ring_b + (n * HEADS + head) * (SLOTS * HEAD_DIM)
    at = place[:, None, None] + p[None, :, None] * HEAD_DIM + d[None, None, :]
    keys = tl.load(ring_k_ptr + at, mask=there, other=0.0)
    values = tl.load(ring_v_ptr + at, mask=there, other=0.0)
    bias = tl.load(bias_ptr + head * (SLOTS + 1) + p, mask=p < SLOTS, other=-float("inf")).to(tl.float32)
    own_bias = tl.load(bias_ptr + head * (SLOTS + 1) + SLOTS).to(tl.float32)
    for row in range(rows_per_ring):
        batch = ring * rows_per_ring + row
        q = tl.load(q_ptr + batch * q_b + n[:, None] * q_n + head * q_h + d[None, :], mask=here, other=0.0)
        k = tl.load(k_ptr + batch * k_b + n[:, None] * k_n + head * k_h + d[None, :], mask=here, other=0.0)
        v = tl.load(v_ptr + batch * v_b + n[:, None] * v_n + head * v_h + d[None, :], mask=here, other=0.0)
        q, own_k, own_v = q.to(tl.float32), k.to(tl.float32), v.to(tl.float32)
        scores = tl.sum(keys.to(tl.float32) * q[:, None, :], axis=2) + bias[None, :]  # (BLOCK_N, BLOCK_P)
        own = tl.sum(own_k * q, axis=1) + own_bias
        peak = tl.maximum(tl.max(scores, axis=1), own)
        weights, own = tl.exp(scores - peak[:, None]), tl.exp(own - peak)
        seen = tl.sum(weights[:, :, None] * values.to(tl.float32), axis=1) + own[:, None] * own_v
        seen = seen / (tl.sum(weights, axis=1) + own)[:, None]
        to = seen_ptr + ((batch * n_tokens + n) * HEADS + head)[:, None] * HEAD_DIM + d[None, :]
        tl.store(to, seen.to(seen_ptr.dtype.element_ty), mask=here)
        if WRITE:
            tl.debug_barrier()  # other threads of the program may still be reading
            written = place[:, None] + tl.load(slot_ptr) * HEAD_DIM + d[None, :]
            tl.store(ring_k_ptr + written, k.to(ring_k_ptr.dtype.element_ty), mask=here)
            tl.store(ring_v_ptr + written, v.to(ring_v_ptr.dtype.element_ty), mask=here)


@triton.jit
def _spatial_kernel(
    q_ptr, k_ptr, v_ptr, earlier_k_ptr, earlier_v_ptr, previous_key_ptr, seen_ptr,
    q_b, q_n, q_h, k_b, k_n, k_h, v_b, v_n, v_h, ek_b, ek_n, ek_h, ev_b, ev_n, ev_h,
    N_TOKENS: tl.constexpr, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """BLOCK_M queries of one head against the keys of the frame before, then against the frame's own."""
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    here = (m < N_TOKENS)[:, None] & (d < HEAD_DIM)[None, :]
    q = tl.load(q_ptr + batch * q_b + m[:, None] * q_n + head * q_h + d[None, :], mask=here, other=0.0)
    if UPCAST:
        q = q.to(tl.float32)
    previous = tl.load(previous_key_ptr + head * HEAD_DIM + d, mask=d < HEAD_DIM, other=0.0).to(tl.float32)
    added = tl.sum(q.to(tl.float32) * previous[None, :], axis=1)
    seen = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    peak = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    seen, peak, total = _look(
        q, added, earlier_k_ptr + batch * ek_b + head * ek_h, earlier_v_ptr + batch * ev_b + head * ev_h, ek_n, ev_n,
        seen, peak, total, N_TOKENS, HEAD_DIM, UPCAST, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    seen, peak, total = _look(
        q, added * 0.0, k_ptr + batch * k_b + head * k_h, v_ptr + batch * v_b + head * v_h, k_n, v_n,
        seen, peak, total, N_TOKENS, HEAD_DIM, UPCAST, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    to = seen_ptr + ((batch * N_TOKENS + m) * HEADS + head)[:, None] * HEAD_DIM + d[None, :]
    tl.store(to, (seen / total[:, None]).to(seen_ptr.dtype.element_ty), mask=here)


@triton.jit
def _look(
    q, added, k_ptr, v_ptr, k_n, v_n, seen, peak, total,
    N_TOKENS: tl.constexpr, HEAD_DIM: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Take the N keys and values of one frame into a running softmax; `added` goes on every score of a query."""
    d = tl.arange(0, BLOCK_D)
    for start in range(0, N_TOKENS, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        k = tl.load(
            k_ptr + n[None, :] * k_n + d[:, None], mask=(n < N_TOKENS)[None, :] & (d < HEAD_DIM)[:, None], other=0.0
        )
        v = tl.load(
            v_ptr + n[:, None] * v_n + d[None, :], mask=(n < N_TOKENS)[:, None] & (d < HEAD_DIM)[None, :], other=0.0
        )
        if UPCAST:
            k, v = k.to(tl.float32), v.to(tl.float32)
        scores = tl.dot(q, k, input_precision="ieee") + added[:, None]
        scores = tl.where((n < N_TOKENS)[None, :], scores, -float("inf"))
        higher = tl.maximum(peak, tl.max(scores, axis=1))
        weights = tl.exp(scores - higher[:, None])
        fade = tl.exp(peak - higher)
        total = total * fade + tl.sum(weights, axis=1)
        seen = tl.dot(weights.to(v.dtype), v, seen * fade[:, None], input_precision="ieee")
        peak = higher
    return seen, peak, total
