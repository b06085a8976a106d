"""The evaluation and its commands: the game itself earns the labels and passes the measures that worlds are held to."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genie_play import checkpoint, cli, compare, paths
from genie_play.config import PathConfig
from genie_play.data.clips import PlatformerSource
from genie_play.engine import calibration
from genie_play.eval import (
    accept,
    codes,
    curves,
    infer,
    measures,
    play,
    probe,
    report,
    sketchbook,
    stages,
    upper_bound,
)
from genie_play.eval.gates import GATES, gates_of
from genie_play.eval.subject import Size, Subject
from genie_play.eval.table import Row, into_page, judged, over_draws
from genie_play.play.keymap import SLOTS, slot_codes
from genie_play.types import GenieError, Label

SMALL = Size(
    clips=2, frames=7, starts=24, prompts=3, long_holds=2, free=2, free_frames=8, walks=2, walk=50, sketch_frames=12,
    draws=1, sight_steps=4,
)  # fmt: skip


def run(capsys, *words):
    """Exit code, stdout, stderr of a command."""
    code = cli.main([str(word) for word in words])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A tiny world that was trained for two steps a stage: it plays noise, through all the same code."""
    folder = tmp_path_factory.mktemp("worlds") / "small"
    words = (
        "train",
        "all",
        "--ungated",
        "--preset",
        "tiny",
        "--source",
        "platformer-calm",
        "--steps",
        2,
        "--out",
        folder,
    )
    assert cli.main([str(word) for word in words]) == 0
    return folder


@pytest.fixture(scope="module")
def bound(tiny, tmp_path_factory) -> Path:
    """The tiny world's upper bound."""
    folder = tmp_path_factory.mktemp("bounds") / "bound"
    words = ("train", "dynamics", "--true-actions", tiny, "--steps", 2, "--out", folder)
    assert cli.main([str(word) for word in words]) == 0
    assert cli.main([str(word) for word in words]) == 0  # it is done, and goes on from there
    return folder


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    """A world of one's own to write into."""
    return Path(shutil.copytree(tiny, tmp_path / "small"))


@pytest.fixture(scope="module")
def game():
    """The game at 64 x 64, from standing starts."""
    return probe.standing(PlatformerSource((64, 64), 5, "held-out", n_looks=64, calm=True), 0, 12)


class Played(Subject):
    """A subject whose codes are the keys of the game."""

    def __init__(self) -> None:
        self.picture_size = (64, 64)


# what codes do


def test_standing_starts_stand_and_every_jump_comes_down(game):
    assert len(game) == 12
    assert game.grounded.all()
    for key in (3, 4, 5):
        dy = probe.motion(probe.hold_key(game, key, 12))[..., 1]
        rose, back = measures.comes_down(dy, 4)
        assert (rose & back).mean() > 0.9


def test_the_games_own_keys_earn_their_names_and_their_places(game, monkeypatch):
    monkeypatch.setattr(probe, "hold", lambda subject, start, code, ticks, seed: probe.hold_key(game, code, ticks))
    found = probe.probe(Played(), game.render())
    assert [label.name for label in found.labels[:6]] == ["idle", "left", "right", "jump", "jump-left", "jump-right"]
    assert found.idle == 0
    assert set(found.lands) >= {3, 4, 5}
    assert all(label.confidence > 0.9 for label in found.labels[:6])
    assert (found.labels[2].dx, found.labels[2].dy) == (4, 0)
    slots = dict(zip(SLOTS, slot_codes(found.labels, found.idle), strict=True))
    assert (slots["E"], slots["W"], slots["NE"], slots["NW"]) == (2, 1, 5, 4)
    assert slots["N"] in (3, 7)  # up is a jump where there is no ladder
    assert probe.agrees(found.labels, found.moved)[:, :6].mean() > 0.9
    picture = probe.sheet(found)
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 112 + 2 * 3 * 5 * 64


def test_a_code_that_flies_for_ever_is_up_and_no_jump():
    moved = np.zeros((20, 8, 2))
    moved[:, 1], moved[:, 2], moved[:, 3], moved[:, 4] = (0, -4), (0, -4), (4, -4), (-4, 0)
    names = [label.name for label in probe.name_codes(moved, {1: 0.0, 2: 1.0, 3: 0.0})]
    assert names[:5] == ["idle", "up", "jump", "jump-right", "left"]
    # others that stand still are no second idle, and no wrong direction either
    assert names[5:] == ["other"] * 3


def test_probes_together_are_one_of_all_their_prompts(game, monkeypatch):
    monkeypatch.setattr(probe, "hold", lambda subject, start, code, ticks, seed: probe.hold_key(game, code, ticks))
    one = probe.probe(Played(), game.render())
    other = replace(one, lands={3: 0.5})
    both = probe.together([one, other])
    assert len(both.moved) == 2 * len(one.moved)
    assert [label.name for label in both.labels[:4]] == ["idle", "left", "right", "jump"]
    assert both.lands[3] == pytest.approx((one.lands[3] + 0.5) / 2)
    assert both.lands[4] == pytest.approx(one.lands[4] / 2)


def test_rise_and_fall():
    jump = np.array([[-4, -4, -4, -4, 4, 4, 4, 4, 0, 0, 0, 0]], float)
    flight, still = np.full((1, 12), -4.0), np.zeros((1, 12))
    late = np.concatenate((np.full((1, 9), -4.0), np.full((1, 3), 4.0)), 1)
    rose, back = measures.comes_down(np.concatenate((jump, flight, still, late)), 4)
    assert rose.tolist() == [True, True, False, True]
    assert back.tolist() == [True, False, False, False]


def test_a_play_ends_with_sixteen_bad_frames_in_a_row():
    energy = np.ones((4, 60))
    energy[0, 20:36] = 0.4
    energy[1, 20:35] = 0.4  # one too few
    energy[2, 30:] = 1.6
    assert measures.ended(energy, np.ones(4)).tolist() == [20, 60, 30, 60]


def test_codes_that_do_the_same_are_not_apart():
    futures = np.full((8, 2, 6, 9, 3), 100, np.uint8)
    futures[3, 1] += 5
    assert measures.apart(futures).tolist() == [0, 5]


def test_an_empty_sky_has_left_the_level(game):
    frames = probe.hold_key(game, 0, 20)
    assert play.keeps_level(frames).all()
    sky = frames.copy()
    sky[:, 5:] = sky[:, 5:, :8, :8].mean((2, 3), keepdims=True).astype(np.uint8)
    assert not play.keeps_level(sky).any()
    # ground gone, but something still above
    floating = frames.copy()
    floating[:, 5:, 32:] = 100
    assert not play.keeps_level(floating).any()


# codes of keys


def test_one_code_for_everything_agrees_with_nothing():
    moves = ((0,), (-1,), (1,), (0,), (-1,), (1,), (0,))
    same = np.zeros((10, 7), np.int64)
    assert codes.agreement(same, moves)[0] == 0
    apart = np.tile([4, 1, 2, 4, 1, 2, 4], (10, 1))
    assert codes.agreement(apart, moves)[0] == 100  # keys that do the same may share
    apart[0, 1] = 2
    assert codes.agreement(apart, moves)[0] == pytest.approx(100 * 69 / 70)
    assert codes.agreement(np.zeros((0, 7), np.int64), moves) == (0.0, "no free start")


def test_branches_share_a_past_and_displacement_tells_grounded_keys_apart():
    subject = Subject.__new__(Subject)
    subject.picture_size, subject.size, subject.source = (64, 64), Size(starts=60), "platformer-calm"
    branch = codes.branches(subject, grounded=True)
    assert branch.past.shape[1] == codes.PAST + 1
    assert len(branch.past) == len(branch.after) > 5
    # "none" on the ground leaves the scene as it is; who walked stands
    changed = (branch.after[:, 0] != branch.past[:, -1]).any(-1)
    changed[:, 24:44, 24:40] = False
    assert not changed.any()
    seen: list[tuple[int, ...]] = []

    def watch(clips):
        seen.append(clips.shape[1:])
        return np.zeros(len(clips), np.int64)

    assert branch.codes(watch).shape == (len(branch.past), 7)
    assert set(seen) == {(codes.PAST + 2, 64, 64, 3)}
    truth = subject.clips(subject.unseen, 1, 0, 24, 8)
    assert codes.agreement(branch.codes(codes.plain_codes(truth)), branch.moves)[0] > 60
    air = codes.branches(subject, grounded=False)
    assert len(air.past) > 3
    assert (air.after[:, 1] != air.after[:, 2]).any((1, 2, 3)).all()


def test_k_means_finds_clusters_and_few_points():
    points = np.repeat([[0.0, 0], [10, 0], [0, 10]], 20, 0) + np.linspace(-0.1, 0.1, 60)[:, None]
    centres = measures.k_means(points, 3)
    assert sorted(np.round(centres).astype(int).tolist()) == [[0, 0], [0, 10], [10, 0]]
    assert len(measures.k_means(np.zeros((5, 2)), 8)) == 1


# the table


def test_rows_over_draws_state_their_spread():
    rows = over_draws(lambda draw: [Row("a", "b", float(draw), beside=f"draw {draw}")], 3)
    assert rows == [Row("a", "b", 1.0, beside="draw 0", spread=1.0)]
    assert over_draws(lambda draw: [Row("a", "b", 2.0)], 1)[0].spread is None
    assert judged(rows, {("a", "b"): 2.0})[0].passed is False


def test_a_page_is_filled_between_its_marks():
    page = "x\n<!-- w table -->\nold\n<!-- /w table -->\ny\n"
    once = into_page(page, {"w table": "| new \\1 |\n"})
    assert once == "x\n<!-- w table -->\n\n| new \\1 |\n\n<!-- /w table -->\ny\n"
    assert into_page(once, {"w table": "| new \\1 |"}) == once
    with pytest.raises(GenieError, match="no place for v table"):
        into_page(page, {"v table": ""})


def test_curves_show_what_was_logged(tmp_path):
    assert curves.read(tmp_path) == []
    assert curves.sheet([]) is None
    rows = [{"stage": "dynamics", "step": step, "ce": 3 - step / 100} for step in range(20, 220, 20)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, "not json", '{"stage": "dynamics", "st']))
    assert curves.read(tmp_path) == rows
    one = curves.sheet(rows)
    assert one.shape == (curves.SIZE[1], curves.SIZE[0], 3)
    left, top, right, bottom = curves.PLOT
    dark = (one == curves.LINE).all(-1)[top : bottom + 1, left : right + 1]
    where = np.flatnonzero(dark.any(0))
    first, last = (np.flatnonzero(dark[:, x]).mean() for x in where[[0, -1]])
    assert abs(where[0] - 0.1 * (right - left)) < 3  # of 200 steps it begins at 20
    assert first < 4  # at the top, and falls, the mean behind what it is the mean of
    assert abs(last - 0.5 * (bottom - top)) < 4
    # begun again at step 100: what was logged beyond it is not shown twice
    again = curves.sheet([*rows, *({**row, "gap": 1.0} for row in rows[5:])])
    assert again.shape[1] == 2 * one.shape[1] + 2
    assert np.array_equal(again[:, : one.shape[1]], one)
    assert np.allclose(curves.smooth(np.array([1.0, 3.0, 5.0]), 2), [1, 2, 4])


def test_the_script_uses_what_there_is():
    labels = (Label(0, "idle"), Label(1, "up", 0, -4, 0.9), Label(2, "right", 4, 0, 1.0), Label(3, "right", 4, 0, 0.5))
    assert [sketchbook.code_for(labels, name) for name in ("right", "jump", "jump-left", "left", "idle")] == [
        2, 1, 1, 0, 0,
    ]  # fmt: skip
    assert len(sketchbook.script_codes(labels, 250)) == 250


# whole evaluations


def test_a_world_is_measured_whole_and_the_same_again(copy, bound, tmp_path):
    page = tmp_path / "worlds.md"
    parts = ("table", "sketches", "sheets")
    page.write_text("\n".join(f"<!-- small {part} -->\n<!-- /small {part} -->" for part in parts))
    file = checkpoint.find(copy)
    header = checkpoint.read(file)
    upper_bound.rewrite(file, world=replace(header.world, name="small"))
    parted: list[str] = []
    logged = [{"stage": "dynamics", "step": step, "ce": 1.0} for step in (20, 40)]
    (file.parent / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged))
    result = report.evaluate(copy, tmp_path / "out", True, True, bound, page, parted.append, SMALL)
    known = {(row["stage"], row["name"]) for row in result["rows"]}
    for name, gates in GATES.items():
        assert set(gates) <= known, name
    assert len(known) == len(result["rows"])
    assert all(np.isfinite(row["value"]) for row in result["rows"])
    assert len(result["sketches"]) == 12
    assert {"tokenizer", "twelve sketches", "long random play"} <= set(parted)
    sheets = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert {"probe", "held", "walks", "long-holds", "rollout", "free", "curves"} <= sheets
    assert sum(name.startswith("sketch-") for name in sheets) == 12
    text = page.read_text()
    for link in [part.split(")")[0] for part in text.split("](")[1:]]:
        assert (tmp_path / link).exists(), link
    delta = next(row for row in result["rows"] if row["name"].startswith("delta-t"))
    assert "told the true keys" in delta["beside"]
    after = checkpoint.read(file)
    assert [label.name for label in after.labels] == [label["name"] for label in result["labels"]]
    assert after.evaluation["tokenizer: codes used"] > 0

    with torch.inference_mode():
        again = report.open_subject(file, SMALL)[0]
        rows = over_draws(lambda draw: stages.dynamics(again, draw), SMALL.draws) + play.walks(again)
    found = {(row["stage"], row["name"]): row["value"] for row in result["rows"]}
    for row in rows:
        assert row.value == found[row.stage, row.name], row.name


def test_colours_of_long_play_are_those_of_its_own_real_play():
    real = np.zeros((2, 6, 8, 8, 3), np.uint8)
    real[1] = 200
    made = real.copy()
    made[0, :3] = 100  # the first half is not looked at
    made[1, 5, :4] = 100  # half of one frame in three, in one play of two
    row = play._colours(made, real, real)
    assert np.isclose(row.value, 100 / 12)
    assert row.beside == "real play through the tokenizer 0.0, play of another start 100.0"


def test_gates_are_those_of_the_preset():
    assert gates_of("pocket")[("play", "held jumps that come down within 12 ticks")] == 85
    assert gates_of("spark")[("tokenizer", "PSNR, unseen looks")] == 26
    assert gates_of("tiny") == {}


def test_peeking_changes_nothing(tiny):
    subject = report.open_subject(checkpoint.find(tiny), SMALL)[0]
    start = subject.unseen.games(0, 2)[0].render()
    with torch.inference_mode():
        batch, other = subject.batch(2), subject.batch(2)
        for one in (batch, other):
            one.begin(start)
        ahead, two_ahead = batch.peek(3, 1), batch.peek(3, 1, 2)
        batch.peek(5, 1)
        for one in (batch, other):
            np.testing.assert_array_equal(one.step(3, 1), ahead)
            np.testing.assert_array_equal(one.step(3, 1), two_ahead)
        np.testing.assert_array_equal(batch.step(4, 1), other.step(4, 1))


# the upper bound


def test_an_upper_bound_is_never_a_world(capsys, tiny, bound, tmp_path):
    header = checkpoint.read(checkpoint.find(bound))
    assert upper_bound.is_bound(header)
    assert set(header.stages) == {"tokenizer", "tokenizer.decoder", "dynamics"}
    for refused in (("eval", bound, "--save"), ("probe", bound, "--save", "--prompts", 1)):
        code, _, err = run(capsys, *refused)
        assert code == 2
        assert "was told the game's keys" in err
    with pytest.raises(GenieError, match="was told the game's keys"):
        upper_bound.rewrite(checkpoint.find(bound), idle=3)
    with pytest.raises(GenieError, match="is no upper bound"):
        report.evaluate(tiny, bound=tiny, size=SMALL)
    code, _, err = run(capsys, "train", "tokenizer", "--true-actions", tiny, "--out", tmp_path / "x")
    assert (code, len(err.splitlines())) == (2, 1)


def test_keyed_clips_are_the_sources_own_and_keys_are_given_once():
    source = PlatformerSource((24, 32), 3, calm=True, n_looks=8)
    keyed = upper_bound.KeyedSource(source)
    np.testing.assert_array_equal(keyed.batch(4, 3, 5), source.batch(4, 3, 5))
    assert keyed.keys(4).shape == (3, 4)
    with pytest.raises(KeyError):
        keyed.keys(4)


def test_no_shipped_world_is_an_upper_bound():
    for file in paths.models().rglob("*.safetensors"):
        assert not upper_bound.is_bound(checkpoint.read(file)), file


# probe, compare, infer


def test_probe(capsys, copy, tmp_path):
    code, out, err = run(capsys, "probe", copy, "--prompts", 2, "--out", tmp_path / "sheet.png", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [label["code"] for label in found["labels"]] == list(range(8))
    assert found["prompts"] == 2
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 112
    before = checkpoint.read(checkpoint.find(copy)).labels
    code, out, _ = run(capsys, "probe", copy, "--prompts", 2)
    assert code == 0
    assert out.startswith("code 0: ")
    assert checkpoint.read(checkpoint.find(copy)).labels == before
    assert run(capsys, "probe", copy, "--prompts", 2, "--save")[0] == 0
    names = [label.name for label in checkpoint.read(checkpoint.find(copy)).labels]
    assert names == [label["name"] for label in found["labels"]]
    code, out, err = run(capsys, "probe", copy, "--out", tmp_path / "sheet.gif")
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_compare_worlds_of_different_sizes(capsys, tiny, tmp_path):
    words = ("compare", "platformer", tiny, "--actions", "3:2 random:4", "--seed", 1, "--seed", 2, "--scale", 1)
    code, out, err = run(
        capsys, *words, "--prompt", "green-hills", "--prompt", "lined-cat", "--out", tmp_path / "two.gif", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert (found["frames"], found["rows"], len(found["worlds"])) == (7, 4, 2)
    with Image.open(tmp_path / "two.gif") as picture:
        # 24 x 32 is enlarged twice beside 64 x 64
        assert picture.size == (64 + 4 + 64 + 4, compare.CAPTION + 4 * (64 + compare.GAP))
    code, out, err = run(capsys, "compare", "nowhere", "--actions", "1", "--out", tmp_path / "three.gif")
    assert (code, out) == (2, "")
    assert "no world is called 'nowhere'" in err
    assert not (tmp_path / "three.gif").exists()


def test_infer_says_what_rollout_takes(capsys, tiny, tmp_path):
    clip = tmp_path / "clip.gif"
    words = ("rollout", "--world", "platformer", "--actions", "2:4 1:4", "--seed", 3, "--out", clip)
    assert run(capsys, *words)[0] == 0
    code, out, err = run(capsys, "infer", clip, "--world", tiny, "--out", tmp_path / "both.gif", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["frames"], len(found["codes"])) == (9, 8)
    words = ("rollout", "--world", tiny, "--actions", found["actions"], "--out", tmp_path / "again.gif", "--json")
    code, out, _ = run(capsys, *words)
    assert json.loads(out)["frames"] == 9
    assert (tmp_path / "both.gif").exists()
    assert run(capsys, "infer", clip, "--world", tiny, "--frames", 3)[1].count(":") <= 1
    still = tmp_path / "still.png"
    Image.new("RGB", (32, 24)).save(still)
    for bad in (tmp_path / "nothing.gif", tmp_path, still):
        code, out, err = run(capsys, "infer", bad, "--world", tiny)
        assert (code, out, len(err.splitlines())) == (2, "", 1), err


def test_spec_of_codes():
    assert infer.spec([3, 3, 3, 0, 7, 7]) == "3:3 0 7:2"


def test_spark_finds_left_and_right_in_the_game():
    """On the shipped world: what moves right gets one code, and what moves left never has it."""
    source = PlatformerSource((64, 64), 11, "held-out", n_looks=64, calm=True)
    game = probe.standing(source, 0, 8)
    clips = np.concatenate([probe.hold_key(game, key, 3) for key in (1, 2)])
    subject = report.open_subject(checkpoint.find("spark"), SMALL)[0]
    with torch.inference_mode():
        found = codes.infer(subject.genie, clips)
    left, right = (np.bincount(part.ravel(), minlength=8) for part in (found[:8], found[8:]))
    assert right.max() / right.sum() > 0.9
    assert left[right > 0].sum() == 0  # two codes serve the way to the left (models/spark/card.md)


def test_the_path_of_a_world_is_what_is_measured(tiny):
    header = checkpoint.read(checkpoint.find(tiny))
    assert report.open_subject(checkpoint.find(tiny), SMALL)[0].path == header.path
    assert isinstance(header.path, PathConfig)


# arithmetics


def test_an_arithmetic_is_accepted_for_what_it_draws_and_how_it_plays(capsys, tiny, tmp_path, monkeypatch):
    file = tmp_path / "copy.safetensors"
    shutil.copy(checkpoint.find(tiny), file)
    monkeypatch.setattr(calibration, "able", lambda names: ["fp32", "bf16"])
    found = accept.accept(file, save=True, size=SMALL)
    exact, half = found["rows"]
    assert exact["alike"] == 1.0
    assert all(len(values) == max(SMALL.draws, 2) for row in found["rows"] for values in row["figures"].values())
    assert set(exact["figures"]) == set(accept.FIGURES)
    assert half["alike"] > 0.9
    assert checkpoint.read(file).accepted == tuple(found["accepted"])
    assert any(line.startswith("| bf16 ") for line in accept.table(found))
    monkeypatch.setattr(calibration, "able", lambda names: ["fp32"])
    alone = "with --save and --quick alone"
    for words, what in (((), "nothing to measure"), (("--out", tmp_path), alone), (("--steps", 2), alone)):
        code, _, err = run(capsys, "eval", file, "--arithmetics", *words)
        assert code != 0
        assert what in err


def test_an_arithmetic_that_draws_other_tokens_or_plays_worse_is_named():
    good = {name: (best - 0.3, best - 0.1) for name, best in accept.FIGURES.items()}
    base = accept.Found("fp32", 1.0, good)
    assert accept.judged(accept.Found("int8", 0.98, good), base).accepted
    other = accept.judged(accept.Found("int8", 0.96, good), base)
    assert (other.worse, other.accepted) == (("drawing the same tokens",), False)
    name = "edge energy of the second half, against real"
    for values, accepted in (((1.2, 1.3), True), ((1.3, 1.4), False), ((0.5, 0.7), False)):
        found = accept.judged(accept.Found("int8", 1.0, good | {name: values}), base)
        assert (found.accepted, found.worse) == (accepted, () if accepted else (name,))


def test_a_world_with_other_weights_draws_other_tokens(tiny):
    subject = report.open_subject(checkpoint.find(tiny), SMALL)[0]
    with torch.inference_mode():
        exact, other = subject.played_in("fp32"), subject.played_in("fp32")
        assert accept.alike(exact, other, 3) == 1.0
        other.genie.dynamics.head.weight.copy_(other.genie.dynamics.head.weight.roll(1, 0))
        assert accept.alike(exact, other, 3) < 0.5
    assert subject.genie.dynamics.blocks[0].__class__.__name__ == "STBlock"  # the world itself is as it was
