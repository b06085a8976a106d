"""A recording of a shipped world, shown until its engine is there.

Frames are decoded when their time comes, so that opening one costs nothing. The play-through that it shows may lie
beside it, one node a frame. Knows Pillow, no engine and no window.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genie_play.types import Pixels

SUFFIXES = (".webp", ".gif", ".png")
MOST = 600  # frames kept

_log = logging.getLogger(__name__)


class Tape:
    """Plays a GIF, WebP or APNG file round and round, at the size (height, width) of its world."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self.path = path
        self._image = Image.open(path)
        self._frames: list[Pixels] = []
        self._seconds: list[float] = []
        self._count = min(getattr(self._image, "n_frames", 1), MOST)
        # recordings are enlarged by a whole number; one of another shape is shown as it is
        width, height = self._image.size
        self._grain = height // size[0] if height % size[0] == 0 and width * size[0] == height * size[1] else 1
        self._next()

    def frame(self, seconds: float) -> Pixels:
        """What is on the tape so many seconds after its start: (H, W, 3)."""
        return self._frames[self.at(seconds)]

    def last(self, seconds: float, count: int) -> NDArray[np.uint8]:
        """The pictures up to that time, oldest first: (K, H, W, 3) with K up to `count`."""
        at = self.at(seconds)
        return np.stack(self._frames[max(at + 1 - count, 0) : at + 1])

    def at(self, seconds: float) -> int:
        """The number of the frame that is on the tape then."""
        at = 0
        while True:
            # the time of a lap is known once all of it was decoded
            if at == len(self._frames) and not self._next():
                lap = sum(self._seconds)
                seconds, at = seconds % lap if seconds >= lap else seconds, 0
            if seconds < self._seconds[at]:
                return at
            seconds -= self._seconds[at]
            at += 1

    def _next(self) -> bool:
        """Decode one more frame; False if there is none."""
        at = len(self._frames)
        if at >= self._count:
            return False
        try:
            self._image.seek(at)
            self._frames.append(np.array(self._image.convert("RGB"))[:: self._grain, :: self._grain])
        except (OSError, EOFError, ValueError):
            if not self._frames:
                raise
            self._count = at
            return False
        self._seconds.append(max(float(self._image.info.get("duration", 100)), 20.0) / 1000)
        return True


def find_tape(folder: Path, size: tuple[int, int]) -> Tape | None:
    """The tape that lies beside a world's weights, if there is one that can be shown."""
    for path in sorted(folder.glob("tape.*")):
        if path.suffix.lower() in SUFFIXES:
            try:
                return Tape(path, size)
            except (OSError, EOFError, ValueError) as error:
                # a world without its tape is a world all the same
                _log.warning("the tape %s cannot be shown: %s", path, error)
    return None
