"""Batches of a source made ahead, in order, by other processes, in memory that both sides share.

Who takes them sees what `source.batch(first)`, `source.batch(first + 1)`, ... would give, bit for bit, whatever the
number of workers: worker w of W makes every W-th batch. Knows NumPy and processes; nothing of torch or training.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import traceback
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_play.data.clips import Clips, Source
from genie_play.data.video import reasons
from genie_play.types import GenieError, SourceError

SLOTS = 2  # batches that a worker may be ahead
FEWEST_CORES = 4  # with fewer the workers would take from training what they give
MOST_WORKERS = 16

log = logging.getLogger(__name__)


def auto_workers(cores: int | None = None) -> int:
    """How many processes to make batches with: all cores but two, none where there are fewer than four."""
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores - 2, MOST_WORKERS) if cores >= FEWEST_CORES else 0


class Ahead:
    """The batches of a source from `first` on, each (clips, frames, H, W, 3). A context manager.

    `take` hands out the next one, a view that stays as it is until `free` gives back the oldest that was taken.
    Without workers batches are made when they are taken. The memory is named nowhere: nothing is left behind, however
    this process ends, and workers end with it.
    """

    def __init__(self, source: Source, clips: int, frames: int, first: int = 0, workers: int = 0) -> None:
        self.source, self.shape, self.next = source, (clips, frames), first
        self.left_out: dict[Path, str] = {}  # by the workers; see `FolderSource`
        self._taken: deque[tuple[int, int]] = deque()  # (worker, slot), oldest first
        self._pipes: list[Connection] = []
        self._children: list[Any] = []
        self._rings: list[Clips] = []
        self._first = first
        if workers and hasattr(source, "share"):
            source.share()
        context = multiprocessing.get_context("spawn")
        shape = (SLOTS, clips, frames, *source.size, 3)
        for number in range(workers):
            memory: Any = context.RawArray(ctypes.c_uint8, int(np.prod(shape)))
            ours, theirs = context.Pipe()
            child = context.Process(
                target=_work,
                args=(theirs, memory, shape, source, first + number, workers),
                name=f"genie-play feed {number}",
                daemon=True,
            )
            child.start()
            theirs.close()
            for slot in range(SLOTS):
                ours.send(slot)
            self._pipes.append(ours)
            self._children.append(child)
            self._rings.append(np.frombuffer(memory, np.uint8).reshape(shape))

    @property
    def memory(self) -> list[Clips]:
        """The memory of each worker, (slots, clips, frames, H, W, 3): a device may want to lock it."""
        return self._rings

    @property
    def ready(self) -> bool:
        """Whether the next batch is there already."""
        return not self._pipes or self._pipes[(self.next - self._first) % len(self._pipes)].poll()

    def take(self) -> Clips:
        """The next batch; what the source raised for it is raised here."""
        step = self.next
        self.next += 1
        if not self._pipes:
            return self.source.batch(step, *self.shape)
        worker = (step - self._first) % len(self._pipes)
        try:
            slot, problem, left_out = self._pipes[worker].recv()
        except (EOFError, OSError):
            raise GenieError(
                f"a process that makes clips ended by itself{self._code(worker)}; the same command goes on, "
                "--workers 0 does without such processes"
            ) from None
        self._tell(left_out)
        if problem is not None:
            self.close()
            raise SourceError(problem[1]) if problem[0] == "source" else RuntimeError(problem[1])
        self._taken.append((worker, slot))
        return self._rings[worker][slot]

    def free(self) -> None:
        """Give the oldest batch that was taken back to its worker."""
        if self._taken:
            worker, slot = self._taken.popleft()
            with contextlib.suppress(OSError):  # a worker that has gone is noticed when its next batch is due
                self._pipes[worker].send(slot)

    def close(self) -> None:
        """End the workers. Twice is fine."""
        for pipe in self._pipes:
            pipe.close()
        for child in self._children:
            child.join(0.5)
            if child.is_alive():
                child.terminate()
                child.join()
        self._children.clear()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, left_out: dict[Path, str]) -> None:
        if left_out and not self.left_out and isinstance(path := getattr(self.source, "path", None), Path):
            log.warning("%s: files left out: %s", path, reasons(left_out, path))
        self.left_out |= left_out

    def _code(self, worker: int) -> str:
        self._children[worker].join(1.0)
        code = self._children[worker].exitcode
        return "" if code is None else f" (code {code})"


def _work(pipe: Connection, memory: Any, shape: tuple[int, ...], source: Source, step: int, stride: int) -> None:
    """Make every `stride`-th batch from `step` on, each in the slot that comes over the pipe, until it closes."""
    # Ctrl+C is for the process that trains; it closes the pipe
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ring: NDArray[np.uint8] = np.frombuffer(memory, np.uint8).reshape(shape)
    told: dict[Path, str] = dict(getattr(source, "left_out", {}))
    with contextlib.suppress(EOFError, OSError):
        while True:
            slot, problem = pipe.recv(), None
            try:
                ring[slot] = source.batch(step, *shape[1:3])
            except GenieError as error:
                problem = ("source", str(error))
            except Exception:
                problem = ("bug", traceback.format_exc())
            now = dict(getattr(source, "left_out", {}))
            pipe.send((slot, problem, {file: why for file, why in now.items() if file not in told}))
            told, step = now, step + stride
