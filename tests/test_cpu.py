"""How a CPU plays: blocks against their twins, int8 against integers, what is left out, what is measured and let go."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from test_engine import PROMPT, WANDER, assert_same, genie, history, play

from genie_play import ops
from genie_play.checkpoint import Header
from genie_play.config import PathConfig
from genie_play.engine import arithmetic, calibration, cpu, timing
from genie_play.engine.engine import GenieEngine
from genie_play.engine.process import EngineProcess
from genie_play.engine.sampler import Sampler
from genie_play.engine.state import Ring
from genie_play.nn.genie import save_genie
from genie_play.nn.st_transformer import STBlock, stream_blocks
from genie_play.ops import reference
from genie_play.types import BackendError, CheckpointError, GenieError

# measured on these random weights, with room for other kernels; of the norm of what comes out
APART = {"fp32": 1e-5, "bf16": 3e-2, "int8": 1e-1}
HALF = torch.bfloat16

pytestmark = pytest.mark.usefixtures("_no_warnings")


@pytest.fixture
def _no_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


@pytest.fixture(params=arithmetic.ARITHMETICS)
def name(request: pytest.FixtureRequest) -> str:
    if reason := arithmetic.unfit(request.param):
        pytest.skip(reason)
    return str(request.param)


# linear layers


@pytest.mark.parametrize("relu", [False, True])
def test_a_linear_layer_is_a_product(name, relu):
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 7, 48, generator=g), torch.randn(40, 48, generator=g)
    expected = x @ weight.T
    found = arithmetic.layer(name)(weight, relu)(x).float()
    expected = expected.relu() if relu else expected
    assert found.shape == (2, 7, 40)
    assert (found - expected).norm() < {"fp32": 1e-6, "bf16": 1e-2, "int8": 2e-2}[name] * expected.norm()
    if name != "fp32":
        assert not torch.equal(found, expected)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_float32_by_either_library_is_a_product(relu, slow, monkeypatch):
    if slow and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(arithmetic, "mkl_is_slow", lambda: slow)
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 48, generator=g)
    layer = arithmetic.Linear32(weight, relu)
    assert layer._weight.is_mkldnn == slow
    for shape in ((1, 1, 48), (2, 7, 48), (8, 144, 48)):
        x = torch.randn(shape, generator=g)
        expected = (x @ weight.T).relu() if relu else x @ weight.T
        assert (layer(x) - expected).norm() < 1e-6 * expected.norm()


def test_int8_is_checked_against_integers(monkeypatch):
    if not arithmetic.int8_engine():
        pytest.skip("no exact int8 here")
    assert "no such engine" in arithmetic.int8_problem("abacus")
    # a kernel that keeps its sums in 16 bits
    right = arithmetic.Linear8.forward
    monkeypatch.setattr(arithmetic.Linear8, "forward", lambda self, x: right(self, x).clamp(-(2**15), 2**15 - 1))
    arithmetic.int8_engine.cache_clear()
    try:
        assert "wrong at" in arithmetic.int8_problem("onednn")
        assert arithmetic.int8_engine() == ""
        with pytest.raises(BackendError, match=r"int8 cannot run on this CPU: its products .*; choose") as raised:
            GenieEngine(genie("teacher"), arithmetic="int8")
        assert "\n" not in str(raised.value)
    finally:
        arithmetic.int8_engine.cache_clear()


def test_int8_takes_no_weights_that_are_not_finite():
    with pytest.raises(CheckpointError, match="not finite"):
        arithmetic.Linear8(torch.tensor([[1.0, torch.inf]]))


# blocks


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("cross_frame", [False, True])
@torch.inference_mode()
def test_a_block_is_its_twin_before_and_after_the_ring_wraps(name, cross_frame, tiles, monkeypatch):
    monkeypatch.setattr(cpu, "has_tiles", lambda: tiles)
    g = torch.Generator().manual_seed(3)
    width, heads, size, window, grid = 48, 3, 16, 4, (3, 5)
    block = STBlock(width, heads, size, 2.0, window, grid, rotary=cross_frame, cross_frame=cross_frame).eval()
    for p in block.parameters():
        p.copy_(torch.randn(p.shape, generator=g) * (0.5 if p.dim() < 2 else p[0].numel() ** -0.5))
    twin = cpu.CpuBlock(block, name)

    def ring(dtype: torch.dtype) -> Ring:
        shape = genie("teacher").tokenizer.decoder_shape
        shape = dataclasses.replace(shape, layers=1, heads=heads, head_dim=size, window=window)
        return Ring(shape, 15, cross_frame, torch.device("cpu"), dtype)

    ours, theirs = ring(HALF if name == "bf16" else torch.float32), ring(torch.float32)
    rows = torch.tensor([11, 0, 4])
    for x in torch.randn(10, 1, 15, width, generator=g):
        found, kept = twin.stream(x, ours.past()[0])
        expected, its = block.stream(x, theirs.past()[0])
        assert found.dtype == torch.float32
        assert (found - expected).norm() < APART[name] * expected.norm()
        for part in (found, expected), (twin.stream(x, ours.past()[0], rows)[0], found[:, rows]):
            assert (part[0] - part[1]).norm() < APART[name] * expected.norm()
        assert torch.allclose(block.stream(x, theirs.past()[0], rows)[0], expected[:, rows], atol=1e-5)
        # three play-throughs that share this past
        batch = torch.cat((x, x.flip(1), x * 0.5))
        found, expected = (b.stream(batch, r.past()[0])[0] for b, r in ((twin, ours), (block, theirs)))
        assert (found - expected).norm() < APART[name] * expected.norm()
        ours.commit([kept])
        theirs.commit([its])


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (3, 3), (3, 1)])
@pytest.mark.parametrize(("slots", "size"), [(1, 8), (7, 32), (15, 32), (20, 16)])
def test_attention_along_time_is_its_twin(dtype, batch, rows, slots, size):
    g = torch.Generator().manual_seed(slots)
    q, k, v = (torch.randn(batch, 5, 2, size, generator=g).to(dtype) for _ in range(3))
    ring_k, ring_v = (torch.randn(rows, 5, 2, slots, size, generator=g).to(dtype) for _ in range(2))
    bias = torch.randn(2, slots + 1, generator=g)
    bias[:, : slots // 2] = -torch.inf
    # plainly, by the formula, in float64
    before = torch.einsum("bnhpd,bnhd->bnhp", ring_k.double().expand(batch, -1, -1, -1, -1), q.double())
    scores = torch.cat((before, (q.double() * k.double()).sum(-1, keepdim=True)), -1) + bias.double()
    values = torch.cat((ring_v.double().expand(batch, -1, -1, -1, -1), v.double()[..., None, :]), 3)
    expected = (scores.softmax(-1)[..., None] * values).sum(3)
    atol = 1e-5 if dtype == torch.float32 else 6e-2  # bfloat16 keeps eight bits
    wide = torch.nn.functional.pad(bias, (0, 5), value=-torch.inf)
    for found in (
        reference.temporal(q, k, v, ring_k, ring_v, bias),
        cpu.temporal(q, k, v, ring_k, ring_v, bias),
        cpu.temporal(q, k, v, ring_k, ring_v, wide),
    ):
        assert found.dtype == dtype
        assert torch.allclose(found.double(), expected, atol=atol)


# the sampler


def sampler(**path) -> tuple[Sampler, Ring]:
    dynamics = genie("teacher").dynamics
    ring = Ring(dynamics.cache_shape, dynamics.n_tokens, True, torch.device("cpu"))
    return Sampler(dynamics, ops.get("reference"), PathConfig(**{"steps": 5, "last_argmax": False, **path})), ring


@pytest.mark.parametrize("order", ["halton", "random", "confidence"])
@torch.inference_mode()
def test_rows_that_nobody_reads_make_no_difference(order, monkeypatch):
    made, ring = sampler(order=order)
    left, stream = [], made.dynamics.stream

    def counted(x, past, rows=None):
        left.append(12 if rows is None else len(rows))
        return stream(x, past, rows)

    monkeypatch.setattr(made.dynamics, "stream", counted)
    found = made.sample(ring.past(), torch.tensor([3, 5]), 7, 5).tokens
    assert sum(left) < 12 * 5
    monkeypatch.setattr(made, "_rows", lambda *_: None)
    whole = made.sample(ring.past(), torch.tensor([3, 5]), 7, 5).tokens
    # the draws of these weights have margins far above what another order of sums changes
    assert torch.equal(found, whole)


@pytest.mark.parametrize("order", ["halton", "confidence"])
@torch.inference_mode()
def test_a_frame_that_is_sure_stops_early_and_by_itself(order, monkeypatch):
    def passes(**path) -> tuple[torch.Tensor, int]:
        made, ring = sampler(order=order, **path)
        calls, stream = [], made.dynamics.stream
        monkeypatch.setattr(made.dynamics, "stream", lambda *a: (calls.append(1), stream(*a))[1])
        tokens = made.sample(ring.past(), torch.arange(8), 7, 5).tokens
        monkeypatch.setattr(made.dynamics, "stream", stream)
        assert tokens.max() < made.dynamics.codes
        return tokens, len(calls)

    plain, steps = passes()
    assert steps == 5
    never, steps = passes(sure=1.0)
    assert (steps, never.equal(plain)) == (5, True)
    at_once, steps = passes(sure=1e-9)
    assert steps == 2
    assert not at_once.equal(plain)
    # somewhere between, some of the eight stop and others do not; each does as it would alone
    for sure in np.linspace(0.04, 0.11, 30).tolist():
        made, ring = sampler(order=order, sure=sure)
        together = made.sample(ring.past(), torch.arange(8), 7, 5).tokens
        alone = torch.cat([made.sample(ring.past(), torch.tensor([a]), 7, 5).tokens for a in range(8)])
        assert torch.equal(together, alone)
        same = (together == plain).all(1)
        if mixed := bool(same.any() and not same.all()):
            break
    assert mixed


# the engine


@pytest.mark.parametrize("recipe", ["teacher", "paper"])
def test_every_arithmetic_keeps_the_promises(name, recipe):
    engine = GenieEngine(genie(recipe), arithmetic=name)
    frames = play(engine, WANDER[:20])
    assert len({frame.tokens.tobytes() for frame in frames}) > 15
    assert_same(play(GenieEngine(genie(recipe), **engine.info.path), WANDER[:20]), frames)
    fresh = GenieEngine(genie(recipe), arithmetic=name)
    assert_same([fresh.restore(history(frames[:13])), *(fresh.step(a) for a in WANDER[12:20])], frames[12:])
    futures = engine.futures(range(8))
    assert [frame.action for frame in futures] == list(range(8))
    engine.restore(history(frames[:13]))
    assert_same([engine.step(WANDER[12])], frames[13:14])
    exact = play(GenieEngine(genie(recipe)), WANDER[:20])
    assert np.array_equal(frames[0].tokens, exact[0].tokens)  # the encoder stays in float32


@pytest.mark.parametrize("part", ["head", "decoder", "embedding"])
def test_numbers_that_are_not_finite_are_an_error_in_every_arithmetic(name, part):
    engine = GenieEngine(genie("teacher"), arithmetic=name)
    world = engine._genie
    frames = play(engine, WANDER[:6])
    engine.restore(history(frames[:4]))
    weight = {
        "head": world.dynamics.head.weight,
        "decoder": world.tokenizer.decoder.enter.weight,
        "embedding": engine._sampler.table,
    }[part]
    with torch.inference_mode():
        good = weight.clone()
        for bad in (torch.nan, torch.inf):
            weight[-1 if part == "embedding" else 3] = bad
            for _ in range(2):
                with pytest.raises(GenieError, match="not finite"):
                    engine.step(WANDER[3])
            weight.copy_(good)
    assert_same([engine.step(action) for action in WANDER[3:6]], frames[4:])


def test_a_world_that_ships_what_this_machine_lacks(tmp_path, monkeypatch, caplog):
    file = tmp_path / "world.safetensors"
    save_genie(genie("teacher"), Header(genie("teacher").config, PathConfig(arithmetic="int8", steps=3)), file)
    monkeypatch.setattr(arithmetic, "unfit", lambda name: "it has no fingers" if name == "int8" else "")
    engine = GenieEngine(file, "cpu")
    assert engine.path.arithmetic == "fp32"
    assert caplog.messages == ["int8 cannot run on this CPU (it has no fingers); playing in fp32"]
    for asked in ({"arithmetic": "int8"}, engine.info.path | {"arithmetic": "int8"}):
        with pytest.raises(BackendError, match="no fingers"):
            GenieEngine(file, **asked)
    monkeypatch.setattr("genie_play.engine.engine.find_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr("genie_play.ops.choose", lambda *_: ("reference", reference))
    with pytest.raises(BackendError, match="for CPUs"):
        GenieEngine(genie("teacher"), "cuda", arithmetic="int8")


# calibration


def passes(seconds: dict[tuple[str, int], float], now: list[float], bits: float = 0.0) -> dict:
    def run(name: str) -> torch.Tensor:
        now[0] += seconds[name, torch.get_num_threads()]
        return torch.full((2,), bits * torch.get_num_threads())

    return {name: (lambda n=name: run(n)) for name in dict.fromkeys(name for name, _ in seconds)}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((10, 10, 10, 10), ("fp32", 1)),
        ((10, 9, 10, 9), ("fp32", 1)),  # not worth it
        ((10, 6, 10, 8), ("fp32", 2)),
        ((10, 6, 5, 4.9), ("int8", 1)),
        ((10, 6, 5, 3), ("int8", 2)),
        ((10, 80, 5, 40), ("int8", 1)),  # a busy machine
    ],
)
def test_the_clearly_fastest_path_is_chosen(seconds, expected):
    now = [0.0]
    keys = itertools.product(("fp32", "int8"), (1, 2))
    works = passes(dict(zip(keys, map(float, seconds), strict=True)), now)
    try:
        found = calibration.calibrate(PathConfig(steps=3), works, lambda: now[0], cores=2)
        assert torch.get_num_threads() == expected[1]
    finally:
        torch.set_num_threads(1)
    assert found.path == PathConfig(steps=3, arithmetic=expected[0], threads=expected[1])
    assert found.alone == float(seconds[2 * (expected[0] == "int8")])
    assert found.same_bits


def test_threads_that_change_bits_are_noticed():
    now = [0.0]
    works = passes({("fp32", 1): 3.0, ("fp32", 2): 2.0}, now, bits=1.0)
    try:
        assert not calibration.calibrate(PathConfig(), works, lambda: now[0], cores=2).same_bits
    finally:
        torch.set_num_threads(1)


def test_a_world_is_played_in_what_it_accepts(monkeypatch):
    monkeypatch.setattr(arithmetic, "unfit", lambda name: "" if name != "int8" else "no")
    monkeypatch.setattr(arithmetic, "has_bf16", lambda: True)
    assert calibration.able(("fp32",)) == ["fp32"]
    assert calibration.able(("fp32", "int8", "bf16")) == ["fp32", "bf16"]
    monkeypatch.setattr(arithmetic, "has_bf16", lambda: False)
    assert calibration.able(("fp32", "int8", "bf16")) == ["fp32"]  # emulated is slow


def test_the_watch_forgives_hiccups_and_not_a_bad_stretch():
    watch = calibration.Watch(1.0)
    assert not any(watch.add(9.0) for _ in range(calibration.STRETCH - 1))
    watch = calibration.Watch(1.0)
    assert not any(watch.add(9.0 if frame % 21 == 0 else 1.4) for frame in range(200))
    assert any(watch.add(1.6) for _ in range(calibration.STRETCH))


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[GenieEngine]:
    """An engine of two threads whose bits differ from one's, and that were found to be slow."""
    file = tmp_path / "world.safetensors"
    save_genie(genie("teacher"), Header(genie("teacher").config, PathConfig(steps=3)), file, torch.float32)

    def two(path: PathConfig, passes) -> calibration.Calibration:
        return calibration.Calibration(dataclasses.replace(path, threads=2), {("fp32", 1): 1e-9}, False)

    monkeypatch.setattr(calibration, "calibrate", two)
    monkeypatch.setattr(calibration, "STRETCH", 6)
    yield GenieEngine(file, calibrate=True)
    torch.set_num_threads(1)


def test_threads_are_let_go_between_two_steps(calibrated, caplog):
    engine, paths = calibrated, []
    assert (engine.info.path["threads"], torch.get_num_threads()) == (2, 2)
    frames = [engine.reset(PROMPT, 9)]
    for action in WANDER[:14]:
        frames.append(engine.step(action))
        paths.append(engine.info.path["threads"])
    assert paths == [2] * 6 + [1] * 8
    assert torch.get_num_threads() == 1
    assert [message.partition(" ")[0] for message in caplog.messages] == ["2"]
    # the caches were made anew, so that another engine on the new path computes the rest alike
    assert_same(play(GenieEngine(genie("teacher")), WANDER[:14]), frames)
    fresh = GenieEngine(genie("teacher"))
    assert_same([fresh.restore(history(frames[:7])), *(fresh.step(a) for a in WANDER[6:14])], frames[6:])


def test_a_calibrated_engine_plays_and_says_its_path(tmp_path):
    file = tmp_path / "world.safetensors"
    save_genie(genie("teacher"), Header(genie("teacher").config, PathConfig(steps=3)), file, torch.float32)
    try:
        engine = GenieEngine(file, calibrate=True)
        assert engine.path.arithmetic == "fp32"
        frames = play(engine, WANDER[:5])
        assert_same(play(GenieEngine(file, **engine.info.path), WANDER[:5]), frames)
    finally:
        torch.set_num_threads(1)


class Turncoat:
    """An engine whose path changes at the second step."""

    def __init__(self) -> None:
        self._engine = GenieEngine(genie("teacher"))
        self.info, self.count = self._engine.info, 0

    def __getattr__(self, verb: str):
        return getattr(self._engine, verb)

    def step(self, action: int, tokens=None):
        self.count += 1
        if self.count == 2:
            self.info = dataclasses.replace(self.info, path={**self.info.path, "threads": 7})
        return self._engine.step(action, tokens)


def test_a_new_path_is_known_before_the_step_that_was_made_on_it():
    engine = EngineProcess("test_cpu:Turncoat")
    try:
        engine.reset(PROMPT, 9)
        threads = []
        for action in (1, 2, 3):
            engine.step(action)
            threads.append(engine.info.path["threads"])
        assert threads == [1, 7, 7]
    finally:
        engine.close()


# timing


def test_timing_times_a_frame_with_and_without_the_cache():
    dynamics = genie("teacher").dynamics
    path = PathConfig(steps=4)
    works = {"cached": timing.cached_frame(dynamics, path), "recomputed": timing.recomputed_frame(dynamics, path)}
    calls, stream = [], dynamics.stream
    spent = timing.in_turn(works, rounds=3, warm_up=1)
    assert [len(times) for times in spent.values()] == [3, 3]
    assert all(seconds > 0 for times in spent.values() for seconds in times)
    try:
        dynamics.stream = lambda *a: (calls.append(1), stream(*a))[1]
        works["cached"]()
    finally:
        del dynamics.stream
    assert len(calls) == 5  # four passes and the commit


def test_placing_leaves_the_blocks_as_they_are():
    blocks = genie("teacher").dynamics.blocks
    before = [p.clone() for p in blocks.parameters()]
    made = cpu.placed(blocks, "bf16")
    assert all(torch.equal(a, b) for a, b in zip(before, blocks.parameters(), strict=True))
    x = torch.randn(1, 12, 64)
    ring = Ring(genie("teacher").dynamics.cache_shape, 12, True, torch.device("cpu"), HALF)
    with torch.inference_mode():
        assert stream_blocks(made, x, ring.past())[0].shape == x.shape
