"""What a frame costs in arithmetic and in memory traffic, counted from the config alone, and the least time that takes.

FLOPs are those of matrix products, attention and convolutions, a multiplication and an addition each; norms, softmax
and noise are left out. Bytes are the least that must move: weights and caches read once a pass, what is kept written
once, each stage's input and output once; everything between stays on the chip. Every row is counted in every layer: an
engine that leaves some out of the last one does a little less than its floor. Knows nothing of torch or clocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from genie_play import schedule
from genie_play.config import LOOK_OFFSETS, LOOK_WAYS, PathConfig, TokenizerConfig, WorldConfig

# bytes of a weight, and of everything else (activations, keys and values), in each arithmetic
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1}
VALUE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 4, "fp8": 2}


@dataclass(frozen=True)
class Cost:
    """FLOPs and bytes of one thing; things add up, and repeat."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.flops * times, self.bytes * times)


@dataclass(frozen=True)
class Stack:
    """A stack of ST blocks over one frame against its past."""

    layers: int
    tokens: int
    width: int
    inner: int  # heads x head size
    hidden: int  # of the feed-forward
    window: int
    cross_frame: bool  # a frame reads the keys of the frame before it too
    rows: int = 1  # frames side by side over one past

    @property
    def products(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each projection of a block, in order."""
        attention = [(self.width, 3 * self.inner), (self.inner, self.width)]
        return [*attention, *attention, (self.width, self.hidden), (self.hidden, self.width)]

    def projections(self, weight: int, value: int) -> Cost:
        """Projections and feed-forward of all layers."""
        numbers = sum(a * b for a, b in self.products)
        moved = self.layers * numbers * weight + 2 * self.rows * self.tokens * self.width * value
        return Cost(2.0 * self.layers * self.rows * self.tokens * numbers, moved)

    def spatial(self, value: int) -> Cost:
        """Attention inside the frame, and to the frame before it."""
        seen = self.tokens * (1 + self.cross_frame)
        cached = 2 * self.tokens * self.inner * value if self.cross_frame else 0
        own = 4 * self.rows * self.tokens * self.inner * value  # queries, keys and values in, what was seen out
        return Cost(4.0 * self.layers * self.rows * self.tokens * seen * self.inner, self.layers * (cached + own))

    def temporal(self, value: int) -> Cost:
        """Attention of each place to its own past, the ring full, and to itself."""
        cached = 2 * self.tokens * (self.window - 1) * self.inner * value
        own = 4 * self.rows * self.tokens * self.inner * value
        flops = 4.0 * self.layers * self.rows * self.tokens * self.window * self.inner
        return Cost(flops, self.layers * (cached + own))

    def kept(self, value: int) -> Cost:
        """Writing the frame's keys and values to the ring."""
        return Cost(0.0, 2.0 * self.layers * self.tokens * self.inner * (1 + self.cross_frame) * value)

    def run(self, weight: int, value: int) -> Cost:
        """One pass over the frame."""
        return self.projections(weight, value) + self.spatial(value) + self.temporal(value)


def dynamics_stack(config: WorldConfig) -> Stack:
    """The dynamics model's blocks."""
    d = config.dynamics
    cross = d.recipe == "teacher"
    inner, hidden = d.heads * d.head_dim, int(d.width * d.ffn)
    return Stack(d.layers, config.tokenizer.n_tokens, d.width, inner, hidden, d.window, cross)


def decoder_stack(config: TokenizerConfig) -> Stack:
    """The decoder's blocks."""
    inner, hidden = config.decoder_heads * config.head_dim, int(config.decoder_width * config.ffn)
    return Stack(config.decoder_layers, config.n_tokens, config.decoder_width, inner, hidden, config.window, False)


def stages(config: WorldConfig, path: PathConfig) -> dict[str, Cost]:
    """The cost of each stage, once; `repeats` says how often a frame has it.

    "pass" is one MaskGIT pass through the blocks and holds the three after it; "frame" is everything.
    """
    weight, value = WEIGHT_BYTES[path.arithmetic], VALUE_BYTES[path.arithmetic]
    alone, codes = dynamics_stack(config), config.tokenizer.codes
    stack = replace(alone, rows=rows_a_pass(path))
    embed = Cost(float(stack.tokens * stack.width), 3.0 * stack.tokens * stack.width * value)
    one = stack.run(weight, value)
    head = _head(config, path, value)
    decode = _decode(config.tokenizer, weight, value)
    pixels = 3 * config.tokenizer.height * config.tokenizer.width
    found = {
        "embed": embed,
        "pass": one,
        "spatial attention": stack.spatial(value),
        "temporal attention": stack.temporal(value),
        "projections and feed-forward": stack.projections(weight, value),
        "head and sampling": Cost(head.flops, head.bytes + codes * stack.width * value),
        "commit": embed + alone.run(weight, value) + alone.kept(value),
        "decode": decode + decoder_stack(config.tokenizer).kept(value),
        "to picture": Cost(0.0, pixels * (value + 1.0)),
    }
    often = repeats(config, path)
    whole = Cost()
    for name in ("embed", "pass", "head and sampling", "commit", "decode", "to picture"):
        whole += found[name] * often[name]
    return found | {"frame": whole}


def rows_a_pass(path: PathConfig) -> int:
    """Rows of the batch for each frame that is filled in: guidance also asks what no action would give."""
    return 1 if path.guidance == 1.0 else 2


def repeats(config: WorldConfig, path: PathConfig) -> dict[str, int]:
    """How often a frame has each stage."""
    passes = len(schedule.reveal_counts(config.tokenizer.n_tokens, path.steps))
    inside = ("pass", "spatial attention", "temporal attention", "projections and feed-forward", "head and sampling")
    return {"embed": 1, **dict.fromkeys(inside, passes), "commit": 1, "decode": 1, "to picture": 1, "frame": 1}


def floors(
    config: WorldConfig, path: PathConfig, flops_per_s: float, bytes_per_s: float, values_per_s: float | None = None
) -> dict[str, float]:
    """The least seconds of each stage. A frame's are those of its stages one after another.

    `values_per_s` is the rate in the arithmetic of the values, where it is another than that of the weights: attention,
    head and decoder run in it, and only projections in the quicker one.
    """
    values = values_per_s or flops_per_s
    found = {}
    cost = stages(config, path)
    products = cost["projections and feed-forward"].flops
    for name, one in cost.items():
        quick = products if name in ("pass", "commit", "projections and feed-forward") else 0.0
        quick = quick / rows_a_pass(path) if name == "commit" else quick
        found[name] = max(quick / flops_per_s + (one.flops - quick) / values, one.bytes / bytes_per_s)
    often = repeats(config, path)
    apart = ("embed", "pass", "head and sampling", "commit", "decode", "to picture")
    return found | {"frame": sum(found[name] * often[name] for name in apart)}


def recomputed(config: WorldConfig, path: PathConfig) -> Cost:
    """A frame of the dynamics model without a cache: the whole window through the blocks at every pass."""
    weight, value = WEIGHT_BYTES[path.arithmetic], VALUE_BYTES[path.arithmetic]
    stack = replace(dynamics_stack(config), rows=rows_a_pass(path))
    window = stack.window
    one = stack.projections(weight, value) + stack.spatial(value) * window + stack.temporal(value) * window
    once = Cost(2.0 * stack.tokens * stack.width * config.tokenizer.codes)
    products = stack.projections(weight, value).flops * (window - 1)
    return (one + Cost(products) + once) * repeats(config, path)["pass"]


def dynamics_numbers(config: WorldConfig) -> int:
    """Numbers that a pass of the dynamics model reads: its projections and its head."""
    stack = dynamics_stack(config)
    return stack.layers * sum(a * b for a, b in stack.products) + config.tokenizer.codes * stack.width


def ring_bytes(stack: Stack, value: int) -> int:
    """Keys and values that a ring holds of all layers, the undo's copies left out."""
    spatial = stack.tokens * stack.inner * stack.cross_frame
    return 2 * stack.layers * (stack.tokens * (stack.window - 1) * stack.inner + spatial) * value


def _head(config: WorldConfig, path: PathConfig, value: int) -> Cost:
    """The head of one pass, on average: on the rows revealed in fixed orders, on all hidden rows in confidence."""
    tokens, width, codes = config.tokenizer.n_tokens, config.dynamics.width, config.tokenizer.codes
    counts = schedule.reveal_counts(tokens, path.steps)
    rows = tokens
    if path.order == "confidence":
        rows = sum(tokens - sum(counts[:step]) for step in range(len(counts)))
    rows_a_pass = rows / len(counts)
    return Cost(2.0 * rows_a_pass * width * codes, 2.0 * tokens * width * value)


def _decode(config: TokenizerConfig, weight: int, value: int) -> Cost:
    stack = decoder_stack(config)
    enter = Cost(2.0 * config.n_tokens * config.code_dim * config.decoder_width)
    cost = enter + stack.run(weight, value)
    rows, columns = config.grid
    for height, width, channels, out, size in _convolutions(config):
        numbers = channels * out * size * size
        places = rows * height * columns * width
        # convolutions run in the arithmetic of the values, whatever the projections do
        cost += Cost(2.0 * places * numbers, numbers * min(value, 4))
    if config.look:
        cost += _recall(config, value)
    return cost + Cost(0.0, 3.0 * config.height * config.width * value)


def _recall(config: TokenizerConfig, value: int) -> Cost:
    """Looking up what a given picture is like: codes against latents, pieces mixed, a hint to each token, channels."""
    tokens, pieces, patch = config.n_tokens, LOOK_OFFSETS**2 * config.n_tokens, 3 * math.prod(config.patch_size)
    seen = LOOK_WAYS * patch
    cost = Cost(2.0 * tokens * pieces * config.code_dim, 4.0 * pieces * config.code_dim)
    cost += Cost(2.0 * LOOK_WAYS * tokens * pieces * patch, 4.0 * pieces * patch)
    cost += Cost(2.0 * tokens * seen * config.decoder_width, seen * config.decoder_width * min(value, 4))
    finer = math.prod(config.cells)
    numbers = seen // finer * config.stem * 9  # channels of the pixels of a finer place, 3 x 3 places
    return cost + Cost(2.0 * finer * tokens * numbers, numbers * min(value, 4))


def _convolutions(config: TokenizerConfig) -> list[tuple[int, int, int, int, int]]:
    """(rows and columns of output a token, channels in, channels out, size) of the decoder's convolutions."""
    width, stem, out = config.decoder_width, config.stem, 3 * config.cell**2
    if config.trunk == "patch":
        return [(1, 1, width, out, 1)]
    finer = config.cells
    return [
        *[(1, 1, width, width, 3)] * (2 * config.decoder_blocks),
        (1, 1, width, math.prod(finer) * stem, 3),
        *[(*finer, stem, stem, 3)] * 4,
        (*finer, stem, out, 3),
    ]
