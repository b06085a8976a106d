"""The GPU's script rehearsed on the CPU; and on a GPU, each of its checks as a test."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from genie_play.config import preset
from genie_play.engine import building
from genie_play.engine.engine import GenieEngine
from genie_play.engine.stack import compiled
from genie_play.eval import gpu_check, gpu_checks, gpu_parts
from genie_play.paths import ROOT
from genie_play.types import Prompt

CPU = torch.device("cpu")
GPU = torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("name", gpu_checks.checks(GPU, False))
def test_on_a_gpu(name):
    torch.use_deterministic_algorithms(False)
    print(gpu_checks.checks(GPU, False)[name]())


@pytest.mark.parametrize("name", [n for n in gpu_checks.checks(CPU, True) if "against" in n])
def test_the_checks_themselves(name):
    assert gpu_checks.checks(CPU, True)[name]()


def test_a_check_that_is_off_says_by_how_much(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(gpu_checks.NEAR, torch.float32, 1e-12)
    monkeypatch.setattr(gpu_checks, "checks", lambda *_: {"layers": lambda: gpu_checks.cache(preset("tiny"), CPU)})
    code = gpu_check.main(["--out", str(tmp_path), "--device", "cpu", "--quick", "--together", "--only", "checks"])
    assert code == 3
    told = capsys.readouterr().out
    assert "1 failed" in told
    assert "layers: FAILED: off by" in told


def test_a_rehearsal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu_checks, "checks", lambda *_: {"one": lambda: "found"})
    arguments = ["--out", str(tmp_path), "--device", "cpu", "--quick", "--together", "--minutes", "3"]
    assert gpu_check.main(arguments) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1] == "checks: 1 ok, 0 failed, 0 not run"
    assert all(len(line) <= 150 for line in told)
    text = "\n".join(told)
    for word in ("copy", "temporal N=12", "draw of N=16", "tiny: graph, fused, merged", "genie-shrunk fp8, 25 steps"):
        assert word in text
    assert "FAILED" not in text
    written = json.loads((tmp_path / "all.json").read_text())
    assert set(written["parts"]) == set(gpu_parts.PARTS)
    assert all(written["parts"].values())
    assert {path.name for path in tmp_path.iterdir()} == {"all.json", "table.txt"}


def test_time_that_is_up_is_said(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--device", "cpu", "--quick", "--together", "--minutes", "0"]
    assert gpu_check.main([*arguments, "--only", "products", "large-bf16"]) == 0
    assert "products: 1 not measured" in capsys.readouterr().out


def test_sizes_are_measured_in_the_order_asked(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(gpu_parts, "_one_large", lambda run, world, *_: seen.append(world.name))
    run = gpu_parts.Run(CPU, False, 60.0, sizes=("11b", "404m"))
    gpu_parts.large_fp8(run)
    assert seen == ["genie-11b", "genie-404m"]
    with pytest.raises(SystemExit):
        gpu_check.main(["--out", str(tmp_path), "--sizes", "12b"])


def test_a_part_that_dies_costs_the_others_nothing(tmp_path):
    code = "import sys; sys.modules['triton'] = None; from genie_play.eval import gpu_parts as p, gpu_check as g; "
    code += f"sys.exit(g.main(['--out', {str(tmp_path)!r}, '--device', 'nowhere', '--only', 'gaps', 'ceilings']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FAILED: it stopped with exit code") == 2
    parts = json.loads((tmp_path / "all.json").read_text())["parts"]
    assert all("nowhere" in rows[-1]["log"] for rows in parts.values())


def test_the_script_needs_no_more_than_it_says():
    """Imported where platformdirs, pygame, tqdm and the extras do not exist."""
    missing = ("platformdirs", "pygame", "tqdm", "av", "gymnasium", "tensorboard", "hypothesis")
    code = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import genie_play.eval.gpu_check as g; "
    code += "from genie_play.eval import gpu_checks as c; import torch; "
    code += "e = c._engine(c.spark(), torch.device('cpu'), frame='static'); e.reset(c._prompt(e), 1); "
    code += "print(e.step(1).index)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "1", done.stderr


def test_floors_are_those_of_the_table():
    """Milliseconds a pass, for the printed parameter counts, at an H200's ceilings; ours count a tenth more or less."""
    for size, bf16, fp8 in (("404m", 1.08, 0.636), ("2.7b", 6.73, 3.75), ("11b", 24.5, 13.4)):
        world = preset(f"genie-{size}")
        assert gpu_parts.pass_floor(world, "bf16") == pytest.approx(bf16, rel=0.15)
        assert gpu_parts.pass_floor(world, "fp8") == pytest.approx(fp8, rel=0.15)
    assert gpu_parts.pass_floor(preset("genie-41m"), "bf16", True) < gpu_parts.pass_floor(preset("genie-96m"), "bf16")


def test_one_compilation_serves_all_layers():
    made = []

    def backend(graph, inputs):
        made.append(len(inputs))
        return graph.forward

    torch._dynamo.reset()
    world = gpu_checks.shape_world("small", 5, 64, 2, (24, 32), window=4)
    engine = gpu_checks._engine(world, CPU, frame="static")
    stack = engine._static.frame.dynamics
    stack.stream = compiled(backend=backend)
    frame = engine.reset(gpu_checks._prompt(engine), 1)
    for action in range(4):
        frame = engine.step(action)
    # with and without a frame before, for one row: not one for each layer
    assert 1 <= len(made) <= 3
    plain = gpu_checks._engine(world, CPU, frame="static")
    plain.reset(gpu_checks._prompt(plain), 1)
    assert [plain.step(action).tokens.tolist() for action in range(4)][-1] == frame.tokens.tolist()


def test_a_capture_that_fails_is_said_once_and_costs_only_speed(monkeypatch, caplog):
    from genie_play.engine import graph

    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graph, "_Graph", refuse)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(building, "check", lambda path: None)
    told: list[str] = []
    engine = gpu_checks._engine(preset("tiny"), CPU, frame="graph", progress=told.append)
    assert engine.info.path["frame"] == "static"
    assert [record.message for record in caplog.records] == [
        "frames are not captured on cpu, and slower: RuntimeError: operation not permitted when stream is capturing"
    ]
    assert told == ["preparing the GPU, 1 of 7"]
    expected = gpu_checks._engine(preset("tiny"), CPU, frame="static")
    for each in (engine, expected):
        each.reset(gpu_checks._prompt(each), 1)
    assert [engine.step(a).tokens.tolist() for a in (1, 2)] == [expected.step(a).tokens.tolist() for a in (1, 2)]


def test_a_graph_is_its_list_of_operations(monkeypatch):
    """With a stand-in for capture that keeps the list: the warm-up leaves no trace, and replays are what play uses."""
    from genie_play.engine import graph

    class Kept:
        replays = 0

        def __init__(self, work, pool):
            work()
            self.work = work
            self.replay()

        def replay(self):
            Kept.replays += 1
            self.work()

    monkeypatch.setattr(graph, "_Graph", Kept)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(building, "check", lambda path: None)
    for more in ({}, {"commit": "merged"}, {"sure": 0.9}, {"guidance": 1.5}):
        captured = gpu_checks._engine(preset("tiny"), CPU, frame="graph", **more)
        static = gpu_checks._engine(preset("tiny"), CPU, frame="static", **more)
        assert captured.info.path["frame"] == "graph"
        before = Kept.replays
        frames = [gpu_checks._play(engine) for engine in (captured, static)]
        assert gpu_checks._same(*frames) == len(frames[0])
        assert Kept.replays > before + 30


def test_the_engine_tells_what_a_long_start_is_at():
    import inspect

    assert "progress" in inspect.signature(GenieEngine).parameters
    engine = GenieEngine(gpu_checks.spark(), "cpu", progress=print)
    assert engine.info.path["frame"] == "eager"
    assert isinstance(gpu_checks._prompt(engine), Prompt)
