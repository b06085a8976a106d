"""Draws the prompts of this folder: six sketches, stroke by stroke, and six scenes in looks that no training saw.

    python assets/prompts/make.py [FOLDER]

The same pictures each time. In each an avatar stands in the middle, on ground.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
SIDE, UNITS, FINE = 512, 64, 2  # pixels of a picture, units across it, drawn this much larger for smooth edges
Point = tuple[float, float]
Colour = tuple[int, int, int]

# name: family and number of a held-out look, number of a held-out level
SCENES = {
    "spring-meadow": ("pixel", 18, 18),
    "night-walk": ("pixel", 9, 9),
    "violet-mine": ("pixel", 3, 3),
    "neon-steps": ("flat", 7, 7),
    "green-hills": ("flat", 19, 19),
    "coral-dusk": ("flat", 42, 42),
}


class Page:
    """A sheet of paper, 64 units wide, on which every line wobbles a little."""

    def __init__(self, name: str, paper: Colour, ink: Colour, pen: float = 1.35) -> None:
        self.image = Image.new("RGB", (SIDE * FINE, SIDE * FINE), paper)
        self.draw = ImageDraw.Draw(self.image)
        self.random = random.Random(name)
        self.paper, self.ink, self.pen = paper, ink, pen

    def rule(self, step: float, colour: Colour, across: bool = True, along: bool = True) -> None:
        """Printed lines, straight ones."""
        at = step / 2
        while at < UNITS:
            if across:
                self.draw.line(self._scaled([(0, at), (UNITS, at)]), colour, round(0.7 * self._scale))
            if along:
                self.draw.line(self._scaled([(at, 0), (at, UNITS)]), colour, round(0.7 * self._scale))
            at += step

    def line(self, points: Sequence[Point], pen: float = 0.0, ink: Colour | None = None, wobble: float = 0.3) -> None:
        """A stroke along points, in one go, by hand."""
        width = (pen or self.pen) * self._scale
        phases = [self.random.uniform(0, 6.3) for _ in range(4)]
        path: list[Point] = []
        for (x0, y0), (x1, y1) in pairwise(points):
            length = math.hypot(x1 - x0, y1 - y0)
            steps = max(2, round(length * 2))
            for i in range(steps + 1):
                t = i / steps
                far = len(path) * 0.5
                bend = wobble * min(1.0, length / 6) * math.sin(math.pi * t)
                dx = bend * (math.sin(far * 0.31 + phases[0]) + 0.5 * math.sin(far * 0.83 + phases[1]))
                dy = bend * (math.sin(far * 0.27 + phases[2]) + 0.5 * math.sin(far * 0.71 + phases[3]))
                path.append((x0 + (x1 - x0) * t + dx, y0 + (y1 - y0) * t + dy))
        for (x0, y0), (x1, y1) in pairwise(path):
            press = width * self.random.uniform(0.9, 1.08)
            self.draw.line(self._scaled([(x0, y0), (x1, y1)]), ink or self.ink, round(press))
            x, y = x1 * self._scale, y1 * self._scale
            self.draw.ellipse((x - press / 2, y - press / 2, x + press / 2, y + press / 2), ink or self.ink)

    def loop(
        self, x: float, y: float, rx: float, ry: float, fill: Colour | None = None, pen: float = 0.0,
        ink: Colour | None = None,
    ) -> None:  # fmt: skip
        """A circle that does not quite close."""
        start, lean = self.random.uniform(0, 6.3), self.random.uniform(-0.06, 0.06)
        ring = []
        for i in range(25):
            angle = start + i * 2 * math.pi / 24
            grow = 1 + lean * math.sin(2 * angle) + 0.02 * i / 24
            ring.append((x + rx * grow * math.cos(angle), y + ry * grow * math.sin(angle)))
        if fill is not None:
            self.draw.polygon(self._scaled(ring), fill)
        self.line(ring, pen, ink, 0.05)

    def wash(self, points: Sequence[Point], colour: Colour) -> None:
        """An area of flat colour."""
        self.draw.polygon(self._scaled(points), colour)

    def hatch(
        self, x0: float, y0: float, x1: float, y1: float, step: float, ink: Colour, lean: float = 3.0, pen: float = 0.9
    ) -> None:
        """Slanted strokes in a box."""
        x = x0 + step / 2
        while x < x1:
            top, bottom = y0 + self.random.uniform(0, 1.5), y1 - self.random.uniform(0, 1.5)
            self.line([(x + lean / 2, top), (x - lean / 2, bottom)], pen, ink, 0.15)
            x += step * self.random.uniform(0.85, 1.15)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour | None = None) -> None:
        """A rectangle, its corners overdrawn."""
        if fill is not None:
            self.wash([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)
        self.line([(x0, y0 - 0.3), (x0, y1)])
        self.line([(x0 - 0.3, y1), (x1, y1)])
        self.line([(x1, y1 + 0.3), (x1, y0)])
        self.line([(x1 + 0.3, y0), (x0, y0)])

    def ladder(self, x: float, top: float, bottom: float) -> None:
        """Two rails and rungs, eight units wide."""
        self.line([(x + 1.5, top), (x + 1.5, bottom)])
        self.line([(x + 6.5, top), (x + 6.5, bottom)])
        y = top + 2.5
        while y < bottom:
            self.line([(x + 1.5, y), (x + 6.5, y + 0.3)], 1.0)
            y += 4

    def ledge(self, x0: float, x1: float, y: float) -> None:
        """A plank to stand on."""
        self.wash([(x0, y), (x1, y), (x1, y + 3), (x0, y + 3)], self.paper)
        self.line([(x0, y + 0.7), (x1, y + 0.7)])
        self.line([(x1, y + 0.7), (x1, y + 3), (x0, y + 3), (x0, y + 0.7)], 1.0)

    def cloud(self, x: float, y: float, ink: Colour) -> None:
        """Three bows and a floor."""
        arc = [(x + dx, y + dy) for dx, dy in ((0, 4), (0, 2), (3, 1), (5, -1), (9, -1), (11, 1), (14, 2), (14, 4))]
        self.line([*arc, (x, y + 4)], 0.9, ink, 0.2)

    def sun(self, x: float, y: float, r: float, fill: Colour | None = None, ink: Colour | None = None) -> None:
        """A disc and rays."""
        self.loop(x, y, r, r, fill, 1.0, ink)
        for i in range(8):
            angle = i * math.pi / 4 + 0.2
            c, s = math.cos(angle), math.sin(angle)
            self.line([(x + c * (r + 1.5), y + s * (r + 1.5)), (x + c * (r + 3.5), y + s * (r + 3.5))], 0.9, ink, 0.1)

    def tree(self, x: float, y: float, tall: float, fill: Colour | None = None, ink: Colour | None = None) -> None:
        """A trunk and a round crown."""
        self.line([(x - 1, y), (x - 0.8, y - tall)], 1.0)
        self.line([(x + 1, y), (x + 0.8, y - tall)], 1.0)
        self.loop(x, y - tall - 3, 4, 3.6, fill or self.paper, 0.0, ink)

    def stick_figure(self, x: float, feet: float, head: Colour) -> None:
        """A walker in mid step, looking right."""
        self.line([(x, feet - 7.5), (x, feet - 4)], 1.7)
        self.line([(x, feet - 4), (x - 2.6, feet - 0.4)], 1.6)
        self.line([(x, feet - 4), (x + 1.4, feet - 2.4), (x + 2.6, feet - 0.4)], 1.6)
        self.line([(x - 2.6, feet - 5), (x, feet - 6.6), (x + 2.8, feet - 5.4)], 1.5)
        self.loop(x + 0.2, feet - 9.6, 2.3, 2.2, head, 1.5)
        self.line([(x + 1.2, feet - 10.2), (x + 1.2, feet - 9.4)], 1.1)

    def bean(self, x: float, feet: float, fill: Colour) -> None:
        """A blob with eyes and short legs."""
        for dx in (-1.6, 1.8):
            self.line([(x + dx, feet - 2.5), (x + dx * 1.2, feet - 0.4)], 1.6)
        self.loop(x, feet - 6.3, 3.4, 4.4, fill, 1.5)
        for dx in (-0.2, 2.0):
            self.line([(x + dx, feet - 8.2), (x + dx, feet - 6.8)], 1.2)
        self.line([(x - 3.2, feet - 5.4), (x - 4, feet - 3.6)], 1.4)
        self.line([(x + 3.2, feet - 5.4), (x + 4, feet - 3.6)], 1.4)

    def robot(self, x: float, feet: float, fill: Colour) -> None:
        """A box with an aerial."""
        for dx in (-2, 2):
            self.line([(x + dx, feet - 3), (x + dx, feet - 0.4)], 1.6)
        self.line([(x, feet - 11), (x, feet - 12.5)], 1.2)
        self.box(x - 3.2, feet - 10.8, x + 3.2, feet - 3, fill)
        for dx in (-0.4, 1.9):
            self.line([(x + dx, feet - 8.6), (x + dx, feet - 7.2)], 1.3)

    def cat(self, x: float, feet: float, fill: Colour) -> None:
        """Upright, ears up, tail behind."""
        for dx in (-1.8, 1.8):
            self.line([(x + dx * 0.7, feet - 3.4), (x + dx, feet - 0.4)], 1.6)
        self.line([(x - 1.5, feet - 4), (x - 4, feet - 5.4), (x - 3.8, feet - 7.6)], 1.3)
        self.loop(x, feet - 5, 2, 2.4, fill, 1.4)
        self.loop(x + 0.3, feet - 9, 2.8, 2.2, fill, 1.4)
        self.line([(x - 2, feet - 10.2), (x - 1.8, feet - 12.4), (x - 0.2, feet - 11)], 1.3)
        self.line([(x + 0.9, feet - 11), (x + 2.6, feet - 12.4), (x + 2.7, feet - 10.2)], 1.3)
        self.line([(x + 1.4, feet - 9.6), (x + 1.4, feet - 8.8)], 1.1)

    def done(self) -> Image.Image:
        """The page at its own size."""
        return self.image.reduce(FINE)

    @property
    def _scale(self) -> float:
        return SIDE * FINE / UNITS

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._scale, y * self._scale) for x, y in points]


def pencil_hills() -> Page:
    """White paper, soft pencil: a pit, a step, a flag to reach."""
    p = Page("pencil-hills", (250, 250, 247), (62, 62, 66))
    pale = (196, 196, 196)
    p.line([(0, 30), (9, 22), (18, 29), (30, 17), (44, 30), (54, 24), (64, 29)], 0.9, pale)
    p.cloud(6, 7, pale)
    p.cloud(36, 5, pale)
    p.sun(55, 11, 4)
    p.line([(0, 40.7), (9, 40.7), (9.3, 48.7), (19, 48.7), (19.3, 40.7), (46, 40.7), (46.3, 32.7), (64, 32.7)])
    for x0, y0, x1 in ((0, 43, 8), (10, 51, 19), (20, 43, 46), (47, 35, 64)):
        p.hatch(x0, y0, x1, y0 + 5, 4.2, (150, 150, 152))
    p.hatch(0, 56, 64, 61, 6.5, (190, 190, 190))
    for x in (2, 22, 26, 50):
        y = 32 if x > 46 else 40
        p.line([(x, y), (x - 0.8, y - 2.6)], 1.0)
        p.line([(x + 1.6, y), (x + 2.4, y - 2.2)], 1.0)
    p.tree(41, 40, 8)
    p.line([(58, 32), (58, 21)], 1.3)
    p.line([(58, 21), (63, 23), (58, 25)], 1.2)
    p.stick_figure(32, 40, p.paper)
    return p


def ink_ladders() -> Page:
    """Cream paper, blue-black ink: two ladders, coins on the upper floor."""
    p = Page("ink-ladders", (249, 242, 222), (26, 30, 62))
    soft = (168, 166, 168)
    p.line([(0, 40.7), (64, 40.7)])
    for y in (44.5, 48.5, 52.5, 56.5, 60.5):
        p.line([(0, y), (64, y)], 0.9, soft)
        for x in range(2 if int(y) % 8 else 6, 64, 8):
            p.line([(x, y - 3.2), (x, y)], 0.9, soft, 0.1)
    p.ladder(8, 16, 40)
    p.ladder(48, 24, 40)
    p.ledge(2, 28, 16)
    p.ledge(38, 62, 24)
    for x in (42, 48, 54):
        p.loop(x, 19, 2.3, 2.3, (232, 190, 80))
    p.loop(20, 11, 2.3, 2.3, (232, 190, 80))
    p.line([(24, 40), (24, 35), (27, 35)], 1.1)
    p.loop(58, 9, 4.2, 4.2, None, 0.9, soft)
    p.stick_figure(32, 40, (206, 84, 70))
    return p


def squared_robot() -> Page:
    """Squared paper, ballpoint: stairs of boxes and a robot."""
    p = Page("squared-robot", (250, 251, 252), (28, 52, 138))
    p.rule(8, (214, 226, 240))
    p.line([(0, 32.7), (8, 32.7), (8.3, 40.7), (48, 40.7), (48.3, 48.7), (64, 48.7)])
    p.hatch(0, 35, 8, 62, 5, (150, 166, 208))
    p.hatch(9, 43, 48, 62, 7, (150, 166, 208))
    p.hatch(49, 51, 64, 62, 5, (150, 166, 208))
    for x, y in ((16, 32), (40, 32), (40, 24)):
        p.box(x, y + 0.5, x + 7.5, y + 8, (232, 238, 248))
        p.line([(x + 1, y + 1.5), (x + 6.5, y + 7)], 0.9, (110, 130, 190))
    p.ledge(8, 30, 16)
    p.ladder(52, 16, 48)
    p.ledge(50, 64, 16)
    for x in (14, 20, 26):
        p.loop(x, 11, 2.2, 2.2, (250, 251, 252))
    p.robot(32, 40, (250, 251, 252))
    return p


def lined_cat() -> Page:
    """A page from a school book: a cat on a fence row, a pond to jump."""
    p = Page("lined-cat", (252, 250, 240), (44, 40, 44))
    p.rule(8, (206, 220, 236), along=False)
    p.draw.line(p._scaled([(4, 0), (4, 64)]), (236, 176, 176), 12)
    p.wash([(46, 43), (58, 43), (58, 49), (46, 49)], (196, 222, 240))
    p.line([(0, 40.7), (45.5, 40.7), (46, 49), (58, 49), (58.3, 40.7), (64, 40.7)])
    p.line([(46.5, 43), (49, 42), (52, 43), (55, 44), (57.6, 43)], 1.1, (80, 130, 190))
    for x in range(1, 64, 6):
        y = 53 if 44 < x < 60 else 45
        p.line([(x, y), (x - 1, y + 3.5)], 1.0, (150, 146, 144))
        p.line([(x + 3, y + 8), (x + 2, y + 11)], 1.0, (186, 182, 178))
    for x in (9, 14, 19):
        p.line([(x, 40), (x + 0.3, 33)])
    p.line([(7, 36), (22, 36.4)], 1.0)
    p.ledge(36, 54, 24)
    p.line([(40, 12), (42, 10.5), (43.5, 12), (45, 10.5), (47, 12)], 1.0)
    p.line([(14, 18), (16, 16.5), (17.5, 18), (19, 16.5), (21, 18)], 1.0)
    p.loop(45, 20, 2.2, 2.2, (240, 206, 110))
    p.cat(32, 40, (226, 150, 84))
    return p


def crayon_garden() -> Page:
    """Colours on white: grass, flowers, a red hero under a yellow sun."""
    p = Page("crayon-garden", (253, 252, 248), (54, 46, 44), 1.25)
    green, brown = (104, 172, 84), (236, 218, 192)
    ground = [(0, 48), (14, 48), (14, 40), (50, 40), (50, 32), (64, 32), (64, 64), (0, 64)]
    p.wash(ground, brown)
    for (x0, y0), (x1, _) in (((0, 48), (14, 48)), ((14, 40), (50, 40)), ((50, 32), (64, 32))):
        p.wash([(x0, y0), (x1, y0), (x1, y0 + 2.6), (x0, y0 + 2.6)], (166, 212, 140))
        p.line([(x0, y0 + 0.6), (x1, y0 + 0.6)], 1.3, green)
    p.line([(14.4, 48), (14.4, 40)])
    p.line([(50.4, 40), (50.4, 32)])
    p.hatch(3, 54, 64, 58, 8, (204, 176, 140))
    p.sun(9, 10, 4.4, (252, 216, 92), (226, 160, 50))
    p.cloud(34, 8, (150, 186, 222))
    p.cloud(50, 15, (150, 186, 222))
    p.tree(57, 32, 9, (150, 206, 130), green)
    for x, colour in ((19, (232, 110, 150)), (43, (240, 190, 60)), (24, (130, 130, 220))):
        p.line([(x, 40), (x, 36)], 1.1, green)
        p.loop(x, 34.6, 1.8, 1.8, colour, 0.9)
    p.ledge(20, 38, 22)
    for x in (25, 33):
        p.loop(x, 17.5, 2.2, 2.2, (250, 206, 70))
    p.bean(32, 40, (226, 76, 66))
    return p


def marker_cave() -> Page:
    """Grey card, black marker: a roof with teeth, a well with a ladder."""
    p = Page("marker-cave", (214, 214, 212), (18, 18, 20), 1.5)
    soft = (150, 150, 150)
    roof = [(0, 8), (10, 8), (13, 15), (16, 8), (27, 8), (29, 12), (31, 8), (46, 8), (50, 17), (54, 8), (64, 8)]
    p.wash([(0, 0), *roof, (64, 0)], (176, 176, 176))
    p.line([(x, y + 0.5) for x, y in roof])
    p.line([(0, 40.7), (22, 40.7)])
    p.line([(22, 40.7), (44, 40.7), (44.4, 56.7), (56, 56.7), (56.4, 40.7), (64, 40.7)])
    p.hatch(0, 43, 44, 62, 5.5, soft, 5)
    p.hatch(57, 43, 64, 62, 4.5, soft, 4)
    p.ladder(46, 41, 56)
    p.box(8, 32.6, 15.5, 40, (236, 236, 234))
    p.line([(9, 34), (14.5, 39)], 1.0, soft)
    p.box(8, 24.8, 15.5, 32.4, (236, 236, 234))
    p.ledge(18, 28, 24)
    for x, y in ((23, 19), (50, 34), (56, 30)):
        p.loop(x, y, 2.3, 2.3, (240, 240, 238))
    p.bean(32, 40, (246, 246, 244))
    return p


SKETCHES: tuple[Callable[[], Page], ...] = (
    pencil_hills, ink_ladders, squared_robot, lined_cat, crayon_garden, marker_cave,
)  # fmt: skip


def scene(family: str, look: int, level: int) -> Image.Image:
    """The start of a held-out level in a held-out look, its pixels enlarged."""
    from genie_play.data import looks
    from genie_play.data.game import Platformer

    wardrobe = looks.Wardrobe([(family, looks.HELD_OUT[look])], calm=True)
    game = Platformer(np.array([2 * level + 1], np.uint64), np.zeros(1, np.int64), wardrobe, (UNITS, UNITS))
    return Image.fromarray(game.render()[0]).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def make(folder: Path) -> list[Path]:
    """Write all pictures into a folder and return their paths."""
    pictures = {draw.__name__.replace("_", "-"): draw().done() for draw in SKETCHES}
    pictures |= {name: scene(*numbers) for name, numbers in SCENES.items()}
    paths = []
    for name, picture in sorted(pictures.items()):
        paths.append(folder / f"{name}.png")
        picture.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB").save(
            paths[-1], optimize=True
        )
    return paths


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent.parent))
    for path in make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE):
        print(path)
