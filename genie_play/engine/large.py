"""Worlds of the paper's sizes with random weights: built on the device itself, in the arithmetic they run in.

For measuring: what a size costs does not depend on what its weights have learned. Memory is reckoned first, on the
meta device, from the very modules and rings that will be made.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genie_play.config import WorldConfig, preset
from genie_play.engine.engine import ARITHMETIC, GenieEngine, find_device
from genie_play.engine.fixed import FixedRing
from genie_play.engine.state import Ring
from genie_play.engine.static import Shown
from genie_play.nn.fp8 import Fp8Linear, fits, linears
from genie_play.nn.genie import Genie
from genie_play.nn.st_transformer import STBlock
from genie_play.types import GenieError

GIB = 2**30
META = torch.device("meta")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Memory:
    """Bytes that an engine will hold: weights, rings of keys and values, and what a frame works in (an estimate)."""

    weights: int
    rings: int
    work: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.rings + self.work

    def __str__(self) -> str:
        parts = f"weights {self.weights / GIB:.2f}, rings {self.rings / GIB:.2f}, work {self.work / GIB:.2f}"
        return f"{self.total / GIB:.2f} GiB ({parts})"


def memory_estimate(
    config: WorldConfig, arithmetic: str = "bf16", ring: str = "plain", batch: int = 1, kernels: bool = True
) -> Memory:
    """What an engine of that config takes, with static frames of up to `batch` actions. Nothing is allocated.

    Without `kernels` a ring in fp8 is read as a copy of all its layers in float32.
    """
    genie = _on_meta(config)
    dynamics, tokenizer = genie.dynamics, genie.tokenizer
    kind, n_tokens = ARITHMETIC[arithmetic], config.tokenizer.n_tokens
    weights = sum(_nbytes(t, _kind(name, t, kind)) for name, t in _tensors(genie))
    if arithmetic == "fp8":
        for block in dynamics.blocks:
            assert isinstance(block, STBlock)
            for weight in (getattr(parent, name).weight for parent, name in linears(block)):
                if fits(weight):
                    weights += weight.numel() + 4 * len(weight) - _nbytes(weight, kind)
    cross_frame, fp8 = dynamics.config.recipe == "teacher", ring == "fp8"
    shape = tokenizer.decoder_shape
    held: list[Any] = [
        FixedRing(dynamics.cache_shape, n_tokens, cross_frame, META, kind, fp8),
        FixedRing(shape, n_tokens, False, META, kind, fp8),
        Ring(shape, n_tokens, False, META, kind),
        Ring(tokenizer.encoder_shape, n_tokens, False, META),
        *(Shown(rows, config.tokenizer, shape, META, kind) for rows in (1, 1, *([batch] if batch > 1 else []))),
    ]
    rings = sum(_held(thing) for thing in held)
    d = config.dynamics
    inner, value = d.heads * d.head_dim, kind.itemsize
    # a block's projections, heads, attention and residual; the head's logits and draws; two copies of a layer's past
    work = batch * n_tokens * value * (6 * d.width + 12 * inner) + batch * n_tokens * config.tokenizer.codes * 24
    work += 2 * d.layers * n_tokens * inner * value  # a frame's keys and values on their way into the ring
    if fp8 and not kernels:
        work += 2 * n_tokens * inner * (d.window - 1) * 4 * d.layers
    else:
        work += 2 * n_tokens * inner * (d.window - 1) * value * batch
    return Memory(weights, rings, work)


def check_memory(name: str, memory: Memory, device: torch.device) -> None:
    """GenieError in one line where it does not fit into what is free."""
    free = free_memory(device)
    if free is not None and memory.total > free:
        left = f"{device} has {free / GIB:.2f} GiB free"
        raise GenieError(f"{name} needs {memory} and {left}; choose arithmetic fp8, or a smaller size")


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def build_random(
    world: str | WorldConfig,
    device: str | torch.device = "auto",
    arithmetic: str = "bf16",
    *,
    progress: Callable[[str], None] | None = None,
    **path: Any,
) -> GenieEngine:
    """An engine of a preset, or of a config, with random weights; says what memory it takes before it is taken.

    GenieError where it does not fit. `path` as in `GenieEngine`; the weights are the same every time on one device.
    """
    config = preset(world) if isinstance(world, str) else world
    where = find_device(str(device))
    kernels = where.type == "cuda" and path.get("blocks") not in ("plain", "compiled")
    memory = memory_estimate(config, arithmetic, path.get("ring") or "plain", kernels=kernels)
    say = progress or log.info
    say(f"{config.name} in {arithmetic} takes {memory} on {where}")
    check_memory(config.name, memory, where)
    genie = random_genie(config, where, arithmetic)
    return GenieEngine(genie, str(where), adopt=True, progress=progress, arithmetic=arithmetic, **path)


@torch.no_grad()
def random_genie(config: WorldConfig, device: torch.device, arithmetic: str = "bf16", seed: int = 0) -> Genie:
    """Networks with random weights on the device, in their arithmetic; a layer at a time, so that no copy is held.

    The latent action model, which play does not use, stays on the meta device.
    """
    genie, kind = _on_meta(config), ARITHMETIC[arithmetic]
    generator = torch.Generator(device).manual_seed(seed)
    quantised = set()
    if arithmetic == "fp8":
        for block in genie.dynamics.blocks:
            assert isinstance(block, STBlock)
            quantised |= {id(getattr(parent, name)) for parent, name in linears(block)}
    for name, parent, child in [(n, p, c) for n, p in _modules(genie) for c in p.named_children()]:
        if id(child[1]) in quantised and isinstance(child[1], nn.Linear) and fits(child[1].weight):
            weight = _random(f"{name}.{child[0]}.weight", child[1].weight, kind, device, generator)
            setattr(parent, child[0], Fp8Linear(weight))
    for name, module in _modules(genie):
        tables: list[tuple[dict[str, Any], bool]] = [(module._parameters, True), (module._buffers, False)]
        for table, learned in tables:
            for key, old in table.items():
                if old is not None and old.is_meta:
                    made = _random(f"{name}.{key}", old, _kind(f"{name}.{key}", old, kind), device, generator)
                    table[key] = nn.Parameter(made, requires_grad=False) if learned else made
        if isinstance(module, STBlock):
            module.place_rotary(device)
    quantizer = genie.tokenizer.quantizer
    quantizer.codebook /= quantizer.codebook.norm(dim=-1, keepdim=True)
    quantizer.started.fill_(1)
    genie.dynamics.set_codes(quantizer.codebook)
    return genie.eval()


def _on_meta(config: WorldConfig) -> Genie:
    with META:
        return Genie(config)


def _modules(genie: Genie) -> Iterator[tuple[str, nn.Module]]:
    """The modules that play uses, by name."""
    for part, whole in (("dynamics", genie.dynamics), ("tokenizer", genie.tokenizer)):
        yield from whole.named_modules(prefix=part)


def _tensors(genie: Genie) -> Iterator[tuple[str, Tensor]]:
    for name, module in _modules(genie):
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                yield f"{name}.{key}", tensor


def _kind(name: str, tensor: Tensor, kind: torch.dtype) -> torch.dtype:
    """The type that a tensor is kept in: near codes are told apart in float32, and rotary tables are float32."""
    if not tensor.is_floating_point():
        return tensor.dtype
    low = name.startswith(("dynamics", "tokenizer.decoder")) and not name.endswith(("rotary_cos", "rotary_sin"))
    return kind if low else torch.float32


def _random(name: str, like: Tensor, kind: torch.dtype, device: torch.device, generator: torch.Generator) -> Tensor:
    made = torch.zeros(like.shape, dtype=kind, device=device)
    last = name.rpartition(".")[2]
    if not made.is_floating_point() or last == "bias":
        return made
    if like.dim() == 1 and "codebook" not in name:
        return made.fill_(1.5 if last.endswith("_scale") else 1.0)
    return made.normal_(0.0, math.prod(like.shape[1:]) ** -0.5 if like.dim() > 1 else 1.0, generator=generator)


def _nbytes(tensor: Tensor, kind: torch.dtype) -> int:
    return tensor.numel() * kind.itemsize


def _held(thing: Any) -> int:
    """Bytes of the tensors that an object holds, views counted once."""
    found: dict[int, int] = {}

    def walk(value: Any) -> None:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            found[storage._cdata] = storage.nbytes()
        elif isinstance(value, (list, tuple)):
            for part in value:
                walk(part)

    for value in vars(thing).values():
        walk(value)
    return sum(found.values())
