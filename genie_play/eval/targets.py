"""What a bench can be asked about: a world's file, or networks of any shape with random weights.

Speed does not depend on what the weights are, so a size can be timed before anybody trains it. Random weights are
drawn so that every part of the networks matters: a cache that loses something shows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from genie_play import checkpoint
from genie_play.config import PRESETS, PathConfig, WorldConfig, from_dict, to_dict
from genie_play.engine.engine import GenieEngine, shipped_path
from genie_play.engine.process import EngineProcess
from genie_play.eval import costs
from genie_play.nn.genie import Genie, load_genie
from genie_play.nn.quantize import Quantizer
from genie_play.types import GenieError

CUSTOM = "custom"  # a target that is all shape, on the sizes of BASE
BASE = "spark"


@dataclass(frozen=True)
class Shape:
    """What may be changed of a preset; None leaves it."""

    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    tokens: tuple[int, int] | None = None  # rows, columns
    window: int | None = None
    codes: int | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in to_dict(self).values())

    def of(self, config: WorldConfig) -> WorldConfig:
        """The config with this shape. Heads follow the width, unless they are given; the picture follows the tokens."""
        dynamics, tokenizer = config.dynamics, config.tokenizer
        width = self.width or dynamics.width
        head_dim = width // self.heads if self.heads else dynamics.head_dim
        heads = self.heads or max(width // head_dim, 1)
        if heads * head_dim != width and self.width:
            raise GenieError(f"a width of {width} does not divide into heads of {head_dim}; say --heads too")
        if head_dim % 4:
            raise GenieError(f"{heads} heads of a width of {width} have {head_dim} numbers each; 4, 8, 12, ... work")
        window = self.window or dynamics.window
        if dynamics.anchor and window < 3:
            raise GenieError(
                f"{config.name} keeps its first frame in sight; a window of {window} is too short for that"
            )
        rows, columns = self.tokens or tokenizer.grid
        height, across = (rows * tokenizer.patch_size[0], columns * tokenizer.patch_size[1])
        if self.tokens is None:
            height, across = config.size
        return replace(
            config,
            tokenizer=replace(tokenizer, height=height, width=across, codes=self.codes or tokenizer.codes),
            dynamics=replace(
                dynamics, layers=self.layers or dynamics.layers, width=width, heads=heads, head_dim=head_dim,
                window=window,
            ),
        )  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A world to measure; without a file its weights are random."""

    config: WorldConfig
    path: PathConfig
    file: Path | None = None
    sha256: str = ""

    def engine(self, device: str = "auto", **path: Any) -> GenieEngine:
        """An engine that plays it here."""
        if self.file is not None:
            return GenieEngine(self.file, device=device, **path)
        return random_engine(to_dict(self.config), device, **path)

    def process(self, device: str = "auto", **path: Any) -> EngineProcess:
        """An engine that plays it in a child process."""
        if self.file is not None:
            return EngineProcess("genie", {"checkpoint": self.file, "device": device, **path})
        return EngineProcess(f"{__name__}:random_engine", {"world": to_dict(self.config), "device": device, **path})

    def networks(self) -> Genie:
        """Its networks as they are trained, in float32 on the CPU."""
        return load_genie(self.file)[0] if self.file is not None else random_genie(self.config)

    def describe(self) -> dict[str, Any]:
        """What it is, for a table: two targets with the same description are the same work."""
        d, t = self.config.dynamics, self.config.tokenizer
        return {
            "name": self.config.name,
            "weights": self.sha256 or "random",
            "recipe": d.recipe,
            "layers": d.layers,
            "width": d.width,
            "heads": d.heads,
            "window": d.window,
            "tokens": list(t.grid),
            "codes": t.codes,
            "picture": [t.width, t.height],
            "numbers": costs.dynamics_numbers(self.config),
        }


def find(target: str | Path, shape: Shape | None = None, random: bool = False) -> Target:
    """The target of a name: a world's file if there is one, else a preset, or "custom", with random weights.

    With a shape, or with `random`, it is the preset. GenieError lists what there is.
    """
    shape = shape or Shape()
    name = str(target)
    config = PRESETS.get(BASE if name == CUSTOM else name)
    if name == CUSTOM or (config is not None and (shape or random)):
        assert config is not None
        config = shape.of(replace(config, name=name))
        return Target(config, shipped_path(config.sample))
    if config is not None and name not in checkpoint.names():
        return Target(config, shipped_path(config.sample))
    try:
        header = checkpoint.read(checkpoint.find(target))
    except GenieError as error:
        if name in PRESETS or Path(name).expanduser().exists():
            raise
        raise GenieError(f"{error}; presets: {', '.join(PRESETS)}; or {CUSTOM} with --layers and others") from None
    if shape or random:
        raise GenieError(f"{name} is a trained world and has its shape; choose {CUSTOM} or a preset for another")
    return Target(header.world, header.path, header.file, header.sha256)


def random_engine(world: Mapping[str, Any], device: str = "auto", **path: Any) -> GenieEngine:
    """An engine of random weights, from the config as plain data, so that a child process can make it too."""
    return GenieEngine(random_genie(from_dict(WorldConfig, dict(world), "world")), device=device, **path)


def random_genie(config: WorldConfig) -> Genie:
    """Networks of a config with random weights, the same every time, on the CPU. GenieError if memory is short."""
    needed, free = 2 * 4 * _numbers(config), _free_memory()
    if free is not None and needed > free:
        raise GenieError(
            f"{config.name} needs {needed / 2**30:.0f} GiB of memory and {free / 2**30:.0f} GiB are free; choose a "
            "smaller size"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        genie = Genie(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in genie.parameters():
            # matrices keep the size of what runs through them; gains and biases stay near where they start
            scale = 0.1 if parameter.dim() < 2 else parameter[0].numel() ** -0.5
            noise = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_(noise if parameter.dim() > 1 else parameter + noise)
        for module in genie.modules():
            if isinstance(module, Quantizer):
                module.started.fill_(1)
    genie.dynamics.set_codes(genie.tokenizer.quantizer.codebook)
    return genie.requires_grad_(False).eval()


def _numbers(config: WorldConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Genie(config).parameters())


def _free_memory() -> int | None:
    """Bytes of memory that nobody uses, or None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
