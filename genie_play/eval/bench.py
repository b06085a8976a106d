"""How fast a world plays on the machine at hand, stage by stage, and how near that is to what the machine can do.

Everything is measured through the engine that plays, after a warm-up; a median over many frames stands for the rest. A
ratio is taken between two things timed in turn in one run, as machines are noisy. A speed counts only where the cache
computes what the whole window does, so that is looked at first.
"""

from __future__ import annotations

import contextlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from genie_play import __version__, paths
from genie_play.config import PathConfig, from_dict
from genie_play.engine import verdicts
from genie_play.engine.engine import GenieEngine
from genie_play.engine.process import EngineProcess
from genie_play.eval import costs, roofs, selfcheck, stopwatch
from genie_play.eval.roofs import Roofs
from genie_play.eval.targets import Target
from genie_play.nn.genie import Genie
from genie_play.types import N_ACTIONS, Prompt

FORMAT = 2  # of the JSON; 1 had no stages
LONGEST = 60.0  # seconds that a part of the measurement may take; slow worlds are played for fewer frames
LARGE = 300_000_000  # numbers: from here on a pass over a whole clip in float32 is too long to wait for
TOP = ("embed", "pass", "head and sampling", "commit", "decode", "to picture")  # stages that a frame is made of
Say = Callable[[str], None]


def bench(
    target: Target,
    frames: int = 100,
    device: str = "auto",
    recompute: bool = False,
    say: Say = lambda _: None,
    **path: Any,
) -> dict[str, Any]:
    """Measure a target over `frames` steps of random play; with `recompute` also its window run again at every pass.

    `path` overrides fields of its path, as in `GenieEngine`. The result is plain data.
    """
    threads, peak = torch.get_num_threads(), _peak_memory()
    gate = _gate(target, device, path, say)
    say(f"building {target.config.name}")
    started = time.perf_counter()
    engine = target.engine(device, **path)
    built = time.perf_counter() - started
    try:
        action = random_actions()
        found: dict[str, Any] = {
            "format": FORMAT,
            "target": target.describe(),
            "path": engine.info.path,
            "machine": machine(engine.info.device),
            "gate": gate,
        }
        first = fill(engine, action)
        frames = _fewer(frames, _timed(lambda: engine.step(action()), engine.device))
        say(f"playing {frames} frames")
        found |= {"frames": frames, "start": {"engine_s": round(built, 3), "first_frame_ms": _ms(first)}}
        found |= _frame(engine, action, frames)
        limit = roofs_of(target, engine, say)
        say("timing the stages")
        found |= _stages(engine, target, action, max(frames // 2, 3), limit)
        found["memory"] = _memory(engine, peak)
        if recompute:
            say("running the window again at every pass")
            found["recompute"] = against_recompute(engine, target.networks(), max(frames // 10, 5))
    finally:
        engine.close()
        torch.set_num_threads(threads)
    say("the same in a process of its own")
    process = _process(target, device, path, min(frames, 60))
    found["start"] |= process.pop("start")
    found["latency"] |= process
    return found


def dynamics_frame(engine: GenieEngine, action: int) -> float:
    """Seconds that the dynamics model takes for the next frame, passes, sampling and commit: all but the decoder.

    Where a frame is one graph its decoder cannot be told apart and is in the figure.
    """
    with stopwatch.Watch(engine.device) as watch:
        watch.wrap(stopwatch.networks(engine).tokenizer.decoder, "stream", "decoder")
        watch.wrap(getattr(engine, "_decoder", None), "commit", "decoder")
        watch.wrap(getattr(engine, "_ops", None), "to_picture", "decoder")
        started = watch.now()
        engine.settle()
        engine.step(action)
        return watch.now() - started - sum(seconds for _, seconds in watch.take())


@torch.inference_mode()
def against_recompute(engine: GenieEngine, plain: Genie, rounds: int) -> dict[str, Any]:
    """Seconds a frame of the dynamics model, commit included, with the cache and with the window run at every pass.

    The second are the same weights as they are trained, in bfloat16 where the path says so and in float32 elsewhere;
    both are timed in turn, and the ratio is the median of the turns'.
    """
    arithmetic = "bf16" if engine.path.arithmetic == "bf16" else "fp32"
    dynamics = plain.dynamics.to(engine.device, torch.bfloat16 if arithmetic == "bf16" else torch.float32)
    generator = torch.Generator().manual_seed(0)
    shape = (1, dynamics.config.window, dynamics.n_tokens)
    tokens = torch.randint(0, dynamics.codes, shape, generator=generator)
    tokens[:, -1] = dynamics.mask_id
    told = torch.randint(0, N_ACTIONS, shape[:2], generator=generator).to(engine.device)
    tokens, action = tokens.to(engine.device), random_actions()

    def recomputed() -> float:
        watch = stopwatch.Watch(engine.device)
        started = watch.now()
        for _ in range(engine.path.steps):
            dynamics.logits(dynamics(tokens, told)[:, -1])
        return watch.now() - started

    times = in_turn({"cached": lambda: dynamics_frame(engine, action()), "recomputed": recomputed}, rounds)
    ratio = statistics.median(b / a for a, b in zip(times["cached"], times["recomputed"], strict=True))
    medians = {f"{name}_s": round(statistics.median(spent), 5) for name, spent in times.items()}
    return medians | {"arithmetic": arithmetic, "times": round(ratio, 2), "rounds": rounds}


def in_turn(works: dict[str, Callable[[], float]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """What each work measures, `rounds` times, one after another in each round, so that a busy machine is busy for all.

    A work returns its own seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + warm_up):
        for name, work in works.items():
            seconds = work()
            if number >= warm_up:
                times[name].append(seconds)
    return times


def fill(engine: GenieEngine, action: Callable[[], int]) -> float:
    """Start a play-through and play until the rings are full. Returns the seconds of its first frame: whatever is
    compiled or loaded late is in it."""
    engine.reset(Prompt(selfcheck.scenery(engine.info.size, 1)), 1)
    first = _timed(lambda: engine.step(action()), engine.device)
    for _ in range(engine.info.window + 1):
        engine.step(action())
    return first


def random_actions() -> Callable[[], int]:
    """The same random actions every time."""
    rng = np.random.default_rng(0)
    return lambda: int(rng.integers(N_ACTIONS))


def roofs_of(target: Target, engine: GenieEngine, say: Say = lambda _: None) -> Roofs:
    """What this machine can do at most at the target's shapes, in the engine's arithmetic and with its threads."""
    say("measuring what the machine can do")
    stack = costs.dynamics_stack(target.config)
    products = [*stack.products, (stack.width, target.config.tokenizer.codes)]
    return roofs.measure(
        [(stack.tokens, inputs, outputs) for inputs, outputs in products],
        engine.path.arithmetic,
        engine.device,
        costs.dynamics_numbers(target.config) * costs.WEIGHT_BYTES[engine.path.arithmetic],
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


def _gate(target: Target, device: str, path: dict[str, Any], say: Say) -> dict[str, Any]:
    """Whether the engine on this path says what the whole clip does; a speed without that is worth nothing."""
    if costs.dynamics_numbers(target.config) > LARGE:
        return {"ok": None, "detail": "not checked: the whole clip in float32 is too long to wait for"}
    say("checking the cache against the whole clip")
    expected = selfcheck.whole_clip(target.networks(), target.config.dynamics.window + 2)
    engine = target.engine(device, **(path | selfcheck.PROBE))
    with contextlib.closing(engine):
        followed = selfcheck.follow(engine, expected)
        return {"ok": followed.within(engine.path.arithmetic), "detail": str(followed)}


def _fewer(frames: int, seconds: float) -> int:
    return max(3, min(frames, int(LONGEST / max(seconds, 1e-6))))


def _frame(engine: GenieEngine, action: Callable[[], int], frames: int) -> dict[str, Any]:
    """The frame as a whole, key to picture, and the eight futures, through the engine."""
    step, settle, futures, worked = [], [], [], []
    for index in range(frames):
        started = time.process_time()
        # the commit runs while nobody waits: it is timed apart, and the step that follows waits for none
        settle.append(_timed(engine.settle, engine.device))
        step.append(_timed(lambda: engine.step(action()), engine.device))
        worked.append(time.process_time() - started)
        if index % 10 == 0:
            engine.settle()
            futures.append(_timed(lambda: engine.futures(range(N_ACTIONS)), engine.device))
    whole = [a + b for a, b in zip(step, settle, strict=True)]
    return {
        "frame": _spread(whole)
        | {"cpu_ms": _ms(statistics.median(worked)), "frames_per_second": round(1 / statistics.median(whole), 2)},
        "share": round(min(sum(worked) / sum(whole) / torch.get_num_threads(), 1.0), 3)
        if engine.device.type == "cpu"
        else 1.0,
        "latency": {"engine": _spread(step)},
        "futures": {"ms": _ms(statistics.median(futures)), "times_one": _ratio(futures, step)},
    }


def _stages(
    engine: GenieEngine, target: Target, action: Callable[[], int], frames: int, limit: Roofs
) -> dict[str, Any]:
    """Each stage: how often a frame has it, its time, its cost, its floor here, and the share of the floor reached.

    The frame of this table is the sum of its stages, with the stopwatch's own time in it.
    """
    path = from_dict(PathConfig, engine.info.path, "path")
    spent, each = stopwatch.stage_times(engine, [action() for _ in range(frames)])
    spent |= stopwatch.part_times(engine, [action() for _ in range(max(frames // 4, 3))])
    seconds = {name: statistics.median(times) for name, times in spent.items()}
    seconds["frame"] = sum(seconds.get(name, 0.0) for name in (*TOP, "rest"))
    cost, often = costs.stages(target.config, path), costs.repeats(target.config, path)
    floor = costs.floors(target.config, path, limit.flops_per_s, limit.bytes_per_s, limit.values_per_s)
    rows = [{"stage": "rest", "times": 1, "ms": _ms(seconds["rest"])}]
    for name, one in cost.items():
        whole, times = one * often[name], floor[name] * often[name]
        row = {"stage": name, "times": often[name], "ms": _ms(seconds[name]) if name in seconds else None}
        row |= {"gflop": round(whole.flops / 1e9, 4), "mbyte": round(whole.bytes / 1e6, 3)}
        row |= {"floor_ms": round(1000 * times, 4)}
        row["reached"] = round(times / seconds[name], 3) if name in seconds else None
        rows.insert(len(rows) - (name != "frame"), row)
    passes = [{name: _ms(statistics.median(times)) for name, times in one.items()} for one in each]
    by = "processor time" if stopwatch.clock(engine.device) is time.thread_time else "the time on the wall"
    return {"stages": rows, "clock": by, "passes_ms": passes, "roofs": asdict(limit)}


def _process(target: Target, device: str, path: dict[str, Any], frames: int) -> dict[str, Any]:
    """From start to ready, and from a key to its frame, through the process that the window uses."""
    started = time.perf_counter()
    channel = target.process(device, **path)
    try:
        info = channel.info
        ready = time.perf_counter() - started
        channel.reset(Prompt(selfcheck.scenery(info.size, 1)), 1)
        first = _waited(channel, 0)
        action = random_actions()
        for _ in range(min(info.window + 2, frames)):
            channel.step(action())
        idle, running = [], []
        for _ in range(frames):
            channel.settle()
            idle.append(_waited(channel, action()))
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
    genie = stopwatch.networks(engine)
    found: dict[str, Any] = {
        f"weights, {name}": _mib(sum(t.nbytes for t in (*part.parameters(), *part.buffers())))
        for name, part in genie.named_children()
    }
    found |= {name if "pool" in name else f"ring, {name}": _mib(n) for name, n in stopwatch.rings(engine).items()}
    found |= {"peak of the process": _mib(_peak_memory()), "peak before the engine": _mib(before)}
    if engine.device.type == "cuda":
        found["peak on the GPU"] = _mib(torch.cuda.max_memory_allocated(engine.device))
    return found


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
    try:
        import resource
    except ImportError:  # Windows has none
        return 0
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _commit() -> str:
    """The commit of the code that runs, "+" where files have changed since; nothing outside a repository."""
    try:
        words = ["git", "-C", str(paths.ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
