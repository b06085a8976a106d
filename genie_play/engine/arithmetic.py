"""Linear layers of a CPU in three arithmetics: float32, bfloat16 and dynamic int8. Weights are packed once.

They differ in what they multiply in; sums are in float32 or wider. int8 has one scale a row of the weight (per output
channel) and one for all that comes in at once, measured anew each time. What comes in is unsigned: signed kernels are
a slow reference on some CPUs. A scale a row of what comes in was measured too: on `spark` the divergence of the logits
falls from 1.7e-4 to 1.4e-4, and a layer takes 1.9 times as long, as nothing in torch fuses it.

Whether this machine multiplies int8 rightly is checked against integers before it is used. Knows nothing of attention,
worlds or paths.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_play.engine.verdicts import vendor
from genie_play.types import BackendError, CheckpointError

ARITHMETICS = ("fp32", "bf16", "int8")
# the first that is exact on this machine is used; they differ in speed, and in the last bit of what comes out
INT8_ENGINES = ("onednn", "x86", "fbgemm", "qnnpack")


class Linear32(nn.Module):
    """y = x @ weight.T in float32. `relu` clips y at zero."""

    kind = torch.float32

    def __init__(self, weight: Tensor, relu: bool = False) -> None:
        super().__init__()
        self.unary = "relu" if relu else "none"
        weight = weight.to(self.kind)
        # the packed form is opaque: it can be multiplied by, and nothing else
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None) if self.packs() else weight

    @staticmethod
    def packs() -> bool:
        """Whether oneDNN multiplies here, by a weight packed once, or whatever `F.linear` takes."""
        return mkl_is_slow()

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., M), in the arithmetic of the layer."""
        x = x.to(self.kind)
        if self._weight.is_mkldnn:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, None, self.unary, [], "")
            return y
        y = F.linear(x, self._weight)
        return y.relu_() if self.unary == "relu" else y


class Linear16(Linear32):
    """The same in bfloat16, and so is what comes out."""

    kind = torch.bfloat16

    @staticmethod
    def packs() -> bool:
        """Wherever the CPU multiplies bfloat16 itself."""
        return has_bf16()


class Linear8(nn.Module):
    """The same in int8: x is rounded to 256 steps between its least and its greatest, each row of the weight to 255."""

    def __init__(self, weight: Tensor, relu: bool = False, engine: str | None = None) -> None:
        super().__init__()
        if not weight.isfinite().all():
            # int8 knows no infinities: they would turn into numbers
            raise CheckpointError("the world has weights that are not finite; get its file again")
        self._packed, self._out = _packed(weight, engine or int8_engine()), len(weight)
        multiply = torch.ops.quantized.linear_relu_dynamic if relu else torch.ops.quantized.linear_dynamic
        self._multiply: Callable[..., Tensor] = multiply

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., M) float32. An infinity makes everything not finite; a NaN may pass as a number."""
        try:
            return self._multiply(x, self._packed, False)
        except RuntimeError:
            # NaN alone has no least and no greatest
            if x.isfinite().any():
                raise
            return x.new_full((*x.shape[:-1], self._out), torch.nan)


def layer(arithmetic: str) -> Callable[..., nn.Module]:
    """The linear layer of an arithmetic, made of a weight (M, K); BackendError where this machine cannot run it."""
    if reason := unfit(arithmetic):
        raise BackendError(f"{arithmetic} cannot run on this CPU: {reason}; choose path.arithmetic fp32")
    return {"fp32": Linear32, "bf16": Linear16, "int8": Linear8}[arithmetic]


@lru_cache(maxsize=1)
def has_bf16() -> bool:
    """The CPU multiplies bfloat16 itself; elsewhere it is emulated: right, and slower than float32."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@lru_cache(maxsize=1)
def mkl_is_slow() -> bool:
    """The CPU has AVX512 and is AMD's: MKL, which torch multiplies float32 by, does not use it there, and oneDNN is 2.2
    times as fast (measured, docs/performance.md)."""
    ours = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return bool(ours and "AuthenticAMD" in vendor())


def unfit(arithmetic: str) -> str:
    """Why this machine cannot run an arithmetic, or nothing."""
    if arithmetic == "int8":
        return "" if int8_engine() else f"its products of integers are wrong or missing ({_int8_problem()})"
    return "" if arithmetic in ARITHMETICS else "there is no such arithmetic"


@lru_cache(maxsize=1)
def int8_engine() -> str:
    """The engine of torch that multiplies int8 here, found by trying; nothing where none is exact."""
    return next((engine for engine in INT8_ENGINES if not int8_problem(engine)), "")


def int8_problem(engine: str) -> str:
    """What an engine gets wrong in products of integers, computed as a network's are; nothing if all are exact."""
    if engine not in torch.backends.quantized.supported_engines:
        return "this torch has no such engine"
    generator = torch.Generator().manual_seed(8)
    for rows, size, out in ((2, 16, 8), (9, 64, 48), (33, 256, 24)):
        # both scales come out as exactly one
        x = torch.randint(-128, 128, (rows, size), generator=generator)
        weight = torch.randint(-127, 128, (out, size), generator=generator)
        x[:, 0], x[:, 1], weight[:, 0] = 127, -128, 127
        # the greatest sums there can be, which accumulators of 16 bits do not survive
        x[0, 2:], weight[0], weight[1] = 127, 127, -127
        try:
            found = Linear8(weight.float(), engine=engine)(x.float())
        except (RuntimeError, AttributeError) as error:  # a kernel that this CPU or this torch lacks
            return str(error).strip().partition("\n")[0]
        if not torch.equal(found.long(), x @ weight.T):
            return f"wrong at {rows} x {size} x {out}"
    return ""


def _packed(weight: Tensor, engine: str) -> Any:
    """A weight (M, K) in int8 as an engine of torch wants it."""
    scales = (weight.double().abs().amax(1) / 127).clamp_(min=1e-30)
    before, torch.backends.quantized.engine = torch.backends.quantized.engine, engine
    try:
        with warnings.catch_warnings():
            # torch will let go of quantized tensors one day; nothing that replaces them is as fast on a CPU
            warnings.filterwarnings("ignore", ".*deprecated", UserWarning)
            zeros = torch.zeros_like(scales).long()
            return torch.ops.quantized.linear_prepack(
                torch.quantize_per_channel(weight.float(), scales, zeros, 0, torch.qint8), None
            )
    finally:
        torch.backends.quantized.engine = before


def _int8_problem() -> str:
    return "; ".join(f"{engine}: {int8_problem(engine)}" for engine in INT8_ENGINES)
