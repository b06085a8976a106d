"""The `.gplay` file: a play-through written down as it happens, and read back as a tree.

One JSON object a line. The first is the header {"gplay": 1, app, checkpoint {name, sha256}, size [H, W], rate, path,
seed, prompt {png, tokens, source}} (png is a list where the prompt has several pictures); then, in order of time,

    {"e": "step", "i", "a", "t", "h", "ms"}   a step from the node before it; ms is what the engine took
    {"e": "edit", "i", "png", "t", "h"}       the node before it, painted over: the picture and what it became
    {"e": "goto", "i", "from"}                what follows continues from node i, not from node `from`
    {"e": "seed", "seed"}, {"e": "path", "path"}   in force from here on
    {"e": "note", ...}                        {"i", "mark": true} is a bookmark; anything else is kept as it is

Nodes are numbered by i: 0 is the prompt, steps and edits count up and no number comes twice. t is the tokens as
little-endian uint16 in base64. h is the first 8 hex digits of BLAKE2s over the parent's h (its 8 ASCII characters;
nothing for node 0) followed by the token bytes, so it follows the branch and vouches for all that led to the node.
Keys and events that this version does not know are kept. A last line that was cut short is left out.

Knows no engine and nothing of time trees, screens or undo.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from genie_play import __version__, paths
from genie_play.media import pictures
from genie_play.types import EngineInfo, History, Move, Pixels, Prompt, ReplayError, SourceError, Tokens, check_action

VERSION = 1
SYNC_SECONDS = 1.0  # at most this much is lost to a power cut; a killed process loses nothing that was appended
RETRY_SECONDS = 5.0  # after a failed write

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """One point of a play-through: the prompt (i = 0), a step, or an edit."""

    i: int
    parent: int | None  # None: the prompt
    move: Move | None  # None: the prompt
    index: int  # steps since the prompt
    hash: str
    seed: int  # in force when it was made
    path: dict[str, Any]  # in force when it was made (config.PathConfig as a dict)
    ms: float = 0.0


@dataclass(frozen=True)
class Replay:
    """A journal read back. `nodes` is by i, in order of time; `last` is where the play-through stood at the end."""

    header: dict[str, Any]
    events: list[dict[str, Any]]  # every line after the header, unknown keys and all
    prompt: Prompt  # pictures (K, H, W, 3) and tokens (K * N,)
    nodes: dict[int, Node]
    last: int
    seed: int  # in force at the end
    path: dict[str, Any]  # in force at the end
    bookmarks: list[int] = field(default_factory=list)
    cut: bool = False  # the last line was cut short and left out

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.prompt.pictures.shape[1], self.prompt.pictures.shape[2]

    @property
    def rate(self) -> float:
        """Steps a second of the world's own time."""
        return float(self.header.get("rate", 10.0))

    @property
    def checkpoint(self) -> dict[str, str]:
        """Name and sha256 of the weights that made it."""
        return dict(self.header.get("checkpoint") or {})

    def branch(self, i: int | None = None) -> list[Node]:
        """The nodes from the prompt to node `i` (the last one, if left out), both included."""
        node: Node | None = self.nodes[self.last if i is None else i]
        found = []
        while node is not None:
            found.append(node)
            node = None if node.parent is None else self.nodes[node.parent]
        return found[::-1]

    def until(self, i: int, seed: int) -> Replay:
        """As if it had ended when node `i` was new, with another seed in force for what comes next."""
        reader = _Reader(self.header)
        for event in self.events:
            if reader.newest >= i:
                break
            reader.take(event)
        reader.take({"e": "seed", "seed": seed})
        return reader.replay(cut=False)

    def history(self, i: int | None = None, seed: int | None = None) -> History:
        """The history up to node `i` (the last one, if left out), for steps to come under `seed`.

        Without a seed it is the one at the end for the last node, and the one a node was made under elsewhere.
        """
        nodes = self.branch(i)
        if seed is None:
            seed = self.seed if nodes[-1].i == self.last else nodes[-1].seed
        return History(self.prompt, seed, tuple(node.move for node in nodes if node.move is not None))

    @property
    def histories(self) -> list[History]:
        """One history for each end of a branch, in order of time."""
        parents = {node.parent for node in self.nodes.values()}
        return [self.history(i) for i in self.nodes if i not in parents]

    def check(self, info: EngineInfo) -> None:
        """ReplayError if the tokens mean something else to that engine: another checkpoint or another size."""
        ours, theirs = self.checkpoint.get("sha256"), info.checkpoint.get("sha256")
        if ours and theirs and ours != theirs:
            name = self.checkpoint.get("name", "another world")
            raise ReplayError(f"this replay belongs to {name} ({ours[:8]}), not to {info.name} ({theirs[:8]})")
        if self.size != tuple(info.size):
            (h, w), (height, width) = self.size, info.size
            raise ReplayError(f"this replay is {w}x{h} pixels, {info.name} makes {width}x{height}; open its own world")
        if (n := self.prompt.tokens) is not None and len(n) != len(self.prompt.pictures) * info.n_tokens:
            raise ReplayError(f"this replay has another number of tokens a frame than {info.name}; open its own world")


class Writer:
    """Appends a play-through to a new file, valid after every append; never overwrites one.

    The file is made by the first append, at `path` or, if that is taken, beside it with -2, -3, ... If a write fails
    (disk full) `problem` says so, lines wait in memory, and later appends try again.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path  # from the first append on, where the file really is
        self.problem: str | None = None
        self._wanted = path
        self._clock = clock
        self._file: BinaryIO | None = None
        self._good = 0  # bytes of whole lines on disk
        self._backlog: list[bytes] = []
        self._synced = self._failed = -1e9
        self._syncer: threading.Thread | None = None

    def append(self, *lines: dict[str, Any]) -> None:
        """Write the header or events; in the file when this returns, on the disk about a second later."""
        self._backlog += [json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n" for line in lines]
        if self.problem is None or self._clock() - self._failed >= RETRY_SECONDS:
            self._write()

    def another(self) -> Writer:
        """A writer for the next play-through, beside this one."""
        return Writer(self._wanted, self._clock)

    def close(self) -> None:
        """Write what waits, sync and close. Twice is fine, and an append opens the file again."""
        if self._backlog:
            self._write()
        if self._syncer is not None:
            self._syncer.join()
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file.fileno())
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _write(self) -> None:
        data = b"".join(self._backlog)
        try:
            if self._file is None:
                self._file = self._open()
            self._put(data)
        except OSError as error:
            self._failed = self._clock()
            if self.problem is None:
                self.problem = f"the journal cannot be written ({error.strerror}); play goes on in memory: {self.path}"
                _log.warning("%s", self.problem)
            return
        self._good += len(data)
        self._backlog.clear()
        self.problem = None
        self._sync()

    def _open(self) -> BinaryIO:
        if self._good:
            file = open(self.path, "r+b", buffering=0)  # noqa: SIM115
            file.seek(self._good)
            return file
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.path = paths.unused(self._wanted)
            with contextlib.suppress(FileExistsError):
                return open(self.path, "xb", buffering=0)

    def _put(self, data: bytes) -> None:
        """Write all of it or leave the file as it was."""
        assert self._file is not None
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._good)
                self._file.seek(self._good)
            raise

    def _sync(self) -> None:
        """Sync in a thread: on a slow disk it takes longer than a frame."""
        now = self._clock()
        if now - self._synced < SYNC_SECONDS or (self._syncer is not None and self._syncer.is_alive()):
            return
        assert self._file is not None
        self._synced = now
        self._syncer = threading.Thread(target=_fsync, args=(self._file.fileno(),), daemon=True)
        self._syncer.start()


def header(info: EngineInfo, prompt: Prompt, seed: int) -> dict[str, Any]:
    """The first line of a journal; the prompt's tokens must be known."""
    if prompt.tokens is None:
        raise ValueError("a journal begins when the prompt's tokens are known")
    pngs = [_to_png(picture) for picture in prompt.pictures]
    return {
        "gplay": VERSION,
        "app": __version__,
        "checkpoint": dict(info.checkpoint) or {"name": info.name},
        "size": list(info.size),
        "rate": info.rate,
        "path": dict(info.path),
        "seed": seed,
        # the file's name only: a shared replay should not tell where somebody keeps their pictures
        "prompt": {
            "png": pngs[0] if len(pngs) == 1 else pngs,
            "tokens": _to_text(prompt.tokens),
            "source": Path(prompt.source).name,
        },
    }


def step_event(i: int, move: Move, hash: str, ms: float) -> dict[str, Any]:
    """The line of a step or of an edit."""
    if move.action is None:
        assert move.pixels is not None
        return {"e": "edit", "i": i, "png": _to_png(move.pixels), "t": _to_text(move.tokens), "h": hash}
    return {"e": "step", "i": i, "a": move.action, "t": _to_text(move.tokens), "h": hash, "ms": round(ms, 1)}


def token_hash(previous: str, tokens: Tokens) -> str:
    """The hash of a node from that of its parent ("" for the prompt): 8 hex digits."""
    return hashlib.blake2s(previous.encode("ascii") + _token_bytes(tokens)).hexdigest()[:8]


def read(path: Path) -> Replay:
    """Read a journal. ReplayError names the line that is damaged; a cut last line is left out."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ReplayError(f"cannot read {path}: {error.strerror}") from None
    # a file system that lost power may leave zeros where the last lines would have been
    *lines, tail = data.rstrip(b"\0").split(b"\n")
    name, cut = Path(path).name, False
    reader = None
    for number, line in enumerate([*lines, tail], start=1):
        ends = number <= len(lines)
        if not ends and not line.strip():
            break
        try:
            entry = _parse(line)
            if reader is None:
                reader = _Reader(entry)
            else:
                reader.take(entry)
        except _Newer as error:
            raise ReplayError(f"{name}: {error}") from None
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, SourceError) as error:
            if not ends:
                cut = True
                break
            where = f"{name} is not a replay" if reader is None else f"{name} is damaged at line {number}"
            raise ReplayError(f"{where}: {error}") from None
    if reader is None:
        raise ReplayError(f"{name} is {'cut short before its first line ends' if cut else 'empty'}")
    return reader.replay(cut)


class _Newer(Exception):
    """The format's version is above ours."""


class _Reader:
    """Builds a replay line by line; any error in a line is one of the kinds that `read` turns into a ReplayError."""

    def __init__(self, header: dict[str, Any]) -> None:
        version = _integer(header, "gplay")
        if version > VERSION:
            raise _Newer(f"it was written by a newer version (format {version}); update Genie Play to open it")
        self.header = header
        height, width = (int(side) for side in header["size"])
        self.size = (height, width)
        pngs = header["prompt"]["png"]
        pngs = [pngs] if isinstance(pngs, str) else pngs
        pictures = np.stack([_from_png(png, self.size) for png in pngs])
        tokens = _from_text(header["prompt"]["tokens"])
        self.n_tokens, rest = divmod(len(tokens), len(pictures))
        if rest or not self.n_tokens:
            raise ValueError("the prompt's tokens do not fit its pictures")
        self.prompt = Prompt(pictures, str(header["prompt"].get("source", "")), tokens)
        self.seed = _integer(header, "seed")
        self.path: dict[str, Any] = dict(header["path"])
        self.nodes = {0: Node(0, None, None, 0, token_hash("", tokens), self.seed, self.path)}
        self.at = self.newest = 0
        self.bookmarks: list[int] = []
        self.events: list[dict[str, Any]] = []

    def take(self, event: dict[str, Any]) -> None:
        kind = event["e"]
        if kind == "step":
            tokens = _from_text(event["t"])
            self._grow(event, Move(check_action(_integer(event, "a")), tokens), float(event.get("ms", 0.0)))
        elif kind == "edit":
            self._grow(event, Move(None, _from_text(event["t"]), _from_png(event["png"], self.size)), 0.0)
        elif kind == "goto":
            self.at = self._known(event)
        elif kind == "seed":
            self.seed = _integer(event, "seed")
        elif kind == "path":
            self.path = dict(event["path"])
        elif kind == "note" and event.get("mark") is True:
            self.bookmarks.append(self._known(event))
        self.events.append(event)

    def replay(self, cut: bool) -> Replay:
        found = (self.header, self.events, self.prompt, self.nodes, self.at, self.seed, self.path)
        return Replay(*found, bookmarks=self.bookmarks, cut=cut)

    def _grow(self, event: dict[str, Any], move: Move, ms: float) -> None:
        i, parent = _integer(event, "i"), self.nodes[self.at]
        if i <= self.newest:
            raise ValueError(f"number {i} comes twice or out of order")
        if len(move.tokens) != self.n_tokens:
            raise ValueError(f"node {i} has {len(move.tokens)} tokens, the prompt {self.n_tokens} a frame")
        if (h := token_hash(parent.hash, move.tokens)) != event["h"]:
            raise ValueError(f"the tokens of node {i} do not match their hash")
        index = parent.index + (move.action is not None)
        self.nodes[i] = Node(i, parent.i, move, index, h, self.seed, self.path, ms)
        self.at = self.newest = i

    def _known(self, event: dict[str, Any]) -> int:
        i = _integer(event, "i")
        if i not in self.nodes:
            raise ValueError(f"there is no node {i} before it")
        return i


def _parse(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line.decode("utf-8"))
    except ValueError:
        raise ValueError("it is no JSON") from None
    if not isinstance(entry, dict):
        raise ValueError("it is no JSON object")
    return entry


def _integer(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if type(value) is not int:
        raise ValueError(f"{key!r} is not a whole number")
    return value


def _token_bytes(tokens: Iterable[int] | Tokens) -> bytes:
    return np.asarray(tokens).astype("<u2").tobytes()


def _to_text(tokens: Tokens) -> str:
    return base64.b64encode(_token_bytes(tokens)).decode("ascii")


def _from_text(text: str) -> Tokens:
    return np.frombuffer(_bytes(text), "<u2").astype(np.uint16)


def _to_png(pixels: Pixels) -> str:
    return base64.b64encode(pictures.to_png(pixels)).decode("ascii")


def _from_png(text: str, size: tuple[int, int]) -> Pixels:
    return pictures.from_png(_bytes(text), size)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError):
        raise ValueError("it holds bad base64") from None


def _fsync(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
