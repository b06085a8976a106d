"""The training loop: every stage learns, stopping and resuming is as if nobody had stopped, bad runs say so."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genie_play import checkpoint, config
from genie_play.config import preset
from genie_play.data.clips import PlatformerSource
from genie_play.data.platformer import with_truth
from genie_play.nn.genie import Genie, load_genie
from genie_play.nn.keys import Keys
from genie_play.nn.quantize import Quantizer
from genie_play.paths import ROOT
from genie_play.train import loop, stages
from genie_play.types import GenieError

SIZE = (24, 32)


class EightClips:
    """The same eight clips at every step."""

    fps, size = 10.0, SIZE

    def __init__(self) -> None:
        self.clips = PlatformerSource(SIZE, 3, calm=True, n_looks=8).batch(0, 8, 8)

    def batch(self, step: int, clips: int, frames: int) -> np.ndarray:
        return self.clips[np.arange(clips) % 8, :frames].copy()


@pytest.fixture(scope="module")
def eight() -> EightClips:
    return EightClips()


@pytest.fixture
def on_eight(eight, monkeypatch):
    monkeypatch.setattr(loop, "open_source", lambda name, size, seed: eight)
    return eight


def metrics(out: Path, stage: str) -> list[dict]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["stage"] == stage]


def test_the_edges_of_a_patch_are_counted_wherever_they_lie():
    frames = torch.zeros(1, 2, 16, 24, 3)
    frames[0, 0, 0:8, 10] = 1  # a stroke, one pixel wide, in the second patch of the first row
    frames[0, 1, 0:8, 12] = 1
    energy = stages.edge_energy(frames)
    assert energy.shape == (2, 2, 3)
    stroke = 2 * 8 / 64 + 1 / 64  # left and right of it, and at its foot, of 64 places
    assert energy[0, 0].tolist() == [0, pytest.approx(stroke), 0]
    assert torch.equal(energy[0], energy[1])
    assert energy[:, 1].sum() == 0
    blurred = frames.clone()
    blurred[0, 0, 0:8, 9:12] = 1 / 3
    assert stages.edge_energy(blurred)[0, 0, 1] < stroke / 2


def test_what_moves_on_its_own_is_found_wherever_the_picture_goes():
    generator = np.random.default_rng(1)
    land, thing = generator.random((60, 80, 3), np.float32), np.float32([1, 0, 0.5])
    places = [(20, 20), (20, 20), (23, 18), (20, 21), (20, 21), (20, 22)]  # of the camera; the last a step of one pixel
    clip = np.stack([land[y : y + 24, x : x + 32] for y, x in places])
    frames = torch.from_numpy(np.stack((clip, clip)))
    frames[1, :, 10:14, 12:16] = torch.from_numpy(thing)
    own = stages.on_its_own(frames)[..., 0]
    assert own.shape == (2, 6, 24, 32)
    assert own[0].sum() == 0  # all of it moved as one, or stayed
    assert own[1, [0, 1, 4]].sum() == 0  # the first two are never looked at; nothing moved in the fifth
    for frame in own[1, [2, 3]]:
        assert frame[10:14, 12:16].all()
        rest = frame.clone()
        rest[4:20, 6:22] = 0  # where it is, where it would have gone, and what lies beside
        assert rest.sum() == 0
    assert stages.on_its_own(frames[:, :2]).sum() == 0


@pytest.mark.parametrize("calm", [True, False])
def test_the_avatar_moves_on_its_own(calm):
    truth = with_truth(PlatformerSource((64, 64), 5, calm=calm, n_looks=32), 0, 48, 5)
    own = stages.on_its_own(torch.from_numpy(truth.frames).float() / 255)[:, 2:, ..., 0]
    avatar, went = torch.from_numpy(truth.mask)[:, 2:], torch.from_numpy((truth.dx != 0) | (truth.dy != 0))[:, 1:]
    covered = (own * avatar).sum((2, 3)) / avatar.sum((2, 3))
    assert covered[went].mean() > 0.95
    assert own.mean() < 0.1  # the avatar alone is 0.02, with a margin 0.04


def test_every_stage_overfits_eight_clips_and_the_world_loads(on_eight, tmp_path):
    out = tmp_path / "small"
    loop.train("tokenizer", "tiny", "x", out, steps=110)
    rows = metrics(out, "tokenizer")
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 3
    assert rows[-1]["used"] > 0.3
    before = load_file(loop.world_file(out))
    loop.train("decoder", "tiny", "x", out, steps=25)
    after = load_file(loop.world_file(out))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("tokenizer.decoder.") for name in moved)  # tokens stay what they were
    assert metrics(out, "decoder")[-1]["psnr"] > rows[-1]["psnr"] - 0.3
    loop.train("actions", "tiny", "x", out, steps=120)
    rows = metrics(out, "actions")
    assert rows[-1]["psnr"] > rows[-1]["copy"] + 1
    assert rows[-1]["used"] >= 3 / 12
    loop.train("keys", "tiny", "x", out, steps=60)
    rows = metrics(out, "keys")
    assert rows[-1]["unexplained"] < 0.8 * rows[0]["unexplained"]
    assert rows[-1]["say"] > 0.3
    loop.train("dynamics", "tiny", "x", out, steps=90)
    rows = metrics(out, "dynamics")
    assert rows[-1]["ce"] < 0.6 * rows[0]["ce"]

    genie, header = load_genie(loop.world_file(out))
    assert set(header.stages) == {"tokenizer", "tokenizer.decoder", "actions", "actions.keys", "dynamics"}
    assert header.stages["tokenizer"]["frames_seen"] == 110 * 8 * 4
    frames = torch.from_numpy(on_eight.clips).float() / 255
    tokens, actions = stages.read_clip(genie, frames, stages.Step(0, 1, torch.Generator().manual_seed(0)))
    assert actions[:, 1:].unique().numel() > 1
    with torch.inference_mode():  # the true codes say more than another clip's
        hidden = torch.full_like(tokens, genie.dynamics.mask_id)
        gaps = []
        for told in (actions, actions.roll(1, 0)):
            logits = genie.dynamics.logits(genie.dynamics(hidden, told, tokens))[:, 1:]
            gaps.append(torch.nn.functional.cross_entropy(logits.flatten(0, 2), tokens[:, 1:].flatten()))
    assert gaps[1] > 1.1 * gaps[0]  # eight clips are soon known by heart, and little is left to tell


def test_own_frames_are_a_run_of_context_in_half_the_clips(monkeypatch):
    genie = Genie(preset("tiny"))
    dynamics, seen = genie.dynamics, []
    forward = type(dynamics).forward

    def watched(self, tokens, actions, clean=None, levels=0):
        seen.append(clean)
        return forward(self, tokens, actions, clean, levels)

    monkeypatch.setattr(type(dynamics), "forward", watched)
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, dynamics.codes, (40, 10, dynamics.n_tokens), generator=generator)
    context = torch.randint(0, dynamics.codes, clean.shape, generator=generator)
    levels = torch.zeros(clean.shape[:2], dtype=torch.int64)
    runs, memory = [], {}
    for index in (0, 1):
        seen.clear()
        memory.clear()
        step = stages.Step(index, 2, generator, memory)
        same, told, kept = stages.take_up(clean, levels, step)
        assert torch.equal(same, clean)  # nothing was kept before
        made = stages.with_own_frames(genie, clean, context, told, levels, kept, step)
        assert torch.equal(made[20:], context[20:])
        own = (made[:20] != context[:20]).any(-1)
        assert not own[:, 0].any()  # the prompt is given
        assert ((own[:, 1:] != own[:, :-1]).sum(1) <= 2).all()  # one run
        runs += own.sum(1).tolist()
        # two passes see the real past; in every other step two more see what was drawn from it
        assert len(seen) == 2 * (1 + index)
        assert torch.equal(seen[0], context[:20])
        if index:
            again = (seen[2] != context[:20]).any(-1)
            assert torch.equal(again, own)
    assert min(runs) == 1
    assert max(runs) > 6


def test_clips_with_own_frames_are_taken_up_again_and_their_frames_age(monkeypatch):
    genie = Genie(preset("tiny"))
    monkeypatch.setattr(stages, "OWN_KEPT", 1)  # each step takes up what the step before put aside
    generator = torch.Generator().manual_seed(0)
    memory: dict[str, torch.Tensor] = {}
    codes, levels = genie.dynamics.codes, torch.zeros(6, 5, dtype=torch.int64)
    first, actions, own = None, torch.zeros_like(levels), None
    seen, forward = [], type(genie.dynamics).forward

    def watched(self, tokens, actions, clean, levels):
        seen.append(clean)
        return forward(self, tokens, actions, clean, levels)

    monkeypatch.setattr(type(genie.dynamics), "forward", watched)
    for use in range(2 * stages.OWN_USES):
        clean = torch.randint(0, codes, (6, 5, genie.dynamics.n_tokens), generator=generator)
        step = stages.Step(2 * use, 20, generator, memory)
        taken, told, kept = stages.take_up(clean, actions + use, step)
        assert torch.equal(taken[3:], clean[3:])
        assert (told[3:] == use).all()
        assert kept.fresh.all() == kept.fresh.any() == (use % stages.OWN_USES == 0)
        back = kept.where.argsort()
        if use % stages.OWN_USES == 0:
            first, run, sharp = taken[:3][back], kept.run[back], kept.sharp[back]
            assert torch.equal(taken, clean)
        else:
            # the same clip, its own codes, the same run of own frames, drawn from those of the time before
            assert torch.equal(taken[:3][back], first)
            assert (told[:3] == use - use % stages.OWN_USES).all()
            assert torch.equal(kept.run[back], run)
            assert torch.equal(kept.sharp[back], sharp)
            assert torch.equal(kept.own[back], own)
        seen.clear()
        context = stages.with_own_frames(genie, taken, taken, told, levels, kept, step)
        expected = taken[:3] if use % stages.OWN_USES == 0 else torch.where(kept.run, kept.own, taken[:3])
        assert torch.equal(seen[0], expected)
        own = context[:3][back]
        assert torch.equal(own[~run[..., 0]], first[~run[..., 0]])


def test_sharp_own_frames_are_what_is_likeliest_after_the_first_pass():
    genie = Genie(preset("tiny"))
    clean = torch.randint(0, genie.dynamics.codes, (2, 6, genie.dynamics.n_tokens))
    levels = torch.zeros(2, 6, dtype=torch.int64)
    made = {}
    for sharp in (True, False):
        kept = stages.Kept(
            torch.tensor([0]),
            torch.tensor([True]),
            torch.tensor([sharp]),
            torch.ones(1, 6, 1, dtype=torch.bool),
            clean[:1],
        )
        drawn = []
        for seed in (1, 2):
            step = stages.Step(0, 2, torch.Generator().manual_seed(0), {"own": clean[:1].clone()})
            plain = step.rand

            def rand(*shape, device="cpu", seed=seed, plain=plain, calls=[0]):  # noqa: B006
                """The last noise of a sample differs by seed, all else is the same."""
                calls[0] += 1
                torch.manual_seed(seed)
                return torch.rand(*shape) if calls[0] % 3 == 0 else plain(*shape)

            step.rand = rand
            drawn.append(stages.with_own_frames(genie, clean, clean, levels, levels, kept, step)[:1])
        made[sharp] = bool((drawn[0] == drawn[1]).all())
    assert made == {True: True, False: False}


def test_all_masked_tokens_count_alike_and_others_not():
    genie = Genie(preset("tiny"))
    dynamics, generator = genie.dynamics, torch.Generator().manual_seed(0)
    clean = torch.randint(0, dynamics.codes, (2, 5, dynamics.n_tokens), generator=generator)
    clean[:, 2] = clean[:, 1]  # still, while the other frames change
    mask = torch.rand(clean.shape, generator=generator) < 0.5
    hidden = torch.randn(*clean.shape, dynamics.head.in_features, generator=generator)
    loss, watch = stages.masked_cross_entropy(genie, hidden, clean, mask)
    expected = torch.nn.functional.cross_entropy(dynamics.logits(hidden)[mask], clean[mask])
    assert torch.allclose(loss, expected, atol=1e-5)
    assert torch.equal(watch["ce"], loss.detach())


def test_the_paper_recipe_trains_actions_beside_dynamics(on_eight, tmp_path):
    out = tmp_path / "paper"
    loop.train("tokenizer", "tiny", "x", out, steps=20, recipe="paper")
    before = load_file(loop.world_file(out))
    loop.train("dynamics", "tiny", "x", out, steps=20, recipe="paper")
    after = load_file(loop.world_file(out))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert {"actions", "dynamics"} <= moved
    assert "tokenizer" not in moved
    assert checkpoint.read(loop.world_file(out)).world.dynamics.recipe == "paper"


@pytest.mark.parametrize("stage", ["tokenizer", "actions", "dynamics"])
def test_stop_and_resume_equals_no_stop(on_eight, tmp_path, stage, monkeypatch):
    monkeypatch.setattr(stages, "OWN_KEPT", 1)  # what dynamics kept before the stop is taken up right after it
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for out in (whole, parts):
        for before in ("tokenizer", "actions", "keys") if stage == "dynamics" else ():
            loop.train(before, "tiny", "x", out, steps=1)
    loop.train(stage, "tiny", "x", whole, steps=12)
    run = loop.Run(parts, "tiny", "x", steps=12)
    parts.mkdir(exist_ok=True)
    first = loop.Trainer(stages.STAGES[stage], run)
    first.genie.train()
    for _ in range(7):
        first.take_step()
    first.save()
    loop.train(stage, "tiny", "x", parts, steps=12)
    a, b = load_file(loop.world_file(whole)), load_file(loop.world_file(parts))
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_stages_that_need_nothing_of_each_other_share_a_folder(on_eight, tmp_path):
    together = tmp_path / "together"
    together.mkdir()
    runs = [loop.Trainer(stages.STAGES[s], loop.Run(together, "tiny", "x", steps=6)) for s in ("actions", "tokenizer")]
    for trainer in runs:
        trainer.genie.train()
    for _ in range(6):
        for trainer in runs:
            trainer.take_step()
            trainer.save()
    both = load_file(loop.world_file(together))
    for stage in ("tokenizer", "actions"):
        loop.train(stage, "tiny", "x", tmp_path / stage, steps=6)
        alone = load_file(loop.world_file(tmp_path / stage))
        for name in (name for name in alone if name.startswith(stage)):
            assert torch.equal(alone[name], both[name]), name
    assert set(checkpoint.read(loop.world_file(together)).stages) == {"tokenizer", "actions"}


def test_minutes_end_a_run_cleanly(on_eight, tmp_path):
    loop.train("all", "tiny", "x", tmp_path / "w", steps=400, minutes=1e-4)
    header = checkpoint.read(loop.world_file(tmp_path / "w"))
    assert 0 < header.stages["tokenizer"]["steps"] < 400
    assert "dynamics" not in header.stages


def test_bad_runs_say_so(on_eight, tmp_path, monkeypatch):
    with pytest.raises(GenieError, match="train tokenizer into"):
        loop.train("dynamics", "tiny", "x", tmp_path / "a", steps=2)
    with pytest.raises(GenieError, match="no stage is called"):
        loop.train("colours", "tiny", "x", tmp_path / "a")
    with pytest.raises(GenieError, match="no preset is called"):
        loop.train("tokenizer", "enormous", "x", tmp_path / "a")
    loop.train("tokenizer", "tiny", "x", tmp_path / "a", steps=3)
    with pytest.raises(GenieError, match="other settings"):
        loop.train("tokenizer", "tiny", "x", tmp_path / "a", steps=4)
    with pytest.raises(GenieError, match="another configuration"):
        loop.train("tokenizer", "spark", "x", tmp_path / "a", steps=4)

    tiny = config.PRESETS["tiny"]
    colder = replace(tiny, sample=replace(tiny.sample, temperature=0.3))
    monkeypatch.setitem(config.PRESETS, "tiny", colder)
    loop.train("tokenizer", "tiny", "x", tmp_path / "a", steps=3)  # how a world is sampled is nothing to a run

    poison = stages.Stage("tokenizer", ("tokenizer",), _not_a_number)
    monkeypatch.setitem(stages.STAGES, "tokenizer", poison)
    monkeypatch.setattr(loop, "STAGES", stages.STAGES)
    with pytest.raises(GenieError, match="at step 0 is not a number"):
        loop.train("tokenizer", "tiny", "x", tmp_path / "b", steps=4)


def _not_a_number(genie, frames, step):
    outcome = stages.tokenizer_loss(genie, frames, step)
    outcome.loss = outcome.loss * float("nan")
    return outcome


def test_masks_and_corruption():
    step = stages.Step(0, 10, torch.Generator().manual_seed(1))
    mask = stages.draw_mask((40, 20, 30), step)
    hidden = mask.all(-1).float().mean()
    assert 0.25 < hidden < 0.45
    clean = torch.randint(0, 16, (200, 6, 30), generator=step.generator)
    near = torch.stack([(torch.arange(1, 5) + code) % 16 for code in range(16)])
    noisy, levels = stages.corrupt(clean, near, 5, step)
    changed = (noisy != clean).float().mean((1, 2))
    assert (changed[levels[:, 0] == 0] == 0).all()
    assert changed[levels[:, 0] == 4].mean() > changed[levels[:, 0] == 1].mean()
    assert 0.35 < (levels[:, 0] == 0).float().mean() < 0.65
    assert changed.max() <= 0.35


def test_context_that_turns_to_other_colours_begins_as_it_is_and_turns_little_by_little(eight, monkeypatch):
    genie = Genie(preset("tiny"))
    frames = torch.from_numpy(eight.batch(0, 8, 8)).float() / 255
    clean = genie.tokenizer.encode(frames)
    monkeypatch.setattr(genie.tokenizer, "encode", lambda clips: torch.full(clips.shape[:2] + clean.shape[2:], -1))
    few, runs = round(stages.TURNED * 8), []
    for index in range(12):
        step = stages.Step(index, 12, torch.Generator().manual_seed(index))
        shown = stages.with_other_colours(genie, frames, clean, step)
        assert torch.equal(shown[:-few], clean[:-few])
        turned = (shown == -1)[-few:].all(-1)
        assert torch.equal(shown[-few:][~turned], clean[-few:][~turned])
        assert not turned[:, 0].any()  # the picture that was given is what it was
        assert ((turned[:, 1:] != turned[:, :-1]).sum(1) <= 2).all()  # one run
        runs += turned.sum(1).tolist()
    assert max(runs) > 4
    step = stages.Step(0, 1, torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, 8)[:, None, None, None].expand(8, 8, 1, 1, 1)
    other = stages.recolour(frames, ramp, step)
    assert torch.equal(other[:, 0], frames[:, 0])
    assert other.min() >= 0
    assert other.max() <= 1
    off = (other - frames).abs().mean((2, 3, 4))
    assert (off[:, 7] > 0.03).all()
    assert (off[:, 7] > off[:, 1]).all()
    # what was of one colour is of one colour still
    assert (other[:, 7, 0, 0] == other[:, 7, 0, 1]).all(-1)[(frames[:, 7, 0, 0] == frames[:, 7, 0, 1]).all(-1)].all()


@pytest.mark.parametrize("look", [False, True])
def test_a_decoder_that_keeps_to_the_look_needs_no_other_colours(look, monkeypatch):
    asked = []

    def watched(genie, frames, clean, step):
        asked.append(len(clean))
        return clean

    monkeypatch.setattr(stages, "with_other_colours", watched)
    world = preset("tiny")
    genie = Genie(replace(world, tokenizer=replace(world.tokenizer, look=look)))
    stages.dynamics_loss(genie, torch.rand(2, 4, 24, 32, 3), stages.Step(0, 2, torch.Generator().manual_seed(0)))
    assert asked == ([] if look else [2])


@pytest.mark.parametrize("clips", [1, 4])
def test_a_clip_that_was_taken_up_has_no_frames_of_the_clip_it_came_for(clips, monkeypatch):
    genie, seen = Genie(preset("tiny")), []
    monkeypatch.setattr(stages, "with_other_colours", lambda genie, frames, clean, step: torch.full_like(clean, 7))
    monkeypatch.setattr(
        stages,
        "corrupt",
        lambda shown, near, levels, step: (seen.append(shown), (shown, torch.zeros_like(shown[..., 0])))[1],
    )
    monkeypatch.setattr(stages, "with_own_frames", lambda genie, clean, context, *rest: context)
    stages.dynamics_loss(genie, torch.rand(clips, 4, 24, 32, 3), stages.Step(1, 2, torch.Generator().manual_seed(0)))
    half = max(clips // 2, 1)
    assert (seen[0][:half] != 7).any()
    assert (seen[0][half:] == 7).all()


class Elsewhere(stages.Step):
    """A step whose random numbers are on a device that cannot be asked for them."""

    def rand(self, *shape, device="cpu"):
        return torch.rand(*shape, device="meta")


@pytest.mark.parametrize("stage", stages.STAGES)
def test_a_step_waits_for_no_gpu(on_eight, tmp_path, monkeypatch, stage):
    """Tensors without data stand for those of a GPU: whoever looks into one, as `.item()` or a mask would, fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such device
    trainer = loop.Trainer(replace(stages.STAGES[stage], needs=()), loop.Run(tmp_path, "tiny", "x"))
    trainer.genie.train().to("meta")
    for module in trainer.genie.modules():
        if isinstance(module, Quantizer):
            module.started.fill_(1)
        if isinstance(module, Keys):
            module.chosen.fill_(1)
    trainer.device = torch.device("meta")
    trainer.average = [copy.deepcopy(learner) for learner in trainer.learners]
    trainer.optimisers = loop.make_optimisers(trainer.learners, trainer.config)
    trainer.trouble = trainer.trouble.to("meta")
    monkeypatch.setattr(trainer, "_step", lambda: Elsewhere(trainer.step, trainer.config.steps, torch.Generator()))
    frames = torch.empty(8, trainer.config.frames, *SIZE, 3, dtype=torch.uint8, device="meta")
    for step in (10, loop.LOG_EVERY * 5 - 1, trainer.config.steps - 1):
        trainer.step = step
        trainer.learn(frames)
    with pytest.raises(RuntimeError, match="meta"):
        trainer.check()  # this one does ask: the test can fail


def test_on_a_gpu_a_bad_loss_is_noticed_later_and_named_by_its_step(on_eight, tmp_path, monkeypatch):
    poison = replace(stages.STAGES["tokenizer"], loss=lambda genie, frames, step: _bad_from(7, genie, frames, step))
    trainer = loop.Trainer(poison, loop.Run(tmp_path, "tiny", "x", steps=30))
    trainer.genie.train()
    check = trainer.check
    monkeypatch.setattr(trainer, "check", lambda: None)  # as in the steps between two looks on a GPU
    for _ in range(5):
        trainer.take_step()
    trainer.save()
    good = load_file(trainer.state_file)
    for _ in range(6):
        trainer.take_step()
    monkeypatch.setattr(trainer, "check", check)
    with pytest.raises(GenieError, match=rf"tokenizer at step 7 is not a number.*{trainer.state_file.name}"):
        trainer.save()
    kept = load_file(trainer.state_file)
    assert int(kept["step"]) == 5
    assert all(torch.equal(kept[name], good[name]) for name in good)


def _bad_from(first, genie, frames, step):
    return (stages.tokenizer_loss if step.index < first else _not_a_number)(genie, frames, step)


def test_a_killed_run_goes_on(tmp_path):
    words = ["train", "tokenizer", "--preset", "tiny", "--source", "platformer-calm", "--steps", "16", "--out", "out"]
    command = (
        "import sys; from genie_play.train import loop; loop.SAVE_SECONDS = 0.0; from genie_play.cli import main; "
    )
    command += f"sys.exit(main({words}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", command], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    state = loop.state_file(tmp_path / "out", "tokenizer")
    while not state.exists() and child.poll() is None:
        time.sleep(0.02)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert 0 < int(load_file(state)["step"]) < 16
    loop.train("tokenizer", "tiny", "platformer-calm", tmp_path / "out", steps=16)
    loop.train("tokenizer", "tiny", "platformer-calm", tmp_path / "whole", steps=16)
    a, b = (load_file(loop.state_file(tmp_path / name, "tokenizer")) for name in ("out", "whole"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_workers_and_pools_change_no_more_than_they_say(tmp_path, caplog):
    """Workers never change what is trained; a pool does, and stays with the run."""
    made = {}
    for name, options in {
        "alone": {"workers": 0},
        "fed": {"workers": 2},
        "pool": {"workers": 2, "pool": 64},
        "again": {"workers": 0, "pool": 64},
    }.items():
        loop.train("tokenizer", "tiny", "platformer-calm", tmp_path / name, steps=4, minutes=1e-4, **options)
        loop.train("tokenizer", "tiny", "platformer-calm", tmp_path / name, steps=4, workers=0)
        made[name] = load_file(loop.world_file(tmp_path / name))
    for a, b, same in (("alone", "fed", True), ("pool", "again", True), ("alone", "pool", False)):
        assert all(torch.equal(made[a][n], made[b][n]) for n in made[a]) is same
    with pytest.raises(GenieError, match="other settings"):
        loop.train("tokenizer", "tiny", "platformer-calm", tmp_path / "pool", steps=4, pool=0)


def test_a_look_is_learned_from_clips_with_a_gap(tmp_path, monkeypatch):
    tiny = preset("tiny")
    with_look = replace(tiny, tokenizer=replace(tiny.tokenizer, look=True))
    monkeypatch.setitem(config.PRESETS, "tiny", with_look)
    short = config.StageConfig(8, 4, 3, gap=5)
    training = replace(config.training("tiny"), tokenizer=short, decoder=short)
    monkeypatch.setitem(config.TRAINING, "tiny", training)
    asked = []

    def batch(self, step, clips, frames):
        asked.append((clips, frames))
        return real(self, step, clips, frames)

    real = PlatformerSource.batch
    monkeypatch.setattr(PlatformerSource, "batch", batch)
    for stage in ("tokenizer", "decoder"):
        loop.train(stage, "tiny", "platformer-sketch", tmp_path / "out", workers=0)
    assert set(asked) == {(4, 8)}
    header = checkpoint.read(loop.world_file(tmp_path / "out"))
    assert header.world.tokenizer.look
    assert header.stages["tokenizer"]["frames_seen"] == 8 * 4 * 3
    trainer = loop.Trainer(stages.STAGES["tokenizer"], loop.Run(tmp_path / "new", "tiny", "platformer-sketch"))
    seen = []
    for trainer.step in range(40):
        seen.append(tuple(trainer._apart(torch.arange(8).expand(2, 8))[1].tolist()))
    assert set(seen) == {(0, 1 + left, 2 + left) for left in range(6)}
    trainer.step = 7
    assert tuple(trainer._apart(torch.arange(8)[None])[0].tolist()) == seen[7]
