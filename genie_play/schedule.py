"""When MaskGIT reveals which position: how many a step, and in what order.

Chang et al. 2022 (MaskGIT) for the cosine schedule; Besnier et al. 2025 (Halton-MaskGIT) for the Halton order.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from genie_play import philox

ORDERS = ("halton", "random", "confidence")


@lru_cache(maxsize=64)
def reveal_counts(n_tokens: int, steps: int) -> tuple[int, ...]:
    """How many tokens each step reveals under the cosine schedule: `min(steps, n_tokens)` counts, each 1 or more.

    The tokens still hidden after step s are floor(n * cos(pi/2 * (s+1)/S)), held so that every step reveals one.
    """
    if n_tokens < 1 or steps < 1:
        raise ValueError("a frame has one token or more and takes one step or more")
    steps = min(steps, n_tokens)
    counts, hidden = [], n_tokens
    for step in range(steps):
        left = steps - 1 - step
        after = math.floor(n_tokens * math.cos(math.pi / 2 * (step + 1) / steps) + 1e-9) if left else 0
        after = min(max(after, left), hidden - 1)
        counts.append(hidden - after)
        hidden = after
    return tuple(counts)


@lru_cache(maxsize=16)
def halton_order(rows: int, columns: int) -> NDArray[np.int64]:
    """The positions of a grid in Halton order (bases 2 and 3): a permutation of range(rows * columns)."""
    seen: dict[int, None] = {}
    index = 1
    while len(seen) < rows * columns:
        y, x = int(_radical_inverse(index, 2) * rows), int(_radical_inverse(index, 3) * columns)
        seen.setdefault(y * columns + x, None)
        index += 1
    return np.fromiter(seen, dtype=np.int64)


def random_order(n_tokens: int, seed: int, frame: int) -> NDArray[np.int64]:
    """A permutation of range(n_tokens) that depends on the seed and the frame alone."""
    noise = philox.position_uniforms(seed, np.arange(n_tokens), philox.ORDER_STEP, frame)
    return np.argsort(noise, kind="stable").astype(np.int64)


def reveal_plan(grid: tuple[int, int], steps: int, order: str, seed: int, frame: int) -> list[NDArray[np.int64]]:
    """The positions revealed at each step, for the fixed orders ("halton", "random"); their union is the grid."""
    n_tokens = grid[0] * grid[1]
    if order == "halton":
        positions = halton_order(*grid)
    elif order == "random":
        positions = random_order(n_tokens, seed, frame)
    else:
        raise ValueError(f"order {order!r} has no positions known ahead")
    return np.split(positions, np.cumsum(reveal_counts(n_tokens, steps))[:-1])


def _radical_inverse(index: int, base: int) -> float:
    value, scale = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        scale /= base
        value += digit * scale
    return value
