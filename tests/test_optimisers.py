"""Muon against its slow twin; what the rate is at each step, and after a seam."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genie_play.config import StageConfig
from genie_play.nn.st_transformer import STBlock
from genie_play.train import optimisers
from genie_play.train.optimisers import Muon, learning_rate, make_optimisers, orthogonal, ramp


def test_stacked_muon_equals_one_matrix_at_a_time(monkeypatch):
    monkeypatch.setattr(optimisers, "fast_bfloat16", lambda: True)  # the twin's products are in bfloat16 everywhere
    generator = torch.Generator().manual_seed(3)
    shapes = [(6, 4), (4, 6), (6, 4), (5, 5), (6, 4), (1, 7)]
    first = [torch.randn(shape, generator=generator) for shape in shapes]
    pairs = [[nn.Parameter(matrix.clone()) for matrix in first] for _ in range(2)]
    ours = Muon(pairs[0], lr=0.02, weight_decay=0.01)
    twin = torch.optim.Muon(pairs[1], lr=0.02, weight_decay=0.01, momentum=0.95)
    for step in range(5):
        for a, b in zip(*pairs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        if step == 3:
            pairs[0][2].grad = pairs[1][2].grad = None  # not every matrix has one at every step
        ours.step()
        twin.step()
    for a, b, start in zip(*pairs, first, strict=True):
        # products in bfloat16 may round otherwise in a stack: an update is 0.02 large, its last digit 2**-8 of that
        torch.testing.assert_close(a, b, rtol=0, atol=5 * 0.02 * 2**-7)
        assert (a - start).abs().max() > 0.02
    kept = ours.state_dict()
    twin.load_state_dict({**twin.state_dict(), "state": kept["state"]})  # stored alike


@pytest.mark.parametrize("half", [True, False])
def test_an_update_is_about_orthogonal(half, monkeypatch):
    monkeypatch.setattr(optimisers, "fast_bfloat16", lambda: half)
    for shape in ((3, 16, 8), (3, 8, 16)):
        made = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
        # a processor that has no products in bfloat16 takes fifty times as long for them
        assert made.dtype == (torch.bfloat16 if half else torch.float32)
        values = torch.linalg.svdvals(made.float())
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_every_parameter_has_one_optimiser():
    block = nn.ModuleList([STBlock(32, 2, 16, 2.0, 4, (2, 3)), nn.Linear(32, 8)])
    made = make_optimisers([block], StageConfig(10, 1, 1))
    seen = [id(p) for optimiser in made for group in optimiser.param_groups for p in group["params"]]
    assert sorted(seen) == sorted(id(p) for p in block.parameters())
    muon = {id(p) for group in made[1].param_groups for p in group["params"]}
    assert id(block[0].ffn_in.weight) in muon
    assert id(block[1].weight) not in muon


def test_rate_warms_up_holds_and_falls_to_zero():
    config = StageConfig(100, 1, 1, warmup=0.1, decay=0.2)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:80] == [1.0] * 71
    assert rates[80:] == sorted(rates[80:], reverse=True)
    assert rates[99] == pytest.approx(0.05)


def test_after_a_seam_all_warms_up_over_its_share_of_the_steps():
    config = StageConfig(500, 1, 1)
    assert [ramp(step, None, config, 0.02) for step in (0, 7, 499)] == [1.0] * 3
    assert [ramp(step, 40, config, 0.02) for step in (40, 44, 49, 50, 400)] == pytest.approx([0.1, 0.5, 1, 1, 1])
