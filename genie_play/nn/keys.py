"""From motions to keys: which of eight held keys explains how a clip moves, from video alone.

A motion is what two frames show: rising, falling left. A key is what brings it about, and what it brings about depends
on where one is: a key that lifts from the ground does nothing in a fall. So a latent code that is a motion can only be
obeyed by a world without floors, and a code that is a key leads to a world that has some. Motions become keys through
an input-output hidden Markov model (Bengio and Frasconi 1995):

    p(motion m | key k, past motions h, scene x) = softmax_m(wish[k, m] - bar(h, x)[m]),   bar >= 0

A key is a wish for motions, the same everywhere; the past and the scene bar motions, for all keys alike. Keys are held,
p(k_t = k_t-1) = STICK, which is what ties a key's rise to the fall that follows; a price on the bars keeps them from
telling what the keys should. Nothing here is about platformers or colours. Knows nothing of pixels to paint.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STICK = 0.8  # chance that a key is still held a tick later: people hold keys
PAST = 6  # motions that bars may depend on
BAR_PRICE = 0.01  # of the mean bar, a motion: with 0.003 bars take over what keys should tell (measured)
POWER_SHARE = 0.3  # of the keys' say over motions in the loss: without it two keys share a motion (measured)
TRIES = 8  # tables of wishes that start at random; a single one often ends with one key for two things (measured)
SIDE = 32  # pictures are averaged to this many cells each way; the scene is read in patches of 4
PATCH = 4


class Keys(nn.Module):
    """The hidden Markov model. Motions (B, P) int64 lead from frame t to t + 1; pictures are (B, P + 1, h, w, 3).

    Several tables of wishes learn over the same bars until `choose` keeps the best of them.
    """

    chosen: Tensor
    merit: Tensor

    def __init__(self, keys: int, motions: int, width: int) -> None:
        super().__init__()
        self.keys, self.motions = keys, motions
        self.past = nn.Embedding(PAST * (motions + 1), width)  # one row a motion and lag; the last row of a lag: none
        self.scene = nn.Conv2d(3, width // 2, PATCH, stride=PATCH)
        self.scene_out = nn.Linear((SIDE // PATCH) ** 2 * (width // 2), width)
        last = nn.Linear(2 * width, motions)
        self.bar = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), last)
        self.wish = nn.Parameter(torch.randn(TRIES, keys, motions))
        self.register_buffer("chosen", torch.zeros((), dtype=torch.int64))  # a table, counted from 1; 0: not yet
        self.register_buffer("merit", torch.zeros(TRIES))  # running loss of each table
        nn.init.normal_(self.past.weight, std=0.3)
        nn.init.zeros_(last.weight)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Keys:
        # which table is chosen is asked every step: a GPU would have to stop to answer, so that stays here
        chosen = self.chosen
        super()._apply(fn, recurse)
        if chosen.device.type == "cpu":
            self.chosen = chosen
        return self

    def bars(self, pictures: Tensor, motions: Tensor) -> Tensor:
        """(B, P, M), 0 or more: how much the past and the scene stand against each motion."""
        batch, pairs = motions.shape
        flat = F.adaptive_avg_pool2d(pictures[:, :-1].flatten(0, 1).permute(0, 3, 1, 2), SIDE)
        scene = F.relu(self.scene(flat - flat.mean((-3, -2, -1), keepdim=True))).flatten(1)
        scene = F.relu(self.scene_out(scene)).unflatten(0, (batch, pairs))
        padded = F.pad(motions, (PAST, 0), value=self.motions)
        lags = torch.stack([padded[:, i : i + pairs] + i * (self.motions + 1) for i in range(PAST)], -1)
        past = F.relu(self.past(lags).sum(-2))
        return F.softplus(self.bar(torch.cat((scene, past), -1)))

    def outcomes(self, bars: Tensor, table: int | None = None) -> Tensor:
        """Log-probabilities (B, P, K, M) of each motion under each key, by the chosen table of wishes or another."""
        if table is None:
            table = int(self.chosen) - 1 if self.chosen else int(self.merit.argmin())
        return (self.wish[table] - bars[:, :, None]).float().log_softmax(-1)

    def loss(self, pictures: Tensor, motions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and to watch: nats a tick that keys and bars leave unexplained, and the keys' say over motions.

        The say is the mutual information of a key drawn at random and the motion it leads to (empowerment, Klyubin et
        al. 2005), with the bars as they are: wishes shall be clear and differ, and bars stay what is seen.
        """
        bars = self.bars(pictures, motions)
        tables = [int(self.chosen) - 1] if self.chosen else range(TRIES)
        unexplained, says = [], []
        for table in tables:
            forward = self._forward(self._seen(self.outcomes(bars, table), motions))
            unexplained.append(-forward[:, -1].logsumexp(-1).mean() / motions.shape[1])
            each = self.outcomes(bars.detach(), table)
            mean = each.logsumexp(2, keepdim=True) - math.log(self.keys)
            says.append((each.exp() * (each - mean)).sum(-1).mean())
        left, say = torch.stack(unexplained), torch.stack(says)
        losses = left - POWER_SHARE * say
        if self.training and not self.chosen:
            with torch.no_grad():
                self.merit.lerp_(losses, 0.05)
        best = losses.argmin(keepdim=True)
        watch = left[best].detach()[0], say[best].detach()[0]
        return losses.mean() + BAR_PRICE * bars.float().sum(-1).mean(), *watch

    def choose(self) -> None:
        """Keep the best table of wishes; the others learn no more."""
        if not self.chosen:
            self.chosen.fill_(int(self.merit.argmin()) + 1)

    def infer(self, pictures: Tensor, motions: Tensor) -> Tensor:
        """The likeliest key (B, P) int64 of each tick, given the whole clip."""
        seen = self._seen(self.outcomes(self.bars(pictures, motions)), motions)
        # as keys change alike both ways, what comes after is what comes before of the clip turned round
        return (self._forward(seen) + self._forward(seen.flip(1)).flip(1) - seen).argmax(-1)

    def draw(self, pictures: Tensor, motions: Tensor, uniforms: Tensor) -> Tensor:
        """Keys (B, P) int64 drawn from their posterior by uniform numbers (B, P).

        Where a fall follows whatever is held, any key may be drawn: who learns from the draws learns that too.
        """
        forward = self._forward(self._seen(self.outcomes(self.bars(pictures, motions)), motions))
        # what each tick draws for every key that may follow, (B, P, K); after the last tick none follows
        score = forward[:, :, None, :] + self._move(forward.device).T
        score = torch.cat((score[:, :-1], forward[:, -1:, None].expand_as(score[:, -1:])), 1)
        total = score.softmax(-1).cumsum(-1)
        least = uniforms[:, :, None, None] * total[..., -1:]
        drawn = (total <= least).sum(-1).clamp(max=self.keys - 1)
        # the course of keys: these maps applied one after the other, from the last tick on
        span = 1
        while span < drawn.shape[1]:
            drawn = torch.cat((drawn[:, :-span].gather(-1, drawn[:, span:]), drawn[:, -span:]), 1)
            span *= 2
        return drawn[..., 0]

    def lead(self, pictures: Tensor, motions: Tensor, keys: Tensor) -> Tensor:
        """The likeliest motion (B, P) int64 of each tick under `keys` (B, P), after the true past."""
        outcomes = self.outcomes(self.bars(pictures, motions)).argmax(-1)  # (B, P, K)
        return outcomes.gather(-1, keys[..., None])[..., 0]

    def _seen(self, outcomes: Tensor, motions: Tensor) -> Tensor:
        """Log-probability (B, P, K) of what was seen under each key."""
        index = motions[:, :, None, None].expand(-1, -1, self.keys, 1)
        return outcomes.gather(-1, index)[..., 0]

    def _forward(self, seen: Tensor) -> Tensor:
        """(B, P, K): log-probability of each key and all motions up to a tick.

        Products of (K, K) matrices, all of them at once in log2(P) rounds (Hillis and Steele 1986): tick by tick it
        would be hundreds of launches on a GPU. Each is divided by its largest number, whose logarithm is kept apart.
        """
        with torch.autocast(seen.device.type, enabled=False):
            return _scanned(seen.float(), self._move(seen.device).exp())

    def _move(self, device: torch.device) -> Tensor:
        """(K, K) log-probability of the next key after each."""
        other = math.log((1 - STICK) / (self.keys - 1))
        return torch.full((self.keys, self.keys), other, device=device).fill_diagonal_(math.log(STICK))


def _scanned(seen: Tensor, move: Tensor) -> Tensor:
    """See `Keys._forward`; move (K, K) holds the chances of the next key."""
    most = seen.detach().amax(-1, keepdim=True)  # (B, P, 1)
    likely = (seen - most).exp()
    steps = move * likely[:, 1:, None]  # (B, P - 1, K, K)
    scale = most[:, 1:]
    span = 1
    while span < steps.shape[1]:
        product = steps[:, :-span] @ steps[:, span:]
        largest = product.detach().amax((-2, -1), keepdim=True)
        added = scale[:, :-span] + scale[:, span:] + largest[..., 0].log()
        steps = torch.cat((steps[:, :span], product / largest), 1)
        scale = torch.cat((scale[:, :span], added), 1)
        span *= 2
    first = likely[:, :1] / len(move)
    found = torch.cat((first, (first[:, :, None] @ steps)[:, :, 0]), 1)
    scale = most[:, :1] + torch.cat((torch.zeros_like(most[:, :1]), scale), 1)
    return found.clamp_min(1e-37).log() + scale
