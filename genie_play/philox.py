"""Philox4x32-10: noise as a pure function of (seed, code, position, step, frame), in NumPy.

The integers equal those of Triton's `tl.philox` (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
so kernel and twin draw the same bits. Nothing is stored: to rewind is to ask again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

TOKEN_NOISE, CHOICE_NOISE = 0, 1  # purposes: counter word 2 is 2 * step + purpose
ORDER_STEP = 0x40000000  # a step no sampler reaches: its choice noise shuffles the order of a frame

_MUL_A, _MUL_B = 0xD2511F53, 0xCD9E8D57
_KEY_A, _KEY_B = 0x9E3779B9, 0xBB67AE85
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(seed: int, c0: ArrayLike, c1: ArrayLike, c2: ArrayLike, c3: ArrayLike) -> tuple[NDArray[np.uint32], ...]:
    """Return the four uint32 words of counter (c0, c1, c2, c3), broadcast, under the 64-bit key `seed`."""
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    # words that do not differ along an axis yet stay short: they are stretched by what they meet
    w0, w1, w2, w3 = (np.asarray(c).astype(np.uint64) & _MASK for c in (c0, c1, c2, c3))
    for _ in range(10):
        a, b = w0 * np.uint64(_MUL_A), w2 * np.uint64(_MUL_B)
        w0, w1, w2, w3 = (b >> _SHIFT) ^ w1 ^ np.uint64(k0), b & _MASK, (a >> _SHIFT) ^ w3 ^ np.uint64(k1), a & _MASK
        k0, k1 = (k0 + _KEY_A) & 0xFFFFFFFF, (k1 + _KEY_B) & 0xFFFFFFFF
    return tuple(w.astype(np.uint32) for w in (w0, w1, w2, w3))


def uniform(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Map words to (0, 1), never 0 or 1: (top 24 bits + 0.5) / 2**24, exact in float32 except at the upper end.

    The one value that would round to 1 is held at the largest float32 below it.
    """
    u: NDArray[np.float32] = (words >> np.uint32(8)).astype(np.float32)
    u = (u + np.float32(0.5)) * np.float32(2.0**-24)
    return np.minimum(u, np.float32(1.0 - 2.0**-24))


def token_uniforms(
    seed: int, positions: ArrayLike, codes: int, step: int, frame: int, purpose: int = TOKEN_NOISE
) -> NDArray[np.float32]:
    """Uniforms for every code at each position: (len(positions), codes) float32.

    Counter = (code // 4, position, 2 * step + purpose, frame); the four words serve four neighbouring codes.
    """
    groups = np.arange((codes + 3) // 4)[None, :]
    words = philox(seed, groups, np.asarray(positions)[:, None], 2 * step + purpose, frame)
    return uniform(np.stack(words, axis=-1).reshape(len(np.asarray(positions)), -1)[:, :codes])


def position_uniforms(
    seed: int, positions: ArrayLike, step: int, frame: int, purpose: int = CHOICE_NOISE
) -> NDArray[np.float32]:
    """One uniform per position, (n,) float32: word 0 of counter (0, position, 2 * step + purpose, frame)."""
    return uniform(philox(seed, 0, np.asarray(positions), 2 * step + purpose, frame)[0])
