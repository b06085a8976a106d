"""A run in pieces: what is packed on one machine goes on, on another, at the same step and without a jump."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from genie_play import checkpoint, paths
from genie_play.config import preset, to_dict
from genie_play.data.clips import PlatformerSource
from genie_play.train import loop, pieces, stages
from genie_play.types import CheckpointError

SIZE, STEPS, CUT = (24, 32), 100, 30


class EightClips:
    """The same eight clips at every step."""

    fps, size = 10.0, SIZE

    def __init__(self) -> None:
        self.clips = PlatformerSource(SIZE, 3, calm=True, n_looks=8).batch(0, 8, 8)

    def batch(self, step: int, clips: int, frames: int) -> np.ndarray:
        return self.clips[np.arange(clips) % 8, :frames].copy()


def trainer(out: Path) -> loop.Trainer:
    out.mkdir(exist_ok=True)
    found = loop.Trainer(stages.STAGES["tokenizer"], loop.Run(out, "tiny", "x", steps=STEPS))
    found.genie.train()
    return found


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A run that was stopped at step CUT, the folder it was packed into, and the losses of a run that was not."""
    eight = EightClips()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "open_source", lambda name, size, seed: eight)
        out, packed = (tmp_path_factory.mktemp(name) for name in ("here", "packed"))
        whole = trainer(out)
        losses = []
        for _ in range(CUT + 12):
            if whole.step == CUT:
                whole.save()
                (out / "metrics.jsonl").write_text('{"stage": "tokenizer", "step": 30}\n')
                pieces.pack(out, packed, largest=100_000)
            losses.append(float(whole.take_step()["loss"]))
        yield out, packed, losses


@pytest.fixture
def on_eight(monkeypatch):
    eight = EightClips()
    monkeypatch.setattr(loop, "open_source", lambda name, size, seed: eight)


def test_pieces_are_small_and_hold_no_optimiser(cut):
    out, packed, _ = cut
    manifest = json.loads((packed / pieces.MANIFEST).read_text())
    assert len(manifest["pieces"]) > 3
    assert {file.name for file in packed.iterdir()} == {p["name"] for p in manifest["pieces"]} | {pieces.MANIFEST}
    assert all(file.stat().st_size <= 100_000 for file in packed.glob("piece-*"))
    assert [file["name"] for file in manifest["files"]] == ["world", "tokenizer.raw", "metrics.jsonl"]
    whole = loop.state_file(out, "tokenizer").stat().st_size
    assert manifest["files"][1]["bytes"] < whole / 5  # weights, averages and two optimisers in float32 stay behind


def test_another_machine_goes_on_at_the_same_step_without_a_jump(cut, on_eight, tmp_path):
    out, packed, losses = cut
    there = tmp_path / "there"
    there.mkdir()
    assert pieces.unpack(packed, there)
    other = trainer(there)
    assert (other.step, other.seam) == (CUT, CUT)
    rows = [json.loads(line) for line in (there / "metrics.jsonl").read_text().splitlines()]
    assert rows[0] == {"stage": "tokenizer", "step": 30}  # the curve so far came along
    assert rows[1]["seam"] is True
    assert (rows[1]["stage"], rows[1]["step"]) == ("tokenizer", CUT)
    raw = load_file(loop.raw_file(there, "tokenizer"))
    exact = load_file(loop.state_file(out, "tokenizer"))
    for name, value in raw.items():
        assert value.dtype != torch.float32 or "quantizer" in name
        torch.testing.assert_close(value.double(), exact[name].double(), rtol=2**-8, atol=1e-30)
    assert torch.equal(raw["weights.0.quantizer.codebook"], exact["weights.0.quantizer.codebook"])
    # the averages are those of the world, not the raw weights
    for name, value in other.average[0].named_parameters():
        torch.testing.assert_close(value, exact[f"average.0.{name}"], rtol=2**-8, atol=1e-30)
    watch = [other.take_step() for _ in range(12)]
    assert watch[0]["rate"] == pytest.approx(0.5)  # the first of two steps that warm up
    assert watch[1]["rate"] == 1.0
    # bfloat16 and fresh optimisers cost a little; a run that lost its weights would be at ten times the loss
    before = losses[CUT - 1]
    assert abs(float(watch[0]["loss"]) - losses[CUT]) < 0.05 * before
    assert np.mean([float(w["loss"]) for w in watch[6:]]) < 1.1 * np.mean(losses[CUT + 6 :])
    assert np.mean([float(w["loss"]) for w in watch[6:]]) < before


def test_after_the_seam_a_stop_is_exact_again(cut, on_eight, tmp_path):
    _, packed, _ = cut
    made = []
    for name, stops in (("whole", ()), ("parts", (1, 3))):
        out = tmp_path / name
        out.mkdir()
        pieces.unpack(packed, out)
        going = trainer(out)
        for step in range(5):
            if step in stops:
                going.save()
                going = trainer(out)
                assert going.seam == CUT  # within the warm-up too
            going.take_step()
        going.save()
        made.append(load_file(loop.state_file(out, "tokenizer")))
    assert made[0].keys() == made[1].keys()
    for name in made[0]:
        assert torch.equal(made[0][name], made[1][name]), name


def test_a_stage_that_is_through_is_not_trained_again_elsewhere(on_eight, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    loop.train("tokenizer", "tiny", "x", here, steps=3)
    pieces.pack(here, tmp_path / "packed")
    with safe_open(loop.state_file(here, "tokenizer"), framework="pt") as file:
        assert int(file.get_tensor("step")) == 3
    pieces.unpack(tmp_path / "packed", there)
    assert not loop.raw_file(there, "tokenizer").exists()
    before = load_file(loop.world_file(there))
    loop.train("tokenizer", "tiny", "x", there, steps=3)
    after = load_file(loop.world_file(there))
    assert all(torch.equal(before[name], after[name]) for name in before)
    loop.train("decoder", "tiny", "x", there, steps=2)
    assert set(checkpoint.read(loop.world_file(there)).stages) == {"tokenizer", "tokenizer.decoder"}


def test_what_nobody_has_trained_stays_behind_and_is_made_anew(on_eight, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    loop.train("actions", "tiny", "x", here, steps=3, seed=5)
    pieces.pack(here, tmp_path / "packed")
    sizes = {p["name"]: p["bytes"] for p in json.loads((tmp_path / "packed" / pieces.MANIFEST).read_text())["files"]}
    assert sizes["world"] < loop.world_file(here).stat().st_size / 5
    pieces.unpack(tmp_path / "packed", there)
    a, b = (load_file(loop.world_file(out)) for out in (here, there))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)  # by the seed of the run
    assert not (there / "training" / "world.part").exists()
    loop.train("tokenizer", "tiny", "x", there, steps=2)
    assert set(checkpoint.read(loop.world_file(there)).stages) == {"actions", "tokenizer"}


def test_what_is_here_goes_before_what_is_packed(cut, on_eight):
    out, packed, _ = cut
    before = loop.world_file(out).read_bytes()
    assert not pieces.unpack(packed, out)
    assert loop.world_file(out).read_bytes() == before


def test_packing_again_leaves_no_old_pieces(cut, tmp_path):
    out, _, _ = cut
    (tmp_path / "piece-009-0badf00d.bin").write_bytes(b"of an earlier run")
    written = pieces.pack(out, tmp_path)
    assert sorted(written) == sorted(tmp_path.iterdir())
    assert pieces.pack(out, tmp_path) == written


def test_damage_has_its_message_and_writes_nothing(cut, tmp_path):
    out, _, _ = cut
    bad, into = tmp_path / "bad", tmp_path / "into"
    first, *_ = pieces.pack(out, bad, largest=100_000)
    whole = first.read_bytes()
    first.write_bytes(whole[:-1] + b"?")
    with pytest.raises(CheckpointError, match=f"{first.name} is damaged"):
        pieces.unpack(bad, into)
    first.unlink()
    with pytest.raises(CheckpointError, match=f"{first.name} is missing"):
        pieces.unpack(bad, into)
    first.write_bytes(whole)
    (bad / pieces.MANIFEST).write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        pieces.unpack(bad, into)
    with pytest.raises(CheckpointError, match=r"there is no pieces\.json"):
        pieces.unpack(tmp_path, into)
    with pytest.raises(CheckpointError, match="no world in"):
        pieces.pack(tmp_path, bad)
    assert not into.exists()


@pytest.mark.parametrize("size", [0, 1, 2, 1001])
def test_bytes_come_back_as_they_were(size):
    data = torch.randn(size).bfloat16().view(torch.uint8).numpy().tobytes()[:size]
    assert pieces._spread(pieces._squeeze(data), size) == data


def test_weights_in_bfloat16_take_less_room():
    data = (torch.randn(100_000) * 0.02).bfloat16().view(torch.uint8).numpy().tobytes()
    assert len(pieces._squeeze(data)) < 0.72 * len(data)


def test_the_run_that_is_kept_can_be_gone_on_with(tmp_path):
    assert pieces.unpack(paths.models() / "pocket", tmp_path / "pocket")
    header = checkpoint.read(loop.world_file(tmp_path / "pocket"))
    assert to_dict(header.world) == to_dict(preset("pocket"))
    assert {"actions", "actions.keys"} <= set(header.stages)
    # those are through: their steps are those of the plan beside the world
    for stage, through in (("actions", True), ("keys", True), ("tokenizer", False)):
        run = loop.Run(tmp_path / "pocket", "pocket", "platformer", device="cpu")
        trainer = loop.Trainer(stages.STAGES[stage], run)
        assert (trainer.step == trainer.config.steps) is through


def test_dynamics_of_finer_tokens_can_be_gone_on_with(tmp_path):
    name = "doodle-fine"
    assert pieces.unpack(paths.models() / name, tmp_path / name)
    header = checkpoint.read(loop.world_file(tmp_path / name))
    assert to_dict(header.world) == to_dict(preset(name))
    assert "tokenizer.decoder" in header.stages
    trainer = loop.Trainer(
        stages.STAGES["dynamics"], loop.Run(tmp_path / name, name, "platformer-sketch", device="cpu")
    )
    assert trainer.step == trainer.seam == header.stages["dynamics"]["steps"]
    assert trainer.step < trainer.config.steps
