"""Any engine in a child process, so that the window stays alive while it loads, works or dies.

Knows how to start an engine by name and how calls cross a pipe; knows nothing of torch, keys or windows.
"""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from genie_play.types import Engine, EngineInfo, Frame, GenieError, History, Pixels, Prompt, Tokens

# what is called is made in the child, with the options as keywords
ENGINES = {
    "platformer": "genie_play.data.platformer:PlatformerEngine",
    "genie": "genie_play.engine.engine:GenieEngine",
}
VERBS = ("reset", "step", "settle", "restore", "futures", "edit", "see", "fits")  # "fits" is for trained worlds alone


@dataclass(frozen=True)
class Reply:
    """The answer to one request: its value or its error, and the seconds that the engine itself spent on it.

    `verb` is "start" where an engine failed to load, and "" where it stopped without a request under way.
    """

    verb: str
    args: tuple[Any, ...]
    value: Any = None
    error: Exception | None = None
    seconds: float = 0.0


class Channel:
    """An engine that is spoken to by requests, one at a time; the blocking calls of `Engine` are made of them."""

    status = ""  # what it is doing, in words, while it is not ready

    def submit(self, verb: str, *args: Any) -> None:
        """Ask for one thing; ValueError while another is under way."""
        raise NotImplementedError

    def poll(self, timeout: float | None = 0.0) -> Reply | None:
        """Wait up to `timeout` seconds (None: for ever) for the reply."""
        raise NotImplementedError

    @property
    def info(self) -> EngineInfo:
        """What the engine says of itself; waits until it is loaded."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        """A request is under way."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """The engine is loaded and alive."""
        raise NotImplementedError

    @property
    def dead(self) -> bool:
        """The engine is gone; `restart` makes a new one."""
        return False

    def restart(self) -> None:
        """A new engine in place of the old one; it knows nothing, so `restore` a history next."""
        raise NotImplementedError

    def close(self) -> None:
        """Free what is held. Twice is fine."""
        raise NotImplementedError

    def reset(self, prompt: Prompt, seed: int) -> Frame:
        frame: Frame = self._call("reset", prompt, seed)
        return frame

    def step(self, action: int, tokens: Tokens | None = None) -> Frame:
        frame: Frame = self._call("step", action, tokens)
        return frame

    def settle(self) -> None:
        self._call("settle")

    def restore(self, history: History) -> Frame:
        frame: Frame = self._call("restore", history)
        return frame

    def futures(self, actions: Sequence[int]) -> list[Frame]:
        frames: list[Frame] = self._call("futures", list(actions))
        return frames

    def edit(self, pixels: Pixels) -> Frame:
        frame: Frame = self._call("edit", pixels)
        return frame

    def see(self, pixels: Pixels) -> Pixels:
        seen: Pixels = self._call("see", pixels)
        return seen

    def _call(self, verb: str, *args: Any) -> Any:
        self.submit(verb, *args)
        while (reply := self.poll(None)) is None:
            pass
        if reply.error is not None:
            raise reply.error
        return reply.value


class EngineProcess(Channel):
    """An engine in a spawned child. The child ends when the pipe closes, whatever became of this side.

    One request at a time: `submit` sends it, `poll` gives its `Reply`. Requests may be submitted while the engine
    loads; they are sent when it is ready. `kind` is a key of ENGINES or "module:attribute".
    """

    _info: EngineInfo | None
    _request: tuple[str, tuple[Any, ...]] | None
    _grave: Exception | None  # why the child is of no more use
    _last: Reply | None  # of a child that died while it was being written to

    def __init__(self, kind: str, options: Mapping[str, Any] | None = None) -> None:
        if kind not in ENGINES and ":" not in kind:
            raise GenieError(f"no engine is called {kind!r}; there are {', '.join(ENGINES)}")
        self.kind, self.options = kind, dict(options or {})
        self.closed = False
        self._start()

    @property
    def busy(self) -> bool:
        return self._request is not None

    @property
    def ready(self) -> bool:
        return self._info is not None and not self.dead and not self.closed

    @property
    def dead(self) -> bool:
        return self._grave is not None

    @property
    def info(self) -> EngineInfo:
        while self._info is None:
            if self._grave is not None:
                raise self._grave
            self._receive(None)
        return self._info

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._child.pid

    def fileno(self) -> int:
        """For `multiprocessing.connection.wait`; ValueError once the child is gone."""
        if self._pipe.closed:
            raise ValueError("the engine's pipe is closed")
        return self._pipe.fileno()

    def submit(self, verb: str, *args: Any) -> None:
        """Send one request; ValueError while another is under way, the reason as a GenieError if the child is gone."""
        if verb not in VERBS:
            raise ValueError(f"{verb!r} is none of {', '.join(VERBS)}")
        if self.closed:
            raise ValueError("the engine is closed")
        if self._grave is not None:
            raise self._grave
        if self._request is not None:
            raise ValueError(f"{self._request[0]!r} is still under way")
        self._request = (verb, args)
        if self._info is not None:
            self._send()

    def poll(self, timeout: float | None = 0.0) -> Reply | None:
        """Wait up to `timeout` seconds (None: for ever) for a reply; None also when only `status` has changed.

        A child that died gives one reply with a GenieError; after that this only waits.
        """
        if self._last is not None:
            reply, self._last = self._last, None
            return reply
        if self.closed or self.dead:
            time.sleep(timeout or 0.0)
            return None
        return self._receive(timeout)

    def restart(self) -> None:
        self._end()
        self.closed = False
        self._start()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._end()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(
            target=_serve, args=(theirs, self.kind, self.options), name="genie-play engine", daemon=True
        )
        self._child.start()
        theirs.close()
        self.status = "starting"
        self._info = self._request = self._grave = self._last = None

    def _send(self) -> None:
        try:
            self._pipe.send(self._request)
        except OSError:
            self._last = self._bury(self._obituary())

    def _receive(self, timeout: float | None) -> Reply | None:
        """Take messages until one is a reply or a change of status."""
        try:
            if not self._pipe.poll(timeout):
                return None
            kind, *rest = self._pipe.recv()
        except (EOFError, OSError):
            return self._bury(self._obituary())
        if kind == "done" and self._request is not None:
            verb, args = self._request
            self._request = None
            return Reply(verb, args, *rest)
        if kind == "failed":
            return self._bury(rest[0], "start")
        if kind == "status":
            self.status = rest[0]
        if kind == "info":
            self._info = rest[0]
        if kind == "ready":
            self._info, self.status = rest[0], "ready"
            if self._request is not None:
                self._send()
        return None

    def _bury(self, error: Exception, verb: str = "") -> Reply:
        """The engine is gone: remember why, and answer what was asked of it."""
        self._grave, self.status = error, "stopped"
        verb, args = self._request or (verb, ())
        self._request = None
        self._pipe.close()
        return Reply(verb, args, error=error)

    def _obituary(self) -> GenieError:
        self._child.join(0.2)
        code = self._child.exitcode
        cause = "it does not answer" if code is None else f"exit code {code}"
        if code is not None and code < 0:
            cause = f"signal {-code}" + ("; out of memory?" if code == -signal.SIGKILL else "")
        return GenieError(f"the engine stopped ({cause}); press R to restart it")

    def _end(self) -> None:
        # one that waits for a request leaves by itself; one in the middle of its work is not waited for
        idle = self.ready and not self.busy
        self._request, self._last = None, None
        self._pipe.close()
        self._child.join(2.0 if idle else 0.0)
        if self._child.exitcode is None:
            self._child.terminate()
            self._child.join(1.0)
        if self._child.exitcode is None:
            self._child.kill()
            self._child.join()


class Inline(Channel):
    """Requests to an engine in this process, done when polled: for headless use and tests."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.status, self.closed = engine, "ready", False
        self._request: tuple[str, tuple[Any, ...]] | None = None

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    @property
    def busy(self) -> bool:
        return self._request is not None

    @property
    def ready(self) -> bool:
        return not self.closed

    def submit(self, verb: str, *args: Any) -> None:
        if verb not in VERBS:
            raise ValueError(f"{verb!r} is none of {', '.join(VERBS)}")
        if self._request is not None:
            raise ValueError(f"{self._request[0]!r} is still under way")
        self._request = (verb, args)

    def poll(self, timeout: float | None = 0.0) -> Reply | None:
        """Do what was submitted, however long it takes; without a request, wait."""
        if self._request is None:
            time.sleep(timeout or 0.0)
            return None
        verb, args = self._request
        self._request = None
        return Reply(verb, args, *_do(self.engine, verb, args))

    def restart(self) -> None:
        """Nothing to do: this engine lives as long as the program."""

    def close(self) -> None:
        self.closed = True
        self.engine.close()


def _serve(pipe: Connection, kind: str, options: dict[str, Any]) -> None:
    """The child: load the engine, answer until the pipe closes."""
    # Ctrl+C goes to the whole group; the window decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        try:
            engine = _build(kind, options, lambda text: pipe.send(("status", text)))
            pipe.send(("ready", engine.info))
        except Exception as error:
            pipe.send(("failed", _portable(error)))
            return
        while True:
            verb, args = pipe.recv()
            info = engine.info
            value, problem, seconds = _do(engine, verb, args)
            if engine.info is not info:
                # its path has changed; what it answers now was made on the new one
                pipe.send(("info", engine.info))
            pipe.send(("done", value, problem and _portable(problem), seconds))
    except (EOFError, OSError):
        # the other side is gone. Nothing here is worth an orderly end, and libraries can make one slow
        os._exit(0)


def _build(kind: str, options: dict[str, Any], say: Callable[[str], None]) -> Engine:
    """Import and make an engine. A factory that takes `progress` is given `say` to tell what it is doing."""
    module, _, name = ENGINES.get(kind, kind).partition(":")
    say("loading torch" if module.startswith("genie_play.engine.") else "loading")
    factory = getattr(importlib.import_module(module), name)
    files = [value for value in options.values() if isinstance(value, Path) and value.is_file()]
    say(f"loading world {files[0].stat().st_size / 2**20:.1f} MB" if files else "loading world")
    if "progress" in inspect.signature(factory).parameters:
        options = {**options, "progress": say}
    engine: Engine = factory(**options)
    return engine


def _do(engine: Engine, verb: str, args: tuple[Any, ...]) -> tuple[Any, Exception | None, float]:
    """Call one method: its value, its error, its seconds."""
    value: Any = None
    problem: Exception | None = None
    start = time.perf_counter()
    try:
        value = getattr(engine, verb)(*args)
    except Exception as error:
        problem = error
    return value, problem, time.perf_counter() - start


def _portable(error: Exception) -> Exception:
    """An error that can cross a pipe: people's and programmers' mistakes as they are, the rest in words."""
    if isinstance(error, GenieError) or type(error) in (ValueError, TypeError):
        return error
    failure = RuntimeError(f"the engine failed: {type(error).__name__}: {error}")
    failure.add_note("".join(traceback.format_exception(error)))
    return failure
