"""Drawing by code: a small canvas with shapes and soft pencil lines, and the styles that a look may choose from.

Knows nothing of tiles or figures. Lengths are eighths of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float64]  # (3,) in 0..255
Colours = dict[str, Colour]
Plane = NDArray[np.float64]  # one number a pixel
Mask = NDArray[np.bool_]

POSES = ("stand", "walk-a", "walk-b", "rise", "fall", "duck", "climb")
PIXEL_FILLS = ("bricks", "dirt", "planks", "blocks", "checks", "slant", "panel", "cobble", "layers", "diamonds")
FLAT_FILLS = ("seams", "triangles", "dots", "arches", "bars", "plain-blocks", "steps")
SKETCH_FILLS = ("hatch", "ticks", "scribble", "cross", "masonry", "dots", "wash")
TOPS = ("fringe", "cap", "plate", "thick", "line")
MOTIFS = ("stripes", "dots", "plus", "slant", "bars", "panes", "plain")
PAPERS = ("plain", "squared", "squared-fine", "lined", "dotted", "plain")
RANGES = ("hills", "city", "pines", "mesas", "pillars", "peaks")
FIGURES = ("person", "blob", "robot", "animal", "knight", "ghost")
STICKS = ("stick", "stick", "stick-fat", "bean", "box", "cat")


@dataclass(frozen=True)
class Style:
    """What a look draws with: one name out of each list above, a pen's width and how its strokes bend (-1 to 1)."""

    fill: str
    top: str
    motif: str
    paper: str
    range: str
    lights: str
    figure: str
    pen: float
    bends: tuple[float, float, float, float]


class Canvas:
    """A small picture in colour with a mask of what was painted; x to the right, y down.

    `pad` pixels are added left, right and above, for rims; the origin stays at the inner corner.
    """

    def __init__(self, width: int, height: int, tile: int, ground: Colour | None = None, pad: int = 0) -> None:
        self.scale = tile / 8
        self.y, self.x = _axes(width * tile // 8, height * tile // 8, self.scale, pad)
        self.rgb = np.zeros((*self.y.shape, 3))
        self.mask = np.zeros(self.y.shape, bool)
        if ground is not None:
            self.rgb[:] = ground
            self.mask[:] = True

    def fill(self, where: NDArray[np.bool_], colour: Colour) -> None:
        """Paint the pixels of a mask."""
        self.rgb[where] = colour
        self.mask |= where

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Paint [x0, x1) x [y0, y1)."""
        self.fill((self.x >= x0) & (self.x < x1) & (self.y >= y0) & (self.y < y1), colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Paint an ellipse."""
        self.fill(((self.x - x) / rx) ** 2 + ((self.y - y) / ry) ** 2 <= 1.0, colour)

    def wedge(self, x: float, y: float, half: float, height: float, colour: Colour) -> None:
        """Paint a triangle with its tip at (x, y), opening downward."""
        depth = (self.y - y) / height
        self.fill((depth >= 0) & (depth <= 1) & (np.abs(self.x - x) <= half * depth), colour)

    def ink(self, distance: Plane, width: float, colour: Colour) -> None:
        """Draw a soft line where `distance` to it is small: a pencil's edge is half covered."""
        cover = np.clip(0.5 + (width / 2 - distance) * self.scale, 0.0, 1.0)[..., None]
        self.rgb = self.rgb * (1 - cover) + colour * cover
        self.mask |= cover[..., 0] > 0.35

    def stroke(self, points: list[tuple[float, float]], width: float, colour: Colour) -> None:
        """Draw a soft polyline."""
        self.ink(self.away(points), width, colour)

    def away(self, points: list[tuple[float, float]]) -> Plane:
        """How far each point of the canvas is from a polyline."""
        nearest = np.full(self.x.shape, 1e9)
        for (x0, y0), (x1, y1) in pairwise(points):
            dx, dy = x1 - x0, y1 - y0
            along = np.clip(((self.x - x0) * dx + (self.y - y0) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
            nearest = np.minimum(nearest, np.hypot(self.x - x0 - along * dx, self.y - y0 - along * dy))
        return nearest

    def ring(self, x: float, y: float, rx: float, ry: float, width: float, colour: Colour) -> None:
        """Draw the soft outline of an ellipse."""
        self.ink(np.abs(np.hypot((self.x - x) / rx, (self.y - y) / ry) - 1) * min(rx, ry), width, colour)

    def outline(self, colour: Colour) -> None:
        """Paint a one-pixel rim around what is painted."""
        grown = self.mask.copy()
        grown[1:] |= self.mask[:-1]
        grown[:-1] |= self.mask[1:]
        grown[:, 1:] |= self.mask[:, :-1]
        grown[:, :-1] |= self.mask[:, 1:]
        rim = grown & ~self.mask
        self.fill(rim, colour)


class Layer(Canvas):
    """A canvas that one can see through: `rgb` holds colours times `cover`, 0 to 1.

    Lines are as dark as `strength`, and fade where `rough` is high, as a pencil's do on paper.
    """

    def __init__(self, width: int, height: int, tile: int, strength: float = 1.0, rough: Plane | None = None) -> None:
        super().__init__(width, height, tile)
        self.cover = np.zeros(self.y.shape)
        self.strength, self.rough = strength, rough

    def fill(self, where: NDArray[np.bool_], colour: Colour) -> None:
        """Paint the pixels of a mask."""
        self.lay(where.astype(np.float64), colour)

    def ink(self, distance: Plane, width: float, colour: Colour) -> None:
        """Draw a soft line where `distance` to it is small."""
        cover = np.clip(0.5 + (width / 2 - distance) * self.scale, 0.0, 1.0) * self.strength
        self.lay(cover if self.rough is None else cover * self.rough, colour)

    def lay(self, cover: Plane, colour: Colour) -> None:
        """Cover what is there with so much of a colour."""
        self.rgb = self.rgb * (1 - cover[..., None]) + colour * cover[..., None]
        self.cover = self.cover * (1 - cover) + cover


@lru_cache(maxsize=64)
def _axes(width: int, height: int, scale: float, pad: int) -> tuple[Plane, Plane]:
    y, x = np.mgrid[-pad:height, -pad : width + pad]
    return (y + 0.5) / scale, (x + 0.5) / scale


def blend(a: Colour, b: Colour, share: float | Plane) -> Colour:
    """`a` with `share` of `b` in it."""
    return a * (1 - share) + b * share
