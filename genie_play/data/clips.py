"""Where clips come from: the Source protocol, and the platformer as a source.

A batch is a pure function of the source's seed and the step, so that training resumes exactly. No true key and no mask
passes through here.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genie_play.data import levels, looks
from genie_play.data.game import Platformer, tile_size
from genie_play.data.players import Players
from genie_play.types import SourceError

Clips = NDArray[np.uint8]  # (clips, frames, H, W, 3)

# shares of the families of looks
MIX = {"pixel": 0.23, "flat": 0.17, "sketch": 0.32, "painted": 0.14, "photo": 0.14}
CALM_MIX = {"pixel": 0.45, "flat": 0.30, "sketch": 0.25}
SHIFTED, STILL = (
    0.35,
    0.10,
)  # shares of the clips that are not calm with an avatar off the middle, of "platformer" with a camera that waits
# source name -> shares of its families; the calm one draws them calmly
PLATFORMERS = {"platformer": MIX, "platformer-calm": CALM_MIX, "platformer-sketch": {"sketch": 1.0}}
CALM = "platformer-calm"


class Source(Protocol):
    """Video for training."""

    fps: float
    size: tuple[int, int]  # height, width

    def batch(self, step: int, clips: int, frames: int) -> Clips:
        """Clips (clips, frames, H, W, 3) uint8: a pure function of the source's seed and the step."""
        ...


class PlatformerSource:
    """Clips of the platformer: a fresh level for each clip, in one of `n_looks` looks of each family.

    `split` is "train" or "held-out": other levels and other looks, disjoint by construction. `mix` gives the share
    of each family; `calm` takes fewer and fainter textures and less furniture. Unless `shifted` and `still` are given
    the camera keeps the avatar in the middle, as `eval` expects.
    """

    fps = 10.0

    def __init__(
        self,
        size: tuple[int, int] = (64, 64),
        seed: int = 0,
        split: str = "train",
        mix: Mapping[str, float] | None = None,
        n_looks: int = 1024,
        enemies: bool = False,
        tile: int | None = None,
        calm: bool = False,
        shifted: float = 0.0,
        still: float = 0.0,
    ) -> None:
        mix = (CALM_MIX if calm else MIX) if mix is None else mix
        if split not in looks.SPLITS or not mix or set(mix) - set(looks.FAMILIES) or n_looks < 1:
            raise ValueError(f"no clips of split {split!r} with looks {dict(mix)} x {n_looks}")
        self.size, self.seed, self.split, self.enemies = size, seed, split, enemies
        self._n_looks, self._shifted, self._still = n_looks, shifted, still
        self._shares = np.cumsum([share / sum(mix.values()) for share in mix.values()])
        seeds = looks.SPLITS[split][:n_looks]
        self.wardrobe = looks.Wardrobe([(f, s) for f in mix for s in seeds], tile or tile_size(size[0]), calm)
        self._shared: dict[str, tuple[Any, str, tuple[int, ...]]] = {}  # array of the wardrobe -> memory, type, shape

    def share(self) -> None:
        """Move the wardrobe to memory that child processes see too: a look that one of them draws, all have.

        Two that draw the same look at once write the same bytes. Twice is fine.
        """
        if not self._shared:
            drawn = {name: value for name, value in vars(self.wardrobe).items() if isinstance(value, np.ndarray)}
            context = multiprocessing.get_context("spawn")
            for name, value in drawn.items():
                memory: Any = context.RawArray(ctypes.c_uint8, max(value.nbytes, 1))
                self._shared[name] = memory, value.dtype.str, value.shape
            self._dress({name: value.copy() for name, value in drawn.items()})

    def __getstate__(self) -> dict[str, Any]:
        """Another process shares the wardrobe or draws its own: both are quicker than to send one."""
        worn = self.wardrobe
        return {**self.__dict__, "wardrobe": (worn.seeds, worn.tile, worn.calm)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "wardrobe": looks.Wardrobe(*state["wardrobe"])})
        self._dress({})

    def _dress(self, drawn: Mapping[str, NDArray[Any]]) -> None:
        """Let the wardrobe use the shared memory, with what is drawn already."""
        for name, (memory, dtype, shape) in self._shared.items():
            array = np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)
            if name in drawn:
                array[...] = drawn[name]
            setattr(self.wardrobe, name, array)

    def games(self, step: int, clips: int) -> tuple[Platformer, Players]:
        """The games and players of a batch, before its first frame."""
        root = levels.mix(np.array([self.seed], np.uint64)) ^ np.array([step], np.uint64)
        seeds = levels.mix(np.add(levels.mix(root), np.arange(clips, dtype=np.uint64)))
        # held-out levels have odd seeds
        seeds = (seeds & ~np.uint64(1)) | np.uint64(self.split == "held-out")
        pick = levels.uniforms(seeds, 80, [0, 1])
        family = np.searchsorted(self._shares[:-1], pick[:, 0], side="right")
        look = family * self._n_looks + (pick[:, 1] * self._n_looks).astype(np.int64)
        shift, roam = self._cameras(seeds)
        return Platformer(seeds, look, self.wardrobe, self.size, self.enemies, shift, roam), Players(seeds)

    def _cameras(self, seeds: levels.Seeds) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the avatar stands in the picture and how far it may roam, in half tiles, (clips, 2) each."""
        chance, across, along = levels.uniforms(seeds, 82, range(3)).T
        half = np.array(self.size[::-1]) // self.wardrobe.tile  # half tiles from the middle to the border, (x, y)
        reach = np.maximum(half * 2 // 5, 1)
        shift = np.rint((np.stack([across, along], 1) * 2 - 1) * reach).astype(np.int64)
        shift[chance >= self._shifted] = 0
        roam = np.where(chance >= 1 - self._still, 1, 0)[:, None] * np.maximum(half - 3, 0)
        return shift, roam

    def batch(self, step: int, clips: int, frames: int) -> Clips:
        """Clips (clips, frames, H, W, 3) uint8: a pure function of seed, split and step."""
        out = np.empty((clips, frames, *self.size, 3), np.uint8)
        game, players = self.games(step, clips)
        for t in range(frames):
            if t:
                game.step(players.keys(game))
            game.render(out[:, t])
        return out


def open_source(name: str | Path, size: tuple[int, int], seed: int = 0) -> Source:
    """The platformer by one of its names, or a folder of videos; SourceError if neither."""
    if str(name) in PLATFORMERS:
        calm = str(name) == CALM
        # a camera that waits hides what a key does from an action model that looks at what scrolls
        still = STILL if str(name) == "platformer" else 0.0
        return PlatformerSource(
            size, seed, mix=PLATFORMERS[str(name)], calm=calm, shifted=0.0 if calm else SHIFTED, still=still
        )
    if not Path(name).is_dir():
        raise SourceError(f"no source is called {str(name)!r}: give {', '.join(PLATFORMERS)} or a folder of videos")
    from genie_play.data.video import FolderSource

    source: Source = FolderSource(Path(name), size, seed)
    return source


def contact_sheet(source: Source, rows: int = 6, columns: int = 8, step: int = 0, every: int = 1) -> NDArray[np.uint8]:
    """Clips under each other, their frames from left to right: (rows * (H + 2), columns * (W + 2), 3) uint8."""
    clips = source.batch(step, rows, (columns - 1) * every + 1)[:, ::every]
    clips = np.pad(clips, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = clips.shape[2:4]
    sheet: NDArray[np.uint8] = clips.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
    return sheet
