"""The twelve test sketches in play, one by one: do held codes do what their labels say, and how long does it last?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from genie_play.eval import sketches
from genie_play.eval.play import play_on
from genie_play.eval.probe import TICKS, agrees, hold, least, motion
from genie_play.eval.subject import SEED, Pictures, Subject, grid
from genie_play.eval.table import Row
from genie_play.media import pictures
from genie_play.types import N_ACTIONS, Label

# what a child would do first; over and over
SCRIPT = (
    ("right", 12), ("jump-right", 8), ("right", 8), ("jump", 9), ("idle", 3), ("left", 12), ("jump-left", 8),
    ("left", 8), ("down", 4), ("right", 16), ("jump-right", 12),
)  # fmt: skip
# whose code stands in where no code bears a label
_INSTEAD = {
    "jump": ("up", "jump-right", "jump-left"), "jump-right": ("jump", "up", "right"), "right": ("jump-right",),
    "jump-left": ("jump", "up", "left"), "left": ("jump-left",), "down": ("other",),
}  # fmt: skip


@dataclass(frozen=True)
class Played:
    """One sketch, played."""

    name: str
    agreed: int  # codes of eight that did on it what their label says
    ended: int | None  # the step at which it ended; None if it did not
    energy: float  # edge energy of the second half, against that of the sketch as the world shows it


def play_sketches(subject: Subject, labels: tuple[Label, ...]) -> tuple[list[Played], list[Row]]:
    """Hold every code on every sketch, then play the script; leaves a strip of each in the subject's pictures."""
    names = sketches.names()
    start = np.stack([pictures.load(sketches.draw(name), subject.picture_size).pixels for name in names])
    holds = [hold(subject, start, code, TICKS, SEED) for code in range(N_ACTIONS)]
    moved = np.stack([motion(frames).mean(1) for frames in holds], 1)
    right = agrees(labels, moved)
    length = subject.size.sketch_frames
    codes = script_codes(labels, length)
    told = torch.tensor(codes)[:, None].repeat(1, len(names))
    every = max(length // 9, 1)
    found = play_on(subject, start, told, every)
    own = found.energy[:, 0]
    ends = found.ends(own)
    played = []
    for i, name in enumerate(names):
        over = int(ends[i]) if ends[i] <= length else None
        energy = float(found.energy[i, length // 2 :].mean() / own[i])
        played.append(Played(name, int(right[i].sum()), over, energy))
        held = np.stack([start[i], *(frames[i, -1] for frames in holds)])
        subject.pictures[f"sketch-{name}"] = grid([held, found.kept[i, 1 : 1 + len(held)]], 1)
    lasted = sum(one.ended is None for one in played)
    each = " ".join(str(one.agreed) for one in played)
    return played, [
        Row("sketches", "held codes agree, mean over twelve", 100 * float(right.mean()), "%", f"of 8 each: {each}"),
        Row("sketches", "played on without an end", lasted, "of 12", f"{length} steps of a script"),
    ]


def script_codes(labels: tuple[Label, ...], length: int) -> list[int]:
    """The script as codes of a world, `length` of them."""
    codes: list[int] = []
    while len(codes) < length:
        for wanted, ticks in SCRIPT:
            codes += [code_for(labels, wanted)] * ticks
    return codes[:length]


def code_for(labels: tuple[Label, ...], wanted: str) -> int:
    """The surest code that bears a label, or one that stands in for it; the idle one if there is none."""
    if wanted != "idle":
        for name in (wanted, *_INSTEAD.get(wanted, ())):
            named = [label for label in labels if label.name == name]
            if named:
                return max(named, key=lambda label: label.confidence).code
    return least(labels)


def table(played: Sequence[Played], folder: str = "") -> str:
    """The sketches as a Markdown table; `folder` is where their strips lie."""
    lines = ["| sketch | codes that agree | ended | edge energy, second half | |", "| --- | --- | --- | --- | --- |"]
    for one in played:
        ended = "no" if one.ended is None else f"at step {one.ended}"
        strip = f"![{one.name}]({folder}sketch-{one.name}.png)"
        lines.append(f"| {one.name} | {one.agreed} of 8 | {ended} | {one.energy:.2f} | {strip} |")
    return "\n".join(lines) + "\n"


def drawn_sheet() -> Pictures:
    """The twelve as they were drawn, four by three, at half their size."""
    small = [sketches.draw(name)[::2, ::2] for name in sketches.names()]
    return pictures.strip(small, columns=4)
