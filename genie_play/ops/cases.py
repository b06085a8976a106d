"""Every kernel at a given size, with what it has to move and to compute: for self-checks, compilation ahead and clocks.

A `Case` is a call of one op on random arguments. `cases(sizes(world_config), "cuda", torch.bfloat16)` are those of a
world; `SMALL` is odd on purpose and quick everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from genie_play.config import WorldConfig
from genie_play.ops import reference
from genie_play.ops.reference_layers import Entry, Heads, Layer, Rotary

# of the largest number in a result: what rounding may change
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2**-6, torch.float8_e4m3fn: 2**-3}
ACTIONS = 8  # hypotheses over one ring
PASSES = 4  # of a frame: a quarter of the positions is revealed at a time


@dataclass(frozen=True)
class Sizes:
    """What decides how large each operation of a frame is."""

    batch: int
    n_tokens: int
    width: int
    heads: int
    head_dim: int
    hidden: int
    slots: int
    codes: int
    code_dim: int
    picture: tuple[int, int]
    cell: int  # pixels along a side that the decoder's last convolution gives for each of its places
    rotary: bool = True  # with keys of the frame before


SMALL = Sizes(2, 15, 48, 3, 16, 72, 3, 70, 5, (7, 11), 3)


def sizes(config: WorldConfig, batch: int = 1) -> Sizes:
    """The sizes of a world's dynamics model, codebook and picture."""
    dynamics, tokenizer = config.dynamics, config.tokenizer
    return Sizes(
        batch, tokenizer.n_tokens, dynamics.width, dynamics.heads, dynamics.head_dim,
        int(dynamics.width * dynamics.ffn), dynamics.window - 1, tokenizer.codes, tokenizer.code_dim, config.size,
        tokenizer.cell, dynamics.recipe == "teacher",
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """`op` of a backend on arguments that fit it; bytes are those that must be read and written once."""

    name: str
    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    bytes: int
    flops: int

    @property
    def float8(self) -> bool:
        """Whether it needs a GPU that knows float8."""
        tensors = _tensors((self.args, self.kwargs))
        return self.op == "quantize_rows" or any(t.dtype == torch.float8_e4m3fn for t in tensors)

    def on(self, backend: ModuleType) -> Any:
        """What a backend makes of it."""
        return getattr(backend, self.op)(*self.args, **self.kwargs)

    def bind(self, backend: ModuleType) -> Callable[[], Any]:
        """A call without arguments, to be timed."""
        function, args, kwargs = getattr(backend, self.op), self.args, self.kwargs
        return lambda: function(*args, **kwargs)

    def to(self, device: torch.device | str) -> Case:
        """A copy that shares no memory, on a device."""
        args, kwargs = _moved(self.args, device), _moved(self.kwargs, device)
        return Case(self.name, self.op, args, kwargs, self.bytes, self.flops)


def difference(case: Case, got: Any, expected: Any) -> str:
    """In words, what is wrong with a result against the twin's; nothing where it is right.

    Integers have to be equal, floats within `TOLERANCE` of their kind.
    """
    pairs = zip(_tensors(got), _tensors(expected), strict=True)
    for index, (a, b) in enumerate(pairs):
        a, kind = a.cpu(), b.dtype
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"result {index} of {case.name} is {a.dtype} {tuple(a.shape)}, not {b.dtype} {tuple(b.shape)}"
        if not a.is_floating_point():
            if not torch.equal(a, b):
                return f"{int((a != b).sum())} of {a.numel()} numbers of {case.name} differ"
            continue
        a, b = a.float(), b.float()
        error = float(torch.where(a == b, 0.0, a - b).abs().max()) if a.numel() else 0.0
        scale = float(b[b.isfinite()].abs().max()) if b.isfinite().any() else 0.0
        if not error <= TOLERANCE[kind] * scale:
            return f"{case.name} is off by {error:.2g} where {TOLERANCE[kind] * scale:.2g} may be"
    return ""


def cases(size: Sizes, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> list[Case]:
    """One case for each way in which a kernel is used. On the device "meta" nothing is allocated."""
    make = _Maker(torch.device(device), dtype)
    return [*_layer(size, make), *_sampler(size, make), *_tokenizer(size, make)]


class _Maker:
    """Random tensors of one kind on one device, the same ones every time."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.generator = None if device.type == "meta" else torch.Generator(device).manual_seed(0)

    def normal(self, *size: int, deviation: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        numbers = torch.randn(size, generator=self.generator, device=self.device) * deviation
        return numbers.to(dtype or self.dtype)

    def integers(self, most: int, *size: int) -> Tensor:
        return torch.randint(most, size, generator=self.generator, device=self.device)


def _layer(size: Sizes, make: _Maker) -> list[Case]:
    """The eight launches of a layer, their variants, the whole in one, and the products with float8 weights."""
    b, n, d, h, hd = size.batch, size.n_tokens, size.width, size.heads, size.head_dim
    rows, inner, hidden, p = b * n, h * hd, size.hidden, size.slots
    x, gain = make.normal(b, n, d), make.normal(d, deviation=0.1) + 1
    seen, fed = make.normal(b, n, inner), make.normal(b, n, hidden)
    qkv_weight = make.normal(3 * inner, d, deviation=d**-0.5)
    out_weight = make.normal(d, inner, deviation=inner**-0.5)
    in_weight, fed_weight = make.normal(hidden, d, deviation=d**-0.5), make.normal(d, hidden, deviation=hidden**-0.5)
    scales = [make.normal(hd, deviation=0.1) + 1.5 for _ in range(2)]
    angles = make.normal(n, hd // 4, 2).float().mT.reshape(n, 2, hd // 4)
    cos = torch.stack((angles.cos(), angles.cos()), -2).reshape(n, hd)
    rotary = Rotary(cos, torch.stack((-angles.sin(), angles.sin()), -2).reshape(n, hd)) if size.rotary else None
    q, k, v = make.normal(b, n, 3, h, hd).unbind(2)
    q = q * hd**-0.5
    before = [make.normal(1, n, h, hd) for _ in range(2)]
    previous = [*before, make.normal(h, 1, hd, deviation=0.3)] if size.rotary else []
    bias = make.normal(h, p + 1, dtype=torch.float32)
    bias[:, : p // 3] = -torch.inf
    shared, own = ([make.normal(r, n, h, p, hd) for _ in range(2)] for r in (1, b))
    many = make.normal(ACTIONS, n, 3, h, hd)

    def product(name: str, op: str, args: tuple[Any, ...], columns: int, depth: int, extra: int = 0) -> Case:
        moved = _bytes(*args) + rows * columns * x.element_size() + extra
        return Case(name, op, args, {}, moved, 2 * rows * columns * depth)

    def attended(name: str, queries: tuple[Tensor, ...], rings: list[Tensor], **slot: Tensor) -> Case:
        flops = 4 * len(queries[0]) * n * inner * (p + 1)
        written = 2 * _bytes(queries[1]) if slot else 0
        moved = _bytes(*queries, *rings, bias, queries[0]) + written
        return Case(name, "temporal", (*queries, *rings, bias), slot, moved, flops)

    frames = 2 if size.rotary else 1
    found = [
        product("project heads", "project_heads", (x, gain, qkv_weight, *scales, rotary), 3 * inner, d),
        product("project heads, gain folded", "project_heads", (x, None, qkv_weight, *scales, None), 3 * inner, d),
        product("out and residual", "add_product", (x, seen, out_weight), d, inner),
        product("feed in", "feed_in", (x, gain, in_weight), hidden, d),
        product("feed out and residual", "add_product", (x, fed, fed_weight), d, hidden),
        Case(
            "spatial", "spatial", (q, k, v, *previous), {}, _bytes(q, k, v, q, *previous),
            4 * b * n * n * frames * inner,
        ),
        attended("temporal", (q, k, v), shared),
        attended(f"temporal, {ACTIONS} rows on one ring", tuple(many.unbind(2)), shared),
        attended("temporal and write", (q, k, v), own, slot=make.integers(p, 1)),
    ]  # fmt: skip
    scale = scales[0], scales[1]
    out = make.normal(d, inner, deviation=inner**-0.5)
    weights = Layer(out_weight, gain, qkv_weight, *scale, out, gain, in_weight, fed_weight)
    entry = Entry(gain, make.normal(3 * inner, d, deviation=d**-0.5), *scale, rotary)
    told = (tuple(before), previous[-1]) if size.rotary else (None, None)

    def whole(name: str, begun: Entry | None) -> Case:
        args = (x, Heads(q, k, v), *told, tuple(shared), bias, weights, begun)
        moved = _bytes(*args) + _bytes(x, k, v) + (_bytes(q, k, v) if begun else 0)
        products = inner * d * (8 if begun else 5) + 2 * hidden * d
        flops = 2 * rows * products + 4 * rows * inner * (n * frames + p + 1)
        return Case(name, "layer", args, {}, moved, flops)

    found += [whole("layer", entry), whole("layer, the last", None)]
    eight = [reference.quantize_rows(w) for w in (qkv_weight, out_weight, in_weight)]
    return [
        *found,
        product("project heads, float8", "project_heads", (x, gain, eight[0], *scales, rotary), 3 * inner, d),
        product("out and residual, float8", "add_product", (x, seen, eight[1]), d, inner),
        product("feed in, float8", "feed_in", (x, gain, eight[2]), hidden, d),
        Case("norm and quantize rows", "quantize_rows", (x, gain, True), {}, _bytes(x, gain) + rows * (d + 4), 0),
    ]


def _sampler(size: Sizes, make: _Maker) -> list[Case]:
    """The two launches of a draw in either order, and the embedding alone."""
    b, n, d, codes = size.batch, size.n_tokens, size.width, size.codes
    hidden, head = make.normal(b, n, d), make.normal(codes, d, deviation=2 * d**-0.5)
    tokens = torch.full((b, n), codes, device=make.device)
    table, base = make.normal(codes + 1, d), make.normal(b, 1, d)
    revealed = -(-n // PASSES)
    listed = torch.arange(revealed, device=make.device) * (n // revealed)
    noise, temperature, choice = reference.Noise(2**63 + 5, 7, 3), 0.7, 0.5
    dials = reference.pack([(noise, temperature, choice)]).to(make.device).at(0)
    x = b * n * d * hidden.element_size()

    def drawn(name: str, which: Tensor | int, rows: int, **choices: Any) -> Case:
        told = choices.pop("noise", noise)
        moved = rows * d * hidden.element_size() + _bytes(head, tokens, tokens) + 2 * x
        args = (hidden, head, tokens, table, base, told, which, temperature)
        return Case(name, "reveal", args, choices, moved, 2 * rows * codes * d)

    return [
        Case("embed", "embed", (tokens, table, base), {}, _bytes(tokens) + 2 * x, b * n * d),
        drawn("reveal, listed", listed, b * revealed),
        drawn("reveal, ranked", revealed, b * n, choice_temperature=choice),
        drawn("reveal, listed, from dials", listed, b * revealed, noise=dials),
        drawn("reveal, ranked, from dials", revealed, b * n, noise=dials),
    ]


def _tokenizer(size: Sizes, make: _Maker) -> list[Case]:
    """The nearest code of a training batch's vectors; the picture."""
    rows, (height, width), side = 16 * size.n_tokens, size.picture, size.cell
    points = make.normal(rows, size.code_dim, dtype=torch.float32)
    codes = make.normal(size.codes, size.code_dim, dtype=torch.float32)
    patches = make.normal(size.batch, 3 * side**2, -(-height // side), -(-width // side))
    patches = patches.contiguous(memory_format=torch.channels_last)
    pixels = make.normal(size.batch, height, width, 3)
    return [
        Case(
            "nearest", "nearest", (points, codes), {}, _bytes(points, codes) + 8 * rows,
            2 * rows * size.codes * size.code_dim,
        ),
        Case("picture", "picture", (patches, size.picture), {}, _bytes(patches) + pixels.numel(), 4 * pixels.numel()),
        Case("to picture", "to_picture", (pixels,), {}, _bytes(pixels) + pixels.numel(), 4 * pixels.numel()),
    ]  # fmt: skip


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in nested tuples and tables."""
    if isinstance(value, Tensor):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for part in inside for tensor in _tensors(part)]


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    if isinstance(value, tuple):
        parts = [_moved(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _bytes(*values: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(values))
