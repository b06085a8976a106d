"""`ops.reveal` as a fixed list of operations: seed and frame are read from device memory, nothing goes to the host.

The same draws as `ops.reference`, bit for bit; for the static frame (`graph.py`) where no kernel of a backend takes
its key from memory. Knows nothing of networks, caches or pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genie_play import philox
from genie_play.ops.reference import Revealed, embed, gumbel, inverse_cdf, most_confident

_MUL_A, _MUL_B = 0xD2511F53, 0xCD9E8D57
_KEY_A, _KEY_B = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF


class Key(NamedTuple):
    """What the draws of a frame depend on, in device memory: seed (1,) int64, its 64 bits, and frame (1,) int64."""

    seed: Tensor
    frame: Tensor


def philox_words(key: Key, c0: Tensor, c1: Tensor, c2: int) -> list[Tensor]:
    """The four words, int64 below 2**32, of counters (c0, c1, c2, frame); int64 tensors that broadcast."""
    k0, k1 = key.seed & _MASK, key.seed >> 32 & _MASK
    zero = torch.zeros_like(c0 + c1)
    w = [zero + c0, zero + c1, zero + (c2 & _MASK), zero + (key.frame & _MASK)]
    for _ in range(10):
        # a product of two 32-bit numbers wraps around in int64, and its bits are right all the same
        a, b = w[0] * _MUL_A, w[2] * _MUL_B
        w = [(b >> 32 & _MASK) ^ w[1] ^ k0, b & _MASK, (a >> 32 & _MASK) ^ w[3] ^ k1, a & _MASK]
        k0, k1 = (k0 + _KEY_A) & _MASK, (k1 + _KEY_B) & _MASK
    return w


def uniform(words: Tensor) -> Tensor:
    """Words to float32 in (0, 1), as `philox.uniform`."""
    return (((words >> 8).float() + 0.5) * 2.0**-24).clamp_max(1.0 - 2.0**-24)


def token_uniforms(key: Key, positions: Tensor, codes: int, step: int) -> Tensor:
    """(R, V), as `philox.token_uniforms`."""
    groups = torch.arange((codes + 3) // 4, device=positions.device)
    words = philox_words(key, groups[None, :], positions[:, None], 2 * step + philox.TOKEN_NOISE)
    return uniform(torch.stack(words, -1).flatten(1)[:, :codes])


def position_uniforms(key: Key, positions: Tensor, step: int, purpose: int = philox.CHOICE_NOISE) -> Tensor:
    """(R,), as `philox.position_uniforms`."""
    return uniform(philox_words(key, torch.zeros_like(positions), positions, 2 * step + purpose)[0])


def reveal(
    hidden: Tensor,
    head: Tensor,
    tokens: Tensor,
    table: Tensor,
    base: Tensor,
    key: Key,
    step: int,
    which: Tensor | int,
    temperature: float,
    *,
    variant: str = "gumbel",
    choice_temperature: float = 0.0,
) -> Revealed:
    """As `ops.reference.reveal` under the noise (seed, frame, step)."""
    n_tokens, ranked = tokens.shape[1], isinstance(which, int)
    # a rank compares positions; which of them are hidden is known to the device alone, so all are drawn
    positions = torch.arange(n_tokens, device=tokens.device) if isinstance(which, int) else which
    masked = (tokens == len(head)).index_select(1, positions)
    scaled = F.linear(hidden.index_select(1, positions).float(), head.float())  # (B, R, V)
    if temperature:
        scaled = scaled * (1.0 / temperature)
    if not temperature:
        best, codes = scaled.max(-1)
    elif variant == "gumbel":
        best, codes = (scaled + gumbel(token_uniforms(key, positions, len(head), step))).max(-1)
    else:
        best, codes = inverse_cdf(scaled, position_uniforms(key, positions, step, philox.TOKEN_NOISE))
    if ranked:
        confidence = scaled.gather(-1, codes[..., None])[..., 0] - scaled.logsumexp(-1)
        if choice_temperature:
            confidence = confidence + choice_temperature * gumbel(position_uniforms(key, positions, step))
        keep = most_confident(confidence.masked_fill(~(masked & best.isfinite()), -torch.inf), int(which))
    else:
        keep = masked & best.isfinite()
    tokens = tokens.index_copy(1, positions, torch.where(keep, codes, tokens.index_select(1, positions)))
    return Revealed(tokens, embed(tokens, table, base))
