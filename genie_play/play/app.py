"""The game: a window, an engine in its process, and the loop between them, in which nothing waits but for the engine.

`play` is what the command calls. Knows every part of the client; what keys do to a play-through is in `player`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from genie_play.engine.process import Channel, Reply
from genie_play.play.items import ALARM, Canvas, Closed, Dropped, Event, Focused, Item, Key, Mouse
from genie_play.play.jobs import Jobs
from genie_play.play.keymap import Commands
from genie_play.play.meter import StatsFile
from genie_play.play.opening import Opener, World, find_world, start_engine, usual_world
from genie_play.play.player import Player
from genie_play.play.saving import Saver
from genie_play.play.screens.help import HelpScreen
from genie_play.play.screens.home import HomeScreen, find_shelves
from genie_play.play.screens.menu import MenuScreen
from genie_play.play.screens.open import OpenScreen, list_paths
from genie_play.play.screens.play import PlayScreen
from genie_play.play.settings import Settings
from genie_play.play.window import SIZE, Window
from genie_play.types import GenieError, Pixels

TICK = 1 / 120  # seconds that the loop waits for the engine before it looks at the keys again
REDRAW = 1 / 60  # seconds between two paintings that no frame asked for
# commands that do something to the play-through
WALKS = ("back", "forward", "home", "bookmark", "recall", "undo", "redo", "reseed")

_log = logging.getLogger(__name__)


def play(
    world: str | None = None,
    picture: Path | str | None = None,
    seed: int | None = None,
    device: str | None = None,
    flow: bool | None = None,
    stats: Path | None = None,
    fullscreen: bool | None = None,
) -> int:
    """Play until the person quits; the exit code. GenieError where that cannot even begin."""
    settings = Settings()
    settings.override(device=device, flow=flow, fullscreen=fullscreen)
    target = find_world(world or usual_world(settings.values.world), settings.values.device)
    stats_file = StatsFile(stats) if stats else None
    try:
        window = Window(f"{target.name} - Genie Play", SIZE, settings.values.fullscreen)
    except GenieError as error:
        raise GenieError(f"{error}; without a window: {_rollout(target.name, picture, seed)}") from None
    app = App(window, target, start_engine, settings=settings, stats=stats_file, fixed=world is not None)
    try:
        app.begin(picture, seed)
        return app.run()
    finally:
        app.close()


class Overlay(Protocol):
    """A screen over the play screen. `handle` gives the name of what was chosen, or ""; `typing` wants characters."""

    typing: bool

    def handle(self, event: Event) -> str: ...
    def draw(self, canvas: Canvas) -> list[Item]: ...


class App:
    """One window and what happens in it. `engines` makes the engine of a world; `fixed`: pictures do not choose it."""

    def __init__(
        self,
        window: Window,
        world: World,
        engines: Callable[[World], Channel],
        *,
        settings: Settings | None = None,
        stats: StatsFile | None = None,
        clock: Callable[[], float] = time.monotonic,
        jobs: Jobs | None = None,
        fixed: bool = False,
    ) -> None:
        self.window, self.clock, self.now = window, clock, clock()
        self.settings, self.stats = settings or Settings(), stats
        self.jobs = jobs or Jobs()
        self.commands = Commands(self.settings.values.keys)
        values = self.settings.values
        self.player = Player(engines(world), clock, values.flow, values.rate)
        self.player.keys.guess_board(window.locales)
        self.screen = PlayScreen(self.player, world.name, now=self.now)
        self.saver = Saver(self.player, self.settings, self.jobs, self.say, self.complain)
        self.opener = Opener(
            world, engines, self.player, self.screen, self.settings, self.jobs, self.say, self.complain, fixed
        )
        self.overlays: list[Overlay] = []  # the last one has the keyboard
        self.closing = False
        self._holds: dict[int, str] = {}  # scancode -> the command it holds down
        self._later: list[str] = []  # commands that wait for a play-through on its way
        self._clicked: int | None = None
        self._away = False
        self._seen: Pixels | None = None
        self._drawn = -1.0
        self._never: Exception | None = None  # why there was no engine from the start
        self._does = self._table()

    def begin(self, picture: Path | str | None, seed: int | None) -> None:
        """Say what to play first: a picture or a replay, or what the tape shows."""
        if self.settings.problem:
            self.say(self.settings.problem)
        self.opener.begin(None if picture is None else str(picture), seed)

    def run(self) -> int:
        """Turn until the window is closed. If there never was an engine, the reason why is raised."""
        while not self.closing:
            self.turn(self.player.engine.poll(self.player.patience(self.clock(), TICK)))
        if self._never is not None and not self.player.started:
            raise self._never
        return 0

    def turn(self, reply: Reply | None) -> None:
        """Once round: take what the engine gave, look at the keys, give the engine the newest of them, paint."""
        start = self.now = self.screen.now = self.clock()
        arrived = self._take(reply)
        for event in self.window.poll():
            self.handle(event)
        self.jobs.poll()
        self.opener.catch_up()
        self.player.asleep = bool(self.overlays) or self._away
        try:
            self.player.update(self.now)
        except GenieError as error:
            self.complain(error)
        if self._later and not self.player.loading:
            commands, self._later = self._later, []
            for command in commands:
                self._does[command]()
        self._note()
        # painted after the engine has its work, so that it works while the screen is slow
        self._paint(arrived)
        self.player.meter.turns.append(self.clock() - start)
        if self.stats is not None:
            self.stats.update(self.player.meter, self.now, world=self.screen.world, state=self.player.words)

    def close(self) -> None:
        """Write what is to be written and close everything. Twice is fine."""
        self.saver.stop(self.clock())
        self.player.close()
        if self.stats is not None:
            self.stats.write(self.player.meter, world=self.screen.world, state="closed")
            self.stats.close()
            self.stats = None
        self.window.close()
        self.player.engine.close()
        self.jobs.close()

    # what happens

    def handle(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, Closed):
            self.closing = True
        elif isinstance(event, Dropped):
            self._close_overlays()
            self.opener.open(event.text)
        elif isinstance(event, Focused):
            self._focus(event.gained)
        elif isinstance(event, Key):
            self._key(event)
        elif self.overlays:
            self._chosen(self.overlays[-1].handle(event))
        elif isinstance(event, Mouse):
            self._mouse(event)

    def say(self, text: str) -> None:
        """Show a message for a while."""
        self.screen.toasts.say(text, self.now)

    def _say_unless(self, done: bool, text: str) -> None:
        if not done:
            self.say(text)

    def complain(self, error: Exception) -> None:
        """Show an error; what is a bug goes to the log, too."""
        if not isinstance(error, GenieError):
            _log.error("%s", error, exc_info=error)
        self.screen.toasts.say(str(error) or type(error).__name__, self.now, ALARM, 7.0)

    # the loop's parts

    def _take(self, reply: Reply | None) -> bool:
        try:
            return self.player.take(reply, self.now) is not None
        except Exception as error:
            if reply is not None and reply.verb == "start":
                self._never = error
            # an engine that is gone says so in the middle of the screen
            if not self.player.engine.dead:
                self.complain(error)
            elif not isinstance(error, GenieError):
                _log.error("%s", error, exc_info=error)
            return False

    def _note(self) -> None:
        """What goes to files: the frame to a recording, and from the journal whether it can be written."""
        player = self.player
        if player.picture is not self._seen and player.touched and player.picture is not None:
            self._seen = player.picture
            self.saver.frame(player.picture, self.now)
        if player.session is not None and (problem := player.session.journal_problem()):
            self.complain(GenieError(problem))

    def _paint(self, arrived: bool) -> None:
        flight = self.player.flight
        # an engine that is quick answers before the light of its key would be on the screen
        begun = flight is not None and flight.begun == self.now
        if not arrived and (begun or self.now - self._drawn < REDRAW):
            return
        self._drawn = self.now
        width, height = self.window.size
        # sizes grow with the window, in steps so that not every pixel of resizing needs new letters
        fit = min(max(min(width / SIZE[0], height / SIZE[1]), 0.7), 2.5)
        scale = round(self.settings.values.scale * fit * 20) / 20
        canvas = Canvas(width, height, scale, self.window.measure, self.now)
        self.screen.recording = self.saver.status(self.now)
        items = self.screen.draw(canvas)
        if self.overlays:
            items += self.overlays[-1].draw(canvas)
            items += self.screen.toasts.draw(canvas, height - canvas.px(20))
        self.window.show(items)
        self.player.shown(self.clock())

    def _focus(self, gained: bool) -> None:
        # keys that go up elsewhere are not told; time does not flow for nobody
        self._away = not gained and self.player.flow
        if not gained:
            self._let_go()

    def _let_go(self) -> None:
        self.player.keys.release_all()
        self._holds.clear()
        self.player.rewind(False, self.now)
        self.player.wants_futures = False

    def _key(self, event: Key) -> None:
        if not event.down:
            self.player.keys.release(event.scancode)
            self._hold(event.scancode, False, "")
            return
        self.player.keys.saw(event.scancode, event.key)
        command = self.commands.find(event.scancode, event.key, event.mods)
        if self.overlays:
            screen = self.overlays[-1]
            if command in ("menu", "quit", "fullscreen") and not event.repeat:
                self._does[command]()
            elif command == "help" and isinstance(screen, HelpScreen):
                self._does["menu"]()
            else:
                self._chosen(screen.handle(event))
                self._list(screen)
        elif command in ("rewind", "futures"):
            if not event.repeat:
                self._hold(event.scancode, True, command)
        elif command is not None:
            if not event.repeat or command in ("back", "forward"):
                self._do(command)
        elif not event.repeat and not event.mods & {"ctrl", "alt"} and self.player.press(event.scancode, self.now):
            self.screen.compass.touched = self.now
            self._play_on()

    def _do(self, command: str) -> None:
        """Do it. What concerns a play-through is done to the one that the tape shows, while it runs, and to one that is
        on its way once that is there."""
        if command in WALKS:
            self.opener.take_over()
            if self.player.loading:
                self._later.append(command)
                return
        self._does[command]()

    def _hold(self, scancode: int, down: bool, command: str) -> None:
        """A command that lasts while its key is down. Where the engine has stopped, R starts it anew."""
        if down and command == "rewind" and (self.player.engine.dead or self.player.hangs):
            self.player.revive()
            return
        if down:
            self._holds[scancode] = command
            if command == "rewind":
                self.opener.take_over()
        elif self._holds.pop(scancode, "") == "":
            return
        self.player.rewind("rewind" in self._holds.values(), self.now)
        self.player.wants_futures = "futures" in self._holds.values()

    def _mouse(self, event: Mouse) -> None:
        if event.kind == "up" and self._clicked is not None:
            self.player.keys.release(self._clicked)
            self._clicked = None
        if event.kind != "down":
            return
        if (code := self.screen.compass.hit(event.pos)) is not None and self.player.press(code, self.now):
            self._clicked, self.screen.compass.touched = code, self.now
            self._play_on()
        elif (index := self.screen.seek(event.pos)) is not None:
            self.player.walk_to(index)

    def _play_on(self) -> None:
        """A play key went down: where no tape is running, that is all it takes to begin."""
        if self.screen.tape is None:
            self.player.touched = True

    # commands

    def _table(self) -> dict[str, Callable[[], Any]]:
        player = self.player
        return {
            "pause": player.pause,
            "back": lambda: player.walk(-1),
            "forward": lambda: player.walk(1),
            "home": player.home,
            "bookmark": self._bookmark,
            "recall": lambda: self._say_unless(player.recall() or bool(player.marks), "No bookmark yet; F2 sets one"),
            "undo": lambda: self._say_unless(player.undo(), "Nothing to undo"),
            "redo": lambda: self._say_unless(player.redo(), "Nothing to do again"),
            "reseed": self._reseed,
            "faster": lambda: self._pace(1),
            "slower": lambda: self._pace(-1),
            "flow": self._flow,
            "screenshot": self.saver.screenshot,
            "gif": self.saver.recent,
            "record": lambda: self.saver.toggle(self.now),
            "statistics": self._statistics,
            "fullscreen": lambda: self._set(fullscreen=self.window.toggle_fullscreen()),
            "open": lambda: self._push(OpenScreen()),
            "paste": lambda: self.opener.paste(self.window.paste_text()),
            "copy": self.saver.copy,
            "help": self._help,
            "gallery": self._gallery,
            "menu": self._menu,
            "resume": self._close_overlays,
            "quit": self._quit,
        }

    def _chosen(self, name: str) -> None:
        """Something was chosen on an overlay: a command, or something to open."""
        kind, _, rest = name.partition(" ")
        if not name:
            return
        if kind in ("picture", "replay", "path"):
            self._close_overlays()
            self.opener.open(rest)
        elif kind == "world":
            self._close_overlays()
            if rest != self.opener.world.name:
                self.opener.change_world(rest)
        elif name in self._does:
            self._close_overlays()
            self._does[name]()

    def _set(self, **values: Any) -> None:
        """Change settings, and let a job write them."""
        self.settings.change(**values)
        self.jobs.start(self.settings.save, lambda _: None, self.complain)

    def _push(self, screen: Overlay) -> None:
        self._let_go()
        self.player.keys.take()
        self.overlays.append(screen)
        self.window.typing(screen.typing)
        self._list(screen)

    def _close_overlays(self) -> None:
        self.overlays.clear()
        self.window.typing(False)

    def _menu(self) -> None:
        """Esc: one level back, or the menu."""
        if self.overlays:
            self.overlays.pop()
            self.window.typing(bool(self.overlays) and self.overlays[-1].typing)
        else:
            self._push(MenuScreen(self.player.flow, self.saver.recording, self.player.started))

    def _gallery(self) -> None:
        screen, name = HomeScreen(), self.opener.world.name
        size = self.opener.size if self.opener.size != (0, 0) else (64, 64)
        self._push(screen)
        self.jobs.start(lambda: find_shelves(name, size), screen.fill, self.complain)

    def _list(self, screen: Overlay) -> None:
        """Let a job list what begins like the path that is being typed."""
        if isinstance(screen, OpenScreen) and screen.wanted is not None:
            text, screen.wanted = screen.wanted, None
            self.jobs.start(lambda: list_paths(text), lambda found: screen.fill(text, found), self.complain)

    def _help(self) -> None:
        labels = self.player.info.labels if self.player.info else ()
        self._push(HelpScreen(self.player.keys, self.commands, labels))

    def _quit(self) -> None:
        self.closing = True

    def _index(self) -> int:
        return self.player.session.index if self.player.session and self.player.started else 0

    def _bookmark(self) -> None:
        if self.player.bookmark():
            self.say(f"Bookmarked step {self._index()}; F4 comes back here")

    def _reseed(self) -> None:
        if (seed := self.player.reseed()) is not None:
            self.say(f"Seed {seed} from here on")

    def _pace(self, direction: int) -> None:
        self._set(rate=self.player.pace(direction))
        self.say(f"{self.player.rate:g} steps a second")

    def _flow(self) -> None:
        self.player.flow = not self.player.flow
        self._set(flow=self.player.flow)
        self.say("Time flows" if self.player.flow else "The world waits for you")

    def _statistics(self) -> None:
        self.screen.statistics = not self.screen.statistics


def _rollout(world: str, picture: Path | str | None, seed: int | None) -> str:
    """The command that does the same without a window."""
    prompt = picture if picture is not None else "PICTURE"
    return (
        f"genie-play rollout --world {world} --prompt {prompt} --seed {0 if seed is None else seed} "
        f'--actions "random:60" --out {world}.gif'
    )
