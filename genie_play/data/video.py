"""A folder of videos as a source of clips: folders of numbered pictures, GIF, WebP and APNG; other videos by PyAV.

Clips are cut to the world's shape, averaged down to its size and taken at its rate. Nothing is written, nothing is
decoded before it is needed. Knows files and frames; nothing of networks or actions.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from genie_play.media.recorder import open_recorder
from genie_play.types import Pixels, SourceError

STILLS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".qoi")
ANIMATIONS = (".gif", ".webp", ".apng", ".png")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv")
TINY = 8  # pixels: a side below this shows nothing
SEGMENT = 128  # frames that are decoded of a clip at once
SLOTS = 64  # segments that batches are cut from at any one time; each step replaces one
CACHE = 512 << 20  # bytes of decoded segments that are kept
TRIES = 200  # clips that are tried in a row before a source is given up
NAMED = 3  # files that are named of those left out

Clips = NDArray[np.uint8]  # (clips, frames, H, W, 3)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Clip:
    """One clip on disk: a folder's pictures in order, an animation, or a video."""

    files: tuple[Path, ...]
    kind: str  # stills | animation | video
    length: int  # frames as stored, about


class FolderSource:
    """Clips from a folder (or one file) at `size` (height, width) and `rate` frames a second.

    A folder of pictures is one clip, in order of the numbers in their names and one picture a tick; animations and
    videos are sampled by their own time. `batch` is a pure function of seed and step as long as the files stay the
    same. To decode little, a batch is cut from SLOTS segments, of which each step replaces one; which clip and which
    part a segment shows depends on the seed, its slot and its age alone. What cannot be read, is smaller than 8 pixels
    or of another size than the folder's first picture is left out, counted in `skipped` and logged once, the first few
    with their reason.

    SourceError if nothing is left, or if no clip is as long as a batch asks for.
    """

    def __init__(self, path: Path, size: tuple[int, int], seed: int = 0, rate: float = 10.0) -> None:
        self.path, self.size, self.seed, self.fps = Path(path), size, seed, float(rate)
        self._left_out: dict[Path, str] = {}  # file -> why
        self._told = False
        self._no_av = 0
        self._cache: OrderedDict[tuple[int, int, int], Pixels | None] = OrderedDict()
        self._bytes = 0
        self._clips = list(self._find())
        if not self._clips:
            raise SourceError(self._nothing())
        self._tell()
        self._shares = np.cumsum([clip.length for clip in self._clips], dtype=np.float64)

    @property
    def skipped(self) -> int:
        """How many files were left out so far."""
        return len(self._left_out)

    @property
    def left_out(self) -> dict[Path, str]:
        """The files that were left out so far, and why."""
        return dict(self._left_out)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the clips that were found, not what is decoded; it leaves the telling to us."""
        return {**self.__dict__, "_cache": OrderedDict(), "_bytes": 0, "_told": True}

    def __len__(self) -> int:
        """How many clips were found."""
        return len(self._clips)

    def batch(self, step: int, clips: int, frames: int) -> Clips:
        """Clips (clips, frames, H, W, 3) uint8: a pure function of seed and step."""
        random = np.random.default_rng([self.seed, step, 1])
        out = np.empty((clips, frames, *self.size, 3), np.uint8)
        # where there are fewer slots than clips in a batch some slots serve twice, at other moments
        order = np.concatenate([random.permutation(SLOTS) for _ in range(-(-clips // SLOTS))])[:clips]
        for n, slot in enumerate(order):
            segment = self._segment(int(slot), step, frames)
            start = int(random.integers(len(segment) - frames + 1))
            out[n] = segment[start : start + frames]
        return out

    def beginning(self, length: int) -> Pixels:
        """The first ticks of the first clip, at most `length`: (T, H, W, 3). SourceError if it cannot be read."""
        found = self._decoded(0, 0.0, length)
        if found is None:
            raise SourceError(f"{self.path} cannot be read; give another video")
        return found

    def _segment(self, slot: int, step: int, frames: int) -> Pixels:
        """What a slot shows at a step: (T, H, W, 3), T at least `frames`."""
        age = (step + SLOTS - 1 - slot) // SLOTS
        random = np.random.default_rng([self.seed, slot, age, 2])
        for _ in range(TRIES):
            clip = int(np.searchsorted(self._shares, random.random() * self._shares[-1], side="right"))
            part = random.random()
            found = self._decoded(clip, part, max(SEGMENT, frames))
            if found is not None and len(found) >= frames:
                return found
        raise SourceError(f"no clip in {self.path} has {frames} frames at {self.fps:g} a second; give longer ones")

    def _decoded(self, index: int, part: float, length: int) -> Pixels | None:
        """A part of a clip, at most `length` ticks; None if it cannot be read."""
        clip = self._clips[index]
        # long clips are cut into as many parts as fit, so that a part has a name that the cache knows
        parts = max(1, -(-clip.length // length))
        key = (index, int(part * parts), length)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        try:
            ticks = list(self._read(clip, key[1] / max(1, parts - 1), length))
            found = np.stack(ticks) if ticks else None
        # decoders meet any bytes there are and raise whatever comes to them
        except Exception as error:
            _log.debug("%s: %s", clip.files[0], error)
            found = None
        if found is None:
            self._leave_out(clip.files, "unreadable")
        self._tell()
        self._cache[key] = found
        self._bytes += 0 if found is None else found.nbytes
        while self._bytes > CACHE and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._bytes -= 0 if old is None else old.nbytes
        return found

    def _read(self, clip: _Clip, part: float, length: int) -> Iterator[Pixels]:
        """Up to `length` ticks of a clip from `part` (0: its beginning, 1: its end) on."""
        if clip.kind == "stills":
            yield from self._read_stills(clip.files, round(part * max(0, len(clip.files) - length)), length)
        elif clip.kind == "animation":
            frames = list(_at_rate(_animation(clip.files[0], self.size), self.fps))
            start = round(part * max(0, len(frames) - length))
            yield from frames[start : start + length]
        else:
            yield from self._read_video(clip.files[0], part, length)

    def _read_stills(self, files: Sequence[Path], start: int, length: int) -> Iterator[Pixels]:
        with Image.open(files[0]) as image:
            first = image.size
        for file in files[start : start + length]:
            try:
                with Image.open(file) as image:
                    if image.size != first:
                        self._leave_out([file], f"{_by(image.size)} in a folder of {_by(first)}")
                        continue
                    yield _fit(image, self.size)
            except Exception as error:
                _log.debug("%s: %s", file, error)
                self._leave_out([file], "unreadable")

    def _read_video(self, file: Path, part: float, length: int) -> Iterator[Pixels]:
        av = importlib.import_module("av")
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            seconds = (container.duration or 0) / 1e6
            start = part * max(0.0, seconds - length / self.fps)
            if start > 0:
                container.seek(int(start * 1e6))
            shown = _video(container, stream, self.size, start)
            for n, tick in enumerate(_at_rate(shown, self.fps)):
                if n == length:
                    return
                yield tick

    def _find(self) -> Iterator[_Clip]:
        """All clips under the path, in order of name."""
        if not self.path.exists():
            raise SourceError(f"there is no {self.path}; give a folder of videos")
        if self.path.is_file():
            yield from self._file(self.path)
            return
        for folder, below, names in os.walk(self.path):
            below[:] = sorted(name for name in below if not name.startswith("."))
            stills = []
            for name in sorted((name for name in names if not name.startswith(".")), key=_natural):
                file = Path(folder) / name
                suffix = file.suffix.lower()
                if suffix in STILLS and not _moves(file):
                    stills.append(file)
                elif suffix in ANIMATIONS + VIDEOS:
                    yield from self._file(file)
            yield from self._stills(stills)

    def _stills(self, files: list[Path]) -> Iterator[_Clip]:
        if not files:
            return
        why = "a single picture" if len(files) < 2 else self._unfit(files[0])
        if why:
            self._leave_out(files, why)
            return
        yield _Clip(tuple(files), "stills", len(files))

    def _file(self, file: Path) -> Iterator[_Clip]:
        video = file.suffix.lower() in VIDEOS
        why = self._unfit_video(file) if video else self._unfit(file)
        length = 0 if why else self._video_length(file) if video else _length(file)
        if why or length < 2:
            self._leave_out([file], why or "a single picture")
            return
        yield _Clip((file,), "video" if video else "animation", length)

    def _unfit(self, file: Path) -> str:
        """Why a picture cannot be used; empty if it can."""
        try:
            with Image.open(file) as image:
                return "" if min(image.size) >= TINY else f"smaller than {TINY} pixels"
        except Exception:
            return "unreadable"

    def _unfit_video(self, file: Path) -> str:
        try:
            av = importlib.import_module("av")
        except ImportError:
            self._no_av += 1
            return "needs PyAV"
        try:
            with av.open(str(file)) as container:
                codec = container.streams.video[0].codec_context
                return f"smaller than {TINY} pixels" if min(codec.width, codec.height) < TINY else ""
        except Exception:
            return "unreadable"

    def _video_length(self, file: Path) -> int:
        try:
            with importlib.import_module("av").open(str(file)) as container:
                return int((container.duration or 0) / 1e6 * self.fps)
        except Exception:
            return 0

    def _leave_out(self, files: Iterable[Path], why: str) -> None:
        for file in files:
            self._left_out.setdefault(file, why)

    def _tell(self) -> None:
        if self.skipped and not self._told:
            self._told = True
            _log.warning("%s: %d files left out so far: %s", self.path, self.skipped, self._why())

    def _why(self) -> str:
        return reasons(self._left_out, self.path) + self._hint()

    def _hint(self) -> str:
        return f"; {self._no_av} need PyAV: pip install 'genie-play[video]'" if self._no_av else ""

    def _nothing(self) -> str:
        if self._no_av:
            return (
                f"the videos in {self.path} need PyAV: pip install 'genie-play[video]', or give GIFs or frame folders"
            )
        if self.skipped:
            return f"none of the {self.skipped} files in {self.path} can be used: {self._why()}"
        return f"there is no video in {self.path}; give frame folders, GIF, WebP or APNG files"


def write_clip(path: Path, frames: Iterable[Pixels], rate: float = 10.0) -> Path:
    """Write frames (H, W, 3) uint8 as a clip that FolderSource reads back the same; return where it is.

    A path without a suffix becomes a folder of PNGs, .webp and .apng one file without loss. Nothing is overwritten.
    GenieError if it cannot be written.
    """
    recorder = open_recorder(path, rate, scale=1)
    for frame in frames:
        recorder.add(frame)
    written = recorder.close()
    if recorder.problem is not None:
        raise SourceError(recorder.problem)
    if written is None:
        raise ValueError("a clip has one frame or more")
    return written


def reasons(left_out: Mapping[Path, str], under: Path) -> str:
    """The first few of the files that were left out, each with its reason, and how many more there are."""
    named = [
        f"{file.relative_to(under) if file.is_relative_to(under) and file != under else file.name} ({why})"
        for file, why in itertools.islice(left_out.items(), NAMED)
    ]
    more = len(left_out) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts 2.png before 10.png."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _moves(file: Path) -> bool:
    """A PNG or WebP that is an animation, told from its head."""
    if file.suffix.lower() not in ANIMATIONS:
        return False
    try:
        with file.open("rb") as opened:
            head = opened.read(1024)
    except OSError:
        return False
    return b"acTL" in head if head.startswith(b"\x89PNG") else b"ANIM" in head[:64] or head.startswith(b"GIF8")


def _length(file: Path) -> int:
    """Frames of an animation, also of one that is cut short."""
    try:
        with Image.open(file) as image:
            return int(getattr(image, "n_frames", 1))
    except Exception:
        return sum(1 for _ in _animation(file, (TINY, TINY)))


def _fit(image: Image.Image, size: tuple[int, int]) -> Pixels:
    """Cut to the shape of `size` (height, width) and average down to it: (H, W, 3)."""
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB")
    if image.size == size[::-1]:
        return np.array(image)
    return np.array(ImageOps.fit(image, size[::-1], Image.Resampling.BOX))


def _animation(file: Path, size: tuple[int, int]) -> Iterator[tuple[Pixels, float]]:
    """Frames and the seconds each is shown."""
    with Image.open(file) as image:
        for n in itertools.count():
            try:
                image.seek(n)
                image.load()
            except Exception:
                # its end, or where it was cut short: what came before is a clip too
                return
            # browsers show frames without a delay for a tenth of a second
            yield _fit(image, size), image.info.get("duration", 0) / 1000 or 0.1


def _video(container: Any, stream: Any, size: tuple[int, int], start: float) -> Iterator[tuple[Pixels, float]]:
    """Frames from `start` seconds on and the seconds each is shown."""
    before: tuple[Pixels, float] | None = None
    for frame in container.decode(stream):
        if frame.time is None or frame.time < start:
            continue
        if before is not None:
            yield before[0], frame.time - before[1]
        before = _fit(frame.to_image(), size), frame.time
    if before is not None:
        yield before[0], 1.0 / float(stream.average_rate or 10)


def _at_rate(shown: Iterable[tuple[Pixels, float]], rate: float) -> Iterator[Pixels]:
    """What is shown in the middle of each tick."""
    end, tick = 0.0, 0
    for pixels, seconds in shown:
        end += seconds
        while (tick + 0.5) / rate < end:
            yield pixels
            tick += 1
