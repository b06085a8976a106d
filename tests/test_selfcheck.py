"""`doctor --deep`: each check finds the fault that it is there for, and what fails is not used."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from genie_play import checkpoint, cli, ops, paths
from genie_play.checkpoint import Header
from genie_play.config import preset
from genie_play.engine import verdicts
from genie_play.engine.engine import GenieEngine, shipped_path
from genie_play.engine.state import Ring
from genie_play.eval import selfcheck, targets
from genie_play.nn.genie import save_genie


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A tiny world of random weights, shipped alone."""
    (tmp_path / "models" / "small").mkdir(parents=True)
    monkeypatch.setattr(paths, "models", lambda: tmp_path / "models")
    return saved(tmp_path / "models" / "small" / "small.safetensors")


def saved(file, **path):
    config = dataclasses.replace(preset("tiny"), name="small")
    header = Header(config, dataclasses.replace(shipped_path(config.sample), **path))
    save_genie(targets.random_genie(config), header, file, torch.float32)
    return file


def found(world):
    return {(check.name, check.path): check for check in selfcheck.check_world(world)}


def test_a_sound_machine_passes(world):
    said = []
    checks = list(selfcheck.check_world(world, said.append))
    states = {(check.name, check.path): check.state for check in checks}
    for name in ("cache against recompute", "tokenizer against recompute", "same twice", "replay verifies"):
        assert states[name, "cpu/fp32"] == "ok", checks
    assert states["bf16 against fp32", "cpu/bf16"] == "ok", checks
    assert len(said) == len(checks)
    if not torch.cuda.is_available():
        assert states["graph against eager", "cpu/graph"] == "skipped"
        assert not any(check.path.startswith("cuda") for check in checks)


@pytest.mark.parametrize("recipe", ["teacher", "paper"])
def test_following_a_clip_sees_the_ring_wrap(recipe):
    config = preset("tiny")
    config = dataclasses.replace(config, dynamics=dataclasses.replace(config.dynamics, recipe=recipe))
    genie = targets.random_genie(config)
    expected = selfcheck.whole_clip(genie)
    assert len(expected.moves) > 2 * (config.dynamics.window - 1)
    engine = GenieEngine(genie, **selfcheck.PROBE)
    sound = selfcheck.follow(engine, expected)
    assert sound.within("fp32")
    assert sound.error is not None
    assert sound.error < 1e-5
    engine.close()


def test_a_ring_that_forgets_is_found(world, monkeypatch):
    """The oldest slot is not seen: nothing differs before the ring is full."""
    before = Ring.past

    def forgetful(self):
        seen = before(self)
        return [past._replace(ages=torch.where(past.ages == self.slots, self.window, past.ages)) for past in seen]

    monkeypatch.setattr(Ring, "past", forgetful)
    checks = found(world)
    assert checks["cache against recompute", "cpu/fp32"].state == "failed"
    # it forgets alike each time
    assert checks["same twice", "cpu/fp32"].state == "ok"


def test_a_decoder_that_loses_a_frame_is_found(world, monkeypatch):
    before = Ring.commit

    def lazy(self, kept, row=None):
        before(self, kept, row)
        if self.window == 3 and self.position % 4 == 0:
            self._temporal.mul_(0.5)

    monkeypatch.setattr(Ring, "commit", lazy)
    assert found(world)["tokenizer against recompute", "cpu/fp32"].state == "failed"


def test_a_machine_that_rolls_dice_is_found(world, monkeypatch):
    """Once in a while a kernel computes something else."""
    before, calls = ops.get("reference").embed, []

    def unsteady(*args):
        calls.append(1)
        x = before(*args)
        return x + 9 * torch.randn(x.shape) if len(calls) % 7 == 0 else x

    monkeypatch.setattr(ops.get("reference"), "embed", unsteady)
    checks = found(world)
    assert checks["same twice", "cpu/fp32"].state == "failed"
    assert checks["replay verifies", "cpu/fp32"].state == "failed"
    assert "differs" in checks["replay verifies", "cpu/fp32"].detail


def test_a_wrong_arithmetic_is_found_and_an_impossible_one_too(world, monkeypatch):
    before = GenieEngine._placed

    def wrong(self, genie):
        if self.path.arithmetic == "bf16":
            genie.dynamics.blocks[1].ffn_out.weight *= 1.5
        return before(self, genie)

    monkeypatch.setattr(GenieEngine, "_placed", wrong)
    check = found(world)["bf16 against fp32", "cpu/bf16"]
    assert check.state == "failed"
    assert "logits" in check.detail

    def broken(self, genie):
        if self.path.arithmetic == "bf16":
            raise RuntimeError("illegal instruction")
        return before(self, genie)

    monkeypatch.setattr(GenieEngine, "_placed", broken)
    check = found(world)["bf16 against fp32", "cpu/bf16"]
    assert (check.state, check.detail) == ("failed", "RuntimeError: illegal instruction")


def test_kernels_are_compared_where_they_run(monkeypatch):
    monkeypatch.setattr(ops, "_missing", lambda name: "")
    monkeypatch.setattr(ops, "_unfit", lambda name, device: "")
    results = [("reveal", True, "equals its twin"), ("temporal", False, "off by 1")]
    monkeypatch.setattr(ops, "self_check", lambda name, device: results, raising=False)
    (check,) = selfcheck._kernels("triton", "cpu")
    assert (check.state, check.path, check.detail) == ("failed", "cpu/triton", "temporal: off by 1")
    results.pop()
    (check,) = selfcheck._kernels("triton", "cpu")
    assert (check.state, check.detail) == ("ok", "1 comparisons equal")
    monkeypatch.delattr(ops, "self_check")
    monkeypatch.setattr(ops, "_failure", lambda name, device: "it draws other tokens")
    assert next(selfcheck._kernels("triton", "cpu")).detail == "it draws other tokens"


# verdicts


def test_a_verdict_is_of_one_machine_and_one_checkpoint(world, monkeypatch):
    sha256 = checkpoint.fingerprint(world)
    assert verdicts.barred(world) == {}
    verdicts.record("small", sha256, ["cpu/fp32"], {"cpu/bf16": "off"})
    assert verdicts.barred(world) == {"cpu/bf16": "off"}
    assert verdicts.barred("", "0" * 64) == {}
    monkeypatch.setattr(verdicts, "machine", lambda: ("another processor",))
    assert verdicts.barred(world) == {}
    monkeypatch.undo()
    verdicts.record("small", sha256, ["cpu/fp32", "cpu/bf16"], {})
    assert verdicts.barred("", sha256) == {}


def test_damaged_and_many_verdicts(world, monkeypatch, caplog):
    paths.writable(verdicts.file().parent)
    for text in ("{", "[1]", json.dumps({verdicts._key("a"): {"failed": 3}}), json.dumps({verdicts._key("a"): 1})):
        verdicts.file().write_text(text)
        assert verdicts.barred("", "a") == {}
    monkeypatch.setattr(verdicts, "KEPT", 3)
    for n in range(5):
        verdicts.record("w", str(n), [], {"cuda/fp32": "off"})
    assert len(json.loads(verdicts.file().read_text())) == 3
    assert verdicts.barred("", "4")
    assert not verdicts.barred("", "1")


def test_what_failed_is_not_chosen_and_what_is_asked_for_is_taken(world, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sha256 = checkpoint.fingerprint(world)

    def steered(failed, device="auto", **path):
        verdicts.record("small", sha256, [], dict.fromkeys(failed, "off"))
        return verdicts.steer(world, device, path)

    assert steered([]) == ("auto", {})
    assert steered(["cuda/fp32"]) == ("cpu", {})
    assert steered(["cuda/fp32"], "cuda:1") == ("cuda:1", {})
    assert steered(["cuda/triton"]) == ("cuda", {"ops": "reference"})
    assert steered(["cuda/triton"], ops="triton") == ("cuda", {"ops": "triton"})
    assert steered(["cuda/triton"], "cpu", steps=2) == ("cpu", {"steps": 2})
    assert steered(["cpu/bf16"], "cpu") == ("cpu", {})  # it ships in fp32
    assert verdicts.steer(object(), "auto", {}) == ("auto", {})
    monkeypatch.setenv(ops.VARIABLE, "triton")
    assert steered(["cuda/triton"]) == ("cuda", {})


def test_a_captured_frame_that_failed_gives_way_where_there_are_such(world, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Path:
        frame: str = "eager"

    verdicts.record("small", checkpoint.fingerprint(world), [], {"cuda/graph": "off"})
    monkeypatch.setattr(verdicts, "PathConfig", Path)
    assert verdicts.steer(world, "cuda", {}) == ("cuda", {"frame": "static"})
    assert verdicts.steer(world, "cuda", {"frame": "graph"}) == ("cuda", {"frame": "graph"})


def test_a_shipped_arithmetic_that_failed_is_not_used(tmp_path):
    file = saved(tmp_path / "half.safetensors", arithmetic="bf16")

    def arithmetic(**path):
        engine = GenieEngine(file, **path)
        engine.close()
        return engine.path.arithmetic

    assert arithmetic() == "bf16"
    verdicts.record("half", checkpoint.fingerprint(file), ["cpu/fp32"], {"cpu/bf16": "off"})
    assert arithmetic() == "fp32"
    assert arithmetic(arithmetic="bf16") == "bf16"  # asked for by name


# the command


def test_doctor_names_what_failed_and_it_is_not_used_from_then_on(world, monkeypatch, capsys):
    before = GenieEngine._placed

    def wrong(self, genie):
        if self.path.arithmetic == "bf16":
            genie.dynamics.blocks[0].ffn_out.weight *= -1
        return before(self, genie)

    monkeypatch.setattr(GenieEngine, "_placed", wrong)
    code = cli.main(["doctor", "--deep", "--json"])
    out = capsys.readouterr()
    findings = {finding["name"]: finding for finding in json.loads(out.out)["findings"]}
    assert code == 3
    assert "genie-play: small: bf16 against fp32 on cpu/bf16" in out.err
    bad = findings["bf16 against fp32: small"]
    assert (bad["state"], bad["path"]) == ("failed", "cpu/bf16")
    assert "fp32 is used instead" in bad["fix"]
    paths_of = findings["paths of small"]["detail"]
    assert paths_of.startswith("may be used: cpu/fp32")
    assert "; not used here: cpu/bf16 (" in paths_of
    assert list(verdicts.barred(world)) == ["cpu/bf16"]

    # mended, and looked at again
    monkeypatch.setattr(GenieEngine, "_placed", before)
    assert cli.main(["doctor", "--deep"]) in (0, 2)
    assert "may be used: cpu/fp32, cpu/bf16" in capsys.readouterr().out
    assert verdicts.barred(world) == {}


def test_a_processor_that_computes_wrongly_is_a_problem(world, monkeypatch, capsys):
    monkeypatch.setattr(selfcheck, "_equal", lambda a, b: False)
    code = cli.main(["doctor", "--deep"])
    out = capsys.readouterr().out
    assert code == 3
    assert "not ready" in out
    assert "replays made here may not verify" in out
