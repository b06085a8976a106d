"""Large worlds: fp8 against its reference, memory against what is held, sizes against the paper's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from test_engine import PROMPT, genie

from genie_play.config import PRESETS, DynamicsConfig, TokenizerConfig, preset
from genie_play.engine import large
from genie_play.engine.engine import GenieEngine
from genie_play.nn.dynamics import Dynamics
from genie_play.nn.fp8 import Fp8Linear, product
from genie_play.ops import between_reference as fp8
from genie_play.types import GenieError

# Bruce et al. 2024, the scaling tables: parameters of the dynamics model
PAPER = {"41m": 41e6, "96m": 96e6, "192m": 192e6, "404m": 404e6, "811m": 811e6, "1.6b": 1.6e9, "2.7b": 2.7e9,
         "11b": 10.1e9}  # fmt: skip


def small(**tokenizer):
    """A paper's size, shrunk: 10 x 18 pixels, three layers."""
    config = preset("genie-41m")
    return dataclasses.replace(
        config,
        tokenizer=dataclasses.replace(
            config.tokenizer, height=18, width=32, codes=64, encoder_width=64, encoder_layers=2, encoder_heads=2,
            decoder_width=64, decoder_layers=2, decoder_heads=2, head_dim=32, window=4, **tokenizer,
        ),
        dynamics=dataclasses.replace(config.dynamics, layers=3, width=64, heads=2, head_dim=32, window=4),
        sample=dataclasses.replace(config.sample, steps=3),
    )  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_sizes_meet_the_papers_within_a_tenth(name):
    config = PRESETS[f"genie-{name}"]
    with torch.device("meta"):
        made = Dynamics(config.dynamics, config.tokenizer.grid, config.tokenizer.codes, config.tokenizer.code_dim)
    # layers alone; embeddings, places and head add up to four hundredths (96m is then 1.12 times the printed count)
    assert sum(p.numel() for p in made.blocks.parameters()) == pytest.approx(PAPER[name], rel=0.1)
    assert sum(p.numel() for p in made.parameters()) == pytest.approx(PAPER[name], rel=0.13)
    assert config.tokenizer.n_tokens == 920


def test_rows_in_fp8_keep_three_bits_and_survive_zeros():
    x = torch.randn(5, 7, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 7)[:, None]
    x[2, 3] = 0
    numbers, scales = fp8.quantise_rows(x)
    assert numbers.dtype == torch.float8_e4m3fn
    assert scales.shape == (5, 7, 1)
    back = fp8.dequantise(numbers, scales)
    # four significant bits, the last of them rounded; and the smallest numbers to a step of the smallest kind
    assert ((back - x).abs() <= x.abs() / 16 + scales * 2.0**-10).all()
    assert torch.equal(numbers.float().abs().amax(-1) == 448, x.abs().amax(-1) > 0)
    assert (back[2, 3] == 0).all()
    normed = fp8.add_norm_quantise(x.bfloat16(), None, torch.full((64,), 2.0))[1].numbers
    assert (normed.float().abs().amax(-1) == 448).sum() == 34
    assert (fp8.square_quantise(x)[0].float() >= 0).all()


def test_a_product_in_fp8_is_the_product_of_what_was_kept():
    g = torch.Generator().manual_seed(1)
    weight, x = torch.randn(48, 64, generator=g), torch.randn(3, 5, 64, generator=g)
    layer = Fp8Linear(weight)
    found = layer(x)
    assert found.dtype == torch.bfloat16
    kept = fp8.dequantise(*fp8.quantise_rows(x)) @ fp8.dequantise(layer.numbers, layer.scales).T
    assert torch.equal(found, kept.bfloat16())
    error = (found.float() - x @ weight.T).norm() / (x @ weight.T).norm()
    assert 0.001 < error < 0.06  # three bits on either side
    if torch.__version__ < "2.13":
        return  # 2.11 knows one scale for all of a matrix alone, on a CPU
    numbers, scales = fp8.quantise_rows(x.flatten(0, 1))
    theirs = torch._scaled_mm(
        numbers, layer.numbers.t(), scale_a=scales, scale_b=layer.scales.t(), out_dtype=torch.bfloat16
    )
    # sums in another order, rounded to bfloat16
    assert torch.allclose(theirs.float(), product(numbers, scales, layer.numbers, layer.scales).float(), rtol=1e-2)


@pytest.mark.parametrize("ring", ["plain", "fp8"])
@pytest.mark.parametrize("arithmetic", ["fp32", "bf16", "fp8"])
def test_memory_is_what_is_held(arithmetic, ring):
    config = small()
    estimate = large.memory_estimate(config, arithmetic, ring)
    engine = large.build_random(config, "cpu", arithmetic, frame="static", ring=ring)
    engine.reset(prompt_of(config), 1)
    engine.step(3)
    held = {t.untyped_storage()._cdata: t.untyped_storage().nbytes()
            for module in (engine._genie.dynamics, engine._genie.tokenizer)
            for t in (*module.parameters(), *module.buffers())}  # fmt: skip
    assert sum(held.values()) == estimate.weights
    things = [engine._dynamics, engine._decoder, engine._viewer, engine._encoder, *engine._static.frame._shown.values()]
    rings = sum(large._held(thing) for thing in things)
    assert rings == estimate.rings
    if ring == "fp8":
        assert estimate.rings < large.memory_estimate(config, arithmetic).rings
    assert estimate.total > estimate.weights + estimate.rings
    if ring == "fp8":  # plain blocks read a copy of all its layers
        copied = large.memory_estimate(config, arithmetic, ring, kernels=False)
        assert copied.work > estimate.work
        assert (copied.weights, copied.rings) == (estimate.weights, estimate.rings)
    assert "GiB" in str(estimate)


def prompt_of(config):
    return dataclasses.replace(PROMPT, pictures=np.zeros((1, *config.size, 3), np.uint8))


def test_random_worlds_are_the_same_every_time_and_alive():
    config, told = small(), []
    engines = [large.build_random(config, "cpu", "bf16", frame="static", progress=told.append) for _ in range(2)]
    found = []
    for engine in engines:
        engine.reset(prompt_of(config), 5)
        found.append([engine.step(action) for action in (1, 2, 3, 4, 5)])
    assert [f.tokens.tolist() for f in found[0]] == [f.tokens.tolist() for f in found[1]]
    assert len({f.tokens.tobytes() for f in found[0]}) == 5
    assert "GiB" in told[0]
    assert all(p.is_meta for p in engines[0]._genie.actions.parameters())
    in_fp8 = large.build_random(config, "cpu", "fp8", frame="static", ring="fp8")
    assert isinstance(in_fp8._genie.dynamics.blocks[0].ffn_in, Fp8Linear)
    in_fp8.reset(prompt_of(config), 5)
    assert in_fp8.step(1).tokens.max() < 64


def test_a_world_that_does_not_fit_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(large, "free_memory", lambda device: 3 * 2**30)
    with pytest.raises(GenieError, match=r"genie-11b needs .* GiB .*fp8") as caught:
        large.build_random("genie-11b", "cpu", "bf16")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(large, "free_memory", lambda device: None)
    large.check_memory("x", large.Memory(2**50, 0, 0), torch.device("cpu"))


def test_fp8_of_a_world_in_memory_is_near_bf16():
    logits = []
    for arithmetic in ("bf16", "fp8"):
        engine = GenieEngine(genie("paper"), arithmetic=arithmetic, frame="static")
        engine.reset(PROMPT, 1)
        engine.step(1)
        dynamics, frame = engine._genie.dynamics, engine._static.frame
        with torch.inference_mode():
            x = engine._sampler.embed(torch.full((1, 12), dynamics.mask_id), torch.tensor([2]))
            logits.append(dynamics.logits(frame.dynamics.read(x, frame.past, frame.dynamics.look(frame.past))))
    error = (logits[0] - logits[1]).norm() / logits[0].norm()
    assert 1e-4 < error < 0.2


def test_a_ring_in_fp8_is_near_a_plain_one():
    hidden = []
    for ring in ("plain", "fp8"):
        engine = GenieEngine(genie("teacher"), frame="static", ring=ring)
        engine.reset(PROMPT, 1)
        for action in range(6):
            engine.step(action, np.arange(action, action + 12, dtype=np.uint16))
        engine.settle()
        frame = engine._static.frame
        with torch.inference_mode():
            x = engine._sampler.embed(torch.full((1, 12), 64), torch.tensor([2]))
            hidden.append(frame.dynamics.read(x, frame.past, frame.dynamics.look(frame.past)))
    error = (hidden[0] - hidden[1]).norm() / hidden[0].norm()
    assert 1e-5 < error < 0.1


def test_presets_share_one_tokenizer():
    assert len({PRESETS[f"genie-{name}"].tokenizer for name in PAPER}) == 1
    assert isinstance(PRESETS["genie-11b"].dynamics, DynamicsConfig)
    assert isinstance(PRESETS["genie-11b"].tokenizer, TokenizerConfig)
