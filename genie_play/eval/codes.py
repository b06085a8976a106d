"""Figures of the action model: what codes explain, and whether the same key gets the same code from the same start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from genie_play.data.game import Platformer
from genie_play.data.platformer import Truth
from genie_play.eval import measures
from genie_play.eval.subject import KEYS, Codes, Pictures, Subject, infer, to_float
from genie_play.eval.table import Row
from genie_play.train.stages import psnr
from genie_play.types import N_ACTIONS

FREE_KEYS = (0, 1, 2, 3, 4, 5, 6)  # those that do something on open ground; up is a jump there
PAST = 6  # real frames before a branch: a code may depend on where the motion comes from
_SIDE, _LIFT = np.array([0, -1, 1, 0, -1, 1, 0]), np.array([0, 0, 0, -1, -1, -1, 0])

Coder = Callable[[Pictures], Codes]  # clips (B, T, H, W, 3) to the code (B,) of their last transition


@dataclass(frozen=True)
class Branches:
    """The same starts under every key, a tick long; starts where a key is barred are left out."""

    past: Pictures  # (P, PAST + 1, H, W, 3) the frames up to the start
    after: Pictures  # (P, K, H, W, 3)
    moves: tuple[tuple[int, ...], ...]  # what each key does, for telling which keys should differ

    def codes(self, coder: Coder, chunk: int = 16) -> Codes:
        """The code (P, K) of every branch, the frames before it given."""
        count, keys = self.after.shape[:2]
        found = []
        for i in range(0, count, chunk):
            past, after = self.past[i : i + chunk], self.after[i : i + chunk]
            clips = np.concatenate((past[:, None].repeat(keys, 1), after[:, :, None]), 2)
            found.append(coder(clips.reshape(-1, *clips.shape[2:])).reshape(-1, keys))
        return np.concatenate(found) if found else np.zeros((0, keys), np.int64)


def branches(subject: Subject, grounded: bool, draw: int = 0) -> Branches:
    """Games played for PAST ticks and then branched: from the ground, or in the air."""
    game, players = subject.unseen.games(2 + 100 * draw, subject.size.starts)
    start, keys = game.take(np.arange(len(game))), []
    for _ in range(PAST):
        keys.append(players.keys(game))
        game.step(keys[-1])
    pick = np.flatnonzero(game.grounded == grounded)
    half = game.tile // 2
    _, dx, dy = _tick(game.take(pick), render=False)
    free = (dx == _SIDE * half).all(1)
    if grounded:
        free &= (dy == _LIFT * half).all(1)
    pick = pick[free]
    again = start.take(pick)
    past = [again.render()] if len(pick) else []
    for told in keys:
        again.step(told[pick])
        if len(pick):
            past.append(again.render())
    height, width = game.size
    if not len(pick):
        none = np.zeros((0, PAST + 1, height, width, 3), np.uint8)
        return Branches(none, none[:, :0].repeat(len(FREE_KEYS), 1), ())
    # in the air the fall owns dy whatever the key is
    moves = [(int(x), int(y)) if grounded else (int(x),) for x, y in zip(_SIDE, _LIFT, strict=True)]
    return Branches(np.stack(past, 1), _tick(again)[0], tuple(moves))


def agreement(codes: Codes, moves: tuple[tuple[int, ...], ...]) -> tuple[float, str]:
    """Share of branches (P, K), in percent, whose code is the majority code of their key, and those codes.

    A key whose majority code is also that of a key that moves otherwise counts for nothing: one code for everything
    would agree always.
    """
    if not len(codes):
        return 0.0, "no free start"
    majority = [int(np.bincount(column, minlength=N_ACTIONS).argmax()) for column in codes.T]
    share = (codes == np.array(majority)).mean(0)
    told = [
        all(majority[j] != majority[k] or moves[j] == moves[k] for j in range(len(majority)))
        for k in range(len(majority))
    ]
    each = [
        f"{KEYS[key]} {code}{'' if own else ' shared'} ({100 * part:.0f})"
        for key, code, own, part in zip(FREE_KEYS, majority, told, share, strict=True)
    ]
    return float(100 * (share * np.array(told)).mean()), f"{len(codes)} starts: {', '.join(each)}"


def rows(subject: Subject, draw: int = 0) -> list[Row]:
    """Codes in use, what they explain, what they know of key and motion, same-start branches; baselines beside."""
    genie = subject.genie
    truth = subject.clips(subject.unseen, 1, draw, subject.size.clips, subject.size.frames)
    frames = to_float(truth.frames)
    codes = infer(genie, truth.frames)
    share = np.bincount(codes.ravel(), minlength=N_ACTIONS) / codes.size
    alive = int((share > 0.02).sum())
    shares = " ".join(f"{100 * s:.0f}" for s in share)
    found = [Row("actions", "codes above 2% of use", alive, "of 8", f"shares {shares} %")]
    found.append(_explained(subject, frames, codes))
    found += _known(codes, truth)
    plain = plain_codes(truth)
    for name, grounded in (("grounded", True), ("airborne", False)):
        branch = branches(subject, grounded, draw)
        value, beside = agreement(branch.codes(lambda clips: infer(genie, clips)[:, -1]), branch.moves)
        baseline, _ = agreement(branch.codes(plain), branch.moves)
        beside += f"; k-means on displacement {baseline:.0f}, constant code 0"
        found.append(Row("actions", f"same start, {name}: the key's code", value, "%", beside))
    return found


def plain_codes(truth: Truth) -> Coder:
    """The baseline: k-means centres of the displacements that are seen in clips, no network at all."""
    before, after = (x.reshape(-1, *x.shape[2:]) for x in (truth.frames[:, :-1], truth.frames[:, 1:]))
    centres = measures.k_means(measures.displacement(before, after), N_ACTIONS)

    def code(clips: Pictures) -> Codes:
        seen = measures.displacement(np.ascontiguousarray(clips[:, -2]), np.ascontiguousarray(clips[:, -1]))
        nearest: Codes = ((seen[:, None] - centres) ** 2).sum(-1).argmin(1)
        return nearest

    return code


def _explained(subject: Subject, frames: torch.Tensor, codes: Codes) -> Row:
    """How much better the decoder paints with a clip's own codes than with another clip's."""
    told, paint = torch.from_numpy(codes), subject.genie.actions.paint
    usual = torch.full_like(told, int(np.bincount(codes.ravel()).argmax()))
    seen, shuffled, constant = (paint(frames, each) for each in (told, told.roll(1, 0), usual))
    right, wrong, same, copy = (
        float(psnr((picture - seen.target).square().mean()))
        for picture in (seen.predicted, shuffled.predicted, constant.predicted, seen.source)
    )
    beside = f"{right:.1f} against shuffled {wrong:.1f}, constant {same:.1f}, copy {copy:.1f}"
    return Row("actions", "reconstruction minus shuffled codes", right - wrong, "dB", beside)


def _known(codes: Codes, truth: Truth) -> list[Row]:
    """What a code says of the true key, and of each direction of motion, on the ground and in the air."""
    ground = truth.grounded[:, :-1]

    def split(other: NDArray[np.int64]) -> tuple[float, str]:
        parts = {"grounded": ground, "airborne": ~ground}
        each = ", ".join(f"{name} {measures.mutual_information(codes[w], other[w]):.2f}" for name, w in parts.items())
        return measures.mutual_information(codes, other), each

    found = []
    for name, other in (("the true key", truth.actions), ("dx", truth.dx), ("dy", truth.dy)):
        value, beside = split(other)
        found.append(Row("actions", f"NMI with {name}", value, "", beside))
    return found


def _tick(game: Platformer, render: bool = True) -> tuple[Pictures, Codes, Codes]:
    """One tick of each free key from the same starts: after (P, K, H, W, 3), dx and dy (P, K)."""
    count, keys = len(game), len(FREE_KEYS)
    many = game.take(np.repeat(np.arange(count), keys))
    many.step(np.tile(np.array(FREE_KEYS), count))
    after = many.render() if render else np.zeros((count * keys, 0), np.uint8)
    return after.reshape(count, keys, *after.shape[1:]), many.dx.reshape(count, keys), many.dy.reshape(count, keys)
