"""Keys out of motions: a small game with a jump that ends, its true keys hidden, and what the model makes of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from genie_play.nn.keys import Keys

STILL, UP, DOWN, LEFT, RIGHT = range(5)
NONE, JUMP, TO_LEFT, TO_RIGHT = range(4)
RISE = 2  # ticks


def play(clips: int, ticks: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (B, T + 1, 8, 8, 3) that show whether one stands, motions and true keys, both (B, T)."""
    held = torch.randint(0, 4, (clips,), generator=generator)
    height, rise = torch.zeros(clips, dtype=torch.int64), torch.zeros(clips, dtype=torch.int64)
    pictures, motions, keys = [], [], []
    for _ in range(ticks + 1):
        picture = torch.rand(clips, 1, 1, 3, generator=generator).expand(clips, 8, 8, 3).clone()
        picture[height == 0, 4:] *= 0.2
        pictures.append(picture)
        new = torch.rand(clips, generator=generator) < 0.3
        held = torch.where(new, torch.randint(0, 4, (clips,), generator=generator), held)
        rise = torch.where(held == JUMP, torch.where(height == 0, RISE, rise), 0)
        up, down = rise > 0, (rise == 0) & (height > 0)
        walk = torch.tensor([STILL, STILL, LEFT, RIGHT])[held]
        motions.append(torch.where(up, UP, torch.where(down, DOWN, walk)))
        keys.append(held)
        height, rise = height + up.long() - down.long(), (rise - 1).clamp_min(0)
    return torch.stack(pictures, 1), torch.stack(motions[:-1], 1), torch.stack(keys[:-1], 1)


@pytest.fixture(scope="module")
def learned() -> Keys:
    torch.manual_seed(0)
    model = Keys(4, 5, 24)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    for step in range(180):
        pictures, motions, _ = play(24, 12, generator)
        loss, *_ = model.loss(pictures, motions)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step == 80:
            model.choose()
    return model.requires_grad_(False)


def test_a_key_that_lifts_from_the_ground_does_not_lift_from_the_air(learned):
    pictures, motions, _ = play(64, 12, torch.Generator().manual_seed(2))
    outcomes = learned.outcomes(learned.bars(pictures, motions)).exp()  # (B, P, K, M)
    before = torch.nn.functional.pad(motions, (2, 0), value=-1)
    apex = (before[:, 1:-1] == UP) & (before[:, :-2] == UP)
    ground = (pictures[:, :-1, 6].mean((2, 3)) < 0.6 * pictures[:, :-1, 0].mean((2, 3))) & ~apex
    jump = int(outcomes[ground][:, :, UP].mean(0).argmax())
    assert outcomes[ground][:, jump, UP].mean() > 0.8
    assert outcomes[apex][:, jump, UP].mean() < 0.2
    assert outcomes[apex][:, jump, DOWN].mean() > 0.7


def test_keys_are_found_from_motions_alone(learned):
    pictures, motions, keys = play(64, 12, torch.Generator().manual_seed(3))
    found = learned.infer(pictures, motions)
    walks = (motions == LEFT) | (motions == RIGHT) | (motions == UP)  # a fall has no key
    table = torch.zeros(4, 4).index_put_((keys[walks], found[walks]), torch.ones(()), accumulate=True)
    assert len(set(table[1:].argmax(1).tolist())) == 3  # jump, left and right are three keys
    assert (table.amax(1)[1:] / table.sum(1)[1:]).min() > 0.9
    assert (learned.lead(pictures, motions, found) == motions)[walks].float().mean() > 0.95


def test_draws_follow_the_posterior_and_their_numbers(learned):
    pictures, motions, _ = play(3, 8, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(5)
    many = [learned.draw(pictures, motions, torch.rand(3, 8, generator=generator)) for _ in range(400)]
    drawn = torch.nn.functional.one_hot(torch.stack(many), 4).float().mean(0)  # (B, P, K)
    # the posterior by brute force: every course of keys of the first three ticks
    seen = learned._seen(learned.outcomes(learned.bars(pictures[:, :4], motions[:, :3])), motions[:, :3])
    few = torch.stack(
        [learned.draw(pictures[:, :4], motions[:, :3], torch.rand(3, 3, generator=generator)) for _ in range(2000)]
    )
    move = learned._move(seen.device)
    weights = torch.zeros(3, 4, 4, 4)
    for a in range(4):
        for b in range(4):
            for c in range(4):
                weights[:, a, b, c] = seen[:, 0, a] + move[a, b] + seen[:, 1, b] + move[b, c] + seen[:, 2, c]
    posterior = weights.flatten(1).softmax(-1).view(3, 4, 4, 4)
    for tick, dims in enumerate(((2, 3), (1, 3), (1, 2))):
        share = torch.nn.functional.one_hot(few[:, :, tick], 4).float().mean(0)
        assert (share - posterior.sum(dims)).abs().max() < 0.05  # four deviations of a share of 2000 draws
        assert torch.equal(learned.infer(pictures[:, :4], motions[:, :3])[:, tick], posterior.sum(dims).argmax(-1))
    assert drawn.amax(-1).mean() > 0.5
    same = [learned.draw(pictures, motions, torch.full((3, 8), 0.3)) for _ in range(2)]
    assert torch.equal(*same)


@pytest.mark.parametrize("ticks", [1, 2, 3, 15, 47])
@pytest.mark.parametrize("amp", [False, True])
def test_all_ticks_at_once_are_what_tick_by_tick_gives(ticks, amp):
    model, generator = Keys(4, 5, 24), torch.Generator().manual_seed(ticks)
    seen = 5 * torch.randn(6, ticks, 4, generator=generator)
    move, found = model._move(seen.device), [seen[:, 0] - math.log(4)]
    for t in range(1, ticks):
        found.append(torch.logsumexp(found[-1][:, :, None] + move, 1) + seen[:, t])
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        assert torch.allclose(model._forward(seen), torch.stack(found, 1), rtol=1e-5, atol=1e-4)
