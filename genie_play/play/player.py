"""What the keys do to a play-through: pacing, taps, pause, rewind, futures, and an engine that may die.

Gives a session its steps and takes the engine's replies; one request at most is under way, nothing waits in a queue.
Time and keys come in as arguments. Knows nothing of pygame, screens or files.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from genie_play.engine.process import Channel, Reply
from genie_play.play.keymap import KeyMap
from genie_play.play.meter import Meter
from genie_play.session.journal import Replay, Writer
from genie_play.session.session import Session
from genie_play.types import N_ACTIONS, EngineInfo, Frame, Pixels, Prompt

RATES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60)
SEEDS = 1_000_000
HANGS = 20.0  # seconds without an answer after which a restart is offered


@dataclass(frozen=True)
class Flight:
    """A step under way: its action, the slot's key if one asked for it, and when that went down."""

    action: int
    scancode: int | None
    pressed: float | None  # None: a repeat or the flow of time
    begun: float = 0.0
    first: bool = False  # nothing ran before it


@dataclass(frozen=True)
class Load:
    """A play-through to begin: a prompt and a seed, or a replay to go on from."""

    prompt: Prompt | None
    seed: int
    journal: Writer | None
    replay: Replay | None = None


class Player:
    """Steers one session at a time over one engine."""

    def __init__(self, engine: Channel, clock: Callable[[], float], flow: bool = False, rate: float = 0.0) -> None:
        self.engine, self.clock = engine, clock
        self.keys, self.meter = KeyMap(), Meter()
        self.session: Session | None = None
        self.info: EngineInfo | None = None
        self.flow, self.paused, self.asleep = flow, False, False  # asleep: a menu is open or the window is left
        self.touched = False  # somebody plays; until then no key is taken, and a tape may be running
        self.picture: Pixels | None = None
        self.landed: tuple[Flight, float] | None = None  # the last step whose frame came, and when
        self.futures: dict[int, Pixels] = {}  # of the node in `_foreseen`
        self.wants_futures = False
        self.problem = ""  # why the engine stopped
        self.fits: list[float] | None = None  # the answer to `ask_fits`, one number a file, none where it cannot say
        self._rate = rate
        self._question: tuple[Pixels, list[Path]] | None = None
        self._wanted: Load | None = None
        self._begun: Load | None = None
        self._flight: Flight | None = None
        self._unshown: float | None = None
        self._due = 0.0
        self._running = False
        self._settled = True
        self._restore = False
        self._idle_steps = 0
        self._rewind: tuple[float, float] | None = None  # since when, and steps done
        self._foreseen: int | None = None
        self._asked = 0.0
        self._marks: dict[tuple[int, int], int] = {}  # play-through and node -> step of a bookmark

    # what there is to see

    @property
    def started(self) -> bool:
        """There is a play-through with a picture."""
        return self.session is not None and self.session.started

    @property
    def vacant(self) -> bool:
        """There is no play-through and none on its way."""
        return self.session is None and self._wanted is None

    @property
    def loading(self) -> bool:
        """A play-through is on its way, and what there is will be left."""
        return self._wanted is not None

    @property
    def rate(self) -> float:
        """Steps a second that held keys and flowing time aim at."""
        return self._rate or (self.info.rate if self.info else 10.0)

    @property
    def rewinding(self) -> bool:
        """The rewind key is down."""
        return self._rewind is not None

    @property
    def flight(self) -> Flight | None:
        """The step under way."""
        return self._flight

    @property
    def hangs(self) -> bool:
        """The engine has not answered for long."""
        return self.engine.busy and self.engine.ready and self.clock() - self._asked > HANGS

    @property
    def words(self) -> str:
        """What is going on, for the status line."""
        slow = self.meter.slow
        if self.engine.dead:
            return "stopped"
        if not self.engine.ready or not self.started:
            return self.engine.status if not self.engine.ready else "reading the picture"
        if self.rewinding:
            return "rewinding"
        going = self._restore or (self.session is not None and self.session.pending in ("restore", "load"))
        if going and self.touched:
            return "going there"
        if self.paused:
            return "paused"
        if self.flow:
            return "flowing"
        if self._flight is not None or self.keys.held is not None:
            return "thinking" if slow else "running"
        return "your move" if slow else "waiting for you"

    # the loop's three calls

    def take(self, reply: Reply | None, now: float) -> Frame | None:
        """Take a reply; the frame to show, if it brought one. An error of the engine is raised after it was noted."""
        if self.info is None and self.engine.ready:
            self.info = self.engine.info
        if reply is None:
            return None
        if reply.verb == "fits" and not self.engine.dead:
            self.fits = reply.value if reply.error is None else []
            return None
        flight, self._flight = self._flight, None
        if reply.error is not None:
            self._fail(reply)
            raise reply.error
        if reply.verb == "futures":
            self._foresee(reply)
            return None
        frame = self.session.finish(reply) if self.session is not None else None
        if reply.verb == "step":
            self._settled = False
            self.meter.frame(now, reply.seconds, flight is None or flight.first)
        elif reply.verb in ("restore", "reset"):
            self._restore, self._settled = False, False
        if reply.verb == "reset":
            self._begun = None
        if frame is not None:
            self.picture = frame.pixels
            if flight is not None:
                self.landed, self._unshown = (flight, now), flight.pressed
        return frame

    def update(self, now: float) -> None:
        """Let time pass: rewind, and give the engine the newest thing to do if it is free."""
        self._wind(now)
        if self.engine.busy or self.engine.dead:
            return
        if self._question is not None and self.engine.ready:
            self.engine.submit("fits", *self._question)
            self._question = None
        elif self._wanted is not None:
            self._begin_load()
        elif self.session is not None and self.session.started and self.engine.ready:
            self._next(self.session, now)
        if self.engine.busy:
            self._asked = now

    def shown(self, now: float) -> None:
        """What `take` gave is on the screen now."""
        if self._unshown is not None:
            self.meter.keys.append(now - self._unshown)
            self._unshown = None

    def patience(self, now: float, tick: float) -> float:
        """How long the loop may wait for the engine before it comes round again."""
        wait = self._due - now
        # what is due now and was not begun cannot be begun: to hurry would only burn time
        return min(wait, tick) if self._running and not self.engine.busy and wait > 0 else tick

    # what the keys ask for

    def load(self, prompt: Prompt, seed: int, journal: Writer | None = None) -> None:
        """Begin a new play-through as soon as the engine is free."""
        self._wanted = Load(prompt, seed, journal)

    def ask_fits(self, pixels: Pixels, files: list[Path]) -> None:
        """Ask how well worlds show a picture, before anything else; the answer will be in `fits`."""
        self._question, self.fits = (pixels, files), None

    def resume(self, replay: Replay, journal: Writer | None = None) -> None:
        """Go on from the end of a replay; ReplayError if it belongs to another world."""
        if self.info is not None:
            replay.check(self.info)
        self._wanted = Load(None, replay.seed, journal, replay)

    def press(self, scancode: int, now: float) -> bool:
        """A key goes down; whether it was a play key."""
        return self.keys.press(scancode, now)

    def pause(self) -> None:
        """Pause, or go on. Paused, a key is one step."""
        self.paused = not self.paused
        self._running = False

    def walk(self, n: int) -> None:
        """Steps back (n < 0) or forward through the history; past its end, one idle step. Flowing time pauses."""
        if not self._touch():
            return
        assert self.session is not None
        self.paused = self.paused or self.flow
        moved = self.session.back(-n) if n < 0 else self.session.forward(n)
        if moved:
            self._moved()
        elif n > 0 and not self._idle_steps:
            self._idle_steps = 1

    def walk_to(self, index: int) -> None:
        """To a step of the branch that is walked."""
        if self.started and self.session is not None and index != self.session.index:
            self.walk(index - self.session.index)

    def rewind(self, on: bool, now: float) -> None:
        """Begin or end winding back."""
        if on and self._rewind is None and self._touch():
            self._rewind = (now, 0.0)
        elif not on:
            self._rewind = None

    def home(self) -> bool:
        """Back to the prompt; whether that was anywhere else, as with the next three."""
        return self._touch() and self._did(self.session is not None and self.session.home())

    def undo(self) -> bool:
        """Take back the last load, jump or seed."""
        return self._touch() and self._did(self.session is not None and self.session.undo())

    def redo(self) -> bool:
        """Take back the last undo."""
        return self._touch() and self._did(self.session is not None and self.session.redo())

    def recall(self) -> bool:
        """To the last bookmark."""
        return self._touch() and self._did(self.session is not None and self.session.last_bookmark() is not None)

    def bookmark(self) -> bool:
        """Mark this frame; False if there is none yet."""
        if self._touch() and self.session is not None:
            self._marks[id(self.session.prompt), self.session.bookmark()] = self.session.index
            return True
        return False

    @property
    def marks(self) -> list[int]:
        """Steps that are bookmarked in this play-through."""
        if not self.started or self.session is None:
            return []
        play = id(self.session.prompt)
        return sorted({self._marks[play, node] for node in self.session.bookmarks if (play, node) in self._marks})

    def reseed(self) -> int | None:
        """A new random seed from here on."""
        if not self._touch() or self.session is None:
            return None
        seed = new_seed()
        self.session.reseed(seed)
        self._forget_futures()
        return seed

    def pace(self, direction: int) -> float:
        """Slower or faster; the new rate."""
        nearest = min(range(len(RATES)), key=lambda i: abs(RATES[i] - self.rate))
        self._rate = float(RATES[min(max(nearest + direction, 0), len(RATES) - 1)])
        return self._rate

    def revive(self) -> None:
        """Start the engine anew and bring it back to where the play-through stands."""
        self.engine.restart()
        self.problem, self._flight = "", None
        # what was pressed in vain is not what is wanted now
        self.keys.take()
        if self.session is not None:
            self.session.forget_engine()
        if self._begun is not None and self._wanted is None:
            self._wanted, self._begun = self._begun, None
        self._restore = self.started

    def change_engine(self, engine: Channel) -> None:
        """Another world: its play-through begins with the next `load` or `resume`."""
        self.close()
        self.engine, self.info, self.session = engine, None, None
        self.problem, self._flight, self._wanted, self._begun, self._restore = "", None, None, None, False
        self._question, self.fits = None, None
        self.keys.take()
        self._forget_futures()

    def close(self) -> None:
        """Close the journal. The engine is not the player's to close."""
        if self.session is not None:
            self.session.close()

    # helpers

    def _next(self, session: Session, now: float) -> None:
        if self._restore or not session.has_frame:
            self._restore = True
            session.begin_restore()
            return
        flight = self._choose(now)
        if flight is not None:
            self._flight = flight
            session.begin(flight.action)
        elif not self._settled and session.engine_here:
            # the commit needs no key: done while nobody waits for a picture
            self._settled = True
            self.engine.submit("settle")
        elif self.wants_futures and self._foreseen != session.node:
            if session.engine_here:
                self._foreseen, self.futures = session.node, {}
                self.engine.submit("futures", list(range(N_ACTIONS)))
            else:
                self._restore = True
                session.begin_restore()

    def _choose(self, now: float) -> Flight | None:
        """The step to begin now, if any: a tap at once, a held key at the world's pace, idle if time flows."""
        if self.rewinding or self.asleep or not self.touched:
            self._running = False
            return None
        period, first = 1.0 / self.rate, not self._running
        if (tap := self.keys.take()) is not None:
            self._due, self._running, self._idle_steps = now + period, True, 0
            return self._flight_of(tap.scancode, tap.time, now, first)
        if self._idle_steps:
            self._idle_steps = 0
            return Flight(self.keys.idle, None, None, now, True)
        held = self.keys.held
        if self.paused or (held is None and not self.flow):
            self._running = False
            return None
        if self._running and now < self._due:
            return None
        # on the beat while it can be kept; an engine that is slower works without a break
        self._due = max(self._due + period, now) if self._running else now + period
        self._running = True
        if held is None:
            return Flight(self.keys.idle, None, None, now, first)
        return self._flight_of(held.scancode, None, now, first)

    def _flight_of(self, scancode: int, pressed: float | None, now: float, first: bool) -> Flight:
        action = self.keys.action(scancode)
        return Flight(self.keys.idle if action is None else action, scancode, pressed, now, first)

    def _begin_load(self) -> None:
        load, self._wanted = self._wanted, None
        assert load is not None
        self._begun = load
        if load.replay is not None:
            session = Session.from_replay(load.replay, self.engine, load.journal, self.clock)
            self.close()
            self.session, self._restore = session, True
            self._marks |= {(id(session.prompt), i): load.replay.nodes[i].index for i in load.replay.bookmarks}
            if self.engine.ready:
                session.begin_restore()
        elif self.started and self.session is not None:
            assert load.prompt is not None
            self.session.begin_load(load.prompt, load.seed, load.journal)
        else:
            assert load.prompt is not None
            self.session = Session(self.engine, load.prompt, load.seed, load.journal, self.clock)
            self.session.begin_reset()
        self._forget_futures()

    def _fail(self, reply: Reply) -> None:
        """Note an error; the session brings the engine back before its next step."""
        if self.session is not None:
            self.session.forget_engine()
        self._restore, self._settled = False, True
        if not self.engine.dead:
            self._begun = None
        else:
            self.problem = str(reply.error)

    def _foresee(self, reply: Reply) -> None:
        if self.session is not None and self._foreseen == self.session.node:
            self.futures = {action: frame.pixels for action, frame in zip(reply.args[0], reply.value, strict=True)}

    def _forget_futures(self) -> None:
        self.futures, self._foreseen = {}, None

    def _wind(self, now: float) -> None:
        """Steps back for the time that the key was held, ever more a second; there is no limit."""
        if self._rewind is None or self.session is None or self.loading:
            return
        since, done = self._rewind
        held = now - since
        steps = 12.0 * held + 12.0 * held**3
        if (n := int(steps - done)) > 0:
            self._rewind = (since, done + n)
            if self.session.back(n):
                self._moved()

    def _moved(self) -> None:
        """The cursor is elsewhere: show its picture, or let the engine decode it."""
        assert self.session is not None
        self.landed = None
        if self.session.has_frame:
            self.picture = self.session.frame.pixels

    def _did(self, moved: bool) -> bool:
        if moved:
            self._moved()
            self._forget_futures()
        return moved

    def _touch(self) -> bool:
        """Whether there is a play-through; to walk through it is to play, too."""
        if self.started:
            self.touched = True
        return self.started


def new_seed() -> int:
    """A seed that a person can read out."""
    return random.SystemRandom().randrange(SEEDS)
