"""The MaskGIT loop that fills in one frame of tokens.

Chang et al. 2022 (arXiv 2202.04200). Knows the dynamics model and the ops; knows nothing of pixels, keys or time.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from genie_play import schedule
from genie_play.config import PathConfig
from genie_play.nn.dynamics import Dynamics
from genie_play.nn.st_transformer import LayerPast
from genie_play.ops.reference import Noise, Revealed
from genie_play.types import GenieError


class Sampler:
    """Draws frames from a dynamics model along one path. `ops` is a kernel backend (`genie_play.ops`)."""

    def __init__(self, dynamics: Dynamics, ops: ModuleType, path: PathConfig) -> None:
        self.dynamics, self.ops, self.path = dynamics, ops, path
        if path.guidance != 1.0 and dynamics.config.recipe == "paper":
            raise GenieError("path.guidance needs a world that has learned what no action is; choose 1")
        self.device, self.grid = dynamics.head.weight.device, dynamics.grid
        self.guides = path.guidance != 1.0
        with torch.inference_mode():
            # what `dynamics.embed` adds up for each token, once: rows of the codes, then of the mask
            self.table = dynamics.token_embedding.weight + dynamics.code_projection(dynamics.code_vectors)
            self._hidden_frame = torch.full((1, dynamics.n_tokens), dynamics.mask_id, device=self.device)
        self._halton = self._positions(0, 0) if path.order == "halton" else []

    def base(self, actions: Tensor) -> Tensor:
        """What `dynamics.embed` adds to every token of a frame that `actions` (B,) lead to: (B, 1 or N, D)."""
        told: Tensor = (self.dynamics.action_embedding(actions) + self.dynamics.level_embedding.weight[0])[:, None]
        return told if self.dynamics.place is None else told + self.dynamics.place

    def led(self, actions: Tensor) -> Tensor:
        """Of `actions` (B,) those of all rows of a pass: these, and where it guides as many times none."""
        return torch.cat((actions, torch.full_like(actions, self.dynamics.no_action))) if self.guides else actions

    def guide(self, hidden: Tensor) -> Tensor:
        """Hidden states of the rows that `led` names to those to draw from, (B, ...).

        Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598) of logits, here of what they are linear in:
        none + guidance * (told - none), where `none` was told no action, as some frames are in training.
        """
        if not self.guides:
            return hidden
        told, none = hidden.chunk(2)
        return none + self.path.guidance * (told - none)

    def embed(self, tokens: Tensor, actions: Tensor) -> Tensor:
        """Clean tokens (B, N) and actions (B,) to (B, N, D): the input of a commit pass."""
        x: Tensor = self.ops.embed(tokens, self.table, self.base(actions))
        return x

    def begin(self, tokens: Tensor, bases: Tensor) -> Tensor:
        """Tokens (B, N) as a pass takes them under the bases of all its rows."""
        x: Tensor = self.ops.embed(tokens.repeat(2, 1) if self.guides else tokens, self.table, bases)
        return x

    def sample(self, past: list[LayerPast], actions: Tensor, seed: int, index: int) -> Revealed:
        """Tokens (B, N) int64 of frame `index` under each of `actions` (B,), and their embedding (B, N, D).

        Deterministic in all arguments: noise is a function of (seed, index, pass) and the position, so rows share it. A
        past of batch 1 serves all rows. GenieError if the network gives numbers that are not finite.
        """
        dynamics, count = self.dynamics, len(actions)
        bases = self.base(self.led(actions))
        base = bases[:count]
        tokens = self._hidden_frame.expand(count, -1)
        x = self.begin(tokens, bases)
        plan = self._plan(seed, index)
        rest: Tensor | None = None  # (B,) of each row of the batch: what is left is filled in now
        for step, which in enumerate(plan):
            noise, left = Noise(seed, index, step), (len(plan) - 1 - step) / len(plan)
            rows = self._rows(tokens, which, rest is not None)
            hidden, before = self.guide(self._stream(x, past, rows)), tokens
            tokens, x = self._reveal(hidden, before, base, noise, which, left)
            if rest is not None and rows is not None:
                filled = self._reveal(hidden, before, base, noise, rows, 0.0)
                tokens = torch.where(rest[:, None], filled.tokens, tokens)
                x = torch.where(rest[:, None, None], filled.x, x)
            if self.path.sure and left:
                if not (tokens == dynamics.mask_id).any():
                    break
                sure = self._sure(hidden, before, tokens)
                sure = sure if rest is None else sure | rest
                rest = sure if sure.any() else None
            if self.guides and left:
                x = self.begin(tokens, bases)
        if int(tokens.max()) >= dynamics.codes:
            raise GenieError("the world's network gave numbers that are not finite; go back some steps, or restart it")
        return Revealed(tokens, x)

    def _rows(self, tokens: Tensor, which: Tensor | int, rest: bool) -> Tensor | None:
        """The positions (R,) whose hidden states a pass needs; None: all, as a GPU gains nothing from leaving some."""
        if rest or (isinstance(which, int) and self.device.type == "cpu"):
            return (tokens == self.dynamics.mask_id).any(0).nonzero()[:, 0]
        return which if isinstance(which, Tensor) and self.device.type == "cpu" else None

    def _stream(self, x: Tensor, past: list[LayerPast], rows: Tensor | None) -> Tensor:
        """Hidden states (B, N, D), zero outside the rows. A past of as many rows as there are actions serves both."""
        if self.guides and 1 < len(past[0].temporal_k) < len(x):
            return torch.cat([self._hidden(half, past, rows) for half in x.chunk(2)])
        return self._hidden(x, past, rows)

    def _hidden(self, x: Tensor, past: list[LayerPast], rows: Tensor | None) -> Tensor:
        hidden, _ = self.dynamics.stream(x, past, rows)
        return hidden if rows is None else torch.zeros_like(x, dtype=hidden.dtype).index_copy_(1, rows, hidden)

    def _reveal(
        self, hidden: Tensor, tokens: Tensor, base: Tensor, noise: Noise, which: Tensor | int, left: float
    ) -> Revealed:
        """One call of `ops.reveal`; `left` is the share of the passes that follow."""
        path = self.path
        revealed: Revealed = self.ops.reveal(
            hidden,
            self.dynamics.head.weight,
            tokens,
            self.table,
            base,
            noise,
            which,
            0.0 if path.last_argmax and not left else path.temperature,
            variant=path.variant,
            # MaskGIT anneals the noise of the choice to nothing; it is read in the confidence order alone
            choice_temperature=path.temperature * left,
        )
        return revealed

    def _sure(self, hidden: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """(B,) bool: every draw of a pass was as likely as the path asks. Each row by itself, as it would be alone."""
        mask = self.dynamics.mask_id
        drawn = (before == mask) & (after != mask)
        rows = drawn.any(0).nonzero()[:, 0]
        codes = after.index_select(1, rows).clamp(max=mask - 1)
        likely = self.dynamics.logits(hidden.index_select(1, rows)).softmax(-1).gather(-1, codes[..., None])[..., 0]
        return ((likely >= self.path.sure) | ~drawn.index_select(1, rows)).all(-1)

    def _plan(self, seed: int, index: int) -> Sequence[Tensor | int]:
        """What each pass reveals: positions, or how many."""
        if self.path.order == "confidence":
            return list(schedule.reveal_counts(self.dynamics.n_tokens, self.path.steps))
        return self._halton or self._positions(seed, index)

    def _positions(self, seed: int, index: int) -> list[Tensor]:
        plan = schedule.reveal_plan(self.grid, self.path.steps, self.path.order, seed, index)
        return [torch.from_numpy(positions).to(self.device) for positions in plan]
