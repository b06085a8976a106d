"""Begin a run as another world is, `train --begin`: from its weights, and on its networks.

What has the same shape there takes its weights as they are. Dynamics can be had under another tokenizer too: most of
what it knows is how things move, not what their tokens are called. Clips that both tokenizers read say which old tokens
lie where a new one lies, and the new one is taken for the mean of those (measured: docs/worlds.md, `doodle-fine`).
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

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
    """Before a stage of a run begins: what the run has not begun itself and the file `world` has in the same shape is
    taken over, with the records of its stages, so that any network can be trained under the others.

    GenieError where the run is new and nothing has the shape that it asks for.
    """
    old, header = load_genie(world)
    if header.provenance.get("true_actions"):
        raise GenieError(f"{world.name} was told the game's keys; nothing begins from it")
    file, config = world_file(run.out), loop.world_of(run.preset, run.recipe)
    if file.exists():
        genie, mine = load_genie(file)
    else:
        genie, mine = loop.fresh_genie(config, run.seed), loop.fresh_header(config)
    records = dict(mine.stages)
    known = {_network(name) for name in records}
    for part in ("tokenizer", "actions", "dynamics"):
        if part not in known and _alike(part, old, genie):
            log.warning("%s begins as that of %s", part, old.config.name)
            genie.get_submodule(part).load_state_dict(old.get_submodule(part).state_dict())
            done = {name: stage for name, stage in header.stages.items() if _network(name) == part}
            records |= {name: {**stage, TAKEN: old.config.name} for name, stage in done.items()}
    if not records and (why := differs(old, genie)) is not None:
        raise GenieError(
            f"nothing of {old.config.name} has the shape of {run.preset}'s networks ({why}); "
            "leave --begin out, or choose another --preset"
        )
    genie.dynamics.set_codes(genie.tokenizer.quantizer.codebook)
    # what was taken counts as through, but not what is to be trained, nor dynamics whose tokens are
    moves = {*stage.learns, *(["dynamics"] if "tokenizer" in stage.learns else [])}
    records = {name: done for name, done in records.items() if name not in moves or TAKEN not in done}
    begun = any(path(run.out, stage.name).exists() for path in (loop.state_file, loop.raw_file))
    starts = "dynamics" in stage.learns and "dynamics" not in records and not begun
    if starts and not _alike("dynamics", old, genie):
        _other_tokens(old, genie, loop.open_source(run.source, genie.config.size, run.seed))
    if not file.exists() or starts or records != mine.stages:
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


def _network(record: str) -> str:
    """The network that a stage's record is about."""
    return record.partition(".")[0]


def _alike(part: str, old: Genie, new: Genie) -> bool:
    """Whether a network of `old` can be that of `new` as it is; dynamics where the tokens are the same."""
    ours, theirs = new.config, old.config
    if part == "tokenizer":
        return ours.tokenizer == theirs.tokenizer
    if part == "actions":
        return (ours.actions, ours.size) == (theirs.actions, theirs.size)
    same = torch.equal(old.tokenizer.quantizer.codebook, new.tokenizer.quantizer.codebook)
    return same and (ours.tokenizer, ours.dynamics) == (theirs.tokenizer, theirs.dynamics)


def _other_tokens(old: Genie, genie: Genie, source: Source) -> None:
    """Begin `genie`'s dynamics as that of `old` in other tokens, where that can be."""
    if (why := differs(old, genie)) is not None:
        log.warning("dynamics begins from nothing, that of %s cannot be carried over: %s", old.config.name, why)
    else:
        log.warning("dynamics begins as that of %s, in other tokens", old.config.name)
        carry(old, genie, source)
