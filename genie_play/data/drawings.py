"""Drawings by hand, full source: paper, the ground's lines and what stands on it, with a pencil, a marker, chalk.

A line that runs over several tiles is one line: tiles come in four variants, each of which begins where the one to its
left, or above it, ends. Lengths are eighths of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from genie_play.data import levels, paint
from genie_play.data.levels import EAST, NORTH, SOUTH, VARIANTS, WEST
from genie_play.data.paint import Colours, Layer, Plane, Style, blend
from genie_play.data.palettes import DARK_SHEETS, pick, weighted
from genie_play.data.textures import SIDE, Rng, axes, cells, dashes, noise
from genie_play.data.tiles import sketch_back, sketch_thing

# tool: width of its lines in eighths of a tile, how dark they are, how much of the paper shows through
_PENS = {
    "pencil": ((0.65, 1.15), (0.6, 0.95), (0.05, 0.3)), "ink": ((0.75, 1.6), (0.9, 1.0), (0.0, 0.05)),
    "ballpoint": ((0.65, 1.1), (0.75, 0.95), (0.0, 0.15)), "felt": ((1.1, 1.9), (0.85, 1.0), (0.0, 0.1)),
    "marker": ((1.7, 2.8), (0.85, 1.0), (0.0, 0.1)), "crayon": ((1.2, 2.3), (0.75, 1.0), (0.2, 0.45)),
    "chalk": ((1.0, 2.1), (0.7, 1.0), (0.1, 0.4)), "gel": ((0.8, 1.4), (0.85, 1.0), (0.0, 0.05)),
}  # fmt: skip
_RULINGS = {"plain": 0.58, "squared": 0.18, "lined": 0.14, "dotted": 0.05, "margin": 0.05}
FILLS = {
    "none": 0.33, "hatch": 0.12, "long-hatch": 0.06, "sparse": 0.08, "cross": 0.04, "ticks": 0.07, "scribble": 0.05,
    "dots": 0.04, "pebbles": 0.03, "masonry": 0.05, "squares": 0.03, "wash": 0.09, "streaks": 0.05, "solid": 0.04,
}  # fmt: skip
EDGES = {
    "line": 0.40, "double": 0.06, "grass": 0.13, "ticks": 0.12, "thick": 0.11, "boxes": 0.07, "top": 0.11,
}  # fmt: skip
_LEDGES = {"line": 0.3, "plank": 0.25, "box": 0.15, "bar": 0.15, "double": 0.15}
_CRATES = ("cross", "empty", "slash", "plus", "solid", "double")
_COINS = {"ring": 0.35, "disc": 0.4, "star": 0.08, "dot": 0.1, "diamond": 0.07}


@dataclass(frozen=True)
class Hand:
    """How somebody draws."""

    tool: str
    dark: bool  # light lines on a dark sheet
    ruling: str
    pitch: int  # rules across four tiles
    fill: str
    edge: str
    ledge: str
    crate: str
    coin: str
    pen: float
    strength: float
    grain: float
    twice: bool  # lines are gone over again, a little off
    gap: int  # the variant in which a line is broken, -1 for none
    across: tuple[float, ...]  # how low a level line is at the seams of the variants
    along: tuple[float, ...]  # how far in an upright one is
    style: Style  # for what is drawn as in the calm source
    plain_far: bool  # hills are a line, with nothing inside
    bare: bool  # no backdrop at all


def hand(rng: Rng, tool: str, sheet: str) -> Hand:
    """How somebody draws with a tool on a sheet."""
    width, strength, grain = (float(rng.uniform(*span)) for span in _PENS[tool])
    steady = rng.uniform(0.1, 0.8)
    bends = rng.uniform(-1, 1, 4)
    dark = sheet in DARK_SHEETS
    ruling = weighted(rng, _RULINGS) if sheet in ("white", "cream", "yellow", "grey", "recycled") else "plain"
    if sheet == "blueprint" and rng.random() < 0.6:
        ruling = "squared"
    pitch = int(rng.choice([3, 4, 4, 5, 6, 7, 8] if ruling == "squared" else [3, 4, 4, 5, 6]))
    style = Style(
        fill="hatch", top="line", motif="plain", paper="plain", range=pick(rng, paint.RANGES),
        lights=pick(rng, ("star", "bird")), figure="stick", pen=width, bends=tuple(float(b) for b in bends),  # type: ignore[arg-type]
    )  # fmt: skip
    start = width / 2 + 0.1
    return Hand(
        tool=tool,
        dark=dark,
        ruling=ruling,
        pitch=pitch,
        fill=weighted(rng, FILLS),
        edge=weighted(rng, EDGES),
        ledge=weighted(rng, _LEDGES),
        crate=pick(rng, _CRATES),
        coin=weighted(rng, _COINS),
        pen=width,
        strength=strength,
        grain=grain,
        twice=bool(rng.random() < 0.15),
        gap=int(rng.integers(VARIANTS)) if rng.random() < 0.22 else -1,
        across=tuple(float(start + v) for v in rng.uniform(0, 2 * steady, VARIANTS)),
        along=tuple(float(start + v) for v in rng.uniform(0, 1.6 * steady, VARIANTS)),
        style=style,
        plain_far=bool(rng.random() < 0.75),
        bare=bool(rng.random() < 0.6),
    )


def paper(h: Hand, rng: Rng, tile: int, c: Colours) -> Plane:
    """The sheet, (4 tiles, 4 tiles, 3): printed rules, fibres, smears."""
    x, y = axes(tile)
    n, scale = len(x), tile / 8
    sheet = np.broadcast_to(c["paper"], (n, n, 3)).copy()
    clean = rng.random() < 0.35
    fibres = rng.uniform(0.0, 2.5) * noise(rng, n, 1, 1) + rng.uniform(0, 2.5) * noise(rng, n, 8 * scale, 6 * scale)
    if h.dark and h.tool == "chalk":
        # a board that was wiped
        fibres = 2.0 * fibres + rng.uniform(0, 6) * np.abs(noise(rng, n, 10 * scale, 3 * scale))
    if not clean:
        sheet += fibres[..., None]
    gap = SIDE / h.pitch
    width = 0.55 + 0.5 * rng.random()
    phase = rng.uniform(0, gap)
    level, upright = (np.abs((axis - phase + gap / 2) % gap - gap / 2) for axis in (y, x))
    lines = {
        "squared": np.minimum(level, upright), "lined": level, "margin": level,
        "dotted": np.hypot(level, upright) - 0.3,
    }.get(h.ruling)  # fmt: skip
    if lines is not None:
        cover = np.clip(0.5 + (width / 2 - lines) * scale, 0, 1)[..., None]
        sheet = sheet * (1 - cover) + c["rule"] * cover
    if h.ruling == "margin":
        cover = np.clip(0.5 + (0.5 - np.abs(x - 4)) * scale, 0, 1)[..., None]
        sheet = sheet * (1 - cover) + c["margin"] * cover
    return np.clip(sheet, 0, 255)


def ground(h: Hand, rng: Rng, tile: int, c: Colours, sheet: Plane) -> Plane:
    """The inside of the ground on a sheet, (4 tiles, 4 tiles, 3)."""
    x, y = axes(tile)
    scale = tile / 8
    thin = max(0.8 * h.pen, 0.7)
    colour, cover = c["hatch"], np.zeros_like(x)
    if h.fill in ("hatch", "sparse"):
        count, long = (int(rng.integers(22, 44)), 6.0) if h.fill == "hatch" else (int(rng.integers(6, 14)), 4.0)
        cover = dashes(rng, x, y, count, long, rng.uniform(1.7, 2.4), thin)
    elif h.fill in ("long-hatch", "cross"):
        gap = SIDE / rng.integers(4, 8)
        bend = noise(rng, len(x), 20 * scale, 20 * scale) * 0.5
        for way in (1, -1) if h.fill == "cross" else (int(rng.choice([1, -1])),):
            away = np.abs((x + way * y + bend) % gap - gap / 2) / 1.414
            cover = np.maximum(cover, np.clip(0.5 + (thin / 2 - away) * scale, 0, 1))
    elif h.fill == "ticks":
        cover = dashes(rng, x, y, int(rng.integers(14, 26)), 2.4, rng.uniform(1.4, 2.2), thin)
    elif h.fill == "scribble":
        gap = SIDE / rng.integers(5, 9)
        row = y + noise(rng, len(x), 9 * scale, 9 * scale)
        zigzag = np.abs((x % gap) / gap - 0.5) * 2 * 7
        away = np.abs((row - zigzag) % 8 - 4) * 0.5
        cover = np.clip(0.5 + (thin / 2 - away) * scale, 0, 1)
    elif h.fill in ("dots", "pebbles"):
        near, _, size = cells(rng, x, y, 25)
        away = near + 0.2 if h.fill == "dots" else np.abs(near - 1.5 - 0.5 * size)
        cover = np.clip(0.5 + (thin / 2 - away) * scale, 0, 1)
    elif h.fill in ("masonry", "squares"):
        high = 4 if h.fill == "masonry" else 8
        shift = 4.0 * ((y // high) % 2) if h.fill == "masonry" else 0.0
        bend = 0.5 * noise(rng, len(x), 12 * scale, 12 * scale)
        away = np.minimum(np.abs((y + bend) % high - high / 2), np.abs((x + shift + bend) % 8 - 4))
        cover = np.clip(0.5 + (thin / 2 - away) * scale, 0, 1)
    elif h.fill == "wash":
        colour, cover = c["wash"], 0.9 + 0.12 * noise(rng, len(x), 5 * scale, 4 * scale)
    elif h.fill == "streaks":
        lean = rng.uniform(-0.6, 0.6)
        colour, cover = c["wash"], 0.55 + 0.6 * dashes(rng, x, y, 26, 9.0, lean, 2.2) - 0.1 * rng.random()
    elif h.fill == "solid":
        dark = blend(c["paper"], c["ink"], 0.8) if rng.random() < 0.6 else c["wash"]
        colour, cover = dark, 0.95 + 0.1 * noise(rng, len(x), 7 * scale, 2 * scale)
    if h.grain and h.fill not in ("wash", "none"):
        cover = cover * (1 - h.grain * np.clip(noise(rng, len(x), 1.5, 1.5), -0.3, 1.5))
    cover = np.clip(cover, 0, 1)[..., None]
    filled: Plane = sheet * (1 - cover) + colour * cover
    return filled


def _layer(h: Hand, rng: Rng, tile: int, grow: float = 1.0) -> Layer:
    """An empty tile on which the hand's pen draws."""
    rough = None
    if h.grain:
        rough = 1 - np.clip(h.grain * grow * noise(rng, tile, 1.4, 1.4), -0.15, 0.8)
    return Layer(8, 8, tile, h.strength, rough)


def edges(h: Hand, rng: Rng, tile: int, c: Colours) -> tuple[Plane, Plane]:
    """What is drawn at the open sides of ground: colours times cover (VARIANTS * 16, t, t, 3), and the cover."""
    out = np.zeros((VARIANTS * 16, tile, tile, 3))
    cover = np.zeros((VARIANTS * 16, tile, tile))
    for variant in range(VARIANTS):
        sides = {side: _side(h, rng, side, variant, tile, c) for side in (NORTH, EAST, SOUTH, WEST)}
        for mask in range(1, 16):
            p = Layer(8, 8, tile)
            boxes = h.edge == "boxes"
            if boxes:
                p.fill(np.ones_like(p.x, bool), blend(c["paper"], c["wash"], 0.7))
            for side in (WEST, EAST, SOUTH, NORTH):
                if not (boxes or mask & side):
                    continue
                part = sides[side]
                p.rgb = p.rgb * (1 - part.cover[..., None]) + part.rgb
                p.cover = p.cover * (1 - part.cover) + part.cover
            at = variant * 16 + mask
            out[at], cover[at] = p.rgb, p.cover
    return out, cover


def _side(h: Hand, rng: Rng, side: int, variant: int, tile: int, c: Colours) -> Layer:
    p = _layer(h, rng, tile)
    ink, pen = c["ground_ink"], h.pen
    here, there = variant, (variant + 1) % VARIANTS
    if h.edge == "top" and side != NORTH:
        if side == SOUTH:
            return p
        pen *= 0.7
    level = side in (NORTH, SOUTH)
    seams = h.across if level else h.along
    a, b = seams[here], seams[there]
    if side in (SOUTH, EAST):
        a, b = 8 - 0.6 * a, 8 - 0.6 * b
    middle = (a + b) / 2 + 0.35 * h.style.bends[variant]
    if side == NORTH and h.edge == "thick":
        pen *= 1.7
    if side == NORTH and h.edge == "grass":
        p.lay(np.where(p.y < a + 1.8, 0.8, 0.0), c["turf"])
    points = [(-0.2, a), (4.0, middle), (8.2, b)]
    points = points if level else [(v, u) for u, v in points]
    away = p.away(points)
    if variant == h.gap:
        away = np.where(np.abs((p.x if level else p.y) - 4.5) < 1.5, 9.0, away)
    p.ink(away, pen, ink)
    if h.twice:
        p.stroke([(u + 0.3, v + 0.9) for u, v in points], 0.7 * pen, ink)
    if side != NORTH:
        return p
    thin = max(0.75 * pen, 0.7)
    if h.edge == "double":
        p.stroke([(-0.2, a + 2.6), (8.2, b + 2.4)], thin, ink)
    elif h.edge == "grass":
        for x in rng.uniform(0.5, 7.5, 3):
            p.stroke([(x, a + 0.2), (x + rng.uniform(-1, 1), a + rng.uniform(1.6, 3.2))], thin, c["turf_ink"])
    elif h.edge == "ticks":
        for x in (1.8, 4.6, 7.2):
            x += rng.uniform(-0.5, 0.5)
            p.stroke([(x, a + 0.6), (x - 1.7, a + rng.uniform(3.2, 5.0))], thin, c["hatch"])
    return p


def thing(code: int, h: Hand, rng: Rng, tile: int, c: Colours) -> Layer:
    """A tile that is no ground."""
    p = _layer(h, rng, tile, 0.6)
    pen, ink = max(h.pen * 0.95, 0.8), c["ink"]
    off = rng.uniform(-0.4, 0.4, 8)
    if code in (levels.CRATE, levels.BRICK):
        _crate(p, h, code == levels.BRICK, off, c)
    elif levels.LEDGE <= code < levels.LADDER:
        _ledge(p, h, (code - levels.LEDGE) & 1, (code - levels.LEDGE) & 2, off, c)
    elif code in (levels.LADDER, levels.LADDER_TOP):
        p.stroke([(1.6, -0.3), (1.6 + off[0], 4), (1.6, 8.3)], pen, ink)
        p.stroke([(6.4, -0.3), (6.4 + off[1], 4), (6.4, 8.3)], pen, ink)
        for y in (2.2, 6.2):
            p.stroke([(1.5, y + off[2]), (6.5, y + off[3])], max(0.8 * pen, 0.75), ink)
        if code == levels.LADDER_TOP and h.ledge != "none":
            p.stroke([(-0.2, 1.0), (8.2, 1.0 + off[4] * 0.5)], pen, ink)
    elif code == levels.COIN:
        _coin(p, h, off, c)
    else:
        sketch_thing(p, code, c, replace(h.style, pen=min(pen, 1.6)))
    return p


def _crate(p: Layer, h: Hand, brick: bool, off: Plane, c: Colours) -> None:
    ink, pen, thin = c["ink"], min(h.pen, 1.9), max(0.7 * min(h.pen, 1.9), 0.7)
    inside = c["wash"] if brick or h.crate == "solid" else c["paper"]
    if h.crate == "solid" and brick and h.style.bends[0] > 0:
        inside = blend(c["paper"], ink, 0.75)
    p.fill(np.ones_like(p.x, bool), inside)
    e = 0.3 + pen / 2
    corners = [
        (e + off[0] * 0.5, e),
        (8 - e, e + off[1] * 0.5),
        (8 - e + off[2] * 0.5, 8 - e),
        (e, 8 - e + off[3] * 0.5),
    ]
    p.stroke([*corners, corners[0]], pen, ink)
    if h.crate == "cross" and not brick:
        p.stroke([corners[0], corners[2]], thin, c["hatch"])
        p.stroke([corners[1], corners[3]], thin, c["hatch"])
    elif h.crate == "slash":
        p.stroke([corners[0], corners[2]] if not brick else [(1, 4), (7, 4)], thin, c["hatch"])
    elif h.crate == "plus":
        p.stroke([(4, 1), (4, 7)], thin, ink)
        p.stroke([(1, 4), (7, 4)], thin, ink)
    elif h.crate == "double" and not brick:
        p.stroke([(2.6, 2.6), (5.4, 2.6), (5.4, 5.4), (2.6, 5.4), (2.6, 2.6)], thin, ink)


def _ledge(p: Layer, h: Hand, left: int, right: int, off: Plane, c: Colours) -> None:
    ink, pen, thin = c["ink"], h.pen, max(0.75 * h.pen, 0.7)
    x0, x1 = (0.7 if left else -0.3), (7.3 if right else 8.3)
    y = 0.4 + pen / 2
    low = 3.2 + 0.5 * (h.ledge == "box")
    if h.ledge in ("plank", "box"):
        inside = c["wash"] if h.ledge == "box" else c["paper"]
        p.fill((p.x > x0) & (p.x < x1) & (p.y > 0.5) & (p.y < low), inside)
    if h.ledge == "bar":
        p.ink(p.away([(x0 + 0.4 * left, 1.6), (x1 - 0.2 * right, 1.6 + off[0] * 0.4)]), max(2.4, pen), ink)
        return
    p.stroke([(x0, y), (4, y + off[0] * 0.6), (x1, y + off[1] * 0.2)], pen, ink)
    if h.ledge == "line":
        return
    p.stroke([(x0, low), (x1, low + off[2] * 0.4)], thin, ink)
    if left:
        p.stroke([(x0, y), (x0 + off[3] * 0.3, low)], thin, ink)
    if right:
        p.stroke([(x1, y), (x1 + off[4] * 0.3, low)], thin, ink)
    if h.ledge == "plank":
        p.stroke([(4, y), (3, low)], min(thin, 0.8), c["hatch"])


def _coin(p: Layer, h: Hand, off: Plane, c: Colours) -> None:
    ink, pen = c["ink"], min(h.pen, 1.7)
    x, y, r = 4 + off[0], 4 + off[1], 2.5 + 0.6 * off[2]
    if h.coin == "dot":
        p.disc(x, y, 1.6, 1.6, ink)
    elif h.coin == "star":
        for a, b in (
            ((x, y - 3), (x, y + 3)),
            ((x - 2.8, y - 1), (x + 2.8, y + 1)),
            ((x - 2.4, y + 2), (x + 2.4, y - 2)),
        ):
            p.stroke([a, b], pen * 0.9, c["accent"])
    elif h.coin == "diamond":
        points = [(x, y - 3.2), (x + 2.6, y), (x, y + 3.2), (x - 2.6, y), (x, y - 3.2)]
        p.fill(np.abs(p.x - x) / 2.6 + np.abs(p.y - y) / 3.2 <= 1, c["accent"])
        p.stroke(points, pen * 0.9, ink)
    else:
        if h.coin == "disc":
            p.disc(x, y, r, r, c["accent"])
        p.ring(x, y, r, r * (1 + 0.2 * off[3]), pen, ink)


def sun(h: Hand, rng: Rng, tile: int, c: Colours) -> Layer:
    """A disc with rays, two tiles by two."""
    rough = 1 - np.clip(0.6 * h.grain * noise(rng, 2 * tile, 1.4, 1.4), -0.15, 0.8) if h.grain else None
    p = Layer(16, 16, tile, h.strength, rough)
    x, y, r = 8 + rng.uniform(-1, 1), 8 + rng.uniform(-1, 1), rng.uniform(2.6, 4.6)
    pen, ink = min(max(0.8 * h.pen, 0.75), 1.5), c["sun_ink"]
    if rng.random() < 0.5:
        p.disc(x, y, r, r, c["accent"])
    p.ring(x, y, r, r * rng.uniform(0.9, 1.1), pen, ink)
    rays, start = int(rng.integers(6, 11)), rng.uniform(0, 1)
    for i in range(rays if rng.random() < 0.7 else 0):
        angle = start + 2 * np.pi * i / rays
        dx, dy, far = np.cos(angle), np.sin(angle), rng.uniform(2.4, 3.6)
        p.stroke([(x + dx * (r + 1.2), y + dy * (r + 1.2)), (x + dx * (r + far), y + dy * (r + far))], 0.85 * pen, ink)
    return p


def back(kind: str, h: Hand, rng: Rng, tile: int, c: Colours) -> Layer:
    """A piece of the backdrop: clouds, stars, a range of hills."""
    p = _layer(h, rng, tile, 0.6)
    if not (h.plain_far and kind in ("far-0", "far-1", "far-2")):
        sketch_back(p, kind, h.style, c | {"pale": c["cloud_ink"]} if kind.startswith("cloud") else c, 0)
    return p
