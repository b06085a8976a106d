"""The shipped prompts: made by their script, scenes with somebody in the middle, sketches among them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from genie_play import paths
from genie_play.data import looks
from genie_play.data.platformer import PlatformerEngine
from genie_play.types import Prompt

FOLDER = paths.assets() / "prompts"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_prompts", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small(path: Path) -> np.ndarray:
    """As a 64 x 64 world gets it: averaged over areas."""
    return np.asarray(Image.open(path).convert("RGB").resize((64, 64), Image.Resampling.BOX))


def test_the_script_makes_what_is_shipped(maker, tmp_path):
    made = maker.make(tmp_path)
    shipped = sorted(FOLDER.glob("*.png"))
    assert [path.name for path in made] == [path.name for path in shipped]
    for new, old in zip(made, shipped, strict=True):
        # pixels, as the bytes of a PNG differ between versions of zlib
        np.testing.assert_array_equal(np.asarray(Image.open(new)), np.asarray(Image.open(old)))
    again = tmp_path / "again"
    again.mkdir()
    for one, other in zip(made, maker.make(again), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_dozen_and_five_sketches(maker):
    shipped = sorted(FOLDER.glob("*.png"))
    assert len(shipped) >= 12
    assert len(maker.SKETCHES) >= 5
    for path in shipped:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", path.stem)
        with Image.open(path) as picture:
            assert min(picture.size) >= 256
            assert picture.mode == "RGB"
        assert path.stat().st_size < 40_000


def test_somebody_stands_in_the_middle_on_ground():
    for path in sorted(FOLDER.glob("*.png")):
        picture = small(path).astype(int)
        middle, beside = picture[28:40, 28:36].reshape(-1, 3), picture[28:40, 24:40].reshape(-1, 3)
        usual = np.median(np.concatenate([picture[14:27, 26:38].reshape(-1, 3), beside]), axis=0)
        assert (np.abs(middle - usual).sum(1) > 90).mean() > 0.2, path.name
        # the ground's edge under the feet
        assert np.abs(np.diff(picture[37:43, 28:36].sum(-1), axis=0)).max(axis=0).min() > 40, path.name


def test_scenes_come_from_held_out_looks(maker):
    assert len(maker.SCENES) >= 6
    assert all(look < len(looks.HELD_OUT) for _, look, _ in maker.SCENES.values())


def test_the_game_tells_sketches_from_scenes(maker):
    engine = PlatformerEngine((64, 64))
    sketches = {draw.__name__.replace("_", "-") for draw in maker.SKETCHES}
    for path in sorted(FOLDER.glob("*.png")):
        frame = engine.reset(Prompt(small(path)[None], path.stem), 0)
        assert (looks.FAMILIES[frame.tokens[0]] == "sketch") == (path.stem in sketches), path.name
