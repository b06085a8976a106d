"""What `bench` found, as lines for a person: a measurement, the growth of its cost, and two measurements side by side.

Knows the JSON of `bench` and nothing of how it was made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genie_play.types import GenieError

FORMATS = (2,)
QUIET = 0.9  # share of its time that a process has on a machine that does nothing else
# what two measurements are compared by: name, where it lies in the JSON, whether less is better
FIGURES: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("frame", ("frame", "p50_ms"), True),
    ("key to picture, engine", ("latency", "engine", "p50_ms"), True),
    ("key to picture, process, idle", ("latency", "idle", "p50_ms"), True),
    ("key to picture, process, running", ("latency", "running", "p50_ms"), True),
    ("eight futures", ("futures", "ms"), True),
    ("first frame", ("start", "first_frame_ms"), True),
    ("start of the process, s", ("start", "process_s"), True),
    ("window run again, times", ("recompute", "times"), False),
    ("peak memory, MiB", ("memory", "peak of the process"), True),
)


def text(found: dict[str, Any]) -> list[str]:
    """A measurement, stage by stage."""
    on, path, what, frame = found["machine"], found["path"], found["target"], found["frame"]
    latency, start, gate = found["latency"], found["start"], found["gate"]
    rows, columns = what["tokens"]
    weights = "random" if what["weights"] == "random" else "trained"
    words = {True: "the cache does what the whole clip does", False: "THE CACHE DOES SOMETHING ELSE", None: "the cache"}
    lines = [
        f"{what['name']}: {what['layers']} layers x {what['width']}, {rows}x{columns} tokens, window {what['window']}, "
        f"{what['numbers'] / 1e6:.1f} M numbers a pass, {weights} weights",
        f"{on['device']}, {on['threads']} thread(s), torch {on['torch']}, genie-play {on['version']} {on['commit']}",
        ", ".join(f"{key} {value}" for key, value in path.items() if key not in ("threads", "device")),
        f"{words[gate['ok']]}: {gate['detail']}",
        "",
        f"frame {frame['p50_ms']} ms ({frame['frames_per_second']} frames/s; p95 {frame['p95_ms']}, best "
        f"{frame['min_ms']}), decoder and commit included, {found['frames']} frames",
        f"  processor time {frame['cpu_ms']} ms; this process had {found['share']:.0%} of the time it could have had"
        + ("" if found["share"] > QUIET else ": the machine was busy, take ratios only"),
        _latency("key to picture", latency["engine"], "in the engine"),
        _latency("  through its process", latency["idle"], "nothing under way"),
        _latency("  through its process", latency["running"], "the frame before still to be committed"),
        f"eight futures {found['futures']['ms']} ms, {found['futures']['times_one']} times one step",
        f"start: engine {start['engine_s']} s, first frame {start['first_frame_ms']} ms; process ready in "
        f"{start['process_s']} s, first frame {start['process_first_frame_ms']} ms",
    ]
    if "recompute" in found:
        r = found["recompute"]
        lines.append(
            f"dynamics {r['cached_s']:.4f} s a frame with the cache, {r['recomputed_s']:.4f} s without (the window at "
            f"each pass, {r['arithmetic']}): {r['times']} times, median of {r['rounds']} turns"
        )
    lines += ["", *_stages(found), "", _roofs(found["roofs"])]
    lines += ["", "memory, MiB: " + ", ".join(f"{name} {size:g}" for name, size in found["memory"].items())]
    return lines


def growth(rows: Sequence[dict[str, Any]]) -> list[str]:
    """How cost grows: each row beside the first of its kind."""
    head = ["what", "value", "ms a frame", "times the base", "FLOPs, times the base", "floor reached"]
    cells = [
        [r["what"], r["value"], f"{r['ms']:.1f}", f"{r['times']:.2f}", f"{r['flops_times']:.2f}", r["reached"]]
        for r in rows
    ]
    return markdown(head, cells)


def compare(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Two measurements side by side: {"figures": [...], "differs": what else is not the same}."""
    figures = []
    for name, where, less in FIGURES:
        a, b = _at(before, where), _at(now, where)
        if a and b:
            figures.append({"figure": name, "before": a, "now": b, "faster": round(a / b if less else b / a, 3)})
    old = {row["stage"]: row.get("ms") for row in before["stages"]}
    for row in now["stages"]:
        a, b = old.get(row["stage"]), row.get("ms")
        if a and b and row["stage"] != "frame":
            figures.append({"figure": f"stage: {row['stage']}", "before": a, "now": b, "faster": round(a / b, 3)})
    differs = []
    for part in ("target", "path", "machine"):
        for key in {**before[part], **now[part]}:
            a, b = before[part].get(key), now[part].get(key)
            if a != b:
                differs.append({"what": f"{part}.{key}", "before": a, "now": b})
    return {"figures": figures, "differs": differs}


def comparison(found: dict[str, Any]) -> list[str]:
    """What `compare` found, as lines."""
    rows = [[f["figure"], f["before"], f["now"], f"{f['faster']:.2f}"] for f in found["figures"]]
    lines = markdown(["figure", "before", "now", "times as good"], rows)
    notes = [f"not the same: {d['what']} was {d['before']}, is {d['now']}" for d in found["differs"]]
    if any(d["what"].startswith(("target.", "machine.device", "machine.threads")) for d in found["differs"]):
        notes.append("other work or another machine: the ratios say nothing about the code")
    return [*lines, *notes]


def read(path: Path) -> dict[str, Any]:
    """A measurement that `bench --json` wrote; GenieError if it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GenieError(f"{path} cannot be read as a measurement ({error}); make one with 'bench --json'") from None
    if not isinstance(found, dict) or found.get("format") not in FORMATS or "stages" not in found:
        raise GenieError(f"{path} is no measurement of this format; make one with 'genie-play bench --json'")
    return found


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A table whose columns line up on a terminal too."""
    cells = [list(map(str, head)), *(["" if cell is None else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def _stages(found: dict[str, Any]) -> list[str]:
    inside = ("spatial attention", "temporal attention", "projections and feed-forward")
    rows = []
    for row in found["stages"]:
        name = f"- {row['stage']}" if row["stage"] in inside else row["stage"]
        seen = "not seen" if row["ms"] is None else f"{row['ms']:.3f}"
        reached = "" if row.get("reached") is None else f"{row['reached']:.0%}"
        rows.append([name, row["times"], seen, row.get("gflop"), row.get("mbyte"), row.get("floor_ms"), reached])
    lines = markdown(["stage", "a frame", "ms", "GFLOP", "MB", "floor ms", "reached"], rows)
    passes = [f"{sum(one.values()):.2f}" for one in found["passes_ms"]]
    lines += [f"by {found['clock']}; attention with its norms and rotation, projections with theirs"]
    return [*lines, f"each pass with its sampling, ms: {' '.join(passes)}"] if passes else lines


def _roofs(roofs: dict[str, Any]) -> str:
    best = max(roofs["products"], key=roofs["products"].get)
    stated = ", ".join(f"{name} {rate:.3g}" for name, rate in roofs["stated"].items())
    return (
        f"this machine, measured now: products {roofs['flops_per_s'] / 1e9:.0f} GFLOP/s in {roofs['arithmetic']} (at "
        f"{best}), memory {roofs['bytes_per_s'] / 1e9:.1f} GB/s" + (f"; its maker states {stated}" if stated else "")
    )


def _latency(name: str, spread: dict[str, float], when: str) -> str:
    return f"{name} {spread['p50_ms']} ms, p95 {spread['p95_ms']} ({when})"


def _at(found: Any, where: Sequence[str]) -> float | None:
    for key in where:
        found = found.get(key) if isinstance(found, dict) else None
    return float(found) if isinstance(found, int | float) else None
