"""The panel behind F3: what was measured, in numbers."""

from __future__ import annotations

from collections import deque

from genie_play.play.items import DIM, INK, LINE, PANEL, SMALL, Box, Canvas, Item, Rect
from genie_play.play.meter import percentile
from genie_play.play.player import Player


def draw(canvas: Canvas, player: Player, area: Rect) -> list[Item]:
    """The panel at the upper left of an area."""
    px, rows = canvas.px, lines(player)
    width, height = px(380), px(24) * len(rows) + px(22)
    panel = Rect(area.x + px(8), area.y + px(8), width, height)
    items: list[Item] = [Box(panel, PANEL, px(10)), Box(panel, LINE, px(10), max(px(1), 1))]
    for i, (name, value) in enumerate(rows):
        y = panel.y + px(23) + i * px(24)
        items.append(canvas.text(name, panel.x + px(16), y, SMALL, DIM))
        items.append(canvas.text(canvas.fit(value, px(210), SMALL), panel.right - px(16), y, SMALL, INK, "right"))
    return items


def lines(player: Player) -> list[tuple[str, str]]:
    """Names and values."""
    meter, info = player.meter, player.info
    rows = [
        ("frames/s", f"{meter.rate:.1f} of {player.rate:g} wanted"),
        ("key to picture", _spread(meter.keys)),
        ("engine, a step", _spread(meter.steps)),
        ("window, a turn", _spread(meter.turns)),
        ("frames", f"{meter.frames}"),
    ]
    if info is not None:
        path = info.path
        sampler = " ".join(f"{path[key]}" for key in ("order", "steps", "arithmetic", "ops") if key in path)
        rows += [
            ("world", f"{info.size[1]}x{info.size[0]}, {info.n_tokens} tokens, window {info.window}"),
            ("device", info.device),
            ("path", sampler or "-"),
            ("checkpoint", info.checkpoint.get("sha256", "")[:12] or "-"),
        ]
    return rows


def _spread(times: deque[float]) -> str:
    if not times:
        return "-"
    return f"p50 {percentile(times, 0.5) * 1000:.1f}  p95 {percentile(times, 0.95) * 1000:.1f} ms"
