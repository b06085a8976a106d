"""A dynamics model told the game's own keys: what control could be at best, and the fastest tool to find a bug with.

For `eval --upper-bound` alone. It learns what video does not say, so it is no world of this project: its header says
`true_actions`, and nothing writes labels or figures into such a file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from genie_play import checkpoint, paths
from genie_play.data.clips import PlatformerSource
from genie_play.data.platformer import with_truth
from genie_play.nn.dynamics import Dynamics
from genie_play.nn.genie import Genie, load_genie, save_genie
from genie_play.nn.tokenizer import Tokenizer
from genie_play.train import loop
from genie_play.train.stages import Outcome, Stage, Step, dynamics_loss
from genie_play.types import CheckpointError, GenieError

MARK = "true_actions"


def train(
    world: Path | str,
    out: Path | str,
    steps: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Path:
    """Train the upper bound of a world, on its tokenizer, into the folder `out`; returns the file. Resumes."""
    header = checkpoint.read(checkpoint.find(world))
    source = header.stages.get("tokenizer", {}).get("source", "")
    preset = header.provenance.get("preset", header.world.name)
    out = paths.writable(Path(out))
    file = loop.world_file(out)
    if not file.exists():
        genie, header = load_genie(checkpoint.find(world))
        stages = {name: done for name, done in header.stages.items() if name.startswith("tokenizer")}
        save_genie(genie, replace(header, stages=stages, provenance={**header.provenance, MARK: True}), file)
    recipe = "default" if header.world.dynamics.recipe == "teacher" else "paper"
    # keys are kept where clips are made, and asked for in their order
    run = loop.Run(out, preset, source, recipe, seed, device, steps, workers=0, pool=0)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    KeyTrainer(run).fit(deadline)
    return file


def is_bound(header: checkpoint.Header) -> bool:
    """Whether a file is an upper bound."""
    return bool(header.provenance.get(MARK))


def open_bound(file: Path | str, genie: Genie) -> Genie:
    """The upper bound in a file, for the world `genie`; GenieError if it is none, or of another tokenizer."""
    bound, header = load_genie(checkpoint.find(file))
    if not is_bound(header) or "dynamics" not in header.stages:
        raise GenieError(f"{file} is no upper bound; make one with 'genie-play train dynamics --true-actions WORLD'")
    if bound.config.tokenizer != genie.config.tokenizer:
        raise CheckpointError(f"{file} is the upper bound of a world of another size; train one of this world")
    return bound


def refuse(header: checkpoint.Header) -> None:
    """GenieError on an upper bound: it is never dressed up as a world."""
    if is_bound(header):
        raise GenieError(f"{header.file} was told the game's keys and is no world; nothing is written into it")


def rewrite(file: Path, **changes: Any) -> None:
    """Write fields of a checkpoint's header, its tensors as they are; GenieError on an upper bound."""
    header = checkpoint.read(file)
    refuse(header)
    header = replace(header, **changes)
    checkpoint.atomic_write(file, to_bytes(load_file(file), metadata=checkpoint.header_metadata(header)))


class KeyedSource:
    """Clips of the platformer; the keys that made a batch are kept until they are asked for."""

    def __init__(self, source: PlatformerSource) -> None:
        self._source, self._keys = source, dict[int, np.ndarray]()
        self.fps, self.size = source.fps, source.size

    def batch(self, step: int, clips: int, frames: int) -> np.ndarray:
        """Clips (clips, frames, H, W, 3) uint8, the same as the source's own."""
        truth = with_truth(self._source, step, clips, frames)
        self._keys[step] = truth.actions
        return truth.frames

    def keys(self, step: int) -> Tensor:
        """The true keys (clips, frames - 1) of a batch, once."""
        return torch.from_numpy(self._keys.pop(step))


class KeyTrainer(loop.Trainer):
    """The dynamics stage with the game's keys in place of inferred codes."""

    def __init__(self, run: loop.Run) -> None:
        super().__init__(Stage("dynamics", ("dynamics",), self._loss, ("tokenizer",)), run)
        if not isinstance(self.source, PlatformerSource):
            raise GenieError(f"an upper bound needs a source that knows its keys; {run.source!r} does not")
        self.source = KeyedSource(self.source)

    def save(self) -> None:
        """As every stage; then mark the file as what it is."""
        super().save()
        file = loop.world_file(self.run.out)
        provenance = {**checkpoint.read(file).provenance, MARK: True}
        rewrite(file, provenance=provenance)

    def _loss(self, genie: Genie, frames: Tensor, step: Step) -> Outcome:
        keys = cast(KeyedSource, self.source).keys(step.index).to(frames.device)
        told = _Told(genie.tokenizer, genie.dynamics, _Keys(lambda frames, uniforms: keys))
        return dynamics_loss(cast(Genie, told), frames, step)


@dataclass(frozen=True)
class _Keys:
    """Stands where the action model stands and answers with the keys."""

    draw: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Told:
    """What `dynamics_loss` needs of a world."""

    tokenizer: Tokenizer
    dynamics: Dynamics
    actions: _Keys
