"""Where a frame's time goes: the engine plays as always, with a stopwatch on the calls inside it.

What is timed is what plays, not a copy of it. A call that this engine does not make (a frame captured as one graph has
none) is simply not seen, and its stage has no time. The one room that reaches into `GenieEngine`.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from genie_play.engine.engine import GenieEngine
from genie_play.eval.roofs import wait
from genie_play.nn.genie import Genie

Spent = dict[str, list[float]]  # seconds a frame, by stage
# of a block, the layers whose calls part its time: what lies between two of them belongs to the stage beside it
BETWEEN = {("spatial.qkv", "spatial.out"): "spatial attention", ("temporal.qkv", "temporal.out"): "temporal attention"}
LAYERS = ("spatial.qkv", "spatial.out", "temporal.qkv", "temporal.out", "ffn_in", "ffn_out")
PARTS = ("spatial attention", "temporal attention", "projections and feed-forward")


class Watch:
    """Stands at functions and notes how long each call takes, or what it was given; goes away at the end."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.clock = device, clock(device)
        self.calls: list[tuple[str, float]] = []
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def wrap(self, owner: Any, name: str, label: str) -> None:
        """Time the calls of `owner.name`, if there is such a thing."""
        inner = getattr(owner, name, None)
        if inner is None:
            return

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = self.now()
            result = inner(*args, **kwargs)
            self.calls.append((label, self.now() - started))
            return result

        self._replace(owner, name, inner, timed)

    def keep(self, owner: Any, name: str) -> list[tuple[Any, ...]]:
        """A list that the arguments of each call of `owner.name` are added to."""
        kept: list[tuple[Any, ...]] = []
        inner = getattr(owner, name)

        def kept_call(*args: Any, **kwargs: Any) -> Any:
            kept.append(args)
            return inner(*args, **kwargs)

        self._replace(owner, name, inner, kept_call)
        return kept

    def take(self) -> list[tuple[str, float]]:
        """The calls since the last time, oldest first."""
        calls, self.calls = self.calls, []
        return calls

    def _replace(self, owner: Any, name: str, inner: Any, outer: Any) -> None:
        own = name in vars(owner)
        setattr(owner, name, outer)
        self._undo.append(lambda: setattr(owner, name, inner) if own else delattr(owner, name))

    def now(self) -> float:
        """The time, when the device has done all that it was told."""
        wait(self.device)
        return self.clock()


def clock(device: torch.device) -> Callable[[], float]:
    """What stages are timed by: processor time where one thread does it all, as neighbours do not count in it; else
    the time on the wall."""
    return time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def networks(engine: GenieEngine) -> Genie:
    """The networks as the engine plays them: on its device, in its arithmetic."""
    return engine._genie


def rings(engine: GenieEngine) -> dict[str, int]:
    """Bytes of each ring that the engine holds, and of the pool of their copies."""
    found = {
        name: ring.nbytes
        for name in ("dynamics", "decoder", "viewer", "encoder")
        if (ring := getattr(engine, f"_{name}", None)) is not None
    }
    return found | {"pool": engine._pool.nbytes, "pool limit": engine._pool.limit}


def stage_times(engine: GenieEngine, actions: Iterable[int]) -> tuple[Spent, list[Spent]]:
    """Play `actions` in a play-through that is under way.

    Returns seconds a frame of each stage, "rest" being what no stage accounts for, and those of each pass.
    """
    spent: Spent = defaultdict(list)
    each: list[Spent] = []
    genie, ops = networks(engine), getattr(engine, "_ops", None)
    with Watch(engine.device) as watch:
        watch.wrap(genie.dynamics, "stream", "pass")
        watch.wrap(ops, "reveal", "head and sampling")
        watch.wrap(ops, "embed", "embed")
        watch.wrap(genie.tokenizer.decoder, "stream", "decode")
        watch.wrap(getattr(engine, "_decoder", None), "commit", "decode")
        watch.wrap(ops, "to_picture", "to picture")
        for action in actions:
            spent["commit"].append(_timed(watch, engine.settle))
            watch.take()
            whole = _timed(watch, lambda a=action: engine.step(a))  # type: ignore[misc]
            calls = watch.take()
            frame: dict[str, float] = defaultdict(float)
            passes: dict[str, int] = defaultdict(int)
            for label, seconds in calls:
                frame[label] += seconds
                if label in ("pass", "head and sampling"):
                    number = passes[label]
                    passes[label] += 1
                    if number == len(each):
                        each.append(defaultdict(list))
                    each[number][label].append(seconds)
            for label, seconds in frame.items():
                spent[label].append(seconds)
            spent["rest"].append(whole - sum(frame.values()))
    return dict(spent), each


def part_times(engine: GenieEngine, actions: Iterable[int]) -> Spent:
    """Seconds a frame, over all its passes, of the parts of the dynamics model's blocks.

    Attention has its QK-norm and rotation with it; norms and sums lie with the projections. Empty where the engine does
    not call the blocks' layers one by one.
    """
    spent: Spent = defaultdict(list)
    marks: list[tuple[float, str, str]] = []
    dynamics = networks(engine).dynamics
    with Watch(engine.device) as watch, _marked(dynamics.blocks, watch, marks):
        watch.wrap(dynamics, "stream", "pass")
        for action in actions:
            engine.settle()
            watch.take()
            marks.clear()
            engine.step(action)
            whole = sum(seconds for label, seconds in watch.take() if label == "pass")
            if not marks:
                return {}
            frame = dict.fromkeys(PARTS, 0.0)
            for (then, before, _), (now, after, edge) in itertools.pairwise(marks):
                if edge == "in" and (before, after) in BETWEEN:
                    frame[BETWEEN[before, after]] += now - then
            frame[PARTS[2]] = whole - frame[PARTS[0]] - frame[PARTS[1]]
            for name, seconds in frame.items():
                spent[name].append(seconds)
    return dict(spent)


@contextmanager
def _marked(blocks: nn.ModuleList, watch: Watch, marks: list[tuple[float, str, str]]) -> Iterator[None]:
    """Note when each layer of the blocks is entered and left."""

    def mark(name: str, edge: str) -> Callable[..., None]:
        return lambda *_: marks.append((watch.now(), name, edge))

    handles = []
    for block in blocks:
        for name, layer in block.named_modules():
            if name in LAYERS:
                handles.append(layer.register_forward_pre_hook(mark(name, "in")))
                handles.append(layer.register_forward_hook(mark(name, "out")))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _timed(watch: Watch, work: Callable[[], Any]) -> float:
    started = watch.now()
    work()
    return watch.now() - started
