"""One command for a stretch on a lent machine: it takes up, trains between gates, and leaves all in a folder."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from genie_play import checkpoint, cli
from genie_play.config import SHARES
from genie_play.eval.gates import STOPS, gates_of, stops_of
from genie_play.eval.table import Row
from genie_play.train import gates, loop, pieces, plan, run, stages
from genie_play.types import GenieError

SIZE = (24, 32)
WHAT = {"preset": "tiny", "source": "platformer-calm"}


@pytest.fixture
def quick(monkeypatch):
    """An evaluation that looks at nothing; what it was asked for."""
    asked = []

    def evaluate(world):
        asked.append(checkpoint.read(world).stages)
        return {"rows": {"tokenizer: PSNR": 30.0}, "table": "", "labels": []}, np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(run, "evaluate", evaluate)
    return asked


def measured(monkeypatch, *values: float) -> list[str]:
    """Let the tokenizer have these figures; what is measured."""
    asked = []
    names = [name for network, name in STOPS if network == "tokenizer"]

    def tokenizer(subject):
        asked.append("tokenizer")
        return [Row("tokenizer", name, value) for name, value in zip(names, values, strict=True)]

    monkeypatch.setattr(gates, "PARTS", {"tokenizer": tokenizer})
    return asked


def test_two_machines_one_after_the_other(quick, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    before = run.run("tokenizer", out=tmp_path / "here", report=first, steps=25, minutes=1e-4, **WHAT)
    assert before["stages"]["tokenizer"] == {"steps": 1, "of": 25}
    with pytest.raises(GenieError, match="train tokenizer into"):
        run.run("dynamics", out=tmp_path / "new", report=tmp_path / "third", **WHAT)
    assert "train tokenizer into" in json.loads((tmp_path / "third" / run.SUMMARY).read_text())["problem"]

    # the same command as on the first machine; the folder has another name
    run.run("tokenizer", out=tmp_path / "there", start=first, report=second, steps=25, **WHAT)
    assert {file.name for file in second.iterdir()} >= {run.SUMMARY, run.STRIPS, run.METRICS, pieces.MANIFEST}
    assert len(list(second.iterdir())) <= 8
    found = json.loads((second / run.SUMMARY).read_text())
    assert found["problem"] is None
    assert found["stages"]["tokenizer"] == {"steps": 25, "of": 25}
    assert found["last"]["tokenizer"]["step"] == 25
    assert found["evaluation"]["rows"] == {"tokenizer: PSNR": 30.0}
    curve = [json.loads(line) for line in (second / run.METRICS).read_text().splitlines()]
    assert [row["step"] for row in curve if row.get("seam")] == [1]
    assert [row["step"] for row in curve if "loss" in row] == [20, 25]
    assert quick[-1]["tokenizer"]["steps"] == 25


def test_an_evaluation_that_fails_costs_no_weights(tmp_path, monkeypatch):
    def evaluate(world):
        assert (tmp_path / "report" / pieces.MANIFEST).exists()
        raise ZeroDivisionError("no avatar")

    monkeypatch.setattr(run, "evaluate", evaluate)
    run.run("tokenizer", out=tmp_path / "out", report=tmp_path / "report", steps=1, **WHAT)
    found = json.loads((tmp_path / "report" / run.SUMMARY).read_text())
    assert found["evaluation"] == {"problem": "ZeroDivisionError: no avatar"}


def test_nothing_is_built_on_a_network_that_misses_its_stop_value(quick, tmp_path, monkeypatch):
    out = tmp_path / "out"
    asked = measured(monkeypatch, 28.0, 21.0, 60.0)
    with pytest.raises(GenieError, match=r"tokenizer: PSNR in the avatar's box, unseen looks is 21, 22 is the least"):
        run.run("all", out=out, report=tmp_path / "report", steps=2, **WHAT)
    known = checkpoint.read(loop.world_file(out)).stages
    assert "tokenizer.decoder" in known  # all of the network is through, and then it is measured
    assert "dynamics" not in known
    found = json.loads((tmp_path / "report" / run.SUMMARY).read_text())
    assert "stopped at a gate" in found["problem"]
    assert found["gates"] == {"tokenizer": False}

    # a gate that was missed is measured again, one that was passed is not, until there are more steps
    with pytest.raises(GenieError, match="stopped at a gate"):
        run.run("all", out=out, steps=2, **WHAT)
    assert len(asked) == 2
    asked = measured(monkeypatch, 27.0, 22.0, 40.0)
    what = stages.STAGES["decoder"], loop.Run(out, "tiny", "platformer-calm")
    gates.check(*what)
    gates.check(*what)
    assert asked == ["tokenizer"]
    assert gates.read(out)["tokenizer"]["passed"] is True


def test_a_network_is_measured_with_the_last_of_its_stages():
    ours = loop.Run(None, "tiny", "x")
    found = {name: gates.through(stage, ours) for name, stage in stages.STAGES.items()}
    assert found == {"tokenizer": [], "actions": [], "keys": ["actions"], "decoder": ["tokenizer"],
                     "dynamics": ["dynamics"]}  # fmt: skip
    paper = loop.Run(None, "tiny", "x", "paper")
    assert gates.through(stages.PAPER_STAGES["dynamics"], paper) == ["actions", "dynamics"]


def test_ungated_goes_on(quick, tmp_path, monkeypatch):
    asked = measured(monkeypatch, 0.0, 0.0, 0.0)
    run.run("all", out=tmp_path / "out", steps=1, gated=False, **WHAT)
    learnt = {name for stage in stages.STAGES.values() for name in stage.learns}
    assert set(checkpoint.read(loop.world_file(tmp_path / "out")).stages) >= learnt
    assert not asked


def test_every_stop_value_has_its_row_in_the_report(tmp_path, monkeypatch):
    """A row that was renamed must not open a gate."""
    monkeypatch.setattr(gates, "QUICK", replace(gates.QUICK, clips=3, frames=8, starts=24))
    loop.train("tokenizer", "tiny", "platformer-calm", tmp_path / "w", steps=1)
    loop.train("actions", "tiny", "platformer-calm", tmp_path / "w", steps=1)
    for network in gates.PARTS:
        found = {finding.name: finding.least for finding in gates.measure(network, tmp_path / "w", STOPS)}
        assert found == {name: least for (part, name), least in STOPS.items() if part == network}
    assert {part for part, _ in STOPS} == set(gates.PARTS)
    with pytest.raises(ValueError, match="no row"):
        gates._matched("tokenizer", [], STOPS)


def test_stop_values_are_those_of_the_preset_and_of_video_that_can_be_measured(tmp_path, monkeypatch):
    spark, pocket = stops_of("spark"), stops_of("pocket")
    assert spark.keys() == pocket.keys()
    assert all(spark[name] <= pocket[name] for name in spark)
    # below what the shipped world of that size is held to, and above nothing
    for name in ("PSNR, unseen looks", "PSNR in the avatar's box, unseen looks"):
        assert 15 < spark["tokenizer", name] < gates_of("spark")["tokenizer", name] < pocket["tokenizer", name] + 0.1
    asked = measured(monkeypatch, 26.0, 19.0, 50.0)
    loop.train("tokenizer", "tiny", "platformer-calm", tmp_path / "out", steps=1)
    loop.train("decoder", "tiny", "platformer-calm", tmp_path / "out", steps=1)
    decoder = stages.STAGES["decoder"]
    gates.check(decoder, loop.Run(tmp_path / "out", "tiny", "a-folder"))
    assert not asked
    monkeypatch.setattr(gates, "through", lambda stage, run: ["tokenizer"])
    with pytest.raises(GenieError, match="stopped at a gate"):
        gates.check(decoder, loop.Run(tmp_path / "out", "pocket", "platformer-calm"))
    gates.check(decoder, loop.Run(tmp_path / "out", "spark", "platformer-calm"))


def test_minutes_become_steps_once(quick, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(loop.Trainer, "seconds_a_step", lambda self: 0.5)
    name = next(iter(stages.STAGES))
    minutes = 30 * 0.5 / 60 / plan.SPENT / plan.share(name)  # of thirty steps
    run.run(name, out=out, plan=minutes, minutes=1e-4, **WHAT)
    assert plan.read(out).steps[name] == pytest.approx(30, abs=1)
    of = checkpoint.read(loop.world_file(out)).stages[name]["of"]
    assert of == plan.read(out).steps[name]
    # a faster machine does not move the end of a stage that has begun
    monkeypatch.setattr(loop.Trainer, "seconds_a_step", lambda self: 0.01)
    run.run(name, out=out, plan=minutes, minutes=1e-4, **WHAT)
    now = checkpoint.read(loop.world_file(out)).stages[name]
    assert (now["steps"], now["of"]) == (2, of)
    (out / plan.FILE).write_text("[")
    with pytest.raises(GenieError, match="cannot be read"):
        plan.read(out)


def test_shares_are_of_stages_that_there_are():
    assert sum(map(plan.share, SHARES)) == pytest.approx(1)
    assert set(stages.STAGES) == set(SHARES)


def test_measuring_a_step_changes_nothing(tmp_path):
    made = []
    for measured in (False, True):
        (tmp_path / str(measured)).mkdir()
        trainer = loop.Trainer(
            stages.STAGES["tokenizer"], loop.Run(tmp_path / str(measured), "tiny", "platformer-calm")
        )
        if measured:
            assert trainer.seconds_a_step() > 0
        trainer.genie.train()
        made.append([float(trainer.take_step()["loss"]) for _ in range(3)])
    assert made[0] == made[1]


@pytest.mark.parametrize("planned", [True, False])
def test_what_cannot_be_compiled_runs_as_it_is(tmp_path, monkeypatch, caplog, planned):
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            raise RuntimeError("this index is not comparable\nand more")

    def compile_in_place(module, **_):
        module._compiled_call_impl = lambda *given: Fails.apply(module._call_impl(*given))

    monkeypatch.setattr(loop.shutil, "which", lambda name: name)
    monkeypatch.setattr(torch.nn.Module, "compile", compile_in_place)
    monkeypatch.setattr(loop, "COMPILE_MINUTES", 0.0)
    monkeypatch.setattr(loop, "COMPILE_FROM", 0)
    trainer = loop.Trainer(
        stages.STAGES["tokenizer"], loop.Run(tmp_path, "tiny", "platformer-calm", plan=0.1 if planned else None)
    )
    before = {name: value.clone() for name, value in trainer.genie.state_dict().items()}
    if planned:
        trainer.plan()
        assert plan.read(tmp_path).steps["tokenizer"] >= plan.FEWEST
    else:
        trainer._get_ready()
    assert "tokenizer runs uncompiled, which is slower: RuntimeError: this index is not comparable" in caplog.text
    assert all(torch.equal(value, before[name]) for name, value in trainer.genie.state_dict().items())
    trainer.genie.train()
    assert trainer.take_step()["loss"] > 0


@pytest.mark.slow
def test_rehearsal(tmp_path, capsys):
    """What is typed on a lent machine, twice, with everything real but the size."""
    words = ["train", "all", "--preset", "tiny", "--source", "platformer-calm", "--plan", "1.2", "--ungated", "--json"]
    assert cli.main([*words, "--out", str(tmp_path / "a"), "--minutes", "0.4", "--report", str(tmp_path / "ra")]) == 0
    capsys.readouterr()
    more = ["--out", str(tmp_path / "b"), "--from", str(tmp_path / "ra"), "--report", str(tmp_path / "rb")]
    assert cli.main([*words, *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(stage["steps"] == stage["of"] for stage in found["stages"].values())
    summary = json.loads((tmp_path / "rb" / run.SUMMARY).read_text())
    assert any(name.startswith("play: ") for name in summary["evaluation"]["rows"])
    with Image.open(tmp_path / "rb" / run.STRIPS) as strips:
        assert np.asarray(strips).std() > 5
    assert sum(file.stat().st_size > 16 << 20 for file in (tmp_path / "rb").iterdir()) == 0
