"""Imports point down, the two towers do not know each other, and importing does nothing. Read from the source."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genie_play.paths import ROOT

PACKAGE = ROOT / "genie_play"
# DESIGN's house: a room may import rooms of lower floors, and itself
FLOORS = {
    "config": 0, "types": 0, "schedule": 0, "philox": 0, "paths": 0,
    "session": 1, "media": 1, "data": 1, "checkpoint": 1,
    "ops": 2, "nn": 3, "engine": 4, "train": 5, "eval": 5, "play": 5,
    "cli": 6, "world": 6, "compare": 6, "arguments": 6, "__main__": 6,
}  # fmt: skip
# what a room may use of its own floor
INSIDE = {
    "config": {"types"}, "schedule": {"philox"}, "paths": {"types"}, "session": {"media"}, "data": {"media"},
    "eval": {"train"}, "train": {"eval"}, "compare": {"world"},
    "cli": {"world", "compare", "arguments"}, "__main__": {"cli"},
}  # fmt: skip
# the client starts its engine by name in a child process; process.py itself knows no torch
EXCEPTIONS = {("play", "engine.process")}
TORCH = {"torch", "triton", "safetensors.torch"}
FORBIDDEN = {  # room -> what it never imports, at any depth of the code
    **dict.fromkeys(["config", "types", "schedule", "philox", "paths", "checkpoint"], TORCH | {"pygame"}),
    **dict.fromkeys(["session", "media", "data"], TORCH | {"pygame"}),
    **{room: {"pygame"} for room in ("ops", "nn", "engine", "train", "eval")},
    "play": TORCH,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path, top_only=False):
    """Every module that a file imports, as dotted names; `from a import b` counts as a and as a.b."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for child in ast.walk(node)
    }
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only or (top_only and id(node) in inside):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert {"config", "checkpoint", "nn", "engine", "cli"} <= rooms
    assert rooms <= set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = room_of(path)
    if room == "__init__":
        assert not {name for name in imports(path) if name.startswith("genie_play")}
        return
    for name in imports(path):
        package, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if package != "genie_play" or other not in FLOORS or other == room:
            continue
        if any(room == r and rest.startswith(allowed) for r, allowed in EXCEPTIONS) or rest == "engine":
            continue  # `from genie_play.engine import process` names engine too; its torch is checked below
        below = FLOORS[other] < FLOORS[room] or other in INSIDE.get(room, set())
        assert below, f"{path.relative_to(ROOT)} (floor {FLOORS[room]}) imports {name} (floor {FLOORS[other]})"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_towers_apart(path):
    for name in imports(path):
        for forbidden in FORBIDDEN.get(room_of(path), set()):
            assert name != forbidden, f"{path.relative_to(ROOT)} imports {name}"
            assert not name.startswith(f"{forbidden}."), f"{path.relative_to(ROOT)} imports {name}"


def test_the_client_reaches_the_engine_through_its_process_only():
    for path in (PACKAGE / "play").rglob("*.py"):
        names = {name for name in imports(path) if name.startswith("genie_play.engine.")}
        assert all(name.startswith("genie_play.engine.process") for name in names), path
    assert not imports(PACKAGE / "engine" / "process.py", top_only=True) & TORCH


def test_commands_import_lazily():
    """At the top of cli.py nothing heavy: `--help` costs what argparse costs."""
    for name in ("cli.py", "__main__.py"):
        top = {module.split(".")[0] for module in imports(PACKAGE / name, top_only=True)}
        assert not top & {"torch", "triton", "pygame", "numpy", "PIL", "safetensors"}, name


def modules(rooms):
    for path in FILES:
        if room_of(path) in rooms:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__")


def run(code, *arguments, folder):
    environment = os.environ | {"HOME": str(folder), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder, env=environment
    )


IMPORT = """
import importlib, sys
blocked, *names = sys.argv[1:]
for name in blocked.split(","):
    sys.modules[name] = None
for name in names:
    importlib.import_module(name)
"""


@pytest.mark.parametrize(
    ("rooms", "blocked"),
    [
        (("config", "types", "schedule", "philox", "paths"), "torch,triton,pygame,PIL,safetensors"),
        (("checkpoint", "session", "media", "data"), "torch,triton,pygame,safetensors"),
        (("play",), "torch,triton,safetensors"),
        (("cli", "world", "compare"), "torch,triton,pygame,safetensors"),
        (("ops", "nn", "engine", "train", "eval"), "pygame,gymnasium,av"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "without",
)
def test_importing_does_nothing(rooms, blocked, tmp_path):
    """No print, no file, and nothing from the other tower, in a process of its own and an empty folder."""
    names = [name for name in modules(rooms) if not name.endswith("triton_ops")]
    assert names
    done = run(IMPORT, blocked, *names, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_launch_knows_the_standard_library_only():
    names = {name.split(".")[0] for name in imports(ROOT / "launch.py")}
    assert names - {"genie_play", "__future__"} <= sys.stdlib_module_names
    assert "genie_play" not in {name.split(".")[0] for name in imports(ROOT / "launch.py", top_only=True)}


@pytest.mark.parametrize("word", ["eval(", "pickle.load", "torch.load(", "np.load("])
def test_nothing_that_runs_what_it_reads(word):
    """No pickle, no evaluated text: what is loaded can only be data."""
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [line for line in lines if word in line and not line.lstrip().startswith("#")]
        found = [line for line in found if f".{word}" not in line and f"_{word}" not in line]  # module.eval() of torch
        found = [line for line in found if "weights_only=True" not in line and "allow_pickle=False" not in line]
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_no_print_in_the_library():
    """Results are printed by cli.py; the library logs. Progress may go to stderr."""
    for path in FILES:
        if room_of(path) in ("cli", "__main__"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]
        calls = [call for call in calls if "file=sys.stderr" not in ast.unparse(call)]
        assert not calls, f"{path.relative_to(ROOT)} line {calls[0].lineno} prints"


def test_no_rooms_for_everything():
    names = {path.name for path in Path(PACKAGE).rglob("*.py")}
    assert not names & {"utils.py", "common.py", "base.py", "helpers.py", "misc.py"}
