"""The actions in a real clip: which codes the action model finds, as a SPEC that rollouts take."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from genie_play import checkpoint
from genie_play.data.video import FolderSource
from genie_play.eval.subject import infer
from genie_play.nn.genie import load_genie
from genie_play.types import GenieError, SourceError


def infer_codes(world: Path | str, video: Path, most: int = 200) -> tuple[NDArray[np.uint8], list[int]]:
    """The first frames (T, H, W, 3) of a video at the world's size and rate, and the T - 1 codes between them.

    `video` is an animation, a video, or a folder of numbered pictures. SourceError if it cannot be read or stands
    still at one frame.
    """
    genie, header = load_genie(checkpoint.find(world))
    if "actions" not in header.stages:
        raise GenieError(f"{header.world.name} knows no actions yet; train its actions first")
    if not video.exists():
        raise SourceError(f"there is no file or folder {video}")
    source = FolderSource(video, header.world.size, rate=header.world.rate)
    if len(source) != 1:
        raise SourceError(f"{video} holds {len(source)} clips; name one of them")
    frames = source.beginning(most)
    if len(frames) < 2:
        raise SourceError(f"{video} shows one frame at {source.fps:g} a second; actions lie between frames")
    with torch.inference_mode():
        codes = infer(genie, frames[None])[0]
    return frames, codes.tolist()


def spec(codes: list[int]) -> str:
    """Codes as items CODE or CODE:COUNT."""
    runs = [(code, len(list(run))) for code, run in groupby(codes)]
    return " ".join(f"{code}:{count}" if count > 1 else str(code) for code, count in runs)
