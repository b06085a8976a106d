"""How an engine's frame is put together from its path: which way of running it, which stacks, which rings.

On an NVIDIA GPU a frame is captured as graphs unless the path says otherwise; elsewhere it is eager. Knows nothing of
play-throughs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from genie_play.config import PathConfig
from genie_play.engine.fixed import FixedRing
from genie_play.engine.graph import FrameRunner, cache_kernels
from genie_play.engine.sampler import Sampler
from genie_play.engine.stack import PlainStack, Stack, compiled
from genie_play.engine.static import StaticFrame
from genie_play.nn.genie import Genie
from genie_play.types import N_ACTIONS, BackendError, GenieError

CHOICES = {
    "frame": ("eager", "static", "graph"),
    "blocks": ("plain", "fused", "compiled"),
    "commit": ("apart", "merged"),
    "ring": ("plain", "fp8"),
}
SMALL = 64 * 2**20  # bytes of a ring: worlds up to here are quick enough to draw eight futures of at the start


def prepare(device: torch.device) -> None:
    """Before anything runs on a device: where kernels are kept, and which GPU is this thread's."""
    if device.type == "cuda":
        cache_kernels()
        if device.index is not None:
            torch.cuda.set_device(device)


def resolve(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes to a path with what the device decides where nobody asked; `check` holds the result to its rules."""
    found = dict(changes)
    if found.get("frame") is None:
        found["frame"] = "graph" if str(found["device"]).startswith("cuda") else "eager"
    return found


def check(path: PathConfig) -> None:
    """GenieError, or BackendError where the device is at fault, for settings that do not go together."""
    on_gpu = path.device.startswith("cuda")
    if path.frame == "graph" and not on_gpu:
        raise BackendError("a graph needs an NVIDIA GPU; choose path.frame eager or static")
    if path.frame == "eager":
        plain = {"blocks": "plain", "commit": "apart", "ring": "plain", "sure": 0.0}
        for name, value in plain.items():
            if getattr(path, name) != value:
                raise GenieError(
                    f"path.{name}={getattr(path, name)} needs path.frame static, or graph on an NVIDIA GPU"
                )
    if path.sure and path.commit == "merged":
        raise GenieError("path.sure and path.commit=merged do not go together; choose one")
    if not 0.0 <= path.sure <= 1.0:
        raise GenieError("path.sure is a chance from 0 to 1")


def runner(
    genie: Genie,
    sampler: Sampler,
    backend: ModuleType,
    path: PathConfig,
    progress: Callable[[str], None] | None = None,
) -> tuple[FrameRunner, PathConfig]:
    """The frame of a path, warmed up, and the path as it came out: "static" where a graph could not be captured."""
    dynamics, tokenizer = genie.dynamics, genie.tokenizer
    device, dtype = sampler.table.device, tokenizer.decoder.place.dtype
    n_tokens, fp8 = dynamics.n_tokens, path.ring == "fp8"
    rings = (
        FixedRing(dynamics.cache_shape, n_tokens, dynamics.config.recipe == "teacher", device, dtype, fp8),
        FixedRing(tokenizer.decoder_shape, n_tokens, False, device, dtype, fp8),
    )
    stacks = _stack(dynamics.blocks, dynamics.norm, path), _stack(tokenizer.decoder.blocks, None, path)
    frame = StaticFrame(genie, sampler, backend, path, stacks, rings)
    made = FrameRunner(frame, path.frame == "graph")
    if path.frame == "graph" and not made.warm((1, N_ACTIONS) if rings[0].nbytes <= SMALL else (1,), progress):
        path = dataclasses.replace(path, frame="static")
    return made, path


def _stack(blocks: nn.ModuleList, norm: nn.Module | None, path: PathConfig) -> Stack:
    return PlainStack(blocks, norm, compiled()) if path.blocks == "compiled" else PlainStack(blocks, norm)
