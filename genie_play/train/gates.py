"""Gates between stages: what a network has to reach on clips that it never saw before the next is built on it.

A network is measured when the last of its stages is through. The stop values are in `eval/gates.py`.
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
from genie_play.data.clips import PLATFORMERS
from genie_play.eval import codes, stages
from genie_play.eval.gates import Gates, stops_of
from genie_play.eval.report import open_subject
from genie_play.eval.subject import QUICK, Subject
from genie_play.eval.table import Row
from genie_play.train.loop import Run, stages_of, world_file
from genie_play.train.stages import Stage
from genie_play.types import GenieError

FILE = "gates.json"
# network -> what measures it
PARTS: dict[str, Callable[[Subject], list[Row]]] = {
    "tokenizer": stages.tokenizer,
    "actions": codes.rows,
    "dynamics": stages.dynamics,
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One figure against its stop value."""

    network: str
    name: str
    value: float
    least: float

    @property
    def passed(self) -> bool:
        """Whether anything may be built on it."""
        return self.value >= self.least

    def __str__(self) -> str:
        return f"{self.network}: {self.name} is {self.value:.3g}, {self.least:g} is the least"


def check(stage: Stage, run: Run) -> None:
    """Measure the networks that are through with this stage, unless they passed; GenieError names what is too low.

    What was found goes into `gates.json`, which travels with the run. Video of one's own has no true keys and masks to
    measure by: there nothing is asked.
    """
    if run.source not in PLATFORMERS:
        return
    header = checkpoint.read(world_file(run.out))
    for network in through(stage, run):
        known = read(run.out)
        steps = {name: done["steps"] for name, done in header.stages.items() if name.split(".")[0] == network}
        before = known.get(network, {})
        if before.get("passed") and before.get("steps") == steps:
            continue
        found = measure(network, run.out, stops_of(run.preset))
        failed = [finding for finding in found if not finding.passed]
        known[network] = {
            "steps": steps,
            "passed": not failed,
            "found": {finding.name: {"value": round(finding.value, 4), "least": finding.least} for finding in found},
        }
        checkpoint.atomic_write(run.out / FILE, (json.dumps(known, indent=1) + "\n").encode())
        for finding in found:
            log.warning("gate %s%s", finding, "" if finding.passed else ": NOT passed")
        if failed:
            raise GenieError(
                f"stopped at a gate, nothing is built on this network: {'; '.join(map(str, failed))}; "
                "train it longer in another --out, or go on with --ungated"
            )


def through(stage: Stage, run: Run) -> list[str]:
    """The networks of which this stage is the last, of those that can be measured."""
    order = list(stages_of(run.preset, run.recipe).values())
    last = {name.split(".")[0]: each.name for each in order for name in each.learns}
    mine = dict.fromkeys(name.split(".")[0] for name in stage.learns)
    return [network for network in mine if network in PARTS and last.get(network) == stage.name]


def measure(network: str, out: Path, stops: Gates) -> list[Finding]:
    """The figures of a network that have stop values, quickly, on the CPU."""
    with torch.inference_mode():
        subject, _ = open_subject(world_file(out), QUICK)
        rows = PARTS[network](subject)
    return [Finding(network, row.name, row.value, least) for row, least in _matched(network, rows, stops)]


def read(out: Path) -> dict[str, Any]:
    """What was found at the gates of a run so far."""
    try:
        found: dict[str, Any] = json.loads((out / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise GenieError(f"{out / FILE} cannot be read; remove it, and the gates are measured again") from None
    return found


def _matched(network: str, rows: Sequence[Row], all_stops: Gates) -> list[tuple[Row, float]]:
    """Rows with their stop values; a stop value without its row is a bug, not a pass."""
    known = {row.name: row for row in rows}
    stops = {name: least for (part, name), least in all_stops.items() if part == network}
    if missing := stops.keys() - known:
        raise ValueError(f"the report has no row {min(missing)!r} of {network} to compare with its stop value")
    return [(known[name], least) for name, least in stops.items()]
