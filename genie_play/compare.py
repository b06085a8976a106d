"""Worlds side by side: the same prompts, actions and seeds in each, as one picture a step.

Knows the library's face and pixels; nothing of files or windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from genie_play import world
from genie_play.media.pictures import enlarge
from genie_play.types import Frame, GenieError, Pixels

GAP = 4  # pixels between plays
CAPTION = 14  # pixels above each column


@dataclass(frozen=True)
class Column:
    """What one world made of every prompt and seed."""

    title: str
    plays: list[NDArray[np.uint8]]  # by row (T, H, W, 3)


def play(
    name: str,
    prompts: Sequence[Any],
    spec: str,
    seeds: Sequence[int],
    device: str = "auto",
    path: dict[str, Any] | None = None,
) -> tuple[Column, float]:
    """A world's plays from every prompt under every seed, and its rate. Labels in `spec` are the world's own."""
    plays = []
    with world.load(name, device, **(path or {})) as loaded:
        for prompt in prompts:
            for seed in seeds:
                frames = [loaded.reset(prompt, seed).pixels]
                frames += [frame.pixels for frame in loaded.rollout(spec)]
                plays.append(np.stack(frames))
        return Column(loaded.info.name, plays), loaded.info.rate


def frames(columns: Sequence[Column]) -> list[Frame]:
    """The columns beside each other, a row for each play, as frames to record; GenieError if they do not match."""
    counts = {len(column.plays) for column in columns}
    if len(counts) != 1 or 0 in counts:
        raise GenieError("worlds side by side need the same prompts and seeds")
    length = min(len(play) for column in columns for play in column.plays)
    tall = max(play.shape[1] for column in columns for play in column.plays)
    nothing = np.zeros(0, np.uint16)
    return [Frame(t, None, _picture(columns, t, tall), nothing) for t in range(length)]


def _picture(columns: Sequence[Column], t: int, tall: int) -> Pixels:
    parts = []
    for column in columns:
        cells = [enlarge(play[t], max(tall // play.shape[1], 1)) for play in column.plays]
        width = max(cell.shape[1] for cell in cells)
        rows = [_caption(column.title, width)]
        for cell in cells:
            room = ((0, tall + GAP - cell.shape[0]), (0, width + GAP - cell.shape[1]), (0, 0))
            rows.append(np.pad(cell, room, constant_values=255))
        parts.append(np.concatenate(rows))
    return np.concatenate(parts, 1)


def _caption(title: str, width: int) -> Pixels:
    plate = Image.new("RGB", (width + GAP, CAPTION), "white")
    ImageDraw.Draw(plate).text((2, 1), title, fill="black")
    return np.asarray(plate)
