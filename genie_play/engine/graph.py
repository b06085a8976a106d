"""Runs the lists of a static frame: captured as CUDA graphs where there is a GPU, one after another elsewhere.

A graph is captured on the thread that replays it, after its operations ran twice; it keeps everything it reads alive.
What comes in is one copy of numbers, what comes out is one copy of bytes, and the only wait is for those bytes. A
commit is left running. Where capture fails the same operations run uncaptured, which gives the same bits and is said
once. Knows nothing of play-throughs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genie_play import paths, schedule
from genie_play.engine.static import MOST, StaticFrame
from genie_play.types import GenieError, Tokens

BROKEN = "the world's network gave numbers that are not finite; go back some steps, or restart it"
WARM_UPS = 2  # runs before a capture: the first compiles, the second shows that nothing is left to compile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """Frames that were shown: pixels (B, H, W, 3) uint8, tokens (B, N) uint16. `batch` names where their keys lie."""

    pixels: NDArray[np.uint8]
    tokens: NDArray[np.uint16]
    batch: int


class FrameRunner:
    """The frame of one engine, and its memory on the host. Lives on one thread.

    With `captured` each list becomes a graph in `warm`; `captured` is False again where that failed.
    """

    def __init__(self, frame: StaticFrame, captured: bool) -> None:
        self.frame, self.captured = frame, captured
        self.device = frame.controls.numbers.device
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._pool: Any = None
        self._numbers = self._host(frame.controls.numbers)
        self._taken: torch.cuda.Event | None = None  # after the copy of the numbers
        self._bytes: dict[int, Tensor] = {}

    # frames

    def draw(self, actions: Sequence[int], seed: int, index: int, after: tuple[Tokens, int] | None = None) -> Made:
        """Fill in frame `index` under each of the actions and decode it.

        `after`: the last frame's tokens and action, which are committed in the same pass. GenieError where numbers are
        not finite; that commit then stands.
        """
        batch = len(actions)
        self._tell(seed=seed, index=index, actions=actions, given=after)
        if after is not None:
            self._run("merged", batch)
            self.frame.past.advance()
        elif self.frame.path.sure > 0.0 and batch == 1:
            self._draw_until_sure(batch)
        else:
            self._run("draw", batch)
        return self._result(batch)

    def show(self, tokens: Tokens) -> Made:
        """Decode tokens (N,)."""
        self._tell(given=(tokens, 0))
        if self.frame.seen.position == self.frame.seen.start:
            self.frame.show(first=True)
        else:
            self._run("show")
        return self._result(0)

    def take(self, batch: int, row: int = 0) -> None:
        """Commit a row of the frames last made in a batch (`Made.batch`) to the decoder's ring; does not wait."""
        self._tell(row=row)
        self._run("take", batch)
        self.frame.seen.advance()

    def commit(self, tokens: Tokens, action: int) -> None:
        """Commit tokens (N,) and the action that led to them to the dynamics model's ring; does not wait."""
        self._tell(given=(tokens, action))
        if self.frame.past.position == self.frame.past.start:
            self.frame.commit(first=True)
        else:
            self._run("commit")
        self.frame.past.advance()

    def agree(self, many: Made, seed: int, index: int, actions: Sequence[int]) -> bool:
        """Whether a batch is, row by row and bit for bit, what single frames are: tokens, pixels, decoder keys."""
        ours, single = self.frame.shown(many.batch), self.frame.shown(1)
        patches, kept = ours.patches.clone(), ours.kept.clone()
        for row, action in enumerate(actions):
            one = self.draw([action], seed, index)
            same = np.array_equal(one.tokens[0], many.tokens[row])
            same &= torch.equal(single.patches[0], patches[row]) and torch.equal(single.kept[:, :, 0], kept[:, :, row])
            if not same:
                return False
        return True

    # capture

    @torch.inference_mode()
    def warm(self, batches: Sequence[int] = (1,), progress: Callable[[str], None] | None = None) -> bool:
        """Compile and capture all that play needs; empties both rings. False, said once, if that failed."""
        lists: list[tuple[Any, ...]] = [("show",), ("take", 0), ("commit",)]
        for batch in batches:
            lists += [("draw", batch), ("take", batch)]
            if self.frame.path.commit == "merged":
                lists.append(("merged", batch))
        if self.frame.path.sure > 0.0:
            steps = range(self.frame.passes)
            lists += [("begin", 1), *(("one_pass", 1, s, rest) for s in steps for rest in (False, True)), ("end", 1)]
        try:
            for done, (name, *arguments) in enumerate(lists):
                if progress:
                    progress(f"preparing the GPU, {done + 1} of {len(lists)}")
                self._capture(name, *arguments)
            if self.captured and not self._same_as_uncaptured():
                raise RuntimeError("a captured frame gives other bits than the same frame uncaptured")
        except (RuntimeError, AssertionError) as error:
            if not self.captured:
                raise
            self._give_up(error)
        finally:
            self.frame.past.clear()
            self.frame.seen.clear()
        return self.captured

    def _capture(self, name: str, *arguments: Any) -> None:
        def work() -> None:
            getattr(self.frame, name)(*arguments)

        if not self.captured:
            work()
            return
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        self._graphs[name, *arguments] = _Graph(work, self._pool)

    def _run(self, name: str, *arguments: Any) -> None:
        """Replay a list, or run it; a batch that is drawn for the first time is captured now."""
        if self.captured and name == "draw" and (name, *arguments) not in self._graphs:
            try:
                self._capture(name, *arguments)
            except RuntimeError as error:
                self._give_up(error)
        graph = self._graphs.get((name, *arguments))
        if graph is not None:
            graph.replay()
        else:
            getattr(self.frame, name)(*arguments)

    def _give_up(self, error: Exception) -> None:
        self.captured = False
        self._graphs.clear()
        torch.cuda.synchronize()
        reason = str(error).strip().partition("\n")[0]
        log.warning("frames are not captured on %s, and slower: %s: %s", self.device, type(error).__name__, reason)

    def _same_as_uncaptured(self) -> bool:
        """A frame with noise in both rings, captured and not: the same bytes."""
        for ring in (self.frame.past, self.frame.seen):
            if not ring.fp8:
                ring.temporal.normal_()
            ring.spatial.normal_()
            ring.ages.fill_(1)
        self._tell(seed=1, index=2, actions=[3])
        found = []
        for work in (lambda: self._graphs["draw", 1].replay(), lambda: self.frame.draw(1)):
            self.frame.shown(1).bytes.zero_()
            work()
            found.append(self.frame.shown(1).bytes.clone())
        return torch.equal(*found)

    def _draw_until_sure(self, batch: int) -> None:
        """The passes one by one; once every draw of one was sure enough, the next fills in the rest."""
        self._run("begin", batch)
        for step in range(self.frame.passes):
            # the one question that is asked of the device while a frame is made
            rest = step > 0 and float(self.frame.least[step - 1]) >= self.frame.path.sure
            self._run("one_pass", batch, step, rest)
            if rest:
                break
        self._run("end", batch)

    # host and device

    def _host(self, like: Tensor) -> Tensor:
        return torch.zeros(like.shape, dtype=like.dtype, pin_memory=self.device.type == "cuda")

    def _tell(
        self,
        seed: int = 0,
        index: int = 0,
        row: int = 0,
        actions: Sequence[int] = (),
        given: tuple[Tokens, int] | None = None,
    ) -> None:
        """Fill in the controls. Returns before the copy is done."""
        if self._taken is not None:
            self._taken.synchronize()
        controls, numbers = self.frame.controls, self._numbers.numpy()
        n_tokens = controls.tokens.shape[1]
        numbers[:3] = (seed + 2**63) % 2**64 - 2**63, index, row
        numbers[4 : 4 + len(actions)] = actions
        if given is not None:
            numbers[3] = given[1]
            numbers[4 + MOST : 4 + MOST + n_tokens] = given[0]
        if len(actions) and self.frame.path.order == "random":
            numbers[-n_tokens:] = schedule.random_order(n_tokens, seed, index)
        controls.numbers.copy_(self._numbers, non_blocking=True)
        if self.device.type == "cuda":
            self._taken = self._taken or torch.cuda.Event()
            self._taken.record()

    def _result(self, batch: int) -> Made:
        shown = self.frame.shown(batch)
        if batch not in self._bytes:
            self._bytes[batch] = self._host(shown.bytes)
        host = self._bytes[batch]
        host.copy_(shown.bytes, non_blocking=True)
        if self.device.type == "cuda":
            arrived = torch.cuda.Event()
            arrived.record()
            arrived.synchronize()
        data = host.numpy()
        if data[-4:].any():
            raise GenieError(BROKEN)
        picture, tokens = shown.picture, shown.tokens
        end = data.size - 4
        numbers = data[end - 4 * tokens.numel() : end].view(np.int32).reshape(tokens.shape)
        return Made(data[: picture.numel()].reshape(picture.shape).copy(), numbers.astype(np.uint16), batch)


class _Graph:
    """A captured list of operations. Whatever it reads must live at the same address for as long as this does."""

    def __init__(self, work: Callable[[], None], pool: Any) -> None:
        self._work = work  # a strong reference to all that is read
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            work()

    def replay(self) -> None:
        """Run it on the current stream."""
        self._graph.replay()


def cache_kernels() -> None:
    """Let Triton and Inductor keep what they compile in the person's cache folder; call it before either is used."""
    try:
        folder = paths.writable(paths.kernels())
    except (GenieError, ImportError):
        return  # they have folders of their own
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
