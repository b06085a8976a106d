"""Engines and windows that are easy to reason about: a counter drawn as pixels, a clock that a test ticks.

They satisfy the same contracts as the real ones and are held to the same conformance test.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genie_play.engine.process import Channel, Inline, Reply
from genie_play.types import (
    N_ACTIONS,
    CheckpointError,
    EngineInfo,
    Frame,
    GenieError,
    History,
    Label,
    Pixels,
    Prompt,
    SourceError,
    Tokens,
    check_action,
)

N_TOKENS = 5
LABELS = tuple(
    Label(code, name, dx, dy, 0.9)
    for code, (name, dx, dy) in enumerate(
        [
            ("idle", 0.0, 0.0),
            ("left", -4.0, 0.0),
            ("right", 4.0, 0.0),
            ("jump", 0.0, -4.0),
            ("jump-left", -4.0, -4.0),
            ("jump-right", 4.0, -4.0),
            ("down", 0.0, 3.0),
            ("other", 0.5, 0.2),
        ]
    )
)


class CountingEngine:
    """Tokens are (steps, last action, its seed, prompt's mean colour, trail of all of it); the picture shows them.

    `fail` names what goes wrong: "load" and "import" cannot load; at action 7 "step" raises a SourceError, "bug" a
    KeyError, and "die" kills its own process.
    """

    def __init__(
        self,
        size: tuple[int, int] = (24, 32),
        rate: float = 10.0,
        fail: str = "",
        delay: float = 0.0,
        weights: Path | None = None,
        progress: Any = None,
    ) -> None:
        if progress is not None:
            progress("warming up")
        if fail == "load":
            raise CheckpointError("world.safetensors is cut short; copy it again")
        if fail == "import":
            raise ModuleNotFoundError("No module named 'nothing_like_this'")
        self.fail, self.delay = fail, delay
        path = {"device": "cpu", "arithmetic": "int"}
        checkpoint = {"name": "counting", "sha256": "c0" * 32}
        self.info = EngineInfo("counting", size, rate, LABELS, 0, 4, N_TOKENS, path, "cpu", checkpoint)
        self._state: list[int] | None = None
        self._index = self._seed = 0

    def reset(self, prompt: Prompt, seed: int) -> Frame:
        return self.restore(History(prompt, seed))

    def step(self, action: int, tokens: Tokens | None = None) -> Frame:
        action = check_action(action)
        state = self._known()
        if self.delay:
            time.sleep(self.delay)
        if action == 7:
            self._go_wrong()
        self._index += 1
        trail = (state[4] * 9 + action + 1 + self._seed) % 65521
        sampled = [state[0] + 1, action, self._seed, state[3], trail]
        self._state = sampled if tokens is None else [int(token) for token in tokens]
        return self._frame(action)

    def settle(self) -> None:
        self._known()

    def restore(self, history: History) -> Frame:
        given = history.prompt
        if given.pictures.shape[1:] != (*self.info.size, 3):
            raise ValueError(f"pictures of {given.pictures.shape[1:]} do not fit {self.info.size}")
        self._seed, self._index = history.seed % 65521, history.index
        if history.moves:
            self._state = [int(token) for token in history.moves[-1].tokens]
            return self._frame(history.moves[-1].action)
        if given.tokens is not None:
            self._state = [int(token) for token in given.tokens[-N_TOKENS:]]
        else:
            self._state = [0, 0, 0, int(given.pictures[-1].mean()), 0]
        frame = self._frame(None)
        return replace(frame, tokens=np.tile(frame.tokens, len(given.pictures)))

    def futures(self, actions: Sequence[int]) -> list[Frame]:
        kept, index, frames = self._known(), self._index, []
        for action in actions:
            try:
                frames.append(self.step(action))
            finally:
                self._state, self._index = kept, index
        return frames

    def edit(self, pixels: Pixels) -> Frame:
        state = self._known()
        self._state = [*state[:3], int(pixels.mean()), state[4]]
        return self._frame(None)

    def see(self, pixels: Pixels) -> Pixels:
        return np.asarray(pixels // 2 * 2, dtype=np.uint8)

    def fits(self, pixels: Pixels, files: Sequence[Path]) -> list[float]:
        if self.fail == "fits":
            raise SourceError("one of them cannot be read")
        # one world for dark pictures, one for light ones
        return [float(pixels.mean() if file.stem == "light" else 255 - pixels.mean()) for file in files]

    def close(self) -> None:
        self._state = None

    def _known(self) -> list[int]:
        if self._state is None:
            raise ValueError("reset comes first")
        return self._state

    def _frame(self, action: int | None) -> Frame:
        state = self._known()
        return Frame(self._index, action, draw(state, self.info.size), np.array(state, dtype=np.uint16))

    def _go_wrong(self) -> None:
        if self.fail == "step":
            raise SourceError("that cannot be done; try another key")
        if self.fail == "bug":
            raise KeyError("missing")
        if self.fail == "die":
            os.kill(os.getpid(), signal.SIGKILL)


def draw(state: Sequence[int], size: tuple[int, int]) -> Pixels:
    """A picture in which the number of steps is a column of light and the last action a row."""
    height, width = size
    pixels = np.full((height, width, 3), min(state[3], 200), np.uint8)
    pixels[:, state[0] % width] = 255
    pixels[state[1] * height // N_ACTIONS, :, 0] = 230
    pixels[-1, :, 1] = state[4] % 251
    return pixels


def prompt(size: tuple[int, int] = (24, 32), shade: int = 90) -> Prompt:
    """A flat prompt."""
    return Prompt(np.full((1, *size, 3), shade, np.uint8), "flat")


class Clock:
    """Time that passes when a test, or an engine that is waited for, says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += seconds


class SlowChannel(Channel):
    """An engine whose requests take time on a `Clock`; to wait for it lets that time pass.

    `log` has (when, verb, args) of every request. `load` is how long it takes to be ready, `die` ends it.
    """

    def __init__(self, clock: Clock, seconds: float = 0.02, load: float = 0.0, **options: Any) -> None:
        self.clock, self.seconds, self.load, self.options = clock, seconds, load, options
        self.log: list[tuple[float, str, tuple[Any, ...]]] = []
        self.restarts = -1
        self.restart()

    def restart(self) -> None:
        self._inline = Inline(CountingEngine(**self.options))
        self._loaded = self.clock.now + self.load
        self._done: float | None = None
        self._grave: GenieError | None = None
        self._told = False
        self.restarts += 1

    @property
    def status(self) -> str:
        return "ready" if self.ready else "loading torch"

    @property
    def info(self) -> EngineInfo:
        return self._inline.info

    @property
    def busy(self) -> bool:
        return self._inline.busy

    @property
    def ready(self) -> bool:
        return self.clock.now >= self._loaded and self._grave is None

    @property
    def dead(self) -> bool:
        return self._grave is not None

    def submit(self, verb: str, *args: Any) -> None:
        if self._grave is not None:
            raise self._grave
        self._inline.submit(verb, *args)
        self.log.append((self.clock.now, verb, args))
        self._done = max(self.clock.now, self._loaded) + (self.seconds if verb != "settle" else self.seconds / 4)

    def poll(self, timeout: float | None = 0.0) -> Reply | None:
        if self._grave is not None and not self._told:
            self._told = True
            verb, args = self._inline._request or ("", ())
            self._inline._request = None
            return Reply(verb, args, error=self._grave)
        if self._done is None or (timeout is not None and self._done > self.clock.now + timeout):
            self.clock.tick(timeout or 0.0)
            return None
        self.clock.now = max(self.clock.now, self._done)
        self._done = None
        reply = self._inline.poll()
        assert reply is not None
        return Reply(reply.verb, reply.args, reply.value, reply.error, self.seconds)

    def die(self) -> None:
        self._grave, self._done = GenieError("the engine stopped (signal 9); press R to restart it"), None

    def close(self) -> None:
        self._inline.close()

    def steps(self) -> list[tuple[float, int]]:
        """When each step was submitted, and its action."""
        return [(when, args[0]) for when, verb, args in self.log if verb == "step"]


class ScriptedWindow:
    """Gives events when their time has come, and keeps what it was shown last."""

    def __init__(self, clock: Clock, size: tuple[int, int] = (1000, 700)) -> None:
        self.clock, self.size, self.locales = clock, size, ["en_US"]
        self.events: deque[tuple[float, Any]] = deque()
        self.items: list[Any] = []
        self.shows: list[tuple[float, list[Any]]] = []
        self.typed = self.fullscreen = self.closed = False
        self.clipboard = ""

    def script(self, events: Iterable[tuple[float, Any]]) -> None:
        """Events with their times from now on."""
        self.events = deque(sorted([*self.events, *((self.clock.now + t, e) for t, e in events)], key=lambda e: e[0]))

    def poll(self) -> list[Any]:
        found = []
        while self.events and self.events[0][0] <= self.clock.now:
            found.append(self.events.popleft()[1])
        return found

    def show(self, items: list[Any]) -> bool:
        if items == self.items:
            return False
        self.items = list(items)
        self.shows.append((self.clock.now, self.items))
        return True

    def measure(self, text: str, size: int) -> int:
        return round(len(text) * size * 0.55)

    def typing(self, on: bool) -> None:
        self.typed = on

    def toggle_fullscreen(self) -> bool:
        self.fullscreen = not self.fullscreen
        return self.fullscreen

    def paste_text(self) -> str:
        return self.clipboard

    def copy_text(self, text: str) -> None:
        self.clipboard = text

    def close(self) -> None:
        self.closed = True
