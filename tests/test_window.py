"""The window on SDL's dummy driver: what is painted, and what events become."""

from __future__ import annotations

import random
import time

import numpy as np
import pygame
import pytest

from genie_play.play.app import TICK, App
from genie_play.play.items import (
    INK,
    SLOT_SHAPES,
    Box,
    Closed,
    Dropped,
    Focused,
    Hatch,
    Key,
    Mouse,
    Picture,
    Rect,
    Resized,
    Shape,
    Text,
    Typed,
    place_world,
)
from genie_play.play.jobs import Jobs
from genie_play.play.opening import World, start_engine
from genie_play.play.widgets import Focus, Toasts
from genie_play.play.window import Window

SIZE = (320, 240)


@pytest.fixture
def window():
    window = Window("test", SIZE)
    window.poll()
    yield window
    window.close()


def any_item(dice: random.Random):
    x, y, w, h = dice.randrange(-20, 300), dice.randrange(-20, 220), dice.randrange(1, 120), dice.randrange(1, 90)
    color = tuple(dice.randrange(256) for _ in range(3))
    kind = dice.randrange(6)
    if kind == 0:
        return Box(Rect(x, y, w, h), color, dice.choice([0, 4, 9]), dice.choice([0, 0, 2]))
    if kind == 1:
        return Box(Rect(x, y, w, h), (*color, dice.randrange(256)))
    if kind == 2:
        return Text(dice.choice(["step 12", "gjpqy", "…", "W"]), x, y, dice.choice([11, 18, 30]), color, "center")
    if kind == 3:
        name = dice.choice([*SLOT_SHAPES, "ring", "play", "pause", "rewind"])
        return Shape(name, x, y, dice.randrange(3, 30), color, dice.choice([0, 2]))
    if kind == 4:
        return Hatch(Rect(x, y, w, h), color, 6)
    return Picture(Rect(x, y, w, h), np.full((9, 16, 3), color, np.uint8))


def test_painting_what_changed_equals_painting_all(window):
    dice = random.Random(5)
    items = [any_item(dice) for _ in range(30)]
    for _ in range(60):
        window.show(items)
        partial = window.pixels()
        window._last = None
        assert window.show(items)
        assert np.array_equal(partial, window.pixels())
        items = [any_item(dice) if dice.random() < 0.1 else item for item in items]
        if dice.random() < 0.2:
            del items[dice.randrange(len(items))]
        if dice.random() < 0.2:
            items.insert(dice.randrange(len(items)), any_item(dice))


def test_nothing_new_is_not_painted(window):
    picture = Picture(Rect(0, 0, 64, 36), np.zeros((9, 16, 3), np.uint8))
    assert window.show([picture])
    assert not window.show([Picture(Rect(0, 0, 64, 36), picture.pixels)])
    assert window.show([Picture(Rect(0, 0, 64, 36), picture.pixels.copy())])


def test_the_world_is_whole_pixels(window):
    pixels = np.random.default_rng(1).integers(0, 256, (90, 160, 3), np.uint8)[::3, ::3]
    rect = place_world(Rect(10, 10, 300, 220), pixels.shape[:2])
    assert (rect.w, rect.h) == (54 * 5, 30 * 5)
    window.show([Picture(rect, pixels)])
    shown = window.pixels()[rect.y : rect.bottom, rect.x : rect.right]
    assert np.array_equal(shown, np.repeat(np.repeat(pixels, 5, 0), 5, 1))
    assert place_world(Rect(0, 0, 100, 100), (90, 160)) == Rect(0, 22, 100, 56)  # too small: shrunk to fit


def test_letters_are_painted_as_wide_as_they_are_measured(window):
    for text, size in (("dreaming freely", 15), ("W", 40), ("", 12)):
        window.show([])
        window.show([Text(text, 20, 100, size, INK)])
        columns = np.flatnonzero((window.pixels() != window.pixels()[0, 0]).any(axis=(0, 2)))
        assert len(columns) == 0 or abs((columns[-1] - 20) - window.measure(text, size)) <= 3
    assert window.measure("WWW", 30) > 2 * window.measure("WWW", 12)


def post(kind, **fields):
    pygame.event.post(pygame.event.Event(kind, **fields))


def test_events_become_plain(window):
    post(pygame.KEYDOWN, key=pygame.K_q, scancode=4, mod=pygame.KMOD_LCTRL | pygame.KMOD_LSHIFT)
    post(pygame.KEYDOWN, key=pygame.K_q, scancode=4, mod=0)
    post(pygame.KEYUP, key=pygame.K_q, scancode=4, mod=0)
    post(pygame.KEYDOWN, key=pygame.K_F9, scancode=66, mod=pygame.KMOD_RALT | pygame.KMOD_LCTRL)
    post(pygame.TEXTINPUT, text="é")
    for x in range(5):
        post(pygame.MOUSEMOTION, pos=(x, 7), rel=(1, 0), buttons=(0, 0, 0))
    post(pygame.MOUSEBUTTONDOWN, pos=(4, 7), button=1)
    post(pygame.MOUSEBUTTONDOWN, pos=(4, 7), button=3)
    post(pygame.DROPFILE, file="/a/b.png")
    post(pygame.DROPTEXT, text="file:///a/caf%C3%A9.png\r\nfile:///more")
    post(pygame.DROPTEXT, text="/plain/path.png")
    post(pygame.WINDOWFOCUSLOST)
    post(pygame.WINDOWEXPOSED)
    post(pygame.QUIT)
    assert window.poll() == [
        Key(4, "q", True, frozenset({"ctrl", "shift"})),
        Key(4, "q", True, frozenset(), True),  # down already: a repeat
        Key(4, "q", False),
        Key(66, "f9", True),  # AltGr is no modifier
        Typed("é"),
        Mouse("move", (4, 7)),
        Mouse("down", (4, 7)),
        Dropped("/a/b.png"),
        Dropped("/a/café.png"),
        Dropped("/plain/path.png"),
        Focused(False),
        Resized(),
        Closed(),
    ]


def test_fullscreen_and_back(window):
    assert window.toggle_fullscreen()
    assert window.show([Box(Rect(0, 0, 10, 10), INK)])
    assert not window.toggle_fullscreen()
    assert window.size == SIZE


def test_saved_as_it_is_seen(window, tmp_path):
    window.show([Box(Rect(0, 0, 10, 10), (1, 2, 3))])
    window.save(tmp_path / "w.png")
    loaded = pygame.surfarray.array3d(pygame.image.load(tmp_path / "w.png")).swapaxes(0, 1)
    assert np.array_equal(loaded, window.pixels())


def test_played_through_a_child_process(window, request):
    """Everything real but the screen."""
    app = App(window, World("counting", "fakes:CountingEngine"), start_engine, jobs=Jobs())
    request.addfinalizer(app.close)
    app.begin(None, 3)
    end = time.monotonic() + 20
    post(pygame.KEYDOWN, key=pygame.K_d, scancode=7, mod=0)
    post(pygame.KEYUP, key=pygame.K_d, scancode=7, mod=0)
    while not app.player.meter.keys and time.monotonic() < end:
        app.turn(app.player.engine.poll(app.player.patience(app.clock(), TICK)))
    assert app.player.session.index == 1
    rect = next(item.rect for item in window._last if isinstance(item, Picture))
    scale = rect.w // 32
    shown = window.pixels()[rect.y : rect.bottom : scale, rect.x : rect.right : scale]
    # the rest of this small window is under the compass
    assert np.array_equal(shown[:12, :16], app.player.picture[:12, :16])


def test_focus_goes_to_the_nearest_that_way():
    focus = Focus()
    focus.set({f"{x}{y}": Rect(x * 100, y * 100, 80, 80) for y in range(3) for x in range(3)})
    for key, at in [("right", "10"), ("down", "11"), ("down", "12"), ("down", "12"), ("left", "02"), ("up", "01")]:
        assert focus.handle(Key(0, key)) == ""
        assert focus.at == at
    assert focus.handle(Key(0, "return")) == "01"
    assert focus.handle(Mouse("move", (250, 250))) == ""
    assert focus.at == "22"
    assert focus.handle(Mouse("down", (50, 50))) == "00"
    assert focus.handle(Mouse("down", (95, 95))) == ""
    focus.set({"other": Rect(0, 0, 5, 5)})
    assert focus.at == "other"


def test_toasts_go_by_themselves():
    toasts = Toasts()
    for n in range(5):
        toasts.say(f"{n}", 10.0 + n, seconds=3.0)
    toasts.say("4", 14.5, seconds=3.0)
    assert [text for text, *_ in toasts.shown] == ["2", "3", "4"]
