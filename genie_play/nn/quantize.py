"""Vector quantisation with cosine codes: k-means start, EMA codebook, restart of dead codes.

van den Oord et al. 2017 (VQ-VAE), Razavi et al. 2019 (EMA), Yu et al. 2022 (cosine codes). Knows nothing of what is
quantised. All state is in buffers, so that it travels with the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_play import ops


@dataclass
class Quantized:
    """What the quantizer made of its input (..., d)."""

    vectors: Tensor  # (..., d): unit codes, gradient passed straight through; the unit input itself before the start
    tokens: Tensor  # (...) int64
    commitment: Tensor  # scalar: mean squared distance of the unit input to its code


class Quantizer(nn.Module):
    """`codes` unit vectors of `dim` numbers. It passes its input through, unquantised, until `start` is called."""

    codebook: Tensor
    sums: Tensor
    counts: Tensor
    idle: Tensor
    started: Tensor

    def __init__(self, codes: int, dim: int, decay: float = 0.98, restart_after: int = 40) -> None:
        super().__init__()
        self.codes, self.dim, self.decay, self.restart_after = codes, dim, decay, restart_after
        generator = torch.Generator().manual_seed(0)
        seeds = F.normalize(torch.randn(codes, dim, generator=generator), dim=-1)
        self.register_buffer("codebook", seeds)
        self.register_buffer("sums", seeds.clone())
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("idle", torch.zeros(codes))  # training steps since each code was used
        self.register_buffer("started", torch.zeros((), dtype=torch.int64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Quantizer:
        # whether it has started is asked every step: a GPU would have to stop to answer, so that stays here
        started = self.started
        super()._apply(fn, recurse)
        if started.device.type == "cpu":
            self.started = started
        return self

    def forward(self, z: Tensor) -> Quantized:
        """Quantise (..., d) vectors; in float32, whatever the input is."""
        with torch.autocast(z.device.type, enabled=False):
            unit = F.normalize(z.float(), dim=-1)
            tokens = self.nearest(unit)
            code = self.codebook[tokens]
            commitment = (unit - code.detach()).square().sum(-1).mean()
            if self.training and not self.started:
                return Quantized(unit, tokens, commitment * 0)
            return Quantized(unit + (code - unit).detach(), tokens, commitment)

    def nearest(self, unit: Tensor) -> Tensor:
        """Tokens (...) of unit vectors (..., d)."""
        return _nearest(unit.flatten(0, -2), self.codebook).view(unit.shape[:-1])

    def lookup(self, tokens: Tensor) -> Tensor:
        """Unit codes (..., d) of tokens (...)."""
        return self.codebook[tokens]

    @torch.no_grad()
    def merged(self, least: float, fewest: int) -> Tensor:
        """(V,) int64: for each code the first of those it is one with, where the nearest two become one again and again
        while their cosine is `least` or more and more than `fewest` are left."""
        alike = (self.codebook @ self.codebook.T).tolist()
        pairs = sorted(((alike[i][j], i, j) for j in range(self.codes) for i in range(j)), reverse=True)
        first = list(range(self.codes))
        for cosine, i, j in pairs:
            if cosine < least or len(set(first)) <= fewest:
                break
            one, other = sorted((first[i], first[j]))
            first = [one if n == other else n for n in first]
        return torch.tensor(first, device=self.codebook.device)

    @torch.no_grad()
    def start(self, z: Tensor, generator: torch.Generator, rounds: int = 10) -> None:
        """Place the codes by k-means (k-means++ seeds) on the vectors of one batch, and quantise from now on."""
        points = F.normalize(z.detach().float().flatten(0, -2), dim=-1)
        points = points[torch.randperm(len(points), generator=generator)[: 64 * self.codes]]
        centres = self._spread(points, generator)
        for _ in range(rounds):
            tokens = _nearest(points, centres)
            sums = torch.zeros_like(centres).index_add_(0, tokens, points)
            centres = torch.where(sums.norm(dim=-1, keepdim=True) > 0, F.normalize(sums, dim=-1), centres)
        self.codebook.copy_(centres)
        self.sums.copy_(centres)
        self.counts.fill_(1.0)
        self.idle.zero_()
        self.started.fill_(1)

    @torch.no_grad()
    def update(self, z: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Move the codes to the mean of what they caught; restart those unused for `restart_after` steps with the
        worst-fitted vectors of the batch. Returns how many were restarted. Nothing here waits for a GPU."""
        points = F.normalize(z.detach().float().flatten(0, -2), dim=-1)
        tokens = tokens.flatten()
        caught = torch.zeros_like(self.counts).index_add_(0, tokens, torch.ones_like(tokens, dtype=torch.float32))
        self.counts.mul_(self.decay).add_(caught, alpha=1 - self.decay)
        self.sums.mul_(self.decay).index_add_(0, tokens, points, alpha=1 - self.decay)
        moved = F.normalize(self.sums, dim=-1)
        self.codebook.copy_(torch.where(self.counts[:, None] > 1e-3, moved, self.codebook))
        self.idle.add_(1).masked_fill_(caught > 0, 0)
        dead = self.idle > self.restart_after
        if dead.device.type == "cpu" and not dead.any():
            return dead.sum()
        fit = (points * self.codebook[tokens]).sum(-1)
        # a random choice among the worst quarter: the very worst are often one and the same thing
        worst = fit.argsort()[: max(len(points) // 4, min(self.codes, len(points)))]
        order = torch.randperm(len(worst), generator=generator)[: self.codes].to(worst.device, non_blocking=True)
        # the n-th dead code takes the n-th of them; with more dead codes than vectors the rest wait
        rank = dead.cumsum(0) - 1
        dead &= rank < len(order)
        chosen = points[worst[order[rank.clamp(0, len(order) - 1)]]]
        self.codebook.copy_(torch.where(dead[:, None], chosen, self.codebook))
        self.sums.copy_(torch.where(dead[:, None], chosen, self.sums))
        self.counts.masked_fill_(dead, 1.0)
        self.idle.masked_fill_(dead, 0)
        return dead.sum()

    def _spread(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Seeds far from one another: k-means++ for few codes, a random choice for many."""
        if self.codes > 64:
            return points[torch.randint(len(points), (self.codes,), generator=generator)].clone()
        centres = points[torch.randint(len(points), (1,), generator=generator)]
        while len(centres) < self.codes:
            distance = (1 - (points @ centres.T).amax(-1)).clamp_min(1e-9).cpu()
            centres = torch.cat((centres, points[torch.multinomial(distance, 1, generator=generator)]))
        return centres


def _nearest(points: Tensor, codes: Tensor) -> Tensor:
    """(R, d) and (V, d) to (R,): one kernel on a GPU, where the (R, V) products would be the step's largest tensor."""
    if points.is_cuda and not torch.compiler.is_compiling():
        tokens: Tensor = ops.choose(points.device)[1].nearest(points.detach(), codes)
        return tokens
    return (points @ codes.T).argmax(-1)
