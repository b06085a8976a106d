"""Kernel backends by name: each is a module with the operations of `reference`.

Automatic choice may fall back and says so once; a backend asked for by name works or fails with a reason. Triton is
imported only when it is chosen.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from genie_play.types import BackendError

if TYPE_CHECKING:
    from genie_play.ops.cases import Case

BACKENDS = {"reference": "genie_play.ops.reference", "triton": "genie_play.ops.triton_ops"}
VARIABLE = "GENIE_PLAY_OPS"

log = logging.getLogger(__name__)


def available() -> list[str]:
    """Names of the backends that can run on this machine as it is set up."""
    return [name for name in BACKENDS if not _missing(name)]


def get(name: str) -> ModuleType:
    """The backend of that name; BackendError says why it cannot be had."""
    if name not in BACKENDS:
        raise BackendError(f"no kernel backend is called {name!r}; choose {' or '.join(BACKENDS)}")
    reason = _missing(name)
    if reason:
        raise BackendError(f"the {name} kernels cannot run here: {reason}")
    return importlib.import_module(BACKENDS[name])


def choose(device: torch.device | str, asked: str | None = None) -> tuple[str, ModuleType]:
    """Name and module of the backend for a device: the one asked for, GENIE_PLAY_OPS's, or the fastest that works."""
    device = torch.device(device)
    asked = asked or os.environ.get(VARIABLE)
    if asked:
        backend = get(asked)
        reason = _unfit(asked, device) or _failure(asked, device)
        if reason:
            raise BackendError(f"the {asked} kernels cannot run on {device}: {reason}")
        return asked, backend
    if device.type == "cuda":
        reason = _missing("triton") or _failure("triton", device)
        if not reason:
            return "triton", get("triton")
        _say_once(f"using the reference kernels on {device}: {reason}")
    return "reference", get("reference")


def self_check(name: str, device: torch.device | str) -> list[tuple[str, bool, str]]:
    """Compare every operation of a backend with its twin, on small random cases, on a device: (kernel, right, detail).

    On a CPU the kernels run under Triton's interpreter, if TRITON_INTERPRET was set when the program started.
    BackendError where the backend cannot be had at all.
    """
    device = torch.device(device)
    backend = get(name)
    reason = _unfit(name, device)
    if reason:
        raise BackendError(f"the {name} kernels cannot run on {device}: {reason}")
    return [
        (f"{case.name}, {str(dtype).removeprefix('torch.')}", not wrong, wrong or "equals its twin")
        for dtype in (torch.float32, torch.bfloat16)
        for case, wrong in _compared(backend, device, dtype)
    ]


def _missing(name: str) -> str:
    """Why a backend cannot run on this machine, or nothing."""
    if name == "reference":
        return ""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not (_interpreted() or torch.cuda.is_available()):
        return "there is no NVIDIA GPU; unset " + VARIABLE + " or choose reference"
    return ""


def _unfit(name: str, device: torch.device) -> str:
    """Why a backend cannot run on a device, or nothing."""
    if name == "triton" and device.type != "cuda" and not _interpreted():
        return f"triton needs an NVIDIA GPU; unset {VARIABLE} or choose reference"
    return ""


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


@lru_cache(maxsize=8)
def _failure(name: str, device: torch.device) -> str:
    """What goes wrong when a backend works on tiny cases on a device, or nothing. Compiles its kernels.

    Float8 is not asked for: GPUs before 2022 have none, and whoever wants it checks.
    """
    if name == "reference":
        return ""
    found = _compared(get(name), device, torch.float32, float8=False)
    return next((wrong for _, wrong in found if wrong), "")


def _compared(
    backend: ModuleType, device: torch.device, dtype: torch.dtype, float8: bool = True
) -> Iterator[tuple[Case, str]]:
    """Each small case with what is wrong with a backend's result and with the arguments that it may write to."""
    from genie_play.ops.cases import SMALL, cases, difference

    reference = get("reference")
    for case in cases(SMALL, dtype=dtype):
        if case.float8 and not float8:
            continue
        ours, its = case.to(device), case.to("cpu")
        try:
            got = ours.on(backend)
            yield case, difference(case, (got, ours.args), (its.on(reference), its.args))
        except Exception as error:  # whatever a compiler or driver raises, play goes on without it
            yield case, f"{case.name}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@lru_cache(maxsize=8)
def _say_once(message: str) -> None:
    log.warning(message)
