"""Who plays the platformer while it is filmed: a script with a goal, sticky random keys, and idlers.

Pure functions of a seed and of what the game shows. Half the clips are jumpy (holds of 1 to 3 ticks, and directions
flip 15% of the time), as long holds make the next key predictable and starve the action signal.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genie_play.data.levels import Seeds, uniforms

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

SCRIPT, RANDOM, IDLER = 0.5, 0.3, 0.2  # shares of the clips
FLIP = 0.15  # directions flipped a tick in jumpy clips
_MIRROR = np.array([0, 2, 1, 3, 5, 4, 6, 7])
# chances of the keys none, ahead, back, jump, jump ahead, jump back, down, up when nothing calls for one
_ROAM = np.cumsum([0.08, 0.40, 0.10, 0.08, 0.08, 0.04, 0.12, 0.10])
_ANY = np.cumsum([0.125] * 8)
_IDLE = np.cumsum([0.42, 0.10, 0.10, 0.08, 0.05, 0.05, 0.12, 0.08])


class Seen(Protocol):
    """What a player sees of its game."""

    def blocked(self, side: Ints, ahead: int = 1) -> Flags: ...

    def gap(self, side: Ints) -> Flags: ...

    def ladder(self) -> Flags: ...


class Players:
    """One player a seed; `keys` answers with the true keys of the next tick, (B,)."""

    def __init__(self, seeds: Seeds) -> None:
        self._seeds, self._tick = seeds, 0
        traits = uniforms(seeds, 70, range(3))
        self.script = traits[:, 0] < SCRIPT
        self.idler = traits[:, 0] >= SCRIPT + RANDOM
        self.jumpy = traits[:, 1] < 0.5
        self._ahead = np.where(traits[:, 2] < 0.5, -1, 1)
        self._hold = np.zeros(len(seeds), np.int64)
        self._key = np.zeros(len(seeds), np.int64)

    def keys(self, game: Seen) -> Ints:
        """Choose the keys of the next tick."""
        chance = uniforms(self._seeds, 71, self._tick * 8 + np.arange(8))
        self._tick += 1
        wall, gap, ladder = game.blocked(self._ahead), game.gap(self._ahead), game.ladder()
        calls = self.script & (wall & (chance[:, 0] < 0.85) | ladder & (chance[:, 0] < 0.3))
        choose = (self._hold <= 0) | calls
        # a goal is changed now and then, and where the way is barred
        turn = choose & (chance[:, 1] < np.where(wall & self.script, 0.12, np.where(self.script, 0.04, 0.4)))
        self._ahead = np.where(turn, -self._ahead, self._ahead)

        roam = np.searchsorted(_ROAM, chance[:, 2], side="right")
        any_ = np.searchsorted(_ANY, chance[:, 2], side="right")
        idle = np.searchsorted(_IDLE, chance[:, 2], side="right")
        key = np.where(self.script, roam, np.where(self.idler, idle, any_)).clip(0, 7)
        # keys were drawn for a player who goes left
        key = np.where(self._ahead > 0, _MIRROR[key], key)
        leap = np.where(self._ahead > 0, 5, 4)
        key = np.where(self.script & (wall | gap & (chance[:, 3] < 0.35)), leap, key)
        key = np.where(self.script & ladder & (chance[:, 4] < 0.6), np.where(chance[:, 5] < 0.75, 7, 6), key)
        hold = np.where(self.jumpy, 1 + chance[:, 6] * 3, 4 + chance[:, 6] * 9).astype(np.int64)
        self._key = np.where(choose, key, self._key)
        self._hold = np.where(choose, hold, self._hold) - 1
        flip = self.jumpy & (chance[:, 7] < FLIP)
        return np.where(flip, _MIRROR[self._key], self._key)
