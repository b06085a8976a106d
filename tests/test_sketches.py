"""The twelve test sketches: the same every time, apart from what worlds are trained on, frozen."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import genie_play
from genie_play.eval import sketches
from genie_play.media import pictures

# of the strokes as they were before any world was judged by them: who changes a stroke judges by another test
FROZEN = "a672dab885e5c734"


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    return {name: sketches.draw(name) for name in sketches.names()}


def test_the_strokes_are_frozen():
    table = json.loads(sketches.strokes_file().read_text(encoding="utf-8"))
    found = hashlib.blake2s(json.dumps(table, sort_keys=True).encode()).hexdigest()[:16]
    assert found == FROZEN


def test_twelve_and_no_two_alike(drawn):
    assert len(drawn) == 12
    small = [pictures.load(picture, (64, 96)).pixels.astype(int) for picture in drawn.values()]
    for i, one in enumerate(small):
        assert drawn[sketches.names()[i]].shape == (360, 480, 3)
        assert min(np.abs(one - other).mean() for j, other in enumerate(small) if j != i) > 8


def test_drawing_again_gives_the_same_bytes(drawn):
    for name in sketches.names()[::4]:
        np.testing.assert_array_equal(sketches.draw(name), drawn[name])
        assert pictures.to_png(sketches.draw(name)) == pictures.to_png(drawn[name])


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_strokes_survive_at_the_size_of_a_world(drawn, size):
    for name, picture in drawn.items():
        seen = pictures.load(picture, size).pixels.astype(int)
        paper = np.median(seen.reshape(-1, 3), 0)
        marked = np.abs(seen - paper).sum(-1) > 60
        assert marked.mean() > 0.03, name
        # ground in the lower half, from side to side or nearly so
        assert marked[size[0] // 2 :].any(0).mean() > 0.8, name


def test_nothing_of_the_game_draws_them_and_nothing_that_trains_knows_them():
    tree = ast.parse(Path(sketches.__file__).read_text(encoding="utf-8"))
    modules = {
        name
        for node in ast.walk(tree)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        + ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
    }
    assert {name for name in modules if name.startswith("genie_play")} == {"genie_play"}
    house = Path(genie_play.__file__).parent
    for room in ("data", "train", "nn"):
        for path in (house / room).glob("*.py"):
            assert "sketches" not in path.read_text(encoding="utf-8"), path
