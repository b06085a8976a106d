"""Which arithmetics a world accepts: those that draw what float32 draws, and whose long play is no worse.

Two things are asked of each that this CPU runs fast. Under the same past and the same dice it should draw the tokens
that float32 draws. And left alone, where one token in a thousand changes all that follows, it should play as well: the
mean of a figure over several draws of prompts and noise no worse than the worst of float32's own draws. Small errors of
logits would say less (real weights have outliers, and a rollout feeds on itself).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genie_play import checkpoint
from genie_play.engine import calibration
from genie_play.engine.arithmetic import ARITHMETICS
from genie_play.eval import bench, play, upper_bound
from genie_play.eval.play import random_codes
from genie_play.eval.report import one_thread, open_subject
from genie_play.eval.subject import QUICK, SEED, Size, Subject
from genie_play.eval.tables import markdown
from genie_play.types import GenieError

ALIKE = 0.97  # share of tokens drawn alike under the same past
LED = 64  # frames that tokens are compared over
# figures of free play, and what is best for each
FIGURES = {
    "held codes agree, mean over codes": 100.0,
    "held jumps that come down within 12 ticks": 100.0,
    "edge energy of the second half, against real": 1.0,
    "avatar present": 100.0,
}


@dataclass(frozen=True)
class Found:
    """What was measured of one arithmetic."""

    arithmetic: str
    alike: float  # share of tokens that it draws as float32 does, both fed what float32 drew
    figures: dict[str, tuple[float, ...]]  # by name, a value a draw
    worse: tuple[str, ...] = ()  # what it is worse at than float32
    accepted: bool = True


def accept(
    world: Path | str,
    quick: bool = False,
    save: bool = False,
    watch: Callable[[str], None] = lambda what: None,
    size: Size | None = None,
) -> dict[str, Any]:
    """Measure each arithmetic that this CPU runs fast; returns {"rows": [...], "accepted": [...], ...}, plain data.

    With `save` the header of the checkpoint accepts those that passed and float32. GenieError if there is none to try.
    """
    file = checkpoint.find(world)
    kinds = [kind for kind in calibration.able(ARITHMETICS) if kind != "fp32"]
    if not kinds:
        raise GenieError("this CPU multiplies neither int8 nor bfloat16 faster than float32: nothing to measure")
    size = size or (QUICK if quick else Size())
    with one_thread(), torch.inference_mode():
        subject, header = open_subject(file, size)
        if save:
            upper_bound.refuse(header)
        if "dynamics" not in header.stages:
            raise GenieError(f"{header.world.name} cannot be played yet; train its dynamics first")
        draws = max(size.draws, 2)
        watch("looking for an avatar")
        _ = subject.sight  # learned once; what follows are copies that share it
        watch("playing in fp32")
        exact = subject.played_in("fp32")
        base = Found("fp32", 1.0, _figures(exact, draws))
        rows = [base]
        for kind in kinds:
            watch(f"playing in {kind}")
            other = subject.played_in(kind)
            rows.append(judged(Found(kind, alike(exact, other), _figures(other, draws)), base))
    accepted = [row.arithmetic for row in rows if row.accepted]
    if save:
        upper_bound.rewrite(file, accepted=tuple(accepted))
    return {
        "world": header.world.name,
        "sha256": header.sha256,
        "machine": bench.machine("cpu"),
        "rows": [asdict(row) for row in rows],
        "accepted": accepted,
    }


def alike(exact: Subject, other: Subject, frames: int = LED) -> float:
    """Share of tokens that two worlds draw alike while both are led through what the first draws at random codes."""
    count = exact.size.free
    game, _ = exact.unseen.games(6, count)
    ours, theirs = exact.batch(count), other.batch(count)
    for batch in (ours, theirs):
        batch.begin(game.render())
    same = []
    for told in random_codes(count, frames, SEED):
        tokens = ours.sample(told, SEED)
        same.append(float((theirs.sample(told, SEED) == tokens).float().mean()))
        for batch in (ours, theirs):
            batch.feed(tokens, told)
    return float(np.mean(same))


def judged(found: Found, base: Found) -> Found:
    """The same with a verdict: what it is worse at than all draws of `base`, and whether it is accepted."""
    worse = ["drawing the same tokens"] if found.alike < ALIKE else []
    for name, best in FIGURES.items():
        away = abs(float(np.mean(found.figures[name])) - best)
        if away > max(abs(value - best) for value in base.figures[name]):
            worse.append(name)
    return Found(found.arithmetic, found.alike, found.figures, tuple(worse), not worse)


def table(found: dict[str, Any]) -> list[str]:
    """Lines of Markdown."""

    def value(values: Sequence[float]) -> str:
        return f"{np.mean(values):.3g} ± {np.std(values, ddof=1):.2g}"

    rows = []
    for row in found["rows"]:
        figures = [value(row["figures"][name]) for name in FIGURES]
        verdict = "yes" if row["accepted"] else "no: " + ", ".join(row["worse"])
        rows.append([row["arithmetic"], f"{row['alike']:.1%}", *figures, verdict])
    return markdown(["arithmetic", "tokens as fp32 draws them", *FIGURES, "accepted"], rows)


def _figures(subject: Subject, draws: int) -> dict[str, tuple[float, ...]]:
    """The figures of play of each draw."""
    values: dict[str, list[float]] = {name: [] for name in FIGURES}
    for draw in range(draws):
        for row in (*play.held(subject, draw)[0], *play.free(subject, draw)):
            if row.name in values:
                values[row.name].append(row.value)
    return {name: tuple(found) for name, found in values.items()}
