"""The study of sampling: its rows, going on where it stopped, what it marks, and its Frechet distance on pictures."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from genie_play import cli
from genie_play.config import preset
from genie_play.eval import measures, study, targets
from genie_play.eval.study import Features, Quality, Setting

SHIPPED = Setting(4, "halton", 0.7, True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    words = ("train", "all", "--ungated", "--preset", "tiny", "--source", "platformer", "--steps", "2", "--out", folder)
    assert cli.main([str(word) for word in words]) == 0
    return folder


@pytest.fixture
def small(monkeypatch):
    """Few samples, and an untrained detector: the numbers mean nothing here."""
    size = dataclasses.replace(study.QUICK, clips=2, frames=8, free=2, free_frames=6, sight_steps=1)
    monkeypatch.setattr(study, "QUICK", size)
    monkeypatch.setattr(study, "ROUNDS", 1)
    monkeypatch.setattr(study, "TEMPERATURES", ())


def test_rows_are_the_shipped_one_and_one_thing_changed_at_a_time():
    rows = study.settings(SHIPPED, (1, 4))
    assert rows[0] == SHIPPED
    assert len(rows) == len(set(rows))
    assert Setting(1, "confidence", 0.7, True) in rows
    assert Setting(4, "random", 1.5, True) in rows
    assert Setting(1, "halton", 0.7, False) in rows
    assert Setting(4, "halton", 0.7, True, 1.5) in rows
    assert all(sum(a != b for a, b in zip(vars(row).items(), vars(SHIPPED).items(), strict=True)) <= 2 for row in rows)


def quality(**changes):
    base = Quality(20.0, 3.0, 0.9, 90.0, 1.0, 10.0, 1.0)
    return {"setting": vars(SHIPPED), **dataclasses.asdict(dataclasses.replace(base, **changes))}


def test_a_star_is_for_what_nothing_beats():
    base, better = quality(), quality(delta=3.5)
    quick, worse = quality(delta=2.0, times=0.5), quality(edges=1.3)
    rows = [base, better, quick, worse]
    assert study.pareto(rows) == [better, quick]
    # as far from real play above as below
    assert study.pareto([quality(edges=0.9), quality(edges=1.1)]) == [quality(edges=0.9), quality(edges=1.1)]


def test_the_study_goes_on_where_it_stopped(tiny, small, tmp_path, monkeypatch):
    whole = study.study(tiny, tmp_path / "whole", quick=True, steps=(1, 3))
    assert whole["shipped"] == dataclasses.asdict(Setting(3, "halton", 0.7, True))
    assert set(whole["baselines"]) == {study.REAL, study.SEEN}
    assert all(row["times"] > 0 and np.isfinite(row["distance"]) for row in whole["rows"])

    # stopped in the fourth row
    before, rows = study.Bed.measure, []

    def stopping(self, path):
        rows.append(path)
        if len(rows) == 4:
            raise KeyboardInterrupt
        return before(self, path)

    monkeypatch.setattr(study.Bed, "measure", stopping)
    with pytest.raises(KeyboardInterrupt):
        study.study(tiny, tmp_path / "cut", quick=True, steps=(1, 3))
    cut = json.loads((tmp_path / "cut" / "steps.json").read_text())
    assert len(cut["rows"]) == 3
    assert (tmp_path / "cut" / "steps.md").read_text().count("\n") == 2 + 2 + 3
    monkeypatch.setattr(study.Bed, "measure", before)
    again = study.study(tiny, tmp_path / "cut", quick=True, steps=(1, 3))

    def figures(found):
        return [{name: value for name, value in row.items() if name not in ("ms", "times")} for row in found["rows"]]

    assert figures(again) == figures(whole)
    assert again["rows"][:3] == cut["rows"]
    assert again["baselines"] == whole["baselines"]


def test_the_command_and_what_it_refuses(tiny, small, tmp_path, capsys):
    words = ["eval", str(tiny), "--sweep", "--quick", "--steps", "1,50", "--out", str(tmp_path / "s")]
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    # more passes than tokens are left out
    assert out.count("\n") == 2 + 2 + 8
    assert "row 1 of 8: 3 passes, halton" in err
    assert (tmp_path / "s" / "steps.md").read_text() == out
    assert cli.main([word for word in words if word != "--quick"]) == 2
    assert "another world or another size" in capsys.readouterr().err
    assert cli.main([*words, "--save"]) == 2
    assert cli.main(["eval", str(tiny), "--steps", "1"]) == 2
    assert "--steps is for --sweep" in capsys.readouterr().err


@torch.inference_mode()
def test_the_encoder_frechet_distance_knows_pictures_that_drift():
    """It grows with blur and with noise, and knows a mirrored picture, which has the same colours and edges."""
    genie = targets.random_genie(preset("spark"))
    features = Features(genie)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 4, 8, 8, 3)).astype(np.float32)
    coarse[..., 4:, :, :] *= 0.4  # dark below
    real = coarse.repeat(8, 2).repeat(8, 3)

    def distance(clips):
        return measures.frechet(features(real.astype(np.uint8)), features(clips.clip(0, 255).astype(np.uint8)))

    assert features(real.astype(np.uint8)).shape == (48, 4 * genie.config.tokenizer.code_dim)
    assert distance(real) == pytest.approx(0, abs=1e-6)

    def blurred(radius):
        return (
            sum(np.roll(real, (x, y), (2, 3)) for x in range(-radius, radius + 1) for y in range(-radius, radius + 1))
            / (2 * radius + 1) ** 2
        )

    noise = rng.normal(size=real.shape)
    assert 0 < distance(blurred(1)) < distance(blurred(4)) < distance(np.full_like(real, real.mean()))
    assert 0 < distance(real + 4 * noise) < distance(real + 40 * noise)
    assert distance(real[:, :, ::-1]) > distance(blurred(1))
