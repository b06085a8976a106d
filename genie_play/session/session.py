"""One play-through: a tree of histories over an engine, and the only writer of the journal.

Where it stands is the cursor, a node of the tree. Moving the cursor costs nothing: every node keeps its picture
(compressed), and the engine is told only when a step or an edit has to follow from somewhere it is not. Nothing is
ever lost: to step from the past grows a branch, and a new prompt leaves the old play-through where it was.

The seed belongs to the session, not to a node: a new one holds for all steps to come, from wherever they follow, until
the next `reseed`, `load` or `undo`. The journal is told of a jump or of a new seed only by the step that follows it.

Each verb that needs the engine comes twice: `step`, `edit`, `load`, `start` wait for it; `begin`, `begin_edit`,
`begin_load`, `begin_reset` submit to an engine that has `submit`, and `finish` takes its replies. Knows nothing of
keys, windows, recordings or torch.
"""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from genie_play.session import journal as gplay
from genie_play.session.journal import Replay, Writer
from genie_play.types import Engine, EngineInfo, Frame, History, Move, Pixels, Prompt, check_action

PAUSE = 0.5  # seconds: a longer wait between two frames is shortened to this in `recent`
MEMORY = 512 << 20  # bytes of compressed pictures; beyond it the oldest are given up and decoded again when asked for


class Reply(Protocol):
    """What `finish` reads of an engine process's reply."""

    @property
    def verb(self) -> str: ...
    @property
    def value(self) -> Any: ...
    @property
    def error(self) -> Exception | None: ...
    @property
    def seconds(self) -> float: ...


@dataclass(eq=False)
class _Node:
    play: _Play
    i: int
    parent: _Node | None
    move: Move | None
    index: int
    hash: str
    seed: int
    time: float | None = None  # on the session's clock; None: from a replay
    packed: bytes | None = None
    next: _Node | None = None  # the child last visited


@dataclass(eq=False)
class _Play:
    """One prompt and all that grew from it. `last`, `seed` and `path` are what a reader of the journal would hold."""

    prompt: Prompt
    writer: Writer | None
    preamble: list[dict[str, Any]]  # lines that wait for the first event: a look around leaves no file
    seed: int
    path: dict[str, Any]
    last: _Node = field(init=False)
    nodes: dict[int, _Node] = field(default_factory=dict)
    bookmarks: list[int] = field(default_factory=list)


@dataclass
class _Pending:
    """What is under way: the requests still to be answered, and where their answer belongs."""

    kind: str  # step | edit | restore | load
    requests: deque[tuple[str, tuple[Any, ...]]]
    seed: int
    node: _Node | None = None  # None: load
    prompt: Prompt | None = None
    writer: Writer | None = None


class Session:
    """A play-through of `prompt` under `seed`. `start` or `begin_reset` comes first; out of order is a ValueError.

    Nodes are numbered like the journal's i. If an engine's answer is an error, the play-through stays as it was, the
    error is raised from the call that met it, and the next request brings the engine back to the cursor first.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Prompt,
        seed: int,
        journal: Writer | None = None,
        clock: Callable[[], float] = time.monotonic,
        memory: int = MEMORY,
    ) -> None:
        self.engine = engine
        self._seed = seed
        self._clock = clock
        self._first: tuple[Prompt, int, Writer | None] = (prompt, seed, journal)
        self._cursor: _Node | None = None
        self._tip: _Node | None = None  # end of the branch that `forward` walks
        self._engine_at: tuple[_Node, int] | None = None  # node and seed; None: nobody knows
        self._pending: _Pending | None = None
        self._undo: list[tuple[_Node, int]] = []
        self._redo: list[tuple[_Node, int]] = []
        self._unchecked: Replay | None = None
        self._rate = 10.0
        self._memory, self._used = memory, 0
        self._holders: deque[_Node] = deque()
        self._told: str | None = None

    @classmethod
    def from_replay(
        cls,
        replay: Replay,
        engine: Engine,
        journal: Writer | None = None,
        clock: Callable[[], float] = time.monotonic,
        memory: int = MEMORY,
    ) -> Session:
        """Continue a recorded play-through at its last node, journalled from the start into a file of its own.

        Pictures come from the engine when asked for (see `has_frame`). ReplayError, now or from the engine's first
        reply if it is still loading, where the replay belongs to another checkpoint.
        """
        session = cls(engine, replay.prompt, replay.seed, journal, clock, memory)
        if getattr(engine, "ready", True):
            replay.check(engine.info)
        else:
            session._unchecked = replay
        play = _Play(replay.prompt, journal, [replay.header, *replay.events], replay.seed, replay.path)
        for node in replay.nodes.values():
            parent = None if node.parent is None else play.nodes[node.parent]
            play.nodes[node.i] = _Node(play, node.i, parent, node.move, node.index, node.hash, node.seed)
        play.last = play.nodes[replay.last]
        play.bookmarks = list(replay.bookmarks)
        session._rate = replay.rate
        session._visit(play.last)
        return session

    # where it stands

    @property
    def started(self) -> bool:
        """The first frame is in."""
        return self._cursor is not None

    @property
    def pending(self) -> str | None:
        """What the engine is doing for the session: "step", "edit", "restore", "load", or None."""
        return self._pending.kind if self._pending else None

    @property
    def node(self) -> int:
        """Number of the node at the cursor; 0 is the prompt."""
        return self._here.i

    @property
    def index(self) -> int:
        """Steps from the prompt to the cursor."""
        return self._here.index

    @property
    def length(self) -> int:
        """Steps from the prompt to the end of the branch that `forward` would walk."""
        return self._tip.index if self._tip else self._here.index

    @property
    def seed(self) -> int:
        """Seed of the steps to come."""
        return self._seed

    @property
    def prompt(self) -> Prompt:
        """The prompt of this play-through, with its tokens once it has started."""
        return self._cursor.play.prompt if self._cursor else self._first[0]

    @property
    def history(self) -> History:
        """The history up to the cursor."""
        return _history(self._here, self._seed)

    @property
    def has_frame(self) -> bool:
        """The picture at the cursor is in memory; if not, `frame` asks the engine, and so does `begin_restore`."""
        return self._here.packed is not None

    @property
    def frame(self) -> Frame:
        """The frame at the cursor."""
        if self._here.packed is None:
            return self.restore()
        return self._frame(self._here)

    @property
    def engine_here(self) -> bool:
        """The engine is at the cursor with nothing under way, so that its futures are those of this frame."""
        return self._pending is None and self._at(self._here)

    # verbs that need the engine: these wait for it

    def start(self) -> Frame:
        """Show the prompt to the engine."""
        return self._wait(self._plan_load(*self._first))

    def step(self, action: int) -> Frame:
        """Step from the cursor and move it there."""
        return self._wait(self._plan("step", check_action(action)))

    def edit(self, pixels: Pixels) -> Frame:
        """Replace the picture at the cursor by a painted one (H, W, 3); its index stays. Can be undone."""
        return self._wait(self._plan("edit", self._painted(pixels)))

    def load(self, prompt: Prompt, seed: int, journal: Writer | None = None) -> Frame:
        """Begin a new play-through; the old one stays behind `undo`. Its journal is a new file beside the old one."""
        return self._wait(self._plan_load(prompt, seed, journal or self._another()))

    def restore(self) -> Frame:
        """Bring the engine to the cursor."""
        return self._wait(self._plan("restore"))

    # the same without waiting

    def begin_reset(self) -> None:
        """Submit what `start` does."""
        self._submit(self._plan_load(*self._first))

    def begin(self, action: int) -> None:
        """Submit what `step` does."""
        self._submit(self._plan("step", check_action(action)))

    def begin_edit(self, pixels: Pixels) -> None:
        """Submit what `edit` does."""
        self._submit(self._plan("edit", self._painted(pixels)))

    def begin_load(self, prompt: Prompt, seed: int, journal: Writer | None = None) -> None:
        """Submit what `load` does; the cursor stays in the old play-through until the new one's frame arrives."""
        self._submit(self._plan_load(prompt, seed, journal or self._another()))

    def begin_restore(self) -> None:
        """Submit what `restore` does."""
        self._submit(self._plan("restore"))

    def finish(self, reply: Reply) -> Frame | None:
        """Take a reply of the engine; return the frame to show once all that was begun is done.

        None: the reply was not the session's, another request of the same pair has been submitted, or the cursor was
        moved meanwhile (the step is kept on its branch). The error of a reply is raised.
        """
        if reply.error is not None:
            self.forget_engine()
            raise reply.error
        if self._pending is None or self._pending.requests[0][0] != reply.verb:
            return None
        try:
            done, frame = self._advance(reply.value, reply.seconds)
            if not done and self._pending is not None:
                verb, args = self._pending.requests[0]
                self._submitter()(verb, *args)
        except BaseException:
            self.forget_engine()
            raise
        return frame

    def forget_engine(self, engine: Engine | None = None) -> None:
        """The engine was restarted, or replaced by `engine`: drop what is under way, restore before the next step."""
        self.engine = engine or self.engine
        self._pending, self._engine_at = None, None

    # moving the cursor

    def back(self, n: int = 1) -> bool:
        """Walk up to `n` nodes towards the prompt; False if already there."""
        node = self._here
        for _ in range(n):
            if node.parent is None:
                break
            node.parent.next = node
            node = node.parent
        moved, self._cursor = node is not self._here, node
        return moved

    def forward(self, n: int = 1) -> bool:
        """Walk up to `n` nodes along the branch last visited; False at its end."""
        node = self._here
        for _ in range(n):
            node = node.next or node
        moved, self._cursor = node is not self._here, node
        return moved

    def home(self) -> bool:
        """Back to the prompt. Can be undone; False if already there."""
        return self.goto(0)

    def goto(self, node_id: int) -> bool:
        """Jump to a node. Can be undone; False if already there, ValueError if there is none of that number."""
        nodes = self._here.play.nodes
        if node_id not in nodes:
            raise ValueError(f"this play-through has no node {node_id}")
        if nodes[node_id] is self._here:
            return False
        self._remember()
        self._visit(nodes[node_id])
        return True

    def reseed(self, seed: int) -> None:
        """Another seed for the steps to come. Can be undone."""
        if not isinstance(seed, int) or not 0 <= seed < 1 << 64:
            raise ValueError(f"a seed is a whole number from 0 up to 2**64 - 1, not {seed}")
        if self.started:
            self._remember()
        else:
            self._first = (self._first[0], seed, self._first[2])
        self._seed = seed

    def bookmark(self) -> int:
        """Mark the node at the cursor and return its number."""
        node = self._here
        node.play.bookmarks.append(node.i)
        self._write(node.play, {"e": "note", "i": node.i, "mark": True})
        return node.i

    @property
    def bookmarks(self) -> list[int]:
        """Numbers of the marked nodes, in order of marking."""
        return list(self._here.play.bookmarks)

    @property
    def marks(self) -> list[int]:
        """Steps from the prompt to each marked node, rising, each once."""
        play = self._here.play
        return sorted({play.nodes[i].index for i in play.bookmarks})

    def last_bookmark(self) -> int | None:
        """Jump to the newest bookmark and return its number; None if there is none. Can be undone."""
        marks = self._here.play.bookmarks
        if not marks:
            return None
        self.goto(marks[-1])
        return marks[-1]

    def undo(self) -> bool:
        """Take back the last load, home, goto, reseed or edit; False if there is none. Nothing is deleted by it."""
        return self._swap(self._undo, self._redo)

    def redo(self) -> bool:
        """Take back the last undo; False if there is none."""
        return self._swap(self._redo, self._undo)

    # what was played

    def recent(self, seconds: float) -> list[tuple[Pixels, float]]:
        """The last frames up to the cursor, oldest first, each (H, W, 3) with the seconds it was shown.

        Seconds are as played, long pauses shortened; frames of a replay last one tick. It ends where a picture is no
        longer in memory.
        """
        tick = 1.0 / self._rate
        found: list[tuple[Pixels, float]] = []
        node: _Node | None = self._here
        total, shown = 0.0, tick
        while node is not None and node.packed is not None and (not found or total + shown <= seconds + 1e-9):
            found.append((self._pixels(node), shown))
            total += shown
            above = node.parent
            if above is not None:
                known = node.time is not None and above.time is not None
                shown = min(max((node.time or 0.0) - (above.time or 0.0), 0.0), PAUSE) if known else tick
            node = above
        return found[::-1]

    def journal_problem(self) -> str | None:
        """Why the journal is not being written, once for each time it begins; else None."""
        writer = self._cursor.play.writer if self._cursor else None
        problem = writer.problem if writer else None
        news = problem if problem != self._told else None
        self._told = problem
        return news

    @property
    def journal(self) -> Writer | None:
        """The writer of this play-through."""
        return self._cursor.play.writer if self._cursor else self._first[2]

    def close(self) -> None:
        """Close the journals. The engine stays open: it is not the session's. Twice is fine."""
        plays = {id(node.play): node.play for node, _ in [*self._undo, *self._redo]}
        if self._cursor is not None:
            plays[id(self._cursor.play)] = self._cursor.play
        for play in plays.values():
            if play.writer is not None:
                play.writer.close()

    # helpers

    @property
    def _here(self) -> _Node:
        if self._cursor is None:
            raise ValueError("the play-through has not started; call start or begin_reset, or await its reply")
        return self._cursor

    def _at(self, node: _Node) -> bool:
        return self._engine_at is not None and self._engine_at[0] is node and self._engine_at[1] == self._seed

    def _plan(self, kind: str, *args: Any) -> _Pending:
        self._check_free()
        node = self._here
        requests: deque[tuple[str, tuple[Any, ...]]] = deque()
        if kind == "restore" or not self._at(node):
            requests.append(("restore", (self.history,)))
        if kind != "restore":
            requests.append((kind, args))
        return _Pending(kind, requests, self._seed, node)

    def _plan_load(self, prompt: Prompt, seed: int, writer: Writer | None) -> _Pending:
        self._check_free()
        return _Pending("load", deque([("reset", (prompt, seed))]), seed, prompt=prompt, writer=writer)

    def _check_free(self) -> None:
        if self._pending is not None:
            raise ValueError(f"a {self._pending.kind} is still under way")

    def _submitter(self) -> Callable[..., None]:
        submit: Callable[..., None] | None = getattr(self.engine, "submit", None)
        if submit is None:
            raise ValueError("this engine has no submit: use start, step, edit and load")
        return submit

    def _submit(self, pending: _Pending) -> None:
        verb, args = pending.requests[0]
        self._submitter()(verb, *args)
        self._pending = pending

    def _wait(self, pending: _Pending) -> Frame:
        self._pending = pending
        try:
            while True:
                verb, args = pending.requests[0]
                start = self._clock()
                value = getattr(self.engine, verb)(*args)
                done, frame = self._advance(value, self._clock() - start)
                if done:
                    assert frame is not None
                    return frame
        except BaseException:
            self.forget_engine()
            raise

    def _advance(self, frame: Frame, seconds: float) -> tuple[bool, Frame | None]:
        """Take the answer to the first request. Whether that was the last one, and the frame to show if it was."""
        pending = self._pending
        assert pending is not None
        if self._unchecked is not None:
            self._unchecked.check(self.engine.info)
            self._unchecked = None
        verb, args = pending.requests.popleft()
        if verb == "restore":
            assert pending.node is not None
            self._engine_at = (pending.node, pending.seed)
            if pending.node.packed is None:
                self._pack(pending.node, frame.pixels)
            if pending.requests:
                return False, None
            self._pending = None
            return True, self._frame(pending.node) if self._cursor is pending.node else None
        self._pending = None
        if verb == "reset":
            node = self._new_play(pending, frame)
        else:
            assert pending.node is not None
            painted = np.array(args[0]) if verb == "edit" else None
            move = Move(None if verb == "edit" else args[0], frame.tokens, painted)
            node = self._grow(pending.node, move, frame.pixels, pending.seed, seconds)
        self._engine_at = (node, pending.seed)
        if verb != "reset" and self._cursor is not pending.node:
            return True, None
        if verb != "step" and self._cursor is not None:
            self._remember()
        if verb == "reset":
            self._leave(node.play)
            self._seed = pending.seed
        self._visit(node)
        return True, self._frame(node)

    def _new_play(self, pending: _Pending, frame: Frame) -> _Node:
        assert pending.prompt is not None
        info: EngineInfo = self.engine.info
        self._rate = info.rate
        prompt = dataclasses.replace(pending.prompt, tokens=frame.tokens)
        preamble = [gplay.header(info, prompt, pending.seed)] if pending.writer is not None else []
        play = _Play(prompt, pending.writer, preamble, pending.seed, info.path)
        root_hash = gplay.token_hash("", frame.tokens)
        root = _Node(play, 0, None, None, 0, root_hash, pending.seed, self._clock())
        play.nodes[0] = play.last = root
        self._pack(root, frame.pixels)
        return root

    def _grow(self, parent: _Node, move: Move, pixels: Pixels, seed: int, seconds: float) -> _Node:
        play = parent.play
        i = next(reversed(play.nodes)) + 1
        index = parent.index + (move.action is not None)
        node = _Node(play, i, parent, move, index, gplay.token_hash(parent.hash, move.tokens), seed, self._clock())
        self._pack(node, pixels)
        events: list[dict[str, Any]] = []
        if (path := self.engine.info.path) != play.path:
            events.append({"e": "path", "path": path})
        if seed != play.seed:
            events.append({"e": "seed", "seed": seed})
        if parent is not play.last:
            events.append({"e": "goto", "i": parent.i, "from": play.last.i})
        events.append(gplay.step_event(i, move, node.hash, seconds * 1000))
        play.nodes[i] = play.last = node
        play.seed, play.path = seed, path
        self._write(play, *events)
        if parent.next is None:
            # also where the cursor has moved on: `forward` should find what was played there
            parent.next = node
            self._tip = node if self._tip is parent else self._tip
        return node

    def _write(self, play: _Play, *events: dict[str, Any]) -> None:
        if play.writer is not None:
            play.writer.append(*play.preamble, *events)
            play.preamble = []

    def _visit(self, node: _Node) -> None:
        """Put the cursor on a node and make its branch the one that `forward` walks."""
        before, self._cursor, self._tip = self._cursor, node, node
        above = node
        # the way from the prompt to the cursor is walked already
        while above.parent is not None and above is not before:
            above.parent.next = above
            above = above.parent
        while self._tip.next is not None:
            self._tip = self._tip.next

    def _remember(self) -> None:
        self._undo.append((self._here, self._seed))
        self._redo.clear()

    def _swap(self, source: list[tuple[_Node, int]], target: list[tuple[_Node, int]]) -> bool:
        if not source:
            return False
        target.append((self._here, self._seed))
        node, self._seed = source.pop()
        self._leave(node.play)
        self._visit(node)
        return True

    def _leave(self, play: _Play) -> None:
        """Close the journal of a play-through that is left for another; it opens again when written to."""
        here = self._cursor.play if self._cursor else play
        if here is not play and here.writer is not None:
            here.writer.close()

    def _painted(self, pixels: Pixels) -> Pixels:
        shape = self.prompt.pictures.shape[1:]
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise ValueError(f"a painted picture is {shape} uint8, not {pixels.shape} {pixels.dtype}")
        return pixels

    def _another(self) -> Writer | None:
        writer = self.journal
        return writer.another() if writer is not None else None

    def _frame(self, node: _Node) -> Frame:
        action = node.move.action if node.move else None
        tokens = node.move.tokens if node.move else node.play.prompt.tokens
        assert tokens is not None
        return Frame(node.index, action, self._pixels(node), tokens.copy())

    def _pixels(self, node: _Node) -> Pixels:
        assert node.packed is not None
        flat = np.frombuffer(zlib.decompress(node.packed), np.uint8)
        return flat.reshape(node.play.prompt.pictures.shape[1:]).copy()

    def _pack(self, node: _Node, pixels: Pixels) -> None:
        node.packed = zlib.compress(np.ascontiguousarray(pixels).tobytes(), 1)
        self._holders.append(node)
        self._used += len(node.packed)
        while self._used > self._memory and len(self._holders) > 1:
            oldest = self._holders.popleft()
            self._used -= len(oldest.packed or b"")
            oldest.packed = None


def _history(node: _Node, seed: int) -> History:
    moves = []
    above: _Node | None = node
    while above is not None:
        if above.move is not None:
            moves.append(above.move)
        above = above.parent
    return History(node.play.prompt, seed, tuple(moves[::-1]))
