"""Time on a device: a list of operations as a graph, so that launches cost what they cost in play.

On a CPU the same calls are timed by the clock, which rehearses them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def milliseconds(work: Callable[[], Any], device: torch.device, calls: int = 10, rounds: int = 9) -> float:
    """Median over rounds of the time of one call, `calls` of them in a graph."""
    if device.type != "cuda":
        return 1000 * _seconds(work, 1, min(rounds, 3), lambda: None)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream(device).wait_stream(side)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        for _ in range(calls):
            work()
    graph.replay()
    found = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / calls)
    return statistics.median(found)


def wall_milliseconds(work: Callable[[], Any], device: torch.device, calls: int = 20, rounds: int = 5) -> float:
    """Median over rounds of the wall time of one call, the device waited for at the end of each round only."""
    work()
    return 1000 * _seconds(work, calls if device.type == "cuda" else 2, rounds, lambda: wait(device))


def wait(device: torch.device) -> None:
    """Until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(work: Callable[[], Any], calls: int, rounds: int, finish: Callable[[], None]) -> float:
    found = []
    for _ in range(rounds):
        finish()
        start = time.perf_counter()
        for _ in range(calls):
            work()
        finish()
        found.append((time.perf_counter() - start) / calls)
    return statistics.median(found)
