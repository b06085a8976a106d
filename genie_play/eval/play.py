"""Figures of play: held codes are keys, free play stays a world, long random play does not end.

What a code does is measured on standing starts (`probe.py`); the real game, held and measured the same way, stands
beside each figure, as what the measure itself can reach.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from genie_play.data.levels import KINDS
from genie_play.eval import measures
from genie_play.eval.probe import JUMP, TICKS, Probe, hold, hold_key, motion, probe, standing
from genie_play.eval.subject import SEED, Codes, Pictures, Subject, decode, encode, grid
from genie_play.eval.table import Row
from genie_play.types import N_ACTIONS

HOLD = 40  # ticks of a hold that must not leave the level
KEPT = 0.35  # of a start's edge energy, in the whole picture and below its middle: less is an empty sky or solid ground
ALIKE = 2.0  # grey levels: futures that differ by no more are one and the same
LOOK_EVERY = 50  # steps of long play between looks at its futures
KEPT_FRAMES = 12  # of a long play, besides its first
COUNT_EVERY = 10  # steps of long play between frames whose kinds of land are counted
RARE = 0.01  # share of real play's pictures from which a kind of land counts


@dataclass(frozen=True)
class Free:
    """Long plays side by side."""

    energy: NDArray[np.float64]  # (P, T) edge energy of each frame
    alike: NDArray[np.int64]  # (P,) the first step at which no two held codes differed; T if never
    kept: Pictures  # (P, n, H, W, 3) every so many frames
    tokens: Codes  # (P, n, N) every COUNT_EVERY frames

    def ends(self, real: NDArray[np.float64]) -> NDArray[np.int64]:
        """The step (P,) at which each ended, measured against the edge energy `real` (P,); T if it did not."""
        return np.minimum(measures.ended(self.energy, real), self.alike)


def held(subject: Subject, draw: int = 0) -> tuple[list[Row], Probe]:
    """What held codes do from standing starts, on all unseen looks and on those of paper."""
    game = standing(subject.unseen, 4 + 100 * draw, subject.size.prompts)
    found = probe(subject, game.render(), draw)
    paper = standing(subject.paper, 4 + 100 * draw, max(subject.size.prompts // 2, 8))
    drawn = probe(subject, paper.render(), draw)
    if draw == 0:
        for name, one in (("held", found), ("held-paper", drawn)):
            starts, lasts = one.frames[0][:8, 0], [frames[:8, 3] for frames in one.frames]
            subject.pictures[name] = grid([np.stack(column) for column in zip(starts, *lasts, strict=True)])
    named = {label.name for label in found.labels if label.confidence >= 0.8}
    wanted = {"left", "right"} <= named and bool({"up", "jump"} & named)
    rows = [
        _sure("codes whose displacement agrees in 80% of prompts", found),
        _sure("the same on looks of paper", drawn),
        Row("play", "held codes agree, mean over codes", found.agreed, "%", f"{len(found.moved)} prompts"),
        Row("play", "held codes agree, looks of paper", drawn.agreed, "%", f"{len(drawn.moved)} prompts"),
        Row("play", "left, right and up among them", float(wanted)),
    ]
    _, real = measures.comes_down(motion(hold_key(game, 3, JUMP))[..., 1], game.tile / 2)
    value = 100 * float(np.mean(list(found.lands.values()))) if found.lands else 0.0
    each = ", ".join(f"{code} {100 * share:.0f}%" for code, share in found.lands.items()) or "no code leads upward"
    beside = f"{each}; the game itself {100 * real.mean():.0f}%"
    rows.append(Row("play", f"held jumps that come down within {JUMP} ticks", value, "%", beside))
    return rows, found


def long_holds(subject: Subject, draw: int = 0) -> list[Row]:
    """Every code held for HOLD ticks: is there still a scene, and ground, in the last eight?"""
    game = standing(subject.unseen, 8 + 100 * draw, subject.size.long_holds)
    start = game.render()
    held = [hold(subject, start, code, HOLD, SEED + draw) for code in _bar(range(N_ACTIONS), "long holds")]
    shares = [100 * float(keeps_level(frames).mean()) for frames in held]
    real = [100 * float(keeps_level(hold_key(game, key, HOLD)).mean()) for key in range(N_ACTIONS)]
    if draw == 0:
        subject.pictures["long-holds"] = grid([frames[0, :: HOLD // 10] for frames in held])
    beside = ", ".join(f"{code} {share:.0f}%" for code, share in enumerate(shares))
    beside += f"; the game itself {min(real):.0f}%; {len(start)} prompts"
    return [Row("play", f"holds of {HOLD} ticks that keep the level, worst code", min(shares), "%", beside)]


def keeps_level(frames: Pictures) -> NDArray[np.bool_]:
    """Of holds (P, T, H, W, 3), whether the last eight frames still have KEPT of the start's edges, and of its edges
    below the middle, where the ground is: (P,)."""
    lower = frames[:, :, frames.shape[2] // 2 :]
    kept = np.ones(len(frames), bool)
    for part in (frames, lower):
        energy = measures.edge_energy(part)
        kept &= energy[:, -8:].mean(1) >= KEPT * energy[:, 0]
    return kept


def free(subject: Subject, draw: int = 0) -> list[Row]:
    """Random play: edge energy against real play's, and whether an avatar is there."""
    count, length = subject.size.free, subject.size.free_frames
    sight = subject.sight
    game, players = subject.unseen.games(6 + 100 * draw, count)
    start = game.render()
    batch = subject.batch(count)
    frames, real = [batch.begin(start)], [start]
    for told in _bar(random_codes(count, length, SEED + draw), "free play"):
        frames.append(batch.step(told, SEED + draw))
        game.step(players.keys(game))
        real.append(game.render())
    made, true = np.stack(frames, 1), np.stack(real, 1)
    second = slice(length // 2, None)
    whole, late = (
        float(measures.edge_energy(made[:, part]).mean() / measures.edge_energy(true[:, part]).mean())
        for part in (slice(None), second)
    )
    seen = np.stack([sight.detector.present(clip) for clip in made])
    beside = (
        f"second half {100 * seen[:, second].mean():.0f}; real frames {sight.real:.0f}, scenery {sight.scenery:.0f}"
    )
    if draw == 0:
        subject.pictures["free"] = grid([clip[:: max(length // 12, 1)] for clip in made[:10]])
    many = f"{length} frames of {count} prompts, real 1"
    return [
        Row("play", "edge energy, against real", whole, "", many),
        Row("play", "edge energy of the second half, against real", late, "", many),
        Row("play", "avatar present", 100 * float(seen.mean()), "%", beside),
    ]


def walks(subject: Subject) -> list[Row]:
    """Long random play: how many prompts last, when the others end, and what their land is made of."""
    count, length = subject.size.walks, subject.size.walk
    game, players = subject.unseen.games(7, count)
    start = game.render()
    every = max(length // KEPT_FRAMES, 1)
    real, tokens = [measures.edge_energy(start)], [encode(subject.genie, start[:, None])[:, 0]]
    recent = deque([start], subject.genie.config.tokenizer.window)
    true, rebuilt = [start], [decode(subject.genie, tokens[0][:, None], start)[:, -1]]
    for t in range(1, length + 1):
        game.step(players.keys(game))
        recent.append(game.render())
        real.append(measures.edge_energy(recent[-1]))
        if t % COUNT_EVERY == 0:
            tokens.append(encode(subject.genie, np.stack(recent, 1))[:, -1])
        if t % every == 0:
            true.append(recent[-1])
            rebuilt.append(decode(subject.genie, encode(subject.genie, np.stack(recent, 1)), start)[:, -1])
    truth = np.stack(real, 1)
    found = play_on(subject, start, random_codes(count, length, SEED), every)
    usual = truth.mean(1)
    ends, real_ends = found.ends(usual), measures.ended(truth, usual)
    over = np.sort(ends[ends <= length])
    when = f"ended at {' '.join(str(t) for t in over)}" if len(over) else "none ended"
    alike = int((found.alike <= length).sum())
    beside = (
        f"{length} steps of {count} prompts: {when}; codes alike in {alike}; of real play {(real_ends <= length).sum()}"
    )
    subject.pictures["walks"] = grid(list(found.kept[:10]))
    return [
        Row("play", "random play that does not end", 100 * float((ends > length).mean()), "%", beside),
        _land(subject, found.tokens, np.stack(tokens, 1)),
        _colours(found.kept, np.stack(true, 1), np.stack(rebuilt, 1)),
    ]


def _land(subject: Subject, made: Codes, real: Codes) -> Row:
    """What the second half of long play (P, n, N) is made of, against real play from the same starts."""
    half = real.shape[1] // 2
    parts = real[:, :half], real[:, half:], made[:, half:]
    first, second, played = (subject.land[part].mean((0, 1, 2)) for part in parts)
    worst, times = measures.off(played, second, RARE)
    usual, _ = measures.off(first, second, RARE)
    each = ", ".join(f"{KINDS[k]} {times[k]:.2f}" for k in np.flatnonzero(second >= RARE))
    beside = f"times as much as in real play: {each}; real play's first half against its second: {usual:.2f}"
    return Row("play", "land of the second half, what is farthest off", worst, "times", beside)


def _colours(made: Pictures, real: Pictures, rebuilt: Pictures) -> Row:
    """Whether looks stay, in the second half of long play (P, n, H, W, 3), against real play from the same starts."""
    half = real.shape[1] // 2

    def strange(pictures: Pictures, other: int = 0) -> float:
        each = [measures.strange(p[half:], k) for p, k in zip(pictures, np.roll(real, other, 0), strict=True)]
        return 100 * float(np.mean(each))

    beside = f"real play through the tokenizer {strange(rebuilt):.1f}, play of another start {strange(real, 1):.1f}"
    return Row("play", "pixels of the second half in colours that real play lacks", strange(made), "%", beside)


def play_on(subject: Subject, start: Pictures, told: torch.Tensor, every: int) -> Free:
    """Play codes (T, P) from pictures (P, H, W, 3); every LOOK_EVERY steps all codes are held for TICKS."""
    batch, length = subject.batch(len(start)), len(told)
    now = batch.begin(start)
    energy, kept, tokens = [measures.edge_energy(now)], [now], [batch.tokens]
    alike = np.full(len(start), length + 1)
    for t, codes in enumerate(_bar(told, "long play"), 1):
        now = batch.step(codes, SEED)
        energy.append(measures.edge_energy(now))
        if t % every == 0:
            kept.append(now)
        if t % COUNT_EVERY == 0:
            tokens.append(batch.tokens)
        if t % LOOK_EVERY == 0:
            futures = np.stack([batch.peek(code, SEED, TICKS) for code in range(N_ACTIONS)])
            same = measures.apart(futures) <= ALIKE
            alike = np.where(same & (alike > length), t, alike)
    return Free(np.stack(energy, 1), alike, np.stack(kept, 1), torch.stack(tokens, 1).numpy())


def random_codes(count: int, length: int, seed: int, held: int = 3) -> torch.Tensor:
    """Codes (length, count), each held for a few ticks."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, N_ACTIONS, (-(-length // held), count), generator=generator)
    return codes.repeat_interleave(held, 0)[:length]


def _sure(name: str, found: Probe) -> Row:
    sure = sum(label.confidence >= 0.8 for label in found.labels)
    beside = ", ".join(f"{label.code} {label.name} {100 * label.confidence:.0f}%" for label in found.labels)
    return Row("play", name, sure, "of 8", beside)


def _bar(steps: torch.Tensor | range, what: str) -> tqdm:
    """A progress bar on a terminal, nothing elsewhere."""
    return tqdm(steps, desc=what, leave=False, disable=not sys.stderr.isatty())
