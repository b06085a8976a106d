"""Quality against how a frame is sampled: passes, order, temperature, and whether the last pass takes the likeliest.

Every row sees the same clips, starts, actions and seeds, so rows differ by their path alone. What is asked: the next
frame, whether actions are heeded (delta-t PSNR), whether free play stays a world (edges, avatar, and the encoder
Frechet distance to real play), and what a frame costs. A row is written down as soon as it is there; the same command
goes on where it was stopped. `docs/worlds.md` says what the shipped default was chosen from.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genie_play import checkpoint, schedule
from genie_play.config import PathConfig
from genie_play.engine.engine import GenieEngine
from genie_play.eval import bench, measures, stopwatch
from genie_play.eval.play import random_codes
from genie_play.eval.report import open_subject
from genie_play.eval.subject import QUICK, SEED, Pictures, Size, Subject, after_none, decode, encode, infer, to_float
from genie_play.eval.tables import markdown
from genie_play.nn.genie import Genie
from genie_play.types import N_ACTIONS, GenieError

FORMAT = 1
STEPS = (1, 2, 4, 8, 25)
TEMPERATURES = (0.0, 0.4, 0.7, 1.0, 1.5)
GUIDANCES = (1.0, 1.25, 1.5, 2.0)
ROUNDS = 7  # frames that a path is timed by, in turn with the shipped one
BATCH = 8  # clips at a time through the encoder
REAL, SEEN = "real play, other keys", "real play through the tokenizer"


@dataclass(frozen=True)
class Setting:
    """What a row changes of a path."""

    steps: int
    order: str
    temperature: float
    last_argmax: bool
    guidance: float = 1.0

    @classmethod
    def of(cls, path: PathConfig) -> Setting:
        """The setting of a path."""
        return cls(path.steps, path.order, path.temperature, path.last_argmax, path.guidance)


@dataclass(frozen=True)
class Quality:
    """The figures of a row. PSNR in dB; edges and times as ratios."""

    next_frame: float | None  # PSNR of the first frame after four real ones
    delta: float | None  # PSNR at t = 4 under the clip's own codes, minus that under random ones
    edges: float  # edge energy of the second half of free play, against real play's
    avatar: float  # percent of the frames of free play with an avatar
    distance: float  # encoder Frechet distance of free play to real play
    ms: float | None = None  # of one frame, decoder and commit included
    times: float | None = None  # how many times the shipped path's


def study(
    world: Path | str,
    out: Path | None = None,
    quick: bool = False,
    steps: Sequence[int] = STEPS,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure a world along many paths; returns {"rows": [...], "baselines": {...}, ...}, plain data.

    With `out`, `steps.json` and `steps.md` are written there after each row, and rows that are there already are kept.
    """
    file = checkpoint.find(world)
    size = QUICK if quick else Size()
    subject, header = open_subject(file, size)
    for stage in ("actions", "dynamics"):
        if stage not in header.stages:
            raise GenieError(f"{header.world.name} has no {stage} yet; train that stage first")
    if max(steps) > header.world.tokenizer.n_tokens:
        steps = [n for n in steps if n <= header.world.tokenizer.n_tokens]
    about = {"format": FORMAT, "world": header.world.name, "sha256": header.sha256, "size": asdict(size)}
    found = _resumed(out, about)
    threads = torch.get_num_threads()
    torch.set_num_threads(header.path.threads)
    try:
        with torch.inference_mode():
            bed = Bed(subject)
            shipped = Setting.of(header.path)
            found |= {"shipped": asdict(shipped), "machine": bench.machine("cpu"), "encoder": bed.features.describe}
            if "baselines" not in found:
                say("real play")
                found["baselines"] = {name: asdict(quality) for name, quality in bed.baselines().items()}
                _write(out, found)
            done = [Setting(**row["setting"]) for row in found["rows"]]
            plan = [setting for setting in settings(shipped, steps) if setting not in done]
            for number, setting in enumerate(plan):
                say(f"row {len(done) + number + 1} of {len(done) + len(plan)}: {_name(setting)}")
                quality = bed.measure(replace(header.path, **asdict(setting)))
                quality = replace(quality, **_cost(file, header.path, setting))
                found["rows"].append({"setting": asdict(setting), **asdict(quality)})
                _write(out, found)
    finally:
        torch.set_num_threads(threads)
    return found


def settings(shipped: Setting, steps: Sequence[int] = STEPS) -> list[Setting]:
    """The rows: the shipped one; passes by order; temperatures by order at the shipped passes; the last pass drawn
    like the others (or not) by passes; and guidance."""
    found = [shipped]
    found += [replace(shipped, order=order, steps=n) for order in schedule.ORDERS for n in steps]
    found += [replace(shipped, order=order, temperature=t) for order in schedule.ORDERS for t in TEMPERATURES]
    found += [replace(shipped, steps=n, last_argmax=not shipped.last_argmax) for n in steps]
    found += [replace(shipped, guidance=g) for g in GUIDANCES]
    return list(dict.fromkeys(found))


def table(found: dict[str, Any]) -> list[str]:
    """The rows as a Markdown table. A star marks those that no other row beats in everything that is asked."""
    head = ["passes", "order", "temperature", "last pass", "guidance"]
    head += [
        "next frame dB",
        "delta-t dB",
        "edges",
        "avatar %",
        "encoder Frechet distance",
        "ms a frame",
        "times the shipped",
        "",
    ]
    rows: list[list[Any]] = []
    for name, q in found.get("baselines", {}).items():
        rows.append([name, "", "", "", "", *_cells(q), ""])
    best = pareto(found["rows"])
    for row in sorted(found["rows"], key=lambda row: _order(row["setting"])):
        s = row["setting"]
        last = "likeliest" if s["last_argmax"] else "drawn"
        star = ("shipped " if s == found.get("shipped") else "") + ("*" if row in best else "")
        setting = s["steps"], s["order"], f"{s['temperature']:g}", last, f"{s['guidance']:g}"
        rows.append([*setting, *_cells(row), star.strip()])
    return markdown(head, rows)


def pareto(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that no other row is as good as in everything asked, and better in something."""

    def goods(row: dict[str, Any]) -> NDArray[np.float64]:
        # edges are best at 1: an empty sky has too few, noise too many
        parts = (
            row["next_frame"],
            row["delta"],
            -round(abs(row["edges"] - 1), 3),
            row["avatar"],
            -row["distance"],
            -row["times"],
        )
        return np.array(parts, np.float64)

    points = [goods(row) for row in rows]
    return [
        row
        for row, mine in zip(rows, points, strict=True)
        if not any((other >= mine).all() and (other > mine).any() for other in points)
    ]


class Features:
    """Pictures as the frozen encoder of a world sees them: what the Frechet distance is taken between.

    The latents of a frame, before they are quantised, with the frames before it in the encoder's window; their mean
    over each quarter of the picture. It knows of layout and motion as much as the tokenizer does. The distance belongs
    to this encoder: it compares paths of one world, not worlds, and is not the FVD of papers.
    """

    def __init__(self, genie: Genie) -> None:
        self.genie = genie
        config = genie.config.tokenizer
        self.describe = (
            f"latents of {config.code_dim} numbers, mean over each quarter of {config.grid[0]}x{config.grid[1]}"
        )

    def __call__(self, clips: Pictures) -> NDArray[np.float64]:
        """Clips (B, T, H, W, 3) to features (B * T, 4 * d)."""
        rows, columns = self.genie.config.tokenizer.grid
        found = []
        for some in range(0, len(clips), BATCH):
            latents = self.genie.tokenizer.encoder(to_float(clips[some : some + BATCH]))  # (b, T, N, d)
            grid = latents.unflatten(2, (rows, columns))
            quarters = [half.mean((2, 3)) for side in grid.tensor_split(2, 2) for half in side.tensor_split(2, 3)]
            found.append(torch.cat(quarters, -1).flatten(0, 1))
        return np.asarray(torch.cat(found).double().numpy())


class Bed:
    """What every row is measured on: the same clips, starts and actions."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.features = subject, Features(subject.genie)
        size = subject.size
        truth = subject.clips(subject.unseen, 3, 0, size.clips, 8)
        self.frames = truth.frames
        self.tokens = torch.from_numpy(encode(subject.genie, truth.frames))
        self.codes = after_none(subject.genie, infer(subject.genie, truth.frames))
        generator = torch.Generator().manual_seed(SEED)
        self.others = torch.randint(0, N_ACTIONS, self.codes.shape, generator=generator)
        self.told = random_codes(size.free, size.free_frames, SEED)

    @cached_property
    def real(self) -> Pictures:
        """Real play from the starts of free play: (P, T + 1, H, W, 3)."""
        return self._real(0)

    @cached_property
    def _late(self) -> slice:
        return slice(self.subject.size.free_frames // 2, None)

    def baselines(self) -> dict[str, Quality]:
        """Other real play from the same starts, and what the tokenizer alone makes of the first."""
        through = decode(self.subject.genie, encode(self.subject.genie, self.real), self.real[:, 0])
        return {REAL: self._free(self._real(1)), SEEN: self._free(through)}

    def measure(self, path: PathConfig) -> Quality:
        """A path, all but its cost."""
        self.subject.path = path
        # the first predicted frame after four real ones
        batch = self._begun(4)
        guess = batch.step(self.codes[:, 4], SEED)
        after = measures.psnr(self.frames[:, 4], guess)
        own, other = (self._rollout(told) for told in (self.codes, self.others))
        delta = measures.psnr(self.frames[:, 5], own) - measures.psnr(self.frames[:, 5], other)
        batch = self.subject.batch(len(self.real))
        made = [batch.begin(self.real[:, 0]), *(batch.step(told, SEED) for told in self.told)]
        return replace(self._free(np.stack(made, 1)), next_frame=after, delta=delta)

    def _free(self, made: Pictures) -> Quality:
        edges = measures.edge_energy(made[:, self._late]).mean() / measures.edge_energy(self.real[:, self._late]).mean()
        seen = np.stack([self.subject.sight.detector.present(clip) for clip in made]).mean()
        distance = measures.frechet(self.features(self.real), self.features(made))
        return Quality(None, None, float(edges), 100 * float(seen), distance)

    def _rollout(self, told: Tensor) -> Pictures:
        """The fourth frame after two real ones under `told`."""
        batch = self._begun(2)
        for t in range(2, 6):
            last = batch.step(told[:, t], SEED)
        return last

    def _begun(self, frames: int) -> Any:
        batch = self.subject.batch(len(self.tokens))
        for t in range(frames):
            batch.feed(self.tokens[:, t], self.codes[:, t], self.frames[:, t])
        return batch

    def _real(self, draw: int) -> Pictures:
        """Real play from the starts; another draw presses other keys."""
        game, players = self.subject.unseen.games(6, self.subject.size.free)
        if draw:
            _, players = self.subject.unseen.games(6 + 100 * draw, self.subject.size.free)
        frames = [game.render()]
        for _ in range(self.subject.size.free_frames):
            game.step(players.keys(game))
            frames.append(game.render())
        return np.stack(frames, 1)


def _cost(file: Path, shipped: PathConfig, setting: Setting) -> dict[str, float]:
    """Milliseconds of a frame, and how many times the shipped path's, timed in turn."""
    engines = [GenieEngine(file, device="cpu", **asdict(s)) for s in (Setting.of(shipped), setting)]
    action = bench.random_actions()
    for engine in engines:
        bench.fill(engine, action)

    def frame(engine: GenieEngine) -> float:
        watch = stopwatch.Watch(engine.device)
        started = watch.now()
        engine.settle()
        engine.step(action())
        return watch.now() - started

    times = bench.in_turn({"a": lambda: frame(engines[0]), "b": lambda: frame(engines[1])}, ROUNDS)
    for engine in engines:
        engine.close()
    ratio = statistics.median(b / a for a, b in zip(times["a"], times["b"], strict=True))
    return {"ms": round(1000 * statistics.median(times["b"]), 2), "times": round(ratio, 3)}


def _resumed(out: Path | None, about: dict[str, Any]) -> dict[str, Any]:
    """What is there already; GenieError if it is of another world or size."""
    fresh: dict[str, Any] = {**about, "rows": []}
    if out is None or not (out / "steps.json").exists():
        return fresh
    try:
        found = json.loads((out / "steps.json").read_text(encoding="utf-8"))
        same = all(found.get(name) == value for name, value in json.loads(json.dumps(about)).items())
    except (OSError, ValueError, AttributeError):
        same = False
    if not same:
        raise GenieError(f"{out / 'steps.json'} is of another world or another size; choose another folder")
    assert isinstance(found, dict)
    return found


def _write(out: Path | None, found: dict[str, Any]) -> None:
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.atomic_write(out / "steps.json", (json.dumps(found, indent=1) + "\n").encode())
    checkpoint.atomic_write(out / "steps.md", ("\n".join(table(found)) + "\n").encode())


def _cells(q: dict[str, Any]) -> list[str]:
    def cell(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    return [
        cell(q["next_frame"], 2), cell(q["delta"], 2), cell(q["edges"], 2), cell(q["avatar"], 0),
        cell(q["distance"], 3), cell(q["ms"], 1), cell(q["times"], 2),
    ]  # fmt: skip


def _name(setting: Setting) -> str:
    last = "likeliest last" if setting.last_argmax else "all drawn"
    guided = f", guidance {setting.guidance:g}" if setting.guidance != 1.0 else ""
    return f"{setting.steps} passes, {setting.order}, temperature {setting.temperature:g}, {last}{guided}"


def _order(setting: dict[str, Any]) -> tuple[Any, ...]:
    drawn = setting["order"], not setting["last_argmax"], setting["temperature"], setting["steps"]
    return *drawn, setting["guidance"]
