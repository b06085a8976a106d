"""The play screen: the world, the compass, the status line, the timeline. What the keys do is the player's business."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from genie_play.play.items import (
    ACCENT,
    ALARM,
    BODY,
    DIM,
    FAINT,
    GOOD,
    INK,
    LARGE,
    LINE,
    NIGHT,
    PANEL,
    RAISED,
    SLOT_COLORS,
    SLOT_SHAPES,
    SMALL,
    Box,
    Canvas,
    Hatch,
    Item,
    Picture,
    Rect,
    Shape,
    place_world,
)
from genie_play.play.keymap import SLOTS
from genie_play.play.player import Player
from genie_play.play.screens import statistics
from genie_play.play.screens.compass import PLACES, Compass
from genie_play.play.tape import Tape
from genie_play.play.widgets import Toasts
from genie_play.types import Pixels

TOP, BOTTOM = 52, 62  # heights of the bars


@dataclass
class PlayScreen:
    """All that is seen while playing. The fields are kept up to date by the loop."""

    player: Player
    world: str
    toasts: Toasts = field(default_factory=Toasts)
    tape: Tape | None = None
    preview: Pixels | None = None  # the picture to be played, while the engine loads
    now: float = 0.0
    since: float = 0.0  # when the tape began
    recording: str = ""  # of a long recording: its time and size
    statistics: bool = False
    timeline: Rect | None = None

    def __post_init__(self) -> None:
        self.compass = Compass(self.player)

    def play_tape(self, tape: Tape | None) -> None:
        """Show a tape, from its start, until somebody plays."""
        self.tape, self.since = tape, self.now

    def leave_tape(self, count: int) -> tuple[int, NDArray[np.uint8]]:
        """End the tape: the number of the frame on the screen, and the last pictures up to it, (K, H, W, 3)."""
        assert self.tape is not None
        tape, seconds, self.tape = self.tape, self.now - self.since, None
        return tape.at(seconds), tape.last(seconds, count)

    def seek(self, pos: tuple[int, int]) -> int | None:
        """The step at a place of the timeline; None beside it."""
        session, line = self.player.session, self.timeline
        if session is None or not session.started or line is None or not line.holds(pos) or not session.length:
            return None
        return round((pos[0] - line.x) / max(line.w, 1) * session.length)

    def draw(self, canvas: Canvas) -> list[Item]:
        px = canvas.px
        area = Rect(0, px(TOP), canvas.width, max(canvas.height - px(TOP) - px(BOTTOM), 1)).grow(-px(12))
        items = self._status(canvas)
        pixels, taped = self._pixels(canvas.now)
        if pixels is not None:
            rect = place_world(area, (pixels.shape[0], pixels.shape[1]))
            if self.player.wants_futures and self.player.started:
                items += self._futures(canvas, area, pixels)
            else:
                items += self._world(canvas, rect, pixels, taped)
        else:
            rect = place_world(area, (1, 1))
            items += self._blank(canvas, rect)
        items += self.compass.draw(canvas, area, rect)
        items += self._bottom(canvas)
        if self.statistics:
            items += statistics.draw(canvas, self.player, area)
        if self.player.problem:
            items += self._stopped(canvas, rect)
        return items + self.toasts.draw(canvas, canvas.height - px(BOTTOM) - px(14))

    # parts

    def _pixels(self, now: float) -> tuple[Pixels | None, bool]:
        """What to show, and whether it is the tape."""
        player = self.player
        if player.picture is not None and (player.touched or self.tape is None):
            return player.picture, False
        if self.tape is not None and not player.touched:
            return self.tape.frame(now - self.since), True
        if self.preview is not None:
            return self.preview, False
        return (self.tape.frame(now - self.since), True) if self.tape is not None else (None, False)

    def _world(self, canvas: Canvas, rect: Rect, pixels: Pixels, taped: bool) -> list[Item]:
        px, player = canvas.px, self.player
        edge = ACCENT if player.paused or player.rewinding else LINE
        items: list[Item] = [Box(rect.grow(px(2)), edge, 0), Picture(rect, pixels)]
        if player.rewinding or player.paused:
            name = "rewind" if player.rewinding else "pause"
            x, y = rect.x + px(30), rect.y + px(30)
            items += [Shape("circle", x, y, px(19), NIGHT), Shape(name, x, y, px(10), INK)]
        if taped:
            ready = player.engine.ready and player.started
            words = "tape: recorded earlier" + ("" if ready else f" · {player.words} …")
            items += _caption(canvas, rect, words, self._call() if ready or not player.keys.tap else "at once …")
        elif not player.started and not player.engine.dead:
            items += _caption(canvas, rect, f"{player.words} …", "")
        elif not player.touched:
            items += _caption(canvas, rect, "", self._call())
        if not player.started and not player.engine.dead:
            items += _working(canvas, rect)
        return items

    def _call(self) -> str:
        """The line that asks for a first key, in the letters of the person's own board."""
        name = self.player.keys.name
        return f"Press {name('N')} {name('W')} {name('S')} {name('E')} to take over, or drop a picture"

    def _blank(self, canvas: Canvas, rect: Rect) -> list[Item]:
        x, y = rect.center
        items: list[Item] = [Box(rect, PANEL, canvas.px(10))]
        if not self.player.engine.dead:
            items.append(canvas.text(f"{self.player.words} …", x, y, LARGE, DIM, "center"))
            items += _working(canvas, rect)
        return items

    def _stopped(self, canvas: Canvas, rect: Rect) -> list[Item]:
        px = canvas.px
        lines = canvas.wrap(self.player.problem, min(rect.w, canvas.width) - px(80))
        height = px(26) * len(lines) + px(76)
        panel = Rect(rect.x + px(20), rect.center[1] - height // 2, rect.w - px(40), height)
        items: list[Item] = [Hatch(rect, ALARM, px(18)), Box(panel, PANEL, px(10)), Box(panel, ALARM, px(10), px(2))]
        for i, line in enumerate(lines):
            items.append(canvas.text(line, rect.center[0], panel.y + px(30) + i * px(26), BODY, INK, "center"))
        hint = (
            "Your play-through is safe. Esc opens the menu."
            if self.player.started
            else "R tries again. Esc opens the menu."
        )
        return [*items, canvas.text(hint, rect.center[0], panel.bottom - px(28), SMALL, DIM, "center")]

    def _futures(self, canvas: Canvas, area: Rect, pixels: Pixels) -> list[Item]:
        """The frame in the middle and what each slot would give around it."""
        px, player = canvas.px, self.player
        gap = px(10)
        cell = Rect(0, 0, (area.w - 2 * gap) // 3, (area.h - 2 * gap) // 3)
        size = place_world(cell, (pixels.shape[0], pixels.shape[1]))
        x, y = area.center
        items: list[Item] = []
        for slot, (dx, dy) in {"": (0.0, 0.0), **PLACES}.items():
            column, row = round(dx), round(dy)
            rect = Rect(
                x - size.w // 2 + column * (size.w + gap), y - size.h // 2 + row * (size.h + gap), size.w, size.h
            )
            if not slot:
                items += [Box(rect.grow(px(3)), ACCENT), Picture(rect, pixels)]
                continue
            i = SLOTS.index(slot)
            future = player.futures.get(player.keys.codes[i])
            items.append(Box(rect.grow(px(1)), LINE if future is not None else PANEL))
            if future is not None:
                items.append(Picture(rect, future))
            bx, by = rect.x + px(20), rect.y + px(20)
            items.append(Shape("circle", bx, by, px(18), NIGHT))
            items.append(Shape(SLOT_SHAPES[i], bx, by, px(15), SLOT_COLORS[i]))
            items.append(canvas.text(player.keys.name(slot), bx, by, 13, NIGHT, "center"))
        return items

    def _status(self, canvas: Canvas) -> list[Item]:
        px, player, session = canvas.px, self.player, self.player.session
        y = px(TOP) // 2
        items: list[Item] = [Box(Rect(0, 0, canvas.width, px(TOP)), PANEL)]
        x = px(20)
        parts: list[tuple[str, tuple[int, ...]]] = [(self.world, INK)]
        if session is not None and session.started and player.touched:
            parts += [(f"step {session.index}", DIM), (f"seed {session.seed}", DIM)]
        if player.meter.rate:
            parts.append((f"{player.meter.rate:.1f} frames/s", DIM))
        if player.meter.keys:
            parts.append((f"key to picture {player.meter.keys[-1] * 1000:.0f} ms", DIM))
        words, color, sign = self._state()
        room = canvas.width - px(70) - canvas.width_of(words)
        for text, ink in parts:
            width = canvas.width_of(text)
            if not text or x + width > room:
                continue
            items.append(canvas.text(text, x, y, BODY, ink))
            x += width + px(26)
        items.append(canvas.text(words, canvas.width - px(46), y, BODY, color, "right"))
        items.append(Shape(sign, canvas.width - px(28), y, px(8), color))
        return items

    def _state(self) -> tuple[str, tuple[int, ...], str]:
        """What is going on: in words, in colour and as a shape."""
        player = self.player
        words = player.words
        if player.hangs:
            return "no answer yet; R restarts", ALARM, "cross"
        if words == "stopped":
            return words, ALARM, "cross"
        if words == "rewinding":
            return words, ACCENT, "rewind"
        if words == "paused":
            return words, ACCENT, "pause"
        if words in ("running", "thinking", "flowing"):
            return words, GOOD, "play"
        return words, DIM, "circle"

    def _bottom(self, canvas: Canvas) -> list[Item]:
        px, session = canvas.px, self.player.session
        top = canvas.height - px(BOTTOM)
        items: list[Item] = [Box(Rect(0, top, canvas.width, px(BOTTOM)), PANEL)]
        line = Rect(px(20), top + px(16), canvas.width - px(40), px(6))
        self.timeline = line.grow(px(9))._replace(x=line.x, w=line.w)
        items.append(Box(line, RAISED, px(3)))
        y = top + px(43)
        if session is None or not session.started or not self.player.touched:
            return [*items, canvas.text("F1 keys    Esc menu", px(20), y, SMALL, FAINT)]
        length = max(session.length, 1)
        at = line.x + round(line.w * session.index / length)
        items.append(Box(Rect(line.x, line.y, at - line.x, line.h), ACCENT, px(3)))
        for index in self.player.marks:
            x = line.x + round(line.w * index / length)
            items.append(Shape("diamond", x, line.center[1], px(7), SLOT_COLORS[1]))
        items.append(Shape("circle", at, line.center[1], px(8), INK))
        items += self._freshness(canvas, y)
        return items + self._recorder(canvas, y)

    def _freshness(self, canvas: Canvas, y: int) -> list[Item]:
        """How much of what the network still sees is the person's picture."""
        px, player = canvas.px, self.player
        session, window = player.session, max(player.info.window, 1) if player.info else 1
        anchor = player.info is not None and player.info.anchor
        assert session is not None
        fresh = max(anchor / window, 1.0 - session.index / window)
        bar = Rect(px(20), y - px(4), px(84), px(8))
        items: list[Item] = [Box(bar, RAISED, px(4))]
        if fresh > 0:
            items.append(Box(bar._replace(w=max(round(bar.w * fresh), px(8))), GOOD, px(4)))
        words = "still sees your picture"
        if session.index >= window:
            words = "dreaming freely: your picture is " + ("still in its sight" if anchor else "out of its sight")
        items.append(canvas.text(words, bar.right + px(12), y, SMALL, FAINT))
        return items

    def _recorder(self, canvas: Canvas, y: int) -> list[Item]:
        px, x = canvas.px, canvas.width - canvas.px(20)
        if self.recording:
            text = f"recording {self.recording}"
            sign = Shape("square", x - canvas.width_of(text, SMALL) - px(16), y, px(8), ALARM)
            return [canvas.text(text, x, y, SMALL, INK, "right"), sign]
        if self.player.meter.frames:
            text = "F9 saves the last 8 seconds"
            return [canvas.text(text, x, y, SMALL, FAINT, "right")]
        return [canvas.text("F1 keys    Esc menu", x, y, SMALL, FAINT, "right")]


def _caption(canvas: Canvas, rect: Rect, small: str, large: str) -> list[Item]:
    """One or two lines over the lower edge of the world."""
    px = canvas.px
    height = (px(34) if large else 0) + (px(26) if small else 0) + px(10)
    veil = Rect(rect.x, rect.bottom - height, rect.w, height)
    items: list[Item] = [Box(veil, (10, 12, 16, 190))]
    x, y = rect.center[0], veil.y + px(8)
    size = next((s for s in (LARGE, BODY) if canvas.width_of(large, s) < rect.w - px(20)), SMALL)
    if large:
        items.append(canvas.text(canvas.fit(large, rect.w - px(8), size), x, y + px(14), size, INK, "center"))
        y += px(34)
    if small:
        items.append(canvas.text(canvas.fit(small, rect.w - px(10), SMALL), x, y + px(10), SMALL, DIM, "center"))
    return items


def _working(canvas: Canvas, rect: Rect) -> list[Item]:
    """A bar that moves while nobody knows how long it takes."""
    share = 0.22
    # thirty times a second is smooth enough, and leaves the time to what is loading
    at = (round(canvas.now * 30) / 30 * 0.55) % (1 + share) - share
    left, right = max(at, 0.0), min(at + share, 1.0)
    bar = Rect(rect.x, rect.bottom - canvas.px(3), rect.w, canvas.px(3))
    return [Box(bar, RAISED), Box(bar._replace(x=bar.x + round(bar.w * left), w=round(bar.w * (right - left))), ACCENT)]
