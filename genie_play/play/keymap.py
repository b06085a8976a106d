"""Keys to actions and keys to commands, as pure data: no window is needed to know what a key does.

Play keys go by position (SDL scancodes, which are USB's numbers), so they lie alike on every keyboard layout; commands
go by the letter that is printed. Knows nothing of pygame, engines or sessions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from genie_play.types import N_ACTIONS, Label

SLOTS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")  # clockwise
WAIT = "wait"  # numpad 5: the idle code, whatever slot it has
# the key that stands for a slot on screen
RING = {"NW": 20, "N": 26, "NE": 8, "W": 4, "E": 7, "SW": 29, "S": 22, "SE": 6}
POSITIONS = {code: slot for slot, code in RING.items()} | {
    95: "NW", 96: "N", 97: "NE", 92: "W", 93: WAIT, 94: "E", 89: "SW", 90: "S", 91: "SE",  # numpad
    82: "N", 79: "E", 81: "S", 80: "W", 44: "N", 27: "S",  # arrows, space, X
}  # fmt: skip
DIGITS = {30 + code: code for code in range(N_ACTIONS)}
MOUSE = {-1 - i: slot for i, slot in enumerate(SLOTS)}  # a click on the compass, as if it were a key

# US letters and names by scancode; other boards correct them as their keys are seen
_NAMES = {4 + i: letter for i, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ")}
_NAMES |= {30 + i: digit for i, digit in enumerate("1234567890")} | {44: "Space"}
_BOARDS = {
    "AZERTY": ({"fr"}, {20: "A", 26: "Z", 4: "Q", 29: "W"}),
    "QWERTZ": ({"de", "cs", "hu", "sk", "sl", "hr"}, {29: "Y"}),
}
_HOMES = {"right": "E", "left": "W", "up": "N", "jump": "N", "jump-right": "NE", "jump-left": "NW", "down": "S"}
_SPARE = ("S", "SE", "SW", "NE", "NW", "E", "W", "N")  # slots for codes that do not move, in this order


def slot_codes(labels: Iterable[Label], idle: int) -> tuple[int, ...]:
    """The code of each slot, clockwise from N, such that every code has one: a world then moves as its keys lie.

    Codes go where their label says, surest first; then where they were measured to move; idle and the rest where room
    is left.
    """
    known = {label.code: label for label in labels if 0 <= label.code < N_ACTIONS}
    moving = [known.get(code, Label(code)) for code in range(N_ACTIONS) if code != idle]
    placed: dict[str, int] = {}
    for label in sorted(moving, key=lambda label: (-_finite(label.confidence), -_length(label), label.name == "jump")):
        if (home := _HOMES.get(label.name)) and home not in placed:
            placed[home] = label.code
    for label in sorted(moving, key=lambda label: -_length(label)):
        if label.code not in placed.values() and _length(label) > 0:
            free = [slot for slot in SLOTS if slot not in placed]
            placed[min(free, key=lambda slot: _turn(label, slot))] = label.code
    spare = iter([slot for slot in _SPARE if slot not in placed])
    for code in range(N_ACTIONS):
        if code not in placed.values():
            placed[next(spare)] = code
    return tuple(placed[slot] for slot in SLOTS)


@dataclass(frozen=True)
class Press:
    """A play key going down, and when."""

    scancode: int
    time: float


class KeyMap:
    """Which action the keys ask for.

    A press is latched until it is taken, so that a tap shorter than a step still counts; of several the newest wins,
    and letting it go falls back to the one held before it.
    """

    def __init__(self) -> None:
        self.codes = tuple(range(N_ACTIONS))
        self.idle = 0
        self.names = dict(_NAMES)
        self._down: list[Press] = []
        self._tap: Press | None = None

    def learn(self, labels: Sequence[Label], idle: int, own: Sequence[int] | None = None) -> None:
        """Take a world's labels, or the person's own code for each slot."""
        self.idle = idle
        whole = own is not None and len(own) == len(SLOTS) and all(code in range(N_ACTIONS) for code in own)
        self.codes = tuple(own) if whole and own is not None else slot_codes(labels, idle)

    def press(self, scancode: int, now: float = 0.0) -> bool:
        """A key goes down; whether it is a play key."""
        if self.action(scancode) is None:
            return False
        self._tap = Press(scancode, now)
        self.release(scancode)
        self._down.append(self._tap)
        return True

    def release(self, scancode: int) -> None:
        """A key goes up; a latched tap stays."""
        self._down = [press for press in self._down if press.scancode != scancode]

    def release_all(self) -> None:
        """The window lost the keyboard."""
        self._down.clear()

    @property
    def tap(self) -> Press | None:
        """The newest press that was not taken yet."""
        return self._tap

    @property
    def held(self) -> Press | None:
        """The newest press that is still down."""
        return self._down[-1] if self._down else None

    def take(self) -> Press | None:
        """The latched tap, once."""
        tap, self._tap = self._tap, None
        return tap

    def action(self, scancode: int) -> int | None:
        """The code that a key asks for; None if it is no play key."""
        if scancode in DIGITS:
            return DIGITS[scancode]
        slot = self.slot(scancode)
        if slot is None:
            return None
        return self.idle if slot == WAIT else self.codes[SLOTS.index(slot)]

    def slot(self, scancode: int) -> str | None:
        """The slot (or "wait") that a key stands for; None for digits and others."""
        return POSITIONS.get(scancode) or MOUSE.get(scancode)

    def slot_of(self, action: int) -> str | None:
        """A slot that gives an action; None if the person's own map leaves it to the digits."""
        return SLOTS[self.codes.index(action)] if action in self.codes else None

    def guess_board(self, locales: Sequence[str]) -> None:
        """Begin with the letters that are usual for a language."""
        language = locales[0][:2].lower() if locales else ""
        for languages, letters in _BOARDS.values():
            if language in languages:
                self.names.update(letters)

    def saw(self, scancode: int, key: str) -> None:
        """Learn what is printed on a key from a press of it."""
        if len(key) == 1 and key.isprintable() and key != " ":
            self.names[scancode] = key.upper()

    def name(self, slot: str) -> str:
        """What is printed on the key of a slot."""
        return self.names[RING[slot]]


@dataclass(frozen=True)
class Command:
    """Something a key does besides playing. `keys` are by printed letter, `places` by scancode where letters move."""

    name: str
    keys: tuple[str, ...]
    does: str
    places: tuple[int, ...] = ()


COMMANDS = (
    Command("pause", ("p",), "pause, go on"),
    Command("back", (",", "["), "one step back (hold to go on)", (54, 47)),
    Command("forward", (".", "]"), "one step forward; at the end, wait one step", (55, 48)),
    Command("rewind", ("r",), "hold: rewind, ever faster; then play on from there"),
    Command("home", ("home", "ctrl+r"), "back to the first picture"),
    Command("bookmark", ("f2",), "bookmark this frame"),
    Command("recall", ("f4",), "to the last bookmark"),
    Command("undo", ("ctrl+z",), "undo a load, a jump or a new seed"),
    Command("redo", ("ctrl+shift+z", "ctrl+y"), "do it again"),
    Command("reseed", ("g",), "new random seed from here"),
    Command("futures", ("tab",), "hold: see all eight next frames"),
    Command("faster", ("=", "+"), "faster", (46, 87)),
    Command("slower", ("-",), "slower", (45, 86)),
    Command("flow", ("t",), "let time flow, or wait for you"),
    Command("screenshot", ("f8", "f12", "ctrl+s"), "save this frame as a PNG"),
    Command("gif", ("f9", "ctrl+g"), "save the last 8 seconds as a GIF"),
    Command("record", ("shift+f9",), "start or stop a long recording"),
    Command("help", ("f1",), "this page"),
    Command("statistics", ("f3",), "statistics"),
    Command("fullscreen", ("f11", "alt+return"), "fullscreen"),
    Command("open", ("ctrl+o",), "open a picture or a replay"),
    Command("paste", ("ctrl+v",), "paste a picture"),
    Command("copy", ("ctrl+c",), "copy this frame"),
    Command("menu", ("escape",), "menu, or one level back"),
    Command("quit", ("ctrl+q",), "quit (nothing is lost)"),
)


class Commands:
    """Finds the command of a key press, with the person's own keys in place of the usual ones."""

    def __init__(self, own: Mapping[str, Sequence[str]] | None = None) -> None:
        own = own or {}
        self._keys: dict[str, str] = {}
        self._places: dict[int, str] = {}
        self.keys = {command.name: tuple(own.get(command.name, command.keys)) for command in COMMANDS}
        # Esc always opens the menu: a way out that no setting can close
        self.keys["menu"] = ("escape", *(key for key in self.keys["menu"] if key != "escape"))
        for command in COMMANDS:
            self._keys |= {key.lower(): command.name for key in self.keys[command.name]}
            if command.name not in own:
                self._places |= dict.fromkeys(command.places, command.name)
        self._keys["escape"] = "menu"

    def find(self, scancode: int, key: str, mods: frozenset[str] = frozenset()) -> str | None:
        """The command of a key; None where it is a play key or nothing. `mods` are of ctrl, shift and alt."""
        plain = not mods & {"ctrl", "alt"}
        if plain and (scancode in POSITIONS or scancode in DIGITS):
            return None
        chord = "+".join([*(mod for mod in ("ctrl", "alt", "shift") if mod in mods), key])
        if chord in self._keys:
            return self._keys[chord]
        # where a character needs Shift depends on the board
        if plain and len(key) == 1 and not key.isalpha() and key in self._keys:
            return self._keys[key]
        return self._places.get(scancode) if plain else None


def describe(commands: Commands | None = None, keys: KeyMap | None = None) -> list[tuple[str, str]]:
    """The whole table as (keys, what they do), for the help page and `genie-play keys`."""
    commands, keys = commands or Commands(), keys or KeyMap()
    ring = " ".join(keys.name(slot) for slot in ("NW", "N", "NE", "W", "E", "SW", "S", "SE"))
    rows = [
        (ring, "the slots; also arrows, Space, number pad"),
        ("1 ... 8", "the raw codes 0 to 7"),
        ("5 on the number pad", "wait one step"),
    ]
    return rows + [(" or ".join(map(title, commands.keys[c.name])), c.does) for c in COMMANDS if commands.keys[c.name]]


def title(chord: str) -> str:
    """A chord as a person writes it."""
    if chord in ("+", "-"):
        return chord
    return "+".join(part.capitalize() if len(part) > 1 else part.upper() for part in chord.split("+"))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _length(label: Label) -> float:
    return math.hypot(_finite(label.dx), _finite(label.dy))


def _turn(label: Label, slot: str) -> float:
    """The angle between a displacement and a slot, 0 to pi. y points down on the screen."""
    angle = math.atan2(_finite(label.dx), -_finite(label.dy)) - SLOTS.index(slot) * math.pi / 4
    return abs((angle + math.pi) % (2 * math.pi) - math.pi)
