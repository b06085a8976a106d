"""What a training step sees: batches on the device, straight from the source or cut from a rolling pool of clips.

Straight, step n sees `source.batch(n)`. With a pool the device holds the last clips of the source, uint8, longer than
those of a batch, and a batch is cut from clips and moments drawn at random. At step n the pool holds chunks n to
n + depth - 1 of the source, where chunk k is `source.batch(k, fresh, length)`: each step adds one and drops the oldest.
Which clips and which moments are drawn depends on the seed and the step alone. Either way a step's batch is a pure
function of seed, step and the sizes, so a run that was stopped goes on exactly; the number of workers changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genie_play.data.clips import Clips, Source
from genie_play.data.feed import Ahead

POOL = 512  # clips on a GPU unless told otherwise; each stage waits until they are made
LENGTH = 16  # frames of a clip in the pool, at least: to start a game costs more than to play on
REUSE = 2  # times that a frame in the pool is seen, on average

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """Sizes of a rolling pool: `depth` chunks of `fresh` clips of `length` frames."""

    fresh: int
    length: int
    depth: int

    @property
    def clips(self) -> int:
        """Clips in the pool."""
        return self.fresh * self.depth


def pool_for(size: int, clips: int, frames: int, short: bool, seen: int | None = None) -> Pool | None:
    """The pool of about `size` clips for batches of `clips` x `frames`; None for size 0.

    `short`: clips no longer than those of a batch, where longer ones are not cheaper or are not to be had. `seen`: of
    the frames of a clip so many are looked at (all unless told otherwise).
    """
    if size == 0:
        return None
    length = frames if short else max(frames, LENGTH)
    fresh = max(1, round(clips * (seen or frames) / (length * REUSE)))
    return Pool(fresh, length, max(2, -(-max(size, clips) // fresh)))


class Feeder:
    """Batches for steps `first`, `first + 1`, ... on a device. A context manager.

    `waited` adds up the seconds spent waiting for the source.
    """

    def __init__(
        self,
        source: Source,
        clips: int,
        frames: int,
        first: int = 0,
        device: torch.device | str = "cpu",
        workers: int = 0,
        pool: Pool | None = None,
        seed: int = 0,
    ) -> None:
        self.clips, self.frames, self.step, self.seed = clips, frames, first, seed
        self.device, self.pool, self.waited = torch.device(device), pool, 0.0
        shape = (clips, frames) if pool is None else (pool.fresh, pool.length)
        self._ahead = Ahead(source, *shape, first, workers)
        self._locked = self._lock() if self.device.type == "cuda" else []
        self._leaving: deque[Any] = deque()  # events of copies that are on their way, oldest first
        self._chunks = first  # the next chunk that goes into the pool
        if pool is not None:
            self._memory = torch.empty((pool.clips, pool.length, *source.size, 3), dtype=torch.uint8, device=device)

    def take(self) -> Tensor:
        """The batch of the next step, (clips, frames, H, W, 3) uint8."""
        step, pool = self.step, self.pool
        self.step += 1
        if pool is None:
            return self._fetch()
        while self._chunks < step + pool.depth:
            slot = self._chunks % pool.depth * pool.fresh
            self._fetch(self._memory[slot : slot + pool.fresh])
            self._chunks += 1
        index = torch.from_numpy(draw(self.seed, step, self.clips, self.frames, pool))
        return self._memory.flatten(0, 1)[index.to(self.device, non_blocking=True)]

    def close(self) -> None:
        """End the workers and unlock their memory. Twice is fine."""
        self._ahead.close()
        if self._locked:
            torch.cuda.synchronize(self.device)
            for memory in self._locked:
                torch.cuda.cudart().cudaHostUnregister(memory.ctypes.data)
            self._locked = []

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fetch(self, into: Tensor | None = None) -> Tensor:
        """The next chunk of the source on the device: fresh, or copied `into` memory there."""
        while self._leaving and self._leaving[0].query():
            self._leaving.popleft()
            self._ahead.free()
        begin = time.perf_counter()
        chunk = self._ahead.take()
        self.waited += time.perf_counter() - begin
        found = torch.from_numpy(chunk)
        if self.device.type == "cuda":
            # locked memory is copied while the processor goes on; the worker gets it back when the copy is through
            where = torch.empty_like(found, device=self.device) if into is None else into
            where.copy_(found, non_blocking=True)
            if not self._ahead.memory:
                return where
            event = torch.cuda.Event()
            event.record()
            self._leaving.append(event)
            if len(self._leaving) > len(self._ahead.memory):
                self._leaving.popleft().synchronize()
                self._ahead.free()
            return where
        where = found.clone() if into is None else into.copy_(found)
        self._ahead.free()
        return where

    def _lock(self) -> list[Clips]:
        """Lock the memory of the workers, so that copies to the device need not wait for the processor."""
        locked = []
        for memory in self._ahead.memory:
            # torch wraps the number that CUDA returns: 0 is success
            if int(torch.cuda.cudart().cudaHostRegister(memory.ctypes.data, memory.nbytes, 0)) != 0:
                log.info("the clips' memory cannot be locked: copies to the GPU wait for the processor")
                # CUDA reports a failure once more, to whoever launches next
                with contextlib.suppress(RuntimeError):
                    torch.zeros(1, device=self.device)
                break
            locked.append(memory)
        return locked


def draw(seed: int, step: int, clips: int, frames: int, pool: Pool) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where in the pool's memory the frames of a batch lie, (clips, frames) int64, clip * length + frame.

    No clip twice in a batch. The draw is made in order of age, so that it does not matter where the ring begins.
    """
    random = np.random.default_rng([seed, step, 3])
    picked = random.permutation(pool.clips)[:clips]  # 0: the first clip of the oldest chunk
    chunk, clip = step + picked // pool.fresh, picked % pool.fresh
    start = random.integers(pool.length - frames + 1, size=clips)
    place = (chunk % pool.depth * pool.fresh + clip) * pool.length + start
    return np.asarray(place[:, None] + np.arange(frames))
