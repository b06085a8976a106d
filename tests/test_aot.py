"""Every kernel, as it would be launched for a world, compiles for an H200 (sm_90) on a machine without a GPU.

The launches are those of `ops.cases` on the device "meta": block sizes, warps and constants are what play would use.
`pytest tests/test_aot.py -s` prints registers, shared memory and spills; with `-m slow` for all the worlds that
docs/performance.md lists.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
if "TRITON_INTERPRET" in os.environ:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from genie_play.config import preset
from genie_play.ops import triton_ops
from genie_play.ops.cases import cases, sizes

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
TYPES = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64", torch.int32: "*i32", torch.uint8: "*u8",
    torch.float8_e4m3fn: "*fp8e4nv",
}  # fmt: skip
SHARED = 227 * 1024  # bytes that a program may have on an H200


@dataclass(frozen=True)
class Launch:
    """A kernel with the arguments of one launch."""

    kernel: triton.runtime.JITFunction
    args: dict
    options: dict
    grid: tuple

    def compile(self):
        """For sm_90, specialised as a launch specialises it: ones are constants, multiples of 16 are known to be."""
        signature, constants, attributes = {}, {}, {}
        for index, parameter in enumerate(self.kernel.params):
            value = self.args[parameter.name]
            kind, aligned = _kind(value, parameter)
            if kind == "constexpr":
                constants[parameter.name] = value
            elif aligned:
                attributes[(index,)] = [["tt.divisibility", 16]]
            signature[parameter.name] = kind
        source = ASTSource(self.kernel, signature, constants, attributes)
        return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=self.options)


def _kind(value, parameter) -> tuple[str, bool]:
    """Triton's type of an argument, and whether it counts as a multiple of 16."""
    if parameter.is_constexpr:
        return "constexpr", False
    if isinstance(value, torch.Tensor):
        return TYPES[value.dtype], value.storage_offset() * value.element_size() % 16 == 0
    if isinstance(value, float):
        return "fp32", False
    if value == 1 and not parameter.do_not_specialize:
        return "constexpr", False
    aligned = value % 16 == 0 and not parameter.do_not_specialize
    return "i32" if -(2**31) <= value < 2**31 else "i64" if value < 2**63 else "u64", aligned


def launches(monkeypatch, case) -> list[Launch]:
    """What a case would launch."""
    found = []

    def note(self, *args, grid, warmup, **kwargs):
        bound = {**dict(zip(self.arg_names, args, strict=False)), **kwargs}
        options = {name: value for name, value in kwargs.items() if name not in self.arg_names}
        found.append(Launch(self, bound, options, grid))

    with monkeypatch.context() as patch:
        patch.setattr(triton.runtime.JITFunction, "run", note)
        case.on(triton_ops)
    return found


def resources(compiled, folder: Path) -> tuple[int, int]:
    """Registers a thread, and bytes of stack a thread: what does not fit registers is spilled there."""
    file = folder / "kernel.cubin"
    file.write_bytes(compiled.asm["cubin"])
    text = subprocess.run([CUOBJDUMP, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    registers, stack, local = (int(re.search(rf"{name}:(\d+)", text)[1]) for name in ("REG", "STACK", "LOCAL"))
    return registers, stack + local


def check_world(name: str, dtype: torch.dtype, monkeypatch, folder: Path, batch: int = 1) -> dict[str, str]:
    """Compile all that a world launches; the target's assembly of each case's kernels, joined."""
    seen, assembly = {}, {}
    kind = str(dtype).removeprefix("torch.")
    print(f"\n{name}, {kind}, batch {batch}: kernel (case), programs x warps, registers, shared, spilled")
    for case in cases(sizes(preset(name), batch), "meta", dtype):
        found = launches(monkeypatch, case)
        assert found or case.op == "spatial", case.name  # what a library does better is left to it
        for launch in found:
            compiled = launch.compile()
            assembly[case.name] = assembly.get(case.name, "") + compiled.asm["ptx"]
            if compiled.hash in seen:
                continue
            seen[compiled.hash] = compiled
            registers, spilled = resources(compiled, folder)
            programs = " x ".join(str(n) for n in launch.grid if n != 1) or "1"
            kernel, shared = launch.kernel.__name__.strip("_").removesuffix("_kernel"), compiled.metadata.shared
            print(
                f"{kernel} ({case.name}) | {programs} programs x {compiled.metadata.num_warps} warps "
                f"| {registers} | {shared / 1024:.1f} KB | {spilled}"
            )
            assert ".target sm_90" in compiled.asm["ptx"]
            assert shared <= SHARED, f"{case.name} asks for {shared} bytes of shared memory"
            assert spilled == 0, f"{case.name} spills {spilled} bytes a thread"
    assert len(seen) > 10
    return assembly


def test_a_world_in_bfloat16(monkeypatch, tmp_path):
    assembly = check_world("studio", torch.bfloat16, monkeypatch, tmp_path)
    # tensor cores wherever there is a product, float8 ones where the weight is
    for name in ("project heads", "out and residual", "feed in", "spatial", "reveal, listed", "reveal, ranked"):
        assert re.search(r"mma\S*\.bf16\.bf16", assembly[name]), name
    for name in ("project heads, float8", "feed in, float8", "out and residual, float8"):
        assert re.search(r"mma\S*\.e4m3\.e4m3", assembly[name]), name
    # the ring is read once, in wide loads
    assert "ld.global.v4.b32" in assembly["temporal"]


@pytest.mark.parametrize(("name", "batch"), [("spark", 8), ("pocket", 1)])
def test_a_layer_is_one_kernel(monkeypatch, tmp_path, name, batch):
    for case in cases(sizes(preset(name), batch), "meta", torch.bfloat16):
        if case.op == "layer":
            (launch,) = launches(monkeypatch, case)
            compiled = launch.compile()
            registers, spilled = resources(compiled, tmp_path)
            print(
                f"{name}, {case.name}: {launch.grid}, {registers} registers, {compiled.metadata.shared / 1024:.1f} KB"
            )
            assert spilled == 0
            assert compiled.metadata.shared <= SHARED
            assert re.search(r"mma\S*\.bf16\.bf16", compiled.asm["ptx"])


def test_draws_in_float32(monkeypatch, tmp_path):
    for case in cases(sizes(preset("spark")), "meta"):
        if case.op == "reveal":
            draw = launches(monkeypatch, case)[0].compile()
            # the tail of the Gumbel noise lives on an accurate logarithm, close codes on products that are not TF32
            assert "lg2.approx" not in draw.asm["ptx"]
            assert "tf32" not in draw.asm["ptx"]
            assert resources(draw, tmp_path)[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "batch"),
    [
        ("spark", torch.float32, 1), ("spark", torch.bfloat16, 8), ("pocket", torch.bfloat16, 1),
        ("studio", torch.float32, 1), ("studio", torch.bfloat16, 8), ("genie-41m", torch.bfloat16, 1),
        ("genie-404m", torch.bfloat16, 1), ("genie-2.7b", torch.bfloat16, 1), ("genie-11b", torch.bfloat16, 1),
    ],
)  # fmt: skip
def test_worlds(monkeypatch, tmp_path, name, dtype, batch):
    check_world(name, dtype, monkeypatch, tmp_path, batch)
