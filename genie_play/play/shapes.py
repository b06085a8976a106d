"""Round and pointed things, painted large and shrunk, as pygame's own have jagged edges.

Knows pygame's surfaces and items; opens no window.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pygame

from genie_play.play.items import Color, Shape

FINE = 4  # how much larger they are painted


def fine(width: int, height: int, paint: Callable[[pygame.Surface, int], None]) -> pygame.Surface:
    """Paint on a surface that is several times larger, and shrink it."""
    large = pygame.Surface((width * FINE, height * FINE), pygame.SRCALPHA)
    paint(large, FINE)
    return pygame.transform.smoothscale(large, (width, height))


def disc(radius: int, color: Color, outline: int) -> pygame.Surface:
    def paint(surface: pygame.Surface, scale: int) -> None:
        surface.fill((*color[:3], 0))
        pygame.draw.circle(surface, color, (radius * scale, radius * scale), radius * scale, outline * scale)

    return fine(2 * radius, 2 * radius, paint)


def shape(item: Shape) -> pygame.Surface:
    side = 2 * (item.radius + item.outline + 1)

    def paint(surface: pygame.Surface, scale: int) -> None:
        surface.fill((*item.color[:3], 0))
        middle, radius, line = side * scale / 2, item.radius * scale, item.outline * scale
        if item.name in ("circle", "ring"):
            pygame.draw.circle(surface, item.color, (middle, middle), radius, line)
            return
        for corners in _corners(item.name):
            points = [(middle + x * radius, middle + y * radius) for x, y in corners]
            pygame.draw.polygon(surface, item.color, points, line)

    return fine(side, side, paint)


def _corners(name: str) -> list[list[tuple[float, float]]]:
    """The polygons of a shape within a circle of radius 1."""
    if name in ("triangle", "square", "diamond", "pentagon", "hexagon"):
        n, turn = {
            "triangle": (3, 0.0),
            "square": (4, 0.5),
            "diamond": (4, 0.0),
            "pentagon": (5, 0.0),
            "hexagon": (6, 0.5),
        }[name]
        return [[_around((k + turn) / n) for k in range(n)]]
    if name == "star":
        return [[_around(k / 10, 1.0 if k % 2 == 0 else 0.45) for k in range(10)]]
    if name == "cross":
        a, b = 0.32, 0.95
        outer = [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
        return [outer]
    if name == "play":
        return [[(-0.6, -0.8), (0.9, 0.0), (-0.6, 0.8)]]
    if name == "pause":
        return [
            [(-0.7, -0.8), (-0.2, -0.8), (-0.2, 0.8), (-0.7, 0.8)],
            [(0.2, -0.8), (0.7, -0.8), (0.7, 0.8), (0.2, 0.8)],
        ]
    if name == "rewind":
        return [[(0.0, -0.75), (-0.9, 0.0), (0.0, 0.75)], [(0.9, -0.75), (0.0, 0.0), (0.9, 0.75)]]
    raise ValueError(f"no shape is called {name!r}")


def _around(turn: float, radius: float = 1.0) -> tuple[float, float]:
    """A point at a share of a full turn, clockwise from the top."""
    return radius * math.sin(2 * math.pi * turn), -radius * math.cos(2 * math.pi * turn)
