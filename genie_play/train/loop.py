"""The one training loop, for all stages: steps, optimisers, averages, checkpoints, progress.

A run is a pure function of its configuration and the step: data, masks and noise of step n depend on (seed, n) alone,
so that stopping and resuming gives the run that would have been. `--minutes` only says when to stop for now. Where the
optimisers are lost (see `pieces.py`) a run goes on over a seam: they warm up again, and the metrics say where.

On a GPU nothing in a step waits for it: data and random numbers are on the device, and whether the loss is a number is
asked when a line is logged, not at every step.
"""

from __future__ import annotations

import copy
import ctypes
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from genie_play import __version__, checkpoint, paths
from genie_play.config import PathConfig, StageConfig, WorldConfig, from_dict, preset, to_dict, training
from genie_play.data.clips import PLATFORMERS, Source, open_source
from genie_play.data.feed import auto_workers
from genie_play.nn.genie import Genie, load_genie, save_genie
from genie_play.train import plan
from genie_play.train.feeder import POOL, Feeder, pool_for
from genie_play.train.optimisers import fast_bfloat16, learning_rate, make_optimisers, ramp
from genie_play.train.stages import PAPER_STAGES, STAGES, Outcome, Stage, Step
from genie_play.types import BackendError, CheckpointError, GenieError, Label

log = logging.getLogger(__name__)

LOG_EVERY = 20  # steps between lines of metrics.jsonl
SAVE_SECONDS = 120.0  # between checkpoints of a run
COMPILE_FROM = 500  # steps from which compiling pays: it costs about a minute and halves a step of dynamics
COMPILE_MINUTES = 2.0  # of a stage's plan from which it pays (reckoned: half a minute, for half of a step)
SEAM = 0.02  # share of the steps in which optimisers and averages warm up again after a seam
META = "genie_play_training"  # the metadata key of a training state
FINE = -1  # no step whose loss was not a number


@dataclass(frozen=True)
class Run:
    """What is trained, on what and where to; `steps` overrides those of the preset.

    `plan`: minutes that all stages may take together, which set their steps. `workers` make batches ahead (None: as
    many as the machine has cores to spare); `pool` clips roll on the device (None: on a GPU, see `feeder.py`).
    """

    out: Path
    preset: str
    source: str
    recipe: str = "default"
    seed: int = 0
    device: str = "auto"
    steps: int | None = None
    plan: float | None = None
    workers: int | None = None
    pool: int | None = None


@dataclass
class DeviceStep(Step):
    """A step whose random numbers are drawn on the device: a GPU need not wait for them."""

    drawn: torch.Generator = field(kw_only=True)

    def rand(self, *shape: int, device: torch.device | str = "cpu") -> Tensor:
        """Uniform numbers, on the device of the generator, whatever was asked for."""
        return torch.rand(*shape, generator=self.drawn, device=self.drawn.device)


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
    after: Callable[[Stage, Run], None] | None = None,
    before: Callable[[Stage, Run], None] | None = None,
    **options: Any,
) -> Path:
    """Train one stage, or "all" in order, into the folder `out`; returns the world file.

    Resumes from what `out` holds. `minutes` is for the whole call and ends it cleanly. GenieError on a folder that
    cannot be written, a stage whose forerunners are missing, a source that cannot be read, or a loss that is not a
    number (the last good checkpoint stays). `before` is called with each stage ahead of it, `after` with each that is
    through, and both may raise; the other `options` are those of `Run`.
    """
    run = Run(Path(out), preset_name, source, recipe, seed, device, steps, **options)
    stages = stages_of(preset_name, recipe)
    if recipe not in ("default", "paper"):
        raise GenieError(f"no recipe is called {recipe!r}; there are default and paper")
    if stage != "all" and stage not in stages:
        raise GenieError(f"no stage is called {stage!r} in recipe {recipe}; there are {', '.join(stages)} and all")
    paths.writable(run.out)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    for name in stages if stage == "all" else [stage]:
        if before is not None:
            before(stages[name], run)
        trainer = Trainer(stages[name], run)
        trainer.plan()
        if not trainer.fit(deadline):
            log.warning("time is up in stage %s; the same command goes on from here", name)
            break
        if after is not None:
            after(stages[name], run)
    return world_file(run.out)


def world_file(out: Path) -> Path:
    """The file of the world that is trained in the folder `out`."""
    return out / f"{out.resolve().name}.safetensors"


def state_file(out: Path, stage: str) -> Path:
    """All that exact resuming of a stage needs."""
    return out / "training" / f"{stage}.safetensors"


def raw_file(out: Path, stage: str) -> Path:
    """The weights of a stage in training as they came from another machine, without optimisers (see `pieces.py`)."""
    return out / "training" / f"{stage}.raw.safetensors"


class Trainer:
    """One stage of one run."""

    def __init__(self, stage: Stage, run: Run) -> None:
        self.stage, self.run = stage, run
        self.device = pick_device(run.device)
        self.world = world_of(run.preset, run.recipe)
        self.config: StageConfig = getattr(training(run.preset), stage.name)
        steps = run.steps or plan.read(run.out).steps.get(stage.name)
        if steps:
            self.config = replace(self.config, steps=steps)
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
        self.seam: int | None = None  # the step at which the optimisers were started anew
        self.trouble = torch.tensor(FINE, device=self.device)  # the first step whose loss was not a number
        self.pool = run.pool
        self.memory: dict[str, Tensor] = {}  # what the loss keeps from step to step
        self._feeder: Feeder | None = None
        self._drawn = torch.Generator(self.device)
        self.compiled = False
        self.amp = self.device.type == "cuda" or fast_bfloat16()
        self.source: Source = open_source(run.source, self.world.size, run.seed)
        self._resume()
        if self.pool is None:
            self.pool = POOL if self.device.type == "cuda" else 0

    @property
    def state_file(self) -> Path:
        """Weights, averages and optimisers of this stage: what resuming needs."""
        return state_file(self.run.out, self.stage.name)

    @property
    def begun(self) -> bool:
        """Whether steps were taken, here or elsewhere."""
        return self.step > 0

    def plan(self) -> None:
        """Set the steps of a stage that has not begun by the minutes it may take, from the measured time of a step."""
        if not self.run.plan or self.run.steps or self.begun or self.stage.name in plan.read(self.run.out).steps:
            return
        if self._compiling_pays():
            self._compile()
        seconds = self.seconds_a_step()
        steps = plan.add(self.run.out, self.run.plan, self.stage.name, seconds)
        self.config = replace(self.config, steps=steps)
        log.warning("%s: %.1f ms a step, so %d steps", self.stage.name, 1000 * seconds, steps)

    def fit(self, deadline: float | None = None) -> bool:
        """Train to the last step (True) or to the deadline (False)."""
        if self.step >= self.config.steps:
            if not set(self.stage.learns) <= set(self.header.stages):
                self.save()  # the run is here and the world that it made is not
            return True
        self._get_ready()
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
                    self.check()
                    row = {name: round(float(value), 5) for name, value in watch.items()}
                    seconds = time.monotonic() - started
                    row["frames_per_second"] = round((self.step - first) * self._frames_a_step() / seconds, 1)
                    row["waited"] = round(self._feed().waited / seconds, 4)
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
            self.close()
        return True

    def take_step(self) -> dict[str, Any]:
        """One step of the optimisers; returns what to log. GenieError if the loss is not a number.

        On a GPU nothing waits for the step to be through, and `check` says later whether all was well.
        """
        return self.learn(self._feed().take())

    def learn(self, frames: Tensor) -> dict[str, Any]:
        """The step on clips (B, T + gap, H, W, 3) uint8."""
        rate = learning_rate(self.step, self.config) * ramp(self.step, self.seam, self.config, SEAM)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * rate
        outcome = self._outcome(frames)
        outcome.loss.backward()
        parameters = [p for learner in self.learners for p in learner.parameters()]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        loss = outcome.loss.detach()
        fine = torch.isfinite(loss) & torch.isfinite(norm)
        self.trouble = torch.where(fine | (self.trouble != FINE), self.trouble, self.step)
        if self.device.type == "cpu":
            self.check()  # costs nothing here
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if outcome.after is not None:
            outcome.after()
        self._average()
        self.step += 1
        return {"loss": loss, "norm": norm, "rate": rate, **outcome.watch}

    def _outcome(self, frames: Tensor) -> Outcome:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            frames = self._apart(frames).to(self.device).float() / 255
            return self.stage.loss(self.genie, frames, self._step())

    def check(self) -> None:
        """GenieError names the first step whose loss was not a number, if there was one."""
        step = int(self.trouble)
        if step != FINE:
            kept = self.state_file if self.state_file.exists() else "none yet"
            raise GenieError(
                f"the loss of {self.stage.name} at step {step} is not a number; the last good checkpoint is {kept}"
            )

    def seconds_a_step(self) -> float:
        """The mean time of a step over the whole of the stage, measured; weights and all else are as they were."""
        self.genie.train()
        kept = [copy.deepcopy(learner.state_dict()) for learner in self.learners]
        clips = torch.from_numpy(self.source.batch(0, *self._clips()))
        begin = time.perf_counter()
        self.source.batch(1, *self._clips())
        # others make batches meanwhile
        made = 0.0 if self._workers() else time.perf_counter() - begin
        spent = 0.0
        for timed in (False, True):  # what is compiled or allocated once must not count
            for tenth in range(1, 10, 2):
                self.step = tenth * self.config.steps // 10
                begin = time.perf_counter()
                float(self.learn(clips)["loss"])
                spent += (time.perf_counter() - begin + made) * timed
        self.check()
        self.step = 0
        self.memory.clear()
        self._put_back(kept)
        self.average = [copy.deepcopy(learner).requires_grad_(False) for learner in self.learners]
        self.optimisers = make_optimisers(self.learners, self.config)
        return spent / 5

    def close(self) -> None:
        """End what makes batches. Twice is fine."""
        if self._feeder is not None:
            self._feeder.close()
            self._feeder = None

    def save(self) -> None:
        """Write what resuming needs, then the world with the averaged weights, unless a loss was no number."""
        self.check()
        tensors: dict[str, Tensor] = {"step": torch.tensor(self.step)}
        if self.seam is not None:
            tensors["seam"] = torch.tensor(self.seam)
        for index, (learner, average) in enumerate(zip(self.learners, self.average, strict=True)):
            tensors |= {f"weights.{index}.{k}": v for k, v in learner.state_dict().items()}
            tensors |= {f"average.{index}.{k}": v for k, v in average.state_dict().items()}
        for index, optimiser in enumerate(self.optimisers):
            for number, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{index}.{number}.{k}": torch.as_tensor(v) for k, v in state.items()}
        tensors |= {f"memory.{name}": value for name, value in self.memory.items()}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        paths.writable(self.state_file.parent)
        about = {"stage": to_dict(self.config), "world": to_dict(self.world), "pool": self.pool}
        meta = json.dumps(about, sort_keys=True)
        checkpoint.atomic_write(self.state_file, save(tensors, metadata={META: meta}))
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

    def _get_ready(self) -> None:
        self.genie.train()
        if self._compiling_pays():
            self._compile()
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # all steps have the same shapes

    def _compiling_pays(self) -> bool:
        if self.run.plan and not self.run.steps:
            return plan.share(self.stage.name) * self.run.plan >= COMPILE_MINUTES
        return self.config.steps >= COMPILE_FROM

    def _workers(self) -> int:
        """How many processes make batches; a short run ends before they have begun."""
        if self.run.workers is not None:
            return self.run.workers
        return auto_workers() if self.config.steps - self.step >= COMPILE_FROM else 0

    def _feed(self) -> Feeder:
        if self._feeder is None:
            batch = self._clips()
            short = self.run.source not in PLATFORMERS
            pool = pool_for(self.pool or 0, *batch, short, self.config.frames)
            self._feeder = Feeder(self.source, *batch, self.step, self.device, self._workers(), pool, self.run.seed)
        return self._feeder

    def _step(self) -> Step:
        """What the loss of this step may look at; its random numbers depend on the seed and the step alone."""
        seed = self.run.seed * 1_000_003 + self.step
        generator = torch.Generator().manual_seed(seed)
        if self.device.type == "cpu":
            return Step(self.step, self.config.steps, generator, self.memory)
        return DeviceStep(self.step, self.config.steps, generator, self.memory, drawn=self._drawn.manual_seed(seed))

    def _compile(self) -> None:
        """Compile the networks in place, where a C++ compiler (CPU) or Triton (GPU) is there to do it."""
        if self.compiled:
            return
        self.compiled = True
        if self.device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
            log.info("no C++ compiler: training runs uncompiled, about half as fast")
            return
        genie = self.genie
        motion = getattr(genie.actions.form, "motion", None)
        # the blocks of a model are alike: what is compiled for one serves all (measured: a third of the time)
        modules = [genie.tokenizer.encoder, genie.tokenizer.decoder, *genie.dynamics.blocks, motion]
        if self.device.type == "cuda":
            # what only looks on is quick there as it is, and compiling costs time that is lent
            learning = {part for learner in self.learners for part in learner.modules()}
            modules = [module for module in modules if module in learning]
        modules = [module for module in modules if module is not None]
        for module in modules:
            module.compile(dynamic=False)
        try:
            self._try()
        except Exception as error:
            # whatever a compiler raises; where it is not the compiler's fault the first step says so again
            for module in modules:
                module._compiled_call_impl = None
            reason = str(error).strip().partition("\n")[0]
            log.warning("%s runs uncompiled, which is slower: %s: %s", self.stage.name, type(error).__name__, reason)

    def _try(self) -> None:
        """A loss and its gradient, of which nothing stays."""
        self.genie.train()
        kept = [copy.deepcopy(learner.state_dict()) for learner in self.learners]
        memory = {name: value.clone() for name, value in self.memory.items()}
        clips = torch.from_numpy(self.source.batch(0, *self._clips()))
        try:
            self._outcome(clips).loss.backward()
        finally:
            self._put_back(kept)
            self.memory = memory

    def _put_back(self, kept: list[dict[str, Any]]) -> None:
        for learner, state in zip(self.learners, kept, strict=True):
            learner.load_state_dict(state)
            learner.zero_grad(set_to_none=True)

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
        # after a seam what the optimisers do before they have found their feet counts for little
        decay = 1 - (1 - decay) * ramp(self.step, self.seam, self.config, SEAM)
        for learner, average in zip(self.learners, self.average, strict=True):
            torch._foreach_lerp_(list(average.parameters()), list(learner.parameters()), 1 - decay)

    def _load(self) -> tuple[Genie, checkpoint.Header]:
        """The world as the folder has it, or a fresh one; the stages this one needs must be there."""
        file = world_file(self.run.out)
        header = fresh_header(self.world)
        genie = fresh_genie(self.world, self.run.seed)
        if file.exists():
            known, header = load_genie(file)
            if _trained(to_dict(header.world)) != _trained(to_dict(self.world)):
                raise CheckpointError(f"{file} was made with another configuration; choose another --out")
            genie.load_state_dict(known.state_dict())
        there = {name: stage for stage in stages_of(self.run.preset, self.run.recipe).values() for name in stage.learns}
        for needed in self.stage.needs:
            if needed in there and needed not in header.stages:
                raise GenieError(f"train {there[needed].name} into {self.run.out} first (or: train all)")
        genie.dynamics.set_codes(genie.tokenizer.quantizer.codebook)
        return genie, header

    def _resume(self) -> None:
        """Go on from the state of this folder, exactly; from raw weights that came from elsewhere, over a seam; or know
        that the stage is through, where only its world is here."""
        raw = raw_file(self.run.out, self.stage.name)
        if self.state_file.exists():
            self._take_up(self._read_state(self.state_file))
        elif raw.exists():
            tensors = self._read_state(raw)
            self.step = self.seam = int(tensors["step"])
            for index, learner in enumerate(self.learners):
                part = _under(tensors, f"weights.{index}.")
                learner.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in part.items()})
            self._write({"seam": True})
        else:
            done = [self.header.stages.get(name, {}) for name in self.stage.learns]
            if all(d.get("steps", 0) >= d.get("of", 1) and d.get("of", 0) >= self.config.steps for d in done):
                self.step = self.config.steps

    def _read_state(self, path: Path) -> dict[str, Tensor]:
        with safe_open(path, framework="pt") as file:
            made = json.loads(file.metadata()[META])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # read as a config: what is newer than the file has its default
        world = to_dict(from_dict(WorldConfig, made["world"]))
        same = _trained(world) == _trained(to_dict(self.world)) and from_dict(StageConfig, made["stage"]) == self.config
        pool = made.get("pool", 0)
        if not same or self.pool not in (None, pool):
            raise CheckpointError(
                f"{path} was made with other settings; the same ones go on, another --out starts anew"
            )
        self.pool = pool
        return tensors

    def _take_up(self, tensors: dict[str, Tensor]) -> None:
        self.step = int(tensors["step"])
        self.seam = int(tensors["seam"]) if "seam" in tensors else None
        for index, (learner, average) in enumerate(zip(self.learners, self.average, strict=True)):
            learner.load_state_dict(_under(tensors, f"weights.{index}."))
            average.load_state_dict(_under(tensors, f"average.{index}."))
        for index, optimiser in enumerate(self.optimisers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(tensors, f"optimiser.{index}.").items():
                number, _, key = name.partition(".")
                state.setdefault(int(number), {})[key] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        self.memory = {name: value.to(self.device) for name, value in _under(tensors, "memory.").items()}

    def _clips(self) -> tuple[int, int]:
        """Clips of a step and their frames, those included that are left out."""
        return self.config.batch, self.config.frames + self.config.gap

    def _apart(self, clips: Tensor) -> Tensor:
        """Of clips (B, T + gap, ...) what this step sees, (B, T, ...): the first frame and a run of those after it."""
        if not self.config.gap:
            return clips
        left_out = int(np.random.default_rng([self.run.seed, self.step, 4]).integers(self.config.gap + 1))
        return torch.cat((clips[:, :1], clips[:, 1 + left_out : left_out + self.config.frames]), 1)

    def _frames_a_step(self) -> int:
        return self.config.batch * self.config.frames

    def _write(self, row: dict[str, Any]) -> None:
        record = {"stage": self.stage.name, "step": self.step, "of": self.config.steps, "time": time.time(), **row}
        with open(self.run.out / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _log(self, row: dict[str, float], bar: tqdm) -> None:
        self._write(row)
        shown = " ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("norm", "rate", "waited"))
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


def fresh_genie(world: WorldConfig, seed: int) -> Genie:
    """The networks of a world before any training; the seed says their weights."""
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    genie = Genie(world)
    torch.random.set_rng_state(before)
    return genie


def fresh_header(world: WorldConfig) -> checkpoint.Header:
    """The header of a world nothing is known of yet."""
    sample = world.sample
    path = PathConfig(
        order=sample.order,
        steps=sample.steps,
        temperature=sample.temperature,
        last_argmax=sample.last_argmax,
        guidance=sample.guidance,
    )
    labels = tuple(Label(code) for code in range(world.actions.codes))
    return checkpoint.Header(world=world, path=path, labels=labels, idle=0)


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


def _trained(world: dict[str, Any]) -> dict[str, Any]:
    """What training depends on of a world's config; how it is sampled may change under a run."""
    return {name: value for name, value in world.items() if name != "sample"}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
