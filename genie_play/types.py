"""The words every floor shares: frames, prompts, histories, the Engine protocol, and the error tree.

Knows NumPy and nothing else of the project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (H, W, 3)
Tokens = NDArray[np.uint16]  # (N,); (K * N,) for the K pictures of a prompt

N_ACTIONS = 8
LABEL_NAMES = ("idle", "left", "right", "up", "down", "jump", "jump-left", "jump-right", "other")


class GenieError(Exception):
    """A person's mistake or a missing thing: shown as one line that says what to do; exit code 2."""


class CheckpointError(GenieError):
    """A checkpoint that is missing, cut short, of another version, or of another shape (named)."""


class ReplayError(GenieError):
    """A replay that cannot be read or belongs to another checkpoint."""


class SourceError(GenieError):
    """A picture, video or folder that cannot be read."""


class BackendError(GenieError):
    """A device or kernel backend asked for by name that this machine does not have."""


@dataclass(frozen=True)
class Label:
    """What one latent action was measured to do. Displacements are in pixels a step, x right and y down."""

    code: int
    name: str = "other"  # one of LABEL_NAMES
    dx: float = 0.0
    dy: float = 0.0
    confidence: float = 0.0  # share of prompts in which the direction agreed, 0 to 1


@dataclass(frozen=True)
class Frame:
    """One picture of a play-through.

    `index` counts steps since the prompt (0 is the prompt's last picture), `action` led to it (None for the
    prompt), `tokens` are what the engine would need to show it again: (N,) uint16, or (K * N,) for frame 0,
    those of all the prompt's pictures; some worlds also need the picture that was given last. Arrays are fresh: the
    receiver may keep them.
    """

    index: int
    action: int | None
    pixels: Pixels
    tokens: Tokens


@dataclass(frozen=True)
class Prompt:
    """Pictures that start a world, at the world's size, and where they came from.

    `pictures` is (K, H, W, 3) uint8, oldest first. If `tokens` (K * N,) are given an engine takes them as they
    are and does not encode the pictures (this is how a replay stays the same on another machine): they then say at
    most how things look.
    """

    pictures: NDArray[np.uint8]
    source: str = ""
    tokens: Tokens | None = None


@dataclass(frozen=True)
class Move:
    """A step (an action and the tokens it led to) or an edit (a painted picture and the tokens it became)."""

    action: int | None  # None: an edit
    tokens: Tokens
    pixels: Pixels | None = None  # edits only


@dataclass(frozen=True)
class History:
    """All there is to a play-through; everything else is cache. `seed` is that of the steps still to come."""

    prompt: Prompt
    seed: int
    moves: tuple[Move, ...] = ()

    @property
    def index(self) -> int:
        """Index of the last frame: how many steps were taken (edits replace a frame, they add none)."""
        return sum(move.action is not None for move in self.moves)


@dataclass(frozen=True)
class EngineInfo:
    """What a client must know of an engine. Plain data, so that it can cross a pipe."""

    name: str
    size: tuple[int, int]  # height, width in pixels
    rate: float  # steps a second of the world's own time
    labels: tuple[Label, ...]  # one per action, in order of code
    idle: int  # the code that does least
    window: int  # frames that a step can look back on, itself included
    n_tokens: int  # tokens a frame
    path: dict[str, Any]  # how tokens are computed (config.PathConfig as a dict)
    device: str
    checkpoint: dict[str, str] = field(default_factory=dict)  # name, sha256
    anchor: bool = False  # the first frame is among those that a step looks back on, however long ago it was


@runtime_checkable
class Engine(Protocol):
    """Turns actions into pictures. Lives on one thread.

    `reset` (or `restore`) comes before anything else; a call out of order is a ValueError, and so is an action
    outside [0, 8). Results are fresh arrays.
    """

    @property
    def info(self) -> EngineInfo:
        """What a client must know; an attribute will do."""
        ...

    def reset(self, prompt: Prompt, seed: int) -> Frame:
        """Start a play-through: frame 0 is the prompt's last picture as the engine sees it."""
        ...

    def step(self, action: int, tokens: Tokens | None = None) -> Frame:
        """Generate the next frame; given tokens are taken, not sampled."""
        ...

    def settle(self) -> None:
        """Do the work that needs no key (the commit); `step` does it if nobody did. Twice is fine."""
        ...

    def restore(self, history: History) -> Frame:
        """Go to the end of a history, on any branch; cheap where a cache is near."""
        ...

    def futures(self, actions: Sequence[int]) -> list[Frame]:
        """The frame that each action would give; changes nothing."""
        ...

    def edit(self, pixels: Pixels) -> Frame:
        """Replace the current frame by a painted one; its index stays."""
        ...

    def see(self, pixels: Pixels) -> Pixels:
        """What the engine makes of a picture; changes nothing."""
        ...

    def close(self) -> None:
        """Free what is held. Twice is fine."""
        ...


def check_action(action: int) -> int:
    """Return `action` as an int; ValueError outside [0, 8)."""
    if not 0 <= int(action) < N_ACTIONS:
        raise ValueError(f"action {action} is outside 0..{N_ACTIONS - 1}")
    return int(action)
