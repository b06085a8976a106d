"""Scenes of the full source, four families: pixel art, flat shapes, painted, photographed models.

As `drawings`, for pictures without a pen: the sky, the ground and its edges, and what stands on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from genie_play.data import levels, paint
from genie_play.data.levels import EAST, NORTH, SOUTH, VARIANTS, WEST
from genie_play.data.paint import Canvas, Colours, Mask, Plane, Style, blend
from genie_play.data.palettes import hsv, pick, weighted
from genie_play.data.textures import GROUNDS, SIDE, SKIES, Rng, axes, noise, shade, shrink
from genie_play.data.tiles import painted_back, painted_thing

TOPS = {
    "fringe": 0.16, "cap": 0.12, "plate": 0.12, "thick": 0.12, "line": 0.14, "ragged": 0.14, "snow": 0.08, "none": 0.12,
}  # fmt: skip
# samples a pixel
_FINE = {"pixel": 1, "flat": 2, "painted": 2, "photo": 2}


@dataclass(frozen=True)
class Scene:
    """How a scene is drawn."""

    family: str
    fill: str
    sky: str
    top: str
    rim: float  # strength of the dark line at open sides
    rough: float  # how uneven edges are, in eighths of a tile
    grain: float  # noise of film, grey levels
    soft: float  # blur, share of the neighbours
    brush: float  # streaks in the sky, grey levels
    contrast: float  # of the ground's texture
    crate: str
    coin: str
    ledge: str
    style: Style
    bare: bool  # no backdrop at all


def scene(rng: Rng, family: str) -> Scene:
    """How a scene of a family is drawn."""
    bends = rng.uniform(-1, 1, 4)
    style = Style(
        fill="plain", top="line", motif="plain", paper="plain", range=pick(rng, paint.RANGES),
        lights=pick(rng, ("star", "bird")), figure="person", pen=1.0, bends=tuple(float(b) for b in bends),  # type: ignore[arg-type]
    )  # fmt: skip
    painted, photo = family == "painted", family == "photo"
    return Scene(
        family=family,
        fill=pick(rng, tuple(GROUNDS[family])),
        sky=pick(rng, tuple(SKIES)) if not photo else pick(rng, ("plain", "blotches", "haze", "bare", "bricks")),
        top=weighted(rng, TOPS),
        rim=float(rng.choice([0.0, 0.4, 1.0], p=[0.2, 0.2, 0.6] if not (painted or photo) else [0.6, 0.3, 0.1])),
        rough=float(rng.uniform(0.5, 1.6)) if painted or photo else float(rng.choice([0.0, 0.0, 0.8])),
        grain=float(rng.uniform(2.0, 8.0)) if photo else float(rng.uniform(0.0, 2.5)) if painted else 0.0,
        soft=float(rng.uniform(0.15, 0.6)) if photo else float(rng.uniform(0.0, 0.3)) if painted else 0.0,
        brush=float(rng.uniform(1.0, 7.0)) if painted else 0.0,
        contrast=float(rng.uniform(0.45, 1.0)),
        crate=pick(rng, ("classic", "cross", "plus", "bevel", "plain", "band")),
        coin=pick(rng, ("disc", "disc", "gem", "star", "square")),
        ledge=pick(rng, ("plank", "plank", "slab", "cloud", "beam", "thin")),
        style=style,
        bare=bool(rng.random() < (0.45 if photo else 0.33)),
    )


def sky(s: Scene, rng: Rng, tile: int, c: Colours) -> Plane:
    """The three bands of sky, (3, 4 tiles, 4 tiles, 3)."""
    x, y = axes(tile)
    plane = SKIES[s.sky](rng, x, y)
    n, scale = len(x), tile / 8
    over = np.zeros((n, n, 3))
    if s.brush:
        over += s.brush * noise(rng, n, 9 * scale, 2.5 * scale)[..., None]
    if s.grain:
        over += _film(s, rng, n)
    bands = [
        shade(plane, c[f"sky{band}"], c[f"mark{band}"], blend(c[f"sky{band}"], c[f"cloud{band}"], 0.3))
        for band in range(3)
    ]
    return np.clip(np.stack(bands) + over, 0, 255)


def ground(s: Scene, rng: Rng, tile: int, c: Colours) -> Plane:
    """The inside of the ground, (4 tiles, 4 tiles, 3)."""
    fine = _FINE[s.family]
    x, y = axes(tile, fine)
    plane = GROUNDS[s.family][s.fill](rng, x, y) * s.contrast
    filled = shrink(shade(plane, c["ground"], c["ground_dark"], c["ground_light"]), fine)
    if s.soft:
        filled = _blur(filled, s.soft)
    if s.grain:
        filled = filled + _film(s, rng, len(filled))
    return np.clip(filled, 0, 255)


def _film(s: Scene, rng: Rng, n: int) -> Plane:
    """Noise that stays where it is, mostly grey."""
    grey = noise(rng, n, 0.8, 0.8)[..., None]
    return s.grain * (grey + 0.4 * rng.normal(size=(n, n, 3)))


def _blur(picture: Plane, share: float) -> Plane:
    mean = sum(np.roll(picture, step, axis) for axis in (0, 1) for step in (-1, 1)) / 4
    mixed: Plane = picture * (1 - share) + mean * share
    return mixed


def edges(s: Scene, rng: Rng, tile: int, c: Colours) -> tuple[Plane, Plane]:
    """What covers the open sides of ground: colours times cover (VARIANTS * 16, t, t, 3), and the cover.

    Drawn for four tiles in a row at once, so that what is uneven runs on from tile to tile.
    """
    fine = max(_FINE[s.family], 1)
    x, y = axes(tile, fine)
    x, y = x[: len(x) // VARIANTS], y[: len(y) // VARIANTS]  # one row of four tiles
    n = x.shape[1]
    wave = noise(rng, n, 2.5 * n / SIDE, 2.5 * n / SIDE)[:4] * s.rough  # (4, n)
    rgb = np.zeros((VARIANTS * 16, tile, tile, 3))
    cover = np.zeros((VARIANTS * 16, tile, tile))
    top_rgb, top_cover = _top(s, rng, x, y, wave[0], c)
    depth = {EAST: 8 - x % 8, WEST: x % 8, SOUTH: 8 - y}
    strips = np.split(top_rgb, VARIANTS, axis=1), np.split(top_cover, VARIANTS, axis=1)
    for variant in range(VARIANTS):
        cols = slice(variant * n // VARIANTS, (variant + 1) * n // VARIANTS)
        for mask in range(1, 16):
            p = np.zeros((*x[:, cols].shape, 3))
            a = np.zeros(p.shape[:2])
            for number, side in enumerate((SOUTH, WEST, EAST)):
                if mask & side and s.rim:
                    line = wave[number + 1]
                    uneven = line[None, cols] if side == SOUTH else line[cols][:, None]
                    on = np.where(depth[side][:, cols] < 1 + 0.5 * uneven, s.rim, 0.0)
                    p, a = _over(p, a, c["rim"], on)
            if mask & NORTH:
                p, a = _over(p, a, strips[0][variant], strips[1][variant])
            at = variant * 16 + mask
            rgb[at], cover[at] = shrink(p, fine), shrink(a[..., None], fine)[..., 0]
    return rgb, cover


def _over(p: Plane, a: Plane, colour: Plane, cover: Plane) -> tuple[Plane, Plane]:
    """Lay a colour over what is there, with a cover (h, w)."""
    k = cover[..., None]
    return p * (1 - k) + colour * k, a * (1 - cover) + cover


def _top(s: Scene, rng: Rng, x: Plane, y: Plane, wave: Plane, c: Colours) -> tuple[Plane, Plane]:
    """What grows on top: colours and cover of a row of four tiles."""
    grass, dark, light = c["top"], c["top_dark"], c["top_light"]
    rgb, cover = np.zeros((*x.shape, 3)), np.zeros(x.shape)

    def lay(where: Mask, colour: Plane, strength: float = 1.0) -> None:
        nonlocal rgb
        rgb = np.where(where[..., None], colour, rgb)
        cover[where] = strength

    depth = y + 0.6 * wave
    if s.top == "fringe":
        teeth = 2 + 1.2 * (((x + 2 * (x // 8)) // 2).astype(int) % 2)
        lay(depth < teeth, grass)
        lay(depth < 1, light)
    elif s.top == "cap":
        lay(depth < 2 + 1.6 * np.abs(np.sin((x + x // 8) * np.pi / 5.3333)), grass)
    elif s.top == "plate":
        lay(depth < 3, dark)
        lay((depth < 2) & ((x % 8) < 7), grass)
    elif s.top == "thick":
        lay(depth < 4, dark)
        lay(depth < 3, grass)
        lay((depth < 2) & ((x * 0.37 % 1) < 0.2), light)
    elif s.top == "line":
        lay(depth < 2, grass)
        lay(depth < 1, light)
    elif s.top == "ragged":
        blades = 2.4 + 1.4 * noise(rng, x.shape[1], x.shape[1] / 24, 1.0)[0]
        lay(depth < blades, grass)
        lay(depth < blades * 0.4, light)
    elif s.top == "snow":
        lay(depth < 2.6 + np.sin(x * np.pi / 8 + 1) + 0.6 * np.sin(x * np.pi / 4), blend(light, np.full(3, 252.0), 0.7))
    else:
        lay(depth < 1, c["rim"] if s.rim else dark, max(s.rim, 0.5))
    if s.family in ("painted", "photo"):
        rough = noise(rng, x.shape[1], 2.0, 3.0)[: x.shape[0]]
        rgb = rgb + (8 * rough * (cover > 0))[..., None]
    return np.clip(rgb, 0, 255), cover


def thing(code: int, s: Scene, rng: Rng, tile: int, c: Colours) -> tuple[Plane, Plane]:
    """A tile that is no ground: colours times cover (t, t, 3), and the cover."""
    fine = 1 if s.family == "pixel" else 4
    p = Canvas(8, 8, tile * fine)
    special = {levels.CRATE: _crate, levels.BRICK: _crate, levels.COIN: _coin}.get(code)
    if special is not None:
        special(p, s, c, code == levels.BRICK)
    elif levels.LEDGE <= code < levels.LADDER:
        _ledge(p, s, (code - levels.LEDGE) & 1, (code - levels.LEDGE) & 2, c)
    else:
        painted_thing(p, code, c, "pixel" if s.style.bends[2] > 0 else "flat")
    return _finish(p, s, rng, fine)


def _finish(p: Canvas, s: Scene, rng: Rng, fine: int, lit: bool = True) -> tuple[Plane, Plane]:
    """Make a canvas small; painted and photographed things get light and grain."""
    cover = shrink(p.mask[..., None].astype(np.float64), fine)
    rgb = shrink(p.rgb * p.mask[..., None], fine)
    if s.family in ("painted", "photo"):
        fall = 1.08 - 0.18 * np.linspace(0, 1, len(rgb))[:, None, None] if lit else 1.0
        rough = (s.grain + s.brush) * 0.8 * noise(rng, len(rgb), 1.5, 1.2)[..., None] * cover
        rgb = np.clip(rgb * fall + rough, 0, 255 * cover)
    return rgb, cover[..., 0]


def _crate(p: Canvas, s: Scene, c: Colours, brick: bool) -> None:
    face, dark = (c["brick"], c["brick_dark"]) if brick else (c["crate"], c["crate_dark"])
    light = blend(face, np.full(3, 255.0), 0.35)
    kind = (
        s.crate
        if not brick
        else {"classic": "bricks", "cross": "bricks", "plus": "bevel", "band": "plain"}.get(s.crate, s.crate)
    )
    p.rect(0, 0, 8, 8, face if kind == "plain" else dark)
    if kind == "plain":
        p.rect(0, 7, 8, 8, dark)
        p.rect(7, 0, 8, 8, dark)
        return
    if kind == "bricks":
        for x0, y0, x1, y1 in ((0, 0, 3, 3), (4, 0, 8, 3), (0, 4, 7, 7)):
            p.rect(x0, y0, x1, y1, face)
        return
    p.rect(1, 1, 7, 7, face)
    if kind == "cross":
        p.fill((np.abs(p.x - p.y) < 0.8) | (np.abs(p.x + p.y - 8) < 0.8), dark)
    elif kind == "plus":
        p.rect(3.5, 1, 4.5, 7, dark)
        p.rect(1, 3.5, 7, 4.5, dark)
    elif kind == "bevel":
        p.rect(0, 0, 8, 1, light)
        p.rect(0, 0, 1, 8, light)
    elif kind == "band":
        p.rect(0, 3, 8, 5, dark)
    else:
        p.fill(np.abs(p.x - p.y) < 0.9, dark)


def _coin(p: Canvas, s: Scene, c: Colours, _: bool) -> None:
    rim, coin = c["rim"], c["coin"]
    light = blend(coin, np.full(3, 255.0), 0.5)
    if s.coin == "gem":
        p.fill(np.abs(p.x - 4) / 2.8 + np.abs(p.y - 4) / 3.4 <= 1, rim)
        p.fill(np.abs(p.x - 4) / 2.0 + np.abs(p.y - 4) / 2.5 <= 1, coin)
    elif s.coin == "square":
        p.rect(1.5, 1.5, 6.5, 6.5, rim)
        p.rect(2.5, 2.5, 5.5, 5.5, coin)
    elif s.coin == "star":
        p.rect(3, 1, 5, 7, coin)
        p.rect(1, 3, 7, 5, coin)
        p.rect(3, 3, 5, 5, light)
    else:
        p.disc(4, 4, 2.6, 2.9, rim)
        p.disc(4, 4, 1.9, 2.3, coin)


def _ledge(p: Canvas, s: Scene, left: int, right: int, c: Colours) -> None:
    face, dark = c["ledge"], c["ledge_dark"]
    if s.ledge == "slab":
        p.rect(0, 0, 8, 4, dark)
        p.rect(0.0 if not left else 0.5, 0, 8 if not right else 7.5, 3, face)
    elif s.ledge == "cloud":
        for x in (1.5, 5.0, 8.5):
            p.disc(x, 1.8, 2.6, 2.0, face)
    elif s.ledge == "beam":
        p.rect(0, 0, 8, 1, face)
        p.rect(0, 3, 8, 4, face)
        p.fill((np.abs((p.x % 4) - p.y) < 0.7) & (p.y < 4), dark)
    elif s.ledge == "thin":
        p.rect(0, 0, 8, 1.5, face)
        p.rect(0, 1.5, 8, 2.2, dark)
    else:
        code = levels.LEDGE + left + right
        painted_thing(p, code, c, "pixel")


def back(kind: str, s: Scene, rng: Rng, tile: int, c: Colours, band: int) -> tuple[Plane, Plane]:
    """A piece of the backdrop: colours times cover (t, t, 3), and the cover."""
    fine = 1 if s.family == "pixel" else 4
    p = Canvas(8, 8, tile * fine)
    painted_back(p, kind, replace(s.style, motif="plain"), c, band)
    return _finish(p, s, rng, fine, lit=False)


def sun(s: Scene, rng: Rng, tile: int, c: Colours) -> tuple[Plane, Plane]:
    """A disc, with a ring around it or without, two tiles by two: colours times cover, and the cover."""
    fine = 1 if s.family == "pixel" else 4
    p = Canvas(16, 16, tile * fine)
    r = rng.uniform(3.0, 5.5)
    bright = blend(c["star"], np.array([255.0, 250.0, 225.0]), 0.5)
    if rng.random() < 0.5:
        p.disc(8, 8, r + 2, r + 2, blend(c["sky0"], bright, 0.35))
    p.disc(8, 8, r, r, bright)
    return _finish(p, s, rng, fine, lit=False)


def avatar_colours(rng: Rng, c: Colours) -> Colours:
    """Colours of an avatar: as chosen for the scene, its clothes now and then in others."""
    out = {name: c[name] for name in ("body", "trim", "skin", "eye", "outline")}
    if rng.random() < 0.3:
        out["trim"] = blend(out["outline"], hsv(rng.random(), 0.6, 0.6), 0.5)
    return out
