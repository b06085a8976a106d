"""What an ST block does between its matrix products, in plain torch: the specification of `between_triton`.

For large models the products are the library's; these are the operations around them, in as few passes over memory as
can be, in fp8 (e4m3) where asked. A row x is stored as q = x / s with s = max|x| / 448, so that its largest number
meets the largest of the format; the product of two such matrices is (q_a @ q_b.T) * s_a * s_b, summed in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genie_play.ops.reference_layers import E4M3_MAX

FP8 = torch.float8_e4m3fn
SMALLEST_PEAK = 1e-12  # a row of zeros keeps a scale that can be divided by


class Rows(NamedTuple):
    """Rows (..., D) in e4m3 and their scales (..., 1) float32."""

    numbers: Tensor
    scales: Tensor


def quantise_rows(x: Tensor) -> Rows:
    """(..., D) in fp8."""
    x = x.float()
    scale = x.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_PEAK) * (1.0 / E4M3_MAX)
    # e4m3 has no infinity: what rounding puts beyond the largest would become not a number
    return Rows((x / scale).clamp(-E4M3_MAX, E4M3_MAX).to(FP8), scale)


def square_quantise(x: Tensor) -> Rows:
    """max(x, 0)**2 of (..., D), in fp8."""
    return quantise_rows(F.relu(x.float()).square())


def add_norm_quantise(x: Tensor, y: Tensor | None, gain: Tensor, eps: float = 1e-6) -> tuple[Tensor, Rows]:
    """x + y, and rms(x + y) * gain in fp8; y None is zero. (..., D)."""
    x = x if y is None else x + y
    return x, quantise_rows(F.rms_norm(x.float(), x.shape[-1:], gain.float(), eps))


def dequantise(numbers: Tensor, scale: Tensor) -> Tensor:
    """float32 (..., D)."""
    return numbers.float() * scale


def scaled_mm(a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """(M, K) e4m3 with scales (M, 1) times (N, K) e4m3 with scales (N, 1), transposed: (M, N)."""
    return (dequantise(a, a_scale) @ dequantise(b, b_scale).T).to(dtype)


def split_heads(
    qkv: Tensor, q_scale: Tensor, k_scale: Tensor, rotary: tuple[Tensor, Tensor] | None = None, eps: float = 1e-6
) -> tuple[Tensor, Tensor, Tensor]:
    """A projection (B, N, 3 * h * hd) to queries, keys and values, each (B, N, h, hd), in float32 inside.

    q = turn(rms(q) * q_scale * hd**-0.5), k = turn(rms(k) * k_scale), rms over each head; `rotary` is a table of
    cosines and signed sines (N, hd), see `nn.st_transformer.rotary_table`.
    """
    head_dim = len(q_scale)
    q, k, v = qkv.unflatten(-1, (3, -1, head_dim)).unbind(-3)
    q = F.rms_norm(q.float(), (head_dim,), eps=eps) * (q_scale.float() * head_dim**-0.5)
    k = F.rms_norm(k.float(), (head_dim,), eps=eps) * k_scale.float()
    if rotary is not None:
        cos, sin = (table.float()[:, None] for table in rotary)
        q, k = (a * cos + a.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3) * sin for a in (q, k))
    return q.to(qkv.dtype), k.to(qkv.dtype), v.contiguous()


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
    """Attention of one frame along time, each place to its own past and to itself: (B, N, h, hd).

        softmax([ring_k . q, k . q] + bias) [ring_v, v]

    The rings are (N, h, P, hd), one for all rows of the batch; in e4m3 (as bytes) they have scales (N, h, P). bias
    (h, P + 1) belongs to the slots and, last, to the frame itself; -inf where a slot is not seen.
    """
    keys, values = ring_k, ring_v
    if scales_k is not None and scales_v is not None:
        keys, values = (
            dequantise(ring.view(FP8), scales[..., None]) for ring, scales in ((ring_k, scales_k), (ring_v, scales_v))
        )
    own = (q.float() * k.float()).sum(-1, keepdim=True)  # (B, N, h, 1)
    before = (keys.float() * q.float()[..., None, :]).sum(-1)  # (B, N, h, P)
    weights = (torch.cat((before, own), -1) + bias.float()).softmax(-1)
    seen = (weights[..., :-1, None] * values.float()).sum(-2) + weights[..., -1:] * v.float()
    return seen.to(q.dtype)
