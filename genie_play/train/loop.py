"""The one training loop, for all stages: steps, optimisers, averages, checkpoints, progress.

A run is a pure function of its configuration and the step: data, masks and noise of step n depend on (seed, n) alone,
so that stopping and resuming gives the run that would have been. `--minutes` only says when to stop for now.
"""

from __future__ import annotations

import copy
import ctypes
import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from genie_play import __version__, checkpoint, paths
from genie_play.config import PathConfig, StageConfig, WorldConfig, preset, to_dict, training
from genie_play.data.clips import Source, open_source
from genie_play.nn.genie import Genie, load_genie, save_genie
from genie_play.nn.st_transformer import STBlock
from genie_play.nn.tokenizer import Conv
from genie_play.train.stages import PAPER_STAGES, STAGES, Stage, Step
from genie_play.types import BackendError, CheckpointError, GenieError, Label

log = logging.getLogger(__name__)

LOG_EVERY = 20  # steps between lines of metrics.jsonl
SAVE_SECONDS = 120.0  # between checkpoints of a run
COMPILE_FROM = 500  # steps from which compiling pays: it costs about a minute and halves a step of dynamics


@dataclass(frozen=True)
class Run:
    """What is trained, on what and where to; `steps` overrides those of the preset."""

    out: Path
    preset: str
    source: str
    recipe: str = "default"
    seed: int = 0
    device: str = "auto"
    steps: int | None = None


def train(
    stage: str,
    preset_name: str,
    source: str,
    out: Path | str,
    steps: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    recipe: str = "default",
    seed: int = 0,
) -> Path:
    """Train one stage, or "all" in order, into the folder `out`; returns the world file.

    Resumes from what `out` holds. `minutes` is for the whole call and ends it cleanly. GenieError on a folder that
    cannot be written, a stage whose forerunners are missing, a source that cannot be read, or a loss that is not a
    number (the last good checkpoint stays).
    """
    run = Run(Path(out), preset_name, source, recipe, seed, device, steps)
    stages = stages_of(preset_name, recipe)
    if recipe not in ("default", "paper"):
        raise GenieError(f"no recipe is called {recipe!r}; there are default and paper")
    if stage != "all" and stage not in stages:
        raise GenieError(f"no stage is called {stage!r} in recipe {recipe}; there are {', '.join(stages)} and all")
    paths.writable(run.out)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    for name in stages if stage == "all" else [stage]:
        if not Trainer(stages[name], run).fit(deadline):
            log.warning("time is up in stage %s; the same command goes on from here", name)
            break
    return world_file(run.out)


def world_file(out: Path) -> Path:
    """The file of the world that is trained in the folder `out`."""
    return out / f"{out.resolve().name}.safetensors"


class Trainer:
    """One stage of one run."""

    def __init__(self, stage: Stage, run: Run) -> None:
        self.stage, self.run = stage, run
        self.device = pick_device(run.device)
        self.world = world_of(run.preset, run.recipe)
        plan = training(run.preset)
        self.config: StageConfig = getattr(plan, stage.name)
        if run.steps:
            self.config = replace(self.config, steps=run.steps)
        self.genie, self.header = self._load()
        self.genie.to(self.device)
        self.learners = [self.genie.get_submodule(name) for name in stage.learns]
        for parameter in self.genie.parameters():
            parameter.requires_grad_(False)
        for learner in self.learners:
            learner.requires_grad_(True)
        self.average = [copy.deepcopy(learner).requires_grad_(False) for learner in self.learners]
        self.optimisers = make_optimisers(self.learners, self.config)
        self.step = 0
        self.amp = self.device.type == "cuda" or fast_bfloat16()
        self.source: Source = open_source(run.source, self.world.size, run.seed)
        self._resume()

    @property
    def state_file(self) -> Path:
        """Weights, averages and optimisers of this stage: what resuming needs."""
        return self.run.out / "training" / f"{self.stage.name}.safetensors"

    def fit(self, deadline: float | None = None) -> bool:
        """Train to the last step (True) or to the deadline (False)."""
        if self.step >= self.config.steps:
            if not set(self.stage.learns) <= set(self.header.stages):
                self.save()  # the run is here and the world that it made is not
            return True
        self.genie.train()
        if self.config.steps >= COMPILE_FROM:
            self._compile()
        saved, started, first = time.monotonic(), time.monotonic(), self.step
        bar = tqdm(
            total=self.config.steps,
            initial=self.step,
            desc=self.stage.name,
            unit="step",
            disable=not sys.stderr.isatty(),
        )
        try:
            while self.step < self.config.steps:
                watch = self.take_step()
                bar.update()
                if self.step % LOG_EVERY == 0 or self.step == self.config.steps:
                    row = {name: round(float(value), 5) for name, value in watch.items()}
                    seconds = time.monotonic() - started
                    row["frames_per_second"] = round((self.step - first) * self._frames_a_step() / seconds, 1)
                    self._log(row, bar)
                now = time.monotonic()
                late = deadline is not None and now > deadline
                if self.step == self.config.steps or late or now - saved > SAVE_SECONDS:
                    self.save()
                    give_back_memory()
                    saved = now
                if late and self.step < self.config.steps:
                    return False
        except KeyboardInterrupt:
            # a step that was cut may have moved half the weights: what was saved last is what counts
            log.warning("stopped; the same command goes on from the last checkpoint, at most two minutes back")
            raise
        finally:
            bar.close()
        return True

    def take_step(self) -> dict[str, Any]:
        """One step of the optimisers; returns what to log. GenieError if the loss is not a number."""
        generator = torch.Generator().manual_seed(self.run.seed * 1_000_003 + self.step)
        frames = self.source.batch(self.step, self.config.batch, self.config.frames)
        pictures = torch.from_numpy(frames).to(self.device).float() / 255
        rate = learning_rate(self.step, self.config)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            outcome = self.stage.loss(self.genie, pictures, Step(self.step, self.config.steps, generator))
        outcome.loss.backward()
        parameters = [p for learner in self.learners for p in learner.parameters()]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        loss = float(outcome.loss.detach())
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            where = f"{self.stage.name} at step {self.step}"
            kept = self.state_file if self.state_file.exists() else "none yet"
            raise GenieError(f"the loss of {where} is not a number; the last good checkpoint is {kept}")
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if outcome.after is not None:
            outcome.after()
        self._average()
        self.step += 1
        return {"loss": loss, "norm": norm, "rate": rate, **outcome.watch}

    def save(self) -> None:
        """Write what resuming needs, then the world with the averaged weights."""
        tensors: dict[str, Tensor] = {"step": torch.tensor(self.step)}
        for index, (learner, average) in enumerate(zip(self.learners, self.average, strict=True)):
            tensors |= {f"weights.{index}.{k}": v for k, v in learner.state_dict().items()}
            tensors |= {f"average.{index}.{k}": v for k, v in average.state_dict().items()}
        for index, optimiser in enumerate(self.optimisers):
            for number, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{index}.{number}.{k}": torch.as_tensor(v) for k, v in state.items()}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        paths.writable(self.state_file.parent)
        meta = json.dumps({"stage": to_dict(self.config), "world": to_dict(self.world)}, sort_keys=True)
        checkpoint.atomic_write(self.state_file, save(tensors, metadata={"genie_play_training": meta}))
        done = {
            "steps": self.step,
            "of": self.config.steps,
            "frames_seen": self.step * self._frames_a_step(),
            "source": self.run.source,
            "recipe": self.run.recipe,
            "seed": self.run.seed,
            "torch": torch.__version__,
        }
        provenance = {"program": f"genie-play {__version__}", "preset": self.run.preset}
        genie, stages = self._averaged()
        stages |= dict.fromkeys(self.stage.learns, done)
        self.header = replace(self.header, world=self.world, stages=stages, provenance=provenance)
        save_genie(genie, self.header, world_file(self.run.out))

    def _compile(self) -> None:
        """Compile the networks in place, where a C++ compiler (CPU) or Triton (GPU) is there to do it."""
        if self.device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
            log.info("no C++ compiler: training runs uncompiled, about half as fast")
            return
        genie = self.genie
        motion = getattr(genie.actions.form, "motion", None)
        for module in (genie.tokenizer.encoder, genie.tokenizer.decoder, genie.dynamics, motion):
            if module is not None:
                module.compile(dynamic=False)

    def _averaged(self) -> tuple[Genie, dict[str, Any]]:
        """The world with the averaged weights of this stage, and the other stages of its file.

        The rest is read from the file again: stages that do not need each other may run side by side in one folder.
        """
        file = world_file(self.run.out)
        if file.exists():
            genie, header = load_genie(file)
        else:
            genie, header = copy.deepcopy(self.genie).cpu(), self.header
        for name, learner, average in zip(self.stage.learns, self.learners, self.average, strict=True):
            part = genie.get_submodule(name)
            part.load_state_dict(average.state_dict())
            # codebooks and their counts are averages already
            for (_, mine), (_, theirs) in zip(part.named_buffers(), learner.named_buffers(), strict=True):
                mine.copy_(theirs)
        genie.dynamics.set_codes(genie.tokenizer.quantizer.codebook)
        return genie, dict(header.stages)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for learner, average in zip(self.learners, self.average, strict=True):
            torch._foreach_lerp_(list(average.parameters()), list(learner.parameters()), 1 - decay)

    def _load(self) -> tuple[Genie, checkpoint.Header]:
        """The world as the folder has it, or a fresh one; the stages this one needs must be there."""
        file = world_file(self.run.out)
        header = fresh_header(self.world)
        generator_state = torch.random.get_rng_state()
        torch.manual_seed(self.run.seed)  # initial weights; given back below
        genie = Genie(self.world)
        torch.random.set_rng_state(generator_state)
        if file.exists():
            known, header = load_genie(file)
            if to_dict(header.world) != to_dict(self.world):
                raise CheckpointError(f"{file} was made with another configuration; choose another --out")
            genie.load_state_dict(known.state_dict())
        there = {name: stage for stage in stages_of(self.run.preset, self.run.recipe).values() for name in stage.learns}
        for needed in self.stage.needs:
            if needed in there and needed not in header.stages:
                raise GenieError(f"train {there[needed].name} into {self.run.out} first (or: train all)")
        genie.dynamics.set_codes(genie.tokenizer.quantizer.codebook)
        return genie, header

    def _resume(self) -> None:
        if not self.state_file.exists():
            return
        with safe_open(self.state_file, framework="pt") as file:
            made = json.loads(file.metadata()["genie_play_training"])
            if made["world"] != json.loads(json.dumps(to_dict(self.world))) or made["stage"] != to_dict(self.config):
                raise CheckpointError(
                    f"{self.state_file} was made with other settings; the same ones go on, another --out starts anew"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.step = int(tensors.pop("step"))
        for index, (learner, average) in enumerate(zip(self.learners, self.average, strict=True)):
            learner.load_state_dict(_under(tensors, f"weights.{index}."))
            average.load_state_dict(_under(tensors, f"average.{index}."))
        for index, optimiser in enumerate(self.optimisers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(tensors, f"optimiser.{index}.").items():
                number, _, key = name.partition(".")
                state.setdefault(int(number), {})[key] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})

    def _frames_a_step(self) -> int:
        return self.config.batch * self.config.frames

    def _log(self, row: dict[str, float], bar: tqdm) -> None:
        record = {"stage": self.stage.name, "step": self.step, "of": self.config.steps, "time": time.time(), **row}
        with open(self.run.out / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        shown = " ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("norm", "rate"))
        if bar.disable:
            if self.step % (10 * LOG_EVERY) == 0 or self.step == self.config.steps:
                left = (self.config.steps - self.step) * self._frames_a_step() / max(row["frames_per_second"], 1e-6)
                line = f"{self.stage.name} {self.step}/{self.config.steps} {shown} left {left / 60:.1f} min"
                print(line, file=sys.stderr, flush=True)
        else:
            bar.set_postfix_str(shown)


def stages_of(preset_name: str, recipe: str) -> dict[str, Stage]:
    """The stages of a preset under a recipe, in order; keys are for presets that tell motions from keys."""
    if recipe == "paper":
        return PAPER_STAGES
    return {name: stage for name, stage in STAGES.items() if name != "keys" or preset(preset_name).actions.motions}


def world_of(preset_name: str, recipe: str) -> WorldConfig:
    """The world config of a preset under a recipe."""
    world = preset(preset_name)
    if recipe == "paper":
        world = replace(
            world,
            actions=replace(world.actions, recipe="paper", motions=0),
            dynamics=replace(world.dynamics, recipe="paper", noise_levels=1),
        )
    return world


def fresh_header(world: WorldConfig) -> checkpoint.Header:
    """The header of a world nothing is known of yet."""
    sample = world.sample
    path = PathConfig(
        order=sample.order, steps=sample.steps, temperature=sample.temperature, last_argmax=sample.last_argmax
    )
    labels = tuple(Label(code) for code in range(world.actions.codes))
    return checkpoint.Header(world=world, path=path, labels=labels, idle=0)


def make_optimisers(learners: Iterable[nn.Module], config: StageConfig) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices of the ST blocks, AdamW for the rest; each group remembers its peak rate."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for learner in learners:
        hidden = {
            id(layer.weight)
            for block in learner.modules()
            if isinstance(block, (STBlock, Conv))
            for layer in block.modules()
            if isinstance(layer, (nn.Linear, Conv))
        }
        for parameter in learner.parameters():
            (matrices if id(parameter) in hidden else rest).append(parameter)
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=(0.9, 0.95))
    ]
    if matrices:
        optimisers.append(
            torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay, momentum=0.95)
        )
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return optimisers


def learning_rate(step: int, config: StageConfig) -> float:
    """Warm-up, plateau, linear decay to zero at the last step (WSD), as a share of the peak."""
    up = min(1.0, (step + 1) / max(1, round(config.warmup * config.steps)))
    down = min(1.0, (config.steps - step) / max(1, round(config.decay * config.steps)))
    return min(up, down)


def pick_device(name: str) -> torch.device:
    """The device asked for; BackendError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise BackendError("no NVIDIA GPU that torch can use was found; leave --device out to train on the CPU")
    return torch.device(name)


def give_back_memory() -> None:
    """Return freed memory to the system: uneven steps leave holes that glibc keeps (measured: 4 MB a second)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32 (AVX512-BF16 or AMX)."""
    capabilities = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(capabilities())


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
