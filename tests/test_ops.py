"""Every kernel backend against the definition, spelled out in float64; noise, ties, counts, odds.

Triton runs under its interpreter in a process of its own (TRITON_INTERPRET has to be set before it is imported): the
last test starts this file and `test_layer_ops` again there. On a machine with an NVIDIA GPU it runs compiled as well.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genie_play import ops, philox
from genie_play.ops.reference import Noise
from genie_play.types import BackendError

BACKENDS = ops.available()
INTERPRETED = "TRITON_INTERPRET" in os.environ
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
SEED = 0xFEDCBA9876543210
SHAPES = [(1, 1, 2, 8), (2, 23, 100, 24), (3, 17, 300, 70)]  # B, N, V, D
CASES = [(SHAPES[0], 1.0), (SHAPES[1], 0.0), (SHAPES[1], 50.0), (SHAPES[2], 0.0), (SHAPES[2], 0.02), (SHAPES[2], 1.0)]


@dataclass(frozen=True)
class Case:
    """The arguments of `reveal`."""

    hidden: torch.Tensor
    head: torch.Tensor
    tokens: torch.Tensor
    table: torch.Tensor
    base: torch.Tensor
    noise: Noise
    which: torch.Tensor | int
    temperature: float
    choice_temperature: float = 0.0

    def on(self, backend: str) -> Any:
        """What a backend makes of it, on the host again."""
        args = [getattr(self, f.name) for f in dataclasses.fields(self)]
        *args, choice = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in args]
        revealed = ops.get(backend).reveal(*args, choice_temperature=choice)
        return type(revealed)(revealed.tokens.cpu(), revealed.x.cpu())

    def but(self, **changes: Any) -> Case:
        return dataclasses.replace(self, **changes)


def make_case(shape: tuple[int, int, int, int], temperature: float, ranked: bool, **changes: Any) -> Case:
    """A case in which no two scores that matter are closer than 1e-4: re-seeded until that holds."""
    for seed in range(100):
        batch, n, codes, width = shape
        g = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, codes, (batch, n), generator=g)
        case = Case(
            hidden=torch.randn(batch, n, width, generator=g),
            head=torch.randn(codes, width, generator=g) * 2 / width**0.5,
            tokens=torch.where(torch.rand(batch, n, generator=g) < 0.7, codes, tokens),
            table=torch.randn(codes + 1, width, generator=g),
            base=torch.randn(batch, 1, width, generator=g),
            noise=Noise(SEED + seed, 2**32 - 1 - seed, 3),
            which=n // 3 + 1 if ranked else torch.randperm(n, generator=g)[: n // 2 + 1],
            temperature=temperature,
            choice_temperature=0.5 if ranked else 0.0,
        ).but(**changes)
        expected, margin = spelled_out(case)
        if margin > 1e-4:
            assert (expected != case.tokens).any() or n == 1
            return case
    raise AssertionError("no seed has the margin")


def spelled_out(case: Case) -> tuple[torch.Tensor, float]:
    """Tokens as the docstring of `reveal` defines them, in float64, and the smallest gap that decided something."""
    codes, (batch, n), (seed, frame, step) = len(case.head), case.tokens.shape, case.noise
    logits = case.hidden.double().numpy() @ case.head.double().numpy().T
    scaled = logits / case.temperature if case.temperature else logits
    uniforms = philox.token_uniforms(seed, np.arange(n), codes, step, frame).astype(np.float64)
    noise = -np.log(-np.log(uniforms)) if case.temperature else np.zeros_like(uniforms)
    chances = philox.position_uniforms(seed, np.arange(n), step, frame).astype(np.float64)
    result, margin = case.tokens.clone(), np.inf
    for b in range(batch):
        hidden = [i for i in range(n) if case.tokens[b, i] == codes]
        drawn = {}
        for i in hidden:
            scores = scaled[b, i] + noise[i]
            best, second = np.sort(scores)[-1], np.sort(scores)[-2]
            drawn[i] = int(scores.argmax()), best - second
        if isinstance(case.which, int):
            confidence = {}
            for i in hidden:
                log_p = scaled[b, i] - np.log(np.exp(scaled[b, i] - scaled[b, i].max()).sum()) - scaled[b, i].max()
                confidence[i] = log_p[drawn[i][0]] - case.choice_temperature * np.log(-np.log(chances[i]))
            order = sorted(hidden, key=lambda i: (-confidence[i], i))
            chosen = order[: case.which]
            margin = min([margin, *(drawn[i][1] for i in hidden)])
            if chosen and len(order) > len(chosen):
                margin = min(margin, confidence[chosen[-1]] - confidence[order[len(chosen)]])
        else:
            chosen = [i for i in hidden if i in case.which]
            margin = min([margin, *(drawn[i][1] for i in chosen)])
        for i in chosen:
            result[b, i] = drawn[i][0]
    return result, margin


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize(("shape", "temperature"), CASES)
def test_reveal_is_what_its_definition_says(backend, shape, temperature, ranked):
    case = make_case(shape, temperature, ranked)
    before = [a.clone() for a in (case.hidden, case.tokens, case.base)]
    revealed = case.on(backend)
    expected, _ = spelled_out(case)
    assert torch.equal(revealed.tokens, expected)
    assert torch.equal(revealed.x, case.table[expected] + case.base)
    assert all(torch.equal(a, b) for a, b in zip(before, (case.hidden, case.tokens, case.base), strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ranked", [False, True])
def test_reveal_in_bfloat16_multiplies_in_float32(backend, ranked):
    case = make_case(SHAPES[1], 1.0, ranked)
    case = make_case(SHAPES[1], 1.0, ranked, hidden=case.hidden.bfloat16(), head=case.head.bfloat16())
    revealed = case.on(backend)
    assert torch.equal(revealed.tokens, spelled_out(case)[0])
    # one unit in the last place: the interpreter cuts where hardware rounds
    x = case.but(table=case.table.bfloat16(), base=case.base.bfloat16()).on(backend).x
    assert x.dtype == torch.bfloat16
    assert torch.allclose(x.float(), revealed.x.bfloat16().float(), rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ranked", [False, True])
def test_all_masked_one_left_none_left(backend, ranked):
    codes, n = 100, 23
    full = torch.full((2, n), codes)
    every = n if ranked else torch.arange(n)
    case = make_case(SHAPES[1], 1.0, ranked, tokens=full, which=every)
    done = case.on(backend).tokens
    assert torch.equal(done, spelled_out(case)[0])
    assert done.max() < codes
    one = case.tokens.clone()
    one[:, :] = done
    one[0, 7] = codes
    last = case.but(tokens=one).on(backend).tokens
    assert torch.equal(last, done)
    assert torch.equal(case.but(tokens=done).on(backend).tokens, done)
    nothing = case.but(which=0 if ranked else torch.arange(0)).on(backend)
    assert torch.equal(nothing.tokens, full)
    assert torch.equal(nothing.x, case.table[full] + case.base)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_go_to_the_lowest_code_and_the_lowest_position(backend):
    case = make_case(SHAPES[2], 0.0, False)
    head = torch.zeros_like(case.head)
    head[[9, 140, 299]] = 1.0  # in three tiles or splits
    case = case.but(hidden=case.hidden.abs(), head=head, tokens=torch.full_like(case.tokens, 300))
    assert case.but(which=torch.arange(17)).on(backend).tokens.eq(9).all()
    even = case.but(hidden=torch.ones_like(case.hidden), choice_temperature=0.0)
    for count in (1, 5, 16, 17, 40):
        tokens = even.but(which=count).on(backend).tokens
        assert tokens.ne(300).sum(1).tolist() == [min(count, 17)] * 3
        assert tokens[:, : min(count, 17)].eq(9).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ranked", [False, True])
def test_rows_of_a_batch_share_their_draws_and_nothing_else(backend, ranked):
    case = make_case(SHAPES[1], 1.0, ranked)
    same = case.but(hidden=case.hidden[:1].expand(3, -1, -1), tokens=case.tokens[:1].expand(3, -1), base=case.base[:1])
    tokens = same.on(backend).tokens
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0], tokens[2])
    both = case.on(backend).tokens
    for row in range(2):
        alone = case.but(
            hidden=case.hidden[row : row + 1], tokens=case.tokens[row : row + 1], base=case.base[row : row + 1]
        )
        assert torch.equal(alone.on(backend).tokens[0], both[row])
    assert not torch.equal(case.but(noise=case.noise._replace(seed=SEED - 1)).on(backend).tokens, both)
    assert not torch.equal(case.but(noise=case.noise._replace(frame=5)).on(backend).tokens, both)
    assert not torch.equal(case.but(noise=case.noise._replace(step=4)).on(backend).tokens, both)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:All-NaN slice")  # the interpreter is NumPy
def test_rows_that_are_not_finite_stay_hidden(backend, ranked, temperature):
    case = make_case(SHAPES[1], temperature, ranked, tokens=torch.full((2, 23), 100))
    case = case.but(which=23 if ranked else torch.arange(23))
    fine = case.on(backend).tokens
    hidden = case.hidden.clone()
    hidden[0, 4] = torch.nan
    hidden[1, 20, 3] = torch.inf
    tokens = case.but(hidden=hidden).on(backend).tokens
    assert (tokens == 100).nonzero().tolist() == [[0, 4], [1, 20]]
    assert torch.equal(tokens[tokens != 100], fine[tokens != 100])


@pytest.mark.parametrize("backend", BACKENDS)
def test_embedding_and_picture(backend):
    case = make_case(SHAPES[2], 1.0, False)
    place = torch.randn(1, 17, 70)
    expected = case.table[case.tokens] + place
    assert torch.equal(
        ops.get(backend).embed(*(a.to(DEVICE) for a in (case.tokens, case.table, place))).cpu(), expected
    )
    pixels = torch.tensor([-1.0, 0.0, 0.0019, 0.002, 0.5, 0.9980, 0.9981, 1.0, 7.0] * 160).view(1, 12, 40, 3)
    picture = ops.get(backend).to_picture(pixels.to(DEVICE)).cpu()
    assert picture.dtype == torch.uint8
    assert picture.shape == pixels.shape
    assert picture.flatten()[:9].tolist() == [0, 0, 0, 1, 128, 254, 255, 255, 255]
    assert torch.equal(picture.flatten().view(-1, 9), picture.flatten()[:9].expand(160, 9))


@pytest.mark.skipif("triton" not in BACKENDS, reason="triton has nothing to run on here")
def test_kernel_integers_are_those_of_numpy():
    import triton
    import triton.language as tl

    from genie_play.ops import triton_sampler

    assert triton.__version__
    words = torch.empty(4, 4, 8, dtype=torch.int64, device=DEVICE)
    for seed in (0, 1, 2**31 + 5, 2**40 + 12345, SEED, 2**64 - 1):
        for step, frame in ((0, 0), (1, 1), (2**30, 2**32 - 1)):
            _dump_philox(triton, tl, triton_sampler)[(1,)](words, seed, frame, step)
            expected = philox.philox(seed, np.arange(8), np.arange(4)[:, None] + 2**31, 2 * step + 1, frame)
            assert np.array_equal(words.cpu().numpy(), np.stack(expected).astype(np.int64))


def _dump_philox(triton: Any, tl: Any, triton_sampler: Any) -> Any:
    # a kernel sees the globals of its module only
    globals().update(tl=tl, triton_sampler=triton_sampler)

    @triton.jit(do_not_specialize=["seed", "frame", "step"])
    def dump(words, seed, frame, step):
        position = tl.arange(0, 4).to(tl.int64)[:, None] + 2147483648
        group = tl.arange(0, 8)[None, :]
        a, b, c, d = triton_sampler._philox(seed, group, position, (2 * step + 1).to(tl.uint32), frame.to(tl.uint32))
        at = words + tl.arange(0, 4)[:, None] * 8 + group
        tl.store(at, a.to(tl.int64))
        tl.store(at + 32, b.to(tl.int64))
        tl.store(at + 64, c.to(tl.int64))
        tl.store(at + 96, d.to(tl.int64))

    return dump


@pytest.mark.skipif(INTERPRETED, reason="says nothing of kernels")
@pytest.mark.parametrize("variant", ["gumbel", "inverse"])
@pytest.mark.parametrize(("codes", "temperature"), [(2, 1.0), (7, 0.5), (33, 1.0), (33, 4.0)])
def test_draws_follow_the_softmax(variant, codes, temperature):
    """Chi-squared over 40,000 draws against the 99.9% limit; the seeds are fixed, so it never flakes."""
    n, frames = 2000, 20
    hidden, head = torch.ones(1, n, 1), torch.linspace(-1.5, 1.5, codes)[:, None]
    tokens, table, base = torch.full((1, n), codes), torch.zeros(codes + 1, 1), torch.zeros(1, 1, 1)
    drawn = torch.cat(
        [
            ops.get("reference")
            .reveal(hidden, head, tokens, table, base, Noise(11, f, 0), torch.arange(n), temperature, variant=variant)
            .tokens[0]
            for f in range(frames)
        ]
    )
    expected = (head[:, 0].double() / temperature).softmax(0) * n * frames
    found = torch.bincount(drawn, minlength=codes)
    chi_squared = float(((found - expected) ** 2 / expected).sum())
    freedom = codes - 1
    # Wilson and Hilferty's approximation of the quantile; 3.09 is that of the normal distribution
    assert chi_squared < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3
    assert chi_squared > 0


def test_draws_are_independent():
    """Correlations of 40,960 uniforms, each a normal variable of deviation 1/202; six of them below 4 deviations."""
    at = np.arange(40)
    draws = {
        "here": philox.token_uniforms(5, at, 1024, 3, 7),
        "next step": philox.token_uniforms(5, at, 1024, 4, 7),
        "next frame": philox.token_uniforms(5, at, 1024, 3, 8),
        "next seed": philox.token_uniforms(6, at, 1024, 3, 7),
        "next position": philox.token_uniforms(5, at + 1, 1024, 3, 7),
        "choice": philox.token_uniforms(5, at, 1024, 3, 7, philox.CHOICE_NOISE),
        "next code": np.roll(philox.token_uniforms(5, at, 1024, 3, 7), 1, axis=1),
    }
    here = draws.pop("here")
    for name, other in draws.items():
        assert abs(np.corrcoef(here.ravel(), other.ravel())[0, 1]) < 4 / 202, name


def test_backends_by_name(monkeypatch):
    monkeypatch.delenv(ops.VARIABLE, raising=False)
    assert ops.choose("cpu")[0] == "reference"
    with pytest.raises(BackendError, match=r"'cutlass'.*reference or triton"):
        ops.get("cutlass")
    monkeypatch.setenv(ops.VARIABLE, "cutlass")
    with pytest.raises(BackendError, match="cutlass"):
        ops.choose("cpu")
    monkeypatch.setenv(ops.VARIABLE, "triton")
    assert ops.choose("cpu", "reference")[0] == "reference"
    if "triton" in BACKENDS and DEVICE == "cpu":
        assert ops.choose("cpu")[0] == "triton"
    elif DEVICE == "cpu":
        with pytest.raises(BackendError, match=r"no NVIDIA GPU; .*reference"):
            ops.choose("cpu")


@pytest.mark.skipif(torch.cuda.is_available() or INTERPRETED, reason="here nothing has to fall back")
def test_automatic_choice_falls_back_and_says_so_once(monkeypatch, caplog):
    monkeypatch.delenv(ops.VARIABLE, raising=False)
    ops._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert ops.choose("cuda")[0] == "reference"
        assert ops.choose("cuda")[0] == "reference"
    assert [record.message for record in caplog.records if "reference kernels" in record.message] == [
        "using the reference kernels on cuda: there is no NVIDIA GPU; unset GENIE_PLAY_OPS or choose reference"
    ]


def test_shapes_are_checked_at_the_door():
    case = make_case(SHAPES[1], 1.0, False)
    for changes, words in (
        ({"tokens": case.tokens[:, :-1]}, r"\(B, N\)"),
        ({"table": case.table[:-1]}, "one row longer"),
        ({"which": -1}, "negative"),
        ({"temperature": -0.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
    ):
        with pytest.raises(ValueError, match=words):
            case.but(**changes).on("reference")


@pytest.mark.skipif(INTERPRETED, reason="this is the process that the test starts")
def test_choosing_the_reference_imports_no_triton():
    code = "import sys; from genie_play import ops; ops.choose('cpu'); assert 'triton' not in sys.modules"
    environment = {key: value for key, value in os.environ.items() if key != ops.VARIABLE}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent, env=environment)


@pytest.mark.skipif(INTERPRETED, reason="this is the process that the test starts")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_triton_under_its_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    chosen = ["-p", "no:cacheprovider", "-k", "triton or kernel or name"]
    files = [__file__, str(Path(__file__).with_name("test_layer_ops.py"))]
    command = [sys.executable, "-m", "pytest", *files, *chosen]
    child = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parent.parent, timeout=600
    )
    assert child.returncode == 0, child.stdout[-4000:] + child.stderr[-2000:]
    passed = re.search(r"(\d+) passed", child.stdout)
    assert passed
    assert int(passed[1]) > 50
