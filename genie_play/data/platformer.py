"""The platformer as others see it: with its true keys for `eval`, and as an Engine for the client.

Only `eval` may call `with_truth`: what it returns is what training must find out for itself. The engine needs no
weights and takes a millisecond a step; a prompt's pixels and the seed choose its level and a look near in colour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genie_play.config import PathConfig, to_dict
from genie_play.data import levels, looks
from genie_play.data.game import Flags, Platformer, State, tile_size
from genie_play.data.levels import COIN, COLS, EMPTY
from genie_play.data.paint import Colours
from genie_play.data.players import Players
from genie_play.types import EngineInfo, Frame, History, Label, Pixels, Prompt, Tokens, check_action

__all__ = ["Filmed", "Platformer", "PlatformerEngine", "State", "Truth", "tile_size", "with_truth"]

N_TOKENS = 22
RATE = 10.0  # ticks a second
_CANDIDATES = 48  # looks compared with a prompt


@dataclass(frozen=True)
class Truth:
    """Clips with what the game knows of them; for `eval` alone."""

    frames: NDArray[np.uint8]  # (clips, frames, H, W, 3)
    actions: NDArray[np.int64]  # (clips, frames - 1) the true key that led to frame t + 1
    dx: NDArray[np.int64]  # (clips, frames - 1) displacement in pixels that it gave
    dy: NDArray[np.int64]  # (clips, frames - 1)
    grounded: Flags  # (clips, frames)
    mask: Flags  # (clips, frames, H, W) where the avatar is


class Filmed(Protocol):
    """A source of clips that can start its games: see `clips.PlatformerSource`."""

    def games(self, step: int, clips: int) -> tuple[Platformer, Players]:
        """The games and players of a batch, before its first frame."""
        ...


def with_truth(source: Filmed, step: int, clips: int, frames: int) -> Truth:
    """The batch of a source with its true keys, displacements and masks. Only `eval` may call this."""
    game, players = source.games(step, clips)
    height, width = game.size
    pictures = np.empty((clips, frames, height, width, 3), np.uint8)
    mask = np.empty((clips, frames, height, width), bool)
    grounded = np.empty((clips, frames), bool)
    actions, dx, dy = (np.empty((clips, frames - 1), np.int64) for _ in range(3))
    for t in range(frames):
        if t:
            keys = players.keys(game)
            game.step(keys)
            actions[:, t - 1], dx[:, t - 1], dy[:, t - 1] = keys, game.dx, game.dy
        pictures[:, t], mask[:, t], grounded[:, t] = game.render(), game.mask(), game.grounded
    return Truth(pictures, actions, dx, dy, grounded, mask)


class PlatformerEngine:
    """Satisfies `types.Engine`. Tokens are the packed state, (22,) uint16: see `_pack`.

    Edits are not in the tokens: `restore` paints them again from the history's moves.
    """

    def __init__(self, size: tuple[int, int] = (64, 64), enemies: bool = True) -> None:
        tile = tile_size(size[0])
        half = tile / 2
        names = ("idle", "left", "right", "jump", "jump-left", "jump-right", "down", "up")
        dx, dy = (0.0, -half, half, 0.0, -half, half, 0.0, 0.0), (0.0, 0.0, 0.0, -half, -half, -half, half, -half)
        self.info = EngineInfo(
            name="platformer",
            size=size,
            rate=RATE,
            labels=tuple(Label(code, names[code], dx[code], dy[code], 1.0) for code in range(8)),
            idle=0,
            window=2,
            n_tokens=N_TOKENS,
            path=to_dict(PathConfig(steps=1, temperature=0.0)),
            device="cpu",
            checkpoint={"name": "platformer", "sha256": hashlib.sha256(b"genie-play platformer 2").hexdigest()},
        )
        self._enemies, self._tile = enemies, tile
        self._game: Platformer | None = None
        self._closed = False
        self._world = ("", -1, -1)  # family, look seed, level seed
        self._index, self._edits = 0, 0
        self._action: int | None = None

    def reset(self, prompt: Prompt, seed: int) -> Frame:
        """Start in the level and look that the prompt and the seed choose; frame 0 is the game's own picture."""
        self._open()
        k = len(self._check(prompt.pictures, 4))
        self._index, self._action = 0, None
        if prompt.tokens is not None:
            if prompt.tokens.shape != (k * N_TOKENS,):
                raise ValueError(f"a prompt of {k} pictures has {k * N_TOKENS} tokens, not {prompt.tokens.shape}")
            self._begin(*_world_of(prompt.tokens[-N_TOKENS:]))
            self._unpack(prompt.tokens[-N_TOKENS:])
            return self._frame(prompt.tokens.astype(np.uint16))
        self._begin(*_choose(prompt.pictures, seed))
        return self._frame(np.tile(self._pack(self._playing()), k))

    def step(self, action: int, tokens: Tokens | None = None) -> Frame:
        """Play a tick, or take the state that the tokens hold."""
        game, action = self._playing(), check_action(action)
        if tokens is None:
            game.step(np.array([action]))
        else:
            self._unpack(tokens)
        self._index, self._action = self._index + 1, action
        return self._frame()

    def settle(self) -> None:
        """Nothing is left to do between steps."""
        self._playing()

    def restore(self, history: History) -> Frame:
        """Go to the end of a history: the last tokens are the state, the edits before it are painted again."""
        frame = self.reset(history.prompt, history.seed)
        if not history.moves:
            return frame
        # the moves know their world, whatever seed the history goes on with
        if _world_of(history.moves[0].tokens) != self._world:
            self._begin(*_world_of(history.moves[0].tokens))
        for i, move in enumerate(history.moves):
            if move.action is not None:
                self._index, self._action = self._index + 1, check_action(move.action)
                continue
            if move.pixels is None:
                raise ValueError("an edit in a history has pixels")
            if i:
                self._unpack(history.moves[i - 1].tokens)
            self._paint(move.pixels)
        self._unpack(history.moves[-1].tokens)
        return self._frame()

    def futures(self, actions: Sequence[int]) -> list[Frame]:
        """The frame that each action would give; changes nothing."""
        here = self._playing()
        keys = np.array([check_action(action) for action in actions], np.int64)
        if not len(keys):
            return []
        game = here.take(np.zeros(len(keys), np.int64))
        game.step(keys)
        pictures = game.render()
        return [Frame(self._index + 1, int(key), pictures[i].copy(), self._pack(game, i)) for i, key in enumerate(keys)]

    def edit(self, pixels: Pixels) -> Frame:
        """Tiles that were mostly painted over become ground or empty, whichever their new colour is nearer to."""
        self._playing()
        self._paint(self._check(pixels, 3))
        self._edits += 1
        return self._frame()

    def see(self, pixels: Pixels) -> Pixels:
        """The picture in the colours of the look; changes nothing."""
        self._playing()
        pixels = self._check(pixels, 3)
        inks = np.unique(np.rint(np.stack(list(self._colours().values()))).astype(np.int64), axis=0)
        apart = np.abs(pixels.astype(np.int64)[:, :, None] - inks).sum(-1)
        seen: Pixels = inks[apart.argmin(-1)].astype(np.uint8)
        return seen

    def close(self) -> None:
        """Forget the game. Twice is fine."""
        self._game, self._closed = None, True

    def _open(self) -> None:
        if self._closed:
            raise ValueError("the engine is closed")

    def _playing(self) -> Platformer:
        self._open()
        if self._game is None:
            raise ValueError("reset the engine before anything else")
        return self._game

    def _check(self, pixels: NDArray[np.uint8], ndim: int) -> NDArray[np.uint8]:
        if pixels.ndim != ndim or pixels.shape[-3:] != (*self.info.size, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"pictures of {self.info.size} uint8 are wanted, not {pixels.shape} {pixels.dtype}")
        if ndim == 4 and not len(pixels):
            raise ValueError("a prompt has one picture or more")
        return pixels

    def _begin(self, family: str, look: int, level: int) -> None:
        """A fresh game of that world, without edits."""
        if (family, look) != self._world[:2] or self._game is None:
            wardrobe = looks.Wardrobe([(family, look)], self._tile, lit=False)
        else:
            wardrobe = self._game.wardrobe
        seeds = np.array([level], np.uint64)
        self._game = Platformer(seeds, np.zeros(1, np.int64), wardrobe, self.info.size, self._enemies)
        self._world, self._edits = (family, look, level), 0

    def _colours(self) -> Colours:
        return looks.palette(*self._world[:2])

    def _frame(self, tokens: Tokens | None = None) -> Frame:
        game = self._playing()
        return Frame(self._index, self._action, game.render()[0], self._pack(game) if tokens is None else tokens.copy())

    def _pack(self, game: Platformer, i: int = 0) -> Tokens:
        """Family; look seed (2 words); level seed (4); x; y; bits; tick (2); critters; edits; coins taken (8)."""
        s = game.state()
        family, look, level = self._world
        bits = int(s.right[i]) | int(s.climbing[i]) << 1 | int(s.grounded[i]) << 2 | int(s.pose[i]) << 3
        bits |= int(s.rise[i]) << 6 | int(s.dx[i] + 1) << 9 | int(s.dy[i] + 1) << 11
        rows = game.coins[i]
        taken = (rows >= 0) & (s.tiles[i, np.maximum(rows, 0), np.arange(COLS)] != COIN)
        words = [looks.FAMILIES.index(family), *_words(look, 2), *_words(level, 4)]
        words += [int(s.x[i]) & 0xFFFF, int(s.y[i]) & 0xFFFF, bits, *_words(int(s.tick[i]), 2), int(s.stomped[i])]
        coins = np.packbits(taken, bitorder="little").view(np.uint16)
        return np.concatenate([np.array([*words, self._edits & 0xFFFF], np.uint16), coins])

    def _unpack(self, tokens: Tokens) -> None:
        """Make the packed state the current one; the level keeps its edits unless the tokens are of another world."""
        world = _world_of(tokens)
        if world != self._world:
            self._begin(*world)
        game = self._playing()
        x, y, bits, low, high, stomped, edits = (int(word) for word in tokens[7:14])
        taken = np.unpackbits(np.ascontiguousarray(tokens[14:]).view(np.uint8), bitorder="little").astype(bool)
        tiles = game.state().tiles
        rows, cols = game.coins[0], np.arange(COLS)
        there = (rows >= 0) & np.isin(tiles[0, np.maximum(rows, 0), cols], (COIN, EMPTY))
        tiles[0, rows[there], cols[there]] = np.where(taken[there], EMPTY, COIN)
        right, climbing, grounded = (np.array([bits >> i & 1], bool) for i in range(3))
        pose, rise, dx, dy = bits >> 3 & 7, bits >> 6 & 7, (bits >> 9 & 3) - 1, (bits >> 11 & 3) - 1
        one = {"x": x, "y": y, "rise": rise, "pose": pose, "dx": dx, "dy": dy, "tick": low | high << 16}
        ints = {name: np.array([value], np.int64) for name, value in (one | {"stomped": stomped}).items()}
        seen = {"seen_x": ints["x"].copy(), "seen_y": ints["y"].copy()}
        game.load(State(**ints, right=right, climbing=climbing, grounded=grounded, tiles=tiles, **seen))
        self._edits = edits

    def _paint(self, pixels: Pixels) -> None:
        game = self._playing()
        changed = np.abs(pixels.astype(np.int64) - game.render()[0]).sum(-1) > 48
        row, col = game.place()
        tiles, which = np.unique(
            np.stack(np.broadcast_arrays(row[0][:, None], col[0])).reshape(2, -1), axis=1, return_inverse=True
        )
        which = which.reshape(-1)
        area = np.bincount(which)
        painted = np.bincount(which, changed.reshape(-1))
        colour = np.stack(
            [np.bincount(which, (pixels[..., i] * changed).reshape(-1)) / np.maximum(painted, 1) for i in range(3)], 1
        )
        inside = (tiles[0] >= 0) & (tiles[0] < levels.ROWS - 1)
        on = (painted > 0.5 * area) & (area >= self._tile**2 / 4) & inside
        c = self._colours()
        hard = ("ink", "hatch") if self._world[0] == "sketch" else ("ground", "ground_dark", "top", "brick", "rim")
        open_, filled = (
            np.stack([np.abs(colour - c[name]).sum(-1) for name in names]).min(0)
            for names in (("sky0", "sky1", "sky2"), hard)
        )
        game.build(tiles[0][on], tiles[1][on], (filled < open_)[on])


def _words(number: int, count: int) -> list[int]:
    return [number >> 16 * i & 0xFFFF for i in range(count)]


def _world_of(tokens: Tokens) -> tuple[str, int, int]:
    """Family, look seed, level seed; ValueError if these are not a state's tokens."""
    if tokens.shape != (N_TOKENS,):
        raise ValueError(f"a state has {N_TOKENS} tokens, not {tokens.shape}")
    words = [int(word) for word in tokens]
    if words[0] >= len(looks.FAMILIES) or words[8] > 2 * levels.ROWS or words[9] >> 3 & 7 == 7:
        raise ValueError("these tokens are not the platformer's")
    family, look = looks.FAMILIES[words[0]], words[1] | words[2] << 16
    return family, look, sum(word << 16 * i for i, word in enumerate(words[3:7]))


def _choose(pictures: NDArray[np.uint8], seed: int) -> tuple[str, int, int]:
    """Family, look seed and level seed for a prompt: bright plain paper is a sketch; the nearest colours win."""
    digest = hashlib.blake2s(pictures.tobytes() + (seed % 2**64).to_bytes(8, "little")).digest()
    level = int.from_bytes(digest[:8], "little")
    picture = pictures[-1].astype(np.float64)
    sky, ground = picture[: len(picture) // 2], picture[-(len(picture) // 3) :]
    paper = np.median(sky, axis=(0, 1))
    plain = float((np.abs(picture - paper).sum(-1) < 60).mean())
    if plain > 0.3 and paper.min() > 170 and float(np.ptp(paper)) < 45:
        family, names, wanted = "sketch", ("paper", "paper"), (paper, paper)
    else:
        family, names = looks.FAMILIES[digest[8] % 2], ("sky1", "ground")
        wanted = (paper, np.median(ground, axis=(0, 1)))
    first = int.from_bytes(digest[9:12], "little") % (len(looks.TRAIN) - _CANDIDATES)

    def away(look: int) -> float:
        colours = looks.palette(family, look)
        return sum(float(np.abs(colours[name] - want).sum()) for name, want in zip(names, wanted, strict=True))

    return family, min(range(first, first + _CANDIDATES), key=away), level
