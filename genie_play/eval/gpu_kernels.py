"""The smallest kernel there is, for measuring what a launch costs inside a graph.

With PDL (programmatic dependent launch) a kernel starts while the one before it ends, and waits before it reads.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# (a kernel's arguments are Triton values, which have no Python types)

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


def touch(numbers: Tensor, pdl: bool = False) -> None:
    """Add 1 to each of the numbers, one program each."""
    options = {"launch_pdl": True} if pdl else {}
    _touch_kernel[(numbers.numel(),)](numbers, PDL=pdl, num_warps=1, enable_fp_fusion=True, **options)


@triton.jit
def _touch_kernel(numbers_ptr, PDL: tl.constexpr):
    at = numbers_ptr + tl.program_id(0)
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    tl.store(at, tl.load(at) + 1)
