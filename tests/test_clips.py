"""The table of a world on a folder of clips."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from genie_play import checkpoint, cli
from genie_play.data.clips import PlatformerSource
from genie_play.data.video import write_clip
from genie_play.eval import clips, measures
from genie_play.train import loop
from genie_play.types import GenieError

SIZE = (24, 32)


def written(folder, split: str, count: int, frames: int):
    batch = PlatformerSource(SIZE, 4, split, calm=True, n_looks=8).batch(0, count, frames)
    for number, clip in enumerate(batch):
        write_clip(folder / split / f"{number}.webp", clip)
    return folder / split


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a world that saw a few clips, those clips, and others."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "train").mkdir()
    (folder / "held-out").mkdir()
    source = written(folder, "train", 4, 24)
    written(folder, "held-out", 5, 24)
    for stage, steps in (("tokenizer", 30), ("actions", 20), ("keys", 10), ("dynamics", 20)):
        loop.train(stage, "tiny", str(source), folder / "world", steps=steps)
    return folder


def test_every_part_is_measured(trained, tmp_path):
    found = clips.evaluate(trained / "world", trained / "held-out", tmp_path / "out", quick=True)
    rows = {row["name"]: row for row in found["rows"]}
    assert {row["stage"] for row in found["rows"]} == {"tokenizer", "actions", "dynamics", "play"}
    for start in ("1 real frame", "4 real frames"):
        for name in ("next frame minus copy-frame", "delta-t PSNR, t = 4", "PSNR of 10 frames", "SSIM of 10 frames"):
            assert np.isfinite(rows[f"{name}, after {start}"]["value"])
        assert all(f"rollout PSNR, frame {t}, after {start}" in rows for t in (1, 4, 8, 16))
    assert 8 < rows["PSNR"]["value"] < 40
    assert found["clips"] == 5
    assert not found["trained_on"]
    assert found["frames_seen"] == {
        "tokenizer": 30 * 32,
        "actions": 20 * 128,
        "actions.keys": 10 * 128,
        "dynamics": 20 * 64,
    }
    assert json.loads((tmp_path / "out" / "table.json").read_text())["table"] == found["table"]
    strips = {file.stem for file in (tmp_path / "out").glob("*.png")}
    assert strips == {"tokenizer", "rollout-1", "rollout-4", "probe"}


def test_what_rollouts_are_worth_is_told_by_known_answers():
    random = np.random.default_rng(0)
    real = random.integers(60, 180, (3, clips.LENGTH, *SIZE, 3)).astype(np.uint8)
    stays = np.broadcast_to(real[:, :1], real.shape)
    runs = {"own": real + 2, "random": real + 20, "constant": real + 40}
    rows = {row.name: row for row in clips.predicted(4, real, stays, real + 1, runs)}

    def db(error: int) -> float:
        return 10 * np.log10(255**2 / error**2)

    delta = rows["delta-t PSNR, t = 4, after 4 real frames"]
    assert delta.value == pytest.approx(db(2) - db(20), abs=1e-3)
    assert f"constant {db(40):.2f}" in delta.beside
    assert f"each picture's {db(2) - db(20):.2f}" in delta.beside
    frame = rows["rollout PSNR, frame 16, after 4 real frames"]
    assert frame.value == pytest.approx(db(2), abs=1e-3)
    assert f"copy {measures.psnr(real[:, 15], real[:, 0]):.2f}, tokenizer {db(1):.2f}" in frame.beside
    ten = rows["PSNR of 10 frames, after 4 real frames"]
    assert ten.value == pytest.approx(db(2), abs=1e-3)
    assert rows["SSIM of 10 frames, after 4 real frames"].value > 0.99


def test_a_world_in_training_is_measured_as_far_as_it_is_and_its_own_clips_are_named(trained, tmp_path, caplog):
    loop.train("tokenizer", "tiny", str(trained / "train"), tmp_path / "young", steps=2)
    with caplog.at_level(logging.WARNING):
        found = clips.evaluate(tmp_path / "young", trained / "train", quick=True)
    assert found["trained_on"]
    assert "was trained on these clips" in caplog.text
    assert {row["stage"] for row in found["rows"]} == {"tokenizer"}
    assert found["labels"] == []


def test_figures_and_labels_go_into_the_world_and_are_the_same_again(trained, tmp_path, capsys):
    file = tmp_path / "copy.safetensors"
    file.write_bytes((trained / "world" / "world.safetensors").read_bytes())
    command = ["eval", str(file), "--source", str(trained / "held-out"), "--quick", "--save"]
    assert cli.main([*command, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    header = checkpoint.read(file)
    assert header.evaluation == {f"{row['stage']}: {row['name']}": row["value"] for row in first["rows"]}
    assert [label.name for label in header.labels] == [label["name"] for label in first["labels"]]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.startswith(first["table"])


def test_bad_folders_are_one_line(trained, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "a.gif").write_bytes(b"GIF89a, not really")
    (tmp_path / "short").mkdir()
    write_clip(tmp_path / "short" / "a.webp", np.random.default_rng(0).integers(0, 255, (8, 24, 32, 3), np.uint8))
    for name, message in (
        ("nowhere", "there is no"),
        ("empty", "there is no video in"),
        ("odd", "none of the 1 files"),
        ("short", "has 20 frames at 10 a second"),
    ):
        assert cli.main(["eval", str(trained / "world"), "--source", str(tmp_path / name), "--quick"]) == 2
        said = capsys.readouterr().err
        assert message in said
        # what is measured and how many files were left out may be told besides
        lines = [line for line in said.splitlines() if "measuring" not in line and "left out" not in line]
        assert len(lines) == 1


def test_what_clips_cannot_tell_is_refused(trained, tmp_path, capsys):
    command = ["eval", str(trained / "world"), "--source", str(trained / "held-out"), "--page", "x.md"]
    assert cli.main(command) == 2
    assert "leave them out" in capsys.readouterr().err
    loop.train("actions", "tiny", str(trained / "train"), tmp_path / "half", steps=2)
    with pytest.raises(GenieError, match="train one first"):
        clips.evaluate(tmp_path / "half", trained / "held-out")
