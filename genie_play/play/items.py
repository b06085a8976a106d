"""What passes between the window and the screens: flat items to paint, plain events, the theme.

Screens say what is to be seen as a list of items; the window paints a list when it differs from the last. Knows nothing
of pygame, worlds or engines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from genie_play.types import Pixels

Color: TypeAlias = tuple[int, ...]  # red, green, blue and, for boxes, opacity

NIGHT = (17, 19, 25)
PANEL = (26, 29, 38)
RAISED = (38, 43, 55)
LINE = (54, 60, 75)
FAINT = (104, 113, 132)
DIM = (158, 167, 184)
INK = (233, 236, 242)
ACCENT = (86, 180, 233)
GOOD = (0, 158, 115)
ALARM = (230, 98, 40)
SCRIM = (10, 12, 16, 205)

# colours of Okabe and Ito, told apart by every kind of eye; the slots, clockwise from N, each with a shape of its own
SLOT_COLORS = (
    (240, 228, 66), (230, 159, 0), (86, 180, 233), (204, 121, 167),
    (205, 210, 220), (70, 130, 220), (0, 158, 115), (213, 94, 0),
)  # fmt: skip
SLOT_SHAPES = ("triangle", "star", "circle", "hexagon", "square", "diamond", "pentagon", "cross")

SMALL, BODY, LARGE, TITLE = 15, 18, 24, 38


class Rect(NamedTuple):
    """A rectangle in window pixels."""

    x: int
    y: int
    w: int
    h: int

    @property
    def right(self) -> int:
        return self.x + self.w

    @property
    def bottom(self) -> int:
        return self.y + self.h

    @property
    def center(self) -> tuple[int, int]:
        return self.x + self.w // 2, self.y + self.h // 2

    def grow(self, n: int) -> Rect:
        """Larger by n on every side; smaller for a negative n."""
        return Rect(self.x - n, self.y - n, self.w + 2 * n, self.h + 2 * n)

    def holds(self, point: tuple[int, int]) -> bool:
        """Whether a point lies in it."""
        return self.x <= point[0] < self.right and self.y <= point[1] < self.bottom


@dataclass(frozen=True)
class Box:
    """A rectangle with round corners; `outline` is the width of its border, 0 fills it."""

    rect: Rect
    color: Color
    radius: int = 0
    outline: int = 0


@dataclass(frozen=True)
class Text:
    """One line of text; `y` is the middle of its height, `anchor` says which end `x` is."""

    text: str
    x: int
    y: int
    size: int
    color: Color = INK
    anchor: str = "left"  # left | center | right


@dataclass(frozen=True)
class Shape:
    """One of SLOT_SHAPES, or an arrow, a ring, a play or pause sign, around a centre."""

    name: str
    x: int
    y: int
    radius: int
    color: Color
    outline: int = 0


@dataclass(frozen=True)
class Hatch:
    """Slanted lines along the border of a rectangle: what is inside has stopped."""

    rect: Rect
    color: Color
    width: int


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels (H, W, 3), as large as the rectangle, without smoothing. Equal only to one of the very same array."""

    rect: Rect
    pixels: Pixels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and self.rect == other.rect and self.pixels is other.pixels

    def __hash__(self) -> int:
        return hash((self.rect, id(self.pixels)))


Item: TypeAlias = Box | Text | Shape | Hatch | Picture


@dataclass(frozen=True)
class Key:
    """A key went down or up. `key` is its name on the person's board."""

    scancode: int
    key: str
    down: bool = True
    mods: frozenset[str] = frozenset()  # of ctrl, alt, shift
    repeat: bool = False


@dataclass(frozen=True)
class Typed:
    """Characters for a text field."""

    text: str


@dataclass(frozen=True)
class Mouse:
    """The mouse did something at a place."""

    kind: str  # move | down | up | wheel
    pos: tuple[int, int] = (0, 0)
    amount: int = 0  # of the wheel, upwards


@dataclass(frozen=True)
class Dropped:
    """A file, or text that may name one, was dropped on the window."""

    text: str


@dataclass(frozen=True)
class Focused:
    """The window got or lost the keyboard."""

    gained: bool


@dataclass(frozen=True)
class Resized:
    """The window has another size."""


@dataclass(frozen=True)
class Closed:
    """The person closed the window."""


Event: TypeAlias = Key | Typed | Mouse | Dropped | Focused | Resized | Closed


@dataclass(frozen=True)
class Canvas:
    """How large the window is, how large things in it should be, how wide a text is, and what time it is."""

    width: int
    height: int
    scale: float
    measure: Callable[[str, int], int]
    now: float

    @property
    def rect(self) -> Rect:
        """All of it."""
        return Rect(0, 0, self.width, self.height)

    def px(self, n: float) -> int:
        """A length on a screen of scale 1, in pixels here."""
        return round(n * self.scale)

    def text(self, text: str, x: int, y: int, size: int = BODY, color: Color = INK, anchor: str = "left") -> Text:
        """A line of text, its size given for scale 1."""
        return Text(text, x, y, self.px(size), color, anchor)

    def width_of(self, text: str, size: int = BODY) -> int:
        """Its width in pixels."""
        return self.measure(text, self.px(size))

    def fit(self, text: str, width: int, size: int = BODY) -> str:
        """The text, cut with an ellipsis where it is too wide."""
        if self.width_of(text, size) <= width:
            return text
        while text and self.width_of(text + "…", size) > width:
            text = text[:-1]
        return text.rstrip() + "…"

    def wrap(self, text: str, width: int, size: int = BODY) -> list[str]:
        """Lines no wider than that, broken between words."""
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.width_of(longer, size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        return lines


def mix(a: Color, b: Color, share: float) -> Color:
    """A colour between two; share 0 is the first."""
    share = min(max(share, 0.0), 1.0)
    return tuple(round(x + (y - x) * share) for x, y in zip(a[:3], b[:3], strict=True))


def place_world(area: Rect, size: tuple[int, int]) -> Rect:
    """Where pixels of size (height, width) go in an area: centred, at the largest whole scale, or shrunk to fit."""
    height, width = size
    scale: float = min(area.w // width, area.h // height)
    if scale < 1:
        scale = max(min(area.w / width, area.h / height), 1 / max(width, height))
    w, h = max(int(width * scale), 1), max(int(height * scale), 1)
    return Rect(area.x + (area.w - w) // 2, area.y + (area.h - h) // 2, w, h)
