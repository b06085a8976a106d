"""The table of a world on a folder of clips, from pictures alone, a baseline beside each figure.

For worlds trained on video of one's own, which has no true keys and no masks; give clips that were held out from
training. Everything is seeded: on one machine the same files give the same table.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genie_play import checkpoint, paths
from genie_play.data.video import FolderSource
from genie_play.eval import measures, upper_bound
from genie_play.eval.probe import probe, sheet
from genie_play.eval.subject import (
    SEED,
    Pictures,
    Size,
    Subject,
    after_none,
    decode,
    encode,
    grid,
    infer,
    to_float,
    to_uint8,
)
from genie_play.eval.table import Row, table
from genie_play.media.pictures import to_png
from genie_play.nn.genie import load_genie
from genie_play.train.stages import code_gap
from genie_play.types import N_ACTIONS, GenieError

log = logging.getLogger(__name__)

STARTS = (1, 4)  # real frames before a rollout: one picture, and enough to show how fast things move
LENGTH = 16  # frames of a rollout
SPAN = 10  # frames that a rollout's mean is taken over, as published ones are
CLIPS, QUICK_CLIPS = 64, 12


def evaluate(
    world: Path | str,
    source: Path | str,
    out: Path | str | None = None,
    quick: bool = False,
    save: bool = False,
    watch: Callable[[str], None] = lambda what: None,
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
    if save:
        upper_bound.refuse(header)
    clips = FolderSource(Path(source), header.world.size, SEED, header.world.rate)
    known = Path(source).resolve() in {Path(stage["source"]).resolve() for stage in header.stages.values()}
    if known:
        log.warning("%s was trained on these clips: give others, held out, to see what it makes of new ones", file.name)
    change: dict[str, Any] = {}
    with torch.inference_mode():
        watch("tokenizer")
        subject = Subject(genie, header.path, Size())
        report = ClipReport(subject, clips, QUICK_CLIPS if quick else CLIPS)
        rows = report.tokenizer()
        if "actions" in header.stages:
            watch("actions")
            rows += report.actions()
        if {"actions", "dynamics"} <= set(header.stages):
            watch("dynamics")
            rows += report.dynamics()
            watch("held codes")
            found = probe(subject, report.frames[: subject.size.prompts, 0])
            beside = f"{len(found.moved)} prompts"
            rows.append(Row("play", "held codes agree, mean over codes", found.agreed, "%", beside))
            subject.pictures["probe"] = sheet(found)
            change = {"labels": found.labels, "idle": found.idle}
    result = {
        "world": header.world.name,
        "source": str(source),
        "clips": len(clips),
        "trained_on": known,
        "frames_seen": {name: stage["frames_seen"] for name, stage in header.stages.items()},
        "rows": [{**asdict(row), "passed": row.passed} for row in rows],
        "table": table(rows),
        "labels": [asdict(label) for label in change.get("labels", ())],
    }
    if out is not None:
        folder = paths.writable(Path(out))
        checkpoint.atomic_write(folder / "table.json", (json.dumps(result, indent=1) + "\n").encode())
        checkpoint.atomic_write(folder / "table.md", table(rows).encode())
        for name, picture in subject.pictures.items():
            checkpoint.atomic_write(folder / f"{name}.png", to_png(picture))
    if save:
        upper_bound.rewrite(file, evaluation={f"{row.stage}: {row.name}": row.value for row in rows}, **change)
    return result


class ClipReport:
    """The parts of the table, for one world and one folder."""

    def __init__(self, subject: Subject, source: FolderSource, clips: int) -> None:
        self.subject, self.genie = subject, subject.genie
        self.frames: Pictures = source.batch(0, clips, max(STARTS) + LENGTH)  # (B, T, H, W, 3)
        self.tokens = torch.from_numpy(encode(self.genie, self.frames))  # (B, T, N)

    def tokenizer(self) -> list[Row]:
        """How well pictures survive, and use of the codes."""
        # where the decoder was given the first frame, that one proves nothing
        first = int(self.genie.config.tokenizer.look)
        real, seen = self.frames[:, first:], decode(self.genie, self.tokens, self.frames[:, 0])[:, first:]
        flat = np.broadcast_to(real.mean((2, 3), keepdims=True), real.shape).astype(np.uint8)
        codes, tokens = self.genie.config.tokenizer.codes, self.tokens.numpy()
        pick = np.linspace(0, len(seen) - 1, 8).astype(int)
        self.subject.pictures["tokenizer"] = grid([real[pick, -1], seen[pick, -1]])
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
        model, told = self.genie.actions, infer(self.genie, self.frames)
        common = np.full_like(told, np.bincount(told.ravel(), minlength=N_ACTIONS).argmax())
        shown: dict[str, list[Pictures]] = {name: [] for name in ("target", "own", "shuffled", "constant", "copy")}
        for i in range(0, len(self.frames), 8):
            frames = to_float(self.frames[i : i + 8])
            # another clip's codes are those of the clip before
            for name, codes in (("own", told), ("shuffled", np.roll(told, 1, 0)), ("constant", common)):
                painted = model.paint(frames, torch.from_numpy(codes[i : i + 8]))
                shown[name].append(to_uint8(painted.predicted))
            shown["target"].append(to_uint8(painted.target))
            shown["copy"].append(to_uint8(painted.source))
        whole = {name: np.concatenate(part) for name, part in shown.items()}
        target = whole.pop("target")
        right = {name: measures.psnr(target, part) for name, part in whole.items()}
        share = np.bincount(told.ravel(), minlength=N_ACTIONS) / told.size
        shares = " ".join(f"{100 * s:.0f}" for s in share)
        size = "{1}x{0}".format(*target.shape[2:4])
        beside = "{own:.1f} against shuffled {shuffled:.1f}, constant {constant:.1f}, copy {copy:.1f}".format(**right)
        gap = right["own"] - right["shuffled"]
        rows = [
            Row("actions", "codes above 2% of use", int((share > 0.02).sum()), f"of {N_ACTIONS}", f"shares {shares} %"),
            Row("actions", "reconstruction minus shuffled codes", gap, "dB", f"{beside}; at {size}"),
        ]
        if min(target.shape[2:4]) >= measures.WINDOW:
            value, copy = (measures.ssim(target, whole[name]) for name in ("own", "copy"))
            rows.append(Row("actions", "SSIM of the reconstruction", value, "", f"copy {copy:.2f}; at {size}"))
        return rows

    def dynamics(self) -> list[Row]:
        """Prediction under own codes, random ones and one constant code, from one real frame and from four."""
        rows = []
        own = after_none(self.genie, infer(self.genie, self.frames))
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
        ceiling = decode(self.genie, self.tokens, self.frames[:, 0])
        for start in STARTS:
            runs = {name: self.rollout(start, own, codes) for name, codes in told.items()}
            span = slice(start, start + LENGTH)
            stays = np.broadcast_to(self.frames[:, start - 1, None], runs["own"].shape)
            rows += predicted(start, self.frames[:, span], stays, ceiling[:, span], runs)
            strips = [self.frames[:, span], runs["own"], runs["random"]]
            self.subject.pictures[f"rollout-{start}"] = grid([strip[clip] for clip in range(4) for strip in strips])
        return rows

    def rollout(self, start: int, codes: Tensor, told: Tensor) -> Pictures:
        """Frames (B, LENGTH, H, W, 3) sampled after `start` real ones under the codes `told`."""
        batch = self.subject.batch(len(codes))
        for t in range(start):
            batch.feed(self.tokens[:, t], codes[:, t], self.frames[:, t])
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
