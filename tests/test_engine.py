"""The engine on small networks with random weights: caches equal recompute, and every promise of the protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_conformance import check_engine

from genie_play import ops
from genie_play.checkpoint import Header
from genie_play.config import PathConfig, preset
from genie_play.engine import engine as engine_module
from genie_play.engine.engine import POOL_EVERY, GenieEngine, find_device
from genie_play.engine.sampler import Sampler
from genie_play.engine.state import Pool, Ring, Snapshot
from genie_play.nn.dynamics import Dynamics
from genie_play.nn.genie import Genie, save_genie
from genie_play.play.opening import LEAP
from genie_play.types import BackendError, Engine, Frame, GenieError, History, Move, Prompt, ReplayError

RECIPES = ("teacher", "paper", "anchored")
WANDER = [3, 3, 0, 5, 1, 1, 7, 2, 4, 4, 4, 6, 0, 0, 3, 2, 5, 5, 1, 7, 6, 2, 0, 3, 3, 1, 4, 2, 6, 7]


@cache
@torch.inference_mode(False)
def genie(recipe: str) -> Genie:
    """A world of 24 x 32 pixels with random weights; "paper" has two layers in the decoder and one linear trunk;
    "anchored" is "teacher" with the first frame always in sight, oblong patches, and a decoder that keeps to the look
    it was given."""
    config = preset("tiny")
    trained = "paper" if recipe == "paper" else "teacher"
    dynamics = dataclasses.replace(config.dynamics, recipe=trained, anchor=recipe == "anchored")
    tokenizer = dataclasses.replace(
        config.tokenizer,
        trunk="patch" if recipe == "paper" else "conv",
        decoder_layers=1 + (recipe == "paper"),
        look=recipe == "anchored",
        **({"patch": 16, "patch_height": 4, "fine": 4} if recipe == "anchored" else {}),
    )
    actions = dataclasses.replace(config.actions, motions=0)  # nothing of them is played with
    world = Genie(dataclasses.replace(config, dynamics=dynamics, tokenizer=tokenizer, actions=actions))
    generator = torch.Generator().manual_seed(6 if recipe == "anchored" else 4)  # weights under which actions matter
    with torch.no_grad():
        for p in world.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.7 if p.dim() < 2 else p[0].numel() ** -0.5))
        # places, history and action should all matter much, and the draw be far from certain
        world.dynamics.token_embedding.weight *= 8
        for block in world.dynamics.blocks:
            block.temporal.out.weight *= 4
            block.spatial.out.weight *= 2
    world.dynamics.set_codes(world.tokenizer.quantizer.codebook)
    return world.requires_grad_(False).eval()


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(recipe: str) -> Iterator[GenieEngine]:
    made = GenieEngine(genie(recipe))
    yield made
    made.close()


def pictures(count: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 24, 32, 3), dtype=np.uint8)


PROMPT = Prompt(pictures(), "noise")


def play(engine: GenieEngine, actions: list[int], prompt: Prompt = PROMPT, seed: int = 9) -> list[Frame]:
    return [engine.reset(prompt, seed), *(engine.step(action) for action in actions)]


def history(frames: list[Frame], prompt: Prompt = PROMPT, seed: int = 9) -> History:
    prompt = dataclasses.replace(prompt, tokens=frames[0].tokens)
    return History(prompt, seed, tuple(Move(frame.action, frame.tokens) for frame in frames[1:]))


def assert_same(found: list[Frame], expected: list[Frame]) -> None:
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.index, ours.action) == (theirs.index, theirs.action)
        assert np.array_equal(ours.tokens, theirs.tokens)
        assert np.array_equal(ours.pixels, theirs.pixels)


def count_passes(engine: GenieEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    passes, stream = [0], engine._genie.dynamics.stream

    def counted(*args):
        passes[0] += 1
        return stream(*args)

    monkeypatch.setattr(engine._genie.dynamics, "stream", counted)
    return passes


# caches


@torch.inference_mode()
def test_dynamics_ring_equals_the_whole_clip(recipe):
    dynamics, frames = genie(recipe).dynamics, 11  # window 4: the ring wraps twice
    g = torch.Generator().manual_seed(1)
    clean = torch.randint(0, dynamics.codes, (1, frames, dynamics.n_tokens), generator=g)
    actions = torch.randint(0, 9, (1, frames), generator=g)
    masked = torch.where(torch.rand(clean.shape, generator=g) < 0.6, dynamics.mask_id, clean)
    ring = Ring(dynamics.cache_shape, dynamics.n_tokens, recipe != "paper", torch.device("cpu"))
    sampler = Sampler(dynamics, ops.get("reference"), PathConfig())
    if recipe != "paper":
        expected = dynamics(masked, actions, clean)[0]
    for t in range(frames):
        if recipe == "paper":
            clip = torch.cat((clean[:, :t], masked[:, t : t + 1]), 1)
            expected_here = dynamics(clip, actions[:, : t + 1])[0, t]
        else:
            expected_here = expected[t]
        hidden, _ = dynamics.stream(sampler.embed(masked[:, t], actions[:, t]), ring.past())
        assert torch.allclose(hidden[0], expected_here, atol=2e-4)  # float32 sums in another order
        ring.commit(dynamics.stream(sampler.embed(clean[:, t], actions[:, t]), ring.past())[1])
    assert expected_here.std() > 0.1


@torch.inference_mode()
def test_tokenizer_rings_equal_the_whole_clip(recipe):
    tokenizer, frames = genie(recipe).tokenizer, 8  # window 3
    clip = torch.from_numpy(pictures(frames, 3)).float()[None] / 255
    expected_latents = tokenizer.encoder(clip)[0]
    tokens = tokenizer.encode(clip)
    look = tokenizer.look(clip[:, 0])
    expected = tokenizer.decode(tokens, look)[0]
    assert (tokenizer.decode(tokens[:, 4:5], look)[0, 0] - expected[4]).abs().max() > 1e-2  # time does matter
    encoder = Ring(tokenizer.encoder_shape, 12, False, torch.device("cpu"))
    decoder = Ring(tokenizer.decoder_shape, 12, False, torch.device("cpu"))
    for t in range(frames):
        latents, kept = tokenizer.encoder.stream(clip[:, t], encoder.past())
        assert torch.allclose(latents[0], expected_latents[t], atol=1e-4)
        encoder.commit(kept)
        pixels, kept = tokenizer.decode_step(tokens[:, t], decoder.past(), look)
        assert torch.allclose(pixels[0], expected[t], atol=1e-4)
        decoder.commit(kept)


def contents(ring: Ring) -> list[torch.Tensor]:
    return [part.clone() for past in ring.past() for part in past if part is not None]


@torch.inference_mode()
def test_ring_rewinds_one_commit_and_moves_no_memory():
    dynamics = genie("teacher").dynamics
    ring = Ring(dynamics.cache_shape, dynamics.n_tokens, True, torch.device("cpu"))
    with pytest.raises(ValueError, match="no commit"):
        ring.rewind()
    x = torch.randn(10, 1, dynamics.n_tokens, dynamics.config.width)
    addresses = [past.temporal_k.data_ptr() for past in ring.past()]
    for t in range(9):
        before, past = contents(ring), ring.past()
        ring.commit(dynamics.stream(x[9], past)[1])
        assert not all(torch.equal(a, b) for a, b in zip(before, contents(ring), strict=False))
        ring.rewind()
        assert all(torch.equal(a, b) for a, b in zip(before, contents(ring), strict=True))
        with pytest.raises(ValueError, match="no commit"):
            ring.rewind()
        ring.commit(dynamics.stream(x[t], ring.past())[1])
    assert [past.temporal_k.data_ptr() for past in ring.past()] == addresses
    assert ring.past()[0].ages.tolist() == [3, 2, 1]
    other = Ring(dynamics.cache_shape, dynamics.n_tokens, True, torch.device("cpu"))
    other.load(ring.snapshot())
    assert other.position == 9
    assert all(torch.equal(a, b) for a, b in zip(contents(ring), contents(other), strict=True))
    assert ring.snapshot().nbytes == ring.nbytes
    ring.clear()
    assert ring.past()[0].spatial_k is None
    assert ring.past()[0].ages.tolist() == [4, 4, 4]


@torch.inference_mode()
def test_a_batch_of_play_throughs_is_each_of_them(recipe):
    dynamics = genie(recipe).dynamics

    def ring(batch: int) -> Ring:
        return Ring(dynamics.cache_shape, dynamics.n_tokens, recipe != "paper", torch.device("cpu"), batch=batch)

    together, apart, picked = ring(3), [ring(1) for _ in range(3)], ring(1)
    for x in torch.randn(6, 3, dynamics.n_tokens, dynamics.config.width):
        hidden, kept = dynamics.stream(x, together.past())
        for row, single in enumerate(apart):
            alone, its = dynamics.stream(x[row : row + 1], single.past())
            single.commit(its)
            assert torch.allclose(hidden[row], alone[0], atol=1e-4)
        together.commit(kept)
        picked.commit(kept, 1)
    assert all(torch.equal(a[1], b[0]) for a, b in zip(contents(together)[:2], contents(picked)[:2], strict=True))


@torch.inference_mode()
def test_an_anchored_ring_keeps_the_first_frame_and_can_leave_out_what_is_between():
    dynamics = genie("anchored").dynamics
    ring, short = (Ring(dynamics.cache_shape, dynamics.n_tokens, True, torch.device("cpu")) for _ in range(2))
    x = torch.randn(12, 1, dynamics.n_tokens, dynamics.config.width)
    ages = []
    for t in range(12):
        ring.commit(dynamics.stream(x[t], ring.past())[1])
        ages.append(ring.past()[0].ages.tolist())
    assert ages[:5] == [[1, 5, 5], [2, 1, 6], [3, 2, 1], [3, 1, 2], [3, 2, 1]]  # 4 and more are not seen
    with pytest.raises(ValueError, match="an anchor alone"):
        ring.skip(20)
    short.commit(dynamics.stream(x[0], short.past())[1])
    short.skip(12 - short.reach)
    for t in range(12 - short.reach, 12):
        short.commit(dynamics.stream(x[t], short.past())[1])
    assert all(torch.equal(a, b) for a, b in zip(contents(ring), contents(short), strict=True))
    other = genie("anchored").config.dynamics
    with pytest.raises(ValueError, match="three frames or more"):
        Dynamics(dataclasses.replace(other, window=2), (3, 4), 30, 8)


def test_a_window_of_one_frame_has_no_slots():
    config = genie("teacher").config
    config = dataclasses.replace(
        config,
        dynamics=dataclasses.replace(config.dynamics, window=1),
        tokenizer=dataclasses.replace(config.tokenizer, window=1),
    )
    engine = GenieEngine(Genie(config))
    first = play(engine, [1, 2, 3])
    engine.edit(first[1].pixels)
    assert_same([engine.restore(history(first))], [first[-1]])


def test_pool_stays_within_its_limit_and_lets_the_oldest_go():
    def snapshots() -> tuple[Snapshot]:
        return (Snapshot(torch.zeros(100), torch.zeros(0), torch.zeros(0), 1, 0),)

    pool = Pool(limit=1000)
    for key in (b"a", b"b"):
        pool.put(key, snapshots())
    pool.get(b"a")
    pool.put(b"c", snapshots())
    assert [key in pool for key in (b"a", b"b", b"c")] == [True, False, True]
    assert pool.nbytes == 800
    pool.put(b"c", snapshots())
    assert (pool.nbytes, len(pool)) == (800, 2)
    pool.clear()
    assert (pool.nbytes, len(pool)) == (0, 0)


# the sampler


@pytest.mark.parametrize("order", ["halton", "random", "confidence"])
@pytest.mark.parametrize("variant", ["gumbel", "inverse"])
@pytest.mark.parametrize("steps", [1, 3, 12, 99])
@torch.inference_mode()
def test_sampler_fills_the_frame_and_depends_on_seed_and_index_alone(order, variant, steps):
    dynamics = genie("teacher").dynamics
    path = PathConfig(order=order, variant=variant, steps=steps, temperature=1.0, last_argmax=False)
    sampler = Sampler(dynamics, ops.get("reference"), path)
    past = Ring(dynamics.cache_shape, dynamics.n_tokens, True, torch.device("cpu")).past()
    one = torch.tensor([3])
    tokens, x = sampler.sample(past, one, 7, 5)
    assert tokens.shape == (1, 12)
    assert tokens.min() >= 0
    assert tokens.max() < dynamics.codes
    assert torch.equal(x, sampler.embed(tokens, one))
    assert torch.allclose(x, dynamics.embed(tokens, one), atol=1e-5)
    assert torch.equal(sampler.sample(past, one, 7, 5).tokens, tokens)
    assert not torch.equal(sampler.sample(past, one, 8, 5).tokens, tokens)
    assert not torch.equal(sampler.sample(past, one, 7, 6).tokens, tokens)
    pair = sampler.sample(past, torch.tensor([3, 3]), 7, 5).tokens
    assert torch.equal(pair[0], pair[1])


@torch.inference_mode()
def test_cold_sampling_is_the_same_for_every_seed():
    dynamics = genie("teacher").dynamics
    past = Ring(dynamics.cache_shape, dynamics.n_tokens, True, torch.device("cpu")).past()
    for path in (PathConfig(temperature=0.0), PathConfig(temperature=0.0, order="confidence"), PathConfig(steps=1)):
        sampler = Sampler(dynamics, ops.get("reference"), path)
        a, b = (sampler.sample(past, torch.tensor([3]), seed, 5).tokens for seed in (1, 2))
        assert torch.equal(a, b)
        assert not torch.equal(a, sampler.sample(past, torch.tensor([4]), 1, 5).tokens)


@torch.inference_mode()
def test_guidance_is_no_action_and_more_of_what_the_action_adds():
    dynamics, g = genie("teacher").dynamics, torch.Generator().manual_seed(4)
    clean = torch.randint(0, dynamics.codes, (3, 5, dynamics.n_tokens), generator=g)
    told = torch.randint(0, 8, (3, 5), generator=g)
    none = told.clone()
    none[:, -1] = dynamics.no_action
    ring = Ring(dynamics.cache_shape, dynamics.n_tokens, True, torch.device("cpu"), torch.float32, 3)
    plain = Sampler(dynamics, ops.get("reference"), PathConfig())
    for t in range(4):
        ring.commit(dynamics.stream(plain.embed(clean[:, t], told[:, t]), ring.past())[1])
    hidden = clean.clone()
    hidden[:, -1] = dynamics.mask_id
    with_action, without = (dynamics.logits(dynamics(hidden, a, clean)[:, -1]) for a in (told, none))
    tokens = {}
    for guidance in (0.0, 0.5, 1.0, 2.0, 6.0):
        sampler = Sampler(dynamics, ops.get("reference"), PathConfig(steps=1, guidance=guidance))
        made = sampler.sample(ring.past(), told[:, -1], 7, 4)
        expected = (without + guidance * (with_action - without)).topk(2)
        sure = expected.values[..., 0] - expected.values[..., 1] > 1e-3  # float32 sums in another order
        assert sure.float().mean() > 0.9
        assert torch.equal(made.tokens[sure], expected.indices[..., 0][sure])
        assert torch.equal(made.x, plain.embed(made.tokens, told[:, -1]))  # what is committed was told the action alone
        tokens[guidance] = made.tokens
    assert len({t.numpy().tobytes() for t in tokens.values()}) == 5


@pytest.mark.parametrize("order", ["halton", "random", "confidence"])
@torch.inference_mode()
def test_guided_rows_are_drawn_each_as_it_would_be_alone(order):
    dynamics = genie("teacher").dynamics
    past = Ring(dynamics.cache_shape, dynamics.n_tokens, True, torch.device("cpu")).past()
    drawn = {}
    for guidance in (1.0, 3.0):
        path = PathConfig(order=order, steps=4, temperature=1.0, last_argmax=False, guidance=guidance)
        sampler = Sampler(dynamics, ops.get("reference"), path)
        together = sampler.sample(past, torch.arange(8), 7, 5)
        alone = [sampler.sample(past, torch.tensor([a]), 7, 5) for a in range(8)]
        assert torch.equal(together.tokens, torch.cat([one.tokens for one in alone]))
        assert torch.allclose(together.x, torch.cat([one.x for one in alone]))
        drawn[guidance] = together.tokens
    assert not torch.equal(drawn[1.0], drawn[3.0])


def test_guidance_that_cannot_be_is_refused():
    for bad in (-0.1, 11.0, float("nan")):
        with pytest.raises(GenieError, match=r"path\.guidance is from 0"):
            GenieEngine(genie("teacher"), guidance=bad)
    with pytest.raises(GenieError, match="what no action is"):
        GenieEngine(genie("paper"), guidance=1.5)


# the protocol


@pytest.mark.parametrize("count", [1, 3])
def test_conformance(recipe, count):
    # whether a batch is bit-equal to single steps is the machine's choice; the self-check decides what is adopted
    check_engine(lambda: GenieEngine(genie(recipe)), Prompt(pictures(count, 2)), exact_futures=False)


def test_the_protocol_and_its_information(engine, recipe):
    assert isinstance(engine, Engine)
    info = engine.info
    assert (info.name, info.size, info.n_tokens, info.window, info.device) == ("tiny", (24, 32), 12, 4, "cpu")
    assert info.path == dataclasses.asdict(PathConfig(steps=3))
    assert [label.code for label in info.labels] == list(range(8))


def test_same_inputs_same_tokens_another_seed_other_tokens(engine, recipe):
    frames = play(engine, WANDER[:8])
    assert [frame.index for frame in frames] == list(range(9))
    assert [frame.action for frame in frames] == [None, *WANDER[:8]]
    for frame in frames:
        assert (frame.tokens.dtype, frame.tokens.shape) == (np.uint16, (12,))
        assert (frame.pixels.dtype, frame.pixels.shape) == (np.uint8, (24, 32, 3))
    assert len({frame.tokens.tobytes() for frame in frames}) == 9
    assert_same(play(engine, WANDER[:8]), frames)
    assert_same(play(GenieEngine(genie(recipe)), WANDER[:8]), frames)
    other = play(engine, WANDER[:8], seed=10)
    assert np.array_equal(other[0].tokens, frames[0].tokens)
    assert all(not np.array_equal(a.tokens, b.tokens) for a, b in zip(other[1:], frames[1:], strict=True))
    assert not np.array_equal(play(engine, [7])[1].tokens, frames[1].tokens)


def test_settling_and_looking_change_nothing(engine):
    frames = play(engine, WANDER[:9])
    again = [engine.reset(PROMPT, 9)]
    for action in WANDER[:9]:
        engine.settle()
        engine.settle()
        assert np.array_equal(engine.see(frames[3].pixels), engine.see(frames[3].pixels))
        engine.futures([5, 0, 5])
        again.append(engine.step(action))
    assert_same(again, frames)


def test_frames_are_fresh_arrays(engine):
    frames = play(engine, WANDER[:3])
    kept = [(frame.pixels.copy(), frame.tokens.copy()) for frame in frames]
    futures = engine.futures([2])
    for frame in (*frames, *futures):
        frame.pixels[:] = 0
        frame.tokens[:] = 0
    restored = engine.restore(
        History(PROMPT, 9, tuple(Move(a, t) for a, (_, t) in zip(WANDER, kept[1:], strict=False)))
    )
    assert np.array_equal(restored.pixels, kept[-1][0])
    again = play(engine, WANDER[:3])
    assert all(np.array_equal(frame.pixels, p) for frame, (p, _) in zip(again, kept, strict=True))


def test_wander_and_restore_give_the_same_future(engine, recipe, monkeypatch):
    """The later frames of an unbroken run, after a restore from the pool and after one from tokens alone."""
    frames = play(engine, WANDER)
    cut = 26
    engine._pool.clear()
    fresh = GenieEngine(genie(recipe))
    passes = count_passes(fresh, monkeypatch)
    for target, by_pool in ((fresh, False), (engine, False), (engine, True)):
        loads = []
        load = target._dynamics.load
        target._dynamics.load = lambda snapshot, load=load, loads=loads: (loads.append(1), load(snapshot))[1]
        restored = target.restore(history(frames[: cut + 1]))
        assert bool(loads) == by_pool
        if target is fresh:
            assert passes[0] < cut  # not from the prompt
        assert_same([restored, *(target.step(action) for action in WANDER[cut:])], frames[cut:])
        target._dynamics.load = load
    # elsewhere, another branch, and back
    engine.restore(dataclasses.replace(history(frames[:11]), seed=77))
    assert not np.array_equal(engine.step(WANDER[10]).tokens, frames[11].tokens)
    engine.restore(history(frames[:20]))
    assert_same([engine.step(action) for action in WANDER[19:]], frames[20:])


def test_a_rebuild_reaches_back_as_far_as_it_must_and_no_farther(engine, recipe, monkeypatch):
    frames = play(engine, WANDER)
    expected = engine._dynamics.snapshot()
    assert engine._dynamics.reach == 2 * {"teacher": 4, "paper": 3, "anchored": 3}[recipe]
    passes = count_passes(engine, monkeypatch)
    for reach, equal in ((engine._dynamics.reach, True), (engine._dynamics.reach - 1, False)):
        engine.reset(PROMPT, 1)
        engine._pool.clear()
        monkeypatch.setattr(engine, "_slack", 0)
        monkeypatch.setattr(engine._dynamics, "reach", reach)
        passes[0] = 0
        engine.restore(history(frames))
        found = engine._dynamics.snapshot()
        assert (found.position, expected.position) == (30, 30)
        assert passes[0] == reach + (recipe == "anchored")
        assert torch.equal(found.temporal, expected.temporal) == equal


def test_restore_is_cheap_where_a_cache_is_near(engine, monkeypatch):
    frames = play(engine, WANDER)
    passes = count_passes(engine, monkeypatch)
    for end in range(29, 12, -1):  # hold to rewind
        passes[0] = 0
        assert_same([engine.restore(history(frames[: end + 1]))], [frames[end]])
        assert passes[0] < POOL_EVERY
    for end in range(13, 30):  # walk forward
        passes[0] = 0
        assert_same([engine.restore(history(frames[: end + 1]))], [frames[end]])
        assert passes[0] <= 1
    passes[0] = 0
    assert_same([engine.restore(history(frames[:30]))], [frames[29]])
    assert passes[0] == 0


def test_rewinding_what_was_only_loaded_is_cheap_too(engine, recipe, monkeypatch):
    frames = play(engine, WANDER)
    fresh = GenieEngine(genie(recipe))
    fresh.restore(history(frames))
    passes = count_passes(fresh, monkeypatch)
    for end in range(29, 24, -1):
        assert_same([fresh.restore(history(frames[: end + 1]))], [frames[end]])
    assert passes[0] < 5 * POOL_EVERY


def test_a_tape_that_was_gone_through_in_leaps_is_taken_over_cheaply_anywhere(engine, recipe, monkeypatch):
    frames = play(engine, WANDER)
    fresh = GenieEngine(genie(recipe))
    for end in [*range(LEAP, 29, LEAP), 29]:
        fresh.restore(history(frames[: end + 1]))
    passes = count_passes(fresh, monkeypatch)
    for end in (25, 11, 29, 18, 7):
        passes[0] = 0
        assert_same([fresh.restore(history(frames[: end + 1]))], [frames[end]])
        assert passes[0] <= POOL_EVERY


def test_given_tokens_are_taken(engine):
    frames = play(engine, WANDER[:10])
    engine.reset(PROMPT, 12345)
    assert_same([engine.step(frame.action, frame.tokens) for frame in frames[1:6]], frames[1:6])
    engine.restore(dataclasses.replace(history(frames[:6]), seed=9))
    assert_same([engine.step(action) for action in WANDER[5:10]], frames[6:])


def test_a_prompt_of_several_pictures(engine):
    prompt = Prompt(pictures(5, 8))
    frames = play(engine, WANDER[:6], prompt)
    assert frames[0].tokens.shape == (60,)
    assert frames[0].index == 0
    assert frames[1].tokens.shape == (12,)
    given = dataclasses.replace(prompt, tokens=frames[0].tokens)
    assert_same(play(engine, WANDER[:6], given), frames)
    last = play(engine, WANDER[:6], Prompt(prompt.pictures[-1:]))
    assert not np.array_equal(last[1].tokens, frames[1].tokens)  # the earlier pictures are seen
    assert_same([engine.restore(history(frames[:4], prompt)), engine.step(WANDER[3])], frames[3:5])
    engine.restore(history(frames[:1], prompt))
    edited = engine.edit(frames[2].pixels)
    assert np.array_equal(edited.tokens[:48], frames[0].tokens[:48])
    assert not np.array_equal(edited.tokens[48:], frames[0].tokens[48:])
    after = engine.step(2)
    for tokens in (edited.tokens, edited.tokens[48:]):
        moves = (Move(None, tokens, frames[2].pixels), Move(after.action, after.tokens))
        assert_same([engine.restore(History(given, 9, moves))], [after])


# futures


def test_futures_change_nothing_and_share_their_noise(engine):
    frames = play(engine, WANDER[:12])
    engine.reset(PROMPT, 9)
    for frame in frames[1:]:
        futures = engine.futures(range(8))
        assert [(future.index, future.action) for future in futures] == [(frame.index, a) for a in range(8)]
        assert len({future.tokens.tobytes() for future in futures}) > 1
        assert_same([engine.step(frame.action)], [frame])
    twice = engine.futures([4, 4])
    assert np.array_equal(twice[0].tokens, twice[1].tokens)
    assert engine.futures([]) == []


@pytest.mark.parametrize("exact", [True, False])
def test_a_future_is_adopted_only_where_batches_are_exact(engine, monkeypatch, exact):
    engine._batch_exact[8] = exact
    passes = count_passes(engine, monkeypatch)
    frames = [engine.reset(PROMPT, 9)]
    fill = max(ring.slots for ring in (engine._dynamics, engine._decoder))
    for action in WANDER[: fill - 1]:  # the rings fill: shapes still change, so nothing is adopted
        engine.futures(range(8))
        engine.settle()
        passes[0] = 0
        frames.append(engine.step(action))
        assert passes[0] == 3
    futures = engine.futures(range(8))
    engine.settle()
    passes[0] = 0
    frames.append(engine.step(6))
    assert passes[0] == (0 if exact else 3)
    if exact:
        assert_same(frames[-1:], [futures[6]])
    # the decoder goes on from the row that was taken
    frames.append(engine.step(1))
    engine._pool.clear()
    assert_same([engine.restore(history(frames))], frames[-1:])
    engine.restore(history(frames[:-2]))
    assert np.mean(engine.step(6).tokens == futures[6].tokens) > 0.5


def test_the_self_check_notices_a_batch_that_differs(engine):
    engine.reset(PROMPT, 9)
    engine.settle()
    drawn = engine._draw([3])
    with torch.inference_mode():
        assert engine._is_exact([3], drawn)  # a batch of one is what a step is
        assert not engine._is_exact([4], drawn)


# edits


@pytest.mark.parametrize("settled", [False, True])
def test_edit_replaces_the_frame_and_its_traces(engine, settled):
    frames = play(engine, WANDER[:7])
    if settled:
        engine.settle()
    painted = pictures(1, 50)[0]
    wrong = engine.edit(pictures(1, 51)[0])
    engine.settle()
    edited = engine.edit(painted)
    assert (edited.index, edited.action) == (7, frames[7].action)
    assert not np.array_equal(edited.tokens, wrong.tokens)
    later = [engine.step(action) for action in WANDER[7:18]]
    assert later[0].index == 8
    moves = (*history(frames).moves, Move(None, edited.tokens, painted))
    target = dataclasses.replace(history(frames), moves=moves)
    engine._pool.clear()
    assert_same([engine.restore(target), *(engine.step(action) for action in WANDER[7:18])], [edited, *later])
    engine.restore(history(frames))
    assert not np.array_equal(engine.step(WANDER[7]).tokens, later[0].tokens)


@torch.inference_mode()
def test_edit_sees_the_pictures_shown_before(engine, recipe):
    frames = play(engine, WANDER[:9])
    painted = pictures(1, 50)[0]
    edited = engine.edit(painted)
    tokenizer = genie(recipe).tokenizer
    assert engine._encoder.reach == 2
    clip = np.stack([frames[7].pixels, frames[8].pixels, painted])
    expected = tokenizer.encode(torch.from_numpy(clip).float()[None] / 255)[0, -1]
    assert edited.tokens.tolist() == expected.tolist()
    # the same after a restore, which showed none of them
    engine.restore(history(frames))
    assert_same([engine.edit(painted)], [edited])
    fresh = GenieEngine(genie(recipe))
    fresh.restore(history(frames))
    assert_same([fresh.edit(painted)], [edited])


def test_edit_of_the_first_frame(engine):
    engine.reset(PROMPT, 9)
    painted = pictures(1, 50)[0]
    edited = engine.edit(painted)
    assert (edited.index, edited.action) == (0, None)
    assert_same([edited, engine.step(3)], play(engine, [3], Prompt(painted[None])))


def test_see_shows_what_a_prompt_would(engine):
    seen = engine.see(PROMPT.pictures[0])
    assert np.array_equal(seen, engine.reset(PROMPT, 1).pixels)


# the look of what was given


def test_what_is_given_sets_the_look_until_something_else_is():
    world = genie("anchored")
    engine, other = GenieEngine(world), GenieEngine(world)
    frames = play(engine, WANDER[:3])
    tokens = frames[0].tokens
    # the same tokens in the light of another picture: another look, the same world
    seen = play(other, WANDER[:3], dataclasses.replace(PROMPT, pictures=pictures(1, 1), tokens=tokens))
    for ours, theirs in zip(frames, seen, strict=True):
        assert ours.tokens.tolist() == theirs.tokens.tolist()
        assert np.abs(ours.pixels.astype(int) - theirs.pixels).mean() > 1
    painted = pictures(1, 50)[0]
    edited = engine.edit(painted)
    after = [engine.step(action) for action in WANDER[3:15]]
    moves = [Move(f.action, f.tokens) for f in frames[1:]]
    moves += [Move(None, edited.tokens, painted), *(Move(f.action, f.tokens) for f in after)]
    told = dataclasses.replace(PROMPT, tokens=tokens)
    # what a painted picture gave is there after a restore, in an engine that never saw it and in one that saw another
    for one in (GenieEngine(world), other):
        assert_same([one.restore(History(told, 9, tuple(moves)))], after[-1:])
        assert_same([one.restore(History(told, 9, tuple(moves[:5])))], after[:1])
        assert_same([one.restore(History(told, 9, tuple(moves[:2])))], frames[2:3])
    # painted over with other pixels that are the same tokens: only the look tells them apart
    moves[3] = Move(None, edited.tokens, pictures(1, 51)[0])
    assert not np.array_equal(other.restore(History(told, 9, tuple(moves))).pixels, after[-1].pixels)


def test_every_picture_of_a_prompt_is_seen_in_its_own_light():
    world, clip = genie("anchored"), pictures(3)
    shown = GenieEngine(world).reset(Prompt(clip), 1)
    tokenizer = world.tokenizer
    with torch.inference_mode():
        frames = torch.from_numpy(clip).float() / 255
        tokens = tokenizer.encode(frames[None])[0]
        ring = Ring(tokenizer.decoder_shape, 12, False, torch.device("cpu"))
        for frame, given in zip(tokens[:, None], frames[:, None], strict=True):
            pixels, kept = tokenizer.decode_step(frame, ring.past(), tokenizer.look(given))
            ring.commit(kept)
    assert np.abs(ops.get("reference").to_picture(pixels)[0].numpy().astype(int) - shown.pixels).max() <= 1


def test_a_prompt_has_the_tokens_of_its_pictures(engine):
    frame = engine.reset(PROMPT, 1)
    with pytest.raises(ReplayError, match="do not fit"):
        engine.reset(Prompt(pictures(2), tokens=frame.tokens), 1)


def test_worlds_are_compared_by_how_well_they_show_a_picture(tmp_path: Path):
    files = []
    for recipe in ("teacher", "anchored"):
        files.append(tmp_path / f"{recipe}.safetensors")
        save_genie(genie(recipe), Header(genie(recipe).config, PathConfig(), idle=2), files[-1], torch.float32)
    engine, picture = GenieEngine(files[0]), PROMPT.pictures[0]
    fits = engine.fits(picture, files)
    seen = engine.see(picture).astype(float)
    assert fits[0] == pytest.approx(-20 * np.log10(np.abs(seen - picture).mean() / 255), abs=0.05)
    # in the light of its mirror image, not in its own
    tokenizer, pixels = genie("anchored").tokenizer, torch.from_numpy(picture)[None].float() / 255
    with torch.inference_mode():
        made = tokenizer.decode(tokenizer.encode(pixels[:, None]), tokenizer.look(pixels.flip(2)))[:, 0]
    assert fits[1] == pytest.approx(-20 * np.log10(float((made.clamp(0, 1) - pixels).abs().mean())), abs=1e-3)
    with pytest.raises(ValueError, match="uint8"):
        engine.fits(picture[:8], files)


# paths, files, devices


def test_a_checkpoint_file_plays_as_its_networks_do(recipe, tmp_path: Path):
    frames = play(GenieEngine(genie(recipe), temperature=0.9, order="random"), WANDER[:4])
    header = Header(genie(recipe).config, PathConfig(temperature=0.9, order="random", steps=3), idle=2)
    save_genie(genie(recipe), header, tmp_path / "world.safetensors", torch.float32)
    engine = GenieEngine(str(tmp_path / "world.safetensors"), "auto", ops="reference")
    assert engine.info.idle == 2
    assert engine.info.path["order"] == "random"
    assert len(engine.info.checkpoint["sha256"]) == 64
    if engine.info.device == "cpu":
        assert_same(play(engine, WANDER[:4]), frames)


def test_a_path_plays_again_from_its_own_description(recipe):
    engine = GenieEngine(genie(recipe), order="confidence", variant="inverse", steps=5, temperature=1.5)
    frames = play(engine, WANDER[:4])
    again = GenieEngine(genie(recipe), **engine.info.path)
    assert again.info == engine.info
    assert_same(play(again, WANDER[:4]), frames)


def test_bfloat16(recipe):
    frames = play(GenieEngine(genie(recipe), arithmetic="bf16"), WANDER[:6])
    engine = GenieEngine(genie(recipe), arithmetic="bf16")
    assert engine._dynamics.past()[0].temporal_k.dtype == torch.bfloat16
    assert_same([engine.restore(history(frames[:4])), *(engine.step(a) for a in WANDER[3:6])], frames[3:])
    engine.edit(frames[2].pixels)
    exact = play(GenieEngine(genie(recipe)), WANDER[:6])
    assert np.array_equal(exact[0].tokens, frames[0].tokens)  # the encoder stays in float32
    assert not np.array_equal(exact[0].pixels, frames[0].pixels)


def test_networks_in_memory_stay_as_they_are():
    config = genie("teacher").config
    world = Genie(config).train()
    before = {name: (value.clone(), value.stride()) for name, value in world.state_dict().items()}
    play(GenieEngine(world, arithmetic="bf16"), [1, 2])
    assert world.training
    assert all(p.requires_grad for p in world.dynamics.parameters())
    for name, value in world.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert value.stride() == before[name][1]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"device": "tpu"}, BackendError, "choose auto, cpu or cuda"),
        ({"device": "cuda:x"}, BackendError, "choose auto, cpu or cuda"),
        ({"device": "cuda:63"}, BackendError, "no NVIDIA GPU"),
        ({"ops": "cutlass"}, BackendError, "reference or triton"),
        ({"order": "spiral"}, GenieError, "path.order is 'spiral'; choose halton, random, confidence"),
        ({"variant": "beam"}, GenieError, "path.variant"),
        ({"arithmetic": "int4"}, GenieError, "path.arithmetic"),
        ({"steps": 0}, GenieError, "1 or more"),
        ({"threads": 0}, GenieError, "1 or more"),
        ({"temperature": -1.0}, GenieError, "0 or more"),
        ({"temperature": float("nan")}, GenieError, "0 or more"),
        ({"steps": "many"}, GenieError, "path.steps"),
        ({"speed": 3}, GenieError, "'speed'"),
    ],
)
def test_what_cannot_be_is_named(changes, error, words):
    with pytest.raises(error, match=words) as raised:
        GenieEngine(genie("teacher"), **changes)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_asked_for_and_absent():
    with pytest.raises(BackendError, match="no NVIDIA GPU"):
        GenieEngine(genie("teacher"), "cuda")
    assert find_device("auto") == torch.device("cpu")


# what goes wrong


def test_calls_out_of_order_and_wrong_arguments(recipe):
    engine = GenieEngine(genie(recipe))
    for call in (
        lambda: engine.step(0),
        engine.settle,
        lambda: engine.futures([0]),
        lambda: engine.edit(pictures()[0]),
    ):
        with pytest.raises(ValueError, match="reset or restore"):
            call()
    frames = play(engine, WANDER[:3])
    for call, error in (
        (lambda: engine.step(8), ValueError),
        (lambda: engine.step(-1), ValueError),
        (lambda: engine.futures([0, 8]), ValueError),
        (lambda: engine.edit(pictures()[0][:-1]), ValueError),
        (lambda: engine.edit(pictures()[0].astype(np.float32)), ValueError),
        (lambda: engine.see(pictures()), ValueError),
        (lambda: engine.reset(Prompt(pictures()[:, :-1]), 0), ValueError),
        (lambda: engine.reset(Prompt(pictures()[:0]), 0), ValueError),
        (lambda: engine.reset(Prompt(pictures(), tokens=frames[0].tokens[:-1]), 0), ReplayError),
        (lambda: engine.reset(Prompt(pictures(), tokens=frames[0].tokens[:0]), 0), ReplayError),
        (lambda: engine.step(0, frames[0].tokens[:-1]), ReplayError),
        (lambda: engine.step(0, np.full(12, 64, np.uint16)), ReplayError),
        (lambda: engine.restore(History(PROMPT, 9, (Move(1, np.full(12, 64, np.uint16)),))), ReplayError),
        (lambda: engine.restore(History(PROMPT, 9, (Move(9, frames[1].tokens),))), ValueError),
    ):
        with pytest.raises(error):
            call()
    # none of it left a trace
    assert_same([*frames, engine.step(WANDER[3])], play(engine, WANDER[:4]))
    engine.close()
    engine.close()
    for call in (lambda: engine.step(0), lambda: engine.see(pictures()[0]), lambda: engine.reset(PROMPT, 0)):
        with pytest.raises(ValueError, match="closed"):
            call()


@pytest.mark.parametrize("part", ["head", "decoder"])
def test_numbers_that_are_not_finite_are_an_error_and_the_frame_stays(recipe, part):
    engine = GenieEngine(genie(recipe))
    world = engine._genie
    frames = play(engine, WANDER[:6])
    engine.restore(history(frames[:4]))
    weight = world.dynamics.head.weight if part == "head" else world.tokenizer.decoder.enter.weight
    good = weight.detach().clone()
    with torch.no_grad():
        weight[3] = torch.nan
    for _ in range(2):
        with pytest.raises(GenieError, match="not finite"):
            engine.step(WANDER[3])
    with torch.no_grad():
        weight.copy_(good)
    assert_same([engine.step(action) for action in WANDER[3:6]], frames[4:])


def test_a_rebuild_that_fails_leaves_no_play_through(engine, monkeypatch):
    frames = play(engine, WANDER[:9])
    engine._pool.clear()

    def fail(*_):
        raise GenieError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine._genie.tokenizer.decoder, "stream", fail)
        with pytest.raises(GenieError, match="memory"):
            engine.restore(history(frames[:5]))
        with pytest.raises(ValueError, match="reset or restore"):
            engine.step(0)
    assert_same([engine.restore(history(frames[:5])), engine.step(WANDER[4])], frames[4:6])


def test_large_rings_are_not_pooled(recipe, monkeypatch):
    monkeypatch.setattr(engine_module, "Pool", lambda: Pool(limit=1000))
    engine = GenieEngine(genie(recipe))
    frames = play(engine, WANDER)
    assert len(engine._pool) == 0
    assert_same([engine.restore(history(frames[:27])), engine.step(WANDER[26])], frames[26:28])
