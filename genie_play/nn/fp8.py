"""Linear layers in fp8: weights quantised once, activations a row at a time, products by the tensor cores.

See `ops.between_reference` for the numbers. On an NVIDIA GPU of compute capability 8.9 or more the product is
`torch._scaled_mm`, elsewhere its reference. Knows nothing of what the layers are for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genie_play.nn.st_transformer import STBlock
from genie_play.ops import between_reference as reference

OLDEST = (8, 9)  # compute capability with e4m3 in its tensor cores
MULTIPLE = 16  # of both sides of a weight; what is not stays as it is


class Fp8Linear(nn.Module):
    """`nn.Linear` without bias: numbers (out, in) e4m3 and scales (out, 1) float32."""

    numbers: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        numbers, scales = reference.quantise_rows(weight.detach())
        self.register_buffer("numbers", numbers)
        self.register_buffer("scales", scales)
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out) in bfloat16."""
        return self.of_rows(*reference.quantise_rows(x))

    def of_rows(self, rows: Tensor, scales: Tensor) -> Tensor:
        """Rows that are quantised already, (..., in) e4m3 and (..., 1), to (..., out) in bfloat16."""
        flat = product(rows.flatten(0, -2), scales.view(-1, 1), self.numbers, self.scales)
        return flat.view(*rows.shape[:-1], self.out_features)


def product(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor) -> Tensor:
    """(M, K) e4m3 with scales (M, 1) times (N, K) e4m3 with scales (N, 1), transposed: (M, N) bfloat16."""
    if not a.is_cuda:
        return reference.scaled_mm(a, a_scales, b, b_scales)
    return torch._scaled_mm(
        a, b.t(), scale_a=a_scales, scale_b=b_scales.t(), out_dtype=torch.bfloat16, use_fast_accum=True
    )


def quantise_blocks(blocks: nn.ModuleList) -> None:
    """Put the linear layers of ST blocks into fp8, one after the other, in place."""
    for block in blocks:
        assert isinstance(block, STBlock)
        for parent, name in linears(block):
            layer = getattr(parent, name)
            if isinstance(layer, nn.Linear) and fits(layer.weight):
                setattr(parent, name, Fp8Linear(layer.weight))


def linears(block: STBlock) -> list[tuple[nn.Module, str]]:
    """The linear layers of a block, each as the module that holds it and its name there."""
    attention = [(part, name) for part in (block.spatial, block.temporal) for name in ("qkv", "out")]
    return [*attention, (block, "ffn_in"), (block, "ffn_out")]


def fits(weight: Tensor) -> bool:
    """Whether a weight (out, in) can be multiplied in fp8."""
    return not any(size % MULTIPLE for size in weight.shape)
