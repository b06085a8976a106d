"""What this machine can do at most, measured: the rate of matrix products at our shapes, and of moving memory.

A fraction of a floor means something only if the floor is this machine's own, on this day, with its neighbours. Each
rate is the best of many tries, because a floor is what nothing gets under. Knows nothing of worlds or clocks of play.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from genie_play.engine import arithmetic as arithmetics

SQUARE = 512  # a product that suits any machine, beside ours
LARGE = 256 * 2**20  # bytes: more than most caches hold
SECONDS = 0.08  # of trying, for each shape
# dense peaks as their maker states them, for the reader's comparison: FLOP/s in bf16 and fp8, bytes/s
STATED = {
    "H200": {"bf16": 989e12, "fp8": 1979e12, "memory": 4.8e12},
    "H100": {"bf16": 989e12, "fp8": 1979e12, "memory": 3.35e12},
    "A100": {"bf16": 312e12, "memory": 2.0e12},
}


@dataclass(frozen=True)
class Roofs:
    """The best rates that were seen, and where."""

    arithmetic: str  # in which the products were made
    flops_per_s: float
    values_per_s: float  # in the arithmetic of attention, head and decoder: that of int8 is float32, of fp8 bfloat16
    bytes_per_s: float
    products: dict[str, float]  # "144x256x768" (rows, inputs, outputs) -> FLOP/s
    copies: dict[str, float]  # "25 MiB" -> bytes/s, read and written both counted
    stated: dict[str, float]  # what the maker says of the device, where we know it


def measure(shapes: Sequence[tuple[int, int, int]], arithmetic: str, device: torch.device, working: int) -> Roofs:
    """Roofs of products of `shapes` (rows, inputs, outputs) in an arithmetic, and of copies of `working` bytes.

    Weights that fit a cache move at the cache's rate, so the faster of a copy of that size and of a large one counts.
    An arithmetic that this torch has no product for is measured in float32, and `arithmetic` says so.
    """
    try:
        _product(arithmetic, 16, 16, 16, device)()
    except (RuntimeError, NotImplementedError):
        arithmetic = "fp32"
    products = {}
    for rows, inputs, outputs in dict.fromkeys([*shapes, (SQUARE, SQUARE, SQUARE)]):
        seconds = _best(_product(arithmetic, rows, inputs, outputs, device), device)
        products[f"{rows}x{inputs}x{outputs}"] = 2.0 * rows * inputs * outputs / seconds
    values = max(products.values())
    if arithmetic in ("int8", "fp8"):
        square = _product("fp32" if arithmetic == "int8" else "bf16", SQUARE, SQUARE, SQUARE, device)
        values = 2.0 * SQUARE**3 / _best(square, device)
    copies = {}
    for size in dict.fromkeys([max(working, 2**20), LARGE]):
        # ones: a page of zeros that nobody wrote to is not memory yet
        source = torch.ones(size // 2, dtype=torch.uint8, device=device)
        goal = torch.empty_like(source)
        seconds = _best(lambda to=goal, of=source: to.copy_(of), device)  # type: ignore[misc]
        copies[f"{size / 2**20:.0f} MiB"] = 2.0 * source.numel() / seconds
    return Roofs(arithmetic, max(products.values()), values, max(copies.values()), products, copies, _stated(device))


def _product(arithmetic: str, rows: int, inputs: int, outputs: int, device: torch.device) -> Callable[[], Any]:
    """A matrix product, ready to run."""
    if arithmetic == "int8":
        a = torch.ones(rows, inputs, dtype=torch.int8, device=device)
        b = torch.ones(outputs, inputs, dtype=torch.int8, device=device).T.contiguous()
        return lambda: torch._int_mm(a, b)
    if arithmetic == "fp8":
        one = torch.ones((), device=device)
        x = torch.ones(rows, inputs, device=device).to(torch.float8_e4m3fn)
        w = torch.ones(outputs, inputs, device=device).to(torch.float8_e4m3fn)
        return lambda: torch._scaled_mm(x, w.T, one, one, out_dtype=torch.bfloat16)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[arithmetic]
    x, w = torch.ones(rows, inputs, dtype=kind, device=device), torch.ones(outputs, inputs, dtype=kind, device=device)
    if device.type == "cpu" and arithmetic in arithmetics.ARITHMETICS:
        layer = arithmetics.layer(arithmetic)(w)  # by what the engine takes here: another library may be half as fast
        return lambda: layer(x)
    return lambda: F.linear(x, w)


def _best(work: Callable[[], Any], device: torch.device) -> float:
    """The least seconds that `work` took, of many tries."""
    inner = 1 if device.type == "cpu" else 16  # launches overlap on a GPU; a wait for each would be measured instead
    best, until, tries = float("inf"), time.perf_counter() + SECONDS, 0
    work()
    while time.perf_counter() < until or tries < 5:
        wait(device)
        started = time.perf_counter()
        for _ in range(inner):
            work()
        wait(device)
        best = min(best, (time.perf_counter() - started) / inner)
        tries += 1
    return best


def wait(device: torch.device) -> None:
    """Until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _stated(device: torch.device) -> dict[str, float]:
    if device.type != "cuda":
        return {}
    name = torch.cuda.get_device_name(device)
    return next((rates for part, rates in STATED.items() if part in name), {})
