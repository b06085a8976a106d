"""Any keys in any order give an action or none; every action can be reached on any keyboard, in any world."""

from __future__ import annotations

import pytest
from fakes import LABELS
from hypothesis import given, settings
from hypothesis import strategies as st

from genie_play.play.keymap import (
    COMMANDS,
    DIGITS,
    MOUSE,
    POSITIONS,
    RING,
    SLOTS,
    WAIT,
    Commands,
    KeyMap,
    describe,
    slot_codes,
)
from genie_play.types import LABEL_NAMES, N_ACTIONS, Label

Q, W, E, A, D, Z, S, C, X, SPACE = 20, 26, 8, 4, 7, 29, 22, 6, 27, 44
RIGHT, LEFT, DOWN, UP, PAD5 = 79, 80, 81, 82, 93

scancodes = st.one_of(st.sampled_from([*POSITIONS, *DIGITS, *MOUSE]), st.integers(-20, 300))
shifts = st.floats(-20, 20) | st.just(float("nan"))
labels = st.lists(
    st.builds(Label, st.integers(0, 7), st.sampled_from(LABEL_NAMES), shifts, shifts, st.floats(0, 1)), max_size=9
)


@settings(deadline=None)
@given(labels, st.integers(0, 7))
def test_every_action_is_reachable_in_any_world(labels, idle):
    keys = KeyMap()
    keys.learn(labels, idle)
    assert sorted(keys.codes) == list(range(N_ACTIONS))
    for reach in (RING.values(), DIGITS, MOUSE):
        assert {keys.action(scancode) for scancode in reach} == set(range(N_ACTIONS))
    assert keys.action(PAD5) == idle
    assert all(keys.codes[SLOTS.index(keys.slot_of(action))] == action for action in range(N_ACTIONS))


@settings(deadline=None)
@given(st.lists(st.integers(-3, 12), max_size=10), labels, st.integers(0, 7))
def test_a_map_of_ones_own_leaves_the_digits(own, labels, idle):
    keys = KeyMap()
    keys.learn(labels, idle, own)
    assert {keys.action(scancode) for scancode in DIGITS} == set(range(N_ACTIONS))
    if len(own) == 8 and all(0 <= code < 8 for code in own):
        assert keys.codes == tuple(own)
    else:
        assert sorted(keys.codes) == list(range(N_ACTIONS))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), scancodes), max_size=40))
def test_any_keys_give_an_action_or_none(events):
    keys, down = KeyMap(), []
    for pressed, scancode in events:
        if pressed and keys.press(scancode):
            down = [code for code in down if code != scancode] + [scancode]
            assert keys.tap.scancode == scancode
        elif not pressed:
            keys.release(scancode)
            down = [code for code in down if code != scancode]
        # the newest of those still down wins
        assert (keys.held.scancode if keys.held else None) == (down[-1] if down else None)
        for press in (keys.tap, keys.held):
            assert press is None or keys.action(press.scancode) in range(N_ACTIONS)


def test_the_world_moves_as_its_keys_lie():
    codes = dict(zip(SLOTS, slot_codes(LABELS, 0), strict=True))
    assert {slot: LABELS[code].name for slot, code in codes.items()} == {
        "N": "jump", "NE": "jump-right", "E": "right", "S": "down", "W": "left", "NW": "jump-left",
        "SE": "other", "SW": "idle",
    }  # fmt: skip


def test_without_names_the_strongest_motion_decides():
    moves = [(0, 0), (-9, 0), (8, 0), (3, 0), (0, -5), (0, 4), (-1, -1), (2, 2)]
    codes = dict(zip(SLOTS, slot_codes([Label(i, "other", *move) for i, move in enumerate(moves)], 0), strict=True))
    assert codes["W"] == 1
    assert codes["E"] == 2
    assert codes["N"] == 4
    assert codes["S"] == 5
    assert codes["SE"] == 7
    assert codes["NW"] == 6
    assert codes["NE"] == 3  # rightward too, weaker: beside E
    assert codes["SW"] == 0


def test_the_surest_of_two_with_one_name_gets_its_slot():
    two = [Label(0, "idle"), Label(1, "right", 4, 0, 0.6), Label(2, "right", 3, 0, 0.9), Label(3, "jump", 0, -2, 0.8)]
    codes = dict(zip(SLOTS, slot_codes(two, 0), strict=True))
    assert codes["E"] == 2
    assert codes["NE"] == 1 or codes["SE"] == 1


def test_taps_are_latched_and_taken_once():
    keys = KeyMap()
    assert keys.press(D, 1.0)
    keys.release(D)
    assert keys.held is None
    assert (keys.tap.scancode, keys.tap.time) == (D, 1.0)
    assert keys.take().scancode == D
    assert keys.take() is None


def test_the_newest_key_wins_and_letting_go_falls_back():
    keys = KeyMap()
    keys.press(D)
    keys.press(W)
    assert keys.held.scancode == W
    keys.release(W)
    assert keys.held.scancode == D
    keys.press(A)
    keys.release(D)
    assert keys.held.scancode == A
    keys.release_all()
    assert keys.held is None


def test_aliases():
    keys = KeyMap()
    keys.learn(LABELS, 0)
    for ours, alias in [(W, UP), (W, SPACE), (A, LEFT), (D, RIGHT), (S, DOWN), (S, X), (Q, 95), (C, 91)]:
        assert keys.action(ours) == keys.action(alias)
    assert keys.slot(PAD5) == WAIT
    assert not keys.press(19)  # P is no play key


def test_labels_follow_the_board():
    keys = KeyMap()
    assert [keys.name(slot) for slot in ("NW", "N", "W", "SW")] == ["Q", "W", "A", "Z"]
    keys.guess_board(["fr_FR"])
    assert [keys.name(slot) for slot in ("NW", "N", "W", "SW")] == ["A", "Z", "Q", "W"]
    keys.saw(W, ",")  # Dvorak
    keys.saw(E, "f5")  # names of keys are not letters
    assert keys.name("N") == ","
    assert keys.name("NE") == "E"


@pytest.mark.parametrize(
    ("scancode", "key", "mods", "command"),
    [
        (19, "p", "", "pause"),
        (29, "z", "ctrl", "undo"),
        (29, "z", "ctrl shift", "redo"),
        (29, "y", "ctrl", "redo"),  # QWERTZ: printed letters count
        (26, "z", "ctrl", "undo"),  # AZERTY
        (6, "c", "ctrl", "copy"),
        (6, "c", "", None),  # a play key
        (54, ",", "", "back"),
        (26, ",", "", None),  # Dvorak: the comma lies in the ring; brackets scrub
        (45, "[", "", "back"),
        (55, ":", "", "forward"),  # AZERTY: the full stop needs Shift; its place will do
        (51, ".", "shift", "forward"),
        (66, "f9", "", "gif"),
        (66, "f9", "shift", "record"),
        (40, "return", "alt", "fullscreen"),
        (46, "=", "", "faster"),
        (48, "+", "", "faster"),  # QWERTZ
        (35, "-", "", None),  # AZERTY: a digit's place
        (41, "escape", "", "menu"),
        (21, "r", "", "rewind"),
        (21, "r", "ctrl", "home"),
        (100, "", "", None),
        (5, "b", "", None),  # the time tree is not built yet
    ],
)
def test_commands_go_by_the_printed_letter(scancode, key, mods, command):
    assert Commands().find(scancode, key, frozenset(mods.split())) == command


def test_commands_of_ones_own():
    commands = Commands({"pause": ["f5"], "menu": [], "nonsense": ["f6"]})
    assert commands.find(62, "f5") == "pause"
    assert commands.find(19, "p") is None
    assert commands.find(41, "escape") == "menu"
    assert commands.find(63, "f6") is None


def test_no_two_commands_share_a_key_and_the_help_has_them_all():
    keys = [key for command in COMMANDS for key in command.keys]
    assert len(keys) == len(set(keys))
    rows = describe()
    assert ("Ctrl+Shift+Z or Ctrl+Y", "do it again") in rows
    assert len(rows) == 3 + len(COMMANDS)
