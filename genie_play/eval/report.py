"""The evaluation of a world: every figure with a baseline beside it, on levels and looks held out from training.

Knows the game the worlds learn from, its true keys and its avatar: this room alone may. Everything is seeded and runs
on one thread, so that the table of a card can be made again. The figures themselves are in `stages.py`, `codes.py`,
`play.py` and `sketchbook.py`, what they should reach in `gates.py`.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from genie_play import checkpoint, paths
from genie_play.data.clips import PLATFORMERS
from genie_play.eval import codes, curves, play, sketchbook, stages, upper_bound
from genie_play.eval.gates import gates_of
from genie_play.eval.probe import least, probe, sheet, standing, together
from genie_play.eval.subject import QUICK, Pictures, Size, Subject
from genie_play.eval.table import Row, into_page, judged, over_draws, table
from genie_play.media.pictures import to_png
from genie_play.nn.genie import load_genie
from genie_play.types import GenieError, Label

CAPTIONS = {
    "probe": "What each code does, held from standing starts in three unseen prompts: three ticks; of those "
    "that lead upward twelve, every third.",
    "held": "Eight unseen prompts; the picture given, then each code held for three steps, 0 to 7 from left to right.",
    "held-paper": "The same on looks of paper.",
    "long-holds": "One prompt; each code held for 40 steps, every fourth frame. Codes 0 to 7 from top to bottom.",
    "rollout": "Four unseen clips: real; generated from two real frames under the clip's codes; under random codes.",
    "tokenizer-unseen": "Unseen looks above, what the tokenizer makes of them below.",
    "free": "Random codes in ten unseen prompts, twelve frames of 256 steps.",
    "walks": "Random codes in ten unseen prompts, twelve frames of 1,000 steps.",
    "curves": "The run that made it, by `metrics.jsonl`: every twentieth step, and the mean of the last fifteen such.",
}

Watch = Callable[[str], None]  # told what is measured next


def evaluate(
    world: Path | str,
    out: Path | str | None = None,
    quick: bool = False,
    save: bool = False,
    bound: Path | str | None = None,
    page: Path | str | None = None,
    watch: Watch = lambda what: None,
    size: Size | None = None,
) -> dict[str, Any]:
    """Measure a world on the CPU at its shipped path; returns {"rows": [...], "labels": [...], "sketches": [...]}.

    With `out`, writes tables and sheets there; curves are among them where the folder of the world has a run's metrics.
    With `save`, writes figures and labels into the checkpoint's header. `bound` is the file of an upper bound, whose
    figures then stand beside. `page` is a Markdown page with marks such as `<!-- WORLD table -->`: its parts are
    written anew, and its sheets into the folder `media` beside it.
    """
    file = checkpoint.find(world)
    size = size or (QUICK if quick else Size())
    with one_thread(), torch.inference_mode():
        subject, header = open_subject(file, size)
        if save:
            upper_bound.refuse(header)
        told = None if bound is None else upper_bound.open_bound(bound, subject.genie)
        rows, labels, sketches = _measure(subject, header, told, watch)
    drawn = curves.sheet(curves.read(file.parent))
    if drawn is not None:
        subject.pictures["curves"] = drawn
    rows = judged(rows, gates_of(header.provenance.get("preset", header.world.name)))
    name, idle = header.world.name, least(labels)
    result = {
        "world": name,
        "rows": [{**asdict(row), "passed": row.passed} for row in rows],
        "table": table(rows),
        "labels": [asdict(label) for label in labels],
        "idle": idle,
        "sketches": [asdict(one) for one in sketches],
    }
    if out is not None:
        folder = paths.writable(Path(out))
        checkpoint.atomic_write(folder / "table.json", (json.dumps(result, indent=1) + "\n").encode())
        checkpoint.atomic_write(folder / "table.md", table(rows).encode())
        checkpoint.atomic_write(folder / "sketches.md", sketchbook.table(sketches).encode())
        for title, picture in subject.pictures.items():
            checkpoint.atomic_write(folder / f"{title}.png", to_png(picture))
    if page is not None:
        _fill(Path(page), name, result, subject.pictures)
    if save:
        figures = {f"{row.stage}: {row.name}": row.value for row in rows}
        upper_bound.rewrite(file, labels=labels, idle=idle, evaluation=figures)
    return result


def probe_world(
    world: Path | str, prompts: int = 100, save: bool = False, watch: Watch = lambda what: None
) -> tuple[dict[str, Any], Pictures]:
    """What each code of a world does, and a sheet of it. With `save` the labels go into the checkpoint."""
    file = checkpoint.find(world)
    with one_thread(), torch.inference_mode():
        subject, header = open_subject(file, Size(prompts=prompts))
        if save:
            upper_bound.refuse(header)
        if "dynamics" not in header.stages:
            raise GenieError(f"{header.world.name} cannot be played yet; train its dynamics first")
        watch(f"holding eight codes in {prompts} prompts")
        found = probe(subject, standing(subject.unseen, 4, prompts).render())
    if save:
        upper_bound.rewrite(file, labels=found.labels, idle=found.idle)
    result = {
        "world": header.world.name,
        "labels": [asdict(label) for label in found.labels],
        "idle": found.idle,
        "lands": {str(code): share for code, share in found.lands.items()},
        "prompts": len(found.moved),
        "saved": save,
    }
    return result, sheet(found)


def open_subject(file: Path, size: Size) -> tuple[Subject, checkpoint.Header]:
    """A world, ready to be measured."""
    genie, header = load_genie(file)
    learned = header.stages.get("dynamics", header.stages.get("tokenizer", {}))
    source = str(learned.get("source"))
    source = source if source in PLATFORMERS else "platformer"
    return Subject(genie.requires_grad_(False).eval(), header.path, size, source), header


def _measure(
    subject: Subject, header: checkpoint.Header, told: Any, watch: Watch
) -> tuple[list[Row], tuple[Label, ...], list[sketchbook.Played]]:
    draws, labels = subject.size.draws, header.labels
    watch("tokenizer")
    rows = over_draws(lambda draw: stages.tokenizer(subject, draw), draws)
    if "actions" in header.stages:
        watch("actions")
        rows += over_draws(lambda draw: codes.rows(subject, draw), draws)
    keyed = upper_bound.is_bound(header)
    if "dynamics" not in header.stages or not (keyed or "actions" in header.stages):
        return rows, labels, []
    watch("dynamics")
    found = over_draws(lambda draw: stages.dynamics(subject, draw, keyed), draws)
    if told is not None:
        watch("dynamics of the upper bound")
        best = stages.dynamics(Subject(told, subject.path, subject.size, subject.source), 0, True)
        found = _beside(found, best)
    rows += found
    watch("held codes")
    probes = []

    def held(draw: int) -> list[Row]:
        more, one = play.held(subject, draw)
        probes.append(one)
        return more

    rows += over_draws(held, draws)
    all_probes = together(probes)
    labels = all_probes.labels
    subject.pictures["probe"] = sheet(all_probes)
    watch("long holds")
    rows += play.long_holds(subject)
    watch("free play")
    rows += over_draws(lambda draw: play.free(subject, draw), draws)
    watch("twelve sketches")
    sketches, more = sketchbook.play_sketches(subject, labels)
    rows += more
    watch("long random play")
    return rows + play.walks(subject), labels, sketches


def _beside(rows: list[Row], best: list[Row]) -> list[Row]:
    """The rows with the same figures of the upper bound beside them."""
    known = {row.name: row.value for row in best}
    return [
        replace(row, beside=f"{row.beside}; told the true keys {known[row.name]:.2f}") if row.name in known else row
        for row in rows
    ]


def _fill(page: Path, name: str, result: dict[str, Any], sheets: dict[str, Pictures]) -> None:
    """Write a world's table, sketches and sheets into a page, and the pictures it shows beside it."""
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise GenieError(f"cannot read {page}: {error.strerror}") from None
    played = [sketchbook.Played(**one) for one in result["sketches"]]
    shown = [f"![{sheet}](media/{name}-{sheet}.png)\n\n*{CAPTIONS[sheet]}*" for sheet in CAPTIONS if sheet in sheets]
    parts = {
        "table": result["table"],
        "sketches": sketchbook.table(played, f"media/{name}-"),
        "sheets": "\n\n".join(shown),
    }
    text = into_page(text, {f"{name} {part}": filling for part, filling in parts.items()})
    media = paths.writable(page.parent / "media")
    for title, picture in sheets.items():
        # what a page shows may lose a few colours for a third of the bytes
        buffer = io.BytesIO()
        Image.fromarray(picture).quantize(256).save(buffer, "PNG", optimize=True)
        checkpoint.atomic_write(media / f"{name}-{title}.png", buffer.getvalue())
    checkpoint.atomic_write(page, text.encode())


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
