"""The operations that fill in a frame of tokens, in plain torch: the specification every backend is held to.

One MaskGIT pass ends in `reveal`: the head, a draw for each hidden position, the choice of which draws to keep, and the
embedding that the next pass starts from. Noise is a function of (seed, frame, step, position, code) and never of the
batch, so hypotheses that differ in their action share their draws. At either end of the tokenizer stand `nearest` and
`picture`; what lies between, layer by layer, is in `reference_layers`. Knows nothing of networks or caches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genie_play import philox
from genie_play.ops.reference_layers import add_product as add_product
from genie_play.ops.reference_layers import feed_in as feed_in
from genie_play.ops.reference_layers import layer as layer
from genie_play.ops.reference_layers import project_heads as project_heads
from genie_play.ops.reference_layers import quantize_rows as quantize_rows
from genie_play.ops.reference_layers import spatial as spatial
from genie_play.ops.reference_layers import temporal as temporal

VARIANTS = ("gumbel", "inverse")


class Noise(NamedTuple):
    """What the draws of one pass depend on beside code and position: 64-bit seed, frame index, pass of the frame."""

    seed: int
    frame: int
    step: int


class Dials(NamedTuple):
    """What the draws of a pass depend on, in device memory: a captured graph is replayed with other values in place.

    `pack` makes the rows of all passes of a frame, `at` is one pass of them.
    """

    integers: Tensor  # (..., 3) int64: seed (its 64 bits), frame, step
    floats: Tensor  # (..., 2) float32: 1 / temperature, 0 where greedy; choice temperature

    def at(self, step: int) -> Dials:
        """The dials of one pass, as views."""
        return Dials(self.integers[step], self.floats[step])

    def to(self, device: torch.device | str) -> Dials:
        """On another device."""
        return Dials(self.integers.to(device), self.floats.to(device))

    def read(self) -> tuple[Noise, float, float]:
        """Noise, 1 / temperature or 0, and choice temperature of one pass, on the host; this waits for the device."""
        seed, frame, step = self.integers.tolist()
        inverse, choice = self.floats.tolist()
        return Noise(seed & 0xFFFFFFFFFFFFFFFF, frame, step), inverse, choice


class Revealed(NamedTuple):
    """Tokens (B, N) int64 after a pass, V where still hidden, and x (B, N, D), what the next pass starts from."""

    tokens: Tensor
    x: Tensor


def pack(passes: Sequence[tuple[Noise, float, float]]) -> Dials:
    """Dials (S, 3), (S, 2) on the host from the (noise, temperature, choice temperature) of each pass of a frame."""
    integers = [((noise.seed + 2**63) % 2**64 - 2**63, noise.frame, noise.step) for noise, _, _ in passes]
    floats = [(inverse_of(temperature), choice) for _, temperature, choice in passes]
    return Dials(torch.tensor(integers, dtype=torch.int64), torch.tensor(floats, dtype=torch.float32))


def embed(tokens: Tensor, table: Tensor, base: Tensor) -> Tensor:
    """Rows of `table` (V + 1, D), the last one the mask's, for tokens (B, N), plus `base` (B or 1, N or 1, D)."""
    return F.embedding(tokens, table) + base


def reveal(
    hidden: Tensor,
    head: Tensor,
    tokens: Tensor,
    table: Tensor,
    base: Tensor,
    noise: Noise | Dials,
    which: Tensor | int,
    temperature: float = 1.0,
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

    A position whose logits are not finite stays hidden: a V after the last pass means that the network is broken. With
    `Dials` for noise both temperatures are theirs, and the arguments are not read.
    """
    check(hidden, head, tokens, table, which, temperature)
    inverse = inverse_of(temperature)
    if isinstance(noise, Dials):
        noise, inverse, choice_temperature = noise.read()
    if variant not in VARIANTS:
        raise ValueError(f"no variant is called {variant!r}; there are {', '.join(VARIANTS)}")
    masked = tokens == len(head)
    positions = masked.any(0).nonzero()[:, 0] if isinstance(which, int) else which
    if len(positions) == 0:
        return Revealed(tokens.clone(), embed(tokens, table, base))
    if isinstance(which, int):
        codes, confidence = _draw(hidden, head, noise, positions, inverse, variant, choice_temperature)
        keep = most_confident(confidence.masked_fill(~masked[:, positions], -torch.inf), which)
    else:
        codes, confidence = _draw(hidden, head, noise, positions, inverse, variant)
        keep = masked[:, positions] & (confidence > -torch.inf)
    tokens = tokens.index_copy(1, positions, torch.where(keep, codes, tokens[:, positions]))
    return Revealed(tokens, embed(tokens, table, base))


def nearest(points: Tensor, codes: Tensor) -> Tensor:
    """The code (R,) int64 with the largest product with each point, ties to the lowest: of unit vectors, the nearest.

    points (R, d) and codes (V, d), multiplied in float32.
    """
    return (points.float() @ codes.float().T).argmax(-1)


def to_picture(pixels: Tensor) -> Tensor:
    """Pixels (..., 3) in about 0..1 to uint8: clamped, times 255, rounded half up."""
    return (pixels.float().clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8)


def picture(patches: Tensor, size: tuple[int, int], broken: Tensor | None = None) -> Tensor:
    """What a decoder's last convolution gives, (B, 3 * r * r, rows, columns) about -1..1, to uint8 (B, H, W, 3).

    Each place holds r x r pixels, channel by channel (a pixel shuffle); the picture is cut to `size` from the top left:

        picture[b, y, x, c] = to_picture(patches[b, c * r * r + (y % r) * r + x % r, y // r, x // r] / 2 + 1 / 2)

    `broken`, int32 of one element on the device, is set to 1 where a pixel of the picture is not finite.
    """
    pixels = F.pixel_shuffle(patches.float(), patch_side(patches, size))[:, :, : size[0], : size[1]]
    pixels = pixels.permute(0, 2, 3, 1) * 0.5 + 0.5
    if broken is not None:
        broken.masked_fill_(~pixels.isfinite().all(), 1)
    return to_picture(pixels)


def patch_side(patches: Tensor, size: tuple[int, int]) -> int:
    """Pixels along a side of a patch (B, 3 * r * r, rows, columns); ValueError where they do not fill the size."""
    side = math.isqrt(patches.shape[1] // 3)
    if 3 * side * side != patches.shape[1] or side * patches.shape[2] < size[0] or side * patches.shape[3] < size[1]:
        raise ValueError(f"patches {tuple(patches.shape)} do not make a picture of {tuple(size)}")
    return side


def _draw(
    hidden: Tensor,
    head: Tensor,
    noise: Noise,
    positions: Tensor,
    inverse: float,
    variant: str,
    choice_temperature: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Codes (B, R) at the positions and their confidence, -inf where logits are not finite.

    `inverse` is 1 / temperature, 0 where greedy. Without a choice temperature the order is fixed and nobody ranks: any
    finite number stands for the confidence.
    """
    scaled = F.linear(hidden.index_select(1, positions).float(), head.float())  # (B, R, V)
    if inverse:
        scaled = scaled * inverse
    if not inverse:
        best, codes = scaled.max(-1)
    elif variant == "gumbel":
        best, codes = (scaled + gumbel(_token_uniforms(noise, positions, len(head)))).max(-1)
    else:
        best, codes = inverse_cdf(scaled, _position_uniforms(noise, positions, philox.TOKEN_NOISE))
    broken = ~best.isfinite()
    if choice_temperature is None:
        return codes, best.masked_fill(broken, -torch.inf)
    confidence = scaled.gather(-1, codes[..., None])[..., 0] - scaled.logsumexp(-1)
    if choice_temperature:
        confidence += choice_temperature * gumbel(_position_uniforms(noise, positions, philox.CHOICE_NOISE))
    return codes, confidence.masked_fill(broken, -torch.inf)


def inverse_cdf(scaled: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """The first code at which the cumulative distribution passes the uniform of its position (R,), and its logit."""
    total = scaled.softmax(-1).cumsum(-1)  # (B, R, V)
    target = (uniforms[:, None] * total[..., -1:]).contiguous()
    # rounding can leave the target at the very end; the last code is then as good as drawn
    codes = torch.searchsorted(total, target, right=True).clamp_(max=scaled.shape[-1] - 1)
    # the total is not a number where any logit is not finite
    return scaled.gather(-1, codes)[..., 0] + 0 * total[..., -1], codes[..., 0]


def most_confident(confidence: Tensor, count: int) -> Tensor:
    """Which of (B, R) are among the `count` highest above -inf; ties to the lowest index, so never more than count."""
    place = torch.arange(confidence.shape[1], device=confidence.device)
    mine, other = confidence[:, :, None], confidence[:, None, :]
    rank = ((other > mine) | ((other == mine) & (place < place[:, None]))).sum(-1)
    return (rank < count) & (confidence > -torch.inf)


def inverse_of(temperature: float) -> float:
    """What logits are multiplied by before the draw; 0, which no temperature gives, stands for temperature 0."""
    return 1.0 / temperature if temperature else 0.0


def gumbel(uniforms: Tensor) -> Tensor:
    """-log(-log(u)) of uniforms in (0, 1), elementwise."""
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


def check(hidden: Tensor, head: Tensor, tokens: Tensor, table: Tensor, which: Tensor | int, temperature: float) -> None:
    """ValueError names what does not fit in the arguments of `reveal`."""
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
