"""How the cost of a frame grows with passes, tokens, window and width.

One thing at a time is changed of a base; base and variant are timed in turn, so that their ratio holds on a busy
machine. Weights are random: only shapes matter.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from genie_play.config import PathConfig, from_dict
from genie_play.engine.engine import GenieEngine
from genie_play.eval import bench, costs
from genie_play.eval.targets import Shape, Target
from genie_play.types import GenieError

STEPS = (1, 2, 4, 8, 16, 25)
WINDOWS = (2, 4, 8, 16, 32)
FACTORS = (0.5, 2.0)  # of the width


def grow(
    target: Target, rounds: int = 7, device: str = "auto", say: Callable[[str], None] = lambda _: None, **path: Any
) -> list[dict[str, Any]]:
    """A row for each variant of a target: milliseconds of the dynamics model a frame, and how many times the base's.

    `reached` is the share of the floor, measured once for the base. Variants that cannot be (heads that do not divide)
    are left out.
    """
    base = Target(target.config, target.path)
    engine = base.engine(device, **path)
    action = bench.random_actions()
    bench.fill(engine, action)
    limit = bench.roofs_of(base, engine, say)
    rows = [_row("base", target.config.name, base, engine, _times(engine, None, rounds), limit, None)]
    for what, value, variant, more in _variants(base, engine):
        say(f"{what} {value}")
        other = variant.engine(device, **(path | more))
        bench.fill(other, action)
        rows.append(_row(what, value, variant, other, _times(engine, other, rounds), limit, rows[0]))
        other.close()
    engine.close()
    return rows


def _times(base: GenieEngine, other: GenieEngine | None, rounds: int) -> dict[str, list[float]]:
    action = bench.random_actions()
    works = {"base": lambda: bench.dynamics_frame(base, action())}
    if other is not None:
        works["other"] = lambda: bench.dynamics_frame(other, action())
    return bench.in_turn(works, rounds)


def _variants(base: Target, engine: GenieEngine) -> list[tuple[str, str, Target, dict[str, Any]]]:
    config, dynamics = base.config, base.config.dynamics
    found: list[tuple[str, str, Target, dict[str, Any]]] = [
        ("passes", str(steps), base, {"steps": steps}) for steps in STEPS if steps != engine.path.steps
    ]

    def shaped(what: str, value: str, shape: Shape) -> None:
        with contextlib.suppress(GenieError):
            found.append((what, value, replace(base, config=shape.of(config)), {}))

    rows, columns = config.tokenizer.grid
    for r, c in ((rows // 2, columns // 2), (rows, columns // 2), (rows, 2 * columns), (2 * rows, 2 * columns)):
        if r and c:
            shaped("tokens", f"{r * c}", Shape(tokens=(r, c)))
    for window in WINDOWS:
        if window != dynamics.window:
            shaped("window", str(window), Shape(window=window))
    for factor in FACTORS:
        width = int(dynamics.width * factor)
        shaped("width", str(width), Shape(width=width))
    return found


def _row(
    what: str,
    value: str,
    target: Target,
    engine: GenieEngine,
    times: dict[str, list[float]],
    limit: Any,
    base: dict[str, Any] | None,
) -> dict[str, Any]:
    path = from_dict(PathConfig, engine.info.path, "path")
    found, often = costs.stages(target.config, path), costs.repeats(target.config, path)
    parts = ("embed", "pass", "head and sampling", "commit")
    floors = costs.floors(target.config, path, limit.flops_per_s, limit.bytes_per_s, limit.values_per_s)
    flops = sum(found[name].flops * often[name] for name in parts)
    spent = times.get("other", times["base"])
    seconds = statistics.median(spent)
    ratio = statistics.median(b / a for a, b in zip(times["base"], spent, strict=True))
    return {
        "what": what,
        "value": value,
        "ms": round(1000 * seconds, 3),
        "times": round(ratio, 3),
        "flops": flops,
        "flops_times": round(flops / base["flops"], 3) if base else 1.0,
        "reached": f"{sum(floors[name] * often[name] for name in parts) / seconds:.0%}",
    }
