"""Sheets of pictures and a few figures, to see what a source of video gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genie_play.data.clips import SHIFTED, PlatformerSource, Source, contact_sheet
from genie_play.data.looks import CALM_FAMILIES, FAMILIES
from genie_play.types import SourceError

SHEETS = ("clips", *FAMILIES)
Picture = NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True)
class Figures:
    """What changes from frame to frame."""

    copy_psnr: float  # dB of repeating the last frame, of the mean error over all
    still: float  # share of frames that equal the one before
    changed: float  # share of pixels that differ from the frame before by more than 8 of 255 in some channel
    moved_tokens: float  # share of patches of 8 x 8 pixels with such a pixel


def figures(source: Source, clips: int = 256, frames: int = 16) -> Figures:
    """Measure the first clips of a source."""
    batch = source.batch(0, clips, frames)
    error, still, changed, patches = 0.0, 0, 0.0, 0.0
    height, width = (side // 8 * 8 for side in source.size)
    for clip in batch:
        apart = np.abs(clip[1:].astype(np.int16) - clip[:-1])
        error += float((apart.astype(np.float32) ** 2).mean())
        still += int((apart.max((1, 2, 3)) == 0).sum())
        seen = (apart.max(-1) > 8)[:, :height, :width]
        changed += float(seen.mean())
        patches += float(seen.reshape(frames - 1, height // 8, 8, width // 8, 8).any((2, 4)).mean())
    psnr = 10 * np.log10(255.0**2 / max(error / clips, 1e-6))
    return Figures(float(psnr), still / (clips * (frames - 1)), changed / clips, patches / clips)


def looks_sheet(family: str, rows: int = 3, columns: int = 8, seed: int = 0, calm: bool = False) -> Picture:
    """Stills of one family, each in a look of its own, some ticks into a clip: (rows * 66, columns * 66, 3)."""
    shifted = 0.0 if calm else SHIFTED
    source = PlatformerSource((64, 64), seed, mix={family: 1.0}, calm=calm, shifted=shifted)
    stills = source.batch(0, rows * columns, 5)[:, -1]
    stills = np.pad(stills, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = stills.shape[1:3]
    tiled = stills.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return tiled.reshape(rows * height, columns * width, 3)


def sheet(what: str, source: Source, seed: int = 0, calm: bool = False, enlarge: int = 2) -> Picture:
    """A sheet, its pixels enlarged: "clips" of the source, or looks of one of the families."""
    if calm and what in FAMILIES and what not in CALM_FAMILIES:
        raise SourceError(f"the calm source has no {what} looks: give {', '.join(CALM_FAMILIES)} or clips")
    small = contact_sheet(source, 6, 8, every=2) if what == "clips" else looks_sheet(what, seed=seed, calm=calm)
    return small.repeat(enlarge, 0).repeat(enlarge, 1)
