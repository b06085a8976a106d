"""Products in fp8 (e4m3) with a scale a row, in plain torch: the specification of `fp8_triton`.

A row x of numbers is stored as q = x / s in e4m3 with s = max|x| / 448, so that its largest number meets the largest of
the format; the product of two such matrices is (q_a @ q_b.T) * s_a * s_b, summed in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FP8 = torch.float8_e4m3fn
LARGEST = 448.0  # of e4m3
SMALLEST_PEAK = 1e-12  # a row of zeros keeps a scale that can be divided by


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., D) to e4m3 (..., D) and float32 scales (..., 1)."""
    x = x.float()
    scale = x.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_PEAK) * (1.0 / LARGEST)
    # e4m3 has no infinity: what rounding puts beyond the largest would become not a number
    return (x / scale).clamp(-LARGEST, LARGEST).to(FP8), scale


def dequantise(numbers: Tensor, scale: Tensor) -> Tensor:
    """float32 (..., D)."""
    return numbers.float() * scale


def norm_quantise(x: Tensor, weight: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """RMSNorm of (..., D) in float32, then `quantise_rows`."""
    return quantise_rows(F.rms_norm(x.float(), x.shape[-1:], weight.float(), eps))


def square_quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """max(x, 0)**2 of (..., D) in float32, then `quantise_rows`."""
    return quantise_rows(F.relu(x.float()).square())


def scaled_mm(a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """(M, K) e4m3 with scales (M, 1) times (N, K) e4m3 with scales (N, 1), transposed: (M, N)."""
    return (dequantise(a, a_scale) @ dequantise(b, b_scale).T).to(dtype)
