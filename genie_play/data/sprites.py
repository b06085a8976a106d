"""Avatars as pictures: parts filled as in pixel art, flat, painted or photographed, or outlined with a pen.

Drawn several times larger and averaged, so that edges are half covered as in a picture that was made small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from genie_play.data import avatars
from genie_play.data.avatars import Part, Point
from genie_play.data.paint import POSES, Colour, Colours, Plane
from genie_play.data.textures import Rng, noise, shrink

FINE = 4  # samples a pixel, across


@dataclass(frozen=True)
class Build:
    """How an avatar is built and drawn."""

    kind: str
    tall: float  # times its height
    wide: float
    rim: float  # strength of a line around it
    outlined: bool = False  # each part has an outline of its own, as drawn by hand
    pen: float = 1.2
    strength: float = 1.0  # how dark the pen is
    grain: float = 0.0  # how much of the paper shows through it
    wobble: float = 0.0
    crisp: bool = False  # one sample a pixel: pixel art
    shaded: bool = False  # lit from above
    soft: float = 0.0  # blurred a little, in pixels


def canvas(tile: int) -> tuple[int, int, int]:
    """Rows, columns and side margin of the picture of an avatar."""
    pad = max(1, tile // 8)
    side = max(pad, 3 * tile // 8)
    return 2 * tile + pad, tile + 2 * side, side


def sprites(build: Build, tile: int, c: Colours, rng: Rng) -> tuple[Plane, Plane]:
    """All poses facing right: colours (poses, rows, columns, 3) in 0..255 and cover (poses, rows, columns) in 0..1."""
    rows, columns, _ = canvas(tile)
    jitter = rng.normal(0, build.wobble, (40, 12, 2)) if build.wobble else np.zeros((40, 12, 2))
    rough = np.tile(noise(rng, 2 * tile, 3.0, 3.0), (6, 4))[: rows * FINE, : columns * FINE] if build.grain else None
    light = _light(rng, rows, columns) if build.shaded else None
    colours, covers = [], []
    for pose in POSES:
        rgb, cover = _draw(avatars.parts(build.kind, pose), build, tile, c, jitter, rough)
        if build.soft:
            rgb, cover = _blur(rgb, build.soft), _blur(cover[..., None], build.soft)[..., 0]
        if light is not None:
            rgb = np.clip(rgb * light[..., None], 0, 255)
        colours.append(rgb)
        covers.append(cover)
    return np.stack(colours), np.stack(covers)


def _draw(
    parts: list[Part], build: Build, tile: int, c: Colours, jitter: Plane, rough: Plane | None
) -> tuple[Plane, Plane]:
    rows, columns, side = canvas(tile)
    fine = 3 if build.crisp else FINE
    scale = tile / 8 * fine
    colour = Image.new("RGB", (columns * fine, rows * fine), _rgb(c["outline"]))
    cover = Image.new("L", colour.size, 0)
    pens = ImageDraw.Draw(colour), ImageDraw.Draw(cover)

    def shades(fill: Colour) -> list[tuple[ImageDraw.ImageDraw, tuple[int, ...]]]:
        return [(pens[0], _rgb(fill)), (pens[1], (255,))]

    def place(point: Point) -> Point:
        x, h = point
        return (side + tile / 2) * fine + x * build.wide * scale, rows * fine - h * build.tall * scale

    def ink(points: list[Point], width: float, fill: Colour, closed: bool = False) -> None:
        points = [*points, *points[:2]] if closed else points
        wide = max(width * scale, 1.0)
        for pen, shade in shades(fill):
            pen.line(points, shade, round(wide), joint="curve")
            for x, y in () if closed else (points[0], points[-1]):
                pen.ellipse((x - wide / 2, y - wide / 2, x + wide / 2, y + wide / 2), shade)

    for number, part in enumerate(parts):
        shake = jitter[number % len(jitter)]
        if part.shape == "oval":
            (x, h), (rx, rh) = part.points
            turn = np.linspace(0, 2 * np.pi, 16, endpoint=False) + shake[0, 0]
            swell = 1 + (shake[1, 0] * np.cos(turn + shake[2, 0]) + shake[1, 1] * np.cos(2 * turn)) / (rx + rh)
            points = [
                place((x + float(dx), h + float(dh)))
                for dx, dh in zip(rx * swell * np.cos(turn), rh * swell * np.sin(turn), strict=True)
            ]
        else:
            points = [
                place((x + float(dx), h + float(dh))) for (x, h), (dx, dh) in zip(part.points, shake, strict=False)
            ]
        role = {"line": "outline", "head": "body"}.get(part.role, part.role)
        if part.shape == "line":
            thick = part.width or build.pen
            if build.outlined and part.width > 1.4 and part.role in ("body", "trim"):
                ink(points, thick + 0.8 * build.pen, c["outline"])
                ink(points, thick - 0.8 * build.pen, c[role])
            else:
                ink(points, build.pen if build.outlined else thick, c["outline"] if build.outlined else c[role])
            continue
        for pen, shade in shades(c[role]):
            pen.polygon(points, shade)
        if build.outlined and part.role != "eye":
            ink(points, build.pen, c["outline"], closed=True)
    rgb, mask = np.asarray(colour, np.float64), np.asarray(cover, np.float64) / 255
    if rough is not None:
        # the pen leaves gaps; what it filled with the paper's colour stays whole
        drawn = np.abs(rgb - c["outline"]).sum(-1) < 30
        mask = np.where(
            drawn, mask * np.clip(build.strength - build.grain * np.clip(rough, -0.3, 2.0), 0.25, 1.0), mask
        )
    if build.crisp:
        rgb, mask = rgb[1::3, 1::3], (mask[1::3, 1::3] > 0.5).astype(np.float64)
    else:
        whole = mask[..., None]
        rgb, mask = shrink(rgb * whole, fine), np.minimum(shrink(whole, fine)[..., 0], 1.0)
        rgb = np.where(mask[..., None] > 0, rgb / np.maximum(mask[..., None], 1e-6), c["outline"])
    return (rgb, mask) if not build.rim else _rimmed(rgb, mask, c["outline"], build.rim)


def _rimmed(rgb: Plane, mask: Plane, colour: Colour, strength: float) -> tuple[Plane, Plane]:
    """A line of one pixel around what is covered, left, right and above, as well as below."""
    p = np.pad(mask, 1)
    grown = np.maximum.reduce([p[:-2, 1:-1], p[2:, 1:-1], p[1:-1, :-2], p[1:-1, 2:]]) * strength
    cover = np.maximum(mask, grown)
    share = (mask / np.maximum(cover, 1e-6))[..., None]
    return rgb * share + colour * (1 - share), cover


def _light(rng: Rng, rows: int, columns: int) -> Plane:
    """Brighter above and on one side, with a little unevenness."""
    y, x = np.mgrid[:rows, :columns]
    lean = rng.uniform(-0.25, 0.25)
    rough = noise(rng, 2 * rows, 4.0, 4.0)[:rows, :columns]
    light: Plane = 1.14 - 0.32 * y / rows + lean * (x / columns - 0.5) + 0.05 * rough
    return light


def _blur(picture: Plane, share: float) -> Plane:
    """Mix each pixel with the mean of its four neighbours."""
    p = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    mean = (p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]) / 4
    mixed: Plane = picture * (1 - share) + mean * share
    return mixed


def _rgb(colour: NDArray[np.float64]) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in np.clip(np.rint(colour), 0, 255))
    return r, g, b
