"""The compass: eight slots, each with a shape, a colour and the letter of the person's own key."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from genie_play.play.items import (
    DIM,
    FAINT,
    NIGHT,
    PANEL,
    RAISED,
    SLOT_COLORS,
    SLOT_SHAPES,
    Canvas,
    Item,
    Rect,
    Shape,
    mix,
)
from genie_play.play.keymap import MOUSE, SLOTS
from genie_play.play.player import Player

RING = 74  # from the middle of the compass to that of a slot
BADGE = 27  # a slot's radius
GLOW = 0.15  # seconds of each of the two levels in which the second ring fades
REST = 3.0  # seconds without a key after which it steps back, where it lies over the world
PLACES = {slot: (math.sin(i * math.pi / 4), -math.cos(i * math.pi / 4)) for i, slot in enumerate(SLOTS)}


@dataclass
class Compass:
    """Shows what is pressed and what has arrived, and can be clicked."""

    player: Player
    touched: float = 0.0  # when a slot was last asked for
    slots: dict[str, Rect] = field(default_factory=dict)

    def hit(self, pos: tuple[int, int]) -> int | None:
        """The stand-in scancode of the slot at a place of the window."""
        for code, slot in MOUSE.items():
            rect = self.slots.get(slot)
            if rect is not None and math.dist(rect.center, pos) <= rect.w / 2:
                return code
        return None

    def draw(self, canvas: Canvas, area: Rect, world: Rect) -> list[Item]:
        """The eight slots: beside the world where there is room, else over its corner, smaller and see-through."""
        right = canvas.width - canvas.px(8)
        beside = right - world.right >= 2 * canvas.px(RING + BADGE + 7)
        if not beside:
            canvas = replace(canvas, scale=canvas.scale * 0.8)
        reach = canvas.px(RING + BADGE + 7)
        x = (world.right + right) // 2 if beside else right - reach
        y = area.bottom - reach
        resting = not beside and canvas.now - self.touched > REST
        items: list[Item] = [] if beside or resting else [Shape("circle", x, y, reach, (*NIGHT, 150))]
        self.slots = {}
        for i, slot in enumerate(SLOTS):
            dx, dy = PLACES[slot]
            cx, cy, side = round(x + dx * canvas.px(RING)), round(y + dy * canvas.px(RING)), canvas.px(BADGE)
            self.slots[slot] = Rect(cx - side, cy - side, 2 * side, 2 * side)
            items += self._badge(canvas, i, cx, cy, resting)
        return items if resting else items + self._middle(canvas, x, y)

    def _badge(self, canvas: Canvas, i: int, x: int, y: int, resting: bool) -> list[Item]:
        """A slot: lit while its key is down, with a second ring when the frame that carries it is shown."""
        px, keys, landed = canvas.px, self.player.keys, self.player.landed
        slot, color = SLOTS[i], SLOT_COLORS[i]
        if resting:
            return [Shape("circle", x, y, px(BADGE), (*NIGHT, 60)), Shape(SLOT_SHAPES[i], x, y, px(20), (*color, 70))]
        on = any(press and self._slot(press.scancode) == slot for press in (keys.held, keys.tap))
        items: list[Item] = [
            Shape("circle", x, y, px(BADGE), mix(RAISED, color, 0.35) if on else RAISED),
            Shape(SLOT_SHAPES[i], x, y, px(20), color if on else mix(color, PANEL, 0.12)),
            canvas.text(keys.name(slot), x, y, 15, NIGHT, "center"),
        ]
        if on:
            # a key that waits for the engine beats
            beat = 0.0 if self.player.started else 2 + 2 * math.sin(canvas.now * 7)
            items.append(Shape("ring", x, y, px(BADGE + round(beat)), color, max(px(2), 1)))
        if landed is not None and self._slot_of(landed[0].action, landed[0].scancode) == slot:
            age = canvas.now - landed[1]
            if age < 2 * GLOW:
                shade = color if age < GLOW else mix(color, NIGHT, 0.6)
                items.append(Shape("ring", x, y, px(BADGE + 5), shade, max(px(3), 1)))
        return items

    def _middle(self, canvas: Canvas, x: int, y: int) -> list[Item]:
        """What the last step was."""
        player = self.player
        if player.landed is None or player.info is None:
            return []
        action = player.landed[0].action
        label = player.info.labels[action].name if action < len(player.info.labels) else "other"
        name = label if label != "other" else "moves"
        return [
            canvas.text(canvas.fit(name, canvas.px(84), 14), x, y - canvas.px(8), 14, DIM, "center"),
            canvas.text(f"code {action}", x, y + canvas.px(9), 12, FAINT, "center"),
        ]

    def _slot(self, scancode: int) -> str | None:
        action = self.player.keys.action(scancode)
        return self._slot_of(action, scancode) if action is not None else None

    def _slot_of(self, action: int, scancode: int | None) -> str | None:
        """The slot to light for a step: that of its key, else one with its code."""
        slot = self.player.keys.slot(scancode) if scancode is not None else None
        return slot if slot in SLOTS else self.player.keys.slot_of(action)
