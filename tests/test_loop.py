"""The loop without a screen: scripted events, a clock that is ticked, an engine whose steps take that clock's time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from fakes import LABELS, Clock, ScriptedWindow, SlowChannel
from PIL import Image

from genie_play import paths
from genie_play.media import pictures
from genie_play.play import opening
from genie_play.play.app import App, play
from genie_play.play.items import Closed, Dropped, Focused, Hatch, Key, Mouse, Picture, Text, Typed
from genie_play.play.jobs import Jobs
from genie_play.play.keymap import KeyMap
from genie_play.play.meter import Meter, StatsFile
from genie_play.play.opening import World
from genie_play.play.player import Player
from genie_play.play.settings import Settings
from genie_play.play.tape import Tape
from genie_play.session import journal
from genie_play.types import GenieError, Prompt

Q, W, E, A, D, Z, S, C = 20, 26, 8, 4, 7, 29, 22, 6
CODES = KeyMap()
CODES.learn(LABELS, 0)
FUNCTIONS = {"f1": 58, "f2": 59, "f3": 60, "f4": 61, "f8": 65, "f9": 66, "home": 74, "escape": 41, "return": 40,
             "tab": 43, "down": 81, "up": 82, "backspace": 42}  # fmt: skip
LETTERS = {chr(97 + i): 4 + i for i in range(26)} | {",": 54, ".": 55, "-": 45, "=": 46}
SCANCODES = LETTERS | FUNCTIONS
TICK = 1 / 120


class Desk:
    """An app on fakes, with a hand on the keys."""

    open: ClassVar[list[Desk]] = []

    def __init__(self, seconds: float = 0.02, start: bool = True, window: ScriptedWindow | None = None, **options):
        self.clock = Clock()
        self.engine = SlowChannel(self.clock, seconds, **options)
        self.window = window or ScriptedWindow(self.clock)
        self.app = App(
            self.window, World("counting", "fake"), lambda world: self.engine, settings=Settings(),
            clock=self.clock, jobs=Jobs(inline=True),
        )  # fmt: skip
        self.player = self.app.player
        Desk.open.append(self)
        if start:
            self.app.begin(None, 5)
            self.wait(0.2 + 2 * seconds)
            assert self.player.started

    def wait(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end - 1e-9 and not self.app.closing:
            timeout = min(self.player.patience(self.clock.now, TICK), end - self.clock.now)
            self.app.turn(self.player.engine.poll(timeout))

    def key(self, key: str, down: bool = True, mods: str = "", repeat: bool = False) -> None:
        self.app.now = self.clock.now
        self.app.handle(Key(SCANCODES[key], key, down, frozenset(mods.split()), repeat))

    def tap(self, key: str, mods: str = "", wait: float = 0.2) -> None:
        self.key(key, True, mods)
        self.wait(0.015)
        self.key(key, False, mods)
        self.wait(wait)

    def play(self, steps: int, key: str = "d") -> None:
        for _ in range(steps):
            self.tap(key, wait=0.06)

    @property
    def session(self):
        return self.player.session

    @property
    def texts(self) -> str:
        return " | ".join(item.text for item in self.window.items if isinstance(item, Text))

    def world_shown(self):
        """The pixels of the largest picture on the window."""
        found = [item for item in self.window.items if isinstance(item, Picture)]
        return max(found, key=lambda item: item.rect.w).pixels if found else None


@pytest.fixture(autouse=True)
def _close_desks():
    yield
    while Desk.open:
        Desk.open.pop().app.close()


@pytest.fixture(autouse=True)
def shipped(tmp_path, monkeypatch):
    """A folder of pictures that come with the program; empty, as decoding real ones takes its time."""
    (tmp_path / "assets" / "prompts").mkdir(parents=True)
    monkeypatch.setattr(paths, "assets", lambda: tmp_path / "assets")
    return tmp_path / "assets" / "prompts"


@pytest.fixture
def desk():
    return Desk()


# keys to pictures


def test_the_picture_is_shown_in_the_turn_its_frame_arrives(desk):
    desk.wait(0.5)
    desk.key("d")
    desk.app.turn(desk.engine.poll(0.0))
    assert desk.engine.log[-1][1] == "step"  # submitted in the turn of the key
    reply = None
    while reply is None:
        reply = desk.engine.poll(TICK)
        if reply is None:
            desk.app.turn(None)
    assert not np.array_equal(desk.world_shown(), reply.value.pixels)
    desk.app.turn(reply)
    assert np.array_equal(desk.world_shown(), reply.value.pixels)
    assert desk.window.shows[-1][0] == desk.clock.now


def test_key_to_picture_is_one_step_and_one_tick(desk):
    for n in range(20):
        desk.clock.tick(0.0013 * n)
        desk.tap("d")
    times = np.array(desk.player.meter.keys)
    assert len(times) == 20
    assert times.max() <= desk.engine.seconds + TICK + 1e-9


def test_the_newest_key_goes_with_the_next_step(desk):
    """A key that goes down while a step is under way is in the request of the very turn that takes its frame."""
    desk.key("d")
    desk.app.turn(None)
    assert desk.engine.busy
    desk.key("a")
    desk.key("w")
    reply = desk.engine.poll(None)
    desk.app.turn(reply)
    assert reply.verb == "step"
    assert [action for _, action in desk.engine.steps()] == [CODES.action(D), CODES.action(W)]
    assert desk.engine.steps()[-1][0] == desk.clock.now


def test_ten_thousand_taps_are_never_lost():
    """Taps of 15 ms, at least a step of an 8 fps world apart: each is one step, in order."""
    clock = Clock()
    engine = SlowChannel(clock, 0.11, rate=8.0)
    player = Player(engine, clock)
    player.load(Prompt(np.zeros((1, 24, 32, 3), np.uint8)), 1)
    player.touched = True
    random = np.random.default_rng(7)
    starts = 1.0 + np.cumsum(random.uniform(0.125, 0.19, 10_000)) + clock.now
    keys = random.choice([Q, W, E, A, D, Z, S, C], 10_000)
    taps = list(zip(starts, keys, strict=True))
    moments = sorted([(t, True, key) for t, key in taps] + [(t + 0.015, False, key) for t, key in taps])
    at = 0
    while at < len(moments) or engine.busy or player.keys.tap:
        reply = engine.poll(1 / 60)
        player.take(reply, clock.now)
        while at < len(moments) and moments[at][0] <= clock.now:
            _, down, key = moments[at]
            (player.press(key, clock.now) if down else player.keys.release(key))
            at += 1
        player.update(clock.now)
    done = [action for _, action in engine.steps()]
    assert len(done) == 10_000
    assert done == [player.keys.action(key) for key in keys]
    assert set(done) == set(range(8))


def test_taps_at_once_coalesce_to_the_newest(desk):
    for key in "adw":
        desk.key(key)
        desk.key(key, False)
    desk.wait(0.5)
    assert [action for _, action in desk.engine.steps()] == [CODES.action(W)]


def test_repeats_are_paced_at_the_worlds_rate(desk):
    desk.key("d")
    desk.wait(3.05)
    desk.key("d", False)
    times = np.array([when for when, _ in desk.engine.steps()])
    assert len(times) == 31
    assert abs(np.diff(times).mean() - 0.1) < 1e-3
    assert np.abs(np.diff(times) - 0.1).max() < TICK
    assert abs(desk.player.meter.rate - 10) < 0.2
    desk.wait(1.0)
    assert len(desk.engine.steps()) == 31


def test_an_engine_slower_than_the_world_works_without_a_break():
    desk = Desk(seconds=0.25)
    desk.key("d")
    desk.wait(5.0)
    times = np.array([when for when, _ in desk.engine.steps()])
    assert np.diff(times).max() < 0.25 + 2 * TICK
    assert desk.player.words == "thinking"
    desk.app.close()


def test_faster_and_slower(desk):
    desk.tap("=")
    assert desk.player.rate == 12
    for _ in range(4):
        desk.tap("-")
    assert desk.player.rate == 5
    assert json.loads(paths.settings_file().read_text())["rate"] == 5
    desk.key("d")
    desk.wait(2.05)
    assert len(desk.engine.steps()) == 11


def test_a_new_key_starts_a_step_at_once(desk):
    desk.key("d")
    desk.wait(0.55)
    before = len(desk.engine.steps())
    at = desk.clock.now
    desk.key("w")
    desk.wait(0.03)
    assert len(desk.engine.steps()) == before + 1
    assert desk.engine.steps()[-1] == (pytest.approx(at, abs=TICK + 1e-9), CODES.action(W))


def test_the_newest_key_wins_and_falls_back(desk):
    desk.key("d")
    desk.wait(0.35)
    desk.key("w")
    desk.wait(0.5)
    desk.key("w", False)
    desk.wait(0.5)
    actions = [action for _, action in desk.engine.steps()]
    right, jump = CODES.action(D), CODES.action(W)
    first, last = actions.index(jump), len(actions) - actions[::-1].index(jump)
    assert set(actions[:first]) == {right}
    assert set(actions[first:last]) == {jump}
    assert set(actions[last:]) == {right}
    assert last - first >= 4


def test_the_commit_is_done_while_nobody_waits(desk):
    desk.tap("d")
    assert [verb for _, verb, _ in desk.engine.log][-2:] == ["step", "settle"]
    desk.wait(1.0)
    assert [verb for _, verb, _ in desk.engine.log][-2:] == ["step", "settle"]


def test_it_says_how_long_the_picture_is_in_sight(desk):
    window = desk.player.info.window
    desk.play(window - 1)
    assert desk.session.index < window
    assert "still sees your picture" in desk.texts
    desk.play(2)
    assert "dreaming freely: your picture is out of its sight" in desk.texts
    desk.player.info = replace(desk.player.info, anchor=True)
    desk.play(1)
    assert "dreaming freely: your picture is still in its sight" in desk.texts


def test_digits_are_raw_codes(desk):
    for code in range(8):
        desk.app.handle(Key(30 + code, str(code + 1)))
        desk.app.handle(Key(30 + code, str(code + 1), False))
        desk.wait(0.15)
    assert [action for _, action in desk.engine.steps()] == list(range(8))


# time: paused, flowing, rewinding


def test_every_path_ticks_the_clock(desk):
    desk.play(30)

    def turns_of(seconds):
        start, count = desk.clock.now, 0
        while desk.clock.now < start + seconds:
            desk.app.turn(desk.player.engine.poll(desk.player.patience(desk.clock.now, TICK)))
            count += 1
            assert count < 10_000, f"spins while {desk.player.words}"
        return count

    for state in ("waiting", "paused", "rewinding", "menu", "flowing", "stopped"):
        if state == "paused":
            desk.tap("p")
        elif state == "rewinding":
            desk.tap("p")
            desk.key("r")
        elif state == "menu":
            desk.key("r", False)
            desk.tap("escape")
        elif state == "flowing":
            desk.tap("escape")
            desk.tap("t")
        elif state == "stopped":
            desk.engine.die()
        assert turns_of(1.0) <= 1.0 / TICK + 60, state
    assert desk.player.words == "stopped"


def test_paused_a_key_is_one_step(desk):
    desk.tap("p")
    assert desk.player.words == "paused"
    desk.key("d")
    desk.wait(1.0)
    desk.key("d", False)
    assert len(desk.engine.steps()) == 1
    assert desk.player.paused
    desk.tap("p")
    desk.key("d")
    desk.wait(1.0)
    assert len(desk.engine.steps()) > 8


def test_scrubbing(desk):
    desk.play(5)
    picture = desk.player.picture
    desk.tap(",")
    desk.tap(",")
    assert desk.session.index == 3
    assert np.array_equal(desk.player.picture, desk.session.frame.pixels)
    desk.tap(".")
    assert desk.session.index == 4
    desk.tap(".")
    assert np.array_equal(desk.player.picture, picture)
    steps = len(desk.engine.steps())
    desk.tap(".")  # at the end: one step with the idle code
    assert desk.session.index == 6
    assert [action for _, action in desk.engine.steps()[steps:]] == [0]
    for _ in range(9):
        desk.key(",", repeat=True)
    assert desk.session.index == 0


def test_rewind_has_no_limit_and_a_new_branch_follows(desk):
    desk.play(120)
    assert desk.session.index == 120
    desk.key("r")
    speeds = []
    for _ in range(40):
        before = desk.session.index
        desk.wait(0.1)
        speeds.append(before - desk.session.index)
        assert np.array_equal(desk.player.picture, desk.session.frame.pixels)
    assert desk.session.index == 0
    moving = [speed for speed in speeds if speed]
    assert moving[-2] > moving[0]
    desk.key("r", False)
    desk.tap("a")
    assert desk.session.index == 1
    assert desk.session.history.moves[-1].action == CODES.action(A)
    assert desk.player.words == "waiting for you"


def test_flowing_time(desk):
    desk.tap("d")
    desk.tap("t")
    before = len(desk.engine.steps())
    desk.wait(1.0)
    flowed = desk.engine.steps()[before:]
    assert 9 <= len(flowed) <= 11
    assert {action for _, action in flowed} == {0}
    assert desk.player.words == "flowing"
    desk.app.handle(Focused(False))
    before = len(desk.engine.steps())
    desk.wait(1.0)
    assert len(desk.engine.steps()) <= before + 1  # nobody is there
    desk.app.handle(Focused(True))
    desk.wait(1.0)
    assert len(desk.engine.steps()) > before + 8
    desk.tap(",")
    assert desk.player.paused


def test_focus_loss_lets_go_of_keys(desk):
    desk.key("d")
    desk.wait(0.5)
    desk.app.handle(Focused(False))
    before = len(desk.engine.steps())
    desk.wait(1.0)
    assert len(desk.engine.steps()) == before


# the play-through


def test_home_bookmarks_seeds_and_undo(desk):
    desk.play(4)
    desk.tap("f2")
    assert desk.player.marks == [4]
    desk.play(3)
    desk.tap("f4")
    assert desk.session.index == 4
    desk.tap("z", "ctrl")
    assert desk.session.index == 7
    desk.tap("home")
    assert desk.session.index == 0
    desk.tap("z", "ctrl")
    assert desk.session.index == 7
    desk.tap("z", "ctrl shift")
    assert desk.session.index == 0
    seed = desk.session.seed
    desk.tap("g")
    assert desk.session.seed != seed
    assert f"Seed {desk.session.seed} from here on" in desk.texts
    desk.tap("z", "ctrl")
    assert desk.session.seed == seed


def test_the_journal_has_it_all(desk):
    desk.play(5)
    desk.tap("home")
    desk.play(2, "a")
    desk.app.close()
    (file,) = paths.sessions().glob("*.gplay")
    replay = journal.read(file)
    assert [move.action for move in replay.history().moves] == [CODES.action(A)] * 2
    assert len(replay.histories) == 2
    assert replay.seed == 5


def test_futures(desk):
    desk.play(3)
    index = desk.session.index
    desk.key("tab")
    desk.wait(0.3)
    assert len(desk.player.futures) == 8
    assert len([item for item in desk.window.items if isinstance(item, Picture)]) == 9
    desk.key("tab", False)
    desk.wait(0.1)
    assert len([item for item in desk.window.items if isinstance(item, Picture)]) == 1
    assert desk.session.index == index
    foreseen = desk.player.futures[CODES.action(D)]
    desk.tap("d")
    assert np.array_equal(desk.player.picture, foreseen)


def test_the_mouse_plays_and_seeks(desk):
    desk.play(10)
    rect = desk.app.screen.compass.slots["E"]
    desk.app.handle(Mouse("down", rect.center))
    desk.wait(0.35)
    desk.app.handle(Mouse("up", rect.center))
    desk.wait(0.3)
    actions = [action for _, action in desk.engine.steps()][10:]
    assert actions == [CODES.action(D)] * 4
    line = desk.app.screen.timeline
    desk.app.handle(Mouse("down", (line.x + line.w // 2, line.center[1])))
    desk.wait(0.1)
    assert desk.session.index == 7


# death of the engine


def test_the_engine_dies_and_r_brings_it_back(desk):
    desk.play(6)
    picture, history = desk.player.picture, desk.session.history
    desk.key("d")
    desk.app.turn(None)
    assert desk.engine.busy
    desk.engine.die()
    desk.wait(0.5)
    desk.key("d", False)
    assert desk.player.words == "stopped"
    assert any(isinstance(item, Hatch) for item in desk.window.items)
    assert "signal 9" in desk.texts
    assert np.array_equal(desk.world_shown(), picture)
    desk.tap("d")  # nothing to be done with it
    desk.tap("r", wait=0.5)
    assert desk.engine.restarts == 1
    assert desk.player.problem == ""
    assert not any(isinstance(item, Hatch) for item in desk.window.items)
    assert desk.session.history.index == history.index
    assert np.array_equal(desk.player.picture, picture)
    desk.play(2)
    assert desk.session.index >= 8
    assert any(verb == "restore" for _, verb, _ in desk.engine.log)


def test_an_engine_that_dies_while_it_loads(tmp_path):
    desk = Desk(start=False, load=3.0)
    desk.app.begin(None, 5)
    desk.wait(0.5)
    desk.engine.die()
    desk.wait(0.2)
    assert desk.player.words == "stopped"
    desk.tap("r")
    desk.wait(4.0)
    assert desk.player.started
    desk.play(2)
    assert desk.session.index == 2


def test_a_step_that_fails_is_a_message(desk):
    desk.app.close()
    desk = Desk(fail="step")
    desk.app.handle(Key(37, "8"))
    desk.wait(0.3)
    assert "that cannot be done; try another key" in desk.texts
    desk.app.handle(Key(37, "8", False))
    desk.play(2)
    assert desk.session.index == 2
    assert not desk.engine.dead


def test_an_engine_that_never_was_is_an_error_of_the_command():
    desk = Desk(start=False, load=1.0)
    desk.app.begin(None, None)
    desk.app._never = GenieError("world.safetensors is cut short; copy it again")
    desk.window.script([(0.0, Closed())])
    with pytest.raises(GenieError, match="cut short"):
        desk.app.run()


# pictures, tapes, files


def save_picture(path: Path, shade: int, size=(24, 32)) -> Path:
    return pictures.save_png(path, np.full((*size, 3), shade, np.uint8))


def test_a_dropped_picture_becomes_the_world(desk, tmp_path):
    desk.play(3)
    desk.app.handle(Dropped(str(save_picture(tmp_path / "drawing.png", 33))))
    desk.wait(0.3)
    assert desk.session.index == 0
    assert int(desk.session.prompt.pictures.mean()) == 33
    desk.tap("z", "ctrl")
    assert desk.session.index == 3


@pytest.fixture
def two_worlds(monkeypatch):
    """The world that is played is "dark"; "light" is shipped beside it."""
    files = {name: Path(name) for name in ("dark", "light")}
    monkeypatch.setattr(opening, "_choice", lambda world: files)
    monkeypatch.setattr(opening, "find_world", lambda name, device="auto": World(name, "fake"))

    def desk(fixed: bool = False, **options):
        made = Desk(**options)
        made.app.opener.world, made.app.opener.fixed = World("dark", "fake"), fixed
        return made

    return desk


def test_a_picture_is_played_in_the_world_that_shows_it_best(two_worlds, tmp_path):
    desk = two_worlds()
    opener, before = desk.app.opener, desk.app.settings.values.world
    for shade in (60, 240):
        Image.new("RGB", (32, 24), (shade,) * 3).save(tmp_path / f"{shade}.png")
    desk.app.handle(Dropped(str(tmp_path / "60.png")))
    desk.wait(0.3)
    assert (opener.world.name, desk.session.prompt.source) == ("dark", "60.png")
    desk.app.handle(Dropped(str(tmp_path / "240.png")))
    desk.wait(0.5)
    assert (opener.world.name, desk.session.prompt.source) == ("light", "240.png")
    assert "light shows this picture better than dark" in desk.texts
    # the next picture may lead elsewhere: nobody has chosen a world
    assert not opener.fixed
    assert desk.app.settings.values.world == before
    desk.app.handle(Dropped(str(tmp_path / "60.png")))
    desk.wait(0.5)
    assert (opener.world.name, desk.session.prompt.source) == ("dark", "60.png")
    desk.play(2)
    assert desk.session.index == 2


def test_pictures_choose_among_shipped_worlds_of_one_size(tmp_path):
    spark = opening.find_world("spark")
    assert opening._choice(spark) == {name: opening.find_world(name).file for name in ("doodle", "spark")}
    assert opening._choice(opening.find_world("platformer")) == {}
    # a file of the person's own, by whatever name, is a choice already
    own = tmp_path / "spark.safetensors"
    own.write_bytes(spark.file.read_bytes())
    assert opening._choice(opening.find_world(str(own))) == {}


def test_a_world_that_was_chosen_plays_every_picture(two_worlds, tmp_path):
    Image.new("RGB", (32, 24), (240,) * 3).save(tmp_path / "x.png")
    desk = two_worlds(fixed=True)
    desk.app.handle(Dropped(str(tmp_path / "x.png")))
    desk.wait(0.5)
    assert (desk.app.opener.world.name, desk.session.prompt.source) == ("dark", "x.png")
    assert not any(verb == "fits" for _, verb, _ in desk.engine.log)
    desk = two_worlds()
    desk.app.opener.change_world("dark")
    assert desk.app.opener.fixed
    assert desk.app.settings.values.world == "dark"


def test_a_picture_is_played_here_where_nobody_can_say_what_is_better(two_worlds, tmp_path):
    Image.new("RGB", (32, 24), (240,) * 3).save(tmp_path / "x.png")
    desk = two_worlds(fail="fits")
    desk.app.handle(Dropped(str(tmp_path / "x.png")))
    desk.wait(0.5)
    assert (desk.app.opener.world.name, desk.session.prompt.source) == ("dark", "x.png")
    desk.engine.die()
    desk.wait(0.2)
    desk.app.handle(Dropped(str(tmp_path / "x.png")))
    desk.wait(0.2)
    assert "press R" in desk.texts


def test_what_is_no_picture_leaves_the_world_alone(desk, tmp_path):
    desk.play(3)
    (tmp_path / "x.png").write_bytes(b"PK\x03\x04 no picture")
    desk.app.handle(Dropped(str(tmp_path / "x.png")))
    desk.wait(0.3)
    assert "is not a picture I can read" in desk.texts
    desk.app.handle(Dropped(str(tmp_path / "missing.png")))
    desk.wait(0.3)
    assert "there is no file" in desk.texts
    assert desk.session.index == 3
    desk.play(1)
    assert desk.session.index == 4


def test_a_replay_goes_on_from_its_end(desk):
    desk.play(4)
    desk.app.close()
    (file,) = paths.sessions().glob("*.gplay")
    again = Desk(start=False, load=1.0)
    again.app.begin(str(file), None)
    again.wait(0.5)
    assert not again.player.started
    assert np.array_equal(again.world_shown(), desk.session.prompt.pictures[-1])
    again.wait(1.0)
    assert again.session.index == 4
    again.play(1, "a")
    assert again.session.index == 5
    again.app.close()
    assert len(list(paths.sessions().glob("*.gplay"))) == 2


def test_a_damaged_replay_is_a_message(tmp_path):
    (tmp_path / "x.gplay").write_text("nonsense\n")
    desk = Desk(start=False)
    desk.app.begin(str(tmp_path / "x.gplay"), None)
    desk.wait(0.5)
    assert "is not a replay" in desk.texts
    desk.play(1)
    assert desk.session.index == 1


def save_tape(path: Path) -> Path:
    frames = [Image.new("RGB", (32, 24), (20 * i, 40, 90)) for i in range(8)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0, lossless=True)
    return path


def test_a_tape_goes_round(tmp_path):
    tape = Tape(save_tape(tmp_path / "tape.webp"), (24, 32))
    assert tape.frame(0.05)[0, 0, 0] == 0
    assert tape.frame(0.35)[0, 0, 0] == 60
    assert tape.frame(0.85)[0, 0, 0] == 0
    assert tape.frame(1000.35)[0, 0, 0] == 60
    assert tape.last(0.35, 3).shape == (3, 24, 32, 3)
    assert tape.last(0.0, 3).shape == (1, 24, 32, 3)


def test_a_tape_that_was_enlarged_is_as_large_as_its_world(tmp_path):
    random = np.random.default_rng(0)
    small = [random.integers(0, 256, (24, 32, 3), np.uint8) for _ in range(3)]
    frames = [Image.fromarray(pictures.enlarge(pixels, 8)) for pixels in small]
    frames[0].save(tmp_path / "t.webp", save_all=True, append_images=frames[1:], duration=100, lossless=True)
    tape = Tape(tmp_path / "t.webp", (24, 32))
    for i, pixels in enumerate(small):
        assert np.array_equal(tape.frame(i * 0.1 + 0.01), pixels)


def test_the_first_key_is_remembered_and_takes_over_from_the_tape(tmp_path):
    desk = Desk(start=False, load=2.0)
    desk.app.begin(None, 5)
    desk.app.screen.play_tape(Tape(save_tape(tmp_path / "tape.webp"), (24, 32)))
    desk.wait(0.5)
    first = desk.world_shown()
    assert "tape: recorded earlier · loading torch …" in desk.texts
    assert "W A S D" in desk.texts
    desk.wait(0.3)
    assert not np.array_equal(desk.world_shown(), first)
    desk.tap("d", wait=0.3)
    assert desk.engine.steps() == []
    assert "tape" in desk.texts
    desk.wait(1.5)
    assert [action for _, action in desk.engine.steps()] == [CODES.action(D)]
    assert "tape" not in desk.texts
    assert desk.session.index == 1
    assert len(desk.session.prompt.pictures) == 4
    assert desk.session.seed == 5  # the one asked for, not spent on the tape
    desk.play(1)
    assert desk.session.index == 2


def taped(folder: Path) -> tuple[Desk, int]:
    """A desk that shows a tape of seven steps whose play-through lies beside it, `tape.gplay`; the frame it is at."""
    made = Desk()
    made.play(7)
    (file,) = paths.sessions().glob("*.gplay")
    file.rename(folder / "tape.gplay")
    made.app.close()
    desk = Desk(start=False)
    desk.app.begin(None, 5)
    desk.app.opener.show_tape(Tape(save_tape(folder / "tape.webp"), (24, 32)))
    desk.wait(0.45)
    at = round(desk.world_shown()[0, 0, 0] / 20)
    assert 2 < at < 7
    return desk, at


def test_the_tape_is_taken_over_with_all_that_led_to_it(tmp_path):
    """Beside it lies its play-through: what the world remembers is what it did remember, not four pictures."""
    desk, at = taped(tmp_path)
    replay = journal.read(tmp_path / "tape.gplay")
    assert [node.i for node in replay.nodes.values()] == list(range(8))
    assert [verb for _, verb, *_ in desk.engine.log][:2] == ["reset", "restore"]  # while nobody waits for it
    assert not list(paths.sessions().glob("*"))
    assert "step" not in desk.texts  # nor is there a play-through yet, to whom it may concern
    desk.tap("d", wait=0.3)
    session = desk.session
    assert f"step {at + 1}" in desk.texts
    assert session.index == at + 1
    assert session.seed == 5
    assert len(session.prompt.pictures) == 1
    (played,) = paths.sessions().glob("*.gplay")
    told = journal.read(played)
    assert [node.hash for node in told.branch()][: at + 1] == [replay.nodes[i].hash for i in range(at + 1)]
    assert len(told.nodes) == at + 2
    desk.key("home")
    assert session.index == 0  # one may walk back into what the tape showed


@pytest.mark.parametrize("key", [",", "home", "f2", "r"])
def test_keys_that_walk_begin_at_the_frame_that_the_tape_shows(tmp_path, key):
    desk, at = taped(tmp_path)
    if key == "r":  # wound back for as long as it is down
        desk.key(key)
        desk.wait(0.3)
        desk.key(key, down=False)
        desk.wait(0.2)
        assert desk.session.index < at
    else:
        desk.tap(key, wait=0.3)
        assert desk.session.index == {",": at - 1, "home": 0, "f2": at}[key]
    assert desk.session.length == at  # what led to that frame, and no more
    assert desk.app.screen.tape is None
    assert (desk.world_shown() == desk.session.frame.pixels).all()
    if key == "f2":
        assert f"Bookmarked step {at}" in desk.texts
    assert desk.engine.steps() == []


@pytest.mark.parametrize("wrong", ["another", "damaged", "short"])
def test_a_tape_whose_play_through_is_not_this_worlds_is_taken_over_by_its_pictures(tmp_path, wrong):
    made = Desk()
    made.play(1 if wrong == "short" else 7)
    (file,) = paths.sessions().glob("*.gplay")
    lines = file.read_text().splitlines()
    if wrong == "another":
        lines[0] = json.dumps({**json.loads(lines[0]), "checkpoint": {"name": "other", "sha256": "ab" * 32}})
    elif wrong == "damaged":
        lines[2] = "nonsense"
    (tmp_path / "tape.gplay").write_text("\n".join(lines) + "\n")
    file.unlink()
    made.app.close()
    desk = Desk(start=False)
    desk.app.begin(None, 5)
    desk.app.opener.show_tape(Tape(save_tape(tmp_path / "tape.webp"), (24, 32)))
    desk.wait(0.45)
    desk.tap("d", wait=0.3)
    assert desk.session.index == 1
    assert len(desk.session.prompt.pictures) == 4
    assert "other" not in desk.texts


def test_no_key_no_take_over(tmp_path):
    desk = Desk(start=False)
    desk.app.begin(None, 5)
    desk.app.screen.play_tape(Tape(save_tape(tmp_path / "tape.webp"), (24, 32)))
    desk.player.flow = True
    desk.wait(2.0)
    assert desk.engine.steps() == []
    assert "tape: recorded earlier" in desk.texts
    assert not list(paths.sessions().glob("*"))  # nobody played: no file


def test_screenshots_and_gifs(desk):
    desk.play(6)
    desk.tap("f8")
    desk.tap("f9")
    desk.tap("g", "ctrl")
    (png,) = paths.pictures().glob("*.png")
    with Image.open(png) as image:
        assert image.size == (256, 192)
    gifs = sorted(paths.pictures().glob("*.gif"))
    assert len(gifs) == 2  # of the same second, and neither written over
    with Image.open(gifs[0]) as image:
        assert image.n_frames == 7
    assert "Saved 0." in desk.texts


def test_a_long_recording_is_one_toggle(desk):
    desk.play(2)
    for repeat in (False, True, True):
        desk.key("f9", mods="shift", repeat=repeat)
    desk.key("f9", mods="shift")  # a bounce
    assert desk.app.saver.recording
    desk.play(10)
    assert "recording 0:0" in desk.texts
    desk.tap("f9", "shift")
    assert not desk.app.saver.recording
    (gif,) = paths.pictures().glob("*.gif")
    with Image.open(gif) as image:
        assert image.n_frames >= 10
    assert "Saved" in desk.texts


def test_closing_ends_a_recording(desk):
    desk.play(2)
    desk.tap("f9", "shift")
    desk.play(5)
    desk.app.close()
    (gif,) = paths.pictures().glob("*.gif")
    with Image.open(gif) as image:
        assert image.n_frames >= 5


# screens


def test_escape_never_quits(desk):
    for _ in range(7):
        desk.tap("escape")
        assert not desk.app.closing
    assert len(desk.app.overlays) == 1
    assert "Play on" in desk.texts
    desk.tap("d")
    assert desk.engine.steps() == []  # the menu has the keys
    desk.tap("return")
    assert desk.app.overlays == []
    desk.tap("d")
    assert len(desk.engine.steps()) == 1
    desk.tap("q", "ctrl")
    assert desk.app.closing


def test_a_text_field_owns_the_keyboard(desk, tmp_path):
    picture = save_picture(tmp_path / "typed.png", 44)
    desk.play(2)
    desk.tap("o", "ctrl")
    assert desk.window.typed
    for letter in "prtg":
        desk.tap(letter)
    assert not desk.player.paused
    assert not desk.player.flow
    assert desk.session.index == 2
    desk.app.handle(Typed(str(tmp_path) + "/ty"))
    desk.app._list(desk.app.overlays[-1])
    desk.wait(0.2)
    assert desk.app.overlays[-1].found == [str(picture)]
    desk.tap("tab")
    desk.tap("return")
    desk.wait(0.3)
    assert desk.app.overlays == []
    assert not desk.window.typed
    assert int(desk.session.prompt.pictures.mean()) == 44


def test_the_gallery(desk, shipped):
    save_picture(shipped / "green-hills.png", 60, (48, 64))
    (shipped / "broken.png").write_bytes(b"nothing")
    desk.play(3)
    desk.app._chosen("gallery")
    desk.wait(0.2)
    assert "A picture is a world" in desk.texts
    assert "Where you have been" in desk.texts
    assert "Green hills" in desk.texts
    assert "Broken" not in desk.texts
    chosen = [name for name in desk.app.overlays[-1].focus.targets if name.startswith("replay")]
    desk.app._chosen(chosen[0])
    desk.wait(0.4)
    assert desk.session.index == 3


def test_help_and_statistics(desk):
    desk.play(3)
    desk.tap("f1")
    assert "save the last 8 seconds as a GIF" in desk.texts
    assert "jump-right" in desk.texts
    desk.tap("f1")
    assert desk.app.overlays == []
    desk.tap("f3")
    assert "key to picture" in desk.texts
    assert "p95" in desk.texts


@pytest.mark.parametrize("size", [(240, 200), (520, 420), (1120, 780), (3840, 2160), (400, 1200)])
def test_every_screen_fits_any_window(size):
    clock = Clock()
    window = ScriptedWindow(clock, size)
    desk = Desk(window=window)
    window.clock = desk.clock
    desk.play(2)
    for command in ("statistics", "help", "menu", "menu", "gallery", "open"):
        desk.app._does[command]()
        desk.wait(0.05)
        assert desk.window.items
    for item in desk.window.items:
        if isinstance(item, Picture):
            assert item.rect.w > 0


# settings, statistics, no screen


def test_settings_keep_what_they_do_not_know():
    file = paths.settings_file()
    file.parent.mkdir(parents=True)
    file.write_text('{"rate": 20, "from_the_future": [1, 2], "flow": "perhaps"}')
    settings = Settings()
    assert settings.values.rate == 20.0
    assert settings.values.flow is False
    assert "flow" in settings.problem
    settings.change(rate=5.0)
    settings.save()
    assert json.loads(file.read_text()) == {"rate": 5.0, "from_the_future": [1, 2], "flow": "perhaps"}
    file.write_text("{rate: 20}")
    broken = Settings()
    assert broken.values.rate == 0.0
    assert "cannot be read" in broken.problem
    broken.change(rate=4.0)
    broken.save()
    assert [path.read_text() for path in file.parent.glob("*broken*")] == ["{rate: 20}"]


def test_flags_hold_for_one_run():
    settings = Settings()
    settings.override(flow=True, device=None, fullscreen=False)
    assert settings.values.flow
    assert settings.values.device == "auto"
    settings.change(rate=3.0)
    settings.save()
    assert json.loads(settings.path.read_text()) == {"rate": 3.0}


FAKE_XCLIP = """#!/bin/sh
case "$*" in
    *-i*) cat > "$CLIPBOARD" ;;
    *) cat "$CLIPBOARD" ;;
esac
"""


def test_pictures_on_the_clipboard(desk, tmp_path, monkeypatch):
    """On a desktop that has xclip, a frame that was copied can be pasted."""
    program = tmp_path / "bin" / "xclip"
    program.parent.mkdir()
    program.write_text(FAKE_XCLIP)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CLIPBOARD", str(tmp_path / "clipboard"))
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    desk.play(3)
    picture = desk.player.picture
    desk.tap("c", "ctrl")
    assert "Copied this frame" in desk.texts
    assert desk.engine.steps()[3:] == []
    desk.tap("v", "ctrl")
    assert np.array_equal(desk.session.prompt.pictures[-1], picture)
    (tmp_path / "clipboard").write_bytes(b"words")
    desk.tap("v", "ctrl")
    assert "there is no picture on the clipboard" in desk.texts
    monkeypatch.setenv("PATH", str(tmp_path))
    desk.tap("v", "ctrl")
    assert "pasting pictures needs" in desk.texts
    desk.tap("c", "ctrl")
    assert "saved instead" in desk.texts
    assert len(list(paths.pictures().glob("*.png"))) == 1
    desk.window.clipboard = str(save_picture(tmp_path / "named.png", 77))
    desk.tap("v", "ctrl")
    assert int(desk.session.prompt.pictures.mean()) == 77


def test_slots_of_ones_own(desk):
    desk.app.close()
    settings = Settings()
    settings.change(slots={"c0" * 32: [7, 6, 5, 4, 3, 2, 1, 0]})
    settings.save()
    again = Desk()
    again.tap("w")
    assert [action for _, action in again.engine.steps()] == [7]


def test_statistics_file(tmp_path):
    meter, file = Meter(), StatsFile(tmp_path / "stats.jsonl", every=1.0)
    for n in range(30):
        meter.frame(n * 0.1, 0.02)
        meter.keys.append(0.04)
        file.update(meter, n * 0.1, world="counting")
    file.write(meter)
    file.close()
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    assert lines[-1]["fps"] == pytest.approx(10, abs=0.1)
    assert lines[-1]["key_to_picture_ms"] == {"p50": 40.0, "p95": 40.0, "n": 30}
    with pytest.raises(GenieError, match="--stats"):
        StatsFile(tmp_path / "no" / "folder.jsonl")


def test_no_display_names_the_command_without_one(monkeypatch):
    for name in ("SDL_VIDEODRIVER", "SDL_VIDEO_DRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(GenieError, match=r"no display.*genie-play rollout --world platformer --prompt p\.png --seed 3"):
        play("platformer", "p.png", 3)


def test_unknown_worlds_are_an_error_before_any_window():
    with pytest.raises(GenieError, match="no world is called"):
        play("nowhere")
