"""The kernels compile for an H200 (sm_90) on a machine without a GPU."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("triton", reason="triton is not installed")
if "TRITON_INTERPRET" in os.environ:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from genie_play.ops import triton_ops

SIZES = dict.fromkeys(("n_tokens", "rows", "count", "splits", "size", "base_b", "base_n", "base_d"), "i32")
MODEL = {"CODES": 1024, "WIDTH": 512}
TENSORS = {"tokens_ptr": "*i64", "positions_ptr": "*i64", "revealed_ptr": "*i64", "drawn_ptr": "*i32",
           "scores_ptr": "*fp32", "picture_ptr": "*u8"}  # fmt: skip
SCALARS = {"seed": "u64", "frame": "i32", "step": "i32", "inverse_temperature": "fp32", "choice_temperature": "fp32"}


def compile_for_hopper(kernel, floats: str, **constants):
    floating = dict.fromkeys(("hidden_ptr", "head_ptr", "table_ptr", "base_ptr", "x_ptr", "pixels_ptr"), "*" + floats)
    types = SIZES | TENSORS | SCALARS | floating | dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        fn=kernel, signature={name: types[name] for name in kernel.arg_names}, constexprs=dict(constants)
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})


def check(compiled):
    assert ".target sm_90" in compiled.asm["ptx"]
    assert len(compiled.asm["cubin"]) > 1000
    assert compiled.metadata.shared <= 227 * 1024


@pytest.mark.parametrize(("floats", "ranked"), [("bf16", False), ("bf16", True), ("fp32", False)])
def test_draw(floats, ranked):
    compiled = compile_for_hopper(
        triton_ops._draw_kernel, floats, **MODEL, PER_SPLIT=1024 if ranked else 128, RANKED=ranked, NOISY=True,
        UPCAST=False, BLOCK_R=16, BLOCK_V=128, BLOCK_D=64,
    )  # fmt: skip
    check(compiled)
    # the tail of the Gumbel noise lives on an accurate logarithm
    assert "lg2.approx" not in compiled.asm["ptx"]
    if floats == "bf16":
        assert "bf16" in compiled.asm["ptx"]
        assert "mma" in compiled.asm["ptx"]  # tensor cores


def test_greedy_draw():
    check(
        compile_for_hopper(
            triton_ops._draw_kernel, "bf16", CODES=64, WIDTH=64, PER_SPLIT=64, RANKED=False, NOISY=False, UPCAST=False,
            BLOCK_R=16, BLOCK_V=64, BLOCK_D=64,
        )
    )  # fmt: skip


@pytest.mark.parametrize("ranked", [False, True])
def test_commit(ranked):
    splits = 1 if ranked else 8
    check(
        compile_for_hopper(
            triton_ops._commit_kernel, "bf16", **MODEL, RANKED=ranked, SPLITS=splits,
            BLOCK_N=16, BLOCK_J=128, BLOCKS_J=8 if ranked else 2, BLOCK_D=128,
        )
    )  # fmt: skip


def test_embedding_and_picture():
    check(compile_for_hopper(triton_ops._embed_kernel, "bf16", WIDTH=512, BLOCK_N=16, BLOCK_D=128))
    check(compile_for_hopper(triton_ops._picture_kernel, "bf16", BLOCK=1024))
