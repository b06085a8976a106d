"""The page behind F1: every key, in the letters of the person's own board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genie_play.play.items import (
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
    SLOT_COLORS,
    SLOT_SHAPES,
    SMALL,
    Box,
    Canvas,
    Event,
    Item,
    Rect,
    Shape,
)
from genie_play.play.keymap import SLOTS, Commands, KeyMap, describe
from genie_play.types import Label


@dataclass
class HelpScreen:
    """Keys on the right, the compass with what its slots were measured to do on the left."""

    keys: KeyMap
    commands: Commands
    labels: Sequence[Label] = ()
    typing: bool = False

    def handle(self, event: Event) -> str:
        return ""

    def draw(self, canvas: Canvas) -> list[Item]:
        px = canvas.px
        width, height = min(px(1060), canvas.width - px(24)), min(px(740), canvas.height - px(24))
        panel = Rect((canvas.width - width) // 2, (canvas.height - height) // 2, width, height)
        items: list[Item] = [
            Box(canvas.rect, SCRIM),
            Box(panel, PANEL, px(14)),
            Box(panel, LINE, px(14), max(px(1), 1)),
        ]
        items.append(canvas.text("Keys", panel.x + px(28), panel.y + px(38), LARGE))
        items.append(canvas.text("Esc closes", panel.right - px(28), panel.y + px(38), SMALL, FAINT, "right"))
        left = Rect(panel.x + px(28), panel.y + px(74), px(300), panel.h - px(100))
        right = Rect(left.right + px(28), left.y, panel.right - left.right - px(56), left.h)
        return items + self._slots(canvas, left) + self._table(canvas, right)

    def _slots(self, canvas: Canvas, area: Rect) -> list[Item]:
        px = canvas.px
        items: list[Item] = [
            canvas.text("A slot is a key. What it does, the world decided.", area.x, area.y + px(8), 13, DIM)
        ]
        step = min(px(46), (area.h - px(130)) // 8)
        for i, slot in enumerate(SLOTS):
            y = area.y + px(48) + i * step
            items.append(Shape("circle", area.x + px(20), y, px(20), RAISED))
            items.append(Shape(SLOT_SHAPES[i], area.x + px(20), y, px(16), SLOT_COLORS[i]))
            items.append(canvas.text(self.keys.name(slot), area.x + px(20), y, 13, NIGHT, "center"))
            code = self.keys.codes[i]
            label = self.labels[code] if code < len(self.labels) else None
            name = "not measured" if label is None or label.name == "other" else label.name
            items.append(canvas.text(name, area.x + px(54), y, BODY, INK))
            items.append(canvas.text(f"code {code}", area.x + px(190), y, SMALL, FAINT))
            if label is not None and label.confidence > 0:
                for dot in range(3):
                    sure = label.confidence > (0.3, 0.6, 0.8)[dot]
                    items.append(Shape("circle", area.x + px(262 + 13 * dot), y, px(4), DIM if sure else RAISED))
        for i, line in enumerate(
            (
                "Hold a key to keep moving, tap it for one step.",
                "The newest key wins. The world waits for you;",
                "T lets time flow. Nothing is ever lost.",
            )
        ):
            items.append(canvas.text(line, area.x, area.bottom - px(62 - 24 * i), 13, DIM))
        return items

    def _table(self, canvas: Canvas, area: Rect) -> list[Item]:
        px, rows = canvas.px, describe(self.commands, self.keys)
        step = min(px(27), area.h // len(rows))
        items: list[Item] = []
        for i, (keys, does) in enumerate(rows):
            y = area.y + step // 2 + i * step
            size = 14 if step >= px(20) else 11
            items.append(canvas.text(canvas.fit(keys, px(212), size), area.x + px(212), y, size, INK, "right"))
            items.append(canvas.text(canvas.fit(does, area.w - px(232), size), area.x + px(232), y, size, DIM))
        return items
