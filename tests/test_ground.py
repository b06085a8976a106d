"""Floor 0: types, config, noise, schedules, paths."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie_play import config, paths, philox, schedule
from genie_play.types import (
    BackendError,
    CheckpointError,
    GenieError,
    History,
    Move,
    Prompt,
    ReplayError,
    SourceError,
    check_action,
)

SETTINGS = [*config.PRESETS.values(), *map(config.training, config.PRESETS), config.PathConfig(), config.PlaySettings()]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: getattr(s, "name", type(s).__name__))
def test_config_survives_json(settings):
    there = json.loads(json.dumps(config.to_dict(settings)))
    back = config.from_dict(type(settings), there)
    assert back == settings
    assert hash(repr(back)) == hash(repr(settings))  # tuples are tuples again, not lists


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"colour": 1}, "WorldConfig has an unknown field 'colour'"),
        ({"tokenizer": {"codes": 8, "patches": 4}}, "WorldConfig.tokenizer has an unknown field 'patches'"),
        ({"tokenizer": {"codes": "8"}}, "WorldConfig.tokenizer.codes has the wrong kind of value: '8'"),
        ({"tokenizer": {"codes": True}}, "WorldConfig.tokenizer.codes has the wrong kind of value: True"),
        ({"actions": {"reach": [1, 2, 3]}}, "WorldConfig.actions.reach has the wrong kind"),
        ({"rate": None}, "WorldConfig.rate has the wrong kind"),
        ({"dynamics": [1]}, "WorldConfig.dynamics should be a table of settings, not list"),
        ([], "WorldConfig should be a table"),
    ],
)
def test_config_names_what_is_wrong(data, says):
    with pytest.raises(GenieError, match=says.replace("[", r"\[")):
        config.from_dict(config.WorldConfig, data)


def test_config_names_what_is_missing():
    with pytest.raises(GenieError, match=r"StageConfig is incomplete.*'frames'"):
        config.from_dict(config.StageConfig, {"steps": 1, "batch": 2})


def test_config_takes_a_whole_number_for_a_float():
    rate = config.from_dict(config.WorldConfig, {"rate": 12}).rate
    assert (rate, type(rate)) == (12.0, float)


@pytest.mark.parametrize("name", config.PRESETS)
def test_presets_hang_together(name):
    world, train = config.preset(name), config.training(name)
    assert world.name == name
    height, width = world.size
    rows, columns = world.tokenizer.grid
    down, across = world.tokenizer.patch_size
    assert 0 <= rows * down - height < down
    assert 0 <= columns * across - width < across
    # clips are two windows or more, so that the ring has wrapped in training too
    assert train.dynamics.frames >= 2 * world.dynamics.window
    assert world.sample.order in schedule.ORDERS
    assert world.tokenizer.codes <= 2**16  # tokens travel as uint16


def test_unknown_preset_lists_the_names():
    with pytest.raises(GenieError, match=r"'huge'.*tiny, spark, doodle, pocket"):
        config.preset("huge")
    with pytest.raises(GenieError):
        config.training("huge")


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.PathConfig().steps = 3


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0x00000000, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (0xFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ],
)
def test_philox_known_answers(word, expected):
    """The test vectors published with Random123: key and counter all zeros, all ones."""
    seed = word << 32 | word
    assert tuple(int(w) for w in philox.philox(seed, word, word, word, word)) == expected


def test_philox_words_all_matter():
    """A change of any counter word or of either half of the key changes every word of the result."""
    base = (5, 1, 2, 3, 4)  # seed, c0..c3
    words = philox.philox(*base)
    for place, step in [*((i, 1) for i in range(5)), (0, 1 << 32), (0, 1 << 63)]:
        moved = [value + step * (i == place) for i, value in enumerate(base)]
        other = philox.philox(*moved)
        assert all(int(a) != int(b) for a, b in zip(words, other, strict=True)), (place, step)


def test_token_uniforms_are_a_function_of_position():
    """The noise of a position does not depend on which others are asked for, or on how many codes there are."""
    whole = philox.token_uniforms(7, range(23), 100, step=2, frame=9)
    assert whole.shape == (23, 100)
    assert whole.dtype == np.float32
    assert np.array_equal(whole[[4, 20]], philox.token_uniforms(7, [4, 20], 100, 2, 9))
    assert np.array_equal(whole[:, :37], philox.token_uniforms(7, range(23), 37, 2, 9))
    assert not np.isin(whole, philox.token_uniforms(7, range(23), 100, 2, 10)).all()
    # word w of counter (group, position, 2 * step + purpose, frame) is code 4 * group + w
    words = philox.philox(7, 5, 11, 2 * 2 + philox.TOKEN_NOISE, 9)
    assert np.array_equal(whole[11, 20:24], philox.uniform(np.array(words)))


def test_purposes_do_not_share_noise():
    token = philox.position_uniforms(1, range(50), 0, 0, philox.TOKEN_NOISE)
    assert not np.isin(philox.position_uniforms(1, range(50), 0, 0), token).any()


def test_uniform_stays_inside():
    """Never 0 or 1, so that its logarithms are finite; even on the bits that round the furthest."""
    u = philox.uniform(np.array([0, 255, 256, 2**31, 2**32 - 1], dtype=np.uint32))
    assert u.dtype == np.float32
    assert (u > 0).all()
    assert (u < 1).all()
    assert np.isfinite(-np.log(-np.log(u))).all()
    assert (np.diff(u) >= 0).all()


def test_uniform_is_even():
    """Chi-square on 16 bins of 40,000 draws; 44.3 is the 1 in 10,000 bound at 15 degrees, and the seed is fixed."""
    counts, _ = np.histogram(philox.token_uniforms(3, range(100), 400, 0, 0), bins=16, range=(0, 1))
    expected = 40_000 / 16
    assert ((counts - expected) ** 2 / expected).sum() < 44.3


@given(n=st.integers(1, 1000), steps=st.integers(1, 64))
def test_schedule_reveals_everything_once(n, steps):
    counts = schedule.reveal_counts(n, steps)
    assert sum(counts) == n
    assert len(counts) == min(steps, n)
    assert min(counts) >= 1


@given(n=st.integers(1, 1000), steps=st.integers(1, 64))
def test_schedule_follows_the_cosine(n, steps):
    """Hidden tokens never rise, end at zero, and stay within what a whole token a step forces off the curve."""
    counts = schedule.reveal_counts(n, steps)
    hidden = n - np.cumsum(counts)
    assert hidden[-1] == 0
    assert (np.diff(hidden) < 0).all()
    curve = [math.floor(n * math.cos(math.pi / 2 * (s + 1) / len(counts)) + 1e-9) for s in range(len(counts))]
    assert np.abs(hidden - curve).max() <= len(counts)


def test_schedule_grows():
    counts = schedule.reveal_counts(144, 8)
    assert counts == tuple(sorted(counts))
    assert counts[0] <= 144 / 8 < counts[-1]


@pytest.mark.parametrize(("n", "steps"), [(0, 1), (1, 0), (-3, 2)])
def test_schedule_refuses_nothing(n, steps):
    with pytest.raises(ValueError, match="one token or more"):
        schedule.reveal_counts(n, steps)


@given(rows=st.integers(1, 24), columns=st.integers(1, 40))
def test_halton_order_is_a_permutation(rows, columns):
    assert sorted(schedule.halton_order(rows, columns)) == list(range(rows * columns))


def test_halton_order_spreads():
    """The first quarter of a grid touches each of its quadrants, nearly equally."""
    rows, columns = 9, 16
    y, x = np.divmod(schedule.halton_order(rows, columns)[: rows * columns // 4], columns)
    quadrants = np.bincount(2 * (y >= rows / 2) + (x >= columns / 2), minlength=4)
    assert quadrants.min() >= 6  # of 36; an even share is 9


@given(n=st.integers(1, 300), seed=st.integers(0, 2**64 - 1), frame=st.integers(0, 2**31))
def test_random_order_is_a_permutation_of_its_arguments(n, seed, frame):
    order = schedule.random_order(n, seed, frame)
    assert sorted(order) == list(range(n))
    assert np.array_equal(order, schedule.random_order(n, seed, frame))


def test_random_order_differs_by_seed_and_frame():
    orders = {tuple(schedule.random_order(64, seed, frame)) for seed in range(4) for frame in range(4)}
    assert len(orders) == 16


@pytest.mark.parametrize("order", ["halton", "random"])
def test_plan_covers_the_grid(order):
    plan = schedule.reveal_plan((3, 5), 4, order, seed=1, frame=2)
    assert [len(positions) for positions in plan] == list(schedule.reveal_counts(15, 4))
    assert sorted(np.concatenate(plan)) == list(range(15))


def test_plan_of_confidence_is_not_known_ahead():
    with pytest.raises(ValueError, match="confidence"):
        schedule.reveal_plan((3, 5), 4, "confidence", 0, 0)


def test_noise_and_schedules_are_what_they_were(golden):
    """Golden integers: replays of earlier versions hang on these."""
    words = philox.philox(123456789012345, 1, 2, 3, 4)
    golden(
        "ground",
        {
            "philox of seed 123456789012345, counter (1, 2, 3, 4)": np.array(words).tolist(),
            "reveal_counts(64, 4)": schedule.reveal_counts(64, 4),
            "reveal_counts(920, 25)": schedule.reveal_counts(920, 25),
            "halton_order(3, 4)": schedule.halton_order(3, 4).tolist(),
            "random_order(12, 5, 6)": schedule.random_order(12, 5, 6).tolist(),
        },
    )


@pytest.mark.parametrize("error", [CheckpointError, ReplayError, SourceError, BackendError])
def test_one_error_tree(error):
    assert issubclass(error, GenieError)
    assert not issubclass(error, ValueError)


def test_check_action():
    assert [check_action(a) for a in (0, np.int64(7))] == [0, 7]
    for action in (-1, 8):
        with pytest.raises(ValueError, match=r"outside 0\.\.7"):
            check_action(action)


def test_history_index_counts_steps_not_edits():
    tokens = np.zeros(4, np.uint16)
    prompt = Prompt(np.zeros((1, 24, 32, 3), np.uint8))
    history = History(prompt, 1, (Move(3, tokens), Move(None, tokens, prompt.pictures[0]), Move(0, tokens)))
    assert (history.index, History(prompt, 1).index) == (2, 0)


def test_user_folders_are_the_persons_own(user_folder):
    for place in (paths.settings_file(), paths.sessions(), paths.pictures(), paths.logs(), paths.worlds()):
        assert user_folder in place.parents
        assert not place.exists()  # asking makes nothing


def test_writable_makes_the_folder(tmp_path):
    assert paths.writable(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(GenieError, match=r"cannot make the folder .* choose another"):
        paths.writable(tmp_path / "file" / "below")


def test_unused_never_overwrites(tmp_path):
    wanted = tmp_path / "spark.gif"
    names = []
    for _ in range(3):
        path = paths.unused(wanted)
        path.write_text("")
        names.append(path.name)
    assert names == ["spark.gif", "spark-2.gif", "spark-3.gif"]
