"""What is played: a world, and the picture, tape or replay that it begins with.

Files are read by jobs; what has to wait (a picture for the world's size, a replay for the engine's word on who it is)
waits here. Knows no keys and no window.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genie_play import checkpoint, paths
from genie_play.engine.process import Channel, EngineProcess
from genie_play.media import pictures
from genie_play.play import clipboard
from genie_play.play.jobs import Jobs
from genie_play.play.player import Player, new_seed
from genie_play.play.saving import file_name
from genie_play.play.screens.home import prompt_files
from genie_play.play.screens.play import PlayScreen
from genie_play.play.settings import Settings
from genie_play.play.tape import Tape, find_tape
from genie_play.session import journal
from genie_play.session.journal import Replay, Writer
from genie_play.types import GenieError, Pixels, Prompt

LEAD = 4  # pictures of a tape that its world is taken over with, where nothing but pictures is known of it
LEAP = 8  # frames of a tape that an engine goes through at once: further on than its SLACK it would cache the end alone
GREY = 150
CLEARER = 0.25  # dB by which another world must show a picture better to be worth the way
QUICK = 32 << 20  # bytes of a world whose header is read before the first painting

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class World:
    """Something that can be played: which engine, with which options, and where its weights lie."""

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None


def find_world(name: str, device: str = "auto") -> World:
    """A world by name or file; "platformer" is the game that the worlds learn from. CheckpointError lists names."""
    if name == "platformer":
        return World(name, "platformer")
    file = checkpoint.find(name)
    return World(file.stem, "genie", {"checkpoint": file, "device": device, "calibrate": True}, file)


def usual_world(name: str) -> str:
    """The world of the settings, or one that is there."""
    try:
        find_world(name)
    except GenieError:
        return next(iter(checkpoint.shipped()), "platformer")
    return name


def start_engine(world: World) -> Channel:
    """The engine of a world in a process of its own."""
    return EngineProcess(world.kind, world.options)


class Opener:
    """Brings worlds, pictures and replays to the player. `engines` makes the engine of a world."""

    def __init__(
        self,
        world: World,
        engines: Callable[[World], Channel],
        player: Player,
        screen: PlayScreen,
        settings: Settings,
        jobs: Jobs,
        say: Callable[[str], None],
        complain: Callable[[Exception], None],
        fixed: bool = False,
    ) -> None:
        self.fixed = fixed  # the person chose the world: pictures are played there
        self.world, self.size = world, (0, 0)  # (0, 0): not known yet
        self._engines, self._player, self._screen = engines, player, screen
        self._settings, self._jobs, self._say, self._complain = settings, jobs, say, complain
        self._seed: int | None = None  # of the first play-through; later ones are random
        self._source: Path | str | bytes | Pixels | None = None  # a picture that waits for the world's size
        # a picture, its source, and the worlds that it may be played in
        self._undecided: tuple[pictures.Picture, Any, dict[str, Path]] | None = None
        self._replay: tuple[Path, Replay | None] | None = None  # one to go on with, once it is read
        self._taped: Replay | None = None  # the play-through that the tape shows
        self._walked = 0  # so far the engine was asked to go through it
        self._learned = False

    def begin(self, picture: str | None, seed: int | None) -> None:
        """Say what to play first: a picture or a replay by path, or what the tape shows."""
        self._seed = seed
        if picture is not None:
            self.open(picture)
        self._meet_world()

    def open(self, text: str) -> None:
        """Open a picture, a replay or a world by the path of its file."""
        path = Path(text).expanduser()
        if path.suffix.lower() == ".gplay":
            self._replay = path, None
            self._jobs.start(lambda: journal.read(path), lambda replay: self._read(path, replay), self._unread)
        elif path.suffix.lower() == checkpoint.SUFFIX:
            self.change_world(str(path))
        else:
            self._source = path

    def paste(self, text: str) -> None:
        """Open the file that the clipboard's text names, or else the clipboard's picture."""
        text = text.strip()
        if text and len(text) < 4096 and "\n" not in text and Path(text).expanduser().is_file():
            self.open(text)
            return

        def pasted(found: bytes | Path) -> None:
            if isinstance(found, Path):
                self.open(str(found))
            else:
                self._source = found

        self._jobs.start(clipboard.paste, pasted, self._complain)

    def catch_up(self) -> None:
        """Do what could not be done before; called every turn."""
        player, info = self._player, self._player.info
        if info is not None:
            self._screen.world = info.name
            if not self._learned:
                self._learned = True
                player.keys.learn(info.labels, info.idle, self._own_slots(info.checkpoint.get("sha256", "")))
            if self.size != info.size:
                self._know(info.size)
        if self._source is not None and self.size != (0, 0):
            source, size, self._source = self._source, self.size, None
            world, fixed = self.world, self.fixed
            self._jobs.start(
                lambda: (pictures.load(source, size), {} if fixed else _choice(world)),
                lambda found: self._load(*found, source),
                self._complain,
            )
        if self._undecided is not None and player.fits is not None:
            self._decide(player.fits)
        path, replay = self._replay or (None, None)
        if info is not None and path is not None and replay is not None:
            self._replay = None
            self._resume(path, replay)
        if player.started and not player.touched:
            if player.keys.tap is not None:
                self.take_over()
            elif info is not None and self._screen.tape is not None:
                self._walk()

    def change_world(self, name: str, chosen: bool = True) -> None:
        """Another engine; the play-through that was is in its journal. What a person has chosen stays chosen."""
        try:
            world = find_world(name, self._settings.values.device)
        except GenieError as error:
            self._complain(error)
            return
        old = self._player.engine
        self._player.change_engine(self._engines(world))
        self._jobs.start(old.close, lambda _: None, self._complain)
        self.world, self._screen.world, self._screen.tape, self._screen.preview = world, world.name, None, None
        self._undecided = None
        if chosen:
            self.fixed = True
            self._settings.change(world=name)
            self._jobs.start(self._settings.save, lambda _: None, self._complain)
        self._meet_world()

    # worlds

    def _meet_world(self) -> None:
        """Learn what the file says while the engine loads: the world's size and labels. A tape lies beside it."""
        self._learned, self.size = False, (0, 0)
        file = self.world.file
        if file is None:
            return
        try:
            # to read one is to hash it: at once where that is quicker than a frame or two
            if file.stat().st_size < QUICK:
                self._read_header(checkpoint.read(file))
            else:
                self._jobs.start(lambda: checkpoint.read(file), self._read_header, lambda error: None)
        except (OSError, GenieError) as error:
            # the engine will meet it, too, and say so
            _log.info("%s", error)

    def _read_header(self, header: checkpoint.Header) -> None:
        if self.world.file is None or header.file != self.world.file:
            return
        self._screen.world = header.world.name
        self._taped = None
        if self._source is None and self._replay is None:
            self.show_tape(find_tape(self.world.file.parent, header.world.size))
        self._player.keys.learn(header.labels, header.idle, self._own_slots(header.sha256))
        self._know(header.world.size)

    def show_tape(self, tape: Tape | None) -> None:
        """Show a tape until somebody plays, and read the play-through beside it, if there is one."""
        self._screen.play_tape(tape)
        if tape is not None and (path := tape.path.with_suffix(".gplay")).exists():

            def know(replay: Replay) -> None:
                if self._screen.tape is tape:  # and not another world's by now
                    self._taped, self._walked = replay, 0

            self._jobs.start(
                lambda: journal.read(path), know, lambda error: _log.info("the tape's own replay: %s", error)
            )

    def _own_slots(self, sha256: str) -> list[int] | None:
        return self._settings.values.slots.get(sha256)

    def _know(self, size: tuple[int, int]) -> None:
        """The world's size: now a first picture can be made to fit, so that the engine has work when it is ready."""
        self.size = size
        if self._source is None and self._replay is None and self._player.vacant:
            self._first_picture(size)

    # pictures

    def _first_picture(self, size: tuple[int, int]) -> None:
        """What to start with when nothing was chosen: the tape's beginning, or the first picture that came along."""
        tape = self._screen.tape
        if tape is not None and tape.frame(0.0).shape[:2] == size:
            self._start(Prompt(tape.frame(0.0)[None], "tape"), waits=True)
        elif files := prompt_files():
            self._jobs.start(lambda: pictures.load(files[0], size), self._preview, self._complain)
        else:
            self._start(Prompt(np.full((1, *size, 3), GREY, np.uint8), "grey"))

    def _preview(self, picture: pictures.Picture) -> None:
        if self._player.vacant:
            self._screen.preview = picture.pixels
            self._start(picture.prompt)

    def _load(self, picture: pictures.Picture, worlds: dict[str, Path], source: Any) -> None:
        """A picture that the person chose is there, and worlds to choose from, if there is a choice."""
        for note in picture.notes:
            self._say(f"{picture.source}: {note}")
        if self.world.kind == "platformer":
            self._say("This is the game itself: a picture only chooses the level. A world would turn it into one")
        self._show(picture.pixels)
        self._undecided = None
        if worlds and not self.fixed:
            self._undecided = picture, source, worlds
            self._player.ask_fits(picture.pixels, list(worlds.values()))
        else:
            self._start(picture.prompt)

    def _decide(self, fits: list[float]) -> None:
        """Play the picture in the shipped world that shows it best; here, where that makes no difference."""
        assert self._undecided is not None
        (picture, source, worlds), self._undecided = self._undecided, None
        here = dict(zip(worlds, fits, strict=False)).get(self.world.name, math.inf)
        best = max(zip(fits, worlds, strict=False), default=(-math.inf, ""))
        if best[0] < here + CLEARER:
            self._start(picture.prompt)
            return
        self._say(f"{best[1]} shows this picture better than {self.world.name}, so it is played there")
        # its size may be another
        self._source = source
        self.change_world(best[1], chosen=False)

    def _start(self, prompt: Prompt, waits: bool = False) -> None:
        """Load a prompt; one that `waits` for the person to take over leaves them the seed that was asked for."""
        seed = self._seed
        if not waits:
            self._seed = None
        self._player.load(prompt, new_seed() if seed is None else seed, self._writer())

    def _show(self, pixels: Pixels) -> None:
        """The person has chosen: no more tape, and no key that was meant for it."""
        self._screen.tape, self._screen.preview = None, pixels
        self._player.touched = True
        self._player.keys.take()

    def take_over(self) -> None:
        """The first key: the world goes on from what the tape shows at this moment, with all that led to it. Nothing
        where somebody plays already, or nothing can be played yet."""
        if not self._player.started or self._player.touched:
            return
        if self._screen.tape is not None:
            at, lead = self._screen.leave_tape(LEAD)
            if lead.shape[1:3] == self.size:
                self._player.picture = lead[-1]
                if not self._go_on(at):
                    self._start(Prompt(lead, "tape"))
        self._player.touched, self._seed = True, None

    def _walk(self) -> None:
        """Let the engine go through the tape, a few frames at a time, while nobody waits: what it caches on the way
        makes taking over quick, wherever on the tape that will be."""
        session, engine = self._player.session, self._player.engine
        if self._taped is None or session is None or not session.has_frame or engine.busy:
            return
        if self._walked < self._taped.last:
            self._walked = min(self._walked + LEAP, self._taped.last)
            self._go_on(self._walked)

    def _go_on(self, at: int) -> bool:
        """Go on with the tape's own play-through at that frame; False where it is not this world's, or not there."""
        node = None if self._taped is None else self._taped.nodes.get(at)
        if self._taped is None or node is None or node.index != at:
            return False
        try:
            self._player.resume(self._taped.until(at, new_seed() if self._seed is None else self._seed), self._writer())
        except GenieError as error:
            _log.info("the tape's own replay: %s", error)
            self._taped = None
            return False
        return True

    # replays

    def _read(self, path: Path, replay: Replay) -> None:
        """A replay was read: it goes on when the engine has said who it is."""
        if self._replay is not None and self._replay[0] == path:
            self._replay = path, replay
            self._show(replay.prompt.pictures[-1])

    def _unread(self, error: Exception) -> None:
        self._replay = None
        self._complain(error)
        if self._player.vacant and self.size != (0, 0):
            self._first_picture(self.size)

    def _resume(self, path: Path, replay: Replay) -> None:
        """Go on from the end of a replay, in its own world if that is here."""
        info, name = self._player.info, replay.checkpoint.get("name", "")
        assert info is not None
        if replay.checkpoint.get("sha256") != info.checkpoint.get("sha256") and _is_here(name, self.world):
            self._replay = path, replay
            self.change_world(name)
            return
        try:
            self._player.resume(replay, self._writer())
        except GenieError as error:
            self._unread(error)

    def _writer(self) -> Writer:
        return Writer(paths.sessions() / f"{file_name(self.world.name)}.gplay", self._player.clock)


def _choice(current: World) -> dict[str, Path]:
    """The shipped worlds that a picture may be played in, by name: none where a world of one's own is played. Reads
    whole files, so let a job do it."""
    files = {name: checkpoint.find(name) for name in checkpoint.shipped()}
    if current.kind != "genie" or current.file is None or files.get(current.name) != current.file:
        return {}
    sizes = {name: checkpoint.read(file).world.size for name, file in files.items()}
    fitting = {name: file for name, file in files.items() if sizes[name] == sizes[current.name]}
    return fitting if len(fitting) > 1 else {}


def _is_here(name: str, current: World) -> bool:
    """Whether a world of that name, and not the current one, can be opened."""
    if name == current.name:
        return False
    try:
        find_world(name)
    except GenieError:
        return False
    return True
