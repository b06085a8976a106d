"""What is measured, and the means to do it: a world in play with many prompts at once, and games it has not seen.

Every measure draws its clips, prompts and noise from a number of its own, so that the same figure comes out again; a
measure repeated over draws 0, 1, 2, ... sees other clips each time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genie_play import ops
from genie_play.config import PathConfig
from genie_play.data.clips import CALM, PLATFORMERS, PlatformerSource
from genie_play.data.platformer import Truth, with_truth
from genie_play.engine import cpu
from genie_play.engine.engine import ARITHMETIC
from genie_play.engine.sampler import Sampler
from genie_play.engine.state import Ring
from genie_play.eval import measures
from genie_play.nn.genie import Genie
from genie_play.nn.look import Look

Pictures = NDArray[np.uint8]
Codes = NDArray[np.int64]

SEED = 7_000_000  # of the data and the noise of every evaluation
KEYS = ("none", "left", "right", "jump", "jump-left", "jump-right", "down", "up")


@dataclass(frozen=True)
class Size:
    """How much is looked at; of each draw, where a figure is of several."""

    clips: int = 48
    frames: int = 20
    starts: int = 384
    prompts: int = 34  # for held codes
    long_holds: int = 20  # prompts in which every code is held for 40 ticks
    free: int = 6  # prompts of free play
    free_frames: int = 256
    walks: int = 20  # prompts of long random play
    walk: int = 1000  # its steps
    sketch_frames: int = 200
    draws: int = 3  # of the figures whose spread is stated
    sight_steps: int = 400  # that the avatar detector learns for


QUICK = Size(
    clips=12, frames=12, starts=96, prompts=16, long_holds=4, free=8, free_frames=48, walks=4, walk=100,
    sketch_frames=48, draws=1,
)  # fmt: skip


class Batch:
    """A world in play with many prompts at once, along one path: what the engine does, a batch at a time."""

    def __init__(self, genie: Genie, path: PathConfig, batch: int) -> None:
        dynamics, tokenizer = genie.dynamics, genie.tokenizer
        device = dynamics.head.weight.device
        self.genie, self.count, self.sampler = genie, batch, Sampler(dynamics, ops.get("reference"), path)
        cross, kind = dynamics.config.recipe == "teacher", ARITHMETIC[path.arithmetic]
        self.dynamics_ring = Ring(dynamics.cache_shape, dynamics.n_tokens, cross, device, kind, batch)
        self.decoder_ring = Ring(tokenizer.decoder_shape, dynamics.n_tokens, False, device, kind, batch)
        self.look: Look | None = None  # of the pictures that were given last
        self.tokens = torch.zeros(batch, dynamics.n_tokens, dtype=torch.int64)  # of the last frame
        self.index = 0

    def begin(self, pictures: Pictures) -> Pictures:
        """Start from pictures (B, H, W, 3), no action before them; returns how the world shows them."""
        tokens = torch.from_numpy(encode(self.genie, pictures[:, None])[:, 0])
        return self.feed(tokens, torch.full((self.count,), self.genie.dynamics.no_action), pictures)

    def feed(self, tokens: Tensor, actions: Tensor, given: Pictures | None = None) -> Pictures:
        """Commit tokens (B, N) that `actions` (B,) led to; returns how they look, (B, H, W, 3) uint8. `given`: the
        pictures (B, H, W, 3) that they stand for, where somebody gave them."""
        if given is not None:
            self.look = self.genie.tokenizer.look(to_float(given))
        _, kept = self.genie.dynamics.stream(self.sampler.embed(tokens, actions), self.dynamics_ring.past())
        self.dynamics_ring.commit(kept)
        pixels, kept = self.genie.tokenizer.decode_step(tokens, self.decoder_ring.past(), self.look)
        self.decoder_ring.commit(kept)
        self.tokens = tokens
        self.index += 1
        return to_uint8(pixels)

    def step(self, actions: Tensor | int, seed: int) -> Pictures:
        """Sample the next frame under `actions` (B,), commit it, and return it (B, H, W, 3) uint8."""
        told = self._told(actions)
        return self.feed(self.sample(told, seed), told)

    def sample(self, actions: Tensor | int, seed: int) -> Tensor:
        """Tokens (B, N) of the next frame under `actions` (B,); commits nothing."""
        return self.sampler.sample(self.dynamics_ring.past(), self._told(actions), seed, self.index).tokens

    def peek(self, actions: Tensor | int, seed: int, ticks: int = 1) -> Pictures:
        """What as many steps under `actions` would show last; changes nothing."""
        rings, index, tokens = (self.dynamics_ring, self.decoder_ring), self.index, self.tokens
        before = [ring.snapshot() for ring in rings]
        for _ in range(ticks):
            seen = self.step(actions, seed)
        for ring, snapshot in zip(rings, before, strict=True):
            ring.load(snapshot)
        self.index, self.tokens = index, tokens
        return seen

    def _told(self, actions: Tensor | int) -> Tensor:
        return torch.full((self.count,), actions) if isinstance(actions, int) else actions


@dataclass(frozen=True)
class Sight:
    """An avatar detector, and in what percent of real frames and of scenery without an avatar it sees one."""

    detector: measures.Detector
    real: float
    scenery: float


class Subject:
    """A world, its path, and the sources of clips that it is shown."""

    def __init__(self, genie: Genie, path: PathConfig, size: Size, source: str = "platformer") -> None:
        self.genie, self.path, self.size, self.source = genie, path, size, source
        self.picture_size = genie.config.size
        self.pictures: dict[str, Pictures] = {}  # sheets that the measures leave behind, by name

    @cached_property
    def known(self) -> PlatformerSource:
        """Looks that training saw, in levels that it may have seen."""
        return self._source(SEED, "train", 1024, PLATFORMERS[self.source])

    @cached_property
    def unseen(self) -> PlatformerSource:
        """Looks and levels that no training saw."""
        return self._source(SEED, "held-out", 256, PLATFORMERS[self.source])

    @cached_property
    def paper(self) -> PlatformerSource:
        """Unseen looks of the family that is drawn on paper."""
        return self._source(SEED + 1, "held-out", 256, {"sketch": 1.0})

    @cached_property
    def sight(self) -> Sight:
        """An avatar detector, learned from one half of some clips and tried on the other."""
        truth = self.clips(self.unseen, 5, 0, 160, 6)
        frames = truth.frames.reshape(-1, *truth.frames.shape[2:])
        masks = truth.mask.reshape(-1, *truth.mask.shape[2:])
        half, crop = len(frames) // 2, min(32, min(self.picture_size) // 8 * 8)
        with torch.inference_mode(False):
            detector = measures.train_detector(frames[:half], masks[:half], steps=self.size.sight_steps, crop=crop)
        beside = np.roll(frames[half:], 14 * frames.shape[2] // 64, 2)
        real, scenery = (100 * float(detector.present(some).mean()) for some in (frames[half:], beside))
        return Sight(detector, real, scenery)

    @cached_property
    def land(self) -> NDArray[np.float64]:
        """What each code says of the kinds of tiles that it stands for, (V, K), by real play."""
        game, players = self.unseen.games(9, 2 * self.size.clips)
        frames, kinds = [game.render()], [game.kinds()]
        for _ in range(self.size.frames - 1):
            game.step(players.keys(game))
            frames.append(game.render())
            kinds.append(game.kinds())
        tokens, config = encode(self.genie, np.stack(frames, 1)), self.genie.config.tokenizer
        every = np.stack(kinds, 1).reshape(-1, *self.picture_size)
        return measures.kinds_of_codes(tokens, every, config.codes, config.grid, config.patch_size)

    def _source(self, seed: int, split: str, looks: int, mix: Mapping[str, float]) -> PlatformerSource:
        """The world's own source with the avatar in the middle, as the measures expect."""
        return PlatformerSource(self.picture_size, seed, split, mix, looks, calm=self.source == CALM)

    def played_in(self, arithmetic: str) -> Subject:
        """The same, its networks as a CPU plays them in that arithmetic; BackendError where this CPU cannot."""
        other = copy.copy(self)
        other.genie, other.pictures = copy.deepcopy(self.genie), {}
        other.path = replace(self.path, arithmetic=arithmetic)
        cpu.place(other.genie, arithmetic)
        return other

    def batch(self, count: int) -> Batch:
        """The world in play with `count` prompts."""
        return Batch(self.genie, self.path, count)

    def clips(self, source: PlatformerSource, what: int, draw: int, clips: int, frames: int) -> Truth:
        """Clips for the measure number `what`, with their true keys."""
        return with_truth(source, what + 100 * draw, clips, frames)


def encode(genie: Genie, frames: Pictures) -> Codes:
    """Clips (B, T, H, W, 3) to tokens (B, T, N)."""
    return chunks(lambda x: genie.tokenizer.encode(to_float(x)), frames)


def decode(genie: Genie, tokens: Codes | Tensor, given: Pictures) -> Pictures:
    """Tokens (B, T, N) to clips (B, T, H, W, 3), where pictures (B, H, W, 3) were given."""
    tokenizer, tokens = genie.tokenizer, torch.as_tensor(tokens)
    parts = [slice(i, i + 8) for i in range(0, len(tokens), 8)]
    return np.concatenate(
        [to_uint8(tokenizer.decode(tokens[part], tokenizer.look(to_float(given[part])))) for part in parts]
    )


def infer(genie: Genie, frames: Pictures) -> Codes:
    """Clips (B, T, H, W, 3) to the code (B, T - 1) of each transition."""
    return chunks(lambda x: genie.actions.infer(to_float(x)), frames)


def after_none(genie: Genie, codes: Codes) -> Tensor:
    """Codes (B, T - 1) of transitions as the action (B, T) that led to each frame; none for the first."""
    return torch.cat((torch.full((len(codes), 1), genie.dynamics.no_action), torch.from_numpy(codes)), 1)


def to_float(frames: Pictures) -> Tensor:
    """uint8 to 0..1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float() / 255


def to_uint8(pixels: Tensor) -> Pictures:
    """0..1 to uint8."""
    return np.asarray((pixels.float() * 255).round().clamp(0, 255).to(torch.uint8).numpy())


def grid(rows: Sequence[Pictures], scale: int = 2) -> Pictures:
    """Rows of pictures (n, H, W, 3) as one picture, enlarged."""
    width = max(len(row) for row in rows)
    lines = []
    for row in rows:
        line = np.zeros((width, *row.shape[1:]), np.uint8)
        line[: len(row)] = row
        lines.append(np.concatenate(list(line), 1))
    return np.concatenate(lines).repeat(scale, 0).repeat(scale, 1)


def chunks(work: Callable[[Pictures], Tensor], frames: Pictures, size: int = 8) -> Codes:
    """The work done on a few clips at a time."""
    return np.concatenate([work(frames[i : i + size]).numpy() for i in range(0, len(frames), size)])
