"""What a frame costs: the formulas against what small networks were seen to do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from genie_play import ops
from genie_play.config import PRESETS, PathConfig, preset
from genie_play.engine.sampler import Sampler
from genie_play.engine.state import Ring
from genie_play.eval import costs
from genie_play.eval.targets import random_genie

RECIPES = ("teacher", "paper", "look")


def world(recipe):
    """tiny with sides that are all different, so that no two of them can be taken for each other."""
    config = preset("tiny")
    trained = "paper" if recipe == "paper" else "teacher"
    dynamics = dataclasses.replace(config.dynamics, recipe=trained, width=40, heads=3, head_dim=16, ffn=1.5, window=5)
    trunk = "patch" if recipe == "paper" else "conv"
    tokenizer = dataclasses.replace(
        config.tokenizer, trunk=trunk, decoder_width=48, decoder_layers=2, ffn=1.25, look=recipe == "look"
    )
    if recipe == "look":
        tokenizer = dataclasses.replace(tokenizer, patch=4, patch_height=8, fine=2)
    return dataclasses.replace(config, tokenizer=tokenizer, dynamics=dynamics)


class OnTheRing(TorchDispatchMode):
    """Counts the FLOPs of products, element by element or not, one side of which lies in a ring's memory."""

    def __init__(self, ring):
        super().__init__()
        self.flops = 0
        self.memory = {part.untyped_storage().data_ptr() for part in (ring._temporal,)}

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        inside = [a for a in args if isinstance(a, torch.Tensor) and a.untyped_storage().data_ptr() in self.memory]
        if inside and op is torch.ops.aten.mul.Tensor:
            self.flops += 2 * out.numel()
        elif inside and op in (torch.ops.aten.bmm.default, torch.ops.aten.mm.default, torch.ops.aten.matmul.default):
            self.flops += 2 * out.numel() * args[0].shape[-1]
        return out


def hooked(modules):
    """Numbers and FLOPs of the linear layers among `modules`, filled in as they run."""
    seen = {"flops": 0, "numbers": 0}

    def count(module, inputs, output):
        seen["flops"] += 2 * module.weight.numel() * inputs[0].numel() // module.in_features
        seen["numbers"] += module.weight.numel()

    for module in modules:
        if isinstance(module, nn.Linear):
            module.register_forward_hook(count)
    return seen


@torch.inference_mode()
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_pass_costs_what_it_was_seen_to_cost(recipe):
    config = world(recipe)
    genie = random_genie(config)
    dynamics, path = genie.dynamics, PathConfig()
    sampler = Sampler(dynamics, ops.get("reference"), path)
    ring = Ring(dynamics.cache_shape, dynamics.n_tokens, recipe != "paper", torch.device("cpu"))
    x = sampler.embed(torch.zeros(1, dynamics.n_tokens, dtype=torch.int64), torch.tensor([1]))
    for _ in range(config.dynamics.window):
        ring.commit(dynamics.stream(x, ring.past())[1])
    linear = hooked(dynamics.modules())
    with OnTheRing(ring) as on_ring:
        dynamics.stream(x, ring.past())
    stack = costs.dynamics_stack(config)
    found = costs.stages(config, path)
    assert found["projections and feed-forward"].flops == linear["flops"]
    activations = 2 * stack.tokens * stack.width * 4
    assert found["projections and feed-forward"].bytes == 4 * linear["numbers"] + activations
    # the frame's own key is one product more a place, in the ring's products or beside them
    own = found["temporal attention"].flops / stack.window
    assert on_ring.flops in (found["temporal attention"].flops, found["temporal attention"].flops - own)

    cached = linear["flops"]
    with FlopCounterMode(display=False) as counter:
        dynamics.stream(x, ring.past())
    temporal = [0, found["temporal attention"].flops, found["temporal attention"].flops - own]  # as products, or not
    assert counter.get_total_flops() - cached - found["spatial attention"].flops in temporal
    kept = dynamics.stream(x, ring.past())[1]
    sizes = [part.numel() for kv in kept for part in (kv[2:] if recipe == "paper" else kv)]
    assert found["commit"].bytes - found["pass"].bytes - found["embed"].bytes == 4 * sum(sizes)
    assert costs.ring_bytes(stack, 4) == ring.nbytes - ring._ages.nbytes


def test_guidance_costs_a_second_row_in_each_pass_and_nothing_else():
    config = world("teacher")
    plain, guided = (costs.stages(config, PathConfig(guidance=g)) for g in (1.0, 1.5))
    for name in ("pass", "spatial attention", "temporal attention", "projections and feed-forward"):
        assert guided[name].flops == 2 * plain[name].flops
        assert plain[name].bytes < guided[name].bytes < 2 * plain[name].bytes  # weights and the past are read once
    for name in ("embed", "commit", "head and sampling", "decode", "to picture"):
        assert guided[name] == plain[name]
    slow, slower = (costs.floors(config, PathConfig(guidance=g), 1.0, 1e30) for g in (1.0, 1.5))
    assert slower["commit"] == slow["commit"]
    assert slower["pass"] == pytest.approx(2 * slow["pass"])
    again, twice = (costs.recomputed(config, PathConfig(guidance=g)).flops for g in (1.0, 1.5))
    assert again < twice < 2 * again  # the head sees what is drawn from alone


@torch.inference_mode()
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_decoded_picture_costs_what_it_was_seen_to_cost(recipe):
    config = world(recipe)
    tokenizer = random_genie(config).tokenizer
    ring = Ring(tokenizer.decoder_shape, config.tokenizer.n_tokens, False, torch.device("cpu"))
    codes = tokenizer.quantizer.lookup(torch.zeros(1, config.tokenizer.n_tokens, dtype=torch.int64))
    look = tokenizer.look(torch.rand(1, *config.size, 3))
    for _ in range(config.tokenizer.window):
        ring.commit(tokenizer.decoder.stream(codes, ring.past(), look)[1])
    with FlopCounterMode(display=False) as counter, OnTheRing(ring) as on_ring:
        tokenizer.decoder.stream(codes, ring.past(), look)
    stack = costs.decoder_stack(config.tokenizer)
    own = stack.temporal(4).flops / stack.window
    expected = costs.stages(config, PathConfig())["decode"].flops
    seen = counter.get_total_flops()
    assert seen in (expected, expected - own, expected - stack.temporal(4).flops)
    assert on_ring.flops in (stack.temporal(4).flops, stack.temporal(4).flops - own)


@torch.inference_mode()
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_window_run_again_costs_what_it_was_seen_to_cost(recipe):
    config = world(recipe)
    dynamics, path = random_genie(config).dynamics, PathConfig(steps=3)
    tokens = torch.zeros(1, config.dynamics.window, dynamics.n_tokens, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        for _ in range(3):
            dynamics.logits(dynamics(tokens, tokens[:, :, 0])[:, -1])
    # the projection of the tokenizer's codes to the width is the embedding's, which both ways share
    embedding = 3 * 2 * tokens.numel() * config.tokenizer.code_dim * config.dynamics.width
    assert costs.recomputed(config, path).flops == counter.get_total_flops() - embedding


@pytest.mark.parametrize("order", ["halton", "confidence"])
def test_the_head_runs_on_the_rows_that_are_drawn(order, monkeypatch):
    """Seen through the rows that the reference gathers; every position is drawn once in a fixed order."""
    config = dataclasses.replace(world("teacher"), name="rows")
    dynamics, path = random_genie(config).dynamics, PathConfig(steps=4, order=order)
    sampler = Sampler(dynamics, ops.get("reference"), path)
    ring = Ring(dynamics.cache_shape, dynamics.n_tokens, True, torch.device("cpu"))
    reference, seen = ops.get("reference"), []
    reveal = reference.reveal

    def counted(*args, **kwargs):
        with FlopCounterMode(display=False) as counter:
            revealed = reveal(*args, **kwargs)
        seen.append(counter.get_total_flops())
        return revealed

    monkeypatch.setattr(reference, "reveal", counted)
    with torch.inference_mode():
        sampler.sample(ring.past(), torch.tensor([0]), 1, 1)
    assert len(seen) == 4
    assert costs.stages(config, path)["head and sampling"].flops * 4 == sum(seen)


def test_a_frame_is_its_stages_and_halves_with_half_the_bytes():
    config, path = preset("spark"), PathConfig(steps=4)
    found, often = costs.stages(config, path), costs.repeats(config, path)
    assert often["pass"] == 4
    inside = found["spatial attention"] + found["temporal attention"] + found["projections and feed-forward"]
    assert found["pass"] == inside
    small = costs.stages(config, dataclasses.replace(path, arithmetic="bf16"))
    assert small["pass"].bytes * 2 == found["pass"].bytes
    assert small["pass"].flops == found["pass"].flops
    floors = costs.floors(config, path, 1e11, 1e10)
    assert floors["pass"] == max(found["pass"].flops / 1e11, found["pass"].bytes / 1e10)
    slower = costs.floors(config, path, 1e11, 1e10, 1e8)  # attention in a slower arithmetic
    rest = found["pass"].flops - found["projections and feed-forward"].flops
    assert slower["pass"] == found["projections and feed-forward"].flops / 1e11 + rest / 1e8
    assert slower["projections and feed-forward"] == floors["projections and feed-forward"]
    apart = 4 * (floors["pass"] + floors["head and sampling"]) + floors["embed"] + floors["commit"]
    assert floors["frame"] == pytest.approx(apart + floors["decode"] + floors["to picture"])


@pytest.mark.parametrize(("name", "millions"), [("genie-41m", 41), ("genie-404m", 404), ("genie-2.7b", 2700)])
def test_the_papers_sizes_have_the_papers_numbers(name, millions):
    """The printed parameter counts, within 10%: what the weights' traffic of a large model is counted from."""
    assert costs.dynamics_numbers(PRESETS[name]) == pytest.approx(millions * 1e6, rel=0.1)
