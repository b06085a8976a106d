"""The shapes of avatars: forty-five kinds, seven poses each, as parts to be filled or outlined.

A part knows its role (body, trim, skin, eye), not its colour; how it is drawn is `sprites`. Lengths are eighths of a
tile: x to the right from the middle, h up from the feet. Everybody faces right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

Point = tuple[float, float]  # x, h

_FEET = {
    "stand": ((-1.6, 0.0), (1.6, 0.0)), "walk-a": ((-3.0, 0.0), (3.2, 0.5)), "walk-b": ((-0.6, 0.0), (0.9, 0.3)),
    "rise": ((-2.4, -0.1), (2.0, 2.2)), "fall": ((-3.2, 0.9), (3.2, 0.9)), "duck": ((-2.6, 0.0), (2.6, 0.0)),
    "climb": ((-1.6, 0.0), (1.7, 1.9)),
}  # fmt: skip
# where the hands are, from the shoulders
_HANDS = {
    "stand": ((-2.6, -3.0), (2.6, -3.0)), "walk-a": ((-3.2, -1.8), (3.6, -1.4)), "walk-b": ((-1.6, -3.0), (1.8, -2.8)),
    "rise": ((-3.4, 3.2), (3.6, 2.8)), "fall": ((-4.6, 0.6), (4.6, 0.6)), "duck": ((-3.4, -2.0), (3.4, -2.0)),
    "climb": ((-2.8, 3.6), (2.8, -0.6)),
}  # fmt: skip
_SQUASH = {"duck": 0.62, "rise": 1.06, "fall": 0.96, "walk-b": 0.97}


@dataclass(frozen=True)
class Part:
    """A shape: an oval (centre, radii), a poly (corners) or a line (points, width)."""

    shape: str
    role: str
    points: tuple[Point, ...]
    width: float = 0.0


@dataclass
class Body:
    """Parts in the order in which they are drawn, in one pose; heights of the trunk shrink when it ducks."""

    pose: str
    parts: list[Part] = field(default_factory=list)

    @property
    def back(self) -> bool:
        """Whether the back is seen, without a face."""
        return self.pose == "climb"

    def at(self, x: float, h: float) -> Point:
        """A point of the trunk, squashed as the pose has it."""
        return x, h * _SQUASH.get(self.pose, 1.0)

    def oval(self, x: float, h: float, rx: float, rh: float, role: str = "body") -> None:
        """An ellipse of the trunk."""
        squash = min(_SQUASH.get(self.pose, 1.0), 1.0)
        self.parts.append(Part("oval", role, (self.at(x, h), (rx, rh * (1 + squash) / 2))))

    def poly(self, points: Sequence[Point], role: str = "body") -> None:
        """A polygon of the trunk."""
        self.parts.append(Part("poly", role, tuple(self.at(*point) for point in points)))

    def box(self, x0: float, h0: float, x1: float, h1: float, role: str = "body") -> None:
        """A rectangle of the trunk."""
        self.poly(((x0, h0), (x1, h0), (x1, h1), (x0, h1)), role)

    def line(self, points: Sequence[Point], width: float, role: str) -> None:
        """A limb; its points are not squashed."""
        self.parts.append(Part("line", role, tuple(points), width))

    def eyes(self, *spots: Point, size: float = 0.65) -> None:
        """Eyes, where there is a face to see."""
        if not self.back:
            for x, h in spots:
                self.parts.append(Part("oval", "eye", (self.at(x, h), (size, size * 1.25))))

    def legs(self, hip: float = 3.4, half: float = 1.0, width: float = 1.9, role: str = "trim") -> None:
        """Two legs from the hips to where the pose has the feet."""
        for side, (x, h) in zip((-1, 1), _FEET[self.pose], strict=True):
            top = self.at(side * half, hip)
            foot = (x * (half + 0.6) / 1.6 if width else 1.15 * x, h + max(width, 1.0) / 2)
            bend = 0.9 if self.pose in ("duck", "rise") else 0.3
            self.line((top, ((top[0] + foot[0]) / 2 + bend, (top[1] + foot[1]) / 2), foot), width, role)

    def arms(
        self, shoulder: float = 6.8, half: float = 1.8, width: float = 1.5, role: str = "skin", reach: float = 1.0
    ) -> None:
        """Two arms from the shoulders to where the pose has the hands."""
        for side, (x, h) in zip((-1, 1), _HANDS[self.pose], strict=True):
            top = self.at(side * half, shoulder)
            hand = (top[0] + (x - side * 1.2) * reach, top[1] + h * reach)
            self.line((top, hand), width, role)


def _head(b: Body, kind: str, h: float, role: str) -> None:
    if kind == "square":
        b.box(-2.9, h - 2.5, 2.9, h + 2.4, role)
    else:
        rx, rh = {"round": (2.8, 2.7), "egg": (2.4, 3.0), "big": (3.5, 3.2), "wide": (3.4, 2.3), "small": (2.0, 2.0)}[
            kind
        ]
        b.oval(0.2, h, rx, rh, role)


def _hat(b: Body, kind: str, h: float) -> None:
    """What is worn or grows on a head whose middle is at height h."""
    if kind == "cap":
        b.poly(
            ((-2.8, h + 0.8), (4.6, h + 0.6), (4.6, h + 1.5), (2.4, h + 1.8), (1.6, h + 3.0), (-1.8, h + 3.0)), "trim"
        )
    elif kind == "cone":
        b.poly(((-3.6, h + 1.4), (3.8, h + 1.4), (0.4, h + 6.4)), "trim")
    elif kind == "hair":
        b.poly(
            (
                (-3.2, h - 2.4),
                (-3.3, h + 2.0),
                (0, h + 3.4),
                (3.1, h + 2.2),
                (2.8, h + 1.1),
                (-1.0, h + 1.2),
                (-1.4, h - 2.0),
            ),
            "trim",
        )
    elif kind == "ponytail":
        b.poly(((-2.8, h + 0.6), (0, h + 3.2), (2.9, h + 1.2), (0, h + 1.2)), "trim")
        b.line((b.at(-2.4, h + 1.2), b.at(-4.6, h - 0.4), b.at(-4.2, h - 2.4)), 1.4, "trim")
    elif kind == "hood":
        b.poly(
            (
                (-3.0, h - 2.4),
                (-3.1, h + 1.8),
                (0.2, h + 3.2),
                (3.1, h + 1.8),
                (3.0, h + 0.9),
                (-0.6, h + 0.9),
                (-0.6, h - 1.0),
                (2.8, h - 1.0),
                (2.2, h - 2.6),
            ),
            "trim",
        )
    elif kind == "plume":
        b.line((b.at(0, h + 2.2), b.at(-0.6, h + 4.6), b.at(-3.0, h + 4.0)), 1.3, "body")
    elif kind == "crown":
        b.poly(
            (
                (-2.6, h + 1.6),
                (2.9, h + 1.6),
                (3.3, h + 4.6),
                (1.7, h + 3.2),
                (0.2, h + 4.9),
                (-1.4, h + 3.2),
                (-3.0, h + 4.6),
            ),
            "skin",
        )
    elif kind == "antenna":
        b.line((b.at(0.2, h + 2.0), b.at(0.2, h + 4.2)), 0.8, "trim")
        b.oval(0.2, h + 4.6, 0.9, 0.9, "trim")
    elif kind == "cat-ears":
        for side in (-1, 1):
            b.poly(((side * 0.8, h + 2.0), (side * 3.0, h + 1.2), (side * 2.8, h + 4.6)), "body")
    elif kind == "rabbit-ears":
        for side in (-1, 1):
            b.oval(side * 1.3, h + 4.4, 0.9, 2.6, "body")
    elif kind == "bear-ears":
        for side in (-1, 1):
            b.oval(side * 2.4, h + 2.2, 1.3, 1.3, "trim")
    elif kind == "horns":
        for side in (-1, 1):
            b.line((b.at(side * 1.8, h + 1.8), b.at(side * 3.0, h + 3.0), b.at(side * 2.6, h + 4.4)), 1.0, "trim")
    elif kind == "spikes":
        for i in range(3):
            b.poly(((-2.6 + i, h + 1.0 + i), (-3.6 + 1.6 * i, h + 2.6 + i), (-1.4 + i, h + 2.0 + 0.4 * i)), "trim")
    elif kind == "frog-eyes":
        for side in (-1, 1):
            b.oval(side * 1.8, h + 2.3, 1.3, 1.3, "body")


def _face(b: Body, kind: str, h: float) -> None:
    if b.back:
        return
    if kind == "eye":
        b.eyes((1.5, h + 0.2))
    elif kind == "eyes":
        b.eyes((-0.4, h + 0.3), (2.0, h + 0.3))
    elif kind == "visor":
        b.box(-0.4, h - 0.6, 3.0, h + 0.9, "eye")
    elif kind == "snout":
        b.oval(2.8, h - 0.8, 1.5, 1.1, "skin")
        b.eyes((1.0, h + 0.6))
    elif kind == "beak":
        b.poly(((2.4, h + 0.7), (5.0, h - 0.4), (2.4, h - 1.1)), "skin")
        b.eyes((1.3, h + 0.7))
    elif kind == "high":
        b.eyes((-1.6, h + 2.4), (2.0, h + 2.4))


def _biped(b: Body, head: str, hat: str, torso: str, tail: str, face: str, skin: str = "skin") -> None:
    """Legs, trunk, arms, head."""
    if tail == "tail":
        b.line((b.at(-1.4, 4.0), b.at(-4.2, 4.4), b.at(-4.4, 6.8)), 1.0, "body")
    elif tail == "bushy":
        b.oval(-3.8, 4.8, 1.9, 2.2, "body")
    elif tail == "puff":
        b.oval(-3.0, 4.0, 1.2, 1.1, "trim")
    elif tail == "dino":
        b.poly(((-1.0, 2.4), (-6.2, 1.2), (-1.2, 6.4)), "body")
    b.legs()
    if torso == "box":
        b.box(-2.1, 3.0, 2.1, 7.4)
    elif torso == "robe":
        b.poly(((-3.2, 0.9), (3.2, 0.9), (1.6, 7.4), (-1.6, 7.4)))
    elif torso == "dress":
        b.poly(((-3.1, 2.6), (3.1, 2.6), (1.3, 7.4), (-1.3, 7.4)))
    elif torso == "barrel":
        b.oval(0, 4.9, 2.9, 2.9)
    else:
        b.box(-1.4, 3.0, 1.4, 7.4)
    b.arms(role="body" if skin == "body" else "skin")
    middle = 9.6
    if hat in ("rabbit-ears", "bear-ears"):
        _hat(b, hat, middle)
    _head(b, head, middle, skin)
    if hat not in ("rabbit-ears", "bear-ears"):
        _hat(b, hat, middle)
    _face(b, face, middle)


def _lump(b: Body, kind: str) -> None:
    """One piece with eyes and short legs."""
    if kind not in ("ghost", "slime", "ball"):
        b.legs(hip=2.6, half=1.5, width=1.8)
    if kind not in ("slime", "ball", "star", "cactus"):
        b.arms(shoulder=5.6, half=3.0, width=1.4, reach=0.7)
    eye = 7.0
    if kind == "blob":
        b.oval(0, 5.9, 3.9, 4.4)
        b.line((b.at(0.2, 10.0), b.at(0.6, 11.6)), 1.2, "trim")
    elif kind == "ghost":
        skirt = 0.0 if b.pose in ("stand", "walk-b", "duck") else 1.0
        b.poly(((-3.7, 0.2), (-2.2, 1.4 - skirt), (-0.8, 0.2), (0.8, 1.4 - skirt), (2.2, 0.2), (3.7, 1.4 - skirt),
                (3.7, 7.4), (2.4, 10.2), (0, 11.2), (-2.4, 10.2), (-3.7, 7.4)))  # fmt: skip
        eye = 7.8
    elif kind == "slime":
        wide = {"walk-a": 4.9, "walk-b": 4.0, "rise": 3.6, "fall": 4.2, "duck": 5.4}.get(b.pose, 4.5)
        b.oval(0, 30 / wide / 2, wide, 30 / wide / 2)
        eye = 4.4
    elif kind == "egg":
        b.poly(
            (
                (-2.4, 1.8),
                (2.4, 1.8),
                (3.8, 4.6),
                (3.2, 8.0),
                (1.6, 10.6),
                (0, 11.2),
                (-1.6, 10.6),
                (-3.2, 8.0),
                (-3.8, 4.6),
            )
        )
    elif kind == "cube":
        b.box(-3.6, 2.0, 3.6, 9.4)
    elif kind == "slab":
        b.box(-2.6, 2.0, 2.6, 12.2)
        eye = 9.6
    elif kind == "triangle":
        b.poly(((-4.4, 1.8), (4.4, 1.8), (0, 11.6)))
        eye = 5.0
    elif kind == "diamond":
        b.poly(((0, 1.4), (4.2, 6.4), (0, 11.4), (-4.2, 6.4)))
    elif kind == "ball":
        b.oval(0, 4.3, 4.3, 4.3)
        turn = {"walk-a": 1.6, "walk-b": -1.6, "rise": 2.4, "fall": -2.4}.get(b.pose, 0.0)
        b.line((b.at(-3.4, 4.3 - turn), b.at(3.4, 4.3 + turn)), 1.3, "trim")
        eye = 5.6
    elif kind == "star":
        b.poly(
            (
                (-4.6, 7.4),
                (-1.3, 7.6),
                (0, 11.4),
                (1.3, 7.6),
                (4.6, 7.4),
                (2.0, 5.0),
                (2.8, 1.6),
                (0, 3.4),
                (-2.8, 1.6),
                (-2.0, 5.0),
            )
        )
        eye = 6.6
    elif kind == "mushroom":
        b.box(-2.0, 2.0, 2.0, 6.4, "skin")
        b.poly(((-4.4, 6.0), (4.4, 6.0), (3.6, 9.0), (0, 11.0), (-3.6, 9.0)))
        b.oval(-1.6, 8.2, 0.9, 0.9, "trim")
        b.oval(1.6, 8.6, 0.9, 0.9, "trim")
        eye = 4.8
    elif kind == "cactus":
        b.oval(0, 6.4, 2.3, 5.0)
        lift = {"rise": 2.0, "fall": -1.5, "walk-a": 0.8}.get(b.pose, 0.0)
        b.line((b.at(-2.0, 5.4), b.at(-4.0, 5.4), b.at(-4.0, 7.4 + lift)), 1.7, "body")
        b.line((b.at(2.0, 6.4), b.at(4.0, 6.4), b.at(4.0, 8.0 + lift)), 1.7, "body")
        b.oval(0, 11.6, 0.9, 0.8, "trim")
        eye = 8.4
    elif kind == "drop":
        b.poly(((-2.6, 2.0), (2.6, 2.0), (3.7, 4.6), (2.6, 7.2), (0.4, 12.0), (-2.6, 7.2), (-3.7, 4.6)))
        eye = 5.6
    if b.back:
        b.line((b.at(-1.6, eye - 1.2), b.at(1.6, eye - 0.8)), 1.1, "trim")
    b.eyes((-0.4, eye), (2.2, eye), size=0.65)


def _beast(b: Body, kind: str) -> None:
    """Four legs and a long body."""
    stride = {"walk-a": 1.5, "walk-b": -0.9, "rise": 1.8, "fall": 2.0, "climb": 1.2}.get(b.pose, 0.3)
    lift = {"rise": 0.9, "fall": 0.6, "climb": 1.2}.get(b.pose, 0.0)
    for x, way in ((-3.0, -1), (-2.0, 1), (2.0, -1), (3.0, 1)):
        b.line((b.at(x, 3.6), (x + way * stride, lift + 0.7)), 1.4, "trim")
    if kind == "turtle":
        b.oval(3.9, 4.6, 1.9, 1.7, "skin")
        b.poly(((-4.6, 2.6), (3.6, 2.6), (3.0, 5.8), (0.4, 7.8), (-2.6, 7.2), (-4.4, 5.0)))
        b.line((b.at(-2.6, 4.4), b.at(2.0, 4.6)), 0.9, "trim")
        b.eyes((4.5, 5.0))
        return
    tail = {"dog": (-5.6, 8.0), "pig": (-5.2, 6.4), "pony": (-6.0, 3.0), "mouse": (-6.4, 4.6)}[kind]
    b.line((b.at(-3.4, 5.0), b.at(*tail)), 0.9 if kind == "mouse" else 1.3, "trim" if kind == "pony" else "body")
    b.oval(-0.6, 4.6, 4.0, 2.2 if kind != "pig" else 2.7)
    reach = 8.8 if kind == "pony" else 6.9
    if kind == "pony":
        b.line((b.at(2.0, 5.0), b.at(3.4, 8.0)), 2.2, "body")
        b.line((b.at(1.4, 6.4), b.at(2.4, 9.6)), 1.2, "trim")
    b.oval(3.4, reach, 2.4, 1.9)
    if kind in ("dog", "pony"):
        b.line((b.at(2.2, reach + 1.4), b.at(1.6, reach + (2.8 if kind == "pony" else -0.8))), 1.2, "trim")
    else:
        b.oval(2.0, reach + 1.9, 1.3, 1.3, "skin")
    b.oval(5.4, reach - 0.5, 1.2, 1.0, "skin")
    b.eyes((3.9, reach + 0.5))
    if b.back:
        b.line((b.at(-2.4, 5.2), b.at(1.6, 5.2)), 1.3, "trim")


def _machine(b: Body, kind: str) -> None:
    turn = {"walk-a": 1.0, "walk-b": -1.0, "rise": 0.6, "fall": -0.6}.get(b.pose, 0.0)
    if kind == "wheel":
        b.oval(0, 2.4, 2.4, 2.4, "trim")
        b.line((b.at(-turn, 3.9), b.at(turn, 0.9)), 0.8, "skin")
        b.box(-3.0, 4.8, 3.0, 10.0)
        b.arms(shoulder=7.4, half=3.0, reach=0.7)
        _hat(b, "antenna", 8.6)
        _face(b, "visor", 8.2)
    elif kind == "tank":
        b.box(-4.6, 0.1, 4.6, 3.0, "trim")
        for x in (-3.0, 0.0, 3.0):
            b.oval(x + turn * 0.6, 1.5, 0.9, 0.9, "skin")
        b.box(-3.4, 3.0, 3.4, 6.4)
        b.oval(0, 7.0, 2.4, 2.4)
        aim = {"rise": 2.6, "fall": -1.4, "climb": 3.0}.get(b.pose, 0.4)
        b.line((b.at(1.4, 7.2), b.at(5.4, 7.2 + aim)), 1.3, "trim")
        b.eyes((1.0, 7.6))
    else:
        b.legs(hip=6.4, half=1.6, width=1.5)
        b.oval(0, 8.2, 3.8, 3.1)
        _face(b, "visor", 8.4)
        b.arms(shoulder=8.0, half=3.4, width=1.2, reach=0.8)


def _stick(b: Body, kind: str) -> None:
    """Lines alone, and a head."""
    b.legs(hip=4.2, half=0.1, width=0.0, role="line")
    if kind == "stick-dress":
        b.poly(((-2.6, 3.0), (2.6, 3.0), (0, 7.6)))
    elif kind == "stick-box":
        b.box(-1.7, 3.8, 1.7, 7.6)
    else:
        b.line((b.at(0, 4.2), b.at(0, 7.8)), 0.0, "line")
    b.arms(shoulder=6.9, half=0.1, width=0.0, role="line", reach=1.05)
    head = 3.0 if kind == "stick-head" else 2.3
    middle = 7.6 + head
    if kind == "stick-square":
        b.box(-2.1, middle - 2.0, 2.3, middle + 2.0, "head")
    else:
        b.oval(0.1, middle, head, head, "head")
    if kind == "stick-hat":
        b.poly(
            (
                (-2.9, middle + 1.2),
                (3.1, middle + 1.2),
                (2.0, middle + 1.8),
                (1.6, middle + 4.0),
                (-1.4, middle + 4.0),
                (-1.8, middle + 1.8),
            ),
            "trim",
        )
    elif kind == "stick-hair":
        for x in (-1.6, -0.6, 0.5, 1.5):
            b.line((b.at(x, middle + 1.7), b.at(x * 1.6, middle + 3.5)), 0.0, "line")
    elif kind == "stick-cat":
        _hat(b, "cat-ears", middle - 0.4)
        b.line((b.at(0, 4.4), b.at(-3.4, 4.6), b.at(-4.0, 7.0)), 0.0, "line")
    b.eyes((1.1, middle + 0.3), size=0.5)


_HEADS = {
    "person": ("round", "none", "box", "none", "eye"), "cap": ("round", "cap", "box", "none", "eye"),
    "hair": ("round", "hair", "box", "none", "eye"), "ponytail": ("round", "ponytail", "dress", "none", "eye"),
    "wizard": ("egg", "cone", "robe", "none", "eye"), "knight": ("square", "plume", "box", "none", "visor"),
    "astronaut": ("big", "none", "barrel", "none", "visor"), "ninja": ("round", "hood", "thin", "none", "eye"),
    "robot": ("square", "antenna", "box", "none", "visor"), "king": ("round", "crown", "robe", "none", "eye"),
    "alien": ("big", "antenna", "thin", "none", "eyes", "body"),
    "cat": ("round", "cat-ears", "box", "tail", "eyes", "body"),
    "rabbit": ("egg", "rabbit-ears", "barrel", "puff", "eye", "body"),
    "bear": ("round", "bear-ears", "barrel", "none", "snout", "body"),
    "fox": ("round", "cat-ears", "thin", "bushy", "snout", "body"),
    "dinosaur": ("egg", "spikes", "barrel", "dino", "snout", "body"),
    "imp": ("round", "horns", "box", "tail", "eyes", "body"),
    "bird": ("round", "none", "barrel", "puff", "beak", "body"),
    "frog": ("wide", "frog-eyes", "barrel", "none", "high", "body"),
}  # fmt: skip


def _walker(b: Body, kind: str) -> None:
    _biped(b, *_HEADS[kind])


_LUMPS = (
    "blob", "ghost", "slime", "egg", "cube", "slab", "triangle", "diamond", "ball", "star", "mushroom", "cactus",
    "drop",
)  # fmt: skip
STICKS = (
    "stick", "stick-head", "stick-hat", "stick-hair", "stick-box", "stick-dress", "stick-square", "stick-cat",
)  # fmt: skip
KINDS: dict[str, Callable[[Body], None]] = {
    **{name: partial(_walker, kind=name) for name in _HEADS},
    **{name: partial(_lump, kind=name) for name in _LUMPS},
    **{name: partial(_beast, kind=name) for name in ("dog", "pig", "turtle", "pony", "mouse")},
    **{name: partial(_machine, kind=name) for name in ("wheel", "tank", "walker")},
    **{name: partial(_stick, kind=name) for name in STICKS},
}
SCENE_KINDS = tuple(kind for kind in KINDS if kind not in STICKS)


def parts(kind: str, pose: str) -> list[Part]:
    """The parts of an avatar in a pose."""
    body = Body(pose)
    KINDS[kind](body)
    return body.parts
