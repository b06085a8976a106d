"""Where clips come from: the Source protocol, the platformer as a source, and reading ahead.

A batch is a pure function of the source's seed and the step, so that training resumes exactly. No true key and no mask
passes through here.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

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
)  # shares of the clips of "platformer" with an avatar off the middle, with a camera that waits
PLATFORMERS = {"platformer": False, "platformer-calm": True}  # source name -> calm


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


class Prefetch:
    """Batches of a source from a step on, made one ahead in a thread of their own. A context manager."""

    def __init__(self, source: Source, clips: int, frames: int, start: int = 0, depth: int = 2) -> None:
        self._queue: queue.Queue[Clips | BaseException] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(source, clips, frames, start), name="prefetch", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[Clips]:
        return self

    def __next__(self) -> Clips:
        """The next batch; what the source raised is raised here."""
        if self._stop.is_set():
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, BaseException):
            self.close()
            raise item
        return item

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and wait for it. Twice is fine."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _work(self, source: Source, clips: int, frames: int, step: int) -> None:
        while not self._stop.is_set():
            try:
                item: Clips | BaseException = source.batch(step, clips, frames)
            except Exception as error:
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return
            step += 1


def open_source(name: str | Path, size: tuple[int, int], seed: int = 0) -> Source:
    """The platformer by its name ("platformer", "platformer-calm"), or a folder of videos; SourceError if neither."""
    if str(name) in PLATFORMERS:
        calm = PLATFORMERS[str(name)]
        return PlatformerSource(size, seed, calm=calm, shifted=0 if calm else SHIFTED, still=0 if calm else STILL)
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
