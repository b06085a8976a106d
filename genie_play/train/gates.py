"""Gates between stages: what a stage has to reach on clips that training never saw before the next is built on it.

The stop values are lower than the marks of the evaluation table, which say when a world is good. A stage that is not
named here has no gate.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genie_play import checkpoint
from genie_play.eval.report import QUICK, Report, Row
from genie_play.nn.genie import load_genie
from genie_play.train.loop import Run, world_file
from genie_play.train.stages import Stage
from genie_play.types import GenieError

FILE = "gates.json"
# stage -> how the row of its part of the report begins -> the least it may be
STOPS: dict[str, dict[str, float]] = {
    "tokenizer": {"PSNR, unseen looks": 27.0, "PSNR in the avatar's box, unseen looks": 22.0, "codes used": 40.0},
    "actions": {
        "codes above 2% of use": 5.0,
        "reconstruction minus shuffled codes": 0.7,
        "same start, grounded": 70.0,
        "NMI with the true key": 0.3,
    },
    "dynamics": {
        "hidden cross-entropy, shuffled minus true": 0.0,
        "next frame minus copy-frame": 1.0,
        "delta-t PSNR, t = 4": 1.0,
    },
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One figure against its stop value."""

    stage: str
    name: str
    value: float
    least: float

    @property
    def passed(self) -> bool:
        """Whether the next stage may be built on it."""
        return self.value >= self.least

    def __str__(self) -> str:
        return f"{self.stage}: {self.name} is {self.value:.3g}, {self.least:g} is the least"


def check(stage: Stage, run: Run) -> None:
    """Measure a stage that is through, unless it passed before; GenieError names the figures that are too low.

    What was found goes into `gates.json`, which travels with the run.
    """
    known = read(run.out)
    header = checkpoint.read(world_file(run.out))
    steps = max((header.stages.get(name, {}).get("steps", 0) for name in stage.learns), default=0)
    before = known.get(stage.name, {})
    if stage.name not in STOPS or (before.get("passed") and before.get("steps") == steps):
        return
    found = measure(stage.name, run.out)
    failed = [finding for finding in found if not finding.passed]
    known[stage.name] = {
        "steps": steps,
        "passed": not failed,
        "found": {finding.name: {"value": round(finding.value, 4), "least": finding.least} for finding in found},
    }
    checkpoint.atomic_write(run.out / FILE, (json.dumps(known, indent=1) + "\n").encode())
    for finding in found:
        log.warning("gate %s%s", finding, "" if finding.passed else ": NOT passed")
    if failed:
        raise GenieError(
            f"stopped at a gate, nothing is built on this stage: {'; '.join(map(str, failed))}; "
            "train it longer in another --out, or go on with --ungated"
        )


def measure(stage: str, out: Path) -> list[Finding]:
    """The figures of a stage that have stop values, quickly, on the CPU."""
    genie, header = load_genie(world_file(out))
    calm = {entry["source"] for entry in header.stages.values()} == {"platformer-calm"}
    part: Callable[[], Sequence[Row]] = getattr(Report(genie, header.path, QUICK, calm), stage)
    with torch.inference_mode():
        rows = part()
    return [Finding(stage, row.name, row.value, least) for row, least in _matched(stage, rows)]


def read(out: Path) -> dict[str, Any]:
    """What was found at the gates of a run so far."""
    try:
        found: dict[str, Any] = json.loads((out / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise GenieError(f"{out / FILE} cannot be read; remove it, and the gates are measured again") from None
    return found


def _matched(stage: str, rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Rows with their stop values; a stop value without its row is a bug, not a pass."""
    found = []
    for name, least in STOPS[stage].items():
        row = next((row for row in rows if row.name.startswith(name)), None)
        if row is None:
            raise ValueError(f"the report has no row {name!r} of stage {stage!r} to compare with its stop value")
        found.append((row, least))
    return found
