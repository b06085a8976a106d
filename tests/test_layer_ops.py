"""The operations of a layer, of both ends of the tokenizer and of noise in device memory: every backend against its
definition, the networks' own code or the twin.

Under Triton's interpreter they run in the process that `test_ops` starts.
"""

from __future__ import annotations

import os
import types

import pytest
import torch

from genie_play import ops
from genie_play.config import PRESETS, TokenizerConfig
from genie_play.nn.quantize import Quantizer
from genie_play.nn.st_transformer import LayerPast, STBlock
from genie_play.nn.tokenizer import Decoder
from genie_play.ops import cases, reference
from genie_play.ops.cases import SMALL, Sizes
from genie_play.ops.reference import Noise
from genie_play.ops.reference_layers import Rotary

BACKENDS = ops.available()
DEVICE = "cuda" if torch.cuda.is_available() and "TRITON_INTERPRET" not in os.environ else "cpu"
OPS = {
    "add_product", "embed", "feed_in", "layer", "nearest", "picture", "project_heads", "quantize_rows", "reveal",
    "spatial", "temporal", "to_picture",
}  # fmt: skip
# one head, one slot, more codes than a tile, a picture that patches overhang; sizes that are powers of two
OTHER = [
    Sizes(1, 1, 8, 1, 8, 16, 1, 2, 1, (1, 2), 2),
    Sizes(2, 9, 70, 1, 32, 33, 7, 130, 40, (5, 9), 4, rotary=False),
    Sizes(1, 16, 64, 2, 32, 128, 8, 128, 8, (8, 8), 1),
    Sizes(2, 21, 32, 2, 16, 48, 3, 66, 7, (6, 10), 3),
]


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def call(backend: str, name: str, *args, **kwargs):
    """An op of a backend on arguments from the host; results on the host."""

    def moved(value, device):
        if isinstance(value, torch.Tensor):
            return value.to(device)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(moved(part, device) for part in value))
        return value

    kwargs = {key: moved(value, DEVICE) for key, value in kwargs.items()}
    return moved(getattr(ops.get(backend), name)(*(moved(a, DEVICE) for a in args), **kwargs), "cpu")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", OTHER)
def test_every_op_equals_its_twin(backend, dtype, size):
    found = cases.cases(size, dtype=dtype)
    assert {case.op for case in found} == OPS
    for case in found:
        ours, its = case.to(DEVICE), case.to("cpu")
        got, expected = ours.on(ops.get(backend)), its.on(reference)
        assert cases.difference(case, (got, ours.args), (expected, its.args)) == ""
        assert case.bytes > 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("recipe", ["teacher", "paper"])
def test_eight_launches_are_a_block(backend, recipe, first):
    """The ops, called as play would call them, against the network's own code."""
    ours = recipe == "teacher"
    batch, grid, width, heads, head_dim, slots = 2, (3, 5), 40, 3, 16, 3
    block = STBlock(width, heads, head_dim, 2.0, slots + 1, grid, rotary=ours, cross_frame=ours)
    with torch.no_grad():
        for seed, p in enumerate(block.parameters()):
            p.copy_(normal(*p.shape, seed=seed) * (0.5 if p.dim() < 2 else p[0].numel() ** -0.5))
    x = normal(batch, 15, width, seed=90)
    spatial = [None, None] if first or not ours else [normal(1, heads, 15, head_dim, seed=s) for s in (91, 92)]
    rings = [normal(1, 15, heads, slots, head_dim, seed=s) for s in (93, 94)]
    ages = torch.tensor([2, 4, 1])
    rings[0][..., 1, :] = 1e4  # older than the window: rubbish that must not be read
    expected, kept = block.stream(x, LayerPast(*spatial, *rings, ages))

    rotary = Rotary(block.rotary_cos.flatten(1), block.rotary_sin.flatten(1)) if ours else None
    a = block.spatial
    q, k, v = call(backend, "project_heads", x, block.spatial_norm.weight, a.qkv.weight, a.q_scale, a.k_scale, rotary)
    before = [None if b is None else b.transpose(1, 2) for b in spatial]
    told = [*before, block.previous_key] if ours else []
    y = call(backend, "add_product", x, call(backend, "spatial", q, k, v, *told).flatten(2), a.out.weight)
    a = block.temporal
    tq, tk, tv = call(backend, "project_heads", y, block.temporal_norm.weight, a.qkv.weight, a.q_scale, a.k_scale)
    bias = torch.cat((block._past_bias(ages), block.time_bias[:, :1]), -1)
    y = call(backend, "add_product", y, call(backend, "temporal", tq, tk, tv, *rings, bias).flatten(2), a.out.weight)
    fed = call(backend, "feed_in", y, block.ffn_norm.weight, block.ffn_in.weight)
    y = call(backend, "add_product", y, fed, block.ffn_out.weight)
    # float32 sums of a few dozen products in another order, eight operations deep
    assert torch.allclose(y, expected, rtol=1e-4, atol=1e-4)
    for got, wanted in zip((k.transpose(1, 2), v.transpose(1, 2), tk, tv), kept, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gain_may_be_folded_into_the_weight(backend):
    x, gain, weight = normal(1, 5, 24), normal(24, seed=1), normal(40, 24, seed=2)
    apart, folded = call(backend, "feed_in", x, gain, weight), call(backend, "feed_in", x, None, weight * gain)
    assert torch.allclose(apart, folded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_temporal_writes_one_slot_after_reading_it(backend):
    batch, n, heads, slots, head_dim = 2, 5, 2, 3, 8
    q, k, v = normal(batch, n, 3, heads, head_dim).unbind(2)
    rings = [normal(batch, n, heads, slots, head_dim, seed=s) for s in (1, 2)]
    bias, slot = normal(heads, slots + 1, seed=3), torch.tensor([1])
    read = call(backend, "temporal", q, k, v, *rings, bias)
    on_device = [ring.to(DEVICE, copy=True) for ring in rings]
    backend_op = ops.get(backend).temporal
    args = [a.to(DEVICE) for a in (q, k, v)]
    wrote = backend_op(*args, *on_device, bias.to(DEVICE), slot=slot.to(DEVICE))
    assert torch.equal(wrote.cpu(), read)
    for ring, before, new in zip(on_device, rings, (k, v), strict=True):
        assert torch.equal(ring[..., 1, :].cpu(), new)
        assert torch.equal(ring[..., [0, 2], :].cpu(), before[..., [0, 2], :])
    with pytest.raises(ValueError, match="a row for each"):
        backend_op(*args, *(ring[:1] for ring in on_device), bias.to(DEVICE), slot=slot.to(DEVICE))
    with pytest.raises(ValueError, match="do not fit"):
        backend_op(*args, on_device[0], on_device[1][..., :2, :], bias.to(DEVICE))
    with pytest.raises(ValueError, match="bias"):
        backend_op(*args, *on_device, bias[:, 1:].to(DEVICE))


@pytest.mark.parametrize("backend", BACKENDS)
def test_hypotheses_over_one_ring_are_what_they_are_alone(backend):
    q, k, v = normal(4, 6, 3, 2, 16).unbind(2)
    rings = [normal(1, 6, 2, 5, 16, seed=s) for s in (1, 2)]
    bias = normal(2, 6, seed=3)
    together = call(backend, "temporal", q, k, v, *rings, bias)
    for row in range(4):
        alone = call(backend, "temporal", *(a[row : row + 1] for a in (q, k, v)), *rings, bias)
        assert torch.allclose(together[row], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_window_of_one_frame_gives_the_frame(backend):
    q, k, v = normal(1, 4, 3, 2, 8).unbind(2)
    empty = torch.zeros(1, 4, 2, 0, 8)
    assert torch.allclose(call(backend, "temporal", q, k, v, empty, empty, torch.zeros(2, 1)), v)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearest_takes_the_lowest_of_equals(backend):
    codes = torch.nn.functional.normalize(normal(150, 6), dim=-1)
    # in three tiles; in halves, so that no order of summing rounds its product with itself
    codes[[9, 70, 149]] = torch.tensor([0.5, -0.5, 0.5, 0.5, 0.0, 0.0])
    points = torch.cat((codes[9:10], normal(70, 6, seed=1), codes[149:]))
    found = call(backend, "nearest", points, codes)
    products = points.double() @ codes.double().T
    margin = products.topk(2, -1).values
    clear = margin[:, 0] - margin[:, 1] > 1e-6
    assert clear.sum() > 60
    assert torch.equal(found[clear], products.argmax(-1)[clear])
    assert found[0] == found[-1] == 9
    assert call(backend, "nearest", points[:0], codes).shape == (0,)


def test_the_quantizer_takes_the_nearest_code():
    quantizer = Quantizer(20, 4)
    z = normal(2, 3, 4)
    tokens = quantizer(z).tokens
    assert torch.equal(tokens, (z.double() @ quantizer.codebook.double().T).argmax(-1))
    if torch.cuda.is_available():
        assert torch.equal(quantizer.cuda()(z.cuda()).tokens.cpu(), tokens)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("trunk", ["conv", "patch"])
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # the interpreter is NumPy
def test_picture_is_the_decoders_bit_for_bit(backend, trunk):
    config = TokenizerConfig(
        height=21, width=30, patch=4, code_dim=4, trunk=trunk, stem=8, decoder_width=16, decoder_blocks=0,
        decoder_layers=0, decoder_heads=1, head_dim=16,
    )  # fmt: skip
    decoder = Decoder(config)
    with torch.no_grad():
        decoder.place.copy_(normal(*decoder.place.shape) * 3)
        patches: list[torch.Tensor] = []
        decoder.trunk[-2].register_forward_hook(lambda _, __, out: patches.append(out))
        pixels = decoder(normal(2, 1, config.n_tokens, 4, seed=1))[:, 0]
    expected = ops.get("reference").to_picture(pixels)
    broken = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    found = ops.get(backend).picture(patches[0].to(DEVICE), (21, 30), broken)
    assert torch.equal(found.cpu(), expected)
    assert len(expected.unique()) > 20
    assert broken.item() == 0
    patches[0][1, 1, 0, 0] = torch.nan
    ops.get(backend).picture(patches[0].to(DEVICE), (21, 30), broken)
    assert broken.item() == 1
    with pytest.raises(ValueError, match="do not make a picture"):
        ops.get(backend).picture(patches[0].to(DEVICE), (99, 30))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_cut_off_a_picture_may_be_anything(backend):
    patches = normal(1, 12, 2, 2)
    patches[0, 3, 1, 1] = torch.inf  # the right lower pixel of the last patch
    broken = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    ops.get(backend).picture(patches.to(DEVICE), (4, 3), broken)
    assert broken.item() == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm", [False, True])
def test_rows_in_float8_keep_three_bits(backend, norm):
    x, gain = normal(7, 50) * torch.logspace(-3, 3, 7)[:, None], normal(50, seed=1)
    x[3] = 0
    values, scales = call(backend, "quantize_rows", x, gain if norm else None, norm)
    y = torch.nn.functional.rms_norm(x, (50,), gain, 1e-6) if norm else x
    assert values.dtype == torch.float8_e4m3fn
    assert scales.shape == (7, 1)
    largest = y.abs().amax(-1, keepdim=True)
    # half a unit of four significant bits; below 2**-6 of a scale the step is 2**-9
    error = (values.float() * scales - y).abs()
    assert (error <= y.abs() * 2**-4 + scales * 2**-10 + 1e-6 * largest).all()
    assert (values.float().abs().amax(-1)[[0, 1, 2, 4, 5, 6]] == 448).all()
    assert scales[3] == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_dials_draw_what_their_numbers_do(backend, ranked, temperature):
    n, codes, width = 19, 100, 24
    hidden, head = normal(2, n, width), normal(codes, width, seed=1) / 2
    tokens = torch.full((2, n), codes)
    table, base = normal(codes + 1, width, seed=2), normal(1, 1, width, seed=3)
    which = 7 if ranked else torch.arange(0, n, 2)
    passes = [(Noise(2**64 - 9, 2**32 - 1, step), temperature, 0.5 * step) for step in range(3)]
    dials = reference.pack(passes)
    assert dials.integers.shape == (3, 3)
    for step, (noise, _, choice) in enumerate(passes):
        assert dials.at(step).read()[0] == noise
        plain = call(
            backend, "reveal", hidden, head, tokens, table, base, noise, which, temperature, choice_temperature=choice
        )
        dialled = call(backend, "reveal", hidden, head, tokens, table, base, dials.at(step), which)
        assert torch.equal(plain.tokens, dialled.tokens)
        assert torch.equal(plain.x, dialled.x)
    assert (plain.tokens != codes).sum() == (14 if ranked else 20)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dials_are_read_at_each_call(backend):
    """What a replayed graph rests on: the same tensors with other numbers in them draw anew."""
    hidden, head, tokens = normal(1, 9, 16), normal(50, 16, seed=1) / 4, torch.full((1, 9), 50)
    rest = (torch.zeros(51, 16), torch.zeros(1, 1, 16))
    dials = reference.pack([(Noise(3, 4, 5), 1.0, 0.0)]).to(DEVICE).at(0)
    args = [a.to(DEVICE) for a in (hidden, head, tokens, *rest)]
    which = torch.arange(9, device=DEVICE)
    draws = []
    for frame in (4, 5, 4):
        dials.integers[1] = frame
        draws.append(ops.get(backend).reveal(*args, dials, which).tokens.cpu())
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_self_check_finds_every_kernel_right(backend):
    found = ops.self_check(backend, DEVICE)
    assert [(name, detail) for name, right, detail in found if not right] == []
    assert len(found) == 2 * len(cases.cases(SMALL))


def test_self_check_names_what_is_wrong(monkeypatch):
    names = {name: getattr(reference, name) for name in dir(reference)}
    broken = types.SimpleNamespace(**names)
    broken.nearest = lambda points, codes: reference.nearest(points, codes) + 1
    broken.feed_in = lambda x, gain, weight: reference.feed_in(x, gain, weight) * 1.1

    def fail(*_):
        raise RuntimeError("no kernel image\nmore")

    broken.temporal = fail
    real = ops.get("reference")
    monkeypatch.setattr(ops, "get", lambda name: real if name == "reference" else broken)
    monkeypatch.setattr(ops, "_missing", lambda name: "")
    monkeypatch.setattr(ops, "_unfit", lambda name, device: "")
    wrong = {name: detail for name, right, detail in ops.self_check("triton", "cpu") if not right}
    assert set(wrong) == {
        f"{name}, {kind}"
        for kind in ("float32", "bfloat16")
        for name in (
            "nearest", "feed in", "feed in, float8", "temporal", "temporal, 8 rows on one ring", "temporal and write"
        )
    }  # fmt: skip
    assert "numbers of nearest differ" in wrong["nearest, float32"]
    assert wrong["temporal, float32"] == "temporal: RuntimeError: no kernel image"
    assert "off by" in wrong["feed in, float32"]
    ops._failure.cache_clear()
    assert "feed in is off by" in ops._failure("triton", torch.device("cpu"))
    ops._failure.cache_clear()
    # a GPU without float8 still has the rest
    broken.nearest, broken.feed_in, broken.temporal = reference.nearest, reference.feed_in, reference.temporal
    broken.quantize_rows = fail
    assert ops._failure("triton", torch.device("cpu")) == ""
    ops._failure.cache_clear()


@pytest.mark.parametrize("name", PRESETS)
def test_there_are_cases_for_every_preset(name):
    found = cases.cases(cases.sizes(PRESETS[name], 2), "meta", torch.bfloat16)
    assert len({case.name for case in found}) == len(found)
    # the most that has to move is a projection's weight, and no case forgets its own
    assert all(case.bytes > 0 and case.flops >= 0 for case in found)
    heads = next(case for case in found if case.name == "project heads")
    dynamics = PRESETS[name].dynamics
    assert heads.bytes > 6 * dynamics.heads * dynamics.head_dim * dynamics.width
