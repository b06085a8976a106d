"""The static frame: the same frames as the engine's own loop, with everything that changes in device memory."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from engine_conformance import check_engine
from test_engine import PROMPT, RECIPES, WANDER, assert_same, contents, genie, history, pictures
from torch.utils._python_dispatch import TorchDispatchMode

from genie_play import ops, philox
from genie_play.engine import draw
from genie_play.engine.engine import GenieEngine
from genie_play.engine.fixed import FixedRing
from genie_play.nn.st_transformer import LayerKV
from genie_play.types import BackendError, Frame, GenieError, Prompt


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> str:
    return str(request.param)


SEED = 0x9ABC_DEF0_1234_5678


def key(seed: int = SEED, frame: int = 70_000) -> draw.Key:
    return draw.Key(torch.tensor([seed - 2**64]), torch.tensor([frame]))


def test_noise_in_device_memory_is_the_noise_of_numpy():
    positions = torch.tensor([0, 3, 919, 7])
    for step in (0, 5):
        ours = draw.token_uniforms(key(), positions, 30, step).numpy()
        assert np.array_equal(ours, philox.token_uniforms(SEED, positions.numpy(), 30, step, 70_000))
        ours = draw.position_uniforms(key(), positions, step).numpy()
        assert np.array_equal(ours, philox.position_uniforms(SEED, positions.numpy(), step, 70_000))
    many = torch.arange(200_000)
    ours = draw.position_uniforms(key(), many, 1).numpy()
    assert np.array_equal(ours, philox.position_uniforms(SEED, many.numpy(), 1, 70_000))
    # the words at the top of the range are held below 1
    top = torch.tensor([0xFFFFFFFF, 0xFFFFFE00, 0])
    assert np.array_equal(draw.uniform(top).numpy(), philox.uniform(top.numpy().astype(np.uint32)))


@pytest.mark.parametrize("variant", ["gumbel", "inverse"])
@pytest.mark.parametrize("which", [torch.tensor([4, 0, 22, 9]), 5])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_reveal_from_device_memory_is_reveal(variant, which, temperature):
    reference, g = ops.get("reference"), torch.Generator().manual_seed(1)
    hidden, head = torch.randn(2, 23, 32, generator=g), torch.randn(50, 32, generator=g)
    tokens = torch.randint(0, 50, (2, 23), generator=g).masked_fill(torch.rand(2, 23, generator=g) < 0.7, 50)
    table, base = torch.randn(51, 32, generator=g), torch.randn(2, 1, 32, generator=g)
    hidden[1, 4] = torch.nan
    more = {"variant": variant, "choice_temperature": 0.4}
    expected = reference.reveal(
        hidden, head, tokens, table, base, reference.Noise(SEED, 70_000, 3), which, temperature, **more
    )
    found = draw.reveal(hidden, head, tokens, table, base, key(), 3, which, temperature, **more)
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.x, expected.x)
    assert not torch.equal(found.tokens, tokens)


# the frame of an engine


PATHS = [
    {},
    {"order": "random", "temperature": 1.0, "last_argmax": False},
    {"order": "confidence", "steps": 4},
    {"steps": 99, "temperature": 0.0},
    {"steps": 1},
]


def wander(engine: GenieEngine, futures: bool = True) -> list[Frame]:
    """A play-through of three windows and more that uses every verb."""
    frames = [engine.reset(PROMPT, 9)]
    for action in WANDER[:13]:
        frames.append(engine.step(action))
        if action % 2:
            engine.settle()
    frames.append(engine.edit(pictures(1, 50)[0]))
    frames += [engine.step(action) for action in (1, 2)]
    if futures:
        frames += engine.futures(range(8))
    frames += [engine.step(3), engine.step(4, frames[2].tokens), engine.step(5)]
    back = history(frames[:8])
    frames += [engine.restore(back), engine.step(6)]
    engine._pool.clear()
    frames += [engine.restore(history(frames[:14])), engine.edit(pictures(1, 51)[0]), engine.step(0)]
    return frames


@pytest.mark.parametrize("path", PATHS)
def test_a_static_frame_is_the_engines_own_bit_for_bit(recipe, path, monkeypatch):
    # both on the blocks' own `stream`, whatever else an engine may run them by
    monkeypatch.setattr(GenieEngine, "_placed", lambda _, world: world.to(memory_format=torch.channels_last))
    eager, static = (GenieEngine(genie(recipe), frame=frame, **path) for frame in ("eager", "static"))
    assert (static.info.path["frame"], eager.info.path["frame"]) == ("static", "eager")
    # confidence draws all positions in one product where the reference draws the hidden ones: equal to rounding
    assert_same(wander(static), wander(eager))
    for ring, other in ((static._dynamics, eager._dynamics), (static._decoder, eager._decoder)):
        assert (ring.position, ring.start) == (other.position, other.start)
        same = [torch.equal(a, b) for ours, its in zip(ring.past(), other.past(), strict=True)
                for a, b in zip(ours, its, strict=True) if a is not None]  # fmt: skip
        assert all(same)
        assert len(same) > 2


def test_conformance_of_a_static_frame(recipe):
    check_engine(lambda: GenieEngine(genie(recipe), frame="static"), Prompt(pictures(2, 2)), exact_futures=False)


def test_a_fixed_ring_rewinds_and_loads(recipe):
    shape = dataclasses.replace(genie(recipe).dynamics.cache_shape, window=4)
    for fp8 in (False, True):
        ring, other = (FixedRing(shape, 12, True, torch.device("cpu"), fp8=fp8) for _ in range(2))
        g = torch.Generator().manual_seed(0)
        with pytest.raises(ValueError, match="no commit"):
            ring.rewind()
        for _ in range(9):
            kept = []
            for _ in range(shape.layers):
                spatial, temporal = torch.randn(2, 1, 2, 12, 32, generator=g), torch.randn(2, 1, 12, 2, 32, generator=g)
                kept.append(LayerKV(*spatial, *temporal))
            before = contents(ring)
            ring.commit(kept)
            after = contents(ring)
            keys, _, ages = ring.past()[0][2:]
            newest = keys[:, :, :, ages.tolist().index(1)]
            assert torch.allclose(newest, kept[0].temporal_k, rtol=0.07, atol=0.01)
            ring.rewind()
            assert all(torch.equal(a, b) for a, b in zip(contents(ring), before, strict=True))
            with pytest.raises(ValueError, match="no commit"):
                ring.rewind()
            ring.commit(kept)
            assert all(torch.equal(a, b) for a, b in zip(contents(ring), after, strict=True))
        assert ring.snapshot().nbytes == ring.nbytes
        other.load(ring.snapshot())
        assert (other.position, other.slot.item()) == (9, 1 if recipe == "anchored" else 0)
        assert all(torch.equal(a, b) for a, b in zip(contents(ring), contents(other), strict=True))
        ring.clear(5)
        assert (ring.position, ring.slot.item(), ring.ages.tolist()) == (5, 0 if recipe == "anchored" else 2, [4, 4, 4])


def test_a_merged_commit_is_a_commit(recipe, monkeypatch):
    apart, merged = (GenieEngine(genie(recipe), frame="static", commit=how) for how in ("apart", "merged"))
    # one operation after the other on the same shapes: on this path even the bits are the same
    assert_same(wander(merged), wander(apart))
    made = merged._static.frame.merged
    count = []
    monkeypatch.setattr(merged._static.frame, "merged", lambda batch: (count.append(batch), made(batch)))
    frames = [merged.reset(PROMPT, 9), *(merged.step(a) for a in WANDER[:9])]
    assert count == [1] * 8  # the first frame has nothing before it to read
    assert_same([merged.restore(history(frames[:6]))], [frames[5]])


def test_early_exit_is_off_at_certainty_and_saves_passes(recipe, monkeypatch):
    full = GenieEngine(genie(recipe), frame="static", steps=6)
    expected = [full.reset(PROMPT, 9), *(full.step(a) for a in WANDER[:6])]
    never = GenieEngine(genie(recipe), frame="static", steps=6, sure=1.0)
    assert_same([never.reset(PROMPT, 9), *(never.step(a) for a in WANDER[:6])], expected)
    quick = GenieEngine(genie(recipe), frame="static", steps=6, sure=1e-9)
    passes, one = [], quick._static.frame.one_pass
    monkeypatch.setattr(quick._static.frame, "one_pass", lambda *args: (passes.append(args[1:]), one(*args)))
    quick.reset(PROMPT, 9)
    frame = quick.step(3)
    assert passes == [(0, False), (1, True)]
    assert frame.tokens.max() < genie(recipe).dynamics.codes


@pytest.mark.parametrize("order", ["halton", "random", "confidence"])
def test_a_guided_frame_is_the_samplers(order):
    more = {"guidance": 2.5, "order": order, "steps": 4}

    def tokens(**path) -> list[bytes]:
        return [frame.tokens.tobytes() for frame in wander(GenieEngine(genie("anchored"), **path))]

    static = wander(GenieEngine(genie("anchored"), frame="static", **more))
    assert tokens(**more) == [frame.tokens.tobytes() for frame in static]
    assert_same(wander(GenieEngine(genie("anchored"), frame="static", commit="merged", **more)), static)
    assert_same(wander(GenieEngine(genie("anchored"), frame="static", sure=1.0, **more)), static)
    assert tokens(order=order, steps=4) != tokens(**more)


def test_numbers_that_are_not_finite_leave_the_play_through_intact(recipe):
    for how in ("apart", "merged"):
        engine = GenieEngine(genie(recipe), frame="static", commit=how)
        frames = [engine.reset(PROMPT, 9), engine.step(1), engine.step(2)]
        head = engine._genie.dynamics.head.weight
        saved = head.clone()
        head.fill_(torch.nan)
        for call in (lambda: engine.step(3), lambda: engine.futures([1, 2])):  # noqa: B023
            with pytest.raises(GenieError, match="not finite"):
                call()
        head.copy_(saved)
        enter = engine._genie.tokenizer.decoder.enter.bias
        saved = enter.clone()
        enter.fill_(torch.inf)
        with pytest.raises(GenieError, match="not finite"):
            engine.step(3)
        enter.copy_(saved)
        frames += [engine.step(3), engine.step(4)]
        whole = GenieEngine(genie(recipe), frame="static")
        assert_same(frames, [whole.reset(PROMPT, 9), *(whole.step(a) for a in (1, 2, 3, 4))])


def test_a_frame_asks_nothing_of_the_device(recipe):
    """On fake tensors every question (`.item()`, a branch on data, a copy to the host) is an error."""
    for path in ({}, {"order": "random"}, {"order": "confidence"}, {"guidance": 1.5}):
        if recipe == "paper" and "guidance" in path:
            continue
        engine = GenieEngine(genie(recipe), frame="static", **path)
        engine.reset(PROMPT, 9)
        engine.step(1)
        frame = engine._static.frame

        def everything(frame=frame):
            frame.draw(1)
            frame.draw(8)
            frame.show()
            frame.take(8)
            frame.commit()
            frame.merged(1)
            frame.begin(1)
            frame.one_pass(1, 0)
            frame.one_pass(1, 1, True)
            frame.end(1)

        with torch.inference_mode(), NoQuestions() as mode:
            everything()
        assert mode.calls > 1000


class NoQuestions(TorchDispatchMode):
    """Refuses what would make the host wait for the device, or make a shape of data."""

    ASKS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique")
    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        name = func.__name__
        assert not name.startswith(self.ASKS), f"{name} waits for the device"
        assert "aten::index.Tensor" not in str(func) or all(a is None or a.dtype != torch.bool for a in args[1])
        return func(*args, **(kwargs or {}))


def test_settings_that_do_not_go_together_are_refused():
    world = genie("teacher")
    with pytest.raises(BackendError, match="NVIDIA"):
        GenieEngine(world, device="cpu", frame="graph")
    for bad in ({"commit": "merged"}, {"blocks": "compiled"}, {"ring": "fp8"}):
        with pytest.raises(GenieError, match="static"):
            GenieEngine(world, **bad)
    with pytest.raises(GenieError, match="go together"):
        GenieEngine(world, frame="static", commit="merged", sure=0.5)
    with pytest.raises(GenieError, match=r"path\.frame"):
        GenieEngine(world, frame="whole")
