"""Honest instruments: frames a second, key to picture, what the engine takes.

Knows times only; they come in as arguments.
"""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import Any, TextIO

from genie_play.types import GenieError

SLOW = 1 / 6  # seconds a step


class Meter:
    """Collects times in seconds; gives medians and tails of the last of them."""

    def __init__(self, keep: int = 1000) -> None:
        self.keys: deque[float] = deque(maxlen=keep)  # from a key going down to its picture on the screen
        self.steps: deque[float] = deque(maxlen=keep)  # what the engine itself took
        self.turns: deque[float] = deque(maxlen=keep)  # the loop's own work in a turn
        self.frames = 0
        self.rate = 0.0  # frames a second in the last run of them
        self._run: deque[float] = deque(maxlen=60)

    def frame(self, now: float, seconds: float, first: bool = False) -> None:
        """A step's frame has come, for which the engine took that long; `first`: nothing ran before it."""
        self.frames += 1
        self.steps.append(seconds)
        if first:
            self._run.clear()
        self._run.append(now)
        run = [t for t in self._run if now - t <= 3.0]
        if len(run) > 2:
            self.rate = (len(run) - 1) / (now - run[0])

    @property
    def slow(self) -> bool:
        """The engine takes so long for a step that one had better speak of turns."""
        return percentile(self.steps, 0.5) > SLOW

    def summary(self) -> dict[str, Any]:
        """Everything in numbers, milliseconds rounded to a tenth."""
        return {
            "frames": self.frames,
            "fps": round(self.rate, 2),
            "key_to_picture_ms": _spread(self.keys),
            "engine_ms": _spread(self.steps),
            "turn_ms": _spread(self.turns),
        }


class StatsFile:
    """Writes what a meter shows, one JSON object a line, every few seconds and at the end."""

    def __init__(self, path: Path, every: float = 5.0) -> None:
        try:
            self._file: TextIO = open(path, "w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise GenieError(f"cannot write {path}: {error.strerror}; choose another place for --stats") from None
        self._every, self._next = every, 0.0

    def update(self, meter: Meter, now: float, **more: Any) -> None:
        """Write a line if it is time for one."""
        if now >= self._next:
            self._next = now + self._every
            self.write(meter, **more)

    def write(self, meter: Meter, **more: Any) -> None:
        """Write a line."""
        self._file.write(json.dumps({"time": round(time.time(), 1), **more, **meter.summary()}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file. Twice is fine."""
        self._file.close()


def percentile(values: deque[float], share: float) -> float:
    """The value below which that share lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def _spread(values: deque[float]) -> dict[str, float]:
    return {
        "p50": round(percentile(values, 0.5) * 1000, 1),
        "p95": round(percentile(values, 0.95) * 1000, 1),
        "n": len(values),
    }
