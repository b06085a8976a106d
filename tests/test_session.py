"""A play-through: the cursor, branches, undo, and what is asked of the engine, with and without waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fakes import CountingEngine, prompt
from hypothesis import given, settings
from hypothesis import strategies as st

from genie_play.session.journal import Writer, read
from genie_play.session.session import Session
from genie_play.types import Prompt, ReplayError, SourceError

SIZE = (24, 32)


class Spy(CountingEngine):
    """Notes the calls that reach it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[str] = []

    def reset(self, prompt, seed):
        self.calls.append("reset")
        return super().reset(prompt, seed)

    def step(self, action, tokens=None):
        self.calls.append(f"step {action}")
        return super().step(action, tokens)

    def restore(self, history):
        if self.calls[-1:] != ["reset"]:
            self.calls.append(f"restore {history.index}")
        return super().restore(history)

    def edit(self, pixels):
        self.calls.append("edit")
        return super().edit(pixels)


@dataclass(frozen=True)
class Answer:
    verb: str
    args: tuple[Any, ...]
    value: Any = None
    error: Exception | None = None
    seconds: float = 0.02


class Remote(Spy):
    """An engine with `submit`, whose answers a test fetches when it likes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.request: tuple[str, tuple[Any, ...]] | None = None

    def submit(self, verb: str, *args: Any) -> None:
        if self.request is not None:
            raise ValueError("busy")
        self.request = (verb, args)

    def answer(self) -> Answer:
        assert self.request is not None
        (verb, args), self.request = self.request, None
        try:
            return Answer(verb, args, getattr(self, verb)(*args))
        except Exception as error:
            return Answer(verb, args, error=error)


def started(engine=None, seed=1, journal=None, **options) -> Session:
    session = Session(engine or Spy(), prompt(), seed, journal, **options)
    session.start()
    return session


def play(session: Session, *actions: int) -> None:
    for action in actions:
        session.step(action)


def test_steps_and_navigation_need_no_engine():
    engine = Spy()
    session = started(engine)
    play(session, 1, 2, 3)
    shown = [session.frame.pixels]
    while session.back():
        shown.append(session.frame.pixels)
    assert session.index == 0
    assert session.length == 3
    assert not session.back()
    session.forward(2)
    assert session.index == 2
    assert session.frame.action == 2
    assert np.array_equal(session.frame.pixels, shown[1])
    assert session.forward(5)
    assert not session.forward()
    assert engine.calls == ["reset", "step 1", "step 2", "step 3"]
    play(session, 4)
    assert engine.calls[4:] == ["step 4"]  # back where the engine was: nothing to restore


def test_stepping_from_the_past_grows_a_branch():
    engine = Spy()
    session = started(engine)
    play(session, 1, 2, 3)
    session.back(2)
    play(session, 5)
    assert engine.calls[4:] == ["restore 1", "step 5"]
    assert [move.action for move in session.history.moves] == [1, 5]
    session.home()
    session.forward(9)
    assert session.node == 4  # the branch last visited
    session.goto(3)
    assert [move.action for move in session.history.moves] == [1, 2, 3]
    session.back(3)
    session.forward(9)
    assert session.node == 3
    with pytest.raises(ValueError, match="no node 77"):
        session.goto(77)


def test_the_same_past_gives_the_same_future():
    session = started()
    play(session, 1, 2, 3)
    kept = session.frame
    session.back(2)
    play(session, 2, 3)
    assert np.array_equal(session.frame.tokens, kept.tokens)
    session.back(2)
    session.reseed(99)
    play(session, 2, 3)
    assert not np.array_equal(session.frame.tokens, kept.tokens)


def test_frames_are_fresh():
    session = started()
    frame = session.step(1)
    frame.pixels[:] = 0
    frame.tokens[:] = 0
    assert session.frame.pixels.any()
    assert session.frame.tokens.any()


def test_a_call_out_of_order_is_a_value_error():
    session = Session(Spy(), prompt(), 1)
    assert not session.started
    for call in (session.back, session.home, session.bookmark, lambda: session.step(0), lambda: session.frame):
        with pytest.raises(ValueError, match="not started"):
            call()
    session.start()
    for action in (-1, 8):
        with pytest.raises(ValueError, match="outside"):
            session.step(action)
    with pytest.raises(ValueError, match="submit"):
        session.begin(1)
    with pytest.raises(ValueError, match="painted"):
        session.edit(np.zeros((2, 2, 3), np.uint8))
    for seed in (-1, 2**64, 1.5):
        with pytest.raises(ValueError, match="seed"):
            session.reseed(seed)


def test_undo_and_redo_of_every_jump():
    session = started()
    play(session, 1, 2)
    session.bookmark()
    play(session, 3)
    assert session.marks == [2]
    session.home()
    assert session.undo()
    assert session.index == 3
    assert session.redo()
    assert session.index == 0
    assert session.last_bookmark() == 2
    assert session.index == 2
    session.undo()
    assert session.index == 0
    session.reseed(50)
    session.undo()
    assert session.seed == 1
    session.redo()
    assert session.seed == 50
    painted = np.full((*SIZE, 3), 200, np.uint8)
    before = session.node
    session.edit(painted)
    assert session.index == 0
    assert session.history.moves[-1].action is None
    session.undo()
    assert session.node == before
    session.redo()
    assert session.history.moves[-1].action is None
    while session.undo():
        pass
    assert session.node == 3
    assert not session.undo()


def test_a_home_that_moves_nothing_is_not_remembered():
    session = started()
    assert not session.home()
    assert session.last_bookmark() is None
    assert not session.undo()


def test_loading_is_undone_and_each_play_has_its_file(tmp_path):
    engine = Spy()
    session = started(engine, journal=Writer(tmp_path / "a.gplay"))
    play(session, 1, 2)
    session.load(prompt(shade=20), 7)
    assert (session.index, session.seed, session.node) == (0, 7, 0)
    play(session, 3)
    session.undo()
    assert (session.index, session.seed) == (2, 1)
    assert session.prompt.pictures.max() == 90
    play(session, 4)
    assert engine.calls[-2:] == ["restore 2", "step 4"]
    session.redo()
    assert session.index == 1
    session.close()
    assert [n.move.action for n in read(tmp_path / "a.gplay").branch()[1:]] == [1, 2, 4]
    assert [n.move.action for n in read(tmp_path / "a-2.gplay").branch()[1:]] == [3]
    assert read(tmp_path / "a-2.gplay").seed == 7


def test_looking_around_leaves_no_file(tmp_path):
    session = started(journal=Writer(tmp_path / "a.gplay"))
    session.close()
    assert not list(tmp_path.iterdir())
    play(session, 1)
    assert len(list(tmp_path.iterdir())) == 1
    session.close()


def test_the_journal_follows_the_tree(tmp_path):
    session = started(journal=Writer(tmp_path / "a.gplay"))
    play(session, 1, 2, 3)
    session.back(3)
    session.forward()
    session.reseed(9)
    play(session, 4)
    session.edit(np.full((*SIZE, 3), 200, np.uint8))
    session.close()
    replay = read(tmp_path / "a.gplay")
    assert [event["e"] for event in replay.events] == ["step", "step", "step", "seed", "goto", "step", "edit"]
    assert replay.events[4] == {"e": "goto", "i": 1, "from": 3}
    assert replay.last == session.node


def test_an_error_leaves_the_play_through_as_it_was():
    engine = Spy(fail="step")
    session = started(engine)
    play(session, 1, 2)
    with pytest.raises(SourceError):
        session.step(7)
    assert session.index == 2
    assert session.pending is None
    play(session, 3)
    assert engine.calls[-2:] == ["restore 2", "step 3"]
    assert session.index == 3


def test_a_bad_load_keeps_the_world():
    engine = Spy()
    session = started(engine)
    play(session, 1)
    with pytest.raises(ValueError, match="do not fit"):
        session.load(Prompt(np.zeros((1, 8, 8, 3), np.uint8)), 5)
    assert (session.index, session.seed) == (1, 1)
    assert not session.undo()
    play(session, 2)
    assert session.index == 2


def test_nothing_blocks():
    engine = Remote()
    session = Session(engine, prompt(), 1)
    session.begin_reset()
    assert session.pending == "load"
    assert session.finish(engine.answer()).index == 0
    session.begin(3)
    with pytest.raises(ValueError, match="under way"):
        session.begin(4)
    frame = session.finish(engine.answer())
    assert (frame.index, frame.action, session.pending) == (1, 3, None)
    assert session.engine_here
    session.back()
    assert not session.engine_here
    session.begin(5)  # a pair: restore, then step
    assert session.finish(engine.answer()) is None
    assert session.pending == "step"
    assert session.finish(engine.answer()).action == 5
    session.begin_edit(np.full((*SIZE, 3), 200, np.uint8))
    assert session.finish(engine.answer()).index == 1
    session.begin_load(prompt(shade=20), 2)
    assert session.seed == 1
    session.finish(engine.answer())
    assert session.seed == 2


def test_replies_that_are_not_the_sessions():
    engine = Remote()
    session = Session(engine, prompt(), 1)
    session.begin_reset()
    session.finish(engine.answer())
    engine.submit("settle")
    assert session.finish(engine.answer()) is None
    engine.submit("settle")
    with pytest.raises(ValueError, match="busy"):
        session.begin(1)
    assert session.pending is None
    engine.answer()
    session.begin(1)
    with pytest.raises(SourceError, match="stopped"):
        session.finish(Answer("", (), error=SourceError("the engine stopped")))
    assert session.pending is None
    assert session.index == 0
    engine.request = None
    session.begin(2)
    assert engine.request[0] == "restore"


def test_a_step_that_arrives_after_the_cursor_moved_is_kept():
    engine = Remote()
    session = Session(engine, prompt(), 1)
    session.begin_reset()
    session.finish(engine.answer())
    session.begin(1)
    session.finish(engine.answer())
    session.begin(2)
    session.back()
    session.reseed(8)
    assert session.finish(engine.answer()) is None
    assert session.index == 0
    assert session.forward(9)
    assert session.frame.action == 2
    assert session.frame.index == 2
    assert int(session.frame.tokens[2]) == 1  # made under the seed of its begin


def test_an_engine_that_restarted_is_brought_back():
    engine = Spy()
    session = started(engine)
    play(session, 1, 2)
    fresh = Spy()
    session.forget_engine(fresh)
    play(session, 3)
    assert fresh.calls == ["restore 2", "step 3"]


def test_a_replay_is_continued_in_a_file_of_its_own(tmp_path):
    session = started(journal=Writer(tmp_path / "a.gplay"))
    play(session, 1, 2, 3)
    session.bookmark()
    session.back(2)
    play(session, 4)
    frames = []
    for i in range(5):
        session.goto(i)
        frames.append(session.frame)
    session.close()
    before = (tmp_path / "a.gplay").read_bytes()
    engine = Spy()
    again = Session.from_replay(read(tmp_path / "a.gplay"), engine, Writer(tmp_path / "a.gplay"))
    assert (again.node, again.index, again.bookmarks) == (4, 2, [3])
    assert not again.has_frame
    assert engine.calls == []
    for i in (4, 3, 2, 1, 0):
        again.goto(i)
        assert np.array_equal(again.frame.pixels, frames[i].pixels)
        assert again.frame.index == frames[i].index
        assert again.has_frame
    again.goto(4)
    play(again, 5)
    again.close()
    assert (tmp_path / "a.gplay").read_bytes() == before
    longer = read(tmp_path / "a-2.gplay")
    assert len(longer.nodes) == 6
    assert [n.move.action for n in longer.branch()[1:]] == [1, 4, 5]
    with pytest.raises(ReplayError, match="pixels"):
        Session.from_replay(longer, Spy(size=(16, 16)))


def test_a_path_that_changes_is_noted(tmp_path):
    session = started(journal=Writer(tmp_path / "a.gplay"))
    play(session, 1)
    other = Spy()
    other.info = other.info.__class__(**{**other.info.__dict__, "path": {"device": "cuda"}})
    session.forget_engine(other)
    play(session, 2)
    session.close()
    nodes = read(tmp_path / "a.gplay").nodes
    assert [nodes[i].path["device"] for i in (1, 2)] == ["cpu", "cuda"]


def test_recent_frames_with_the_time_they_were_shown():
    now = [0.0]
    session = started(clock=lambda: now[0])
    for action, wait in ((1, 0.1), (2, 0.3), (3, 9.0), (4, 0.1)):
        now[0] += wait
        session.step(action)
    found = session.recent(60)
    assert [round(seconds, 6) for _, seconds in found] == [0.1, 0.3, 0.5, 0.1, 0.1]
    assert np.array_equal(found[-1][0], session.frame.pixels)
    assert [round(seconds, 6) for _, seconds in session.recent(0.25)] == [0.1, 0.1]
    assert len(session.recent(0.0)) == 1
    session.back(2)
    assert len(session.recent(60)) == 3


def test_pictures_beyond_the_budget_are_decoded_again():
    engine = Spy()
    session = started(engine, memory=2000)
    play(session, *[1, 2, 3] * 20)
    last = session.frame
    session.home()
    assert not session.has_frame
    assert session.frame.index == 0
    session.forward(60)
    assert np.array_equal(session.frame.pixels, last.pixels)
    held = sum(len(node.packed or b"") for node in session._here.play.nodes.values())
    assert held <= 2000


BUTTONS = ["back", "forward", "home", "undo", "redo", "mark", "last", "seed"]
KEYS = st.one_of(st.integers(0, 7), st.sampled_from(BUTTONS))


@settings(max_examples=60, deadline=None)
@given(st.lists(KEYS, max_size=40))
def test_whatever_is_pressed_nothing_is_lost(keys):
    session = started()
    seen = {0: session.frame.tokens.tolist()}
    for turn, key in enumerate(keys):
        if isinstance(key, int):
            session.step(key)
            assert session.node not in seen
            seen[session.node] = session.frame.tokens.tolist()
        else:
            {
                "back": session.back, "forward": session.forward, "home": session.home, "undo": session.undo,
                "redo": session.redo, "mark": session.bookmark, "last": session.last_bookmark,
                "seed": lambda: session.reseed(turn),  # noqa: B023
            }[key]()  # fmt: skip
        assert session.history.index == session.index <= session.length
        assert session.frame.tokens.tolist() == seen[session.node]
        # forward and back are inverses
        node = session.node
        if session.back():
            session.forward()
            assert session.node == node
    for node, tokens in seen.items():
        session.goto(node)
        assert session.frame.tokens.tolist() == tokens
