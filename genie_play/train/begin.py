"""Begin a run as another world is, `train --begin`: from its weights, and on its networks.

What has the same shape there takes its weights as they are. Dynamics can be had under another tokenizer too: most of
what it knows is how things move, not what their tokens are called. Clips that both tokenizers read say which old tokens
lie where a new one lies, and the new one is taken for the mean of those (measured: docs/worlds.md, `doodle`).
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genie_play import checkpoint
from genie_play.data.clips import Source
from genie_play.nn.dynamics import Dynamics
from genie_play.nn.genie import Genie, load_genie, save_genie
from genie_play.nn.st_transformer import ROTARY_BASE
from genie_play.nn.tokenizer import Tokenizer
from genie_play.train import loop
from genie_play.train.loop import Run, world_file
from genie_play.train.optimisers import fast_bfloat16
from genie_play.train.stages import Stage
from genie_play.types import GenieError

READS = 24  # batches of clips that both tokenizers read
CLIPS, FRAMES = 8, 12
FAINT = 0.3  # of rotary dimensions that have no counterpart: they would attend at random
TAKEN = "from"  # the key of a stage's record that names the world it was taken from

log = logging.getLogger(__name__)


def take(world: Path, stage: Stage, run: Run) -> None:
    """Before a stage of a run begins: where the run has no weights of its own for it, those of the file `world`.

    A run that is new takes over all networks that it can, with the records of their stages, so that any one of them can
    be trained under the others. GenieError where none has the shape that the run asks for, or no network can begin so.
    """
    old, header = load_genie(world)
    if header.provenance.get("true_actions"):
        raise GenieError(f"{world.name} was told the game's keys; nothing begins from it")
    file = world_file(run.out)
    if not file.exists():
        _found(old, header, run)
    genie, mine = load_genie(file)
    records = {name: done for name, done in mine.stages.items() if name not in stage.learns or TAKEN not in done}
    if "tokenizer" in stage.learns and TAKEN in records.get("dynamics", {}):
        del records["dynamics"]  # its tokens will not be what they were
    begun = loop.state_file(run.out, stage.name).exists() or loop.raw_file(run.out, stage.name).exists()
    starts = "dynamics" in stage.learns and "dynamics" not in records and not begun
    if starts:
        _dynamics(old, genie, loop.open_source(run.source, genie.config.size, run.seed))
    if starts or records != mine.stages:
        save_genie(genie, replace(mine, stages=records), file)


def carry(old: Genie, new: Genie, source: Source) -> None:
    """Let the dynamics of `new` know what that of `old` knows, in the tokens of `new`.

    ValueError where they differ in more than tokens (see `differs`).
    """
    if (why := differs(old, new)) is not None:
        raise ValueError(why)
    shares = counterparts(old.tokenizer, new.tokenizer, source)
    learned, dynamics = old.dynamics, new.dynamics
    dynamics.set_codes(new.tokenizer.quantizer.codebook)
    weights = {name: value.clone() for name, value in learned.state_dict().items() if name != "code_vectors"}
    with torch.no_grad():
        embedded = learned.token_embedding.weight + learned.code_projection(learned.code_vectors)
        weights["token_embedding.weight"] = torch.cat((shares @ embedded[:-1], embedded[-1:]))
        weights["code_projection.weight"] = torch.zeros_like(dynamics.code_projection.weight)  # it is in the mean
        weights["head.weight"] = shares @ learned.head.weight
        finer = tuple(ours / theirs for ours, theirs in zip(dynamics.grid, learned.grid, strict=True))
        for name, value in weights.items():
            if name.startswith("blocks.") and finer != (1.0, 1.0):
                weights[name] = stretched(name, value, dynamics, finer)
    dynamics.load_state_dict({**dynamics.state_dict(), **weights})


def differs(old: Genie, new: Genie) -> str | None:
    """Why the dynamics of `old` cannot be carried over to the tokens of `new`, if it cannot."""
    theirs, ours = old.config.dynamics, new.config.dynamics
    if theirs != ours:
        names = [name for name in vars(ours) if getattr(ours, name) != getattr(theirs, name)]
        return "; ".join(f"{name} is {getattr(theirs, name)} there, {getattr(ours, name)} here" for name in names)
    if old.config.size != new.config.size:
        return f"its pictures are of {old.config.size} pixels, here they are of {new.config.size}"
    if old.dynamics.grid != new.dynamics.grid and new.dynamics.place is not None:
        return f"its places are learned one by one, {old.dynamics.grid} there and {new.dynamics.grid} here"
    return None


@torch.no_grad()
def counterparts(old: Tokenizer, new: Tokenizer, source: Source) -> Tensor:
    """Of each code of `new` the shares (V_new, V_old) of the codes of `old` that lie where it lies, in clips that both
    read; rows sum to 1. A code that no clip had is taken for the mean of all."""
    found = torch.zeros(new.config.codes, old.config.codes)
    row, column = (
        (torch.arange(ours) * theirs + theirs // 2) // ours
        for ours, theirs in zip(new.config.grid, old.config.grid, strict=True)
    )
    place = (row[:, None] * old.config.grid[1] + column).flatten()
    for number in range(READS):
        clips = torch.from_numpy(source.batch(number, CLIPS, FRAMES)).float() / 255
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            ours, theirs = new.encode(clips).flatten(), old.encode(clips)[..., place].flatten()
        found.index_put_((ours, theirs), torch.ones(()), accumulate=True)
    found = torch.where(found.sum(1, keepdim=True) > 0, found, found.sum(0))
    return found / found.sum(1, keepdim=True)


def stretched(name: str, value: Tensor, dynamics: Dynamics, finer: tuple[float, ...]) -> Tensor:
    """A weight of spatial attention for a grid that is so many times as fine: what lay a step apart lies several steps
    apart, which is a step at a lower frequency, so that each pair of rotary dimensions becomes the next lower one."""
    config = dynamics.config
    size, few = config.head_dim, config.head_dim // 4
    order, faint = torch.arange(size), torch.ones(size)
    for axis, times in enumerate(finer):
        by = round(math.log(times) / math.log(ROTARY_BASE) * few)
        for start in (axis * 2 * few, (axis * 2 + 1) * few):
            order[start : start + few] = torch.arange(start, start + few).roll(by)
            ends = slice(start, start + by) if by >= 0 else slice(start + few + by, start + few)
            faint[ends] = FAINT
    what = name.partition(".")[2].partition(".")[2]
    if what in ("spatial.q_scale", "spatial.k_scale", "previous_key"):
        return value[..., order]
    if what == "spatial.qkv.weight":
        parts = value.unflatten(0, (3, config.heads, size)).clone()
        parts[:2] = parts[:2, :, order] * faint[:, None]
        return parts.flatten(0, 2)
    return value


def _found(old: Genie, header: checkpoint.Header, run: Run) -> None:
    """Write a new run's world: fresh, but for the networks that have the shape of those of `old`."""
    world = loop.world_of(run.preset, run.recipe)
    genie, fresh = loop.fresh_genie(world, run.seed), loop.fresh_header(world)
    taken = []
    if old.config.tokenizer == world.tokenizer:
        taken.append("tokenizer")
    if (old.config.actions, old.config.size) == (world.actions, world.size):
        taken.append("actions")
    if "tokenizer" in taken and old.config.dynamics == world.dynamics:
        taken.append("dynamics")
    if not taken and (why := differs(old, genie)) is not None:
        raise GenieError(
            f"nothing of {old.config.name} has the shape of {run.preset}'s networks ({why}); "
            "leave --begin out, or choose another --preset"
        )
    for part in taken:
        genie.get_submodule(part).load_state_dict(old.get_submodule(part).state_dict())
    genie.dynamics.set_codes(genie.tokenizer.quantizer.codebook)
    stages: dict[str, Any] = {
        name: {**done, TAKEN: old.config.name}
        for name, done in header.stages.items()
        if name.partition(".")[0] in taken
    }
    log.warning("begins as %s is: %s", old.config.name, ", ".join(taken) or "dynamics alone, in other tokens")
    save_genie(genie, replace(fresh, stages=stages), world_file(run.out))


def _dynamics(old: Genie, genie: Genie, source: Source) -> None:
    """What `genie`'s dynamics begins as: that of `old`, in other tokens where they are others."""
    same = torch.equal(old.tokenizer.quantizer.codebook, genie.tokenizer.quantizer.codebook)
    if same and old.config.tokenizer == genie.config.tokenizer and old.config.dynamics == genie.config.dynamics:
        genie.dynamics.load_state_dict(old.dynamics.state_dict())
    elif (why := differs(old, genie)) is not None:
        log.warning("dynamics begins from nothing, that of %s cannot be carried over: %s", old.config.name, why)
    else:
        log.warning("dynamics begins as that of %s, in other tokens", old.config.name)
        carry(old, genie, source)
