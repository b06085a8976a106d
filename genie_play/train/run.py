"""One command for one stretch on a machine that is lent: take up, train between gates, evaluate, leave all in a folder.

The report folder holds at most eight files of at most 16 MiB: pieces of the run (see `pieces.py`), the metrics, one
picture of samples, and a summary, written last and renewed as more is known. It is complete before the evaluation
begins, so that a machine that is taken back then costs figures, not weights.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genie_play import checkpoint, paths
from genie_play.eval import report as evaluation
from genie_play.eval.subject import QUICK
from genie_play.media import pictures
from genie_play.train import begin as beginning
from genie_play.train import gates, loop, pieces
from genie_play.train.loop import Run, world_file
from genie_play.train.stages import Stage
from genie_play.types import GenieError

SUMMARY, STRIPS, METRICS = "summary.json", "strips.png", "metrics.jsonl"

# a machine is lent by the minute: enough to see whether training goes well
BRIEF = replace(
    QUICK, clips=8, starts=48, prompts=6, long_holds=1, free=4, free_frames=24, walks=1, walk=24, sketch_frames=8,
    sight_steps=150,
)  # fmt: skip

log = logging.getLogger(__name__)


def run(
    stage: str,
    preset: str,
    source: str,
    out: Path,
    *,
    start: Path | None = None,
    begin: str | None = None,
    report: Path | None = None,
    gated: bool = True,
    minutes: float | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train as `loop.train`, and return the summary: {"world", "stages", "gates", "problem", ...}.

    `start`: a report folder to go on from, where `out` has no world yet. `begin`: a world whose weights are what is not
    trained yet begins from (see `begin.py`). `report`: where to leave everything, also when
    training ends in a mistake, which is raised after. `gated`: measure each stage before the next is built on it.
    `minutes` are those of training; the evaluation comes after.
    """
    began = time.monotonic()
    paths.writable(out)
    if start is not None:
        pieces.unpack(start, out)
    after: Callable[[Stage, Run], None] | None = gates.check if gated and stage == "all" else None
    before = None if begin is None else partial(beginning.take, checkpoint.find(begin))
    problem: GenieError | None = None
    try:
        loop.train(stage, preset, source, out, minutes=minutes, after=after, before=before, **options)
    except GenieError as error:
        problem = error
    trained = time.monotonic() - began
    if report is not None:
        leave(out, report, problem, trained)
    if problem is not None:
        raise problem
    return summary(out, None, trained)


def leave(out: Path, report: Path, problem: GenieError | None, trained: float) -> None:
    """Fill the report folder: weights and metrics first, then what an evaluation finds."""
    paths.writable(report)
    if world_file(out).exists():
        pieces.pack(out, report)
        if (out / METRICS).exists():
            shutil.copyfile(out / METRICS, report / METRICS)
    found = summary(out, problem, trained)
    _write(report / SUMMARY, found)
    if not world_file(out).exists():
        return
    began = time.monotonic()
    try:
        table, strips = evaluate(world_file(out))
    except Exception as error:
        # the weights are worth more than their figures, and training may have something to say yet
        log.exception("the evaluation failed")
        found["evaluation"] = {"problem": f"{type(error).__name__}: {error}"}
    else:
        checkpoint.atomic_write(report / STRIPS, pictures.to_png(strips))
        found["evaluation"] = {**table, "seconds": round(time.monotonic() - began, 1)}
    _write(report / SUMMARY, found)


def evaluate(world: Path) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """A quick evaluation on the CPU: {"rows", "table", "labels"}, and all its sample strips under each other."""
    folder = world.parent / "report"
    for old in folder.glob("*.png"):
        old.unlink()
    with torch.random.fork_rng(devices=[]):
        result = evaluation.evaluate(world, folder, size=BRIEF)
    strips = [pictures.from_png(path.read_bytes()) for path in sorted(folder.glob("*.png"))]
    rows = {f"{row['stage']}: {row['name']}": round(row["value"], 4) for row in result["rows"]}
    return {"rows": rows, "table": result["table"], "labels": result["labels"]}, stack(strips)


def stack(strips: list[NDArray[np.uint8]], largest: int = 2048) -> NDArray[np.uint8]:
    """Pictures (h, w, 3) under each other, black beside the narrow ones; wide ones lose every other pixel."""
    strips = [strip[::2, ::2] if strip.shape[1] > largest else strip for strip in strips]
    width = max(strip.shape[1] for strip in strips)
    padded = [np.pad(strip, ((0, 4), (0, width - strip.shape[1]), (0, 0))) for strip in strips]
    return np.concatenate(padded)


def summary(out: Path, problem: GenieError | None, trained: float) -> dict[str, Any]:
    """What there is to say of a run in a few lines, read from its files."""
    found: dict[str, Any] = {"world": str(world_file(out)), "problem": None if problem is None else str(problem)}
    if world_file(out).exists():
        stages = checkpoint.read(world_file(out)).stages
        found["stages"] = {name: {"steps": s["steps"], "of": s["of"]} for name, s in stages.items()}
        found["last"] = _last(out / METRICS)
    found["gates"] = {name: entry["passed"] for name, entry in gates.read(out).items()}
    found["minutes"] = round(trained / 60, 2)
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return found


def _last(metrics: Path) -> dict[str, Any]:
    """The last line of each stage."""
    found = {}
    with contextlib.suppress(FileNotFoundError), open(metrics, encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(ValueError):  # a killed run may have cut its last line
                row = json.loads(line)
                if "loss" in row:
                    found[row.pop("stage")] = row
    return found


def _write(path: Path, found: dict[str, Any]) -> None:
    checkpoint.atomic_write(path, (json.dumps(found, indent=1) + "\n").encode())
