"""What each code does: the motion of the avatar against the background, from standing starts, and the labels it earns.

A code is held from many prompts in which the game itself would let every key do its work. Its name comes from the first
three ticks; a code that rises is a jump if it comes down again while it is held, and plain `up` if it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from genie_play.data.clips import PlatformerSource
from genie_play.data.game import Platformer
from genie_play.eval import measures
from genie_play.eval.subject import SEED, Pictures, Subject, grid
from genie_play.types import N_ACTIONS, Label

TICKS = 3  # of a hold that names a code
JUMP = 12  # ticks in which a jump should be over
_SIGNS = {
    "left": (-1, 0), "right": (1, 0), "up": (0, -1), "jump": (0, -1), "down": (0, 1), "jump-left": (-1, -1),
    "jump-right": (1, -1),
}  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """What holding each code did in P prompts."""

    labels: tuple[Label, ...]
    idle: int
    moved: NDArray[np.float64]  # (P, A, 2) pixels a tick, right and down, over TICKS
    lands: dict[int, float]  # of codes that lead upward: share of prompts in which they rose and came down
    changed: NDArray[np.float64]  # (P, A) grey levels between the start and the frames of a hold, the mean over TICKS
    frames: tuple[Pictures, ...]  # by code (P, TICKS + 1, H, W, 3); JUMP + 1 of codes that lead upward

    @property
    def agreed(self) -> float:
        """Mean confidence over all codes, in percent."""
        return 100 * float(np.mean([label.confidence for label in self.labels]))


def standing(source: PlatformerSource, what: int, count: int) -> Platformer:
    """Up to `count` games from standing starts: on the ground, level and free for three ticks to both sides, and every
    jump back at about its height within JUMP ticks while its key is held."""
    game, _ = source.games(what, 12 * count + 32)
    everyone = np.arange(len(game))
    half = game.tile // 2
    free = np.ones(len(game), bool)
    for key, side in ((1, -1), (2, 1), (3, 0), (4, -1), (5, 1)):
        branch = game.take(everyone)
        dx, dy = [], []
        for _ in range(JUMP if key >= 3 else TICKS):
            branch.step(np.full(len(game), key))
            dx.append(branch.dx)
            dy.append(branch.dy)
        free &= (np.stack(dx[:TICKS]) == side * half).all(0)
        if key < 3:
            free &= (np.stack(dy) == 0).all(0)
        else:
            rose, back = measures.comes_down(np.stack(dy, 1).astype(np.float64), half)
            free &= rose & back & (np.stack(dy[:4]) == -half).all(0)
    return game.take(np.flatnonzero(free)[:count])


def hold(subject: Subject, start: Pictures, code: int, ticks: int, seed: int) -> Pictures:
    """A code held from pictures (P, H, W, 3): (P, ticks + 1, H, W, 3), the start as the world shows it first."""
    batch = subject.batch(len(start))
    frames = [batch.begin(start)]
    frames += [batch.step(code, seed) for _ in range(ticks)]
    return np.stack(frames, 1)


def hold_key(game: Platformer, key: int, ticks: int) -> Pictures:
    """The same of the game itself and a true key."""
    branch = game.take(np.arange(len(game)))
    frames = [branch.render()]
    for _ in range(ticks):
        branch.step(np.full(len(game), key))
        frames.append(branch.render())
    return np.stack(frames, 1)


def motion(frames: Pictures) -> NDArray[np.float64]:
    """Displacements (P, T, 2) of the avatar against the background, tick by tick, in (P, T + 1, H, W, 3)."""
    pairs = [
        measures.displacement(np.ascontiguousarray(frames[:, t]), np.ascontiguousarray(frames[:, t + 1]))
        for t in range(frames.shape[1] - 1)
    ]
    return np.stack(pairs, 1)


def probe(subject: Subject, start: Pictures, draw: int = 0) -> Probe:
    """Hold every code from standing starts (P, H, W, 3) and name it."""
    tile = 8 * subject.picture_size[0] / 64
    moved, changed = np.zeros((len(start), N_ACTIONS, 2)), np.zeros((len(start), N_ACTIONS))
    shown: list[Pictures] = []
    lands: dict[int, float] = {}
    for code in range(N_ACTIONS):
        frames = hold(subject, start, code, TICKS, SEED + draw)
        moved[:, code] = motion(frames).mean(1)
        changed[:, code] = np.abs(frames[:, 1:].astype(np.float32) - frames[:, :1]).mean((1, 2, 3, 4))
        if np.median(moved[:, code, 1]) <= -tile / 4:
            frames = hold(subject, start, code, JUMP, SEED + draw)
            _, back = measures.comes_down(motion(frames)[..., 1], tile / 2)
            lands[code] = float(back.mean())
        shown.append(frames)
    labels = name_codes(moved, lands, changed)
    return Probe(labels, least(labels), moved, lands, changed, tuple(shown))


def together(probes: Sequence[Probe]) -> Probe:
    """Several probes as one of all their prompts; the frames are those of the first."""
    moved, changed = (np.concatenate([getattr(one, name) for one in probes]) for name in ("moved", "changed"))
    codes = sorted({code for one in probes for code in one.lands})
    # a draw in which a code did not lead upward counts as one in which it never came down
    share = {code: sum(len(one.moved) * one.lands.get(code, 0.0) for one in probes) / len(moved) for code in codes}
    labels = name_codes(moved, share, changed)
    return Probe(labels, least(labels), moved, share, changed, probes[0].frames)


def least(labels: tuple[Label, ...]) -> int:
    """The code that does least: the one called idle, or the slowest."""
    return min(labels, key=lambda label: (label.name != "idle", abs(label.dx) + abs(label.dy))).code


def name_codes(
    moved: NDArray[np.float64], lands: dict[int, float] | None = None, changed: NDArray[np.float64] | None = None
) -> tuple[Label, ...]:
    """Name each code by its displacement (P, A, 2), less the mean over codes in the same prompt.

    Confidence is the share of prompts in which the direction is that of the name; of codes that stand still, the share
    in which nothing moves. Of these the one that changes least of the picture is idle (ducking moves nothing
    either), or the stillest where that is not known, and the others are `other`. `lands`, `changed`: see Probe.
    """
    lands = lands or {}
    relative = moved - moved.mean(1, keepdims=True)
    mean, own = np.median(relative, 0), np.median(moved, 0)
    still = (np.abs(moved).sum(-1) < 1).mean(0)
    calm = still if changed is None else np.where(still >= 0.5, 1.0 - np.median(changed, 0) / 256.0, -1.0)
    idle = int(calm.argmax()) if still.max() >= 0.5 else -1
    labels = []
    for code in range(moved.shape[1]):
        dx, dy = (float(v) for v in own[code])
        x, y = mean[code]
        across, along = abs(x) >= 1.0, abs(y) >= 1.0
        if still[code] >= 0.5:
            name, confidence = "idle" if code == idle else "other", float(still[code])
        elif not (across or along):
            name, confidence = "other", 0.0
        else:
            agrees = np.ones(len(moved), bool)
            if across:
                agrees &= np.sign(relative[:, code, 0]) == np.sign(x)
            if along:
                agrees &= np.sign(relative[:, code, 1]) == np.sign(y)
            name, confidence = _name(x if across else 0, y if along else 0, lands.get(code, 0.0)), float(agrees.mean())
        labels.append(Label(code, name, dx, dy, confidence))
    return tuple(labels)


def agrees(labels: tuple[Label, ...], moved: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each code moved (P, A, 2) as its label says, less the mean over codes: (P, A)."""
    relative = moved - moved.mean(1, keepdims=True)
    right = np.zeros(moved.shape[:2], bool)
    for label in labels:
        if label.name not in _SIGNS:
            right[:, label.code] = (np.abs(moved[:, label.code]).sum(-1) < 1) & (label.confidence > 0)
            continue
        right[:, label.code] = True
        for axis, sign in enumerate(_SIGNS[label.name]):
            if sign:
                right[:, label.code] &= np.sign(relative[:, label.code, axis]) == sign
    return right


def sheet(found: Probe, prompts: int = 3, scale: int = 2) -> Pictures:
    """A picture of the probe: a row a code, its label, then its hold in some of the prompts.

    Every tick of TICKS; of codes that lead upward every third tick of JUMP.
    """
    prompts = min(prompts, len(found.moved))
    rows = []
    for label, frames in zip(found.labels, found.frames, strict=True):
        every = 3 if frames.shape[1] > JUMP else 1
        strip = grid([np.concatenate([frames[p, ::every] for p in range(prompts)])], scale)
        words = [f"{label.code} {label.name}", f"{label.dx:+.1f} {label.dy:+.1f} px", f"agrees {label.confidence:.0%}"]
        if label.code in found.lands:
            words.append(f"lands {found.lands[label.code]:.0%}")
        plate = Image.new("RGB", (112, strip.shape[0]), "white")
        ImageDraw.Draw(plate).multiline_text((6, 6), "\n".join(words), fill="black", spacing=6)
        rows.append(np.concatenate((np.asarray(plate), strip), 1))
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 2), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    )


def _name(x: float, y: float, lands: float) -> str:
    side = "right" if x > 0 else "left"
    if y < 0:
        return f"jump-{side}" if x else "jump" if lands >= 0.5 else "up"
    return side if x else "down"
