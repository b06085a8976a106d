"""How fast a world plays on the machine at hand, stage by stage, and how near that is to what the machine can do.

Everything is measured through the engine that plays, after a warm-up; a median over many frames stands for the rest. A
ratio is taken between two things timed in turn in one run, as machines are noisy. A speed counts only where the cache
computes what the whole window does, so that is looked at first.
"""

from __future__ import annotations

import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genie_play import __version__, ops, paths
from genie_play.config import PathConfig, from_dict
from genie_play.engine import verdicts
from genie_play.engine.engine import GenieEngine
from genie_play.engine.process import EngineProcess
from genie_play.engine.sampler import Sampler
from genie_play.engine.state import Ring
from genie_play.eval import costs, roofs, selfcheck, stages
from genie_play.eval.roofs import Roofs
from genie_play.eval.subjects import Subject
from genie_play.nn.dynamics import Dynamics
from genie_play.types import N_ACTIONS, GenieError, Prompt

FORMAT = 2  # of the JSON; 1 had no stages
LONGEST = 90.0  # seconds that a part of the measurement may take; slow worlds are played for fewer frames
Say = Callable[[str], None]


def bench(
    subject: Subject,
    frames: int = 100,
    device: str = "auto",
    recompute: bool = False,
    say: Say = lambda _: None,
    **path: Any,
) -> dict[str, Any]:
    """Measure a subject over `frames` steps of random play; with `recompute` also its window run again at every pass.

    `path` overrides fields of its path, as in `GenieEngine`. The result is plain data.
    """
    threads, peak = torch.get_num_threads(), _peak_memory()
    say(f"{subject.config.name}: building the engine")
    started = time.perf_counter()
    engine = subject.engine(device, **path)
    built = time.perf_counter() - started
    try:
        found = _describe(subject, engine, frames)
        gate = _gate(engine, subject, say)
        found["gate"] = gate
        action = _random_actions()
        first = _start(engine)
        say("warming up")
        warm = _warm_up(engine, action)
        frames = _fewer(frames, first if warm is None else warm)
        found |= {"frames": frames, "start": {"engine_s": round(built, 3), "first_frame_ms": _ms(first)}}
        say(f"playing {frames} frames")
        found |= _frame(engine, action, frames)
        say("timing the stages")
        each = _stages(engine, subject, action, max(frames // 2, 3), roofs_of(subject, engine, say))
        found |= each | {"memory": _memory(engine, peak)}
        if recompute:
            say("running the window again at every pass")
            found["recompute"] = against_recompute(engine, max(frames // 10, 3))
    finally:
        engine.close()
        torch.set_num_threads(threads)
    say("the same in a process of its own")
    found["start"] |= {}
    process = _process(subject, device, path, min(frames, 60))
    found["start"] |= process.pop("start")
    found["latency"] |= {"process": process}
    return found


def dynamics_frame(dynamics: Dynamics, path: PathConfig) -> Callable[[], None]:
    """A frame of a dynamics model alone, all its passes and the commit, against a full ring; ready to run again."""
    device = dynamics.head.weight.device
    sampler = Sampler(dynamics, ops.get(path.ops), path)
    ring = Ring(
        dynamics.cache_shape, dynamics.n_tokens, dynamics.config.recipe == "teacher", device, dynamics.head.weight.dtype
    )
    generator = torch.Generator().manual_seed(0)
    action = torch.zeros(1, dtype=torch.int64, device=device)

    @torch.inference_mode()
    def commit(tokens: torch.Tensor) -> None:
        ring.commit(dynamics.stream(sampler.embed(tokens, action), ring.past())[1])

    for _ in range(dynamics.config.window):
        commit(torch.randint(0, dynamics.codes, (1, dynamics.n_tokens), generator=generator).to(device))

    @torch.inference_mode()
    def frame() -> None:
        commit(sampler.sample(ring.past(), action, 1, ring.position).tokens)

    return frame


@torch.inference_mode()
def against_recompute(engine: GenieEngine, frames: int) -> dict[str, float]:
    """Seconds a frame of the dynamics model, commit included, with the cache and with the window run at every pass.

    Both are the engine's own networks in its arithmetic, timed in turn.
    """
    dynamics = stages.networks(engine).dynamics
    cached = dynamics_frame(dynamics, engine.path)
    generator = torch.Generator().manual_seed(0)
    shape = (1, dynamics.config.window, dynamics.n_tokens)
    tokens = torch.randint(0, dynamics.codes, shape, generator=generator)
    tokens[:, -1] = dynamics.mask_id
    actions = torch.randint(0, N_ACTIONS, shape[:2], generator=generator).to(engine.device)
    tokens = tokens.to(engine.device)

    def recomputed() -> None:
        for _ in range(engine.path.steps):
            dynamics.logits(dynamics(tokens, actions)[:, -1])

    times = in_turn({"cached": cached, "recomputed": torch.inference_mode()(recomputed)}, frames, engine.device)
    medians = {name: statistics.median(spent) for name, spent in times.items()}
    ratio = statistics.median(b / a for a, b in zip(times["cached"], times["recomputed"], strict=True))
    return {f"{name}_s": round(seconds, 5) for name, seconds in medians.items()} | {"times": round(ratio, 2)}


def in_turn(
    works: dict[str, Callable[[], Any]], rounds: int, device: torch.device, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each work, `rounds` times, one after another in each round, so that a busy machine is busy for all."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + warm_up):
        for name, work in works.items():
            seconds = _timed(work, device)
            if number >= warm_up:
                times[name].append(seconds)
    return times


def roofs_of(subject: Subject, engine: GenieEngine, say: Say = lambda _: None) -> Roofs:
    """What this machine can do at most at the subject's shapes, in the engine's arithmetic and with its threads."""
    say("measuring what the machine can do")
    stack = costs.dynamics_stack(subject.config)
    products = [*stack.products, (stack.width, subject.config.tokenizer.codes)]
    return roofs.measure(
        [(stack.tokens, inputs, outputs) for inputs, outputs in products],
        engine.path.arithmetic,
        engine.device,
        costs.dynamics_numbers(subject.config) * costs.WEIGHT_BYTES[engine.path.arithmetic],
    )


def machine(device: str) -> dict[str, Any]:
    """What was measured on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else verdicts.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "version": __version__,
        "commit": _commit(),
    }


def _describe(subject: Subject, engine: GenieEngine, frames: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "subject": subject.describe(),
        "path": engine.info.path,
        "machine": machine(engine.info.device),
        "frames": frames,
    }


def _gate(engine: GenieEngine, subject: Subject, say: Say) -> dict[str, Any]:
    """Whether the cache computes what the whole window does; a speed without that is worth nothing."""
    say("checking that the cache computes what the whole window does")
    allowed = selfcheck.LOGITS[engine.path.arithmetic]
    error = selfcheck.cache_error(stages.networks(engine), min(subject.config.dynamics.window + 2, 18))
    return {"cache_error": float(f"{error:.2g}"), "allowed": allowed, "ok": error <= allowed}


def _start(engine: GenieEngine) -> float:
    """Seconds of the first frame after the prompt: whatever is compiled or loaded late is in it."""
    engine.reset(Prompt(selfcheck.scenery(engine.info.size, 1)), 1)
    return _timed(lambda: engine.step(0), engine.device)


def _warm_up(engine: GenieEngine, action: Callable[[], int]) -> float | None:
    """Play until the rings are full; seconds of the last frame."""
    last = None
    for _ in range(engine.info.window + 2):
        last = _timed(lambda: engine.step(action()), engine.device)
        if last > 10:
            break
    return last


def _fewer(frames: int, seconds: float) -> int:
    return max(3, min(frames, int(LONGEST / max(seconds, 1e-6))))


def _frame(engine: GenieEngine, action: Callable[[], int], frames: int) -> dict[str, Any]:
    """The frame as a whole, key to picture, and the eight futures, through the engine."""
    step, settle, futures = [], [], []
    for index in range(frames):
        # the commit runs while nobody waits: it is timed apart, and the step that follows waits for none
        settle.append(_timed(engine.settle, engine.device))
        step.append(_timed(lambda: engine.step(action()), engine.device))
        if index % 10 == 0:
            engine.settle()
            futures.append(_timed(lambda: engine.futures(range(N_ACTIONS)), engine.device))
    whole = [a + b for a, b in zip(step, settle, strict=True)]
    return {
        "frame": _spread(whole) | {"frames_per_second": round(1 / statistics.median(whole), 2)},
        "latency": {"engine": _spread(step)},
        "futures": {"ms": _ms(statistics.median(futures)), "times_one": _ratio(futures, step)},
    }


def _stages(
    engine: GenieEngine, subject: Subject, action: Callable[[], int], frames: int, limit: Roofs
) -> dict[str, Any]:
    """Each stage: how often a frame has it, its time, its cost, its floor here, and the share of the floor reached."""
    config = replace(subject.config, sample=subject.config.sample)
    path = from_dict(PathConfig, engine.info.path, "path")
    spent, each = stages.stage_times(engine, (action() for _ in range(frames)))
    spent |= stages.part_times(engine, [action() for _ in range(max(frames // 4, 3))])
    cost, often = costs.stages(config, path), costs.repeats(config, path)
    floor = costs.floors(config, path, limit.flops_per_s, limit.bytes_per_s)
    rows = []
    for name in cost:
        if name == "frame":
            seconds: float | None = sum(
                statistics.median(spent[part]) for part in (*TOP, "rest") if part in spent
            )  # the whole as its parts, so that shares add up
        else:
            seconds = statistics.median(spent[name]) if name in spent else None
        times = often[name]
        rows.append(
            {
                "stage": name,
                "times": times,
                "ms": None if seconds is None else _ms(seconds),
                "gflop": round(cost[name].flops * times / 1e9, 4),
                "mbyte": round(cost[name].bytes * times / 1e6, 3),
                "floor_ms": round(1000 * floor[name] * (1 if name == "frame" else times), 4),
                "reached": None if not seconds else round(floor[name] * (1 if name == "frame" else times) / seconds, 3),
            }
        )
    rows.insert(-1, {"stage": "rest", "times": 1, "ms": _ms(statistics.median(spent["rest"]))})
    return {
        "stages": rows,
        "passes_ms": [{name: _ms(statistics.median(times)) for name, times in one.items()} for one in each],
        "roofs": asdict(limit),
    }


TOP = ("embed", "pass", "head and sampling", "commit", "decode", "to picture")


def _process(subject: Subject, device: str, path: dict[str, Any], frames: int) -> dict[str, Any]:
    """From start to ready, and from a key to its frame, through the process that the window uses."""
    started = time.perf_counter()
    channel = subject.process(device, **path)
    try:
        info = channel.info
        ready = time.perf_counter() - started
        channel.reset(Prompt(selfcheck.scenery(info.size, 1)), 1)
        first = _waited(channel, 0)
        action = _random_actions()
        for _ in range(min(info.window + 2, frames)):
            channel.step(action())
        idle, running = [], []
        for _ in range(frames):
            channel.settle()
            idle.append(_waited(channel, action()))
        for _ in range(frames):
            # the key comes when the frame before has just been shown: its commit is still to be done
            running.append(_waited(channel, action()))
    finally:
        channel.close()
    return {
        "start": {"process_s": round(ready, 3), "process_first_frame_ms": _ms(first)},
        "idle": _spread(idle),
        "running": _spread(running),
    }


def _waited(channel: EngineProcess, action: int) -> float:
    """Seconds from a key to the frame that it leads to, pipe and all."""
    started = time.perf_counter()
    channel.submit("step", action)
    reply = channel.poll(None)
    while reply is None:
        reply = channel.poll(None)
    if reply.error is not None:
        raise reply.error
    return time.perf_counter() - started


def _memory(engine: GenieEngine, before: int) -> dict[str, Any]:
    """MiB of weights, rings and pool, and the most that this process ever had."""
    genie = stages.networks(engine)
    found: dict[str, Any] = {
        f"weights, {name}": _mib(sum(t.nbytes for t in (*part.parameters(), *part.buffers())))
        for name, part in genie.named_children()
    }
    found |= {name if "pool" in name else f"ring, {name}": _mib(size) for name, size in stages.rings(engine).items()}
    found |= {"peak of the process": _mib(_peak_memory()), "peak before the engine": _mib(before)}
    if engine.device.type == "cuda":
        found["peak on the GPU"] = _mib(torch.cuda.max_memory_allocated(engine.device))
    return found


def _random_actions() -> Callable[[], int]:
    rng = np.random.default_rng(0)
    return lambda: int(rng.integers(N_ACTIONS))


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    roofs.wait(device)
    started = time.perf_counter()
    work()
    roofs.wait(device)
    return time.perf_counter() - started


def _spread(seconds: Iterable[float]) -> dict[str, float]:
    times = list(seconds)
    p50, p95 = (float(np.percentile(times, q)) for q in (50, 95))
    return {"p50_ms": _ms(p50), "p95_ms": _ms(p95), "min_ms": _ms(min(times))}


def _ratio(a: list[float], b: list[float]) -> float:
    return round(statistics.median(a) / statistics.median(b), 2)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _mib(size: int) -> float:
    return round(size / 2**20, 2)


def _peak_memory() -> int:
    """Bytes of memory that this process had at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _commit() -> str:
    """The commit of the code that runs, "+" where files have changed since; nothing outside a repository."""
    try:
        words = ["git", "-C", str(paths.ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def read(path: Path) -> dict[str, Any]:
    """A measurement that `bench --json` wrote; GenieError if it is none."""
    import json

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GenieError(f"{path} cannot be read as a measurement ({error}); make one with 'bench --json'") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise GenieError(f"{path} is no measurement of this format; make one with 'genie-play bench --json'")
    return found
