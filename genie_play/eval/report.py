"""The evaluation table of a world, with a baseline beside each figure, on levels and looks held out from training.

The gates are those of `docs/worlds.md`. Knows the game the worlds learn from, its true keys and its avatar: it is the
only room that may. Everything is seeded, so that the table of a card can be made again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from genie_play import checkpoint, ops
from genie_play.config import PathConfig
from genie_play.data.clips import PlatformerSource
from genie_play.data.game import Platformer
from genie_play.data.platformer import Truth, with_truth
from genie_play.engine.sampler import Sampler
from genie_play.engine.state import Ring
from genie_play.eval import measures
from genie_play.media.pictures import to_png
from genie_play.nn.genie import Genie, load_genie
from genie_play.train.stages import psnr
from genie_play.types import N_ACTIONS, Label

log = logging.getLogger(__name__)

Pictures = NDArray[np.uint8]
Codes = NDArray[np.int64]

SEED = 7_000_000  # of the data and the noise of every evaluation
KEYS = ("none", "left", "right", "jump", "jump-left", "jump-right", "down", "up")
FREE_KEYS = (0, 1, 2, 3, 4, 5, 6)  # those that do something on open ground; up is a jump there


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, what stands beside it, and the least it should be."""

    stage: str
    name: str
    value: float
    unit: str = ""
    beside: str = ""
    least: float | None = None

    @property
    def passed(self) -> bool | None:
        """Whether it is enough; None where nothing is asked."""
        return None if self.least is None else self.value >= self.least


@dataclass(frozen=True)
class Size:
    """How much is looked at."""

    clips: int = 48
    frames: int = 20
    starts: int = 384
    prompts: int = 100
    free_frames: int = 256


QUICK = Size(clips=12, frames=12, starts=96, prompts=24, free_frames=48)


class Batch:
    """A world in play with many prompts at once, along one path: what the engine does, a batch at a time."""

    def __init__(self, genie: Genie, path: PathConfig, batch: int) -> None:
        dynamics, tokenizer = genie.dynamics, genie.tokenizer
        device = dynamics.head.weight.device
        self.genie, self.sampler = genie, Sampler(dynamics, ops.get("reference"), path)
        cross = dynamics.config.recipe == "teacher"
        self.dynamics_ring = Ring(dynamics.cache_shape, dynamics.n_tokens, cross, device, batch=batch)
        self.decoder_ring = Ring(tokenizer.decoder_shape, dynamics.n_tokens, False, device, batch=batch)
        self.index = 0

    def feed(self, tokens: Tensor, actions: Tensor) -> Pictures:
        """Commit given tokens (B, N) that `actions` (B,) led to; returns how they look, (B, H, W, 3) uint8."""
        _, kept = self.genie.dynamics.stream(self.sampler.embed(tokens, actions), self.dynamics_ring.past())
        self.dynamics_ring.commit(kept)
        pixels, kept = self.genie.tokenizer.decode_step(tokens, self.decoder_ring.past())
        self.decoder_ring.commit(kept)
        self.index += 1
        return to_uint8(pixels)

    def step(self, actions: Tensor, seed: int) -> Pictures:
        """Sample the next frame under `actions` (B,), commit it, and return it (B, H, W, 3) uint8."""
        tokens = self.sampler.sample(self.dynamics_ring.past(), actions, seed, self.index).tokens
        return self.feed(tokens, actions)


def evaluate(
    world: Path | str, out: Path | str | None = None, quick: bool = False, save: bool = False
) -> dict[str, Any]:
    """Measure a world on the CPU at its shipped path; returns {"rows": [...], "labels": [...]}.

    With `out`, writes `table.md`, `table.json` and sample strips there. With `save`, writes the figures and the labels
    into the checkpoint's header.
    """
    file = checkpoint.find(world)
    genie, header = load_genie(file)
    size = QUICK if quick else Size()
    with torch.inference_mode():
        sources = {stage["source"] for stage in header.stages.values()}
        report = Report(genie, header.path, size, sources == {"platformer-calm"})
        rows = report.tokenizer()
        if "actions" in header.stages:
            rows += report.actions()
        labels: tuple[Label, ...] = header.labels
        if "dynamics" in header.stages:
            rows += report.dynamics()
            more, labels = report.play()
            rows += more
    idle = min((label for label in labels), key=lambda label: abs(label.dx) + abs(label.dy)).code
    result = {
        "world": header.world.name,
        "rows": [{**asdict(row), "passed": row.passed} for row in rows],
        "table": table(rows),
        "labels": [asdict(label) for label in labels],
        "idle": idle,
    }
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.atomic_write(folder / "table.json", (json.dumps(result, indent=1) + "\n").encode())
        checkpoint.atomic_write(folder / "table.md", table(rows).encode())
        for name, picture in report.pictures.items():
            checkpoint.atomic_write(folder / f"{name}.png", to_png(picture))
    if save:
        rewrite_header(file, labels, idle, {f"{row.stage}: {row.name}": row.value for row in rows})
    return result


def rewrite_header(file: Path, labels: tuple[Label, ...], idle: int, figures: dict[str, float]) -> None:
    """Write labels, idle code and figures into a checkpoint, its tensors as they are."""
    header = replace(checkpoint.read(file), labels=labels, idle=idle, evaluation=figures)
    checkpoint.atomic_write(file, to_bytes(load_file(file), metadata=checkpoint.header_metadata(header)))


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| stage | measure | value | beside it | gate | |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        verdict = {True: "yes", False: "**no**", None: ""}[row.passed]
        value = f"{row.value:.3g}" if abs(row.value) < 1 else f"{row.value:.2f}".rstrip("0").rstrip(".")
        least = "" if row.least is None else f"{row.least:g} or more"
        lines.append(f"| {row.stage} | {row.name} | {value} {row.unit} | {row.beside} | {least} | {verdict} |")
    return "\n".join(lines) + "\n"


class Report:
    """The parts of the table, for one world."""

    def __init__(self, genie: Genie, path: PathConfig, size: Size, calm: bool) -> None:
        self.genie, self.path, self.size = genie, path, size
        self.picture_size = genie.config.size
        self.known = PlatformerSource(self.picture_size, SEED, "train", calm=calm)
        self.unseen = PlatformerSource(self.picture_size, SEED, "held-out", n_looks=256, calm=calm)
        self.sketches = PlatformerSource(
            self.picture_size, SEED + 1, "held-out", mix={"sketch": 1.0}, n_looks=256, calm=calm
        )
        self.pictures: dict[str, Pictures] = {}

    def tokenizer(self) -> list[Row]:
        """How well pictures survive: known and unseen looks, inside the avatar's box, use of the codes."""
        rows, codes = [], self.genie.config.tokenizer.codes
        for name, source, gate in (("known looks", self.known, 28.0), ("unseen looks", self.unseen, 26.0)):
            truth = with_truth(source, 0, self.size.clips, 8)
            tokens = encode(self.genie, truth.frames)
            seen = decode(self.genie, tokens)
            inside = measures.boxes(truth.mask)
            flat = np.broadcast_to(truth.frames.mean((2, 3), keepdims=True), truth.frames.shape).astype(np.uint8)
            value = measures.psnr(truth.frames, seen)
            beside = f"mean colour {measures.psnr(truth.frames, flat):.1f}"
            rows.append(Row("tokenizer", f"PSNR, {name}", value, "dB", beside, gate))
            box = measures.psnr(truth.frames, seen, inside)
            rows.append(Row("tokenizer", f"PSNR in the avatar's box, {name}", box, "dB", "", 20.0))
            if source is self.unseen:
                used = len(np.unique(tokens)) / codes
                spread = measures.perplexity(tokens, codes)
                rows.append(Row("tokenizer", "codes used", 100 * used, "%", f"perplexity {spread:.0f}", 40.0))
            pick = np.linspace(0, len(seen) - 1, 8).astype(int)
            self.pictures[f"tokenizer-{name.split()[0]}"] = grid([truth.frames[pick, -1], seen[pick, -1]])
        return rows

    def actions(self) -> list[Row]:
        """Codes in use, what they explain, and whether the same key gets the same code from the same start."""
        genie, rows = self.genie, []
        truth = with_truth(self.unseen, 1, self.size.clips, self.size.frames)
        frames = to_float(truth.frames)
        codes = genie.actions.infer(frames).numpy()
        share = np.bincount(codes.ravel(), minlength=N_ACTIONS) / codes.size
        alive = int((share > 0.02).sum())
        shares = " ".join(f"{100 * s:.0f}" for s in share)
        rows.append(Row("actions", "codes above 2% of use", alive, "of 8", f"shares {shares} %", 5))
        told = torch.from_numpy(codes)
        seen, shuffled, constant = (
            genie.actions.paint(frames, other)
            for other in (told, told.roll(1, 0), torch.full_like(told, int(np.bincount(codes.ravel()).argmax())))
        )
        right, wrong, same, copy = (
            float(psnr((picture - seen.target).square().mean()))
            for picture in (seen.predicted, shuffled.predicted, constant.predicted, seen.source)
        )
        beside = f"{right:.1f} against shuffled {wrong:.1f}, constant {same:.1f}, copy {copy:.1f}"
        gap = right - wrong
        rows.append(Row("actions", "reconstruction minus shuffled codes", gap, "dB", beside, 0.7))
        known = measures.mutual_information(codes, truth.actions)
        sideways = measures.mutual_information(codes, truth.dx)
        upright = measures.mutual_information(codes, truth.dy)
        beside = f"with dx {sideways:.2f}, dy {upright:.2f}"
        rows.append(Row("actions", "NMI with the true key", known, "", beside, 0.3))
        for name, grounded, least in (("grounded", True, 85.0), ("airborne", False, None)):
            value, beside = self.same_start(grounded)
            rows.append(Row("actions", f"same start, {name}: the key's code", value, "%", beside, least))
        return rows

    def same_start(self, grounded: bool) -> tuple[float, str]:
        """Share of branches, in percent, whose code is the majority code of their key, and those codes.

        From one start every key is played for a tick; starts where a key is barred (walls, ceilings) are left out.
        """
        game, players = self.unseen.games(2, self.size.starts)
        for _ in range(6):
            game.step(players.keys(game))
        pick = np.flatnonzero(game.grounded == grounded)
        before, after, dx, dy = branches(game.take(pick), FREE_KEYS)
        half = game.tile // 2
        side = np.array([0, -1, 1, 0, -1, 1, 0]) * half
        if grounded:
            lift = np.array([0, 0, 0, -1, -1, -1, 0]) * half
            free = ((dx == side) & (dy == lift)).all(1)
        else:
            free = (dx == side).all(1)
        pairs = np.stack((np.broadcast_to(before[free, None], after[free].shape), after[free]), 2)
        codes = (
            self.genie.actions.infer(to_float(pairs.reshape(-1, *pairs.shape[2:]))).numpy().reshape(-1, len(FREE_KEYS))
        )
        if not len(codes):
            return 0.0, "no free start"
        majority = np.array([np.bincount(column, minlength=N_ACTIONS).argmax() for column in codes.T])
        each = (codes == majority).mean(0)
        detail = ", ".join(
            f"{KEYS[k]} {code} ({100 * share:.0f})" for k, code, share in zip(FREE_KEYS, majority, each, strict=True)
        )
        return float(100 * each.mean()), f"{len(codes)} starts: {detail}"

    def dynamics(self) -> list[Row]:
        """Prediction from real frames: cross-entropy of hidden frames, next frame, delta-t, rollouts."""
        genie, rows = self.genie, []
        truth = with_truth(self.unseen, 3, self.size.clips, self.size.frames)
        tokens, codes = read(genie, truth)
        rows += self.hidden_entropy(tokens, codes)
        ceiling = decode(genie, tokens)

        # the first predicted frame after four real ones
        batch = self.start(tokens, codes, 4)
        guess = batch.step(codes[:, 4], SEED)
        value = measures.psnr(truth.frames[:, 4], guess)
        copy = measures.psnr(truth.frames[:, 4], truth.frames[:, 3])
        top = measures.psnr(truth.frames[:, 4], ceiling[:, 4])
        gain = value - copy
        beside = f"{value:.1f} against {copy:.1f}, tokenizer {top:.1f}"
        rows.append(Row("dynamics", "next frame minus copy-frame", gain, "dB", beside, 3.0))

        # rollouts from two real frames, with the clip's own codes, with random ones, with one and the same
        generator = torch.Generator().manual_seed(SEED)
        others = torch.randint(0, N_ACTIONS, codes.shape, generator=generator)
        constant = torch.full_like(codes, int(torch.bincount(codes[:, 1:].flatten()).argmax()))
        length = min(16, tokens.shape[1] - 2)
        runs = {
            name: self.rollout(tokens, codes, told, length)
            for name, told in (("own", codes), ("random", others), ("constant", constant))
        }
        real = truth.frames[:, 2 : 2 + length]

        def at(name: str, t: int) -> float:
            return measures.psnr(real[:, t - 1], runs[name][:, t - 1])

        delta = at("own", 4) - at("random", 4)
        beside = f"own codes {at('own', 4):.1f}, random {at('random', 4):.1f}, constant {at('constant', 4):.1f}"
        rows.append(Row("dynamics", "delta-t PSNR, t = 4", delta, "dB", beside, 1.5))
        for t in (1, 4, 8, 16):
            if t <= length:
                copied = measures.psnr(real[:, t - 1], truth.frames[:, 1])
                rows.append(
                    Row("dynamics", f"rollout PSNR, frame {t}", at("own", t), "dB", f"copy of the start {copied:.1f}")
                )
        self.pictures["rollout"] = grid(
            [strip for clip in range(4) for strip in (real[clip], runs["own"][clip], runs["random"][clip])]
        )
        return rows

    def hidden_entropy(self, tokens: Tensor, codes: Tensor) -> list[Row]:
        """Cross-entropy of fully hidden frames under the true codes, shuffled ones and one constant code."""
        dynamics = self.genie.dynamics
        clean = tokens if dynamics.config.recipe == "teacher" else None
        found = {}
        shuffled = torch.roll(codes, 1, 0)
        constant = torch.full_like(codes, int(torch.bincount(codes[:, 1:].flatten()).argmax()))
        for name, told in (("true", codes), ("shuffled", shuffled), ("constant", constant)):
            total, count = 0.0, 0
            for some in range(0, len(tokens), 8):
                cut = slice(some, some + 8)
                # the last frame alone is hidden, where one stream serves as both
                hidden = tokens[cut].clone()
                hidden[:, 0 if clean is not None else -1 :] = dynamics.mask_id
                states = dynamics(hidden, told[cut], None if clean is None else clean[cut])
                first = 2 if clean is not None else tokens.shape[1] - 1
                logits = dynamics.logits(states[:, first:])
                total += float(
                    torch.nn.functional.cross_entropy(
                        logits.flatten(0, -2), tokens[cut, first:].flatten(), reduction="sum"
                    )
                )
                count += tokens[cut, first:].numel()
            found[name] = total / count
        gap = found["shuffled"] - found["true"]
        beside = f"true {found['true']:.2f}, shuffled {found['shuffled']:.2f}, constant {found['constant']:.2f}"
        return [Row("dynamics", "hidden cross-entropy, shuffled minus true", gap, "nats", beside, 0.01)]

    def play(self) -> tuple[list[Row], tuple[Label, ...]]:
        """What held codes do from still starts, and what free play looks like."""
        rows = []
        labels, agreed = self.held(self.unseen, self.size.prompts)
        named = {label.name for label in labels if label.confidence >= 0.8}
        beside = ", ".join(f"{label.code} {label.name} {100 * label.confidence:.0f}%" for label in labels)
        rows.append(Row("play", "codes whose displacement agrees in 80% of prompts", agreed, "of 8", beside))
        wanted = {"left", "right"} <= named and bool({"up", "jump"} & named)
        rows.append(Row("play", "left, right and up among them", float(wanted), "", "", 1.0))
        drawn, agreed = self.held(self.sketches, max(self.size.prompts // 2, 8))
        beside = ", ".join(f"{label.code} {label.name} {100 * label.confidence:.0f}%" for label in drawn)
        rows.append(Row("play", "the same on sketches", agreed, "of 8", beside))
        rows += self.free()
        return rows, labels

    def held(self, source: PlatformerSource, prompts: int, ticks: int = 3) -> tuple[tuple[Label, ...], int]:
        """The displacement of every held code over `ticks`, minus the mean over all codes from the same prompt."""
        game, _ = source.games(4, prompts)
        start = game.render()
        tokens = encode(self.genie, start[:, None])[:, 0]
        moved = np.zeros((prompts, N_ACTIONS, 2))
        shown = []
        none = torch.full((prompts,), self.genie.dynamics.no_action)
        for code in range(N_ACTIONS):
            batch = Batch(self.genie, self.path, prompts)
            last = batch.feed(torch.from_numpy(tokens), none)
            frames = [last]
            for _ in range(ticks):
                now = batch.step(torch.full((prompts,), code), SEED)
                moved[:, code] += measures.displacement(last, now) / ticks
                last = now
                frames.append(now)
            shown.append(frames)
        relative = moved - moved.mean(1, keepdims=True)
        name = "held-sketches" if source is self.sketches else "held"
        self.pictures[name] = grid(
            [np.stack([frames[-1][p] for frames in [[start], *shown]]) for p in range(min(8, prompts))]
        )
        labels = name_codes(moved, relative)
        return labels, sum(label.confidence >= 0.8 for label in labels)

    def free(self) -> list[Row]:
        """Random play: edge energy against real play's, and whether an avatar is there."""
        count = 16
        truth = with_truth(self.unseen, 5, 160, 6)
        with torch.inference_mode(False):
            flat = truth.frames.reshape(-1, *truth.frames.shape[2:])
            masks = truth.mask.reshape(-1, *truth.mask.shape[2:])
            detector = measures.train_detector(flat[: len(flat) // 2], masks[: len(flat) // 2])
        unseen = flat[len(flat) // 2 :]
        real_rate = 100 * detector.present(unseen).mean()
        rolled = np.roll(unseen, 14 * unseen.shape[2] // 64, 2)
        false_rate = 100 * detector.present(rolled).mean()
        game, players = self.unseen.games(6, count)
        start = game.render()
        real = [start]
        tokens = torch.from_numpy(encode(self.genie, start[:, None])[:, 0])
        batch = Batch(self.genie, self.path, count)
        frames = [batch.feed(tokens, torch.full((count,), self.genie.dynamics.no_action))]
        generator = torch.Generator().manual_seed(SEED)
        told = torch.randint(0, N_ACTIONS, (count,), generator=generator)
        for t in range(self.size.free_frames):
            if t % 3 == 0:
                told = torch.randint(0, N_ACTIONS, (count,), generator=generator)
            frames.append(batch.step(told, SEED))
            game.step(players.keys(game))
            real.append(game.render())
        made, true = np.stack(frames, 1), np.stack(real, 1)
        second = slice(self.size.free_frames // 2, None)
        energy = float(measures.edge_energy(made[:, second]).mean() / measures.edge_energy(true[:, second]).mean())
        present = 100 * float(np.mean([detector.present(clip).mean() for clip in made]))
        late = 100 * float(np.mean([detector.present(clip[second]).mean() for clip in made]))
        every = max(self.size.free_frames // 12, 1)
        self.pictures["free"] = grid([clip[::every] for clip in made[:10]])
        length = self.size.free_frames
        beside = f"second half {late:.0f}; real frames {real_rate:.0f}, scenery {false_rate:.0f}"
        return [
            Row("play", f"edge energy, second half of {length} random frames, against real", energy, "", "1", 0.7),
            Row("play", f"avatar present, {length} random frames", present, "%", beside, 85.0),
        ]

    def start(self, tokens: Tensor, codes: Tensor, frames: int) -> Batch:
        """A batch that has been fed the first real frames."""
        batch = Batch(self.genie, self.path, len(tokens))
        for t in range(frames):
            batch.feed(tokens[:, t], codes[:, t])
        return batch

    def rollout(self, tokens: Tensor, codes: Tensor, told: Tensor, length: int) -> Pictures:
        """Frames (B, length, H, W, 3) sampled after two real ones under the codes `told`."""
        batch = self.start(tokens, codes, 2)
        return np.stack([batch.step(told[:, 2 + t], SEED) for t in range(length)], 1)


def name_codes(moved: NDArray[np.float64], relative: NDArray[np.float64]) -> tuple[Label, ...]:
    """Name each code by its displacement (P, A, 2), relative to the mean over codes; confidence is the share of prompts
    in which the direction is that of the name.

    The code whose own displacement is least is idle; its confidence is the share of prompts in which nothing moves.
    """
    mean = np.median(relative, 0)
    own = np.abs(moved).sum(-1)
    still = (own < 1).mean(0)
    idle = int(still.argmax()) if still.max() >= 0.5 else -1
    labels = []
    for code in range(moved.shape[1]):
        dx, dy = (float(v) for v in np.median(moved[:, code], 0))
        if code == idle:
            labels.append(Label(code, "idle", dx, dy, float(still[code])))
            continue
        x, y = mean[code]
        across, along = abs(x) >= 1.0, abs(y) >= 1.0
        agrees = np.ones(len(moved), bool)
        if across:
            agrees &= np.sign(relative[:, code, 0]) == np.sign(x)
        if along:
            agrees &= np.sign(relative[:, code, 1]) == np.sign(y)
        if not (across or along):
            labels.append(Label(code, "other", dx, dy, 0.0))
            continue
        side = "right" if x > 0 else "left"
        if across and along:
            name = f"jump-{side}" if y < 0 else side
        elif across:
            name = side
        else:
            name = "up" if y < 0 else "down"
        labels.append(Label(code, name, dx, dy, float(agrees.mean())))
    return tuple(labels)


def branches(game: Platformer, keys: Sequence[int]) -> tuple[Pictures, Pictures, Codes, Codes]:
    """One tick of each key from the same starts: before (P, H, W, 3), after (P, K, H, W, 3), dx and dy (P, K)."""
    count = len(game)
    many = game.take(np.repeat(np.arange(count), len(keys)))
    before = game.render()
    many.step(np.tile(np.asarray(keys), count))
    shape = (count, len(keys))
    after = many.render()
    return before, after.reshape(*shape, *after.shape[1:]), many.dx.reshape(shape), many.dy.reshape(shape)


def read(genie: Genie, truth: Truth) -> tuple[Tensor, Tensor]:
    """Tokens (B, T, N) of clips and the inferred action (B, T) that led to each frame; none for the first."""
    tokens = torch.from_numpy(encode(genie, truth.frames))
    codes = _chunks(lambda x: genie.actions.infer(to_float(x)), truth.frames)
    return tokens, torch.cat((torch.full((len(codes), 1), genie.dynamics.no_action), torch.from_numpy(codes)), 1)


def encode(genie: Genie, frames: Pictures) -> Codes:
    """Clips (B, T, H, W, 3) to tokens (B, T, N)."""
    return _chunks(lambda x: genie.tokenizer.encode(to_float(x)), frames)


def decode(genie: Genie, tokens: Codes | Tensor) -> Pictures:
    """Tokens (B, T, N) to clips (B, T, H, W, 3)."""
    tokens = torch.as_tensor(tokens)
    return np.concatenate([to_uint8(genie.tokenizer.decode(tokens[i : i + 8])) for i in range(0, len(tokens), 8)])


def to_float(frames: Pictures) -> Tensor:
    """uint8 to 0..1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float() / 255


def to_uint8(pixels: Tensor) -> Pictures:
    """0..1 to uint8."""
    return np.asarray((pixels.float() * 255).round().clamp(0, 255).to(torch.uint8).numpy())


def grid(rows: Sequence[Pictures], scale: int = 2) -> Pictures:
    """Rows of pictures (n, H, W, 3) as one picture, enlarged."""
    width = max(len(row) for row in rows)
    lines = []
    for row in rows:
        line = np.zeros((width, *row.shape[1:]), np.uint8)
        line[: len(row)] = row
        lines.append(np.concatenate(list(line), 1))
    return np.concatenate(lines).repeat(scale, 0).repeat(scale, 1)


def _chunks(work: Callable[[Pictures], Tensor], frames: Pictures, size: int = 8) -> Codes:
    return np.concatenate([work(frames[i : i + size]).numpy() for i in range(0, len(frames), size)])
