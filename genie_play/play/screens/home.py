"""The gallery: pictures to start from, play-throughs to go on with, worlds to play them in."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from genie_play import checkpoint, paths
from genie_play.media import pictures
from genie_play.play.items import (
    ACCENT,
    BODY,
    DIM,
    FAINT,
    INK,
    LARGE,
    NIGHT,
    PANEL,
    RAISED,
    SMALL,
    TITLE,
    Box,
    Canvas,
    Event,
    Item,
    Mouse,
    Picture,
    Rect,
    place_world,
)
from genie_play.play.widgets import Focus
from genie_play.types import GenieError, Pixels

RECENT = 12  # play-throughs shown
HEAD = 104  # height of the head, which stays while the shelves scroll
BUTTONS = {"open": "Open a file …", "paste": "Paste"}
THUMB = 112  # pixels on the long side of a thumbnail
_HEAD = 4 << 20  # bytes of a replay's first line that are read for its picture


@dataclass(frozen=True)
class Entry:
    """Something to play: a picture, a replay, or a world."""

    name: str  # what is chosen: "picture PATH", "replay PATH", "world NAME"
    title: str
    pixels: Pixels | None = None


@dataclass
class Shelf:
    """Entries of one kind."""

    title: str
    entries: list[Entry] = field(default_factory=list)


class HomeScreen:
    """Shelves of thumbnails; a choice is the entry's name, or "open" or "paste"."""

    typing = False

    def __init__(self) -> None:
        self.shelves: list[Shelf] = []
        self.loading = True
        self.focus = Focus()
        self._scroll = self._overflow = self._top = 0
        self._follow = False  # a key moved the focus: scroll to it

    def fill(self, shelves: list[Shelf]) -> None:
        """Show what was found."""
        self.shelves, self.loading = shelves, False
        self.focus.at = shelves[0].entries[0].name if shelves else ""

    def handle(self, event: Event) -> str:
        if isinstance(event, Mouse):
            if event.kind == "wheel":
                self._scroll = min(max(self._scroll - 60 * event.amount, 0), self._overflow)
                return ""
            # what was scrolled under the head cannot be reached there
            if event.pos[1] < self._top and not any(self.focus.targets[n].holds(event.pos) for n in BUTTONS):
                return ""
            return self.focus.handle(event)
        before = self.focus.at
        chosen = self.focus.handle(event)
        self._follow = self._follow or self.focus.at != before
        return chosen

    def draw(self, canvas: Canvas) -> list[Item]:
        margin = max((canvas.width - canvas.px(1040)) // 2, canvas.px(28))
        rects: dict[str, Rect] = {}
        head = self._head(canvas, margin, rects)
        body = self._body(canvas, margin, canvas.width - 2 * margin, rects)
        self.focus.set(rects)
        self._keep_in_view(canvas, rects)
        return [Box(canvas.rect, NIGHT), *body, *head]

    def _head(self, canvas: Canvas, margin: int, rects: dict[str, Rect]) -> list[Item]:
        px, self._top = canvas.px, canvas.px(HEAD)
        items: list[Item] = [Box(Rect(0, 0, canvas.width, self._top), NIGHT)]
        items.append(canvas.text("Genie Play", margin, px(46), TITLE))
        items.append(canvas.text("A picture is a world. Choose one, drop one, paste one.", margin, px(80), SMALL, DIM))
        right = canvas.width - margin
        for name, text in BUTTONS.items():
            width = canvas.width_of(text) + px(36)
            rect = rects[name] = Rect(right - width, px(34), width, px(40))
            right -= width + px(10)
            on = self.focus.at == name
            items.append(Box(rect, RAISED if on else PANEL, px(8)))
            items += [Box(rect, ACCENT, px(8), px(2))] if on else []
            items.append(canvas.text(text, *rect.center, BODY, INK if on else DIM, "center"))
        return items

    def _body(self, canvas: Canvas, margin: int, inside: int, rects: dict[str, Rect]) -> list[Item]:
        px = canvas.px
        items: list[Item] = []
        columns = max(inside // px(172), 1)
        cell, gap = (inside - (columns - 1) * px(14)) // columns, px(14)
        y = px(HEAD + 14) - self._scroll
        if self.loading:
            items.append(canvas.text("Looking for pictures …", margin, y + px(20), LARGE, FAINT))
        for shelf in self.shelves:
            items.append(canvas.text(shelf.title, margin, y + px(14), 18, DIM))
            y += px(34)
            small = all(entry.pixels is None for entry in shelf.entries)
            tall = px(52) if small else round(cell * 0.75) + px(34)
            for n, entry in enumerate(shelf.entries):
                rect = Rect(margin + n % columns * (cell + gap), y + n // columns * (tall + gap), cell, tall)
                rects[entry.name] = rect
                items += self._entry(canvas, entry, rect)
            y += -(-len(shelf.entries) // columns) * (tall + gap) + px(16)
        self._overflow = max(y + self._scroll - canvas.height + px(10), 0)
        return items

    def _entry(self, canvas: Canvas, entry: Entry, rect: Rect) -> list[Item]:
        px, on = canvas.px, entry.name == self.focus.at
        items: list[Item] = [Box(rect, RAISED if on else PANEL, px(10))]
        if on:
            items.append(Box(rect, ACCENT, px(10), px(3)))
        label = rect.bottom - px(18) if entry.pixels is not None else rect.center[1]
        if entry.pixels is not None:
            frame = Rect(rect.x + px(8), rect.y + px(8), rect.w - px(16), rect.h - px(42))
            height, width = entry.pixels.shape[:2]
            scale = min(frame.w / width, frame.h / height)
            place = place_world(frame, (height, width))
            if place.w < 0.8 * width * scale:
                w, h = int(width * scale), int(height * scale)
                place = Rect(frame.x + (frame.w - w) // 2, frame.y + (frame.h - h) // 2, w, h)
            items.append(Picture(place, entry.pixels))
        text = canvas.fit(entry.title, rect.w - px(16), SMALL)
        items.append(canvas.text(text, rect.center[0], label, SMALL, INK if on else DIM, "center"))
        return items

    def _keep_in_view(self, canvas: Canvas, rects: dict[str, Rect]) -> None:
        """Scroll to what has the focus, where a key put it there."""
        rect = rects.get(self.focus.at)
        if not self._follow or rect is None or self.focus.at in BUTTONS:
            return
        self._follow = False
        top, bottom = canvas.px(150), canvas.height - canvas.px(20)
        if rect.y < top:
            self._scroll = max(self._scroll - (top - rect.y), 0)
        elif rect.bottom > bottom:
            self._scroll = min(self._scroll + rect.bottom - bottom, self._overflow)


def find_shelves(world: str, size: tuple[int, int]) -> list[Shelf]:
    """What there is to play. Reads files, so let a job do it."""
    thumb = (max(size[0] * THUMB // max(size), 1), max(size[1] * THUMB // max(size), 1))
    shelves = [
        Shelf("Pictures", _prompts(thumb)),
        Shelf("Where you have been", _replays(world)),
        Shelf("Worlds", _worlds(world)),
    ]
    return [shelf for shelf in shelves if shelf.entries]


def prompt_files() -> list[Path]:
    """The pictures that come with the program."""
    folder = paths.assets() / "prompts"
    found = folder.rglob("*") if folder.is_dir() else iter(())
    return sorted(path for path in found if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".gif"))


def _prompts(thumb: tuple[int, int]) -> list[Entry]:
    entries = []
    for path in prompt_files():
        try:
            with Image.open(path) as image:
                # a look is enough here: the prompt itself is made with more care
                small = ImageOps.fit(image.convert("RGB"), thumb[::-1], Image.Resampling.BOX)
        except (OSError, ValueError, SyntaxError):
            continue
        entries.append(Entry(f"picture {path}", _title(path.stem), np.array(small)))
    return entries


def _replays(current: str) -> list[Entry]:
    folder = paths.sessions()
    if not folder.is_dir():
        return []
    today = time.strftime("%d %b ")
    newest = sorted(folder.glob("*.gplay"), key=_changed, reverse=True)[:RECENT]
    entries = []
    for path in newest:
        when = time.strftime("%d %b %H:%M", time.localtime(_changed(path))).replace(today, "today ")
        world = path.stem.split("_")[0]
        title = when if world == current else f"{world}, {when}"
        entries.append(Entry(f"replay {path}", title, _first_picture(path)))
    return [entry for entry in entries if entry.pixels is not None]


def _worlds(current: str) -> list[Entry]:
    names: Sequence[str] = [*checkpoint.names(), "platformer"]
    if len({*names, current}) < 2:
        return []
    return [Entry(f"world {name}", name + (" (this one)" if name == current else "")) for name in names]


def _first_picture(path: Path) -> Pixels | None:
    """The prompt of a replay, read from its first line alone."""
    try:
        with open(path, "rb") as file:
            png = json.loads(file.readline(_HEAD))["prompt"]["png"]
        return pictures.from_png(base64.b64decode(png if isinstance(png, str) else png[-1]))
    except (OSError, ValueError, KeyError, TypeError, IndexError, GenieError):
        return None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _title(stem: str) -> str:
    return stem.replace("_", " ").replace("-", " ").strip().capitalize()
