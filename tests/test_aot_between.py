"""The kernels between products compile for an H200 (sm_90) on a machine without a GPU, at the paper's sizes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
if "TRITON_INTERPRET" in os.environ:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from genie_play.ops import between_triton

INTEGERS = ("n_tokens", "heads", "slots", "batch", "width")
REAL = ("factor", "eps")


def compiled(kernel, types: dict[str, str], warps: int = 4, **constants):
    names = kernel.arg_names
    signature = {n: "i32" if n in INTEGERS else "fp32" if n in REAL else types.get(n, "*bf16") for n in names}
    signature |= dict.fromkeys(constants, "constexpr")
    # what the launcher finds out for itself: memory starts at multiples of 16 bytes
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n].startswith("*")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert ".target sm_90" in made.asm["ptx"]
    assert made.metadata.shared <= 227 * 1024
    registers, spills = resources(made)
    print(f"{kernel.__name__} {constants}: {registers} registers, {spills} bytes spilled")
    return made, spills


def resources(made) -> tuple[int, int]:
    """Registers a thread and bytes of stack, by cuobjdump where there is one; (-1, 0) where there is not."""
    tool = shutil.which("cuobjdump") or Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not Path(tool).exists():
        return -1, 0
    cubin = Path(os.environ["HOME"]) / "kernel.cubin"
    cubin.parent.mkdir(parents=True, exist_ok=True)
    cubin.write_bytes(made.asm["cubin"])
    told = subprocess.run([str(tool), "-res-usage", str(cubin)], capture_output=True, text=True).stdout
    registers, stack = re.search(r"REG:(\d+)", told), re.search(r"STACK:(\d+)", told)
    return (int(registers[1]) if registers else -1), (int(stack[1]) if stack else 0)


@pytest.mark.parametrize(("block", "warps"), [(512, 1), (8192, 8)])
@pytest.mark.parametrize("what", ["quantise", "square", "norm"])
def test_rows(block, warps, what):
    made, spills = compiled(
        between_triton._rows_kernel,
        {"numbers_ptr": "*fp8e4nv", "scales_ptr": "*fp32"},
        warps,
        ADD=what == "norm", NORM=what == "norm", SQUARE=what == "square", LARGEST=448.0, SMALLEST=1e-12, BLOCK=block,
    )  # fmt: skip
    assert "e4m3" in made.asm["ptx"]
    assert spills == 0


@pytest.mark.parametrize(("heads", "head_dim", "rotary"), [(8, 64, False), (64, 128, False), (8, 32, True)])
def test_heads(heads, head_dim, rotary):
    _, spills = compiled(
        between_triton._split_kernel, {"cos_ptr": "*fp32", "sin_ptr": "*fp32"},
        HEAD_DIM=head_dim, BLOCK_H=heads, ROTARY=rotary,
    )  # fmt: skip
    assert spills == 0


@pytest.mark.parametrize(("head_dim", "block_h"), [(32, 8), (64, 4), (128, 2)])
@pytest.mark.parametrize("fp8", [False, True])
def test_time(head_dim, block_h, fp8):
    ring = "*fp8e4nv" if fp8 else "*bf16"
    made, spills = compiled(
        between_triton._temporal_kernel,
        {"ring_k_ptr": ring, "ring_v_ptr": ring, "bias_ptr": "*fp32",
         **dict.fromkeys(("scales_k_ptr", "scales_v_ptr"), "*fp32" if fp8 else "*bf16")},
        HEAD_DIM=head_dim, BLOCK_H=block_h, BLOCK_P=16, SCALED=fp8,
    )  # fmt: skip
    assert spills == 0
    # whole words of the ring are read at once
    assert re.search(r"ld\.global\.v[248]\.b32", made.asm["ptx"])


@pytest.mark.parametrize("pdl", [False, True])
def test_a_launch_that_waits_for_the_one_before(pdl):
    from genie_play.eval import gpu_kernels

    made, _ = compiled(gpu_kernels._touch_kernel, {"numbers_ptr": "*i32"}, 1, PDL=pdl)
    assert ("griddepcontrol.wait" in made.asm["ptx"]) == pdl
    assert ("griddepcontrol.launch_dependents" in made.asm["ptx"]) == pdl
