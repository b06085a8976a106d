"""Looks from a seed: a palette, a tile set, a backdrop, an avatar. Three families: pixel, flat, sketch.

TRAIN and HELD_OUT are disjoint ranges of seeds: nothing that was drawn for one is drawn for the other.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genie_play.data import levels, paint
from genie_play.data.figures import critter, figure
from genie_play.data.paint import Colour, Colours, Style
from genie_play.data.tiles import back_tiles, ground_tiles, thing_tile

FAMILIES = ("pixel", "flat", "sketch")
TRAIN, HELD_OUT = range(1_000_000), range(1_000_000, 1_100_000)
SPLITS = {"train": TRAIN, "held-out": HELD_OUT}

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


@dataclass(frozen=True)
class Look:
    """Everything a game of tile size t is drawn with. Cut in quarter tiles, h = t / 2, as the camera moves by those."""

    family: str
    seed: int
    slow: bool  # the backdrop moves at half the pace of the ground
    colours: Colours
    tiles: NDArray[np.uint8]  # (N_TILES * 4, h, h, 3), code * 4 + quarter
    tile_mask: NDArray[np.bool_]  # (N_TILES * 4, h, h) what is painted
    backs: NDArray[np.uint8]  # (N_BACKS * 4, h, h, 3)
    figures: NDArray[np.uint8]  # (2 * poses, 3t/2 + pad, t + 2 pad, 3) facing right, then left
    figure_mask: NDArray[np.bool_]  # (2 * poses, 3t/2 + pad, t + 2 pad)
    critters: NDArray[np.uint8]  # (2, t, t, 3)
    critter_mask: NDArray[np.bool_]  # (2, t, t)


def make(family: str, seed: int, tile: int = 8, calm: bool = False) -> Look:
    """Draw the look of a seed; ValueError for an unknown family or a tile size that is no multiple of 4.

    A calm look has fewer textures, all of them faint, and no parallax: what a small world can learn in an hour.
    """
    if family not in FAMILIES or tile < 4 or tile % 4:
        raise ValueError(f"no look of family {family!r} at tile size {tile}")
    colours = palette(family, seed)
    style, slow = _style(family, seed, calm)
    if calm:
        colours = _soften(colours)
    tiles = np.zeros((levels.N_TILES, tile, tile, 3))
    mask = np.zeros((levels.N_TILES, tile, tile), bool)
    tiles[levels.GROUND : levels.CRATE] = ground_tiles(family, style, tile, colours)
    mask[levels.GROUND : levels.CRATE] = True
    for code in range(levels.CRATE, levels.N_TILES):
        thing = thing_tile(code, family, style, tile, colours)
        tiles[code], mask[code] = thing.rgb, thing.mask
    figures = [figure(pose, family, style, tile, colours) for pose in paint.POSES]
    rights, shapes = np.stack([f.rgb for f in figures]), np.stack([f.mask for f in figures])
    critters = [critter(beat, family, style, tile, colours) for beat in (0, 1)]
    return Look(
        family=family,
        seed=seed,
        slow=slow,
        colours=colours,
        tiles=_bytes(_quarters(tiles)),
        tile_mask=_quarters(mask[..., None])[..., 0].astype(bool),
        backs=_bytes(_quarters(back_tiles(family, style, tile, colours))),
        figures=_bytes(np.concatenate([rights, rights[:, :, ::-1]])),
        figure_mask=np.concatenate([shapes, shapes[:, :, ::-1]]),
        critters=_bytes(np.stack([p.rgb for p in critters])),
        critter_mask=np.stack([p.mask for p in critters]),
    )


class Wardrobe:
    """Looks by number, drawn when first asked for and stacked so that many games are drawn at once.

    `seeds` lists (family, seed); the arrays have the fields of `Look` with a first axis over looks.
    """

    def __init__(self, seeds: Sequence[tuple[str, int]], tile: int = 8, calm: bool = False) -> None:
        first = make(seeds[0][0], seeds[0][1], tile, calm)
        n = len(seeds)
        self.seeds, self.tile, self.calm = list(seeds), tile, calm
        self.slow = np.zeros(n, np.int32)
        self.tiles = np.zeros((n, *first.tiles.shape), np.uint8)
        self.tile_mask = np.zeros((n, *first.tile_mask.shape), bool)
        self.backs = np.zeros((n, *first.backs.shape), np.uint8)
        self.figures = np.zeros((n, *first.figures.shape), np.uint8)
        self.figure_mask = np.zeros((n, *first.figure_mask.shape), bool)
        self.critters = np.zeros((n, *first.critters.shape), np.uint8)
        self.critter_mask = np.zeros((n, *first.critter_mask.shape), bool)
        self._drawn = np.zeros(n, bool)

    def need(self, numbers: NDArray[np.int64]) -> None:
        """Draw those looks that are not drawn yet."""
        for i in np.unique(numbers[~self._drawn[numbers]]):
            family, seed = self.seeds[i]
            look = make(family, seed, self.tile, self.calm)
            self.slow[i] = look.slow
            for name in ("tiles", "tile_mask", "backs", "figures", "figure_mask", "critters", "critter_mask"):
                getattr(self, name)[i] = getattr(look, name)
            self._drawn[i] = True


def palette(family: str, seed: int) -> Colours:
    """The colours of a look, by name; cheap, so that many can be compared with a picture."""
    rng = _rng(family, seed, 0)
    return _paper_colours(rng) if family == "sketch" else _scene_colours(rng, family)


def _style(family: str, seed: int, calm: bool) -> tuple[Style, bool]:
    rng = _rng(family, seed, 1)
    fills = {"pixel": paint.PIXEL_FILLS, "flat": paint.FLAT_FILLS, "sketch": paint.SKETCH_FILLS}[family]
    if calm:
        fills = {"pixel": ("bricks", "planks", "dirt"), "flat": ("seams", "bars", "dots"), "sketch": ("ticks", "wash")}[
            family
        ]
    bends = rng.uniform(-1, 1, 4)
    style = Style(
        fill=_pick(rng, fills),
        top=_pick(rng, paint.TOPS),
        motif=_pick(rng, ("stripes", "plain") if calm else paint.MOTIFS),
        paper=_pick(rng, ("plain",) if calm else paint.PAPERS),
        range=_pick(rng, ("hills", "city", "mesas") if calm else paint.RANGES),
        lights=_pick(rng, ("star", "bird")),
        figure=_pick(rng, paint.STICKS if family == "sketch" else paint.FIGURES),
        pen=float(rng.uniform(1.0, 1.45)),
        bends=(float(bends[0]), float(bends[1]), float(bends[2]), float(bends[3])),
    )
    return style, bool(rng.random() < 0.2) and not calm


def _soften(c: Colours) -> Colours:
    """Bring the shades of one thing closer to each other; the avatar and what can be stood on keep theirs."""
    soft = dict(c)
    for shade, (thing, share) in _SOFTER.items():
        if shade in c and thing in c:
            soft[shade] = paint.blend(c[shade], c[thing], share)
    return soft


def _scene_colours(rng: np.random.Generator, family: str) -> Colours:
    sky_range, ground_range, top_range = _THEMES[_pick(rng, tuple(_THEMES))]
    sky, ground, top = (_between(rng, r) for r in (sky_range, ground_range, top_range))
    dark_sky = _light(sky) < 110
    toward = _hsv(rng.random(), 0.3, 0.95) if rng.random() < 0.3 else np.full(3, 250.0)
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
    c["star"] = paint.blend(sky, _hsv(rng.uniform(0.1, 0.2), 0.3, 1.0), 0.6)
    c["far"] = paint.blend(c["sky2"], paint.blend(ground, _hsv(rng.random(), 0.4, 0.5), 0.3), rng.uniform(0.22, 0.38))
    c["far_dark"] = paint.blend(c["far"], np.zeros(3), 0.14)
    depth = rng.uniform(0.22, 0.36)
    for name, colour in (("ground", ground), ("top", top)):
        c[f"{name}_dark"] = paint.blend(colour, np.array([20.0, 8.0, 40.0]), depth)
        c[f"{name}_light"] = paint.blend(colour, np.array([255.0, 250.0, 225.0]), 0.3)
    c["rim"] = paint.blend(ground, np.array([12.0, 6.0, 26.0]), 0.7 if family == "flat" else 0.55)
    # few hues: one wood, one accent; the rest is made of ground, top and these
    wood = _hsv(rng.uniform(0.04, 0.13), rng.uniform(0.35, 0.7), rng.uniform(0.45, 0.85))
    accent = _hsv(rng.random(), rng.uniform(0.35, 0.75), rng.uniform(0.55, 0.95))
    c["crate"] = _apart(wood, sky, 40)
    c["brick"] = _apart(accent if rng.random() < 0.6 else ground, sky, 40)
    c["ledge"] = _apart((accent, wood, top)[int(rng.integers(3))], sky, 55)
    c["ladder"] = _apart(wood, sky, 60)
    for name in ("crate", "brick", "ledge"):
        c[f"{name}_dark"] = paint.blend(c[name], np.zeros(3), 0.42)
    c["coin"] = _hsv(rng.uniform(0.11, 0.16), 0.85, 1.0) if rng.random() < 0.75 else accent
    c["leaf"] = _apart(top, sky, 40)
    c["leaf_dark"] = paint.blend(c["leaf"], np.zeros(3), 0.3)
    c["trunk"] = _apart(paint.blend(wood, ground, 0.4), sky, 35)
    c["flower"] = _apart(accent, sky, 50)
    c["pool"] = _hsv(rng.uniform(0.5, 0.62) if rng.random() < 0.8 else rng.random(), 0.6, rng.uniform(0.55, 0.9))
    c["pool_light"] = paint.blend(c["pool"], np.full(3, 255.0), 0.4)
    _dress(rng, c)
    return c


def _dress(rng: np.random.Generator, c: Colours) -> None:
    """Choose an avatar that stands out: the farthest of some colours from all it may stand before."""
    around = np.stack([c[name] for name in ("sky0", "sky1", "sky2", "far", "ground", "top", "leaf")])
    choices = [_hsv(rng.random(), rng.uniform(0.55, 0.95), rng.uniform(0.65, 1.0)) for _ in range(14)]
    choices += [np.array([245.0, 245.0, 240.0]), np.array([250.0, 200.0, 60.0])]
    far = [np.abs(around - choice).sum(1).min() for choice in choices]
    c["body"] = choices[int(np.argmax(far))]
    dark, light = np.array([22.0, 16.0, 30.0]), np.array([250.0, 248.0, 240.0])
    c["outline"] = dark if _light(c["sky2"]) > 70 or _light(c["body"]) > 120 else light
    c["trim"] = paint.blend(_hsv(rng.random(), rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.8)), c["body"], 0.15)
    c["skin"] = _hsv(rng.uniform(0.05, 0.1), rng.uniform(0.2, 0.6), rng.uniform(0.55, 1.0))
    if rng.random() < 0.3:
        c["skin"] = paint.blend(c["body"], light, 0.6)
    c["eye"] = dark if min(_light(c["skin"]), _light(c["body"])) > 90 else light
    c["foe"] = _apart(_hsv(rng.random(), 0.7, 0.8), c["sky2"], 60)


def _paper_colours(rng: np.random.Generator) -> Colours:
    kind = rng.random()
    if kind < 0.08:  # white on a blueprint, a blackboard or wrapping paper
        paper = (_hsv(0.60, 0.7, 0.5), _hsv(0.42, 0.4, 0.22), _hsv(0.08, 0.4, 0.5))[int(rng.integers(3))]
        ink = np.full(3, rng.uniform(225, 255))
    else:
        paper = _hsv(rng.uniform(0.08, 0.16), *_spread(rng, (0.0, 0.18), (0.90, 1.0)))
        if kind < 0.5:
            paper = np.full(3, rng.uniform(232, 255))
        elif kind < 0.62:
            paper = np.full(3, rng.uniform(195, 232))
        ink = np.full(3, rng.uniform(10, 85))
        if rng.random() < 0.35:
            ink = _hsv(rng.choice([0.62, 0.66, 0.06, 0.95]), rng.uniform(0.4, 0.9), rng.uniform(0.25, 0.5))
    coloured = rng.random() < 0.55
    bright = [_hsv(rng.random(), rng.uniform(0.45, 0.9), rng.uniform(0.75, 1.0)) for _ in range(4)]
    plain = [paint.blend(paper, ink, s) for s in (0.12, 0.3, 0.2, 0.08)]
    accent, accent2, hero, wash = bright if coloured else plain
    green = _hsv(rng.uniform(0.22, 0.42), rng.uniform(0.4, 0.8), rng.uniform(0.45, 0.75))
    if rng.random() < 0.35:
        hero = ink if rng.random() < 0.5 else paper
    c: Colours = {f"sky{band}": paper for band in range(3)}
    c |= {"paper": paper, "ground": paper, "ink": ink, "accent": accent, "accent2": accent2, "hero": hero}
    c["eye"] = ink if abs(_light(hero) - _light(ink)) > 60 else paper
    c["hatch"] = paint.blend(paper, ink, rng.uniform(0.28, 0.5))
    c["pale"] = paint.blend(paper, ink, rng.uniform(0.13, 0.24))
    ruled = paint.blend(paper, _hsv(rng.choice([0.58, 0.62, 0.0, 0.35]), 0.5, 0.8), rng.uniform(0.12, 0.26))
    c["rule"] = ruled if kind >= 0.08 else paint.blend(paper, ink, 0.14)
    c["wash"] = paint.blend(paper, wash, 0.35)
    c["turf"] = paint.blend(paper, green if coloured else ink, 0.4 if coloured else 0.1)
    c["turf_ink"] = green if coloured and rng.random() < 0.7 else ink
    water = _hsv(rng.uniform(0.52, 0.62), 0.6, 0.85) if coloured else ink
    c["pool"] = paint.blend(paper, water, 0.35 if coloured else 0.15)
    c["pool_light"] = water
    return c


def _rng(family: str, seed: int, part: int) -> np.random.Generator:
    return np.random.default_rng([FAMILIES.index(family), seed, part])


def _pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)) * 255.0


def _spread(rng: np.random.Generator, *ranges: tuple[float, float]) -> list[float]:
    return [float(rng.uniform(low, high)) for low, high in ranges]


def _between(rng: np.random.Generator, percent: tuple[int, ...]) -> Colour:
    h0, h1, s0, s1, v0, v1 = (p / 100 for p in percent)
    return _hsv(*_spread(rng, (h0, h1), (s0, s1), (v0, v1)))


def _light(colour: Colour) -> float:
    """Perceived brightness, 0 to 255 (Rec. 601 weights)."""
    return float(colour @ np.array([0.299, 0.587, 0.114]))


def _apart(colour: Colour, other: Colour, least: float, up: bool | None = None) -> Colour:
    """Move a colour towards white (`up`) or black until its brightness is `least` from that of the other."""
    up = _light(other) <= 120 if up is None else up
    goal = np.full(3, 255.0 if up else 0.0)
    for share in (0.0, 0.15, 0.3, 0.45, 0.6, 0.75):
        moved = paint.blend(colour, goal, share)
        if abs(_light(moved) - _light(other)) >= least:
            break
    return moved


def _quarters(tiles: NDArray[np.generic]) -> NDArray[np.generic]:
    """Cut (N, t, t, C) into (N * 4, t/2, t/2, C): top left, top right, bottom left, bottom right."""
    n, t, _, channels = tiles.shape
    cut = tiles.reshape(n, 2, t // 2, 2, t // 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(cut.reshape(n * 4, t // 2, t // 2, channels))


def _bytes(picture: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.clip(np.rint(picture.astype(np.float64)), 0, 255).astype(np.uint8)
