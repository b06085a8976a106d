"""How many steps each stage gets, where minutes are given instead: `plan.json` beside the world.

The rate of a stage falls to zero at its last step, so the end has to be known before the first one. It is set when a
stage begins, from the measured time of a step, and then stays, on whatever machine the run goes on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from genie_play import checkpoint
from genie_play.config import SHARES, from_dict
from genie_play.types import GenieError

FILE = "plan.json"
SPENT = 0.9  # of the minutes are steps; the rest goes into checkpoints, compiling and uneven machines
FEWEST = 20  # steps


@dataclass(frozen=True)
class Plan:
    """Minutes in all, and what came of them for the stages that have begun."""

    minutes: float = 0.0
    steps: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # of a step, as measured


def read(out: Path) -> Plan:
    """The plan of a run; an empty one where there is none."""
    file = out / FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Plan()
    except (OSError, ValueError):
        raise GenieError(f"{file} cannot be read; remove it, and give --plan or --steps again") from None
    return from_dict(Plan, data)


def add(out: Path, minutes: float, stage: str, seconds: float) -> int:
    """Set the steps of a stage by its share of the minutes; returns them."""
    steps = max(FEWEST, int(SPENT * share(stage) * 60 * minutes / seconds))
    plan = read(out)
    plan = Plan(minutes, {**plan.steps, stage: steps}, {**plan.seconds, stage: round(seconds, 5)})
    checkpoint.atomic_write(out / FILE, (json.dumps(asdict(plan), indent=1) + "\n").encode())
    return steps


def share(stage: str) -> float:
    """The share of a plan's minutes that a stage gets."""
    return SHARES[stage] / sum(SHARES.values())
