"""A whole frame as one fixed list of operations: passes, decode, commit, with nothing that changes but device memory.

What differs from frame to frame (seed, frame index, actions, tokens that are given, which row of a batch is taken) lies
in tensors at addresses that stay; rings are written through index tensors; nothing is asked of the device. So the list
can be captured once and replayed (`graph.py`), and it is the same function as `Sampler` and `Ring`. Numbers that are
not finite are noted in a word that travels with the picture. Knows nothing of streams, graphs or the host's copies.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genie_play import schedule
from genie_play.config import PathConfig, TokenizerConfig
from genie_play.engine import draw
from genie_play.engine.fixed import FixedRing
from genie_play.engine.sampler import Sampler
from genie_play.engine.stack import Stack
from genie_play.nn.genie import Genie
from genie_play.nn.look import Look
from genie_play.nn.tokenizer import CacheShape
from genie_play.ops.reference import Dials, Noise, Revealed, pack

MOST = 64  # rows of a batch


class Controls:
    """What a frame depends on beside the rings, in one tensor of device memory that the host fills with one copy."""

    def __init__(self, n_tokens: int, device: torch.device) -> None:
        self.numbers = torch.zeros(4 + MOST + 2 * n_tokens, dtype=torch.int64, device=device)
        self.key = draw.Key(self.numbers[0:1], self.numbers[1:2])
        self.row = self.numbers[2:3]  # of a batch, to be taken
        self.told = self.numbers[3:4]  # the action that led to the tokens below
        self.actions = self.numbers[4 : 4 + MOST]  # what is tried next
        self.tokens = self.numbers[4 + MOST :][None, :n_tokens]  # (1, N) that are given
        self.order = self.numbers[4 + MOST + n_tokens :]  # (N,) in which a frame of random order is revealed


class Shown:
    """What came of a batch of B frames: one run of bytes, so that the host gets it in one copy, and views of it."""

    def __init__(
        self,
        batch: int,
        config: TokenizerConfig,
        shape: CacheShape,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        size, n_tokens = (config.height, config.width), config.n_tokens
        sides = zip(config.grid, config.patch_size, strict=True)
        patches = batch, 3 * config.cell**2, *(places * side // config.cell for places, side in sides)
        pixels, self.batch = batch * size[0] * size[1] * 3, batch
        # tokens start where four bytes can be read at once
        start = -(-pixels // 16) * 16
        end = start + 4 * batch * n_tokens
        self.bytes = torch.zeros(end + 4, dtype=torch.uint8, device=device)
        self.picture = self.bytes[:pixels].view(batch, *size, 3)
        self.tokens = self.bytes[start:end].view(torch.int32).view(batch, n_tokens)
        self.broken = self.bytes[end:].view(torch.int32)  # (1,) not 0 where numbers were not finite
        # what the host never sees: what the picture was made of, the decoder's keys and values (2, L, B, N, h, hd)
        self.patches = torch.zeros(patches, dtype=dtype, device=device)
        self.kept = torch.zeros(
            2, shape.layers, batch, n_tokens, shape.heads, shape.head_dim, dtype=dtype, device=device
        )


class StaticFrame:
    """The lists of operations of one engine, a method each; they read `controls` and write rings or a `Shown`.

    `draw(B)` fills in B frames under as many actions and decodes them; `merged(B)` also commits the tokens that are
    given first, in the same pass as the first of the new frame; `show()` decodes tokens that are given; `take(B)`
    commits a row of what was shown to the decoder's ring; `commit()` commits tokens to the dynamics model's.
    """

    def __init__(
        self,
        genie: Genie,
        sampler: Sampler,
        backend: ModuleType,
        path: PathConfig,
        stacks: tuple[Stack, Stack],
        rings: tuple[FixedRing, FixedRing],
    ) -> None:
        self.genie, self.sampler, self.backend, self.path = genie, sampler, backend, path
        self.dynamics, self.decoder = stacks
        self.past, self.seen = rings
        device = sampler.table.device
        self._by_kernel = path.ops == "triton"
        self.controls = Controls(genie.dynamics.n_tokens, device)
        # the dials of every pass; seed and frame are copied in at the start of a frame
        left = [self.passes - 1 - step for step in range(self.passes)]
        self._dials = pack([(Noise(0, 0, s), self._heat(n), self._choice(n)) for s, n in enumerate(left)]).to(device)
        grey = torch.full((1, *genie.config.size, 3), 0.5, device=device)
        self._look = genie.tokenizer.look(grey)  # of the picture that was given last
        self._hidden = torch.full((1, genie.dynamics.n_tokens), genie.dynamics.mask_id, device=device)
        self._halton = [torch.from_numpy(p).to(device) for p in self._split(0, 0)] if path.order == "halton" else []
        self._shown: dict[int, Shown] = {}
        self._states: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.least = torch.zeros(self.passes, device=device)  # the least likely draw of each pass of a frame

    def give(self, look: Look) -> None:
        """Decode in the light of another picture from now on."""
        assert self._look is not None
        for ours, new in zip(self._look, look, strict=True):
            ours.copy_(new)

    def shown(self, batch: int) -> Shown:
        """Where frames of a batch are shown; 0 is where given tokens are."""
        if batch not in self._shown:
            tokenizer = self.genie.tokenizer
            self._shown[batch] = Shown(
                max(batch, 1), tokenizer.config, tokenizer.decoder_shape, self._hidden.device, self.seen.dtype
            )
        return self._shown[batch]

    def draw(self, batch: int) -> None:
        """Fill in the next frame under `batch` actions."""
        tokens, x, bases = self._begin(batch)
        view = self.dynamics.look(self.past)
        for step in range(self.passes):
            tokens, x = self._reveal(self.dynamics.read(x, self.past, view), tokens, bases, step)
        self._decode(tokens, self.shown(batch))

    def merged(self, batch: int) -> None:
        """Commit the tokens that are given and fill in the frame after them: a pass less than `commit` and `draw`."""
        tokens, x, bases = self._begin(batch)
        old = self.sampler.embed(self.controls.tokens, self.controls.told)
        hidden = self.dynamics.pair(old, x, self.past)
        tokens, x = self._reveal(hidden, tokens, bases, 0)
        view = self.dynamics.look(self.past)
        for step in range(1, self.passes):
            tokens, x = self._reveal(self.dynamics.read(x, self.past, view), tokens, bases, step)
        self._decode(tokens, self.shown(batch))

    def show(self, first: bool = False) -> None:
        """Decode the tokens that are given; `first` where the decoder's ring is empty."""
        self._decode(self.controls.tokens, self.shown(0), first)

    def take(self, batch: int) -> None:
        """Commit one row of what was shown to the decoder's ring."""
        self.seen.write(self.shown(batch).kept, None, self.controls.row)

    def commit(self, first: bool = False) -> None:
        """Commit the tokens that are given to the dynamics model's ring; `first` where that is empty."""
        x = self.sampler.embed(self.controls.tokens, self.controls.told)
        self.past.write(*self.dynamics.keep(x, self.past, first)[1:])

    # early exit: the same frame in pieces, so that the host can stop between two

    def begin(self, batch: int) -> None:
        """A frame that is all hidden."""
        made = self._begin(batch)
        if batch not in self._states:
            self._states[batch] = made[0].clone(), made[1].clone(), made[2].clone()
        for kept, new in zip(self._states[batch], made, strict=True):
            kept.copy_(new)

    def one_pass(self, batch: int, step: int, rest: bool = False) -> None:
        """One pass, which also notes its least likely draw; with `rest` it fills in all that is left, as the last."""
        tokens, x, bases = self._states[batch]
        hidden, mask = self.dynamics.read(x, self.past, self.dynamics.look(self.past)), self.genie.dynamics.mask_id
        made = self._reveal(hidden, tokens, bases, step, rest)
        chance = self.genie.dynamics.logits(self.sampler.guide(hidden)).log_softmax(-1)
        likely = chance.gather(-1, made.tokens.clamp_max(mask - 1)[..., None])[..., 0]
        drawn = (tokens == mask) & (made.tokens != mask)
        self.least[step].copy_(likely.masked_fill(~drawn, 0.0).amin().exp())
        tokens.copy_(made.tokens)
        x.copy_(made.x)

    def end(self, batch: int) -> None:
        """Decode what the passes made."""
        self._decode(self._states[batch][0], self.shown(batch))

    @property
    def passes(self) -> int:
        """Passes of a frame."""
        return min(self.path.steps, self.genie.dynamics.n_tokens)

    def _begin(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N) that are all hidden, x as a pass takes them, and the bases of all its rows."""
        if self._by_kernel:
            self._dials.integers[:, :2].copy_(self.controls.numbers[:2])
        bases = self.sampler.base(self.sampler.led(self.controls.actions[:batch]))
        tokens = self._hidden.expand(batch, -1).contiguous()
        return tokens, self.sampler.begin(tokens, bases), bases

    def _reveal(self, hidden: Tensor, tokens: Tensor, bases: Tensor, step: int, rest: bool = False) -> Revealed:
        """What one pass reveals, and x of all rows of the next; with `rest` all that is left, as the last does."""
        made = self._revealed(self.sampler.guide(hidden), tokens, bases[: len(tokens)], step, rest)
        return Revealed(made.tokens, self.sampler.begin(made.tokens, bases)) if self.sampler.guides else made

    def _revealed(self, hidden: Tensor, tokens: Tensor, base: Tensor, step: int, rest: bool) -> Revealed:
        which, left = (self._left(step), 0) if rest else (self._which(step), self.passes - 1 - step)
        head, table = self.genie.dynamics.head.weight, self.sampler.table
        if self._by_kernel:
            dials = self._dials.at(step)
            if rest:
                dials = Dials(dials.integers, self._dials.floats[self.passes - 1])
            made: Revealed = self.backend.reveal(hidden, head, tokens, table, base, dials, which)
            return made
        return draw.reveal(
            hidden,
            head,
            tokens,
            table,
            base,
            self.controls.key,
            step,
            which,
            self._heat(left),
            variant=self.path.variant,
            choice_temperature=self._choice(left),
        )

    def _heat(self, left: int) -> float:
        """Temperature of a pass that so many follow."""
        return 0.0 if self.path.last_argmax and not left else self.path.temperature

    def _choice(self, left: int) -> float:
        return self.path.temperature * left / self.passes

    def _which(self, step: int) -> Tensor | int:
        """What a pass reveals: positions, or how many."""
        counts = schedule.reveal_counts(self.genie.dynamics.n_tokens, self.path.steps)
        if self.path.order == "confidence":
            return counts[step]
        if self.path.order == "halton":
            return self._halton[step]
        before = sum(counts[:step])
        return self.controls.order[before : before + counts[step]]

    def _left(self, step: int) -> Tensor | int:
        """All that the passes from this one on reveal."""
        rest = [self._which(later) for later in range(step, self.passes)]
        return sum(n for n in rest if isinstance(n, int)) or torch.cat([p for p in rest if isinstance(p, Tensor)])

    def _split(self, seed: int, index: int) -> list[NDArray[np.int64]]:
        return schedule.reveal_plan(self.genie.dynamics.grid, self.path.steps, self.path.order, seed, index)

    def _decode(self, tokens: Tensor, shown: Shown, first: bool = False) -> None:
        tokenizer = self.genie.tokenizer
        # a token that stayed hidden is no code; its row says that it is broken
        codes = tokenizer.quantizer.lookup(tokens.clamp_max(tokenizer.config.codes - 1))
        x, recalled = tokenizer.decoder.begin(codes, self._look)
        x, temporal, _ = self.decoder.keep(x, self.seen, first)
        patches = tokenizer.decoder.patches(x, recalled)  # the pixel shuffle after them is part of the picture
        shown.patches.copy_(patches)
        shown.tokens.copy_(tokens)
        shown.kept.copy_(temporal)
        shown.broken.copy_((tokens.amax() >= self.genie.dynamics.codes).view(1))
        shown.picture.copy_(self.backend.picture(patches, shown.picture.shape[1:3], shown.broken))
