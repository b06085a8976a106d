"""Opening a file by typing where it is; what fits is listed below, Tab completes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from genie_play.play.items import (
    ACCENT,
    BODY,
    DIM,
    FAINT,
    INK,
    LARGE,
    LINE,
    PANEL,
    RAISED,
    SCRIM,
    SMALL,
    Box,
    Canvas,
    Event,
    Item,
    Key,
    Mouse,
    Rect,
)
from genie_play.play.widgets import TextField

SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gplay", ".safetensors"}
SHOWN = 10


@dataclass
class OpenScreen:
    """A text field for a path. A choice is "path PATH"; `wanted` is what a job should list next."""

    line: TextField = field(default_factory=TextField)
    found: list[str] = field(default_factory=list)
    wanted: str | None = None
    at: int = -1
    typing: bool = True
    rows: list[Rect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wanted = self.line.text

    def fill(self, text: str, found: list[str]) -> None:
        """Show what begins like `text`, unless the person typed on meanwhile."""
        if text == self.line.text:
            self.found, self.at = found, -1

    def handle(self, event: Event) -> str:
        if isinstance(event, Mouse):
            below = next((i for i, rect in enumerate(self.rows) if rect.holds(event.pos)), -1)
            if below >= 0 and event.kind in ("move", "down"):
                self.at = below
            return self._take(self.found[below]) if below >= 0 and event.kind == "down" else ""
        if isinstance(event, Key) and event.down:
            if event.key in ("return", "enter"):
                return self._take(self.found[self.at] if self.at >= 0 else self.line.text)
            if event.key == "tab" and self.found:
                self._put(_common_start(self.found) if self.at < 0 else self.found[self.at])
                return ""
            if event.key in ("up", "down") and self.found:
                step = 1 if event.key == "down" else -1
                self.at = (
                    (self.at + step) % len(self.found) if self.at >= 0 else (0 if step > 0 else len(self.found) - 1)
                )
                return ""
        if self.line.handle(event):
            self.wanted = self.line.text
        return ""

    def draw(self, canvas: Canvas) -> list[Item]:
        px = canvas.px
        width = min(px(720), canvas.width - px(40))
        panel = Rect((canvas.width - width) // 2, px(90), width, px(170) + px(30) * SHOWN)
        place = Rect(panel.x + px(28), panel.y + px(66), width - px(56), px(46))
        items: list[Item] = [
            Box(canvas.rect, SCRIM),
            Box(panel, PANEL, px(14)),
            Box(panel, LINE, px(14), max(px(1), 1)),
        ]
        items.append(canvas.text("Open a picture, a replay or a world", place.x, panel.y + px(38), LARGE))
        items += self.line.draw(canvas, place, "path of a file")
        self.rows = []
        for i, path in enumerate(self.found):
            row = Rect(place.x, place.bottom + px(12) + i * px(30), place.w, px(28))
            self.rows.append(row)
            items += [Box(row, RAISED, px(6))] if i == self.at else []
            name = os.path.basename(path.rstrip("/\\")) + ("/" if path.endswith(("/", "\\")) else "")
            text = canvas.fit(name, row.w - px(24), BODY)
            items.append(canvas.text(text, row.x + px(16), row.center[1], BODY, INK if i == self.at else DIM))
        if self.line.text and not self.found and self.wanted is None:
            nothing = "no picture, replay or world begins like this"
            items.append(canvas.text(nothing, place.x + px(16), place.bottom + px(28), SMALL, FAINT))
        hint = "Enter opens   Tab completes   Esc goes back"
        items.append(canvas.text(hint, place.x, panel.bottom - px(22), SMALL, FAINT))
        return [*items, Box(Rect(panel.x, panel.y + px(14), px(4), panel.h - px(28)), ACCENT, px(2))]

    def _take(self, path: str) -> str:
        """Choose a file, or go into a folder."""
        if path.endswith(("/", os.sep)):
            self._put(path)
            return ""
        return f"path {path}" if path.strip() else ""

    def _put(self, text: str) -> None:
        self.line.text = self.wanted = text


def _common_start(texts: list[str]) -> str:
    """The characters that all of them begin with."""
    low, high = min(texts), max(texts)
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:same]


def list_paths(text: str) -> list[str]:
    """Files that can be opened and folders whose path begins like `text`. Reads the disk, so let a job do it."""
    whole = os.path.expanduser(text)
    folder, start = os.path.split(whole)
    found = []
    try:
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                if not entry.name.lower().startswith(start.lower()) or (entry.name.startswith(".") and not start):
                    continue
                if entry.is_dir():
                    found.append(os.path.join(folder, entry.name) + os.sep)
                elif Path(entry.name).suffix.lower() in SUFFIXES:
                    found.append(os.path.join(folder, entry.name))
    except OSError:
        return []
    return sorted(found, key=str.lower)[:SHOWN]
