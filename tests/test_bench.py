"""The bench: what it can be asked about, what its stopwatch sees, how measurements are compared. No absolute times."""

from __future__ import annotations

import copy
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genie_play import cli
from genie_play.config import preset, to_dict
from genie_play.engine import arithmetic as arithmetics
from genie_play.eval import bench, costs, growth, roofs, stopwatch, tables, targets
from genie_play.eval.targets import Shape
from genie_play.types import GenieError, Prompt

CPU = torch.device("cpu")


@pytest.fixture
def engine():
    made = targets.find("tiny").engine("cpu", steps=3)
    bench.fill(made, bench.random_actions())
    yield made
    made.close()


@pytest.fixture(scope="module")
def measured():
    """One measurement of tiny through the command line, as JSON."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        words = ["bench", "tiny", "--frames", "4", "--against", "recompute", "--path", "steps=2", "--json"]
        assert cli.main(words) == 0
    return json.loads(out.getvalue())


# what can be measured


def test_shapes_change_what_they_name_and_nothing_else():
    base = preset("spark")
    shaped = Shape(layers=8, width=256, tokens=(9, 16), window=16).of(base)
    assert (shaped.dynamics.layers, shaped.dynamics.width, shaped.dynamics.heads) == (8, 256, 8)
    assert shaped.tokenizer.grid == (9, 16)
    assert shaped.dynamics.window == 16
    assert shaped.size == (72, 128)
    assert shaped.actions == base.actions
    assert Shape().of(base) == base
    assert Shape(heads=2).of(base).dynamics.head_dim == 64
    with pytest.raises(GenieError, match="does not divide into heads"):
        Shape(width=100).of(base)
    with pytest.raises(GenieError, match="numbers each"):
        Shape(width=100, heads=10).of(base)


def test_targets_by_name():
    assert targets.find("pocket").file is None or targets.find("pocket", random=True).file is None
    custom = targets.find("custom", Shape(width=64))
    assert custom.config.dynamics.width == 64
    assert custom.describe()["weights"] == "random"
    spark = targets.find("spark")
    assert spark.file is not None
    assert len(spark.describe()["weights"]) == 64
    with pytest.raises(GenieError, match="presets: tiny, spark"):
        targets.find("nothing")


def test_a_trained_world_keeps_its_shape(tmp_path):
    file = targets.find("spark").file
    assert file is not None
    other = tmp_path / "other.safetensors"
    other.write_bytes(file.read_bytes())
    with pytest.raises(GenieError, match="has its shape"):
        targets.find(other, Shape(layers=2))


def test_random_weights_are_the_same_every_time_and_leave_the_dice_alone():
    before = torch.random.get_rng_state()
    first, second = (targets.random_genie(preset("tiny")).state_dict() for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    blocks = [name for name in first if "ffn_out" in name or name.endswith("out.weight")]
    assert blocks
    assert all(first[name].abs().sum() > 0 for name in blocks)


def test_a_size_that_does_not_fit_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr(targets, "_free_memory", lambda: 1000)
    with pytest.raises(GenieError, match="choose a smaller size"):
        targets.random_genie(preset("tiny"))


def test_the_random_engine_plays_in_a_process_of_its_own_as_it_does_here():
    target = targets.find("tiny")
    prompt = Prompt(np.full((1, *target.config.size, 3), 90, np.uint8))
    here, there = target.engine("cpu"), target.process("cpu")
    try:
        for engine in (here, there):
            engine.reset(prompt, 3)
        assert np.array_equal(here.step(2).tokens, there.step(2).tokens)
    finally:
        here.close()
        there.close()


# the stopwatch


def test_watch_times_calls_and_leaves_no_trace():
    class Thing:
        def work(self, seconds):
            time.sleep(seconds)
            return seconds

    thing, space = Thing(), SimpleNamespace(work=lambda: 5)
    watch = stopwatch.Watch(torch.device("cpu"))
    watch.clock = time.perf_counter  # sleeping takes no processor time
    with watch:
        watch.wrap(thing, "work", "a")
        watch.wrap(space, "work", "b")
        watch.wrap(thing, "nothing", "c")
        assert thing.work(0.02) == 0.02
        assert space.work() == 5
    labels, seconds = zip(*watch.take(), strict=True)
    assert labels == ("a", "b")
    assert seconds[0] >= 0.02 > seconds[1]
    assert "work" not in vars(thing)
    assert not watch.take()


def test_stages_are_those_that_a_frame_is_made_of(engine):
    spent, each = stopwatch.stage_times(engine, [1, 2, 3])
    assert set(spent) == {"commit", "pass", "head and sampling", "embed", "decode", "to picture", "rest"}
    assert all(len(times) == 3 for times in spent.values())
    assert [sorted(one) for one in each] == [["head and sampling", "pass"]] * 3
    # passes add up to the stage
    assert sum(one["pass"][0] for one in each) == pytest.approx(spent["pass"][0])


def test_parts_make_up_the_passes(engine):
    spent = stopwatch.part_times(engine, [0, 1])
    assert set(spent) == set(stopwatch.PARTS)
    assert all(seconds > 0 for times in spent.values() for seconds in times)


def test_parts_see_where_the_time_goes(engine):
    """A slow attention is found in attention, a slow layer in the projections."""
    block = stopwatch.networks(engine).dynamics.blocks[0]

    def busy(*_):
        clock = stopwatch.clock(CPU)
        until = clock() + 0.05
        while clock() < until:
            pass

    plain = stopwatch.part_times(engine, [0])
    handle = block.temporal.qkv.register_forward_pre_hook(busy)
    in_front = stopwatch.part_times(engine, [0])
    handle.remove()
    handle = block.temporal.out.register_forward_pre_hook(busy)  # comes before the stopwatch's own
    inside = stopwatch.part_times(engine, [0])
    handle.remove()
    passes = 3
    for found, grew in ((in_front, "projections and feed-forward"), (inside, "temporal attention")):
        for name in stopwatch.PARTS:
            more = found[name][0] - plain[name][0]
            assert (more > 0.6 * passes * 0.05) == (name == grew), (name, more)


def test_an_engine_that_makes_no_such_calls_has_no_times_of_them(engine, monkeypatch):
    """As a captured frame: nothing inside is called."""
    frame = engine.step(0)
    monkeypatch.setattr(engine, "step", lambda action: frame)
    monkeypatch.setattr(engine, "settle", lambda: None)
    spent, each = stopwatch.stage_times(engine, [0, 1])
    assert set(spent) == {"commit", "rest"}
    assert not each
    assert stopwatch.part_times(engine, [0]) == {}


# the machine


def test_roofs_are_the_best_of_what_was_seen(monkeypatch):
    monkeypatch.setattr(roofs, "SECONDS", 0.002)
    monkeypatch.setattr(roofs, "SQUARE", 32)
    monkeypatch.setattr(roofs, "LARGE", 2**21)
    found = roofs.measure([(12, 64, 32), (12, 32, 64)], "fp32", CPU, 4096)
    assert set(found.products) == {"12x64x32", "12x32x64", "32x32x32"}
    assert found.flops_per_s == max(found.products.values()) > 0
    assert found.bytes_per_s == max(found.copies.values()) > 0
    assert set(found.copies) == {"1 MiB", "2 MiB"}


@pytest.mark.parametrize("arithmetic", ["fp32", "bf16"])
def test_a_cpu_is_measured_by_the_products_that_the_engine_makes(monkeypatch, arithmetic):
    made, before = [], arithmetics.layer

    def layer(name):
        def make(weight):
            made.append((name, tuple(weight.shape)))
            return before(name)(weight)

        return make

    monkeypatch.setattr(roofs, "SECONDS", 0.002)
    monkeypatch.setattr(roofs, "SQUARE", 32)
    monkeypatch.setattr(roofs, "LARGE", 2**21)
    monkeypatch.setattr(arithmetics, "layer", layer)
    roofs.measure([(12, 64, 48)], arithmetic, CPU, 4096)
    assert {(arithmetic, (48, 64)), (arithmetic, (32, 32))} <= set(made)


def test_an_arithmetic_without_products_is_measured_in_float32(monkeypatch):
    monkeypatch.setattr(roofs, "SECONDS", 0.002)
    monkeypatch.setattr(roofs, "SQUARE", 32)
    monkeypatch.setattr(roofs, "LARGE", 2**21)
    before = roofs._product

    def product(arithmetic, *shape):
        if arithmetic == "int8":
            raise RuntimeError("no such product")
        return before(arithmetic, *shape)

    monkeypatch.setattr(roofs, "_product", product)
    assert roofs.measure([(4, 16, 16)], "int8", CPU, 4096).arithmetic == "fp32"


# measurements


def test_a_measurement_holds_every_part(measured):
    assert measured["format"] == bench.FORMAT
    assert measured["gate"]["ok"] is True
    assert measured["frames"] == 4
    assert measured["path"]["steps"] == 2
    names = [row["stage"] for row in measured["stages"]]
    assert names[:2] == ["embed", "pass"]
    assert names[-2:] == ["rest", "frame"]
    for row in measured["stages"]:
        if row["stage"] != "rest":
            assert row["ms"] > 0, row
            assert row["floor_ms"] >= 0, row
    whole = {row["stage"]: row for row in measured["stages"]}
    config = preset("tiny")
    path = bench.from_dict(bench.PathConfig, measured["path"], "path")
    assert whole["frame"]["gflop"] == pytest.approx(costs.stages(config, path)["frame"].flops / 1e9, abs=1e-4)
    assert whole["pass"]["times"] == 2
    for part in ("engine", "idle", "running"):
        assert 0 < measured["latency"][part]["p50_ms"] <= measured["latency"][part]["p95_ms"]
    assert measured["recompute"]["times"] > 0
    assert measured["start"]["process_s"] > 0
    assert measured["memory"]["weights, dynamics"] > 0
    assert 0 < measured["share"] <= 1
    assert measured["machine"]["version"]


def test_a_measurement_as_text_has_every_stage(measured):
    lines = tables.text(measured)
    for row in measured["stages"]:
        assert any(row["stage"] in line for line in lines)
    assert any("the cache does what the whole clip does" in line for line in lines)
    assert any("processor time" in line for line in lines)


def test_comparing_says_what_is_faster_and_what_else_differs(measured):
    slower = copy.deepcopy(measured)
    slower["frame"]["p50_ms"] *= 2
    same = tables.compare(measured, slower)
    figures = {row["figure"]: row["faster"] for row in same["figures"]}
    assert figures["frame"] == pytest.approx(2, abs=0.01)
    assert figures["stage: decode"] == pytest.approx(1)
    assert same["differs"] == []
    slower["machine"] |= {"device": "another", "version": "0.0"}
    found = tables.compare(measured, slower)
    assert [d["what"] for d in found["differs"]] == ["machine.device", "machine.version"]
    lines = tables.comparison(found)
    assert "say nothing about the code" in lines[-1]
    assert not any("say nothing" in line for line in tables.comparison(same))


def test_two_files_are_compared_without_measuring(measured, tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(measured))
    (tmp_path / "b.json").write_text(json.dumps(measured))
    assert cli.main(["bench", str(tmp_path / "a.json"), "--against", str(tmp_path / "b.json")]) == 0
    assert "times as good" in capsys.readouterr().out
    (tmp_path / "c.json").write_text(json.dumps({"format": 1}))
    assert cli.main(["bench", "tiny", "--against", str(tmp_path / "c.json")]) == 2
    assert "no measurement of this format" in capsys.readouterr().err


def test_a_speed_behind_a_red_gate_is_exit_code_3(measured, tmp_path, capsys):
    broken = copy.deepcopy(measured)
    broken["gate"]["ok"] = False
    (tmp_path / "a.json").write_text(json.dumps(broken))
    assert cli.main(["bench", str(tmp_path / "a.json")]) == 3
    assert "SOMETHING ELSE" in capsys.readouterr().out


def test_growth_changes_one_thing_at_a_time(monkeypatch):
    for name, value in {"SECONDS": 0.002, "SQUARE": 32, "LARGE": 2**21}.items():
        monkeypatch.setattr(roofs, name, value)
    monkeypatch.setattr(growth, "STEPS", (1, 3, 6))
    monkeypatch.setattr(growth, "WINDOWS", (2, 4))
    rows = growth.grow(targets.find("tiny"), 1, "cpu")
    found = {(row["what"], row["value"]): row for row in rows}
    assert next(iter(found)) == ("base", "tiny")
    assert ("passes", "3") not in found  # that is the base
    assert {what for what, _ in found} == {"base", "passes", "tokens", "window", "width"}
    # six passes and a commit, of three and a commit
    assert found["passes", "6"]["flops_times"] == pytest.approx(7 / 4, rel=0.1)
    assert found["window", "2"]["flops_times"] < 1 < found["width", "128"]["flops_times"]
    assert all(row["times"] > 0 for row in rows)
    assert any("floor reached" in line for line in tables.growth(rows))


def test_an_anchor_needs_a_window_of_three(capsys):
    assert cli.main(["bench", "custom", "--window", "2"]) == 2
    assert "a window of 2 is too short" in capsys.readouterr().err
    target = targets.find("custom")
    assert target.config.dynamics.anchor
    variants = growth._variants(target, SimpleNamespace(path=target.path))
    assert [value for what, value, *_ in variants if what == "window"] == ["4", "8", "32"]


def test_a_plain_config_crosses_to_the_child():
    config = preset("studio")
    assert bench.from_dict(type(config), json.loads(json.dumps(to_dict(config))), "world") == config
