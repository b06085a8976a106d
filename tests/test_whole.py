"""All blocks as one graph of OpenVINO, where it is installed: the same frames, and a clear word where it is not."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from test_engine import PROMPT, WANDER, assert_same, genie, history, play

from genie_play.engine import whole
from genie_play.engine.engine import GenieEngine
from genie_play.engine.state import Ring
from genie_play.nn.st_transformer import stream_blocks
from genie_play.types import BackendError, GenieError

# measured on these random weights, with room for other processors; of the norm of what comes out
APART = {"fp32": 1e-5, "bf16": 5e-2, "int8": 0.1}


@pytest.fixture
def openvino():
    return pytest.importorskip("openvino")


@torch.inference_mode()
@pytest.mark.parametrize("recipe", ["anchored", "paper"])
@pytest.mark.parametrize("arithmetic", ["fp32", "bf16", "int8"])
def test_graphs_are_the_blocks(openvino, recipe, arithmetic):
    dynamics = genie(recipe).dynamics
    stack = whole.WholeStack(dynamics.blocks, arithmetic, 1)
    cross, generator = recipe != "paper", torch.Generator().manual_seed(3)
    rings = [Ring(dynamics.cache_shape, 12, cross, torch.device("cpu")) for _ in range(2)]
    passes = []
    for _ in range(7):  # past the window, which is 4
        x = torch.randn(1, 12, dynamics.config.width, generator=generator)
        rows = torch.randperm(12, generator=generator)[:5].sort().values
        found, kept = stream_blocks(stack, x, rings[0].past())
        few, _ = stream_blocks(stack, x, rings[0].past(), rows)
        passes.append((found, few, stream_blocks(dynamics.blocks, x, rings[1].past())[0], rows))
        rings[0].commit(kept)
        rings[1].commit(stream_blocks(dynamics.blocks, x, rings[1].past())[1])
    for found, few, expected, rows in passes:
        assert (found - expected).norm() < APART[arithmetic] * expected.norm()
        assert (few - expected[:, rows]).norm() < APART[arithmetic] * expected[:, rows].norm()
    if arithmetic != "fp32":
        assert (found - expected).norm() > 1e-5 * expected.norm()
    # several rows at once go through the blocks
    two = torch.randn(2, 12, dynamics.config.width, generator=generator)
    expected = stream_blocks(dynamics.blocks, two, rings[1].past())[0]
    assert (stream_blocks(stack, two, rings[0].past())[0] - expected).norm() < 3 * APART[arithmetic] * expected.norm()


def test_it_plays_as_the_blocks_do(openvino):
    plain = play(GenieEngine(genie("anchored")), WANDER)
    engine = GenieEngine(genie("anchored"), blocks="openvino")
    assert (engine.info.path["blocks"], engine.info.path["arithmetic"]) == ("openvino", "fp32")
    frames = play(engine, WANDER)
    assert sum(np.array_equal(a.tokens, b.tokens) for a, b in zip(frames, plain, strict=True)) > 0.8 * len(frames)
    # what it drew it draws again: in another engine, after a rebuild, beside eight futures
    assert_same(play(GenieEngine(genie("anchored"), blocks="openvino"), WANDER), frames)
    engine.restore(history(frames[:20]))
    assert len(engine.futures(range(8))) == 8
    assert_same([engine.step(action) for action in WANDER[19:23]], frames[20:24])
    half = GenieEngine(genie("anchored"), blocks="openvino", arithmetic="bf16")
    assert len(play(half, WANDER[:6])) == 7


def test_numbers_that_are_not_finite_are_an_error(openvino):
    engine = GenieEngine(genie("anchored"), blocks="openvino")
    frames = play(engine, WANDER[:6])
    engine.restore(history(frames[:4]))
    with torch.inference_mode():
        engine._sampler.table[-1] = torch.nan
    with pytest.raises(GenieError, match="not finite"):
        engine.step(WANDER[3])


def test_where_it_is_wrong_or_missing_it_is_refused(openvino, monkeypatch):
    monkeypatch.setitem(whole.TOLERANCE, "fp32", 0.0)
    with pytest.raises(BackendError, match="OpenVINO is off by"):
        GenieEngine(genie("anchored"), blocks="openvino")
    test_without_the_package_it_says_what_to_install(monkeypatch)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    find = importlib.import_module

    def missing(name, *rest):
        if name == "openvino":
            raise ImportError(name)
        return find(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BackendError, match="pip install openvino"):
        GenieEngine(genie("anchored"), blocks="openvino")
    with pytest.raises(BackendError, match=r"path\.frame eager"):
        GenieEngine(genie("anchored"), blocks="openvino", frame="static")
    assert play(GenieEngine(genie("anchored")), WANDER[:2], PROMPT)
