"""A run that begins as another world is: the same networks, and dynamics in other tokens."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genie_play import checkpoint, cli, config
from genie_play.data.clips import PlatformerSource
from genie_play.nn.genie import Genie, load_genie, save_genie
from genie_play.nn.st_transformer import ROTARY_BASE, rotate
from genie_play.train import begin, loop, run, stages
from genie_play.types import CheckpointError, GenieError

SIZE = (24, 32)
WHAT = {"preset": "tiny", "source": "platformer-calm"}


@pytest.fixture(scope="module")
def spark() -> Genie:
    return load_genie(checkpoint.find("spark"))[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny world whose stages are through."""
    out = tmp_path_factory.mktemp("old") / "old"
    loop.train("all", "tiny", "platformer-calm", out, steps=3)
    return loop.world_file(out)


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(begin, "READS", 2)


def test_tokens_that_only_have_other_names_change_nothing_but_names(spark):
    torch.manual_seed(0)
    new = copy.deepcopy(spark)
    names = torch.randperm(new.config.tokenizer.codes)  # new code i is old code names[i]
    new.tokenizer.quantizer.codebook.copy_(spark.tokenizer.quantizer.codebook[names])
    for parameter in new.dynamics.parameters():
        torch.nn.init.normal_(parameter)
    source = PlatformerSource((64, 64), 3, calm=True, n_looks=8)
    begin.carry(spark, new, source)
    clips = torch.from_numpy(source.batch(0, 2, 8)).float() / 255
    theirs, ours = spark.tokenizer.encode(clips), new.tokenizer.encode(clips)
    assert (names[ours] == theirs).float().mean() > 0.999
    theirs = names[ours]
    shares = begin.counterparts(spark.tokenizer, new.tokenizer, source)
    known = shares.max(1).values == 1
    assert known.sum() > 300
    assert (shares.argmax(1) == names)[known].all()
    assert known[ours].float().mean() > 0.999
    actions = torch.randint(0, 8, ours.shape[:2])
    hidden = torch.rand(ours.shape) < 0.5
    mask = spark.dynamics.mask_id
    with torch.no_grad():
        told = new.dynamics.logits(new.dynamics(ours.masked_fill(hidden, mask), actions, ours))
        true = spark.dynamics.logits(spark.dynamics(theirs.masked_fill(hidden, mask), actions, theirs))
    apart = (told[..., known] - true[..., names[known]]).abs()
    assert apart.max() < 1e-3
    assert true.std() > 1


@pytest.mark.parametrize(("times", "axis"), [(2.0, 1), (2.0, 0), (0.5, 1), (1.0, 0)])
def test_on_a_finer_grid_attention_looks_as_far_in_pixels(spark, times, axis):
    """With a grid finer by what one frequency is lower than the next, exactly; by 2, nearly."""
    step = ROTARY_BASE ** (4 / 32)
    exact = {2.0: step, 0.5: 1 / step, 1.0: 1.0}[times]
    block = spark.dynamics.blocks[0]
    finer = tuple(times if i == axis else 1.0 for i in range(2))
    weight = block.spatial.qkv.weight.detach().clone().unflatten(0, (3, 4, 32))
    few = 8
    lost = {2.0: few - 1, 0.5: 0}.get(times)  # the frequency that the finer grid has no place for
    if lost is not None:
        weight[:2, :, [axis * 2 * few + lost, (axis * 2 + 1) * few + lost]] = 0
    moved = begin.stretched("blocks.0.spatial.qkv.weight", weight.flatten(0, 2), spark.dynamics, finer)
    moved = moved.unflatten(0, (3, 4, 32))
    assert torch.equal(moved[2], weight[2])
    x = torch.randn(2, 128)

    def score(weight, far):
        q, k = (weight[i] @ x[i] for i in range(2))  # (h, hd)
        frequencies = ROTARY_BASE ** -(torch.arange(few) / few)
        angles = torch.zeros(2, 2, few)
        angles[1, axis] = far * frequencies
        cos = torch.stack((angles.cos(), angles.cos()), 2).flatten(1)
        sin = torch.stack((-angles.sin(), angles.sin()), 2).flatten(1)
        q, k = (rotate(v.expand(1, 2, 4, 32), cos[i], sin[i])[0, 0] for i, v in enumerate((q, k)))
        return (q * k).sum(-1)

    for far in (0.0, 1.0, 2.0, 3.0):
        torch.testing.assert_close(score(moved, far * exact), score(weight, far), rtol=1e-4, atol=1e-4)


def test_one_stage_is_trained_under_the_networks_of_another_world(world, tmp_path):
    out = tmp_path / "mine"
    found = run.run("dynamics", out=out, begin=str(world), steps=2, **WHAT)
    old, new = load_file(world), load_file(loop.world_file(out))
    for name in old:
        if not name.startswith("dynamics."):
            assert torch.equal(old[name], new[name]), name
    apart = torch.cat([(old[n] - new[n]).flatten() for n in old if n.startswith("dynamics.blocks.")]).abs().max()
    assert 0 < apart < 0.2  # two steps away from there
    header = checkpoint.read(loop.world_file(out))
    assert header.stages["tokenizer"]["from"] == "tiny"
    assert "from" not in header.stages["dynamics"]
    assert found["stages"]["dynamics"] == {"steps": 2, "of": 2}
    # what was trained here stays, whoever asks again
    run.run("dynamics", out=out, begin=str(world), steps=2, **WHAT)
    again = load_file(loop.world_file(out))
    assert all(torch.equal(new[name], again[name]) for name in new)


def test_all_stages_begin_where_the_other_world_is(world, tmp_path, caplog):
    out = tmp_path / "mine"
    run.run("all", out=out, begin=str(world), steps=1, gated=False, **WHAT)
    header = checkpoint.read(loop.world_file(out))
    assert all("from" not in done and done["steps"] == 1 for done in header.stages.values())
    assert set(header.stages) == {"tokenizer", "tokenizer.decoder", "actions", "actions.keys", "dynamics"}
    old, new = load_file(world), load_file(loop.world_file(out))
    for part in ("tokenizer.encoder", "actions.", "dynamics.blocks"):
        apart = torch.cat([(old[n].float() - new[n].float()).flatten() for n in old if n.startswith(part)]).abs()
        assert apart.mean() < 0.02, part
    assert "dynamics begins as that of tiny, in other tokens" in caplog.text


def test_other_tokens_under_the_same_dynamics(world, tmp_path, monkeypatch, caplog):
    """Half as wide patches: the tokenizer begins from nothing, dynamics does not."""
    tiny = config.PRESETS["tiny"]
    finer = replace(tiny, tokenizer=replace(tiny.tokenizer, patch=4, patch_height=8, fine=1))
    monkeypatch.setitem(config.PRESETS, "tiny", finer)
    out = tmp_path / "mine"
    run.run("tokenizer", out=out, begin=str(world), steps=2, **WHAT)
    assert "actions begins as that of tiny" in caplog.text
    assert "tokenizer begins" not in caplog.text
    fresh = loop.fresh_genie(finer, 0).state_dict()
    before = load_file(loop.world_file(out))
    assert torch.allclose(before["dynamics.head.weight"].float(), fresh["dynamics.head.weight"], atol=1e-3)
    header = checkpoint.read(loop.world_file(out))
    assert "dynamics" not in header.stages
    assert header.stages["actions"]["from"] == "tiny"
    old = load_genie(world)[0]
    run.run("dynamics", out=out, begin=str(world), steps=1, **WHAT)
    new = load_genie(loop.world_file(out))[0]
    assert "in other tokens" in caplog.text
    for ours, theirs in zip(new.dynamics.blocks, old.dynamics.blocks, strict=True):
        assert (ours.temporal.qkv.weight - theirs.temporal.qkv.weight).abs().mean() < 0.02
    assert checkpoint.read(loop.world_file(out)).stages["dynamics"]["steps"] == 1


def test_a_run_of_ones_own_begins_what_it_has_not_begun(world, tmp_path, caplog):
    """Its own tokenizer stays, whatever the other world has; dynamics comes over to its tokens."""
    out = tmp_path / "mine"
    loop.train("tokenizer", "tiny", WHAT["source"], out, steps=2, seed=1)
    mine, old = load_file(loop.world_file(out)), load_file(world)
    run.run("actions", out=out, begin=str(world), steps=1, **WHAT)
    new = load_file(loop.world_file(out))
    for name in mine:
        if name.startswith("tokenizer."):
            assert torch.equal(mine[name], new[name]), name
    # but for the codebook, which starts with the first step
    motion = [name for name in old if name.startswith("actions.") and "quantizer" not in name]
    assert all((old[n].float() - new[n].float()).abs().mean() < 0.02 for n in motion)
    assert any((old[n].float() - mine[n].float()).abs().mean() > 0.02 for n in motion)
    records = checkpoint.read(loop.world_file(out)).stages
    assert "from" not in records["tokenizer"]
    assert "from" not in records["actions"]
    assert records["actions.keys"]["from"] == "tiny"
    assert "dynamics" not in records
    run.run("dynamics", out=out, begin=str(world), steps=1, **WHAT)
    assert "dynamics begins as that of tiny, in other tokens" in caplog.text


def test_asked_twice_before_the_first_step_is_as_asked_once(world, tmp_path, caplog):
    run_of = loop.Run(tmp_path, "tiny", WHAT["source"])
    for name in ("actions", "dynamics", "dynamics"):
        begin.take(world, stages.STAGES[name], run_of)
        new, old = load_file(loop.world_file(run_of.out)), load_file(world)
        assert all(torch.equal(old[n], new[n]) for n in old)
    assert "in other tokens" not in caplog.text
    assert set(checkpoint.read(loop.world_file(run_of.out)).stages) == {
        "tokenizer",
        "tokenizer.decoder",
        "actions.keys",
    }


def test_what_does_not_fit_says_so(world, tmp_path, monkeypatch, caplog):
    with pytest.raises(CheckpointError, match="no world is called 'nowhere'"):
        run.run("all", out=tmp_path / "a", begin="nowhere", **WHAT)
    with pytest.raises(GenieError, match=r"nothing of tiny has the shape of spark's networks \(layers is 2 there, 4 "):
        run.run("all", "spark", "platformer-calm", tmp_path / "b", begin=str(world))
    genie, header = load_genie(world)
    told = tmp_path / "told.safetensors"
    save_genie(genie, replace(header, provenance={"true_actions": True}), told)
    with pytest.raises(GenieError, match="was told the game's keys"):
        run.run("all", out=tmp_path / "c", begin=str(told), **WHAT)
    assert not loop.world_file(tmp_path / "c").exists()
    assert cli.main(["train", "dynamics", "--true-actions", "spark", "--begin", "spark", "--out", str(tmp_path)]) != 0

    tiny = config.PRESETS["tiny"]
    wider = replace(tiny, dynamics=replace(tiny.dynamics, layers=3))
    monkeypatch.setitem(config.PRESETS, "tiny", wider)
    run.run("dynamics", out=tmp_path / "d", begin=str(world), steps=1, **WHAT)
    assert "dynamics begins from nothing, that of tiny cannot be carried over: layers is 2 there, 3 here" in caplog.text
    with pytest.raises(ValueError, match="layers is 2 there, 3 here"):
        begin.carry(genie, Genie(wider), None)


def test_a_code_that_no_clip_has_is_the_mean_of_all(spark):
    source = PlatformerSource((64, 64), 3, calm=True, n_looks=8)
    shares = begin.counterparts(spark.tokenizer, spark.tokenizer, source)
    assert torch.allclose(shares.sum(1), torch.ones(len(shares)))
    assert np.isfinite(shares.numpy()).all()
    unseen = shares.max(1).values < 1
    assert 0 < unseen.sum() < 700
    assert torch.equal(shares[unseen][0], shares[unseen][-1])
