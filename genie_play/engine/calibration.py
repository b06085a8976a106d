"""Which arithmetic and how many threads a CPU plays a world with: measured at the start, and looked at again in play.

More than one thread is a trap on a busy machine: threads wait for each other, and for as long as the scheduler likes.
So it takes a clear gain to choose them, and one bad stretch to let them go. Knows nothing of rings, tokens or pixels.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from genie_play.config import PathConfig
from genie_play.engine import arithmetic as arithmetics

ROUNDS = 5  # passes of each kind that are timed, in turn; the best of them counts
GAIN = 1.15  # times faster that another arithmetic or number of threads must be
SLOW = 1.5  # times the pass of one thread at which several are let go
STRETCH = 40  # frames that are looked at: two of them may be as late as they like
MOST_THREADS = 4  # what a frame of a world for CPUs can use


@dataclass(frozen=True)
class Calibration:
    """What was found: a path, and seconds of a pass by (arithmetic, threads)."""

    path: PathConfig
    seconds: dict[tuple[str, int], float]
    same_bits: bool  # several threads give what one gives, bit for bit

    @property
    def alone(self) -> float:
        """Seconds of a pass of one thread in the arithmetic of the path."""
        return self.seconds[self.path.arithmetic, 1]


def able(accepted: Sequence[str]) -> list[str]:
    """The arithmetics among those that a world accepts which this CPU runs, and runs fast; float32 always."""
    found = [name for name in accepted if name != "fp32" and not arithmetics.unfit(name)]
    return ["fp32", *(name for name in found if name != "bf16" or arithmetics.has_bf16())]


def calibrate(
    path: PathConfig,
    passes: Mapping[str, Callable[[], torch.Tensor]],
    clock: Callable[[], float] = time.perf_counter,
    cores: int | None = None,
) -> Calibration:
    """Time one pass of each arithmetic, by one thread and by all cores; the path with what is clearly the fastest.

    `passes` does a pass of an arithmetic and gives its hidden states; the first is taken unless another is `GAIN` times
    faster. Takes under a second for worlds that a CPU can
    play. Leaves torch with the threads of the path that is returned.
    """
    cores = cores or _cores()
    counts = [1] if cores == 1 else [1, min(cores, MOST_THREADS)]
    seconds: dict[tuple[str, int], float] = {}
    results: dict[tuple[str, int], torch.Tensor] = {}
    for threads in counts:
        torch.set_num_threads(threads)
        for turn in range(ROUNDS + 1):
            for name, run in passes.items():
                started = clock()
                results[name, threads] = run()
                if turn:  # the first is a warm-up
                    spent = clock() - started
                    seconds[name, threads] = min(seconds.get((name, threads), math.inf), spent)
    first, fastest = next(iter(passes)), min(passes, key=lambda name: seconds[name, 1])
    name = fastest if seconds[fastest, 1] * GAIN < seconds[first, 1] else first
    threads = min(counts, key=lambda count: seconds[name, count])
    threads = threads if seconds[name, threads] * GAIN < seconds[name, 1] else 1
    torch.set_num_threads(threads)
    same_bits = torch.equal(results[name, threads], results[name, 1])
    return Calibration(replace(path, arithmetic=name, threads=threads), seconds, same_bits)


@dataclass
class Watch:
    """Looks at the frames of a path of several threads: whether they are slower than one thread would be."""

    alone: float  # seconds of a frame's passes by one thread
    _spent: deque[float] = field(default_factory=lambda: deque(maxlen=STRETCH))

    def add(self, seconds: float) -> bool:
        """Note a frame; True where 95% of the last frames are not within `SLOW` times one thread's time."""
        self._spent.append(seconds)
        p95 = sorted(self._spent)[int(0.95 * len(self._spent) - 1e-9)]
        return len(self._spent) == STRETCH and p95 > SLOW * self.alone


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
