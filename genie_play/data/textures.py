"""Textures that tile: what ground, sky and paper are filled with, four tiles to a side and seamless.

A texture is a plane of shades, -1 (dark) to 1 (light), over x and y in eighths of a tile, [0, 32) each. Knows nothing
of colours beyond mixing them, nothing of seeds beyond the generator it is given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from genie_play.data.paint import Colour, Mask, Plane, blend

SIDE = 32.0  # eighths of a tile
Rng = np.random.Generator


def axes(tile: int, fine: int = 1) -> tuple[Plane, Plane]:
    """The x and y of a texture of 4 tiles by 4 at `fine` samples a pixel, (n, n) each."""
    n = 4 * tile * fine
    y, x = np.mgrid[:n, :n]
    return (x + 0.5) * (SIDE / n), (y + 0.5) * (SIDE / n)


def noise(rng: Rng, n: int, across: float, along: float) -> Plane:
    """Smooth seamless noise (n, n) of unit variance, with features about so many samples wide and high."""
    f = np.fft.fftfreq(n)
    keep = np.exp(-2 * (np.pi * 0.5) ** 2 * ((f * across) ** 2 + (f[:, None] * along) ** 2))
    plane: Plane = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, n))) * keep).real
    return plane / max(float(plane.std()), 1e-9)


def cells(rng: Rng, x: Plane, y: Plane, count: int) -> tuple[Plane, Plane, Plane]:
    """A seamless net of cells: distance to the nearest centre, to the second nearest, and a shade for each cell."""
    grid = max(round(count**0.5), 2)
    step = SIDE / grid
    at = (np.mgrid[:grid, :grid].reshape(2, -1) + rng.uniform(0.1, 0.9, (2, grid * grid))) * step
    dx, dy = (np.abs(plane[..., None] - centre) for plane, centre in ((x, at[0]), (y, at[1])))
    away = np.hypot(np.minimum(dx, SIDE - dx), np.minimum(dy, SIDE - dy))
    order = np.partition(away, 1, axis=-1)
    shade = rng.uniform(-1, 1, grid * grid)[away.argmin(-1)]
    return order[..., 0], order[..., 1], shade


def dashes(rng: Rng, x: Plane, y: Plane, count: int, long: float, lean: float, width: float) -> Plane:
    """How much of each point is covered by `count` short strokes at an angle of about `lean`, 0 to 1."""
    cover, scale = np.zeros_like(x), len(x) / SIDE
    spots = (np.arange(count) + rng.random()) * 0.618 % 1.0 * SIDE, (np.arange(count) + 0.5) * SIDE / count
    spots = spots[0] + rng.normal(0, 1.2, count), spots[1] + rng.normal(0, 1.2, count)
    for x0, y0 in zip(*spots, strict=True):
        angle = lean + rng.normal(0, 0.12)
        half = long * rng.uniform(0.6, 1.1) / 2
        dx, dy = (x - x0 + SIDE / 2) % SIDE - SIDE / 2, (y - y0 + SIDE / 2) % SIDE - SIDE / 2
        c, s = np.cos(angle), np.sin(angle)
        past = np.maximum(np.abs(dx * c + dy * s) - half, 0)
        away = np.hypot(past, dy * c - dx * s)
        cover = np.maximum(cover, np.clip(0.5 + (width / 2 - away) * scale, 0, 1))
    return cover


def _bricks(rng: Rng, x: Plane, y: Plane, high: float, long: float) -> Plane:
    row = (y // high).astype(int)
    along = x + (row % 2) * long / 2
    shade = rng.choice([0.0, 0.0, 0.0, 0.35, -0.3], (32, 32))[row, (along // long).astype(int) % int(SIDE // long)]
    mortar = (y % high >= high - 1) | (along % long >= long - 1)
    return np.where(mortar, -1.0, shade)


def _boards(rng: Rng, x: Plane, y: Plane, wide: float) -> Plane:
    """Upright boards; swap x and y for lying ones."""
    board = (x // wide).astype(int) % 32
    shade = rng.uniform(-0.3, 0.3, 32)[board]
    joint = (y + rng.choice([0.0, 8.0, 16.0, 24.0], 32)[board]) % SIDE < 1
    return np.where((x % wide >= wide - 1) | joint, -1.0, np.where(x % wide < 1, 0.5, shade))


def _blocks(rng: Rng, x: Plane, y: Plane, wide: float, bevel: bool = True) -> Plane:
    u, v = x % wide, y % wide
    shade = np.where((u >= wide - 1) | (v >= wide - 1), -1.0, 0.0)
    if bevel:
        shade = np.where(((u < 1) | (v < 1)) & (shade == 0), 0.8, shade)
    mark = rng.random((16, 16)) < 0.25
    inner = (np.abs(u - wide / 2) < wide / 6) & (np.abs(v - wide / 2) < wide / 6)
    return np.where(inner & mark[(y // wide).astype(int), (x // wide).astype(int)], -0.7, shade)


def _cobble(rng: Rng, x: Plane, y: Plane, count: int, gap: float = 1.0) -> Plane:
    near, second, shade = cells(rng, x, y, count)
    return np.where(second - near < gap, -1.0, 0.45 * shade + np.where(near < 0.9, 0.3, 0.0))


def _pebbles(rng: Rng, x: Plane, y: Plane, count: int) -> Plane:
    near, _, shade = cells(rng, x, y, count)
    size = 1.4 + 0.8 * shade
    return np.where(near < size, np.sign(shade) * 0.8, np.where(near < size + 0.7, -0.5, 0.0))


def _specks(rng: Rng, x: Plane, y: Plane, count: int) -> Plane:
    near, _, shade = cells(rng, x, y, count)
    return np.where(near < 1.1, np.where(shade > 0, 0.8, -1.0), 0.0)


def _strata(rng: Rng, x: Plane, y: Plane) -> Plane:
    wave = 1.6 * np.sin(2 * np.pi * x / SIDE + rng.uniform(0, 6)) + np.sin(4 * np.pi * x / SIDE + rng.uniform(0, 6))
    shade = rng.uniform(-1, 0.7, 64)
    return shade[((y + wave + 8) // 3.2).astype(int) % 10]


def _scales(rng: Rng, x: Plane, y: Plane) -> Plane:
    row = (y // 4).astype(int)
    u, v = (x + 4 * (row % 2)) % 8 - 4, y % 4
    edge = v > 1.0 + 2.6 * np.sqrt(np.maximum(1 - (u / 4) ** 2, 0))
    return np.where(edge, -1.0, 0.5 - v / 6)


def _crystals(rng: Rng, x: Plane, y: Plane) -> Plane:
    near, second, shade = cells(rng, x, y, 14)
    return np.where(second - near < 0.6, 0.9, shade * 0.9)


def _cracks(rng: Rng, x: Plane, y: Plane) -> Plane:
    near, second, shade = cells(rng, x, y, 7)
    return np.where(second - near < 0.8, -1.0, shade * 0.15)


def _camo(rng: Rng, x: Plane, y: Plane) -> Plane:
    plane = noise(rng, len(x), 5 * len(x) / SIDE, 4 * len(x) / SIDE)
    return np.where(plane > 0.6, 0.7, np.where(plane < -0.5, -0.9, 0.0))


def _grain(rng: Rng, x: Plane, y: Plane, across: float, along: float, strength: float = 0.5) -> Plane:
    n = len(x)
    plane = noise(rng, n, across * n / SIDE, along * n / SIDE) + 0.6 * noise(
        rng, n, 2.5 * across * n / SIDE, 6 * n / SIDE
    )
    return np.clip(plane * strength, -1, 1)


def _soil(rng: Rng, x: Plane, y: Plane) -> Plane:
    stones = _pebbles(rng, x, y, 12)
    return np.where(stones != 0, stones, _grain(rng, x, y, 1.2, 1.2, 0.35))


def _wood(rng: Rng, x: Plane, y: Plane) -> Plane:
    bend = noise(rng, len(x), 14 * len(x) / SIDE, 3 * len(x) / SIDE)
    return np.clip(0.6 * np.sin(2 * np.pi * (y + 1.2 * bend) / 4) + np.where(y % 8 < 0.9, -0.9, 0), -1, 1)


def _weave(rng: Rng, x: Plane, y: Plane) -> Plane:
    over = ((x // 4).astype(int) + (y // 4).astype(int)) % 2 == 0
    return np.where(over, 0.7 - np.abs(y % 4 - 2) * 0.5, -0.3 - np.abs(x % 4 - 2) * 0.3)


def _dabs(rng: Rng, x: Plane, y: Plane, lean: float) -> Plane:
    """Strokes of a broad brush: streaks along a direction, some darker, some lighter."""
    light = dashes(rng, x, y, 14, 7.0, lean, 2.2)
    dark = dashes(rng, x, y, 14, 6.0, lean + 0.2, 2.0)
    return 0.8 * light - 0.9 * dark + 0.25 * noise(rng, len(x), 3 * len(x) / SIDE, 2 * len(x) / SIDE)


def _where(test: Callable[[Plane, Plane], Mask], dark: float = -1.0, lit: float = 0.0) -> Callable[..., Plane]:
    """A texture of two shades from a test of x and y."""
    return lambda rng, x, y: np.where(test(x, y), dark, lit)


_Texture = Callable[[Rng, Plane, Plane], Plane]
CRISP: dict[str, _Texture] = {
    "bricks": lambda r, x, y: _bricks(r, x, y, 4, 8),
    "big-bricks": lambda r, x, y: _bricks(r, x, y, 8, 16),
    "small-bricks": lambda r, x, y: _bricks(r, x, y, 4, 4),
    "boards": lambda r, x, y: _boards(r, x, y, 4),
    "wide-boards": lambda r, x, y: _boards(r, x, y, 8),
    "planks": lambda r, x, y: _boards(r, y, x, 4),
    "blocks": lambda r, x, y: _blocks(r, x, y, 8),
    "big-blocks": lambda r, x, y: _blocks(r, x, y, 16),
    "tiles": lambda r, x, y: _blocks(r, x, y, 8, bevel=False),
    "cobble": lambda r, x, y: _cobble(r, x, y, 36),
    "boulders": lambda r, x, y: _cobble(r, x, y, 12, 1.4),
    "pebbles": lambda r, x, y: _pebbles(r, x, y, 25),
    "specks": lambda r, x, y: _specks(r, x, y, 40),
    "strata": _strata,
    "scales": _scales,
    "crystals": _crystals,
    "cracks": _cracks,
    "camo": _camo,
    "weave": _weave,
    "checks": _where(lambda x, y: (x // 4 + y // 4) % 2 == 0, -0.8),
    "big-checks": _where(lambda x, y: (x // 8 + y // 8) % 2 == 0, -0.6),
    "slant": _where(lambda x, y: (x + y) % 8 < 3),
    "wide-slant": _where(lambda x, y: (x - y) % 16 < 8, -0.7, 0.2),
    "chevrons": _where(lambda x, y: (y + np.abs(x % 8 - 4)) % 8 < 3, -0.8),
    "waves": _where(lambda x, y: (y + 1.5 * np.sin(x * np.pi / 4)) % 8 < 2, -0.8),
    "diamonds": _where(lambda x, y: np.abs(x % 8 - 4) + np.abs(y % 8 - 4) <= 3.1, -0.8),
    "dots": _where(lambda x, y: np.hypot(x % 8 - 4, y % 8 - 4) < 2.2, -0.7),
    "studs": _where(lambda x, y: np.hypot(x % 4 - 2, y % 8 - 2) < 1.2, 0.8),
    "stripes": _where(lambda x, y: x % 8 < 3, -0.7),
    "wide-stripes": _where(lambda x, y: x % 16 < 8, -0.5, 0.1),
    "steps": _where(lambda x, y: (y % 8 > 4) == (x % 8 > 4), -0.6),
    "triangles": _where(lambda x, y: y % 8 > 2 * np.abs(x % 8 - 4), -0.8),
    "grid": _where(lambda x, y: (x % 8 < 1) | (y % 8 < 1), -0.7),
    "seams": _where(lambda x, y: x % 16 < 1, -0.9),
    "plain": lambda r, x, y: np.zeros_like(x),
}
PAINTED: dict[str, _Texture] = {
    "dabs": lambda r, x, y: _dabs(r, x, y, 0.3),
    "upright-dabs": lambda r, x, y: _dabs(r, x, y, 1.4),
    "slant-dabs": lambda r, x, y: _dabs(r, x, y, -0.8),
    "wash": lambda r, x, y: _grain(r, x, y, 6, 5, 0.45),
    "stones": lambda r, x, y: _cobble(r, x, y, 16, 1.6) + _grain(r, x, y, 2, 2, 0.2),
    "layers": lambda r, x, y: 0.7 * _strata(r, x, y) + _grain(r, x, y, 5, 1.5, 0.25),
    "facets": lambda r, x, y: cells(r, x, y, 16)[2] * 0.9,
    "rounds": lambda r, x, y: 0.8 - cells(r, x, y, 25)[0] * 0.45,
    "old-bricks": lambda r, x, y: _bricks(r, x, y, 8, 16) + _grain(r, x, y, 3, 2, 0.25),
}
PHOTO: dict[str, _Texture] = {
    "sand": lambda r, x, y: _grain(r, x, y, 0.7, 0.7),
    "gravel": lambda r, x, y: 0.7 * _cobble(r, x, y, 60, 0.9) + _grain(r, x, y, 1, 1, 0.25),
    "rock": lambda r, x, y: _grain(r, x, y, 4, 2.2, 0.5) + _grain(r, x, y, 0.8, 0.8, 0.2),
    "soil": _soil,
    "wood": _wood,
    "grass": lambda r, x, y: _grain(r, x, y, 0.8, 3.0, 0.6),
    "fur": lambda r, x, y: _grain(r, x, y, 1.0, 2.2, 0.45),
    "concrete": lambda r, x, y: 0.5 * _cracks(r, x, y) + _grain(r, x, y, 0.6, 0.6, 0.25),
    "walling": lambda r, x, y: 0.8 * _bricks(r, x, y, 4, 8) + _grain(r, x, y, 0.9, 0.9, 0.25),
    "cloth": lambda r, x, y: 0.5 * _weave(r, x, y) + _grain(r, x, y, 0.7, 0.7, 0.2),
    "bark": lambda r, x, y: _grain(r, x, y, 1.3, 7.0, 0.65),
    "leaves": lambda r, x, y: cells(r, x, y, 64)[2] * 0.8 - cells(r, x, y, 64)[0] * 0.15,
}
GROUNDS = {"pixel": CRISP, "flat": CRISP, "painted": PAINTED, "photo": PHOTO}


def _plus(u: Plane, v: Plane) -> Mask:
    """Where a plus sign is, by the distances from its middle."""
    return (np.maximum(u, v) < 3) & (np.minimum(u, v) < 1)


# faint marks of a sky; the plain ones stand for the empty skies that most pictures have
SKIES: dict[str, _Texture] = {
    "stripes": _where(lambda x, y: x % 16 < 8),
    "narrow": _where(lambda x, y: x % 8 < 2),
    "dots": _where(lambda x, y: np.hypot(x % 8 - 4, y % 8 - 4) < 1.2),
    "plus": _where(lambda x, y: _plus(np.abs(x % 16 - 8), np.abs(y % 8 - 4))),
    "slant": _where(lambda x, y: (x + y) % 16 < 5),
    "panes": _where(lambda x, y: (x % 8 < 1) | (y % 8 < 1)),
    "bricks": lambda r, x, y: np.minimum(_bricks(r, x, y, 4, 8), 0),
    "blotches": lambda r, x, y: np.clip(noise(r, len(x), 7 * len(x) / SIDE, 5 * len(x) / SIDE) * 0.5, -1, 1),
    "haze": lambda r, x, y: np.clip(noise(r, len(x), 16 * len(x) / SIDE, 2 * len(x) / SIDE) * 0.5, -1, 1),
    "plain": lambda r, x, y: np.zeros_like(x),
    "empty": lambda r, x, y: np.zeros_like(x),
    "bare": lambda r, x, y: np.zeros_like(x),
}  # fmt: skip


def shade(plane: Plane, middle: Colour, dark: Colour, light: Colour) -> Plane:
    """Colours (n, n, 3) of a plane of shades."""
    s = np.clip(plane, -1, 1)[..., None]
    return np.where(s < 0, blend(middle, dark, -s), blend(middle, light, s))


def shrink(picture: Plane, fine: int) -> Plane:
    """Average blocks of fine x fine samples of (h, w, C)."""
    if fine == 1:
        return picture
    h, w = picture.shape[:2]
    small: Plane = picture.reshape(h // fine, fine, w // fine, fine, -1).mean((1, 3))
    return small
