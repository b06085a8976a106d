"""Looks from a seed: colours, textures, tiles, a backdrop, an avatar, and how the picture is lit and held.

Five families: pixel, flat, sketch, painted, photo. Calm looks, what a small world can learn in an hour, come in the
first three, with fewer and fainter textures. TRAIN and HELD_OUT are disjoint ranges of seeds: nothing that was drawn
for one is drawn for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genie_play.data import avatars, drawings, levels, light, paint, palettes, scenery, sprites
from genie_play.data.figures import critter, figure
from genie_play.data.paint import Colours, Plane, Style
from genie_play.data.tiles import back_tiles, ground_tiles, thing_tile

FAMILIES = ("pixel", "flat", "sketch", "painted", "photo")
CALM_FAMILIES = FAMILIES[:3]
TRAIN, HELD_OUT = range(1_000_000), range(1_000_000, 1_100_000)
SPLITS = {"train": TRAIN, "held-out": HELD_OUT}
FILLS = 4  # three bands of sky, and the ground

# share of the looks of a family that are lit unevenly, and that are held at an angle
_LIT = {"pixel": 0.06, "flat": 0.08, "sketch": 0.45, "painted": 0.35, "photo": 0.8}
_TILTED = {"pixel": 0.0, "flat": 0.0, "sketch": 0.10, "painted": 0.03, "photo": 0.08}


@dataclass(frozen=True)
class Look:
    """Everything a game of tile size t is drawn with. Cut in quarter tiles, h = t / 2, as the camera moves by those.

    Tiles and figures hold colours times cover (255: whole). In a full look ground is filled from `fills` by its place
    in the level, as is the sky, and its tiles hold the edges only; in a calm one `fills` is empty.
    """

    family: str
    seed: int
    slow: bool  # the backdrop moves at half the pace of the ground
    bare: bool  # nothing is in the backdrop
    exposure: int
    tilt: int
    colours: Colours
    tiles: NDArray[np.uint8]  # (N_TILES * 4, h, h, 3), code * 4 + quarter
    tile_cover: NDArray[np.uint8]  # (N_TILES * 4, h, h)
    backs: NDArray[np.uint8]  # (N_BACKS * 4, h, h, 3)
    back_cover: NDArray[np.uint8]  # (N_BACKS * 4, h, h)
    fills: NDArray[np.uint8]  # (FILLS * 64 or 0, h, h, 3) bands of sky, ground; four tiles by four each, row by row
    figures: NDArray[np.uint8]  # (2 * poses, 2t + pad, t + 2 sides, 3) facing right, then left; feet in the last row
    figure_cover: NDArray[np.uint8]  # (2 * poses, 2t + pad, t + 2 sides)
    critters: NDArray[np.uint8]  # (2, t, t, 3)
    critter_mask: NDArray[np.bool_]  # (2, t, t)


def make(family: str, seed: int, tile: int = 8, calm: bool = False) -> Look:
    """Draw the look of a seed; ValueError for an unknown family or a tile size that is no multiple of 4."""
    if family not in (CALM_FAMILIES if calm else FAMILIES) or tile < 4 or tile % 4:
        raise ValueError(f"no look of family {family!r} at tile size {tile}")
    return _calm(family, seed, tile) if calm else _full(family, seed, tile)


class Wardrobe:
    """Looks by number, drawn when first asked for and stacked so that many games are drawn at once.

    `seeds` lists (family, seed); the arrays have the fields of `Look` with a first axis over looks, and what is left of
    a background under a tile or a figure, 255 less its cover, once a channel. Without `lit`
    pictures are neither lit nor tilted.
    """

    def __init__(self, seeds: Sequence[tuple[str, int]], tile: int = 8, calm: bool = False, lit: bool = True) -> None:
        first = make(seeds[0][0], seeds[0][1], tile, calm)
        n = len(seeds)
        self.seeds, self.tile, self.calm, self.lit = list(seeds), tile, calm, lit
        self.drawn_by_hand = np.array([family == "sketch" for family, _ in seeds])
        self.slow, self.exposure, self.tilt = (np.zeros(n, np.int64) for _ in range(3))
        self.bare = np.zeros(n, bool)
        self._arrays = ("tiles", "backs", "fills", "figures", "critters", "critter_mask")
        self.tiles, self.backs, self.fills, self.figures, self.critters = (
            np.zeros((n, *getattr(first, name).shape), np.uint8) for name in self._arrays[:-1]
        )
        self.critter_mask = np.zeros((n, *first.critter_mask.shape), bool)
        self.tile_left, self.back_left, self.figure_left = (
            np.zeros_like(array) for array in (self.tiles, self.backs, self.figures)
        )
        self._drawn = np.zeros(n, bool)

    def need(self, numbers: NDArray[np.int64]) -> None:
        """Draw those looks that are not drawn yet."""
        for i in np.unique(numbers[~self._drawn[numbers]]):
            family, seed = self.seeds[i]
            look = make(family, seed, self.tile, self.calm)
            self.slow[i], self.bare[i] = look.slow, look.bare
            if self.lit:
                self.exposure[i], self.tilt[i] = look.exposure, look.tilt
            for name in self._arrays:
                getattr(self, name)[i] = getattr(look, name)
            self.tile_left[i] = 255 - look.tile_cover[..., None]
            self.back_left[i] = 255 - look.back_cover[..., None]
            self.figure_left[i] = 255 - look.figure_cover[..., None]
            self._drawn[i] = True


def palette(family: str, seed: int, calm: bool = False) -> Colours:
    """The colours of a look, by name; cheap, so that many can be compared with a picture."""
    rng = _rng(family, seed, 0)
    if family != "sketch":
        return palettes.scene_colours(rng, family, calm)
    return palettes.paper_colours(rng) if calm else palettes.drawing_colours(rng, *_kit(seed))


def _kit(seed: int) -> tuple[str, str]:
    return palettes.drawing_kit(_rng("sketch", seed, 2))


def _calm(family: str, seed: int, tile: int) -> Look:
    colours, style = palettes.soften(palette(family, seed, calm=True)), _calm_style(family, seed)
    tiles, cover = np.zeros((levels.N_TILES, tile, tile, 3)), np.zeros((levels.N_TILES, tile, tile))
    tiles[levels.GROUND : levels.GROUND + 32] = ground_tiles(family, style, tile, colours)
    cover[levels.GROUND : levels.GROUND + 32] = 1.0
    for code in range(levels.CRATE, levels.N_TILES):
        thing = thing_tile(code, family, style, tile, colours)
        cover[code] = thing.mask
        tiles[code] = thing.rgb * thing.mask[..., None]
    drawn = [figure(pose, family, style, tile, colours) for pose in paint.POSES]
    # of the size of all avatars
    rows, columns, _ = sprites.canvas(tile)
    high, wide = len(drawn[0].mask), len(drawn[0].mask[0])
    room = ((rows - high, 0), ((columns - wide) // 2, (columns - wide) // 2))
    figures = np.stack([np.pad(f.rgb * f.mask[..., None], (*room, (0, 0))) for f in drawn])
    shapes = np.stack([np.pad(f.mask, room) for f in drawn]).astype(float)
    backs = back_tiles(family, style, tile, colours)
    nothing = np.zeros((0, tile // 2, tile // 2, 3))
    return _look(
        (family, seed, tile), colours, (tiles, cover), (backs, np.ones(backs.shape[:3])), nothing,
        (figures, shapes), style,
    )  # fmt: skip


def _calm_style(family: str, seed: int) -> Style:
    rng = _rng(family, seed, 1)
    fills = {"pixel": ("bricks", "planks", "dirt"), "flat": ("seams", "bars", "dots"), "sketch": ("ticks", "wash")}
    bends = rng.uniform(-1, 1, 4)
    return Style(
        fill=palettes.pick(rng, fills[family]),
        top=palettes.pick(rng, paint.TOPS),
        motif=palettes.pick(rng, ("stripes", "plain")),
        paper=palettes.pick(rng, ("plain",)),
        range=palettes.pick(rng, ("hills", "city", "mesas")),
        lights=palettes.pick(rng, ("star", "bird")),
        figure=palettes.pick(rng, paint.STICKS if family == "sketch" else paint.FIGURES),
        pen=float(rng.uniform(1.0, 1.45)),
        bends=(float(bends[0]), float(bends[1]), float(bends[2]), float(bends[3])),
    )


def _full(family: str, seed: int, tile: int) -> Look:
    colours, rng = palette(family, seed), _rng(family, seed, 1)
    tiles, cover = np.zeros((levels.N_TILES, tile, tile, 3)), np.zeros((levels.N_TILES, tile, tile))
    backs, behind = np.zeros((levels.N_BACKS, tile, tile, 3)), np.zeros((levels.N_BACKS, tile, tile))
    ground = slice(levels.GROUND, levels.GROUND + 16 * levels.VARIANTS)
    pieces = [_piece(code) for code in range(levels.STAR, levels.SUN)]
    if family == "sketch":
        h = drawings.hand(rng, *_kit(seed))
        sheet = drawings.paper(h, rng, tile, colours)
        fill, sky = drawings.ground(h, rng, tile, colours, sheet), np.stack([sheet] * (FILLS - 1))
        tiles[ground], cover[ground] = drawings.edges(h, rng, tile, colours)
        for code in range(levels.CRATE, levels.N_TILES):
            layer = drawings.thing(code, h, rng, tile, colours)
            tiles[code], cover[code] = layer.rgb, layer.cover
        for code, (kind, _) in enumerate(pieces, levels.STAR):
            layer = drawings.back(kind, h, rng, tile, colours)
            backs[code], behind[code] = layer.rgb, layer.cover
        disc = drawings.sun(h, rng, tile, colours)
        sun = disc.rgb, disc.cover
        style, bare = h.style, h.bare
        person = sprites.sprites(_drawn_build(rng, h, colours), tile, colours, rng)
    else:
        s = scenery.scene(rng, family)
        fill, sky = scenery.ground(s, rng, tile, colours), scenery.sky(s, rng, tile, colours)
        tiles[ground], cover[ground] = scenery.edges(s, rng, tile, colours)
        for code in range(levels.CRATE, levels.N_TILES):
            tiles[code], cover[code] = scenery.thing(code, s, rng, tile, colours)
        for code, (kind, band) in enumerate(pieces, levels.STAR):
            backs[code], behind[code] = scenery.back(kind, s, rng, tile, colours, band)
        sun = scenery.sun(s, rng, tile, colours)
        style, bare = s.style, s.bare
        person = sprites.sprites(_scene_build(rng, s), tile, scenery.avatar_colours(rng, colours), rng)
    backs[levels.SUN :], behind[levels.SUN :] = _cut(sun[0][None], 2), _cut(sun[1][None, ..., None], 2)[..., 0]
    figures = person[0] * person[1][..., None], person[1]
    slow = bool(rng.random() < 0.15)
    exposure = int(rng.integers(1, light.EXPOSURES)) if rng.random() < _LIT[family] else 0
    tilt = int(rng.integers(1, light.TILTS)) if rng.random() < _TILTED[family] else 0
    textures = _cut(np.concatenate([sky, fill[None]]), 8)
    return _look(
        (family, seed, tile), colours, (tiles, cover), (backs, behind), textures, figures, style, slow, bare,
        exposure, tilt,
    )  # fmt: skip


def _drawn_build(rng: np.random.Generator, h: drawings.Hand, c: Colours) -> sprites.Build:
    """A stick figure or another avatar in outline, as dark as its lines allow."""
    stick = rng.random() < 0.45
    kind = palettes.pick(rng, avatars.STICKS if stick else avatars.SCENE_KINDS)
    # a fill that is not seen on the paper needs its outline
    filled = not stick and rng.random() < 0.2 and np.abs(c["hero"] - c["paper"]).sum() > 150
    return sprites.Build(
        kind=kind,
        tall=float(rng.uniform(0.8, 1.28)),
        wide=float(rng.uniform(0.85, 1.15)),
        rim=0.0,
        outlined=not filled,
        pen=min(max(h.pen * rng.uniform(0.85, 1.15), 0.95), 2.0 if stick else 1.5),
        strength=max(h.strength, 0.85),
        grain=0.6 * h.grain,
        wobble=float(rng.uniform(0.05, 0.28)),
    )


def _scene_build(rng: np.random.Generator, s: scenery.Scene) -> sprites.Build:
    """An avatar in colours, with a line around it or without."""
    soft = s.family in ("painted", "photo")
    return sprites.Build(
        kind=palettes.pick(rng, avatars.SCENE_KINDS),
        tall=float(rng.uniform(0.8, 1.28)),
        wide=float(rng.uniform(0.88, 1.15)),
        rim=float(rng.choice([0.0, 0.5, 1.0], p=[0.4, 0.35, 0.25] if soft else [0.1, 0.2, 0.7])),
        crisp=s.family == "pixel",
        shaded=soft,
        soft=0.5 * s.soft,
    )


def _piece(code: int) -> tuple[str, int]:
    """The kind and the band of a code of the backdrop, from STAR on."""
    if code < levels.CLOUD:
        return "star", code - levels.STAR
    if code < levels.FAR:
        return f"cloud-{(code - levels.CLOUD) % 3}", (code - levels.CLOUD) // 3
    return f"far-{code - levels.FAR}", 2


def _look(
    name: tuple[str, int, int],
    colours: Colours,
    tiles: tuple[Plane, Plane],
    backs: tuple[Plane, Plane],
    textures: Plane,
    figures: tuple[Plane, Plane],
    style: Style,
    slow: bool = False,
    bare: bool = False,
    exposure: int = 0,
    tilt: int = 0,
) -> Look:
    family, seed, tile = name
    shapes = np.concatenate([figures[1], figures[1][:, :, ::-1]])
    critters = [critter(beat, family, style, tile, colours) for beat in (0, 1)]
    return Look(
        family=family,
        seed=seed,
        slow=slow,
        bare=bare,
        exposure=exposure,
        tilt=tilt,
        colours=colours,
        tiles=_bytes(_cut(tiles[0], 2)),
        tile_cover=_bytes(255 * _cut(tiles[1][..., None], 2)[..., 0]),
        backs=_bytes(_cut(backs[0], 2)),
        back_cover=_bytes(255 * _cut(backs[1][..., None], 2)[..., 0]),
        fills=_bytes(textures),
        figures=_bytes(np.concatenate([figures[0], figures[0][:, :, ::-1]])),
        figure_cover=_bytes(255 * shapes),
        critters=_bytes(np.stack([p.rgb for p in critters])),
        critter_mask=np.stack([p.mask for p in critters]),
    )


def _rng(family: str, seed: int, part: int) -> np.random.Generator:
    return np.random.default_rng([FAMILIES.index(family), seed, part])


def _cut(pictures: Plane, parts: int) -> Plane:
    """Cut (N, s, s, C) into (N * parts * parts, s / parts, s / parts, C), row by row."""
    n, side, _, channels = pictures.shape
    h = side // parts
    cut = pictures.reshape(n, parts, h, parts, h, channels).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(cut.reshape(n * parts * parts, h, h, channels))


def _bytes(picture: Plane) -> NDArray[np.uint8]:
    return np.clip(np.rint(picture.astype(np.float64)), 0, 255).astype(np.uint8)
