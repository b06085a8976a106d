"""Rows of figures: over several draws, against gates, as Markdown, and between the marks of a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genie_play.eval.gates import Gates
from genie_play.types import GenieError


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, what stands beside it, the least it should be, how far draws scatter."""

    stage: str
    name: str
    value: float
    unit: str = ""
    beside: str = ""
    least: float | None = None
    spread: float | None = None  # standard deviation over draws of other clips, prompts and noise

    @property
    def passed(self) -> bool | None:
        """Whether it is enough; None where nothing is asked."""
        return None if self.least is None else self.value >= self.least


def over_draws(measure: Callable[[int], list[Row]], draws: int) -> list[Row]:
    """The rows of `measure(draw)` for draws 0, 1, ...: means, and the spread where there is more than one draw.

    What stands beside a figure is that of draw 0.
    """
    first, *rest = [measure(draw) for draw in range(draws)]
    rows = []
    for row in first:
        same = [row, *(other for more in rest for other in more if (other.stage, other.name) == (row.stage, row.name))]
        values = [other.value for other in same]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        rows.append(replace(row, value=float(np.mean(values)), spread=spread))
    return rows


def judged(rows: Sequence[Row], gates: Gates) -> list[Row]:
    """The rows with what is asked of them."""
    return [replace(row, least=gates.get((row.stage, row.name), row.least)) for row in rows]


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| stage | measure | value | beside it | gate | |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        verdict = {True: "yes", False: "**no**", None: ""}[row.passed]
        value = _figure(row.value) + ("" if row.spread is None else f" ± {_figure(row.spread)}")
        least = "" if row.least is None else f"{row.least:g} or more"
        lines.append(f"| {row.stage} | {row.name} | {value} {row.unit} | {row.beside} | {least} | {verdict} |")
    return "\n".join(lines) + "\n"


def into_page(page: str, parts: dict[str, str]) -> str:
    """A page with each part between its marks `<!-- NAME -->` and `<!-- /NAME -->`; GenieError if a mark is missing."""
    for name, text in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
            raise GenieError(f"the page has no place for {name}: write {begin} and {end} into it, once each")
        before, after = page[: page.index(begin)], page[page.index(end) :]
        page = f"{before}{begin}\n\n{text.strip()}\n\n{after}"
    return page


def _figure(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}".rstrip("0").rstrip(".")
