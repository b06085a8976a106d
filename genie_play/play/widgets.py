"""A few widgets that work by keyboard and mouse: focus, menu, text field, toasts. Know items and events only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from genie_play.play.items import (
    ACCENT,
    BODY,
    DIM,
    FAINT,
    INK,
    LARGE,
    LINE,
    NIGHT,
    PANEL,
    RAISED,
    SCRIM,
    SMALL,
    Box,
    Canvas,
    Color,
    Event,
    Item,
    Key,
    Mouse,
    Rect,
    Typed,
)


@dataclass
class Focus:
    """Which of several targets has the keyboard: arrows go to the nearest that way, the mouse to the one below."""

    targets: dict[str, Rect] = field(default_factory=dict)
    at: str = ""

    def set(self, targets: dict[str, Rect]) -> None:
        """Where the targets are now; the first gets the focus if the old one is gone."""
        self.targets = targets
        if self.at not in targets:
            self.at = next(iter(targets), "")

    def handle(self, event: Event) -> str:
        """Move the focus; the name of the target that was chosen, or ""."""
        if isinstance(event, Mouse):
            below = next((name for name, rect in self.targets.items() if rect.holds(event.pos)), "")
            self.at = below if below and event.kind in ("move", "down") else self.at
            return below if event.kind == "down" else ""
        if not isinstance(event, Key) or not event.down:
            return ""
        if event.key in ("return", "enter", "space") and not event.repeat and not event.mods & {"alt", "ctrl"}:
            return self.at
        way = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(event.key)
        if way is not None:
            self.move(*way)
        elif event.key == "tab":
            names = list(self.targets)
            step = -1 if "shift" in event.mods else 1
            self.at = names[(names.index(self.at) + step) % len(names)] if names else ""
        return ""

    def move(self, dx: int, dy: int) -> None:
        """To the nearest target in a direction; sideways distance counts double."""
        if self.at not in self.targets:
            return
        x, y = self.targets[self.at].center
        best = None
        for name, rect in self.targets.items():
            ahead = (rect.center[0] - x) * dx + (rect.center[1] - y) * dy
            aside = abs((rect.center[0] - x) * dy) + abs((rect.center[1] - y) * dx)
            if ahead > 0 and (best is None or ahead + 2 * aside < best[0]):
                best = (ahead + 2 * aside, name)
        self.at = best[1] if best else self.at


@dataclass
class Choice:
    """A line of a menu."""

    name: str
    text: str
    hint: str = ""


@dataclass
class Menu:
    """A column of choices in the middle of the window."""

    title: str
    choices: Sequence[Choice]
    focus: Focus = field(default_factory=Focus)

    def draw(self, canvas: Canvas) -> list[Item]:
        px = canvas.px
        row, pad = px(44), px(22)
        width = min(px(460), canvas.width - 2 * pad)
        height = px(74) + row * len(self.choices) + pad
        panel = Rect((canvas.width - width) // 2, max((canvas.height - height) // 2, 0), width, height)
        items: list[Item] = [
            Box(canvas.rect, SCRIM),
            Box(panel, PANEL, px(14)),
            Box(panel, LINE, px(14), max(px(1), 1)),
        ]
        items.append(canvas.text(self.title, panel.x + pad + px(12), panel.y + px(42), LARGE))
        rects = {}
        for i, choice in enumerate(self.choices):
            rects[choice.name] = Rect(panel.x + pad, panel.y + px(74) + i * row, width - 2 * pad, row - px(4))
        self.focus.set(rects)
        for choice in self.choices:
            rect, on = rects[choice.name], choice.name == self.focus.at
            if on:
                items += [Box(rect, RAISED, px(8)), Box(Rect(rect.x, rect.y, px(4), rect.h), ACCENT, px(2))]
            y = rect.center[1]
            items.append(canvas.text(choice.text, rect.x + px(16), y, BODY, INK if on else DIM))
            items.append(canvas.text(choice.hint, rect.right - px(14), y, SMALL, DIM if on else FAINT, "right"))
        return items


@dataclass
class TextField:
    """A line to type in. It owns the keyboard while it has it."""

    text: str = ""

    def handle(self, event: Event) -> bool:
        """Take a key or typed characters; whether the text changed."""
        before = self.text
        if isinstance(event, Typed):
            self.text += "".join(c for c in event.text if c.isprintable())
        elif isinstance(event, Key) and event.down and event.key == "backspace":
            if event.mods & {"ctrl", "alt"}:
                head = self.text.rstrip("/\\ ")
                self.text = head[: max(head.rfind(c) for c in "/\\ ") + 1]
            else:
                self.text = self.text[:-1]
        return self.text != before

    def draw(self, canvas: Canvas, rect: Rect, hint: str = "") -> list[Item]:
        px = canvas.px
        shown, room = self.text, rect.w - px(36)
        while shown and canvas.width_of(shown) > room:
            shown = shown[1:]
        y = rect.center[1]
        items: list[Item] = [Box(rect, NIGHT, px(8)), Box(rect, ACCENT, px(8), max(px(2), 1))]
        items.append(canvas.text(shown or hint, rect.x + px(16), y, BODY, INK if shown else FAINT))
        if int(canvas.now * 2) % 2 == 0:
            caret = rect.x + px(17) + (canvas.width_of(shown) if shown else 0)
            items.append(Box(Rect(caret, y - px(11), max(px(2), 1), px(22)), ACCENT))
        return items


@dataclass
class Toasts:
    """Short messages that go by themselves; a new one with the same text takes the old one's place."""

    shown: list[tuple[str, Color, float]] = field(default_factory=list)

    def say(self, text: str, now: float, color: Color = ACCENT, seconds: float = 4.0) -> None:
        """Show a message for some seconds."""
        kept = [toast for toast in self.shown if toast[0] != text and toast[2] > now]
        self.shown = [*kept[-2:], (text, color, now + seconds)]

    def draw(self, canvas: Canvas, bottom: int) -> list[Item]:
        px = canvas.px
        self.shown = [toast for toast in self.shown if toast[2] > canvas.now]
        items: list[Item] = []
        for text, color, _ in reversed(self.shown):
            lines = canvas.wrap(text, min(px(620), canvas.width - px(80)))
            width = max(canvas.width_of(line) for line in lines) + px(44)
            height = px(24) * len(lines) + px(18)
            bottom -= height + px(8)
            rect = Rect((canvas.width - width) // 2, bottom, width, height)
            items += [Box(rect, RAISED, px(10)), Box(Rect(rect.x, rect.y, px(5), height), color, px(2))]
            for i, line in enumerate(lines):
                items.append(canvas.text(line, rect.x + px(24), rect.y + px(21) + i * px(24)))
        return items
