"""How fast a world plays on the machine at hand: a whole frame, its parts, and the same frame without the cache.

Every figure is a median over many frames, measured after a warm-up, through the engine that plays. A ratio is taken
between two things timed in turn in one run, as machines are noisy.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genie_play import checkpoint, ops
from genie_play.engine.engine import GenieEngine
from genie_play.engine.sampler import Sampler
from genie_play.engine.state import Ring
from genie_play.nn.genie import Genie, load_genie
from genie_play.types import N_ACTIONS, Prompt

WARM_UP = 12


def bench(
    world: str | Path, frames: int = 100, device: str = "auto", against: str | None = None, **path: Any
) -> dict[str, Any]:
    """Time `frames` steps of random play; with `against` "recompute" also the window run again at every pass.

    `path` overrides fields of the shipped path, as in `GenieEngine`.
    """
    file = checkpoint.find(world)
    engine = GenieEngine(file, device=device, **path)
    try:
        times = _play(engine, frames)
        found: dict[str, Any] = {
            "world": engine.info.name,
            "path": engine.info.path,
            "machine": machine(engine.info.device),
            "frames": frames,
            "step_ms": _median(times["step"]),
            "step_p95_ms": _ms(float(np.percentile(times["step"], 95))),
            "settle_ms": _median(times["settle"]),
            "frame_ms": _median([a + b for a, b in zip(times["step"], times["settle"], strict=True)]),
            "futures_ms": _median(times["futures"]),
        }
        found["frames_per_second"] = round(1000 / found["frame_ms"], 1)
        if against == "recompute":
            found |= _against_recompute(file, engine, max(frames // 10, 3))
    finally:
        engine.close()
    return found


def machine(device: str) -> dict[str, Any]:
    """What was measured on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def text(found: dict[str, Any]) -> str:
    """The figures as lines for a person."""
    on = found["machine"]
    path = found["path"]
    way = f"{path['steps']} passes, {path['order']}, {path['variant']}, {path['arithmetic']}, {path['ops']}"
    lines = [
        f"{found['world']} on {on['device']}, {on['threads']} thread(s), torch {on['torch']}; {way}",
        f"frame {found['frame_ms']} ms: {found['frames_per_second']} frames/s, decoder and commit included",
        f"  key to picture {found['step_ms']} ms (95% within {found['step_p95_ms']}), commit {found['settle_ms']} ms",
        f"  eight futures {found['futures_ms']} ms, {found['futures_ms'] / found['step_ms']:.1f} times one",
    ]
    if "recomputed_s" in found:
        lines.append(
            f"dynamics {found['cached_s']:.4f} s a frame with the cache, {found['recomputed_s']:.4f} s without: "
            f"{found['recomputed_s'] / found['cached_s']:.1f} times"
        )
    return "\n".join(lines)


def _play(engine: GenieEngine, frames: int) -> dict[str, list[float]]:
    height, width = engine.info.size
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))
    engine.reset(Prompt(picture[None, :height, :width].astype(np.uint8)), 1)
    times: dict[str, list[float]] = {"step": [], "settle": [], "futures": []}
    for index in range(frames + WARM_UP):
        action = int(rng.integers(N_ACTIONS))
        spent = {"step": _timed(lambda a=action: engine.step(a)), "settle": _timed(engine.settle)}  # type: ignore[misc]
        if index % 10 == 0:
            spent["futures"] = _timed(lambda: engine.futures(range(N_ACTIONS)))
        if index >= WARM_UP:
            for name, seconds in spent.items():
                times[name].append(seconds)
    return times


@torch.inference_mode()
def _against_recompute(file: Path, engine: GenieEngine, frames: int) -> dict[str, float]:
    """Seconds of the dynamics model a frame, commit included, with the cache and with the window run at every pass."""
    genie, _ = load_genie(file, engine.info.device)
    dynamics = genie.dynamics
    sampler = Sampler(dynamics, ops.get(engine.path.ops), engine.path)
    tokens, actions = _window(genie)
    cross_frame = dynamics.config.recipe == "teacher"
    ring = Ring(dynamics.cache_shape, dynamics.n_tokens, cross_frame, dynamics.head.weight.device)
    for t in range(tokens.shape[1] - 1):
        ring.commit(dynamics.stream(sampler.embed(tokens[:, t], actions[:, t]), ring.past())[1])

    def cached(index: int) -> None:
        made = sampler.sample(ring.past(), actions[:, 0], 1, index)
        ring.commit(dynamics.stream(made.x, ring.past())[1])

    def recomputed(index: int) -> None:
        for _ in range(engine.path.steps):
            dynamics.logits(dynamics(tokens, actions)[:, -1])

    times: dict[str, list[float]] = {"cached": [], "recomputed": []}
    for index in range(frames + 2):
        for name, work in (("cached", cached), ("recomputed", recomputed)):
            seconds = _timed(lambda w=work, i=index: w(i))  # type: ignore[misc]
            if index >= 2:
                times[name].append(seconds)
    return {f"{name}_s": round(statistics.median(spent), 5) for name, spent in times.items()}


def _window(genie: Genie) -> tuple[torch.Tensor, torch.Tensor]:
    """A window of random frames (1, W, N), the last one hidden, and their actions (1, W)."""
    dynamics = genie.dynamics
    generator = torch.Generator().manual_seed(0)
    shape = (1, dynamics.config.window, dynamics.n_tokens)
    tokens = torch.randint(0, dynamics.codes, shape, generator=generator)
    tokens[:, -1] = dynamics.mask_id
    actions = torch.randint(0, N_ACTIONS, shape[:2], generator=generator)
    device = dynamics.head.weight.device
    return tokens.to(device), actions.to(device)


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _median(seconds: list[float]) -> float:
    return _ms(statistics.median(seconds))


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
