"""The colours of a look, by name: scenes in daylight, at night, underground; calm paper; drawings with real pens.

Knows nothing of tiles. Colours are chosen so that the avatar stands out and the ground differs from the sky.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np

from genie_play.data import paint
from genie_play.data.paint import Colour, Colours

# hue, saturation, value ranges of sky, ground and what grows on it, in percent; hues are turns and may exceed one
_THEMES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "day": ((50, 62, 20, 50, 86, 100), (3, 12, 35, 65, 42, 66), (22, 40, 45, 80, 50, 80)),
    "dusk": ((90, 108, 30, 55, 72, 98), (68, 90, 25, 50, 24, 42), (80, 110, 30, 60, 40, 60)),
    "night": ((58, 75, 40, 75, 12, 28), (52, 72, 15, 45, 42, 60), (38, 55, 30, 60, 60, 80)),
    "candy": ((82, 100, 10, 28, 94, 100), (0, 100, 35, 60, 62, 86), (0, 100, 25, 50, 85, 100)),
    "cave": ((0, 100, 15, 40, 10, 22), (0, 100, 12, 40, 42, 62), (0, 100, 20, 50, 60, 80)),
    "ice": ((50, 62, 10, 28, 86, 100), (52, 64, 30, 60, 50, 72), (50, 60, 0, 10, 94, 100)),
    "desert": ((9, 15, 20, 45, 92, 100), (4, 10, 45, 75, 48, 70), (9, 13, 35, 60, 80, 95)),
    "oasis": ((46, 54, 20, 50, 80, 100), (7, 12, 40, 65, 60, 80), (18, 35, 50, 80, 45, 65)),
    "forest": ((28, 45, 20, 40, 62, 85), (4, 12, 35, 60, 22, 38), (25, 38, 50, 80, 32, 50)),
    "sea": ((48, 62, 45, 80, 42, 65), (8, 14, 30, 50, 74, 90), (92, 108, 40, 70, 75, 95)),
    "lava": ((94, 106, 50, 80, 14, 30), (60, 105, 8, 30, 40, 58), (2, 11, 80, 100, 90, 100)),
    "neon": ((62, 90, 50, 90, 10, 22), (55, 95, 50, 80, 38, 55), (30, 100, 70, 100, 85, 100)),
    "autumn": ((8, 16, 12, 35, 88, 100), (3, 8, 40, 70, 30, 50), (1, 10, 70, 90, 70, 90)),
    "mist": ((0, 100, 4, 14, 74, 92), (0, 100, 10, 30, 32, 50), (0, 100, 20, 45, 45, 65)),
    "any": ((0, 100, 15, 60, 15, 100), (0, 100, 20, 70, 30, 80), (0, 100, 30, 80, 40, 95)),
}  # fmt: skip

# more of them for the full source; the calm one keeps to those above, whose number its seeds depend on
_MORE = {
    "swamp": ((18, 32, 20, 45, 45, 70), (10, 20, 35, 60, 18, 34), (22, 36, 45, 75, 40, 62)),
    "moon": ((60, 75, 5, 25, 6, 16), (0, 100, 2, 10, 55, 78), (0, 100, 3, 14, 70, 92)),
    "meadow": ((52, 60, 25, 60, 80, 100), (20, 34, 45, 75, 45, 70), (20, 36, 50, 85, 60, 88)),
    "brickwork": ((52, 62, 10, 30, 75, 95), (0, 5, 50, 75, 45, 68), (0, 100, 5, 25, 65, 90)),
    "dawn": ((96, 112, 18, 40, 88, 100), (58, 72, 18, 42, 28, 50), (96, 112, 25, 55, 70, 90)),
    "deep": ((50, 66, 60, 95, 18, 36), (40, 56, 30, 65, 45, 66), (30, 100, 45, 85, 65, 95)),
    "grey": ((0, 100, 0, 4, 60, 92), (0, 100, 0, 6, 18, 42), (0, 100, 0, 8, 45, 70)),
    "sand": ((10, 15, 12, 30, 85, 98), (8, 13, 30, 55, 62, 82), (6, 12, 35, 60, 40, 60)),
    "toxic": ((18, 30, 30, 60, 12, 26), (70, 85, 20, 50, 38, 55), (18, 36, 70, 100, 70, 100)),
    "berry": ((78, 92, 25, 55, 22, 40), (88, 102, 35, 65, 48, 68), (30, 42, 30, 60, 60, 85)),
    "snow": ((54, 66, 6, 22, 80, 96), (55, 68, 12, 35, 42, 62), (54, 64, 0, 6, 94, 100)),
    "gold": ((4, 10, 45, 70, 20, 36), (9, 14, 55, 85, 62, 85), (10, 15, 60, 90, 85, 100)),
    "mint": ((38, 48, 12, 32, 85, 100), (44, 54, 30, 60, 32, 52), (92, 106, 25, 50, 75, 95)),
    "slate": ((56, 64, 15, 35, 30, 48), (58, 66, 8, 22, 55, 75), (12, 40, 25, 60, 60, 85)),
}  # fmt: skip

SHEETS = {
    "white": 0.40, "cream": 0.13, "yellow": 0.06, "grey": 0.10, "pastel": 0.05, "kraft": 0.05, "recycled": 0.08,
    "board": 0.09, "blueprint": 0.05,
}  # fmt: skip
DARK_SHEETS = ("board", "blueprint")
TOOLS = {"pencil": 0.26, "ink": 0.20, "ballpoint": 0.16, "felt": 0.14, "marker": 0.12, "crayon": 0.12}
CHALKS = {"chalk": 0.7, "gel": 0.3}
# chance that a drawing made with a tool has colours in it
_COLOURED = {
    "pencil": 0.35, "ink": 0.4, "ballpoint": 0.2, "felt": 0.7, "marker": 0.6, "crayon": 0.95, "chalk": 0.5, "gel": 0.3,
}  # fmt: skip

# how much of another colour a calm look mixes into a shade
_SOFTER = {
    **{f"ground_{shade}": ("ground", 0.5) for shade in ("dark", "light")},
    **{f"top_{shade}": ("top", 0.4) for shade in ("dark", "light")},
    **{
        f"{thing}_dark": (thing, share)
        for thing, share in (("far", 0.6), ("leaf", 0.5), ("crate", 0.4), ("brick", 0.4))
    },
    **{f"cloud{band}": (f"sky{band}", 0.3) for band in range(3)},
    "pool_light": ("pool", 0.5),
    "hatch": ("paper", 0.3),
    "pale": ("paper", 0.2),
}


def soften(c: Colours) -> Colours:
    """Bring the shades of one thing closer to each other; the avatar and what can be stood on keep theirs."""
    soft = dict(c)
    for shade, (thing, share) in _SOFTER.items():
        if shade in c and thing in c:
            soft[shade] = paint.blend(c[shade], c[thing], share)
    return soft


def scene_colours(rng: np.random.Generator, family: str, calm: bool) -> Colours:
    """The colours of a scene: one theme, one wood, one accent, and an avatar that stands out from all."""
    themes = _THEMES if calm else _THEMES | _MORE
    sky_range, ground_range, top_range = themes[pick(rng, tuple(themes))]
    sky, ground, top = (_between(rng, r) for r in (sky_range, ground_range, top_range))
    dark_sky = brightness(sky) < 110
    toward = hsv(rng.random(), 0.3, 0.95) if rng.random() < 0.3 else np.full(3, 250.0)
    drift = rng.uniform(0.0, 0.06 if dark_sky else 0.22)
    # away from the whole sky: its top and its horizon
    for band in (0, 2):
        behind = paint.blend(sky, toward, drift * band)
        ground, top = _apart(ground, behind, 55, dark_sky), _apart(top, behind, 45, dark_sky)
    c: Colours = {"ground": ground, "top": top}
    strength = rng.uniform(0.035, 0.075)
    for band in range(3):
        tint = paint.blend(sky, toward, drift * band)
        c[f"sky{band}"] = tint
        c[f"mark{band}"] = paint.blend(tint, np.full(3, 255.0 if dark_sky else 0.0), strength)
        c[f"cloud{band}"] = paint.blend(tint, np.full(3, 255.0), 0.22 if dark_sky else 0.6)
    c["star"] = paint.blend(sky, hsv(rng.uniform(0.1, 0.2), 0.3, 1.0), 0.6)
    c["far"] = paint.blend(c["sky2"], paint.blend(ground, hsv(rng.random(), 0.4, 0.5), 0.3), rng.uniform(0.22, 0.38))
    c["far_dark"] = paint.blend(c["far"], np.zeros(3), 0.14)
    depth = rng.uniform(0.22, 0.36)
    for name, colour in (("ground", ground), ("top", top)):
        c[f"{name}_dark"] = paint.blend(colour, np.array([20.0, 8.0, 40.0]), depth)
        c[f"{name}_light"] = paint.blend(colour, np.array([255.0, 250.0, 225.0]), 0.3)
    c["rim"] = paint.blend(ground, np.array([12.0, 6.0, 26.0]), 0.7 if family == "flat" else 0.55)
    # few hues: one wood, one accent; the rest is made of ground, top and these
    wood = hsv(rng.uniform(0.04, 0.13), rng.uniform(0.35, 0.7), rng.uniform(0.45, 0.85))
    accent = hsv(rng.random(), rng.uniform(0.35, 0.75), rng.uniform(0.55, 0.95))
    c["crate"] = _apart(wood, sky, 40)
    c["brick"] = _apart(accent if rng.random() < 0.6 else ground, sky, 40)
    c["ledge"] = _apart((accent, wood, top)[int(rng.integers(3))], sky, 55)
    c["ladder"] = _apart(wood, sky, 60)
    for name in ("crate", "brick", "ledge"):
        c[f"{name}_dark"] = paint.blend(c[name], np.zeros(3), 0.42)
    c["coin"] = hsv(rng.uniform(0.11, 0.16), 0.85, 1.0) if rng.random() < 0.75 else accent
    c["leaf"] = _apart(top, sky, 40)
    c["leaf_dark"] = paint.blend(c["leaf"], np.zeros(3), 0.3)
    c["trunk"] = _apart(paint.blend(wood, ground, 0.4), sky, 35)
    c["flower"] = _apart(accent, sky, 50)
    c["pool"] = hsv(rng.uniform(0.5, 0.62) if rng.random() < 0.8 else rng.random(), 0.6, rng.uniform(0.55, 0.9))
    c["pool_light"] = paint.blend(c["pool"], np.full(3, 255.0), 0.4)
    _dress(rng, c)
    return c


def _dress(rng: np.random.Generator, c: Colours) -> None:
    """Choose an avatar that stands out: the farthest of some colours from all it may stand before."""
    around = np.stack([c[name] for name in ("sky0", "sky1", "sky2", "far", "ground", "top", "leaf")])
    choices = [hsv(rng.random(), rng.uniform(0.55, 0.95), rng.uniform(0.65, 1.0)) for _ in range(14)]
    choices += [np.array([245.0, 245.0, 240.0]), np.array([250.0, 200.0, 60.0])]
    far = [np.abs(around - choice).sum(1).min() for choice in choices]
    c["body"] = choices[int(np.argmax(far))]
    dark, light = np.array([22.0, 16.0, 30.0]), np.array([250.0, 248.0, 240.0])
    c["outline"] = dark if brightness(c["sky2"]) > 70 or brightness(c["body"]) > 120 else light
    c["trim"] = paint.blend(hsv(rng.random(), rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.8)), c["body"], 0.15)
    c["skin"] = hsv(rng.uniform(0.05, 0.1), rng.uniform(0.2, 0.6), rng.uniform(0.55, 1.0))
    if rng.random() < 0.3:
        c["skin"] = paint.blend(c["body"], light, 0.6)
    c["eye"] = dark if min(brightness(c["skin"]), brightness(c["body"])) > 90 else light
    c["foe"] = _apart(hsv(rng.random(), 0.7, 0.8), c["sky2"], 60)


def drawing_kit(rng: np.random.Generator) -> tuple[str, str]:
    """What a drawing is made with, and on: a tool and a sheet."""
    sheet = weighted(rng, SHEETS)
    return weighted(rng, CHALKS if sheet in DARK_SHEETS else TOOLS), sheet


def drawing_colours(rng: np.random.Generator, tool: str, sheet: str) -> Colours:
    """The colours of a drawing: paper, ink, up to four colours beside it, and their shades."""
    dark = sheet in DARK_SHEETS
    paper, ink = _sheet(rng, sheet), _ink(rng, tool)
    coloured = rng.random() < _COLOURED[tool]
    value = (0.78, 1.0) if dark else (0.6, 0.98)
    bright = [hsv(rng.random(), rng.uniform(0.35, 0.9), rng.uniform(*value)) for _ in range(4)]
    plain = [paint.blend(paper, ink, share) for share in rng.uniform([0.06, 0.2, 0.15, 0.06], [0.2, 0.5, 0.3, 0.3])]
    accent, accent2, hero, wash = bright if coloured else plain
    # people colour the sun and the grass as they are
    green = hsv(rng.uniform(0.22, 0.42), rng.uniform(0.4, 0.8), rng.uniform(*value) * 0.85)
    if coloured and rng.random() < 0.5:
        accent = hsv(rng.uniform(0.11, 0.16), rng.uniform(0.5, 0.9), rng.uniform(0.85, 1.0))
    if rng.random() < (0.35 if coloured else 0.75):
        hero = ink if rng.random() < 0.45 else paper
    c: Colours = {f"sky{band}": paper for band in range(3)}
    c |= {"paper": paper, "ground": paper, "ink": ink, "accent": accent, "accent2": accent2, "hero": hero}
    c["eye"] = ink if abs(brightness(hero) - brightness(ink)) > 60 else paper
    c["hatch"] = paint.blend(paper, ink, rng.uniform(0.25, 0.6))
    c["pale"] = paint.blend(paper, ink, rng.uniform(0.13, 0.4))
    printed = hsv(rng.choice([0.58, 0.62, 0.0, 0.35, 0.85]), 0.6, 0.8)
    c["rule"] = paint.blend(paper, ink if dark else printed, rng.uniform(0.1, 0.34))
    c["margin"] = paint.blend(paper, hsv(0.99, 0.6, 0.9), 0.5)
    c["wash"] = paint.blend(paper, wash, rng.uniform(0.15, 0.6))
    c["turf"] = paint.blend(paper, green if coloured else ink, rng.uniform(0.3, 0.7) if coloured else 0.12)
    c["turf_ink"] = green if coloured and rng.random() < 0.7 else ink
    water = hsv(rng.uniform(0.52, 0.62), 0.6, 0.9) if coloured else ink
    c["pool"] = paint.blend(paper, water, 0.45 if coloured else 0.15)
    c["pool_light"] = water
    c |= {"ground_ink": ink, "cloud_ink": c["pale"], "sun_ink": c["pale"] if rng.random() < 0.5 else ink}
    if coloured and rng.random() < 0.5:
        # a pencil for each thing: clouds, sun, grass, earth
        brown = hsv(rng.uniform(0.05, 0.11), rng.uniform(0.25, 0.6), rng.uniform(0.6, 0.9))
        c["cloud_ink"] = paint.blend(paper, hsv(rng.uniform(0.52, 0.64), 0.6, 0.9), rng.uniform(0.4, 0.8))
        c["sun_ink"] = hsv(rng.uniform(0.07, 0.13), 0.8, 0.95)
        c["ground_ink"] = green if rng.random() < 0.6 else brown
        c["wash"] = paint.blend(paper, brown if rng.random() < 0.7 else green, rng.uniform(0.2, 0.55))
    # the same by the names that figures use
    c |= {"body": hero, "trim": accent2 if coloured else hero, "skin": paper if coloured else hero, "outline": ink}
    return c


def _sheet(rng: np.random.Generator, sheet: str) -> Colour:
    if sheet == "white":
        return np.full(3, rng.uniform(238, 255)) + rng.uniform(-5, 0, 3)
    if sheet == "grey":
        return np.full(3, rng.uniform(170, 226)) + rng.uniform(-7, 7, 3)
    if sheet == "board":
        return hsv(rng.uniform(0.36, 0.65), *_spread(rng, (0.0, 0.45), (0.10, 0.34)))
    ranges = {
        "cream": ((0.08, 0.15), (0.04, 0.12), (0.93, 1.0)), "yellow": ((0.12, 0.16), (0.12, 0.45), (0.92, 1.0)),
        "pastel": ((0.0, 1.0), (0.06, 0.22), (0.86, 1.0)), "kraft": ((0.065, 0.1), (0.22, 0.45), (0.58, 0.82)),
        "recycled": ((0.07, 0.15), (0.02, 0.1), (0.78, 0.9)), "blueprint": ((0.57, 0.64), (0.5, 0.88), (0.33, 0.62)),
    }[sheet]  # fmt: skip
    return hsv(*_spread(rng, *ranges))


def _ink(rng: np.random.Generator, tool: str) -> Colour:
    kind = rng.random()
    if tool in ("chalk", "gel"):
        return hsv(rng.random(), rng.uniform(0.2, 0.5), 1.0) if kind < 0.25 else np.full(3, rng.uniform(215, 255))
    if tool == "pencil":
        return np.full(3, rng.uniform(35, 105)) + rng.uniform(-6, 6, 3)
    if tool == "ballpoint" and kind < 0.75:
        hue = rng.uniform(0.6, 0.67) if kind < 0.62 else rng.uniform(0.96, 1.0)
        return hsv(hue, rng.uniform(0.55, 0.9), rng.uniform(0.4, 0.7))
    if tool == "crayon" or (tool in ("marker", "felt") and kind < 0.4):
        return hsv(rng.random(), rng.uniform(0.5, 0.95), rng.uniform(0.3, 0.65))
    if kind < 0.6:
        return np.full(3, rng.uniform(6, 60))
    return hsv(rng.choice([0.62, 0.07, 0.95, 0.4]), rng.uniform(0.3, 0.8), rng.uniform(0.15, 0.4))


def paper_colours(rng: np.random.Generator) -> Colours:
    """The colours of a calm sketch."""
    kind = rng.random()
    if kind < 0.08:  # white on a blueprint, a blackboard or wrapping paper
        paper = (hsv(0.60, 0.7, 0.5), hsv(0.42, 0.4, 0.22), hsv(0.08, 0.4, 0.5))[int(rng.integers(3))]
        ink = np.full(3, rng.uniform(225, 255))
    else:
        paper = hsv(rng.uniform(0.08, 0.16), *_spread(rng, (0.0, 0.18), (0.90, 1.0)))
        if kind < 0.5:
            paper = np.full(3, rng.uniform(232, 255))
        elif kind < 0.62:
            paper = np.full(3, rng.uniform(195, 232))
        ink = np.full(3, rng.uniform(10, 85))
        if rng.random() < 0.35:
            ink = hsv(rng.choice([0.62, 0.66, 0.06, 0.95]), rng.uniform(0.4, 0.9), rng.uniform(0.25, 0.5))
    coloured = rng.random() < 0.55
    bright = [hsv(rng.random(), rng.uniform(0.45, 0.9), rng.uniform(0.75, 1.0)) for _ in range(4)]
    plain = [paint.blend(paper, ink, s) for s in (0.12, 0.3, 0.2, 0.08)]
    accent, accent2, hero, wash = bright if coloured else plain
    green = hsv(rng.uniform(0.22, 0.42), rng.uniform(0.4, 0.8), rng.uniform(0.45, 0.75))
    if rng.random() < 0.35:
        hero = ink if rng.random() < 0.5 else paper
    c: Colours = {f"sky{band}": paper for band in range(3)}
    c |= {"paper": paper, "ground": paper, "ink": ink, "accent": accent, "accent2": accent2, "hero": hero}
    c["eye"] = ink if abs(brightness(hero) - brightness(ink)) > 60 else paper
    c["hatch"] = paint.blend(paper, ink, rng.uniform(0.28, 0.5))
    c["pale"] = paint.blend(paper, ink, rng.uniform(0.13, 0.24))
    ruled = paint.blend(paper, hsv(rng.choice([0.58, 0.62, 0.0, 0.35]), 0.5, 0.8), rng.uniform(0.12, 0.26))
    c["rule"] = ruled if kind >= 0.08 else paint.blend(paper, ink, 0.14)
    c["wash"] = paint.blend(paper, wash, 0.35)
    c["turf"] = paint.blend(paper, green if coloured else ink, 0.4 if coloured else 0.1)
    c["turf_ink"] = green if coloured and rng.random() < 0.7 else ink
    water = hsv(rng.uniform(0.52, 0.62), 0.6, 0.85) if coloured else ink
    c["pool"] = paint.blend(paper, water, 0.35 if coloured else 0.15)
    c["pool_light"] = water
    return c


def pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    """One of the names."""
    return names[int(rng.integers(len(names)))]


def weighted(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    """One of the names, by its share."""
    names, chances = list(shares), np.cumsum(list(shares.values()))
    return names[int(np.searchsorted(chances, rng.random() * chances[-1], side="right"))]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour of hue (in turns), saturation and value."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)) * 255.0


def _spread(rng: np.random.Generator, *ranges: tuple[float, float]) -> list[float]:
    return [float(rng.uniform(low, high)) for low, high in ranges]


def _between(rng: np.random.Generator, percent: tuple[int, ...]) -> Colour:
    h0, h1, s0, s1, v0, v1 = (p / 100 for p in percent)
    return hsv(*_spread(rng, (h0, h1), (s0, s1), (v0, v1)))


def brightness(colour: Colour) -> float:
    """Perceived brightness, 0 to 255 (Rec. 601 weights)."""
    return float(colour @ np.array([0.299, 0.587, 0.114]))


def _apart(colour: Colour, other: Colour, least: float, up: bool | None = None) -> Colour:
    """Move a colour towards white (`up`) or black until its brightness is `least` from that of the other."""
    up = brightness(other) <= 120 if up is None else up
    goal = np.full(3, 255.0 if up else 0.0)
    for share in (0.0, 0.15, 0.3, 0.45, 0.6, 0.75):
        moved = paint.blend(colour, goal, share)
        if abs(brightness(moved) - brightness(other)) >= least:
            break
    return moved
