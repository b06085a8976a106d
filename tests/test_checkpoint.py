"""Checkpoint headers: round trips, each kind of damage with its message, finding worlds by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from genie_play import checkpoint, paths
from genie_play.config import PathConfig, preset
from genie_play.types import CheckpointError, GenieError, Label

WORLDS = paths.worlds  # before any fixture puts another in its place
TENSORS = {
    "tokenizer.weight": np.arange(24 * 32, dtype=np.float32).reshape(24, 32),
    "dynamics.bias": np.ones(5, np.float16),
    "empty": np.zeros((0, 3), np.float32),
}


def header():
    labels = tuple(Label(c, name, c / 3, -1.5, 0.9) for c, name in enumerate(("idle", "left", "right", *["other"] * 5)))
    return checkpoint.Header(
        preset("tiny"),
        PathConfig(steps=3),
        labels,
        idle=0,
        provenance={"command": "genie-play train all", "note": "ünïcode"},
        evaluation={"psnr": 28.25},
        stages={"tokenizer": {"steps": 200, "frames": 6400}},
    )


def write(path, meta=None, tensors=TENSORS):
    save_file(tensors, path, metadata=checkpoint.header_metadata(header()) if meta is None else meta)
    return path


@pytest.fixture
def world(tmp_path):
    return write(tmp_path / "small.safetensors")


def doctored(file, **changes):
    """The same file with fields of its header changed, or removed where None."""
    data = json.loads(checkpoint.header_metadata(header())[checkpoint.KEY]) | changes
    return write(file, {checkpoint.KEY: json.dumps({key: value for key, value in data.items() if value is not None})})


def with_table(path, change):
    """The same file with `change` applied to its table of tensors."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    change(table)
    text = json.dumps(table).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return path


def test_header_round_trip(world):
    read = checkpoint.read(world)
    assert read == header()
    assert read.file == world
    assert read.sha256 == hashlib.sha256(world.read_bytes()).hexdigest() == checkpoint.fingerprint(world)
    assert read.shapes == {"tokenizer.weight": (24, 32), "dynamics.bias": (5,), "empty": (0, 3)}


def test_save_load_save_is_byte_equal(world, tmp_path):
    again = tmp_path / "again.safetensors"
    save_file(TENSORS, again, metadata=checkpoint.header_metadata(checkpoint.read(world)))
    assert again.read_bytes() == world.read_bytes()


def test_metadata_is_one_sorted_key():
    (key, text), *rest = checkpoint.header_metadata(header()).items()
    assert (key, rest) == ("genie_play", [])
    data = json.loads(text)
    assert text == json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert set(data) == {field.name for field in dataclasses.fields(checkpoint.Header)} - {"file", "sha256", "shapes"}


def test_reads_without_torch_and_safetensors(world):
    code = (
        "import sys; sys.modules.update(torch=None, safetensors=None, pygame=None)\n"
        "from genie_play import checkpoint; print(checkpoint.read(sys.argv[1]).world.name)"
    )
    done = subprocess.run([sys.executable, "-c", code, world], capture_output=True, text=True, cwd=paths.ROOT)
    assert (done.stdout.strip(), done.stderr) == ("tiny", "")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "has format 2 and this program reads up to 1: it comes from a newer version"),
        ({"format": None}, "does not say its format version"),
        ({"format": "1"}, "does not say its format version"),
        ({"flavour": 1}, "Header has an unknown field 'flavour'"),
        ({"sha256": "ab"}, "Header has an unknown field 'sha256'"),
        ({"world": None}, "Header is incomplete"),
        ({"world": {"dynamics": {"depth": 3}}}, "Header.world.dynamics has an unknown field 'depth'"),
        ({"path": {"steps": "8"}}, "Header.path.steps has the wrong kind of value"),
        ({"labels": []}, "labels should name codes 0 to 7 in order"),
        ({"labels": [{"code": c, "name": "fly"} for c in range(8)]}, "code 0 has an unknown label 'fly'"),
        ({"idle": 8}, "idle code 8 is outside 0..7"),
    ],
)
def test_a_header_that_is_wrong(tmp_path, changes, says):
    path = doctored(tmp_path / "w.safetensors", **changes)
    with pytest.raises(CheckpointError, match=re.escape(says)) as caught:
        checkpoint.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 8, 60, -1, -100])
def test_a_file_cut_short(world, keep):
    data = world.read_bytes()
    world.write_bytes(data[:keep])
    with pytest.raises(CheckpointError, match=r"is cut short .* copy or download it again"):
        checkpoint.read(world)


def test_a_file_with_bytes_too_many(world):
    world.write_bytes(world.read_bytes() + b"abc")
    with pytest.raises(CheckpointError, match="3 bytes too many"):
        checkpoint.read(world)


@pytest.mark.parametrize("meta", [{}, {"format": "pt"}])
def test_another_programs_file(tmp_path, meta):
    with pytest.raises(CheckpointError, match="is not a Genie Play world"):
        checkpoint.read(write(tmp_path / "other.safetensors", meta))


def test_a_header_that_is_no_json(tmp_path):
    with pytest.raises(CheckpointError, match="header that cannot be read"):
        checkpoint.read(write(tmp_path / "w.safetensors", {checkpoint.KEY: "{"}))


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + bytes(99), b"GIF89a" + bytes(range(99))])
def test_no_safetensors_at_all(tmp_path, data):
    path = tmp_path / "picture.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"is not a \.safetensors file"):
        checkpoint.read(path)


@pytest.mark.parametrize("deep", [b"[" * 100_000, b"\xff\xfe{}", b"[1]"])
def test_a_table_that_is_nonsense(tmp_path, deep):
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(CheckpointError, match="header"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]},
        {"dtype": "F99", "shape": [5], "data_offsets": [0, 20]},
        {"dtype": "F32", "shape": [-5], "data_offsets": [20, 0]},
        {"dtype": "F32", "shape": [5.0], "data_offsets": [0, 20]},
        {"dtype": "F32", "shape": 5, "data_offsets": [0]},
    ],
)
def test_an_entry_that_makes_no_sense(world, entry):
    with_table(world, lambda table: table.update({"dynamics.bias": entry}))
    with pytest.raises(CheckpointError, match=r"entry of tensor 'dynamics\.bias' makes no sense"):
        checkpoint.read(world)


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.safetensors"):
        with pytest.raises(CheckpointError, match="cannot read"):
            checkpoint.read(path)
        with pytest.raises(CheckpointError, match="cannot read"):
            checkpoint.fingerprint(path)


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Shipped: spark. The person's own: mine, flat, and a spark of theirs."""
    monkeypatch.setattr(paths, "models", lambda: tmp_path / "models")
    for place in (
        "models/spark/spark.safetensors",
        "models/spark/backup.safetensors",
        "own/mine/mine.safetensors",
        "own/flat.safetensors",
        "own/spark/spark.safetensors",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / place)
    monkeypatch.setattr(paths, "worlds", lambda: tmp_path / "own")
    return tmp_path


def test_find_by_name(house):
    assert checkpoint.shipped() == ["spark"]
    assert checkpoint.find("spark") == house / "models/spark/spark.safetensors"
    assert checkpoint.find("mine") == house / "own/mine/mine.safetensors"
    assert checkpoint.find("flat") == house / "own/flat.safetensors"


def test_find_where_nothing_knows_of_user_folders(house, monkeypatch):
    monkeypatch.setattr(paths, "worlds", WORLDS)
    monkeypatch.setitem(sys.modules, "platformdirs", None)  # as on a machine that only trains and measures
    with pytest.raises(ModuleNotFoundError):
        paths.worlds()
    assert checkpoint.names() == ["spark"]
    assert checkpoint.find("spark") == house / "models/spark/spark.safetensors"
    assert checkpoint.find(house / "own/mine") == house / "own/mine/mine.safetensors"


def test_find_by_path(house, monkeypatch):
    file = house / "own/flat.safetensors"
    assert checkpoint.find(file) == checkpoint.find(str(file)) == file
    assert checkpoint.find(house / "own/mine") == house / "own/mine/mine.safetensors"
    assert checkpoint.find(house / "models/spark") == house / "models/spark/spark.safetensors"
    monkeypatch.chdir(house / "own/mine")
    assert checkpoint.find(".") == Path("mine.safetensors")
    monkeypatch.setenv("HOME", str(house))
    assert checkpoint.find("~/own/mine") == house / "own/mine/mine.safetensors"


def test_find_says_what_there_is(house):
    with pytest.raises(
        CheckpointError, match=r"no world is called 'nowhere'.*worlds here: mine, flat, spark|flat.*mine"
    ):
        checkpoint.find("nowhere")
    (house / "none").mkdir()
    with pytest.raises(CheckpointError, match=r"has no \.safetensors file"):
        checkpoint.find(house / "none")
    for name in "ab":
        write(house / "none" / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"has several worlds; name one of a\.safetensors, b\.safetensors"):
        checkpoint.find(house / "none")


def test_find_where_there_is_no_world_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "models", lambda: tmp_path / "models")
    with pytest.raises(CheckpointError, match="none yet; train one"):
        checkpoint.find("spark")


def test_shipped_worlds_are_readable():
    for name in checkpoint.shipped():
        assert checkpoint.read(checkpoint.find(name)).world.name == name


def test_atomic_write(tmp_path):
    path = tmp_path / "a.bin"
    assert checkpoint.atomic_write(path, b"one") == path
    checkpoint.atomic_write(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_atomic_write_that_fails_leaves_what_was(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GenieError, match=r"cannot write .*No space left on device; choose another place"):
        checkpoint.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]
    with pytest.raises(GenieError, match="cannot write"):
        checkpoint.atomic_write(tmp_path / "no such folder" / "a.bin", b"new")
