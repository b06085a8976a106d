"""What every engine must do, as one function: each engine's tests call `check_engine` with a way to make one."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from genie_play.types import LABEL_NAMES, N_ACTIONS, Engine, Frame, History, Move, Prompt

WALK = (2, 2, 5, 0, 1, 3, 7, 6, 4, 2, 0)


def check_engine(
    make_engine: Callable[[], Engine],
    prompt: Prompt,
    actions: Sequence[int] = WALK,
    seed: int = 3,
    exact_futures: bool = True,
) -> None:
    """Hold an engine to the protocol. `exact_futures`: a future equals the step it foretells, bit for bit."""
    engine = make_engine()
    try:
        _check_info(engine)
        _check_order(engine, prompt)
        first, frames = _walk(engine, prompt, seed, actions)
        _check_frames(engine, prompt, first, frames, actions)
        _check_fresh(engine, prompt, seed, actions, first, frames)
        _check_futures(engine, prompt, seed, actions, frames, exact_futures)
        _check_given_tokens(make_engine, prompt, seed, actions, first, frames)
        _check_restore(engine, prompt, seed, actions, first, frames)
        _check_edit(engine, prompt, seed, actions, frames)
        _check_see(engine, prompt, seed, actions, frames)
    finally:
        engine.close()
        engine.close()


def same(a: Frame, b: Frame) -> None:
    """Assert that two frames are equal in every field."""
    assert (a.index, a.action) == (b.index, b.action)
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.pixels, b.pixels)


def _copy(frame: Frame) -> Frame:
    return replace(frame, pixels=frame.pixels.copy(), tokens=frame.tokens.copy())


def _walk(engine: Engine, prompt: Prompt, seed: int, actions: Sequence[int]) -> tuple[Frame, list[Frame]]:
    first = _copy(engine.reset(prompt, seed))
    return first, [_copy(engine.step(action)) for action in actions]


def _moves(frames: Sequence[Frame]) -> tuple[Move, ...]:
    return tuple(Move(frame.action, frame.tokens) for frame in frames)


def _check_info(engine: Engine) -> None:
    info = engine.info
    assert isinstance(engine, Engine)
    assert pickle.loads(pickle.dumps(info)) == info
    assert [label.code for label in info.labels] == list(range(N_ACTIONS))
    assert {label.name for label in info.labels} <= set(LABEL_NAMES)
    assert 0 <= info.idle < N_ACTIONS
    assert info.rate > 0
    assert info.window >= 1
    assert info.n_tokens >= 1
    assert info.path


def _check_order(engine: Engine, prompt: Prompt) -> None:
    blank = np.zeros((*engine.info.size, 3), np.uint8)
    for call in (lambda: engine.step(0), engine.settle, lambda: engine.futures([0]), lambda: engine.edit(blank)):
        with pytest.raises(ValueError):  # noqa: PT011
            call()
    frame = _copy(engine.reset(prompt, 1))
    for action in (-1, N_ACTIONS):
        with pytest.raises(ValueError):  # noqa: PT011
            engine.step(action)
        with pytest.raises(ValueError):  # noqa: PT011
            engine.futures([0, action])
    # what was refused has left no trace
    ahead = _copy(engine.step(1))
    assert ahead.index == 1
    same(engine.reset(prompt, 1), frame)
    same(engine.step(1), ahead)


def _check_frames(
    engine: Engine, prompt: Prompt, first: Frame, frames: Sequence[Frame], actions: Sequence[int]
) -> None:
    info = engine.info
    assert first.action is None
    assert first.tokens.shape == (len(prompt.pictures) * info.n_tokens,)
    assert [frame.index for frame in (first, *frames)] == list(range(len(actions) + 1))
    assert [frame.action for frame in frames] == list(actions)
    for frame in (first, *frames):
        assert frame.pixels.shape == (*info.size, 3)
        assert frame.pixels.dtype == np.uint8
        assert frame.tokens.dtype == np.uint16
    assert all(frame.tokens.shape == (info.n_tokens,) for frame in frames)
    assert any((frame.pixels != first.pixels).any() for frame in frames), "nothing ever moves"


def _check_fresh(
    engine: Engine, prompt: Prompt, seed: int, actions: Sequence[int], first: Frame, frames: Sequence[Frame]
) -> None:
    """The same inputs give the same frames, though each array was spoilt and `settle` called as one likes."""
    frame = engine.reset(prompt, seed)
    same(frame, first)
    for i, action in enumerate(actions):
        frame.pixels[:] = 7
        frame.tokens[:] = 7
        for _ in range(i % 3):
            engine.settle()
        frame = engine.step(action)
        same(frame, frames[i])


def _check_futures(
    engine: Engine, prompt: Prompt, seed: int, actions: Sequence[int], frames: Sequence[Frame], exact: bool
) -> None:
    engine.reset(prompt, seed)
    for i, action in enumerate(actions[:3]):
        futures = [_copy(frame) for frame in engine.futures(range(N_ACTIONS))]
        assert [frame.action for frame in futures] == list(range(N_ACTIONS))
        assert {frame.index for frame in futures} == {i + 1}
        assert all(frame.pixels.shape == frames[i].pixels.shape for frame in futures)
        if exact:
            same(futures[action], frames[i])
        assert engine.futures([]) == []
        same(engine.step(action), frames[i])


def _check_given_tokens(
    make_engine: Callable[[], Engine],
    prompt: Prompt,
    seed: int,
    actions: Sequence[int],
    first: Frame,
    frames: Sequence[Frame],
) -> None:
    """Another engine shows the same pictures from the tokens alone, whatever its seed."""
    other = make_engine()
    try:
        same(other.reset(replace(prompt, tokens=first.tokens), seed + 1), first)
        for action, frame in zip(actions, frames, strict=True):
            same(other.step(action, frame.tokens), frame)
    finally:
        other.close()


def _check_restore(
    engine: Engine, prompt: Prompt, seed: int, actions: Sequence[int], first: Frame, frames: Sequence[Frame]
) -> None:
    for count in (len(actions), 0, 1, len(actions) // 2, len(actions) - 1, 2):
        frame = engine.restore(History(prompt, seed, _moves(frames[:count])))
        same(frame, frames[count - 1] if count else first)
        for i in range(count, min(count + 2, len(actions))):
            same(engine.step(actions[i]), frames[i])


def _check_edit(engine: Engine, prompt: Prompt, seed: int, actions: Sequence[int], frames: Sequence[Frame]) -> None:
    cut = len(actions) // 2
    before = engine.restore(History(prompt, seed, _moves(frames[:cut])))
    painted = before.pixels.copy()
    painted[: len(painted) // 3] = painted[-1, 0]
    kept = painted.copy()
    edited = _copy(engine.edit(painted))
    np.testing.assert_array_equal(painted, kept)
    assert (edited.index, edited.tokens.shape, edited.tokens.dtype) == (cut, (engine.info.n_tokens,), np.uint16)
    assert edited.pixels.shape == painted.shape
    after = [_copy(engine.step(action)) for action in actions[cut:]]
    # back and forth across the edit
    moves = (*_moves(frames[:cut]), Move(None, edited.tokens, kept), *_moves(after))
    for count in (len(moves), cut + 1, cut, cut + 2):
        frame = engine.restore(History(prompt, seed, moves[:count]))
        expected = (*frames[:cut], edited, *after)[count - 1]
        np.testing.assert_array_equal(frame.pixels, expected.pixels)
        np.testing.assert_array_equal(frame.tokens, expected.tokens)
        assert frame.index == expected.index
        if cut < count < len(moves):
            same(engine.step(actions[count - 1]), after[count - 1 - cut])


def _check_see(engine: Engine, prompt: Prompt, seed: int, actions: Sequence[int], frames: Sequence[Frame]) -> None:
    engine.reset(prompt, seed)
    same(engine.step(actions[0]), frames[0])
    picture = prompt.pictures[-1].copy()
    seen = engine.see(picture)
    assert seen.shape == picture.shape
    assert seen.dtype == np.uint8
    assert seen is not picture
    np.testing.assert_array_equal(picture, prompt.pictures[-1])
    same(engine.step(actions[1]), frames[1])
