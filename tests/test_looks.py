"""Looks: what a player must be able to see, and what training may rely on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from genie_play.data import avatars, drawings, levels, light, looks, paint, scenery, sprites, textures

SEEDS = range(24)
GROUND = slice(levels.GROUND, levels.GROUND + 16 * levels.VARIANTS)


@pytest.fixture(scope="module")
def drawn() -> list[looks.Look]:
    return [looks.make(family, seed) for family in looks.FAMILIES for seed in SEEDS]


@pytest.fixture(scope="module")
def calm() -> list[looks.Look]:
    return [looks.make(family, seed, calm=True) for family in looks.CALM_FAMILIES for seed in SEEDS]


def brightness(colours: np.ndarray) -> np.ndarray:
    return colours.astype(float) @ [0.299, 0.587, 0.114]


def whole(quarters: np.ndarray) -> np.ndarray:
    """Tiles (n, 8, 8, ...) of quarters (n * 4, 4, 4, ...)."""
    n = len(quarters) // 4
    cut = quarters.reshape(n, 2, 2, 4, 4, *quarters.shape[3:])
    return np.moveaxis(cut, 2, 3).reshape(n, 8, 8, *quarters.shape[3:])


def texture(look: looks.Look, which: int) -> np.ndarray:
    """A filling of four tiles by four, (32, 32, 3); the last is the ground."""
    cells = look.fills.reshape(looks.FILLS, 8, 8, 4, 4, 3)[which]
    return cells.transpose(0, 2, 1, 3, 4).reshape(32, 32, 3)


def over(below: np.ndarray, colours: np.ndarray, cover: np.ndarray) -> np.ndarray:
    return below * (1 - cover[..., None] / 255) + colours


@pytest.mark.parametrize("tile", [4, 8, 12, 16])
@pytest.mark.parametrize("family", looks.FAMILIES)
def test_shapes_at_any_tile_size(family, tile):
    for look in [looks.make(family, 3, tile)] + [looks.make(f, 3, tile, calm=True) for f in looks.CALM_FAMILIES]:
        half, pad = tile // 2, max(1, tile // 8)
        assert look.tiles.shape == (levels.N_TILES * 4, half, half, 3)
        assert look.tile_cover.shape == (levels.N_TILES * 4, half, half)
        assert look.backs.shape == (levels.N_BACKS * 4, half, half, 3)
        assert look.fills.shape == (look.fills.shape[0], half, half, 3)
        rows, columns, side = sprites.canvas(tile)
        assert (rows, columns) == (2 * tile + pad, tile + 2 * side)
        assert look.figures.shape == (2 * len(paint.POSES), rows, columns, 3)
        assert look.critters.shape == (2, tile, tile, 3)
        cover = look.tile_cover.reshape(levels.N_TILES, -1)
        # boxes are whole, every thing is seen, and nothing is drawn where nothing is
        assert (cover[[levels.CRATE, levels.BRICK]] > 250).all()
        assert (cover[levels.CRATE :].max(1) > 60).all()
        assert not cover[levels.EMPTY].any()


def test_unknown_looks_are_refused():
    for family, tile, calm in (("oil", 8, False), ("pixel", 6, False), ("flat", 0, False), ("photo", 8, True)):
        with pytest.raises(ValueError, match="no look"):
            looks.make(family, 0, tile, calm)


def test_there_is_enough_to_choose_from(drawn):
    assert len(avatars.KINDS) >= 30
    grounds = {name for family in textures.GROUNDS.values() for name in family}
    assert len(grounds) + len(drawings.FILLS) >= 60
    assert min(len(family) for family in textures.GROUNDS.values()) >= 9
    palettes = [tuple(np.rint(look.colours[name]).astype(int)) for look in drawn for name in ("sky1", "ground")]
    assert len(set(palettes)) > 0.6 * len(palettes)  # the paper of a drawing is its sky and its ground
    # a generator of seeds, not of a list: looks far apart differ as neighbours do
    colours = {tuple(np.rint(looks.palette("pixel", seed)["ground"]).astype(int)) for seed in range(0, 900_000, 1500)}
    assert len(colours) > 590


def test_avatars_are_of_different_shapes_and_heights(drawn):
    shapes = [look.figure_cover[0] > 127 for look in drawn]
    heights = {int(shape.any(1).sum()) for shape in shapes}
    widths = {int(shape.any(0).sum()) for shape in shapes}
    assert min(heights) <= 7
    assert max(heights) >= 14
    assert len(heights) >= 8
    assert len(widths) >= 6
    # every kind can take every pose, and no two kinds are alike
    stands = {}
    for kind in avatars.KINDS:
        for pose in paint.POSES:
            assert all(np.isfinite(part.points).all() for part in avatars.parts(kind, pose))
        stands[kind] = repr(avatars.parts(kind, "stand"))
    assert len(set(stands.values())) == len(stands)


def test_a_look_is_pure_in_its_seed(drawn):
    for look in drawn[:: len(SEEDS)]:
        again = looks.make(look.family, look.seed)
        for name in ("tiles", "backs", "fills", "figures", "critters"):
            np.testing.assert_array_equal(getattr(again, name), getattr(look, name))
        assert (again.exposure, again.tilt, again.bare, again.slow) == (look.exposure, look.tilt, look.bare, look.slow)
    for a, b in itertools.pairwise(drawn):
        assert (a.fills != b.fills).mean() > 0.2


def test_splits_are_disjoint():
    assert not set(looks.TRAIN) & set(looks.HELD_OUT)
    assert min(len(looks.TRAIN), len(looks.HELD_OUT)) > 10_000


def test_colours_never_exceed_their_cover(drawn, calm):
    """What lets a tile be laid over another without clipping."""
    for look in drawn + calm:
        for colours, cover in (
            (look.tiles, look.tile_cover), (look.backs, look.back_cover), (look.figures, look.figure_cover),
        ):  # fmt: skip
            assert (colours <= cover[..., None]).all(), (look.family, look.seed)


def test_the_avatar_stands_out(drawn, calm):
    """Pose by pose some of the avatar is far from the sky and the ground; a thin pencil's at least from the paper."""
    for look in drawn + calm:
        if len(look.fills):
            around = [np.median(texture(look, i).reshape(-1, 3), axis=0) for i in (1, looks.FILLS - 1)]
        else:
            around = [np.median(look.backs[:100].reshape(-1, 3), axis=0)]
            around.append(
                np.median(np.concatenate([look.backs[:100].reshape(-1, 3), look.tiles[4:132].reshape(-1, 3)]), axis=0)
            )
        # dark masses of a drawing are nothing to stand before
        usual = around[:1] if look.family == "sketch" else around
        for figure, cover in zip(look.figures, look.figure_cover, strict=True):
            for other in usual:
                seen = over(np.broadcast_to(other, figure.shape), figure, cover)[cover > 60]
                far = np.abs(seen - other).sum(-1) > 90
                assert far.sum() > 8, (look.family, look.seed)
                assert far.mean() > 0.2, (look.family, look.seed)


def test_poses_tell_apart_and_face_both_ways(drawn, calm):
    n = len(paint.POSES)
    for look in drawn + calm:
        for i, j in itertools.combinations(range(n), 2):
            both = (look.figure_cover[i] > 60) | (look.figure_cover[j] > 60)
            apart = np.abs(look.figures[i].astype(int) - look.figures[j]).sum(-1) > 60
            apart |= np.abs(look.figure_cover[i].astype(int) - look.figure_cover[j]) > 60
            assert apart[both].mean() > 0.04, (look.family, look.seed, paint.POSES[i], paint.POSES[j])
        np.testing.assert_array_equal(look.figures[n:], look.figures[:n, :, ::-1])


def test_the_top_of_the_ground_shows(drawn, calm):
    for look in drawn:
        tiles, cover = whole(look.tiles).astype(float), whole(look.tile_cover)
        ground, sky = texture(look, looks.FILLS - 1).astype(float), texture(look, 1).astype(float)
        for variant in range(levels.VARIANTS):
            code = levels.GROUND + 16 * variant + levels.NORTH
            top = over(ground[:8, :8], tiles[code], cover[code])
            apart = np.abs(brightness(top)[:4] - np.median(brightness(sky)))
            hue = np.abs(np.median(top[:3], (0, 1)) - np.median(sky, (0, 1))).sum()
            assert apart.max() > 25 or hue > 60, (look.family, look.seed)
    for look in calm:
        tiles = brightness(whole(look.tiles))
        inside = tiles[levels.GROUND]
        # sideways motion shows: neighbouring columns differ somewhere in a ground tile or its variant
        both = np.concatenate([inside, tiles[levels.GROUND + 16]])
        assert np.abs(np.diff(both, axis=1)).max() > 5, (look.family, look.seed)
        for mask, column in ((levels.EAST, -1), (levels.WEST, 0)):
            assert np.abs(tiles[levels.GROUND + mask][:, column] - inside[:, column]).max() > 10


def test_lines_run_on_from_tile_to_tile():
    """The four variants of a level line meet: at a seam it is as low on one side as on the other."""
    seen = 0
    for seed in range(40):
        look = looks.make("sketch", seed)
        cover = whole(look.tile_cover)[GROUND].reshape(levels.VARIANTS, 16, 8, 8)[:, levels.NORTH].astype(float)
        low = (cover[:, :5] * np.arange(5)[:, None]).sum(1) / np.maximum(cover[:, :5].sum(1), 1)  # (variants, columns)
        strong = (cover[:, :5].sum(1) > 60)[:, [0, -1]].all()
        if strong and (cover[:, 4:].max() < 40):
            ends, starts = low[:, -1], np.roll(low[:, 0], -1)
            assert np.abs(ends - starts).max() < 0.75, seed
            seen += 1
    assert seen > 8


def test_backdrops_are_quieter_than_the_ground(drawn):
    noise = {"sky": [], "ground": []}
    for look in drawn:
        if look.family != "sketch":
            noise["sky"].append(brightness(texture(look, 1)).std())
            noise["ground"].append(brightness(texture(look, looks.FILLS - 1)).std())
    assert np.mean(noise["sky"]) < 0.6 * np.mean(noise["ground"])


def test_textures_have_no_seams():
    rng = np.random.default_rng(5)
    x, y = textures.axes(8)
    for family in textures.GROUNDS.values():
        for name, draw in family.items():
            plane = draw(rng, x, y)
            assert plane.shape == (32, 32), name
            for axis in (0, 1):
                steps = np.abs(np.diff(np.concatenate([plane, plane.take([0], axis)], axis), axis=axis))
                per = np.moveaxis(steps, axis, 0).mean(1)
                # the step over the seam is as one inside, by and large: cells differ by chance
                assert per[-1] <= per[:-1].max() * 1.4 + 0.02, (name, axis)


def test_exposures_darken_and_stay_in_range():
    white = np.full((light.EXPOSURES, 24, 32, 3), 255, np.uint8)
    numbers = np.arange(light.EXPOSURES)
    lit = white.copy()
    light.expose(lit, numbers)
    np.testing.assert_array_equal(lit[0], white[0])
    assert (lit[1:].astype(int).mean((1, 2, 3)) < 255).all()
    # uneven, and smooth: nothing has wrapped around
    assert np.mean(lit[1:].std((1, 2)).max(-1) > 3) > 0.8
    assert max(np.abs(np.diff(lit.astype(int), axis=axis)).max() for axis in (1, 2)) < 90
    black = np.zeros_like(white)
    light.expose(black, numbers)
    assert (black.astype(int) <= lit).all()


def test_tilts_keep_flat_pictures_and_move_masks_with_pictures():
    numbers = np.arange(light.TILTS)
    flat = np.full((light.TILTS, 24, 32, 3), 200, np.uint8)
    flat[..., 1] = 7
    held = flat.copy()
    light.lean(held, numbers)
    np.testing.assert_array_equal(held, flat)
    pictures = np.zeros((light.TILTS, 64, 96, 3), np.uint8)
    pictures[:, 20:36, 40:54] = 255
    masks = pictures[..., 0] > 0
    light.lean(pictures, numbers)
    light.lean_masks(masks, numbers)
    for picture, mask in zip(pictures, masks, strict=True):
        assert (mask == (picture[..., 0] > 127)).mean() > 0.99
    assert (masks[1:] != masks[0]).any((1, 2)).mean() > 0.9


def test_most_drawings_have_an_empty_background_and_many_are_lit(drawn):
    some = [looks.make("sketch", seed) for seed in range(1000, 1080)]
    assert 0.4 < np.mean([look.bare for look in some]) < 0.8
    assert 0.25 < np.mean([look.exposure > 0 for look in some]) < 0.65
    assert 0.01 < np.mean([look.tilt > 0 for look in some]) < 0.25
    assert not any(look.tilt for look in drawn if look.family in ("pixel", "flat"))
    hands = [drawings.hand(np.random.default_rng(seed), "pencil", "white") for seed in range(200)]
    assert {hand.edge for hand in hands} == set(drawings.EDGES)
    assert {hand.fill for hand in hands} == set(drawings.FILLS)
    tops = {scenery.scene(np.random.default_rng(seed), "flat").top for seed in range(200)}
    assert tops == set(scenery.TOPS)


def test_wardrobe_draws_only_what_is_needed():
    wardrobe = looks.Wardrobe([("pixel", 1), ("flat", 2), ("sketch", 3)])
    wardrobe.need(np.array([2, 2]))
    assert wardrobe.tiles[2].any()
    assert not wardrobe.tiles[1].any()
    look = looks.make("sketch", 3)
    np.testing.assert_array_equal(wardrobe.figures[2], look.figures)
    np.testing.assert_array_equal(wardrobe.figure_left[2, ..., 1], 255 - look.figure_cover)
    seeds = [("photo", seed) for seed in range(30)]
    lit, plain = looks.Wardrobe(seeds), looks.Wardrobe(seeds, lit=False)
    for one in (lit, plain):
        one.need(np.arange(30))
    assert lit.exposure.any()
    assert not plain.exposure.any()
    assert not plain.tilt.any()
