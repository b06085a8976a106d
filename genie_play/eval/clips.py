"""The table of a world on a folder of clips, from pictures alone, a baseline beside each figure.

For worlds trained on video of one's own, which has no true keys and no masks; give clips that were held out from
training. Everything is seeded: the same files give the same table.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genie_play import checkpoint
from genie_play.config import PathConfig
from genie_play.data.video import FolderSource
from genie_play.eval import measures, upper_bound
from genie_play.eval.probe import name_codes
from genie_play.eval.subject import SEED, Batch, Codes, Pictures, decode, encode, grid, to_float, to_uint8
from genie_play.eval.table import Row, table
from genie_play.media.pictures import to_png
from genie_play.nn.genie import Genie, load_genie
from genie_play.train.stages import code_gap
from genie_play.types import N_ACTIONS, GenieError, Label

log = logging.getLogger(__name__)

STARTS = (1, 4)  # real frames before a rollout: one picture, and enough to show how fast things move
LENGTH = 16  # frames of a rollout
SPAN = 10  # frames that a rollout's mean is taken over, as published ones are
HELD = 3  # ticks that a code is held for


@dataclass(frozen=True)
class Size:
    """How many clips are looked at."""

    clips: int = 64
    prompts: int = 64


QUICK = Size(clips=12, prompts=16)


def evaluate(
    world: Path | str, source: Path | str, out: Path | str | None = None, quick: bool = False, save: bool = False
) -> dict[str, Any]:
    """Measure a world on the CPU at its shipped path, on clips of the folder `source`.

    Returns {"rows": [...], "table": ..., "labels": [...], "frames_seen": {stage: frames}, ...}. With `out`, writes
    `table.md`, `table.json` and strips there (they show the clips: mind whose they are). With `save`, writes figures
    and labels into the checkpoint's header. GenieError if the folder cannot be read, has no clip of 20 frames, or the
    world has no tokenizer yet.
    """
    file = checkpoint.find(world)
    genie, header = load_genie(file)
    if "tokenizer" not in header.stages:
        raise GenieError(f"{file.name} has no trained tokenizer; train one first")
    size = QUICK if quick else Size()
    clips = FolderSource(Path(source), header.world.size, SEED, header.world.rate)
    known = Path(source).resolve() in {Path(stage["source"]).resolve() for stage in header.stages.values()}
    if known:
        log.warning("%s was trained on these clips: give others, held out, to see what it makes of new ones", file.name)
    with torch.inference_mode():
        report = ClipReport(genie, header.path, size, clips)
        rows = report.tokenizer()
        labels: tuple[Label, ...] = ()
        if "actions" in header.stages:
            rows += report.actions()
        if "dynamics" in header.stages:
            rows += report.dynamics()
            more, labels = report.held()
            rows += more
    result = {
        "world": header.world.name,
        "source": str(source),
        "clips": len(clips),
        "trained_on": known,
        "frames_seen": {name: stage["frames_seen"] for name, stage in header.stages.items()},
        "rows": [{**asdict(row), "passed": row.passed} for row in rows],
        "table": table(rows),
        "labels": [asdict(label) for label in labels],
    }
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.atomic_write(folder / "table.json", (json.dumps(result, indent=1) + "\n").encode())
        checkpoint.atomic_write(folder / "table.md", table(rows).encode())
        for name, picture in report.pictures.items():
            checkpoint.atomic_write(folder / f"{name}.png", to_png(picture))
    if save:
        idle = min(labels, key=lambda label: abs(label.dx) + abs(label.dy)).code if labels else header.idle
        figures = {f"{row.stage}: {row.name}": row.value for row in rows}
        upper_bound.rewrite(file, labels=labels or header.labels, idle=idle, evaluation=figures)
    return result


class ClipReport:
    """The parts of the table, for one world and one folder."""

    def __init__(self, genie: Genie, path: PathConfig, size: Size, source: FolderSource) -> None:
        self.genie, self.path, self.size = genie, path, size
        self.frames: Pictures = source.batch(0, size.clips, max(STARTS) + LENGTH)  # (B, T, H, W, 3)
        self.tokens = torch.from_numpy(encode(genie, self.frames))  # (B, T, N)
        self.pictures: dict[str, Pictures] = {}

    def tokenizer(self) -> list[Row]:
        """How well pictures survive, and use of the codes."""
        real, seen = self.frames, decode(self.genie, self.tokens)
        flat = np.broadcast_to(real.mean((2, 3), keepdims=True), real.shape).astype(np.uint8)
        codes, tokens = self.genie.config.tokenizer.codes, self.tokens.numpy()
        pick = np.linspace(0, len(seen) - 1, 8).astype(int)
        self.pictures["tokenizer"] = grid([real[pick, -1], seen[pick, -1]])
        spread = measures.perplexity(tokens, codes)
        beside = (
            f"mean colour {measures.psnr(real, flat):.1f}; mean of each picture's {measures.psnr_each(real, seen):.2f}"
        )
        return [
            Row("tokenizer", "PSNR", measures.psnr(real, seen), "dB", beside),
            Row("tokenizer", "SSIM", measures.ssim(real, seen), "", f"mean colour {measures.ssim(real, flat):.2f}"),
            Row("tokenizer", "codes used", 100 * len(np.unique(tokens)) / codes, "%", f"perplexity {spread:.0f}"),
        ]

    def actions(self) -> list[Row]:
        """Codes in use, and what they explain at the size that the action model looks at."""
        model = self.genie.actions
        seen, wrong, same, real, copy = [], [], [], [], []
        told = self.codes()[:, 1:]
        common = int(np.bincount(told.ravel(), minlength=N_ACTIONS).argmax())
        for some in np.array_split(np.arange(len(self.frames)), -(-len(self.frames) // 16)):
            frames = to_float(self.frames[some])
            mine = torch.from_numpy(told[some])
            # every clip gets the codes of the one before it, also across parts
            others = mine, torch.from_numpy(told[some - 1]), torch.full_like(mine, common)
            found, shuffled, constant = (model.paint(frames, codes) for codes in others)
            real.append(to_uint8(found.target))
            copy.append(to_uint8(found.source))
            seen.append(to_uint8(found.predicted))
            wrong.append(to_uint8(shuffled.predicted))
            same.append(to_uint8(constant.predicted))
        target = np.concatenate(real)
        right, other, usual, copied = (
            measures.psnr(target, np.concatenate(part)) for part in (seen, wrong, same, copy)
        )
        share = np.bincount(told.ravel(), minlength=N_ACTIONS) / told.size
        shares = " ".join(f"{100 * s:.0f}" for s in share)
        size = "{1}x{0}".format(*target.shape[2:4])
        beside = f"{right:.1f} against shuffled {other:.1f}, constant {usual:.1f}, copy {copied:.1f}; at {size}"
        rows = [
            Row("actions", "codes above 2% of use", int((share > 0.02).sum()), f"of {N_ACTIONS}", f"shares {shares} %"),
            Row("actions", "reconstruction minus shuffled codes", right - other, "dB", beside),
        ]
        if min(target.shape[2:4]) >= measures.WINDOW:
            value, copied = (measures.ssim(target, np.concatenate(part)) for part in (seen, copy))
            rows.append(Row("actions", "SSIM of the reconstruction", value, "", f"copy {copied:.2f}; at {size}"))
        return rows

    def dynamics(self) -> list[Row]:
        """Prediction under own codes, random ones and one constant code, from one real frame and from four."""
        rows = []
        own = torch.from_numpy(self.codes())
        if self.genie.dynamics.config.recipe == "teacher":
            parts = range(0, len(own) - 1, 8)
            gap = np.mean([float(code_gap(self.genie, self.tokens[i : i + 8], own[i : i + 8])) for i in parts])
            rows.append(Row("dynamics", "hidden cross-entropy, shuffled minus true codes", float(gap), "nats"))
        generator = torch.Generator().manual_seed(SEED)
        told = {
            "own": own,
            "random": torch.randint(0, N_ACTIONS, own.shape, generator=generator),
            "constant": torch.full_like(own, int(torch.bincount(own[:, 1:].flatten()).argmax())),
        }
        ceiling = decode(self.genie, self.tokens)
        for start in STARTS:
            runs = {name: self.rollout(start, own, codes) for name, codes in told.items()}
            span = slice(start, start + LENGTH)
            stays = np.broadcast_to(self.frames[:, start - 1, None], runs["own"].shape)
            rows += predicted(start, self.frames[:, span], stays, ceiling[:, span], runs)
            strips = [self.frames[:, span], runs["own"], runs["random"]]
            self.pictures[f"rollout-{start}"] = grid([strip[clip] for clip in range(4) for strip in strips])
        return rows

    def held(self) -> tuple[list[Row], tuple[Label, ...]]:
        """What each code does where it is held: how far the scene moves, less the mean over codes."""
        count = min(self.size.prompts, len(self.frames))
        start, tokens = self.frames[:count, 0], self.tokens[:count, 0]
        moved = np.zeros((count, N_ACTIONS, 2))
        none = torch.full((count,), self.genie.dynamics.no_action)
        shown = []
        for code in range(N_ACTIONS):
            batch = Batch(self.genie, self.path, count)
            last = batch.feed(tokens, none)
            for _ in range(HELD):
                now = batch.step(torch.full((count,), code), SEED)
                moved[:, code] += measures.displacement(last, now) / HELD
                last = now
            shown.append(last)
        labels = name_codes(moved, moved - moved.mean(1, keepdims=True))
        self.pictures["held"] = grid([np.stack([start[p], *(last[p] for last in shown)]) for p in range(min(8, count))])
        beside = ", ".join(f"{label.code} {label.name} {100 * label.confidence:.0f}%" for label in labels)
        agreed = sum(label.confidence >= 0.8 for label in labels)
        return [
            Row("play", "codes whose displacement agrees in 80% of prompts", agreed, f"of {N_ACTIONS}", beside)
        ], labels

    def codes(self) -> Codes:
        """The inferred action (B, T) that led to each frame; none for the first."""
        parts = range(0, len(self.frames), 8)
        codes = torch.cat([self.genie.actions.infer(to_float(self.frames[i : i + 8])) for i in parts])
        first = torch.full((len(codes), 1), self.genie.dynamics.no_action)
        return torch.cat((first, codes), 1).numpy()

    def rollout(self, start: int, codes: Tensor, told: Tensor) -> Pictures:
        """Frames (B, LENGTH, H, W, 3) sampled after `start` real ones under the codes `told`."""
        batch = Batch(self.genie, self.path, len(codes))
        for t in range(start):
            batch.feed(self.tokens[:, t], codes[:, t])
        return np.stack([batch.step(told[:, start + t], SEED) for t in range(LENGTH)], 1)


def predicted(start: int, real: Pictures, stays: Pictures, top: Pictures, runs: dict[str, Pictures]) -> list[Row]:
    """What rollouts (B, LENGTH, H, W, 3) of codes "own", "random" and "constant" are worth after `start` real frames.

    Beside them: `stays`, the last real frame over and over, and `top`, the real frames as the tokenizer gives them.
    """
    after = f"after {start} real frame{'s' * (start > 1)}"
    own, psnr, ssim = runs["own"], measures.psnr, measures.ssim

    def row(name: str, value: float, unit: str, beside: str) -> Row:
        return Row("dynamics", f"{name}, {after}", value, unit, beside)

    value, copy = psnr(real[:, 0], own[:, 0]), psnr(real[:, 0], stays[:, 0])
    beside = f"{value:.2f} against {copy:.2f}, tokenizer {psnr(real[:, 0], top[:, 0]):.2f}"
    rows = [row("next frame minus copy-frame", value - copy, "dB", beside)]
    copy = ssim(real[:, 0], stays[:, 0])
    rows.append(row("SSIM of the next frame", ssim(real[:, 0], own[:, 0]), "", f"copy {copy:.2f}"))
    at = {name: psnr(real[:, 3], run[:, 3]) for name, run in runs.items()}
    each = {name: measures.psnr_each(real[:, 3], run[:, 3]) for name, run in runs.items()}
    beside = f"own codes {at['own']:.2f}, random {at['random']:.2f}, constant {at['constant']:.2f}"
    beside += f"; by the mean of each picture's {each['own'] - each['random']:.2f}"
    rows.append(row("delta-t PSNR, t = 4", at["own"] - at["random"], "dB", beside))
    for t in (1, 4, 8, 16):
        value, copy, most = (psnr(real[:, t - 1], shown[:, t - 1]) for shown in (own, stays, top))
        rows.append(row(f"rollout PSNR, frame {t}", value, "dB", f"copy {copy:.2f}, tokenizer {most:.2f}"))
    first = slice(SPAN)
    value, copy, most = (psnr(real[:, first], shown[:, first]) for shown in (own, stays, top))
    beside = f"copy {copy:.2f}, tokenizer {most:.2f}"
    beside += f"; mean of each picture's {measures.psnr_each(real[:, first], own[:, first]):.2f}"
    rows.append(row(f"PSNR of {SPAN} frames", value, "dB", beside))
    value, copy = (ssim(real[:, first], shown[:, first]) for shown in (own, stays))
    rows.append(row(f"SSIM of {SPAN} frames", value, "", f"copy {copy:.2f}"))
    return rows
