"""Curves of a training run, drawn from its `metrics.jsonl`: a panel for each figure that says how a stage goes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from genie_play.eval.subject import Pictures
from genie_play.media.pictures import strip

# what the page on training says to watch, and what each of them is
WATCHED = {
    "tokenizer": {"psnr": "PSNR, dB", "used": "share of codes in use"},
    "decoder": {"psnr": "PSNR, dB"},
    "actions": {"psnr": "PSNR, dB", "used": "share of motions in use"},
    "keys": {"say": "what keys say, nats", "unexplained": "left unexplained"},
    "dynamics": {
        "ce": "cross-entropy of masked tokens",
        "moved_right": "changed tokens that are right",
        "gap": "loss under another clip's codes, less its own",
    },
}
SIZE = (320, 180)  # of a panel: width, height
PLOT = (44, 22, 310, 158)  # in it: left, top, right, bottom
MEAN = 15  # log lines that the dark line is the mean of
PAPER, GRID, RAW, LINE, INK = "white", (225, 225, 225), (178, 202, 232), (24, 78, 150), (40, 40, 40)
COLUMNS = 3

Rows = Sequence[dict[str, Any]]


def read(folder: Path) -> list[dict[str, Any]]:
    """The metrics of the run in `folder`, in order; none where there are none. A line that was cut is left out."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def sheet(rows: Rows) -> Pictures | None:
    """Panels of what was watched of each stage, three in a row; None where no stage has two lines of it."""
    panels = []
    for stage, figures in WATCHED.items():
        mine = [row for row in rows if row.get("stage") == stage]
        for name, title in figures.items():
            steps, values = _curve(mine, name)
            if len(steps) > 1:
                panels.append(_panel(f"{stage}: {title}", steps, values))
    return strip(panels, columns=COLUMNS) if panels else None


def smooth(values: NDArray[np.float64], width: int = MEAN) -> NDArray[np.float64]:
    """The mean of each value and up to `width` - 1 before it."""
    total = np.concatenate(([0.0], values.cumsum()))
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(end - width, 0)
    mean: NDArray[np.float64] = (total[end] - total[begin]) / (end - begin)
    return mean


def _curve(rows: Rows, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of one figure. A run that was begun again counts from its new beginning."""
    found: list[tuple[int, float]] = []
    for row in rows:
        value = row.get(name)
        if isinstance(value, (int, float)) and np.isfinite(value):
            while found and found[-1][0] >= row["step"]:
                found.pop()
            found.append((row["step"], float(value)))
    points = np.array(found, np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def _panel(title: str, steps: NDArray[np.float64], values: NDArray[np.float64]) -> Pictures:
    image = Image.new("RGB", SIZE, PAPER)
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = PLOT
    mean = smooth(values)
    low, high = _range(values)

    def at(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> list[tuple[float, float]]:
        across = left + (right - left) * xs / steps[-1]
        down = bottom - (bottom - top) * (ys.clip(low, high) - low) / (high - low)
        return list(zip(across.tolist(), down.tolist(), strict=True))

    for share in (0.0, 0.5, 1.0):
        y = bottom - (bottom - top) * share
        pen.line((left, y, right, y), fill=GRID)
        pen.text((4, y - 6), f"{low + (high - low) * share:.3g}", fill=INK)
    pen.line(at(steps, values), fill=RAW)
    pen.line(at(steps, mean), fill=LINE, width=2)
    pen.text((left, 5), title, fill=INK)
    pen.text((left, bottom + 6), "0", fill=INK)
    last = f"step {int(steps[-1]):,}"
    pen.text((right - pen.textlength(last), bottom + 6), last, fill=INK)
    return np.asarray(image)


def _range(values: Iterable[float]) -> tuple[float, float]:
    """What is shown of the values: all but the wildest, so that a bad start does not flatten the rest."""
    low, high = (float(x) for x in np.quantile(np.fromiter(values, np.float64), (0.01, 0.99)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)
