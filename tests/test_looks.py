"""Looks: what a player must be able to see, and what training may rely on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from genie_play.data import levels, looks, paint

SEEDS = range(24)


@pytest.fixture(scope="module")
def drawn() -> list[looks.Look]:
    return [looks.make(family, seed) for family in looks.FAMILIES for seed in SEEDS]


def light(colours: np.ndarray) -> np.ndarray:
    return colours.astype(float) @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize("tile", [4, 8, 12, 16])
@pytest.mark.parametrize("family", looks.FAMILIES)
def test_shapes_at_any_tile_size(family, tile):
    look = looks.make(family, 3, tile)
    half, pad = tile // 2, max(1, tile // 8)
    assert look.tiles.shape == (levels.N_TILES * 4, half, half, 3)
    assert look.tile_mask.shape == (levels.N_TILES * 4, half, half)
    assert look.backs.shape == (levels.N_BACKS * 4, half, half, 3)
    assert look.figures.shape == (2 * len(paint.POSES), 3 * half + pad, tile + 2 * pad, 3)
    assert look.critters.shape == (2, tile, tile, 3)
    # everything but the empty tile is painted somewhere, and ground is painted everywhere
    painted = look.tile_mask.reshape(levels.N_TILES, -1)
    assert painted[levels.SOLID].all()
    assert painted[1:].any(1).all()
    assert not painted[levels.EMPTY].any()


def test_unknown_looks_are_refused():
    for family, tile in (("oil", 8), ("pixel", 6), ("flat", 0)):
        with pytest.raises(ValueError, match="no look"):
            looks.make(family, 0, tile)


def test_a_look_is_pure_in_its_seed(drawn):
    for look in drawn[:: len(SEEDS)]:
        again = looks.make(look.family, look.seed)
        for name in ("tiles", "backs", "figures", "critters"):
            np.testing.assert_array_equal(getattr(again, name), getattr(look, name))
    for a, b in itertools.pairwise(drawn):
        assert (a.tiles != b.tiles).mean() > 0.2


def test_splits_are_disjoint():
    assert not set(looks.TRAIN) & set(looks.HELD_OUT)
    assert min(len(looks.TRAIN), len(looks.HELD_OUT)) > 10_000


def test_the_avatar_stands_out(drawn):
    """Pose by pose some of the avatar is far from the sky, the far range and the ground."""
    for look in drawn:
        around = np.concatenate([look.backs.reshape(-1, 3), look.tiles[4:132].reshape(-1, 3)])
        usual = np.median(look.backs.reshape(-1, 3), axis=0), np.median(around, axis=0)
        for figure, mask in zip(look.figures, look.figure_mask, strict=True):
            for other in usual:
                far = np.abs(figure[mask].astype(float) - other).sum(-1) > 120
                assert far.mean() > 0.25, (look.family, look.seed)


def test_poses_tell_apart_and_face_both_ways(drawn):
    n = len(paint.POSES)
    for look in drawn:
        for i, j in itertools.combinations(range(n), 2):
            both = look.figure_mask[i] | look.figure_mask[j]
            apart = np.abs(look.figures[i].astype(int) - look.figures[j]).sum(-1) > 60
            apart |= look.figure_mask[i] != look.figure_mask[j]
            assert apart[both].mean() > 0.05, (look.family, look.seed, paint.POSES[i], paint.POSES[j])
        np.testing.assert_array_equal(look.figures[n:], look.figures[:n, :, ::-1])
        assert (look.figure_mask[0] != look.figure_mask[n]).any() or (look.figures[0] != look.figures[n]).any()


def test_ground_has_edges_and_differs_from_the_sky(drawn):
    for look in drawn:
        tiles = look.tiles.reshape(levels.N_TILES, 2, 2, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5)
        tiles = light(tiles.reshape(levels.N_TILES, 8, 8, 3))
        inside, top = tiles[levels.GROUND], tiles[levels.GROUND + levels.NORTH]
        sky = np.median(light(look.backs))
        if look.family == "sketch":
            # a line on paper
            assert np.abs(top[:3] - sky).max() > 60
        else:
            assert abs(np.median(inside) - sky) > 20 or abs(np.median(top[:2]) - sky) > 20
        # sideways motion shows: neighbouring columns differ somewhere in a ground tile or its variant
        both = np.concatenate([inside, tiles[levels.GROUND + 16]])
        assert np.abs(np.diff(both, axis=1)).max() > 8, (look.family, look.seed)
        for mask, column in ((levels.EAST, -1), (levels.WEST, 0)):
            assert np.abs(tiles[levels.GROUND + mask][:, column] - inside[:, column]).max() > 10


def test_backdrops_are_quieter_than_the_ground(drawn):
    noise = {"back": [], "ground": []}
    for look in drawn:
        noise["back"].append(light(look.backs[:24]).std())
        noise["ground"].append(light(look.tiles[4:132]).std())
    assert np.mean(noise["back"]) < 0.6 * np.mean(noise["ground"])


def test_wardrobe_draws_only_what_is_needed():
    wardrobe = looks.Wardrobe([("pixel", 1), ("flat", 2), ("sketch", 3)])
    wardrobe.need(np.array([2, 2]))
    assert wardrobe.tiles[2].any()
    assert not wardrobe.tiles[1].any()
    np.testing.assert_array_equal(wardrobe.figures[2], looks.make("sketch", 3).figures)
