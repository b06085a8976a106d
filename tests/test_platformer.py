"""The platformer: levels, physics, players, clips, and the game as an engine."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from engine_conformance import check_engine, same

from genie_play import arguments
from genie_play.data import clips, game, levels, looks, sheets, terrains
from genie_play.data.clips import PlatformerSource, contact_sheet, open_source
from genie_play.data.game import Platformer
from genie_play.data.platformer import PlatformerEngine, with_truth
from genie_play.types import Frame, History, Move, Prompt, SourceError

SIZE = (24, 32)
KEYS = np.arange(8)
DX, DY = np.array([0, -1, 1, 0, -1, 1, 0, 0]), np.array([0, 0, 0, -1, -1, -1, 0, -1])


@pytest.fixture(scope="module")
def source() -> PlatformerSource:
    return PlatformerSource(SIZE, seed=5, n_looks=4)


def games(count: int, size: tuple[int, int] = SIZE, enemies: bool = False, **cameras: np.ndarray) -> Platformer:
    seeds = [("pixel", 0), ("flat", 1), ("sketch", 2), ("painted", 3), ("photo", 4)]
    wardrobe = looks.Wardrobe(seeds, game.tile_size(size[0]), lit=False)
    return Platformer(np.arange(count, dtype=np.uint64), np.arange(count) % 5, wardrobe, size, enemies, **cameras)


def free(game: Platformer) -> np.ndarray:
    """Games whose avatar stands with nothing beside it, over it or under it but solid ground."""
    s = game.state()
    room = ~game.blocked(np.full(len(game), 1), 2) & ~game.blocked(np.full(len(game), -1), 2)
    tiles, n = s.tiles, np.arange(len(game))
    for row in (-3, -2, -1):
        for col in (-1, 0, 1):
            code = tiles[n, s.y // 2 + row, (s.x // 2 + col) % levels.COLS]
            room &= ~levels.SOLID[code] & ~levels.CLIMB[code]
    return np.flatnonzero(room & levels.SOLID[tiles[n, s.y // 2, s.x // 2 % levels.COLS]])


def test_levels_are_pure_in_their_seed_and_golden(golden):
    seeds = np.array([0, 1, 2**63 + 5], np.uint64)
    built = levels.build(seeds)
    alone = levels.build(seeds[2:])
    np.testing.assert_array_equal(built.tiles[2:], alone.tiles)
    np.testing.assert_array_equal(built.backs[2:], alone.backs)
    assert (built.tiles[0] != built.tiles[1]).mean() > 0.1
    golden("level", [int(words) for words in built.tiles.astype(np.int64).sum(axis=(1, 2))] + built.ground[0].tolist())


def test_levels_hold_what_was_asked_for():
    tiles = levels.build(np.arange(64, dtype=np.uint64)).tiles
    for code in (levels.CRATE, levels.BRICK, levels.LEDGE, levels.LADDER, levels.LADDER_TOP, levels.COIN, levels.POOL):
        assert (tiles == code).any(axis=(1, 2)).mean() > 0.5
    assert levels.SOLID[tiles[:, -1]].all()
    ground = levels.build(np.arange(64, dtype=np.uint64)).ground
    # a jump clears two tiles: every step of the ground, the seam included, can be climbed
    assert np.abs(np.diff(ground, axis=1, append=ground[:, :1])).max() <= 4
    assert (np.abs(np.diff(ground, axis=1, append=ground[:, :1])) <= 2).mean() > 0.99


def test_kinds_of_land_are_pure_in_their_seed_and_golden(golden):
    seeds = np.arange(64, dtype=np.uint64)
    drawn = seeds % 2 == 1
    built, kinds = terrains.build(seeds, drawn), terrains.kinds(seeds, drawn)
    assert set(kinds) == set(range(len(terrains.KINDS)))
    assert (kinds[~drawn] != terrains.KINDS.index("paper")).all()
    alone = terrains.build(seeds[7:9], drawn[7:9])
    np.testing.assert_array_equal(built.tiles[7:9], alone.tiles)
    np.testing.assert_array_equal(built.backs[7:9], alone.backs)
    rows = (np.arange(levels.ROWS)[:, None] + np.arange(levels.COLS)) % levels.VARIANTS
    ground = (built.tiles >= levels.GROUND) & (built.tiles < levels.CRATE)
    variant = (built.tiles - levels.GROUND) // 16
    assert (variant == rows)[ground].all()
    # one coin a column at most, and `coins` says where
    assert ((built.tiles == levels.COIN).sum(1) == (built.coins >= 0)).all()
    golden("terrains", [[int(kind), int(sum_)] for kind, sum_ in zip(kinds, built.tiles.sum((1, 2)), strict=True)])


def test_each_kind_of_land_is_what_it_says():
    seeds = np.arange(400, dtype=np.uint64)
    drawn = seeds % 2 == 1
    built = terrains.build(seeds, drawn)
    kinds = np.array(terrains.KINDS)[terrains.kinds(seeds, drawn)]

    def mean(kind: str, *codes: int) -> float:
        return float(np.isin(built.tiles[kinds == kind], codes).mean((1, 2)).mean())

    things = range(levels.CRATE, levels.N_TILES)
    # a sheet of paper is mostly empty; the sky holds most ledges, rooms and towers most ladders
    assert all(mean("paper", *things) < 0.65 * mean(kind, *things) for kind in terrains.SCENES)
    ledges = range(levels.LEDGE, levels.LADDER)
    assert all(mean("sky", *ledges) > mean(kind, *ledges) for kind in terrains.KINDS if kind != "sky")
    assert min(mean("rooms", levels.LADDER), mean("towers", levels.LADDER)) > 1.3 * mean("hills", levels.LADDER)
    steps = {kind: np.abs(np.diff(built.ground[kinds == kind], axis=1)).mean() for kind in terrains.KINDS}
    assert steps["flats"] < 0.75 * steps["hills"] < steps["stairs"]
    roof = levels.SOLID[built.tiles[:, 5]].mean(1)
    assert roof[kinds == "caves"].mean() > 0.8
    assert roof[kinds == "paper"].mean() == 0


@pytest.mark.parametrize(("size", "half"), [((24, 32), 4), ((64, 64), 4), ((90, 160), 6)])
def test_every_key_moves_as_promised(size, half):
    play = games(96, size)
    starts = free(play)
    assert len(starts) >= 20
    for key in KEYS:
        one = play.take(starts)
        one.step(np.full(len(starts), key))
        assert (one.dx == DX[key] * half).all()
        # walking down a step falls at once
        falls = (one.dy == half) & (DX[key] != 0)
        assert ((one.dy == DY[key] * half) | falls).all()
        assert falls.mean() < 0.3


def test_a_jump_takes_eight_ticks_and_ends_when_the_key_is_let_go():
    play = games(96)
    play = play.take(free(play))
    clear = [play.codes(play.state().y // 2 - i, play.state().x // 2) == levels.EMPTY for i in range(1, 6)]
    play = play.take(np.flatnonzero(np.all(clear, axis=0)))
    assert len(play) >= 10
    start = play.state()
    heights = []
    for key in (3, 3, 3, 3, 0, 0, 0, 0, 0):
        play.step(np.full(len(play), key))
        heights.append(start.y - play.state().y)
    assert (np.stack(heights).T == [1, 2, 3, 4, 3, 2, 1, 0, 0]).all()
    assert play.grounded.all()
    for key, height in ((3, 1), (3, 2), (0, 1), (3, 0)):
        play.step(np.full(len(play), key))
        assert (start.y - play.state().y == height).all()


def _whole(tiles: np.ndarray, ladders: np.ndarray) -> bool:
    """Whether the column of the first ladder holds nothing but it, from a top to something solid."""
    col = ladders[0, 1]
    rows = ladders[ladders[:, 1] == col, 0]
    ends = tiles[rows[0] - 1, col] == levels.LADDER_TOP and levels.SOLID[tiles[rows[-1] + 1, col]]
    return bool(ends and len(rows) == rows[-1] - rows[0] + 1)


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (90, 160)])
def test_kinds_are_those_of_the_tiles_in_view(size):
    """Where a tile is taken out of the level its pixels are open, and no others change."""
    game = PlatformerSource(size, 3, "train", {"flat": 1.0}, 8).games(0, 12)[0]
    before, picture = game.kinds(), game.render()
    assert set(np.unique(before)) == set(range(len(levels.KINDS)))
    for kind, codes in (
        (4, (levels.LADDER, levels.LADDER_TOP)),
        (5, (levels.COIN,)),
        (2, (levels.CRATE, levels.BRICK)),
    ):
        state = game.state()
        tiles = state.tiles.copy()
        tiles[np.isin(tiles, codes)] = levels.EMPTY
        game.load(replace(state, tiles=tiles))
        assert (game.kinds() == np.where(before == kind, 0, before)).all()
        changed = (game.render() != picture).any(-1)
        gone = before == kind
        assert changed[gone].mean() > 0.2
        assert not changed[~gone].any()
        game.load(state)


def test_ladders_ledges_and_coins():
    play = games(64)
    s = play.state()
    # put each avatar at the foot of its level's first ladder
    found = [np.argwhere(tiles == levels.LADDER) for tiles in s.tiles]
    keep = [i for i, places in enumerate(found) if len(places) and _whole(s.tiles[i], places)]
    assert len(keep) > 30
    play = play.take(np.array(keep))
    s = play.state()
    top, col = np.array([found[i][found[i][:, 1] == found[i][0, 1]][0] for i in keep]).T
    foot = np.array([found[i][found[i][:, 1] == found[i][0, 1]][-1, 0] for i in keep])
    s.x[:], s.y[:] = 2 * col, 2 * (foot + 1)
    play.load(s)
    climbed = np.zeros(len(play), np.int64)
    for _ in range(2 * (foot - top + 2).max()):
        on = play.ladder()
        play.step(np.where(on, 7, 0))
        climbed += play.dy < 0
        assert (play.dy[on] <= 0).all()
    # all the way to the ledge on top, and no farther
    assert (play.state().y == 2 * (top - 1)).all()
    assert (climbed == 2 * (foot - top + 2)).all()
    assert play.grounded.all()
    play.step(np.full(len(play), 6))
    assert (play.dy > 0).all()
    assert play.state().climbing.all()

    play = games(64)
    places = [np.argwhere(tiles == levels.COIN)[0] for tiles in play.state().tiles]
    s = play.state()
    s.x[:], s.y[:] = 2 * np.array(places)[:, 1], 2 * np.array(places)[:, 0] + 2
    play.load(s)
    play.step(np.zeros(64, np.int64))
    assert (play.state().tiles == levels.COIN).sum() < (s.tiles == levels.COIN).sum() - 50


@pytest.mark.parametrize("enemies", [False, True])
def test_nobody_gets_stuck_in_rock_or_leaves_the_level(enemies):
    play = games(160, enemies=enemies)
    rng = np.random.default_rng(0)
    travelled = np.zeros(160)
    for _ in range(300):
        play.step(rng.choice(8, 160, p=[0.1, 0.05, 0.3, 0.1, 0.05, 0.3, 0.05, 0.05]))
        s = play.state()
        for row in ((s.y - 3) >> 1, (s.y - 1) >> 1):
            assert not levels.SOLID[play.codes(row, s.x >> 1)].any()
            assert not levels.SOLID[play.codes(row, (s.x + 1) >> 1)].any()
        assert (s.y < 2 * levels.ROWS).all()
        assert (np.abs(s.dx) <= 1).all()
        assert (np.abs(s.dy) <= 1).all()
        travelled += s.dx
    assert np.median(travelled) > 30


def test_snapshots_and_branches():
    play = games(6)
    for key in (2, 5, 5, 1):
        play.step(np.full(6, key))
    kept, picture = play.state(), play.render()
    many = play.take(np.repeat(np.arange(6), 8))
    np.testing.assert_array_equal(many.render()[::8], picture)
    many.step(np.tile(KEYS, 6))
    branched = many.render()
    for key in KEYS:
        play.load(kept)
        play.step(np.full(6, key))
        np.testing.assert_array_equal(play.render(), branched[key::8])
    play.load(kept)
    np.testing.assert_array_equal(play.render(), picture)
    assert (branched[1::8] != branched[2::8]).any(axis=(1, 2, 3)).mean() > 0.8


@pytest.mark.parametrize("size", [(24, 32), (64, 64), (64, 96), (72, 128), (96, 160), (90, 160)])
def test_pictures_and_masks_of_every_size(size):
    play = games(3, size, enemies=True)
    for key in (2, 5):
        play.step(np.full(3, key))
    picture, mask = play.render(), play.mask()
    assert picture.shape == (3, *size, 3)
    assert picture.dtype == np.uint8
    tile = game.tile_size(size[0])
    assert mask.shape == (3, *size)
    assert (mask.sum((1, 2)) > tile * tile * 0.4).all()
    y, x = (axis.mean() for axis in np.nonzero(mask)[1:])
    assert abs(x - size[1] / 2) < 2
    assert abs(y - size[0] / 2) < tile


def test_a_camera_off_the_middle_shows_the_same_world():
    shift = np.array([[2, 0], [-3, 1], [0, -2], [3, 3], [0, 0]] * 2)
    plain, moved = games(10, (64, 96)), games(10, (64, 96), shift=shift)
    for key in (2, 5, 5, 4, 0, 1):
        for play in (plain, moved):
            play.step(np.full(10, key))
        np.testing.assert_array_equal(plain.state().x, moved.state().x)
        a, b, mask_a, mask_b = plain.render(), moved.render(), plain.mask(), moved.mask()
        for i, (x, y) in enumerate(4 * shift):
            here = (slice(12, 52), slice(12, 84))
            there = (slice(12 + y, 52 + y), slice(12 + x, 84 + x))
            np.testing.assert_array_equal(mask_a[i][here], mask_b[i][there])
            # a slow backdrop moves against the ground, not against its camera
            np.testing.assert_array_equal(a[i][here], b[i][there])


def test_a_camera_that_waits_keeps_the_picture_until_the_avatar_is_far():
    play = games(40, (64, 64), roam=np.tile([5, 4], (40, 1)))
    start, middle = play.render(), play.mask()
    moved = np.zeros(40, np.int64)
    stayed = 0
    for _ in range(12):
        play.step(np.full(40, 2))
        moved += play.state().dx
        s = play.state()
        assert (np.abs(s.x - s.seen_x) <= 5).all()
        assert (np.abs(s.y - s.seen_y) <= 4).all()
        now, mask = play.render(), play.mask()
        near = (moved <= 5) & (moved > 0) & (s.seen_y == games(40).state().y)
        taken = np.array([(play.state().tiles[i] == levels.COIN).sum() for i in range(40)])
        same_coins = taken == (games(40).state().tiles == levels.COIN).sum((1, 2))
        for i in np.flatnonzero(near & same_coins):
            rest = ~(middle[i] | mask[i])
            rest[:, 1:] &= rest[:, :-1]
            rest[1:] &= rest[:-1]
            apart = np.abs(now[i].astype(int) - start[i]).max(-1)
            assert (apart[rest] > 40).mean() < 0.01
            # the mask goes where the avatar went
            assert (mask[i] != middle[i]).any()
            stayed += 1
    assert stayed > 60


def test_sources_move_the_camera_only_when_asked():
    still = PlatformerSource((64, 64), n_looks=2)
    assert not still.games(0, 64)[0].shift.any()
    assert not still.games(0, 64)[0].roam.any()
    play = PlatformerSource((64, 64), n_looks=2, shifted=0.35, still=0.1).games(0, 2000)[0]
    shares = play.shift.any(1).mean(), play.roam.any(1).mean()
    # 2000 draws: five standard deviations are 0.053 and 0.034; a shift of nothing at all is drawn too
    assert shares == (pytest.approx(0.345, abs=0.06), pytest.approx(0.1, abs=0.034))
    assert not (play.shift.any(1) & play.roam.any(1)).any()
    assert np.abs(play.shift).max(0).tolist() == [3, 3]
    calm, full = open_source("platformer-calm", (64, 64)), open_source("platformer", (64, 64))
    assert not calm.games(0, 64)[0].shift.any()
    assert full.games(0, 64)[0].shift.any()


def test_the_calm_source_is_what_the_shipped_world_learned_from(golden):
    sums = []
    for split in ("train", "held-out"):
        source = PlatformerSource((64, 64), seed=3, split=split, calm=True, enemies=split == "train")
        batch = source.batch(1, 24, 8).astype(np.int64)
        weights = np.arange(1, 64 * 64 * 3 + 1).reshape(64, 64, 3) % 251
        sums.append((batch[:, ::3] * weights).sum((-3, -2, -1)).ravel().tolist())
    golden("calm", sums)


def test_batches_are_pure_and_truth_belongs_to_them(source):
    batch = source.batch(3, 4, 6)
    assert batch.shape == (4, 6, *SIZE, 3)
    source.batch(9, 2, 3)
    np.testing.assert_array_equal(source.batch(3, 4, 6), batch)
    np.testing.assert_array_equal(PlatformerSource(SIZE, seed=5, n_looks=4).batch(3, 4, 6), batch)
    # a clip is the same whatever is filmed beside and after it
    np.testing.assert_array_equal(source.batch(3, 2, 4), batch[:2, :4])
    truth = with_truth(source, 3, 4, 6)
    np.testing.assert_array_equal(truth.frames, batch)
    assert truth.actions.shape == truth.dx.shape == truth.dy.shape == (4, 5)
    assert truth.mask.shape == (4, 6, *SIZE)
    assert (source.batch(4, 4, 6) != batch).any()
    assert (PlatformerSource(SIZE, seed=6, n_looks=4).batch(3, 4, 6) != batch).any()


def test_truth_is_what_the_pictures_show():
    """Where the truth says that the world moved, shifting the picture back explains it better than not."""
    truth = with_truth(PlatformerSource((48, 64), n_looks=4), 0, 40, 6)
    moved = []
    for clip in range(40):
        for t in np.flatnonzero((truth.dx[clip] != 0) & (truth.dy[clip] == 0)):
            before, after = truth.frames[clip, t : t + 2].astype(int)
            rest = ~(truth.mask[clip, t] | truth.mask[clip, t + 1])[:, 8:-8]
            shifted = np.roll(before, -truth.dx[clip, t], 1)
            apart = [np.abs(after - other).sum(-1)[:, 8:-8][rest].mean() for other in (shifted, before)]
            moved.append(apart[0] < apart[1])
    assert len(moved) > 30
    # backdrops that move at half the pace fool this measure now and then
    assert np.mean(moved) > 0.85


def test_players_press_every_key_and_start_on_the_ground(source):
    truth = with_truth(source, 0, 600, 16)
    shares = np.bincount(truth.actions.reshape(-1), minlength=8) / truth.actions.size
    assert shares.min() >= 0.06
    assert truth.grounded[:, 0].all()
    assert truth.grounded.mean() > 0.3
    assert (truth.dx != 0).mean() > 0.3
    assert (truth.dy != 0).mean() > 0.3
    # half the clips change key often
    changes = (np.diff(truth.actions, axis=1) != 0).mean(1)
    assert (changes > 0.4).mean() > 0.3
    assert (changes < 0.25).mean() > 0.2


def test_held_out_is_disjoint():
    train = PlatformerSource(SIZE, split="train", n_looks=4)
    unseen = PlatformerSource(SIZE, split="held-out", n_looks=4)
    assert not set(train.wardrobe.seeds) & set(unseen.wardrobe.seeds)
    assert not set(looks.TRAIN) & set(looks.HELD_OUT)
    # looks of all families, none of a seed that training sees
    assert {family for family, _ in unseen.wardrobe.seeds} == set(looks.FAMILIES)
    # levels: even seeds to train on, odd ones to test on
    assert (train.games(0, 32)[0].seeds % 2 == 0).all()
    assert (unseen.games(0, 32)[0].seeds % 2 == 1).all()


def test_sources_by_name(tmp_path):
    assert open_source("platformer", SIZE, 1).batch(0, 1, 2).shape == (1, 2, *SIZE, 3)
    with pytest.raises(SourceError, match="nowhere"):
        open_source(tmp_path / "nowhere", SIZE)
    for wrong in ({"split": "test"}, {"mix": {"oil": 1.0}}, {"n_looks": 0}):
        with pytest.raises(ValueError, match="no clips of split"):
            PlatformerSource(SIZE, **wrong)
    sheet = contact_sheet(PlatformerSource((24, 40), n_looks=1), rows=2, columns=3)
    assert sheet.shape == (2 * 26, 3 * 42, 3)


def test_sheets_and_figures(source):
    assert arguments.SHEETS == sheets.SHEETS
    for what in ("clips", "photo"):
        picture = sheets.sheet(what, source, enlarge=1)
        assert picture.std() > 20
    assert sheets.looks_sheet("sketch", 2, 3).shape == (2 * 66, 3 * 66, 3)
    with pytest.raises(SourceError, match="calm source has no photo looks"):
        sheets.sheet("photo", source, calm=True)

    class Slide:
        """A bar that moves every other tick."""

        fps, size = 10.0, (16, 16)

        def batch(self, step: int, clips: int, frames: int) -> clips.Clips:
            out = np.zeros((clips, frames, 16, 16, 3), np.uint8)
            for t in range(frames):
                out[:, t, :, t // 2] = 255
            return out

    found = sheets.figures(Slide(), clips=2, frames=5)
    assert found.still == 0.5
    assert found.changed == pytest.approx(0.5 * 2 / 16)
    assert found.moved_tokens == pytest.approx(0.25)
    assert found.copy_psnr == pytest.approx(-10 * np.log10(0.5 * 2 / 16))


def scene(size: tuple[int, int], seed: int = 0, count: int = 1) -> Prompt:
    """Some frames of a clip as a prompt."""
    return Prompt(PlatformerSource(size, seed=seed, n_looks=3).batch(0, 1, count)[0], "test")


@pytest.mark.parametrize(("size", "pictures"), [((24, 32), 1), ((64, 96), 2), ((90, 160), 1)])
def test_engine_conforms(size, pictures):
    check_engine(lambda: PlatformerEngine(size), scene(size, count=pictures))


def test_engine_chooses_by_prompt_and_seed():
    engine = PlatformerEngine((64, 64))
    paper = np.full((1, 64, 64, 3), 245, np.uint8)
    paper[0, 40:42] = 30
    frame = engine.reset(Prompt(paper), 0)
    assert looks.FAMILIES[frame.tokens[0]] == "sketch"
    assert np.median(frame.pixels) > 180
    again = engine.reset(Prompt(paper), 1)
    assert (again.tokens[3:7] != frame.tokens[3:7]).any()
    night = np.full((1, 64, 64, 3), (20, 20, 45), np.uint8)
    night[0, 44:] = (120, 130, 150)
    dark = engine.reset(Prompt(night), 0)
    assert looks.FAMILIES[dark.tokens[0]] != "sketch"
    assert dark.pixels[:20].mean() < 100
    for wrong in (paper[:, :32], paper.astype(np.float32), paper[:0]):
        with pytest.raises(ValueError, match=r"wanted|one picture"):
            engine.reset(Prompt(wrong), 0)
    with pytest.raises(ValueError, match="tokens"):
        engine.step(0, np.zeros(3, np.uint16))
    with pytest.raises(ValueError, match="not the platformer's"):
        engine.step(0, np.full(22, 999, np.uint16))


def test_engine_labels_tell_the_truth():
    engine = PlatformerEngine((64, 64))
    ways = []
    for seed in range(12):
        engine.reset(scene((64, 64)), seed)
        here = _place(engine.step(0))
        ways.append([np.subtract(_place(frame), here) * 4 for frame in engine.futures(range(8))])
    # most starts are free of walls and ledges
    for label, way in zip(engine.info.labels, np.median(np.array(ways), axis=0), strict=True):
        assert (label.dx, label.dy if label.name != "down" else 0.0) == tuple(way)


def _place(frame: Frame) -> tuple[int, int]:
    return int(frame.tokens[7]), int(frame.tokens[8])


def test_painting_builds_and_digs():
    engine = PlatformerEngine((64, 64))
    prompt = scene((64, 64))
    engine.reset(prompt, 4)
    before = engine.step(0)
    ground, sky = before.pixels[-4, 30], before.pixels[2, 30]
    colours = looks.palette(looks.FAMILIES[before.tokens[0]], int(before.tokens[1]) | int(before.tokens[2]) << 16)
    painted = before.pixels.copy()
    painted[40:] = colours["sky1"]
    dug = engine.edit(painted)
    assert (ground != sky).any()
    falls = [engine.step(0) for _ in range(3)]
    assert [frame.tokens[8] - dug.tokens[8] for frame in falls] == [1, 2, 3]
    here = falls[-1]
    painted = here.pixels.copy()
    painted[:, 36:] = colours["rim"]
    built = engine.edit(painted)
    blocked = engine.step(2)
    assert blocked.tokens[7] == built.tokens[7]
    moves = [Move(0, before.tokens), Move(None, dug.tokens, _painted(before, slice(40, None), colours["sky1"]))]
    moves += [Move(0, frame.tokens) for frame in falls] + [Move(None, built.tokens, painted), Move(2, blocked.tokens)]
    same(PlatformerEngine((64, 64)).restore(History(prompt, 99, tuple(moves))), blocked)


def _painted(frame: Frame, rows: slice, colour: np.ndarray) -> np.ndarray:
    pixels = frame.pixels.copy()
    pixels[rows] = colour
    return pixels


@pytest.mark.slow
def test_speed():
    source = PlatformerSource((64, 64), n_looks=16)
    source.batch(0, 256, 16)
    start = time.perf_counter()
    for step in range(4):
        source.batch(step, 64, 16)
    rate = 4 * 64 * 16 / (time.perf_counter() - start)
    print(f"{rate:.0f} frames a second")
    assert rate > 5000
