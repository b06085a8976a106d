"""How long the dynamics model takes for a frame here: all passes and the commit, with the cache and without.

Times are of the thread's own processor, so that what else the machine does counts less; with several threads they are
of the clock. Knows nothing of pictures, files or what is a good time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from genie_play import ops
from genie_play.config import PathConfig
from genie_play.engine.sampler import Sampler
from genie_play.engine.state import Ring
from genie_play.nn.dynamics import Dynamics
from genie_play.types import N_ACTIONS


def cached_frame(dynamics: Dynamics, path: PathConfig) -> Callable[[], None]:
    """What a frame costs in play: S passes and the commit, against a ring that is full of random frames.

    `dynamics` is as the engine places it (`cpu.place` on a CPU).
    """
    device = dynamics.head.weight.device
    half = path.arithmetic in ("bf16", "fp8")
    ring = Ring(
        dynamics.cache_shape,
        dynamics.n_tokens,
        dynamics.config.recipe == "teacher",
        device,
        torch.bfloat16 if half else torch.float32,
    )
    sampler = Sampler(dynamics, ops.get(path.ops), path)
    tokens, actions = _window(dynamics)

    @torch.inference_mode()
    def commit(x: Tensor) -> None:
        ring.commit(dynamics.stream(x, ring.past())[1])

    @torch.inference_mode()
    def frame() -> None:
        commit(sampler.sample(ring.past(), actions[:, 0], 1, ring.position).x)

    with torch.inference_mode():
        for t in range(tokens.shape[1]):
            commit(sampler.embed(tokens[:, t], actions[:, t]))
    return frame


def recomputed_frame(dynamics: Dynamics, path: PathConfig) -> Callable[[], None]:
    """The same frame the way it is done without a cache: the whole window at each of the S passes, and the head.

    `dynamics` has its own blocks (`STBlock`), in float32.
    """
    tokens, actions = _window(dynamics)
    tokens[:, -1] = dynamics.mask_id
    if path.guidance != 1.0:  # also what no action would give
        tokens, actions = tokens.repeat(2, 1, 1), actions.repeat(2, 1)
        actions[1, -1] = dynamics.no_action

    @torch.inference_mode()
    def frame() -> None:
        for _ in range(path.steps):
            dynamics.logits(dynamics(tokens, actions)[:, -1])

    return frame


def in_turn(works: dict[str, Callable[[], None]], rounds: int = 10, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each piece of work, `rounds` times in turn, so that their ratios hold on a busy machine."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    spent: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warm_up + rounds):
        for name, work in works.items():
            started = clock()
            work()
            if turn >= warm_up:
                spent[name].append(clock() - started)
    return spent


def _window(dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """A window of random frames (1, W, N) and their actions (1, W)."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, dynamics.config.window, dynamics.n_tokens)
    device = dynamics.head.weight.device
    tokens = torch.randint(0, dynamics.codes, shape, generator=generator).to(device)
    return tokens, torch.randint(0, N_ACTIONS, shape[:2], generator=generator).to(device)
