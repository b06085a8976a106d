"""The operations that fill in a frame of tokens, in plain torch: the specification every backend is held to.

One MaskGIT pass ends in `reveal`: the head, a draw for each hidden position, the choice of which draws to keep, and the
embedding that the next pass starts from. Noise is a function of (seed, frame, step, position, code) and never of the
batch, so hypotheses that differ in their action share their draws. Knows nothing of networks, caches or pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genie_play import philox

VARIANTS = ("gumbel", "inverse")


class Noise(NamedTuple):
    """What the draws of one pass depend on beside code and position: 64-bit seed, frame index, pass of the frame."""

    seed: int
    frame: int
    step: int


class Revealed(NamedTuple):
    """Tokens (B, N) int64 after a pass, V where still hidden, and x (B, N, D), what the next pass starts from."""

    tokens: Tensor
    x: Tensor


def embed(tokens: Tensor, table: Tensor, base: Tensor) -> Tensor:
    """Rows of `table` (V + 1, D), the last one the mask's, for tokens (B, N), plus `base` (B or 1, N or 1, D)."""
    return F.embedding(tokens, table) + base


def reveal(
    hidden: Tensor,
    head: Tensor,
    tokens: Tensor,
    table: Tensor,
    base: Tensor,
    noise: Noise,
    which: Tensor | int,
    temperature: float,
    *,
    variant: str = "gumbel",
    choice_temperature: float = 0.0,
) -> Revealed:
    """Draw codes for hidden positions, keep some of them, and embed the result. Inputs stay as they are.

    hidden (B, N, D) and head (V, D) in float32 or bfloat16; tokens (B, N) int64, V where hidden; `table` and `base` as
    in `embed`. `which` is an int64 tensor (R,) of distinct positions (fixed orders), or how many positions of each row
    of the batch to reveal (confidence order). What is revealed stays, and so does everything outside `which`.

    With logits l = hidden @ head.T in float32 and s = l / temperature, the code at position i is

        argmax_v s[i, v] + G(u[i, v]),  G(u) = -log(-log u)     variant "gumbel": a draw of softmax(s)
        min v with cumsum(softmax(s[i]))[v] > u[i]              variant "inverse": the same, one uniform a position
        argmax_v l[i, v]                                        at temperature 0, where s = l

    ties to the lowest code. u comes from Philox counters (v // 4, i, 2 * step, frame) under the key `seed`, see
    `genie_play.philox`. The confidence of a draw is log softmax(s)[i, code] + choice_temperature * G(u'[i]), u' from
    counter (0, i, 2 * step + 1, frame); the `which` most confident hidden positions are kept, ties to the lowest.

    A position whose logits are not finite stays hidden: a V after the last pass means that the network is broken.
    """
    _check(hidden, head, tokens, table, which, temperature)
    if variant not in VARIANTS:
        raise ValueError(f"no variant is called {variant!r}; there are {', '.join(VARIANTS)}")
    masked = tokens == len(head)
    positions = masked.any(0).nonzero()[:, 0] if isinstance(which, int) else which
    if len(positions) == 0:
        return Revealed(tokens.clone(), embed(tokens, table, base))
    if isinstance(which, int):
        codes, confidence = _draw(hidden, head, noise, positions, temperature, variant, choice_temperature)
        keep = _most_confident(confidence.masked_fill(~masked[:, positions], -torch.inf), which)
    else:
        codes, confidence = _draw(hidden, head, noise, positions, temperature, variant)
        keep = masked[:, positions] & (confidence > -torch.inf)
    tokens = tokens.index_copy(1, positions, torch.where(keep, codes, tokens[:, positions]))
    return Revealed(tokens, embed(tokens, table, base))


def temporal(q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, bias: Tensor) -> Tensor:
    """Attention along time of one frame, at every place and head by itself: over a ring of frames before and itself.

    q, k, v (B, N, h, hd) of the frame, queries scaled already; ring_k and ring_v (B or 1, N, h, P, hd), where 1 serves
    all rows of the batch; bias (h, P + 1) is added to the scores, the last column for the frame itself, -inf where a
    slot is not seen. With scores s_p = q . ring_k[p] + bias[p] and s_P = q . k + bias[P], in float32,

        sum_p softmax(s)_p ring_v[p] + softmax(s)_P v        (B, N, h, hd)

    What lies in a slot that is not seen must be finite, and does not matter.
    """
    own = (q * k).sum(-1, keepdim=True)  # (B, N, h, 1)
    before = (ring_k @ q[..., None])[..., 0]  # (B, N, h, P)
    weights = (torch.cat((before, own), -1).float() + bias).softmax(-1).to(v.dtype)
    return (weights[..., None, :-1] @ ring_v)[..., 0, :] + weights[..., -1:] * v


def to_picture(pixels: Tensor) -> Tensor:
    """Pixels (..., 3) in about 0..1 to uint8: clamped, times 255, rounded half up."""
    return (pixels.float().clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8)


def _draw(
    hidden: Tensor,
    head: Tensor,
    noise: Noise,
    positions: Tensor,
    temperature: float,
    variant: str,
    choice_temperature: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Codes (B, R) at the positions and their confidence, -inf where logits are not finite.

    Without a choice temperature the order is fixed and nobody ranks: any finite number stands for the confidence.
    """
    scaled = F.linear(hidden.index_select(1, positions).float(), head.float())  # (B, R, V)
    if temperature:
        scaled = scaled * (1.0 / temperature)
    if not temperature:
        best, codes = scaled.max(-1)
    elif variant == "gumbel":
        best, codes = (scaled + _gumbel(_token_uniforms(noise, positions, len(head)))).max(-1)
    else:
        best, codes = _inverse(scaled, _position_uniforms(noise, positions, philox.TOKEN_NOISE))
    broken = ~best.isfinite()
    if choice_temperature is None:
        return codes, best.masked_fill(broken, -torch.inf)
    confidence = scaled.gather(-1, codes[..., None])[..., 0] - scaled.logsumexp(-1)
    if choice_temperature:
        confidence += choice_temperature * _gumbel(_position_uniforms(noise, positions, philox.CHOICE_NOISE))
    return codes, confidence.masked_fill(broken, -torch.inf)


def _inverse(scaled: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """The first code at which the cumulative distribution passes the uniform of its position (R,), and its logit."""
    total = scaled.softmax(-1).cumsum(-1)  # (B, R, V)
    target = (uniforms[:, None] * total[..., -1:]).contiguous()
    # rounding can leave the target at the very end; the last code is then as good as drawn
    codes = torch.searchsorted(total, target, right=True).clamp_(max=scaled.shape[-1] - 1)
    # the total is not a number where any logit is not finite
    return scaled.gather(-1, codes)[..., 0] + 0 * total[..., -1], codes[..., 0]


def _most_confident(confidence: Tensor, count: int) -> Tensor:
    """Which of (B, R) are among the `count` highest above -inf; ties to the lowest index, so never more than count."""
    place = torch.arange(confidence.shape[1], device=confidence.device)
    mine, other = confidence[:, :, None], confidence[:, None, :]
    rank = ((other > mine) | ((other == mine) & (place < place[:, None]))).sum(-1)
    return (rank < count) & (confidence > -torch.inf)


def _gumbel(uniforms: Tensor) -> Tensor:
    return uniforms.log().neg_().log_().neg_()


def _token_uniforms(noise: Noise, positions: Tensor, codes: int) -> Tensor:
    """(R, V) float32."""
    drawn = philox.token_uniforms(noise.seed, _on_host(positions), codes, noise.step, noise.frame)
    return torch.from_numpy(drawn).to(positions.device)


def _position_uniforms(noise: Noise, positions: Tensor, purpose: int) -> Tensor:
    """(R,) float32."""
    drawn = philox.position_uniforms(noise.seed, _on_host(positions), noise.step, noise.frame, purpose)
    return torch.from_numpy(drawn).to(positions.device)


def _on_host(positions: Tensor) -> np.ndarray:
    return positions.cpu().numpy()


def _check(
    hidden: Tensor, head: Tensor, tokens: Tensor, table: Tensor, which: Tensor | int, temperature: float
) -> None:
    if hidden.dim() != 3 or tokens.shape != hidden.shape[:2]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)} and tokens {tuple(tokens.shape)} should be (B, N, D) and (B, N)"
        )
    if head.shape[1] != hidden.shape[2] or len(table) != len(head) + 1:
        raise ValueError(f"head {tuple(head.shape)} should be (V, D) and table {tuple(table.shape)} one row longer")
    if isinstance(which, int) and which < 0:
        raise ValueError("the count of positions to reveal is negative")
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"temperature {temperature} should be 0 or more")
