"""How an engine's frame is put together from its path: which way of running it, which stacks, which rings.

On an NVIDIA GPU a frame is captured as graphs unless the path says otherwise; elsewhere it is eager. Knows nothing of
play-throughs.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from genie_play import ops
from genie_play.config import PathConfig, WorldConfig
from genie_play.engine.fixed import FixedRing
from genie_play.engine.fused import KernelStack, LayerStack, LibraryStack
from genie_play.engine.graph import FrameRunner, cache_kernels
from genie_play.engine.sampler import Sampler
from genie_play.engine.stack import PlainStack, Stack, compiled
from genie_play.engine.static import StaticFrame
from genie_play.nn.fp8 import OLDEST
from genie_play.nn.genie import Genie
from genie_play.nn.st_transformer import STBlock
from genie_play.nn.tokenizer import CacheShape
from genie_play.types import N_ACTIONS, BackendError, GenieError

CHOICES = {
    "frame": ("eager", "static", "graph"),
    "blocks": ("plain", "fused", "layer", "library", "compiled"),
    "commit": ("apart", "merged"),
    "ring": ("plain", "fp8"),
}
STRONGEST = 10.0  # guidance; at 2.5 `doodle` falls apart (docs/worlds.md)
WIDEST = 512  # layers up to here wait for launches, wider ones for products (reckoned, not measured)
# of hidden states after a stack (relative, L2) against plain blocks: sums in another order, and roundings of the kind
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2, "fp8": 0.15}
SMALL = 64 * 2**20  # bytes of a ring: worlds up to here are quick enough to draw eight futures of at the start


log = logging.getLogger(__name__)


def prepare(device: torch.device) -> None:
    """Before anything runs on a device: where kernels are kept, and which GPU is this thread's."""
    if device.type == "cuda":
        cache_kernels()
        if device.index is not None:
            torch.cuda.set_device(device)


def resolve(changes: dict[str, Any], config: WorldConfig) -> dict[str, Any]:
    """Changes to a path with what the device decides where nobody asked; `check` holds the result to its rules."""
    found = dict(changes)
    on_gpu = str(found["device"]).startswith("cuda")
    if found.get("frame") is None:
        found["frame"] = "graph" if on_gpu else "eager"
    if found.get("blocks") is None:
        fused = "fused" if config.dynamics.width <= WIDEST else "library"
        found["blocks"] = fused if on_gpu and found["ops"] == "triton" and found["frame"] != "eager" else "plain"
    return found


def check(path: PathConfig) -> None:
    """GenieError, or BackendError where the device is at fault, for settings that do not go together."""
    on_gpu = path.device.startswith("cuda")
    if path.frame == "graph" and not on_gpu:
        raise BackendError("a graph needs an NVIDIA GPU; choose path.frame eager or static")
    if path.arithmetic == "fp8" and on_gpu and torch.cuda.get_device_capability(path.device) < OLDEST:
        raise BackendError("this GPU has no fp8; choose path.arithmetic bf16")
    if path.frame == "eager":
        plain = {"blocks": "plain", "commit": "apart", "ring": "plain"}
        for name, value in plain.items():
            if getattr(path, name) != value:
                raise GenieError(
                    f"path.{name}={getattr(path, name)} needs path.frame static, or graph on an NVIDIA GPU"
                )
    elif path.arithmetic == "int8":
        raise GenieError("path.arithmetic=int8 needs path.frame eager")
    if path.sure and path.commit == "merged":
        raise GenieError("path.sure and path.commit=merged do not go together; choose one")
    if not 0.0 <= path.guidance <= STRONGEST:
        raise GenieError(f"path.guidance is from 0, where actions do nothing, to {STRONGEST:g}; 1 is as they are")
    if not 0.0 <= path.sure <= 1.0:
        raise GenieError("path.sure is a chance from 0 to 1")


def runner(
    genie: Genie,
    sampler: Sampler,
    backend: ModuleType,
    path: PathConfig,
    progress: Callable[[str], None] | None = None,
    by_name: bool = True,
) -> tuple[FrameRunner, PathConfig]:
    """The frame of a path, warmed up, and the path as it came out: "static" where a graph could not be captured.

    Blocks that were asked for `by_name` work or fail with a reason; others may fall back to plain ones, said once.
    """
    dynamics, tokenizer = genie.dynamics, genie.tokenizer
    device, dtype = sampler.table.device, tokenizer.decoder.place.dtype
    n_tokens, fp8 = dynamics.n_tokens, path.ring == "fp8"
    quantise = between(path.ops).quantise_rows
    rings = (
        FixedRing(dynamics.cache_shape, n_tokens, dynamics.config.recipe == "teacher", device, dtype, fp8, quantise),
        FixedRing(tokenizer.decoder_shape, n_tokens, False, device, dtype, fp8, quantise),
    )
    if path.blocks != "plain" and device.type == "cuda":
        if progress:
            progress("compiling kernels")
        reason = apart(dynamics.blocks, rings[0], path) or apart(tokenizer.decoder.blocks, rings[1], path)
        if reason and by_name:
            raise BackendError(f"{path.blocks} blocks cannot run on {device}: {reason}; choose path.blocks plain")
        if reason:
            log.warning("using plain blocks on %s, which are slower: %s", device, reason)
            path = dataclasses.replace(path, blocks="plain")
    stacks = stack(dynamics.blocks, dynamics.norm, path), stack(tokenizer.decoder.blocks, None, path)
    frame = StaticFrame(genie, sampler, backend, path, stacks, rings)
    made = FrameRunner(frame, path.frame == "graph")
    if path.frame == "graph" and not made.warm((1, N_ACTIONS) if rings[0].nbytes <= SMALL else (1,), progress):
        path = dataclasses.replace(path, frame="static")
    return made, path


@torch.inference_mode()
def apart(blocks: nn.ModuleList, ring: FixedRing, path: PathConfig) -> str:
    """What goes wrong where the stack of a path should do as plain blocks do, or nothing. `ring`: one like it."""
    if not len(blocks):
        return ""
    blocks = blocks[:2]  # one kernel serves all layers
    stacks = stack(blocks, None, dataclasses.replace(path, blocks="plain")), stack(blocks, None, path)
    block = blocks[0]
    assert isinstance(block, STBlock)
    n_tokens, width = block.grid[0] * block.grid[1], block.spatial_norm.weight.shape[0]
    shape = CacheShape(len(blocks), block.temporal.heads, block.temporal.head_dim, block.window)
    ring = FixedRing(shape, n_tokens, ring.cross_frame, ring.temporal.device, ring.dtype, ring.fp8, ring.quantise)
    generator = torch.Generator(ring.temporal.device).manual_seed(0)
    found = []
    try:
        x = torch.randn(1, n_tokens, width, device=ring.temporal.device, dtype=ring.dtype, generator=generator)
        for _ in range(3):
            _, temporal, spatial = stacks[0].keep(x, ring)
            ring.write(temporal, spatial)
        found = [way.read(x, ring, way.look(ring)).float() for way in stacks]
    except Exception as error:  # whatever a compiler or driver raises, play goes on without it
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    error_now = float((found[0] - found[1]).norm() / found[0].norm())
    return "" if error_now < TOLERANCE[path.arithmetic] else f"off by {error_now:.1e} from plain blocks"


def stack(blocks: nn.ModuleList, norm: nn.Module | None, path: PathConfig) -> Stack:
    """How a path runs a stack of blocks."""
    kinds = {"fused": KernelStack, "layer": LayerStack, "library": LibraryStack}
    if path.blocks in kinds and len(blocks):
        fused = LibraryStack if path.arithmetic == "fp8" else kinds[path.blocks]
        return fused(blocks, norm, ops.get(path.ops), between(path.ops))
    return PlainStack(blocks, norm, compiled()) if path.blocks == "compiled" else PlainStack(blocks, norm)


def between(name: str) -> ModuleType:
    """The operations between products of a backend."""
    return importlib.import_module(f"genie_play.ops.between_{name}")
