"""The twelve test sketches, drawn from strokes that were written down by hand: twelve people's platformers on paper.

For evaluation alone: nothing is trained on them, and nothing here is shared with the game that training films, so that
they stay what a stranger would draw. Knows a table of strokes and Pillow. The same pictures every time.

    python -m genie_play.eval.sketches FOLDER
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from genie_play import paths

UNITS = (120, 90)  # across and down a sheet; strokes may run over its edges
SCALE, FINE = 4, 2  # pixels a unit, and how much larger strokes are drawn for smooth edges

Plane = NDArray[np.float64]  # (H, W)
Point = tuple[float, float]


@dataclass(frozen=True)
class Pen:
    """How a pen marks paper: width in units, share of its colour laid down, share that the paper's grain keeps off."""

    width: float
    cover: float
    grain: float


PENS = {
    "pencil": Pen(0.9, 0.85, 0.45),
    "ink": Pen(1.3, 1.0, 0.0),
    "marker": Pen(2.4, 0.85, 0.04),
    "chalk": Pen(1.6, 0.9, 0.55),
    "ballpoint": Pen(0.75, 0.9, 0.15),
    "crayon": Pen(1.9, 0.9, 0.5),
    "felt": Pen(1.5, 0.95, 0.05),
}


def strokes_file() -> Path:
    """Where the strokes are written down."""
    return paths.assets() / "sketches" / "strokes.json"


def names() -> list[str]:
    """The sketches, in the order in which they are listed."""
    return list(_sheets())


def draw(name: str) -> NDArray[np.uint8]:
    """A sketch as a camera would see it, (360, 480, 3) uint8."""
    sheet = _sheets()[name]
    paper = sheet["paper"]
    # the legacy generator: its numbers are the same in every version
    noise = np.random.RandomState(zlib.crc32(name.encode()))
    width, height = UNITS[0] * SCALE, UNITS[1] * SCALE
    picture = np.empty((height, width, 3))
    picture[:] = ImageColor.getrgb(paper["colour"])
    rough = _smooth(noise.uniform(-1, 1, (height, width)))
    _print(picture, paper)
    for _ in range(paper.get("smears", 0)):
        _smear(picture, noise)
    for tool, colour, kind, points in sheet["strokes"]:
        pen = PENS[tool]
        alpha = _coverage(kind, points, pen, paper["tilt"], noise)
        tooth = np.clip(0.5 + 1.6 * _smooth(noise.uniform(-1, 1, (height, width))), 0, 1)
        alpha = (alpha * pen.cover * (1 - pen.grain * tooth))[..., None]
        picture += alpha * (np.array(ImageColor.getrgb(colour), np.float64) - picture)
    picture += paper["grain"] * rough[..., None]
    picture *= _light(paper["light"], height, width)[..., None]
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _sheets() -> dict[str, dict[str, Any]]:
    sheets: dict[str, dict[str, Any]] = json.loads(strokes_file().read_text(encoding="utf-8"))
    return sheets


def _coverage(kind: str, text: str, pen: Pen, tilt: float, noise: np.random.RandomState) -> Plane:
    """How much of each pixel the strokes of one line of the table cover."""
    factor = SCALE * FINE
    image = Image.new("L", (UNITS[0] * factor, UNITS[1] * factor))
    brush = ImageDraw.Draw(image)
    for points in _parse(text):
        if kind == "dot":
            for point in points:
                _dab(brush, _turned([point], tilt)[0], 0.75 * max(pen.width, 1.0) * factor)
            continue
        path = points
        if kind in ("loop", "round"):
            path = list(_curve([*points, points[0]], closed=True))
        elif kind == "curve":
            path = list(_curve(points, closed=False))
        path = _turned(path, tilt)
        if kind in ("area", "round"):
            brush.polygon([(x * factor, y * factor) for x, y in path], 255)
        else:
            _trace(brush, path, pen.width * factor, noise, factor)
    fine = np.asarray(image, np.float64).reshape(UNITS[1] * SCALE, FINE, UNITS[0] * SCALE, FINE)
    covered: Plane = fine.mean((1, 3)) / 255
    return covered


def _parse(text: str) -> Iterator[list[Point]]:
    """Points "x,y x,y", the pen lifted at each ";"."""
    for stroke in text.split(";"):
        points = []
        for item in stroke.split():
            x, _, y = item.partition(",")
            points.append((float(x), float(y)))
        yield points


def _curve(points: list[Point], closed: bool, steps: int = 8) -> Iterator[Point]:
    """A Catmull-Rom spline through the points."""
    before, after = (points[-2], points[1]) if closed else (points[0], points[-1])
    chain = [before, *points, after]
    for a, b, c, d in zip(chain, chain[1:], chain[2:], chain[3:], strict=False):
        for i in range(steps):
            t = i / steps
            yield tuple(  # type: ignore[misc]
                b[k]
                + 0.5
                * t
                * (c[k] - a[k] + t * (2 * a[k] - 5 * b[k] + 4 * c[k] - d[k] + t * (3 * (b[k] - c[k]) + d[k] - a[k])))
                for k in (0, 1)
            )
    yield points[-1]


def _turned(points: list[Point], degrees: float) -> list[Point]:
    """The points on a sheet that lies a little askew."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = UNITS[0] / 2, UNITS[1] / 2
    return [
        (middle[0] + cos * (x - middle[0]) - sin * (y - middle[1]),
         middle[1] + sin * (x - middle[0]) + cos * (y - middle[1]))
        for x, y in points
    ]  # fmt: skip


def _trace(
    brush: ImageDraw.ImageDraw, path: list[Point], width: float, noise: np.random.RandomState, factor: int
) -> None:
    """A stroke along the path, its pressure and its line never quite even."""
    lean = noise.uniform(-1, 1, 2)
    far = noise.uniform(0, 100)
    for (x0, y0), (x1, y1) in pairwise(path):
        steps = max(1, round(math.hypot(x1 - x0, y1 - y0)))
        marks = []
        for i in range(steps + 1):
            t = i / steps
            wave = 0.16 * (math.sin(0.21 * far) + 0.6 * math.sin(0.57 * far + 1))
            marks.append((x0 + (x1 - x0) * t + lean[0] * wave, y0 + (y1 - y0) * t + lean[1] * wave))
            press = width * (1 + 0.10 * math.sin(0.33 * far) + 0.06 * math.sin(1.1 * far))
            _dab(brush, marks[-1], press / 2)
            far += 1
        brush.line([(x * factor, y * factor) for x, y in marks], 255, max(1, round(press)))


def _dab(brush: ImageDraw.ImageDraw, at: Point, radius: float) -> None:
    x, y = at[0] * SCALE * FINE, at[1] * SCALE * FINE
    brush.ellipse((x - radius, y - radius, x + radius, y + radius), 255)


def _print(picture: Plane, paper: dict[str, Any]) -> None:
    """What is printed on the paper: lines, squares, a margin."""
    ink, tilt = paper.get("rule", paper["colour"]), paper["tilt"]
    across, down = UNITS
    step = float(paper.get("lined", paper.get("squared", 0)))
    if step:
        for at in np.arange(-2 * step, down + 2 * step, step):
            _rule(picture, [(-20.0, float(at)), (across + 20.0, float(at))], ink, tilt)
    if "squared" in paper:
        for at in np.arange(-2 * step, across + 2 * step, step):
            _rule(picture, [(float(at), -20.0), (float(at), down + 20.0)], ink, tilt)
    if "margin" in paper:
        _rule(picture, [(21.0, -20.0), (21.0, down + 20.0)], paper["margin"], tilt)


def _rule(picture: Plane, line: list[Point], colour: str, tilt: float) -> None:
    factor = SCALE * FINE
    image = Image.new("L", (UNITS[0] * factor, UNITS[1] * factor))
    ImageDraw.Draw(image).line([(x * factor, y * factor) for x, y in _turned(line, tilt)], 255, round(0.3 * factor))
    alpha = np.asarray(image, np.float64).reshape(UNITS[1] * SCALE, FINE, UNITS[0] * SCALE, FINE).mean((1, 3)) / 255
    picture += alpha[..., None] * (np.array(ImageColor.getrgb(colour), np.float64) - picture)


def _smear(picture: Plane, noise: np.random.RandomState) -> None:
    """Where chalk was wiped away."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    cx, cy, turn = noise.uniform(0, width), noise.uniform(0, height), noise.uniform(-0.5, 0.5)
    along, across = (
        (x - cx) * math.cos(turn) + (y - cy) * math.sin(turn),
        (y - cy) * math.cos(turn) - (x - cx) * math.sin(turn),
    )
    picture += 9 * np.exp(-((along / 90) ** 2) - (across / 18) ** 2)[..., None]


def _light(light: list[float], height: int, width: int) -> Plane:
    """How brightly each place is lit, 1 where it is brightest: across, and down."""
    y, x = np.mgrid[0:height, 0:width]
    slope: Plane = light[0] * (x / width - 0.5) + light[1] * (y / height - 0.5)
    shade = 1 + slope - 0.12 * ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2)
    top = float(shade.max())
    return np.asarray(np.minimum(shade / max(top, 1.0), 1.0))


def _smooth(plane: Plane) -> Plane:
    """Noise with a grain of two pixels."""
    out: Plane = (plane + np.roll(plane, 1, 0) + np.roll(plane, 1, 1) + np.roll(plane, (1, 1), (0, 1))) / 2
    return out


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for title in names():
        Image.fromarray(draw(title)).save(folder / f"{title}.png")
