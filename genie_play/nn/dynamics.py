"""The dynamics model: MaskGIT over ST blocks, told by an action which frame comes next.

Bruce et al. 2024, section 2.1 (recipe "paper"); DESIGN 4 (recipe "teacher": complete teacher forcing, keys of the
previous frame, 2-D rotary positions, context corruption with a level). An action belongs to the frame it leads to and
is added to each of its tokens. Knows nothing of pictures or sampling.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_play.config import DynamicsConfig
from genie_play.nn.st_transformer import LayerKV, LayerPast, STBlock, stream_blocks
from genie_play.nn.tokenizer import CacheShape
from genie_play.types import N_ACTIONS


class Dynamics(nn.Module):
    """Predicts the masked tokens of a frame from its visible ones, the frames before it and its action."""

    code_vectors: Tensor

    def __init__(self, config: DynamicsConfig, grid: tuple[int, int], codes: int, code_dim: int) -> None:
        super().__init__()
        if config.recipe not in ("teacher", "paper"):
            raise ValueError(f"no dynamics recipe is called {config.recipe!r}")
        if config.anchor and config.window < 3:
            raise ValueError("with an anchor the window should hold three frames or more")
        self.config, self.grid, self.codes = config, grid, codes
        self.n_tokens, self.mask_id, self.no_action = grid[0] * grid[1], codes, N_ACTIONS
        width, ours = config.width, config.recipe == "teacher"
        self.token_embedding = nn.Embedding(codes + 1, width)
        self.action_embedding = nn.Embedding(N_ACTIONS + 1, width)
        self.level_embedding = nn.Embedding(config.noise_levels, width)
        nn.init.normal_(self.token_embedding.weight, std=0.5)
        nn.init.normal_(self.action_embedding.weight, std=0.5)
        nn.init.zeros_(self.level_embedding.weight)
        # what the tokenizer's codes look like helps to tell near codes from far ones (GenieRedux, CVPR 2025)
        self.code_projection = nn.Linear(code_dim, width, bias=False)
        self.register_buffer("code_vectors", torch.zeros(codes + 1, code_dim))  # the mask has the zero vector
        self.place = None if ours else nn.Parameter(torch.randn(self.n_tokens, width) * 0.1)
        sizes = width, config.heads, config.head_dim, config.ffn, config.window, grid
        self.blocks = nn.ModuleList(
            STBlock(*sizes, rotary=ours, cross_frame=ours, anchor=config.anchor) for _ in range(config.layers)
        )
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.head = nn.Linear(width, codes, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)
        self.cache_shape = CacheShape(config.layers, config.heads, config.head_dim, config.window, config.anchor)

    def set_codes(self, codebook: Tensor) -> None:
        """Take the tokenizer's unit codes (V, d)."""
        self.code_vectors[:-1].copy_(codebook)

    def embed(self, tokens: Tensor, action: Tensor, level: Tensor | int = 0) -> Tensor:
        """Tokens (..., N) and the action (...) that leads to their frame to (..., N, D).

        `level` (...) or 0: how corrupted the frame is, as a bucket; play is bucket 0.
        """
        x = self.token_embedding(tokens) + self.code_projection(self.code_vectors[tokens])
        told = self.action_embedding(action)
        if not isinstance(level, int) or level:
            told = told + self.level_embedding(torch.as_tensor(level, device=tokens.device))
        else:
            told = told + self.level_embedding.weight[0]
        x = x + told.unsqueeze(-2)
        return x if self.place is None else x + self.place

    def forward(self, tokens: Tensor, actions: Tensor, clean: Tensor | None = None, levels: Tensor | int = 0) -> Tensor:
        """Hidden states (B, T, N, D), normed, of masked clips `tokens` (B, T, N) under `actions` (B, T).

        With `clean` (B, T, N) the masked frame t attends to the clean frames before it and to itself; without, the
        masked clip attends to itself (the paper's single stream). `levels` (B, T) belong to the clean copy.
        """
        x = self.embed(tokens, actions)
        if clean is not None:
            x = torch.stack((self.embed(clean, actions, levels), x))
        for block in self.blocks:
            x = block(x)
        return self.norm(x if clean is None else x[1])

    def stream(self, x: Tensor, past: list[LayerPast], rows: Tensor | None = None) -> tuple[Tensor, list[LayerKV]]:
        """One embedded frame (B, N, D) against the past: hidden states (B, N, D), normed, and its keys and values.

        With `rows` (R,), positions, the hidden states of these alone, (B, R, D), and keys and values not to be kept.
        """
        x, kept = stream_blocks(self.blocks, x, past, rows)
        return self.norm(x), kept

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., V) in float32."""
        return F.linear(hidden, self.head.weight.to(hidden.dtype)).float()
