"""The optimisers of a stage and their rate: Muon for hidden matrices, AdamW for the rest.

Muon: Jordan et al. 2024. `torch.optim.Muon` is the slow twin of the one here, which handles all matrices of a shape in
one product: a test compares them, and their states are stored alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from genie_play.config import StageConfig
from genie_play.nn.st_transformer import STBlock
from genie_play.nn.tokenizer import Conv

QUINTIC = (3.4445, -4.7750, 2.0315)  # the slope at zero is as steep as it can be; singular values end near 1
ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal by Newton-Schulz. Matrices of one shape are stacked: a sixth of the operations at eight
    layers of one width, which a GPU is glad of, and no slower on a processor (measured)."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.01, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, some in shapes.items():
                self._move(some, shape, group)

    def _move(self, some: list[Tensor], shape: torch.Size, group: dict[str, Any]) -> None:
        grads = [parameter.grad for parameter in some if parameter.grad is not None]
        for parameter in some:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in some]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, momenta, group["momentum"])
        updates = orthogonal(torch.stack(list(ahead))).to(some[0].dtype).unbind(0)
        torch._foreach_mul_(some, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(some, updates, alpha=-group["lr"] * math.sqrt(max(1, shape[0] / shape[1])))


def orthogonal(matrices: Tensor) -> Tensor:
    """(B, m, n) to the nearest matrices with orthogonal rows or columns, about; in bfloat16 where that is quick."""
    a, b, c = QUINTIC
    x = matrices.bfloat16() if matrices.is_cuda or fast_bfloat16() else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32 (AVX512-BF16 or AMX): where it does not, by far slower
    (measured: a fiftieth)."""
    capabilities = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(capabilities())


def make_optimisers(learners: Iterable[nn.Module], config: StageConfig) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices of ST blocks and convolutions, AdamW for the rest; each group remembers its peak
    rate."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for learner in learners:
        hidden = {
            id(layer.weight)
            for block in learner.modules()
            if isinstance(block, (STBlock, Conv))
            for layer in block.modules()
            if isinstance(layer, (nn.Linear, Conv))
        }
        for parameter in learner.parameters():
            (matrices if id(parameter) in hidden else rest).append(parameter)
    gpu = any(parameter.is_cuda for parameter in [*matrices, *rest])
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=(0.9, 0.95), fused=gpu or None)
    ]
    if matrices:
        optimisers.append(Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return optimisers


def learning_rate(step: int, config: StageConfig) -> float:
    """Warm-up, plateau, linear decay to zero at the last step (WSD), as a share of the peak."""
    up = min(1.0, (step + 1) / max(1, round(config.warmup * config.steps)))
    down = min(1.0, (config.steps - step) / max(1, round(config.decay * config.steps)))
    return min(up, down)


def ramp(step: int, seam: int | None, config: StageConfig, share: float) -> float:
    """0 to 1 over `share` of the steps after a seam, where the optimisers were started anew; 1 without one."""
    if seam is None:
        return 1.0
    return min(1.0, (step - seam + 1) / max(1, round(share * config.steps)))
