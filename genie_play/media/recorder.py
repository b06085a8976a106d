"""Recordings: a GIF that is complete after every frame, and the other formats by suffix.

Every recorder has `add(pixels, seconds)` and `close() -> Path | None`; what it meets (a full disk) it says once in
`problem` and keeps what it has. Knows frames and seconds; nothing of sessions, engines or windows.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from genie_play import paths
from genie_play.media import pictures
from genie_play.types import GenieError, Pixels

RECENT = 32  # frames that a palette is made from
COLOURS = 255  # of a palette; the last index means "as before"
CLEAR = 255
SHORTEST, LONGEST = 2, 1000  # hundredths of a second: browsers slow down what is shorter; longer stills are split
REKEY_FLOOR = 6.5  # mean squared error (40 dB) up to which a palette is good enough, whatever it was before
REKEY_JUMP = 2.0  # a new palette where the error is above the floor and so many times what it was
SAMPLE = 1 << 15  # pixels that a palette is made from

_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Takes frames (H, W, 3) uint8 and the seconds each is shown; `close` returns where the recording is, if any."""

    problem: str | None

    def add(self, pixels: Pixels, seconds: float | None = None) -> None: ...
    def close(self) -> Path | None: ...


def open_recorder(
    path: Path,
    rate: float = 10.0,
    *,
    scale: int = 0,
    hold: int = 0,
    palette_frames: Sequence[Pixels] = (),
    longest: float | None = None,
) -> Recorder:
    """A recorder for the path's suffix: .gif, .png (a strip), .webp, .apng, .mp4, or a folder of PNGs without one.

    Frames without seconds of their own last one tick of `rate`. `scale` enlarges (0: until the long side has 256
    pixels; strips and folders are not enlarged). GenieError if the folder cannot be written or the encoder is missing.
    """
    suffix = "" if path.is_dir() else path.suffix.lower()
    paths.writable(path.parent)
    if suffix == ".gif":
        return GifWriter(path, None, scale, palette_frames, rate=rate, hold=hold, longest=longest)
    if suffix not in RECORDERS:
        known = ", ".join([".gif", *RECORDERS][:-1])
        raise GenieError(f"cannot record to {suffix}; use {known} or the name of a folder")
    return RECORDERS[suffix](path, rate, scale)


class GifWriter:
    """A streaming GIF: palette by k-means, no dithering, exact average timing, a complete file after every frame.

    The file appears at `path` (or beside it with -2, -3, ...) with the first frame. A frame's bytes are written after
    the trailer and then the trailer is overwritten by their first one, so that a process killed at any moment leaves a
    GIF that ends where its last whole frame does. Delays are whole hundredths; what rounding takes from one frame the
    next one gets. Equal frames become one. `palette_frames` (recent pictures) make the first palette, so that colours
    are right from the start; where later frames no longer fit it they bring their own.

    `size` (height, width; None: the first frame's) is asserted; `scale` is a whole number, 0 for 256 pixels on the long
    side. `hold` leaves a pixel as it was unless a channel moved by more than that (small files). `longest` shortens
    any longer frame to that many seconds.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int] | None = None,
        scale: int = 0,
        palette_frames: Sequence[Pixels] = (),
        *,
        rate: float = 10.0,
        hold: int = 0,
        longest: float | None = None,
    ) -> None:
        self.path = path
        self.problem: str | None = None
        self.frames = 0  # in the file; equal ones count once
        self.size = size
        self._scale = scale
        self._rate, self._hold, self._longest = rate, hold, longest
        self._recent: deque[Pixels] = deque(list(palette_frames)[-RECENT:], maxlen=RECENT)
        self._file: BinaryIO | None = None
        self._end = 0  # where the trailer is
        self._delay_at = 0  # where the last frame's delay is
        self._delay = 0
        self._time = 0.0  # seconds that were added
        self._written = 0  # hundredths that are in the file
        self._palette: _Palette | None = None
        self._global: _Palette | None = None
        self._shown: Pixels | None = None  # (H, W, 3) what a viewer sees, in the palette's colours
        self._closed = False

    @property
    def seconds(self) -> float:
        """How long the file lasts."""
        return self._written / 100

    def add(self, pixels: Pixels, seconds: float | None = None) -> None:
        """Append a frame (H, W, 3) uint8, shown for so many seconds (one tick if left out)."""
        if self._closed:
            raise ValueError("the recording is closed")
        if self.problem is not None:
            return
        if self.size is None:
            self.size = (pixels.shape[0], pixels.shape[1])
        if pixels.shape != (*self.size, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"frames of this recording are {(*self.size, 3)} uint8, not {pixels.shape} {pixels.dtype}")
        seconds = 1 / self._rate if seconds is None else seconds
        self._time += max(0.0, seconds if self._longest is None else min(seconds, self._longest))
        self._recent.append(pixels.copy())
        owed = round(self._time * 100) - self._written
        try:
            if self._file is None:
                self._first(pixels, owed)
            elif owed >= SHORTEST:
                # a frame that would be shorter is dropped, and its time goes to the next
                self._next(pixels, owed)
        except OSError as error:
            self._give_up(error)

    def close(self) -> Path | None:
        """End the file, open it again and count; return where it is, None if there never was a frame. Twice is fine."""
        if self._closed or self._file is None:
            self._closed = True
            return self.path if self.frames else None
        self._closed = True
        try:
            owed = round(self._time * 100) - self._written
            if owed > 0 and self.problem is None:
                self._lengthen(owed)
            os.fsync(self._file.fileno())
        except OSError as error:
            self._give_up(error)
        self._file.close()
        self._check()
        return self.path

    def _first(self, pixels: Pixels, owed: int) -> None:
        assert self.size is not None
        self._scale = self._scale or pictures.export_scale(self.size)
        height, width = self.size[0] * self._scale, self.size[1] * self._scale
        self._palette = self._global = _Palette(self._recent)
        head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + self._palette.table
        head += b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
        indices = self._palette.map(pixels)
        delay = min(max(owed, SHORTEST), LONGEST)
        data = head + self._block(indices, (0, 0), delay, False) + b";"
        # the file has its name only once it holds a frame
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(data)
            self.path = paths.unused(self.path)
            os.replace(part, self.path)
        finally:
            part.unlink(missing_ok=True)
        self._file = open(self.path, "r+b", buffering=0)  # noqa: SIM115
        self._end, self._delay_at = len(data) - 1, len(head) + 4
        self._shown = self._palette.colours[indices]
        self._note(delay)
        self._lengthen(owed - delay)

    def _next(self, pixels: Pixels, owed: int) -> None:
        assert self._palette is not None
        assert self._shown is not None
        indices = self._palette.map(pixels)
        error = _error(self._palette.colours[indices], pixels)
        if error > max(REKEY_FLOOR, REKEY_JUMP * self._palette.error):
            self._palette = _Palette(self._recent)
            indices = self._palette.map(pixels)
        colours = self._palette.colours[indices]
        moved = (colours != self._shown).any(axis=-1)
        if self._hold:
            moved &= np.abs(pixels.astype(np.int16) - self._shown).max(axis=-1) > self._hold
        rows, columns = np.flatnonzero(moved.any(axis=1)), np.flatnonzero(moved.any(axis=0))
        if not len(rows):
            self._lengthen(owed)
            return
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        if self._hold:
            indices = np.where(moved, indices, np.uint8(CLEAR))
        delay = min(owed, LONGEST)
        self._append(self._block(indices[box], (int(rows[0]), int(columns[0])), delay, bool(self._hold)))
        self._shown[moved if self._hold else box] = colours[moved if self._hold else box]
        self._note(delay)
        self._lengthen(owed - delay)

    def _note(self, delay: int) -> None:
        self.frames += 1
        self._delay = delay
        self._written += delay

    def _block(self, indices: NDArray[np.uint8], at: tuple[int, int], delay: int, clear: bool) -> bytes:
        """Control block, image descriptor, palette where it is not the first one, LZW data."""
        assert self._palette is not None
        indices = np.repeat(np.repeat(indices, self._scale, axis=0), self._scale, axis=1)
        top, left = at[0] * self._scale, at[1] * self._scale
        control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 0x04 | clear, delay, CLEAR, 0)
        local = self._palette is not self._global
        place = struct.pack("<BHHHHB", 0x2C, left, top, indices.shape[1], indices.shape[0], 0x87 if local else 0)
        return control + place + (self._palette.table if local else b"") + _lzw(indices)

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        try:
            _put(self._file, self._end + 1, data[1:] + b";")
            _put(self._file, self._end, data[:1])
        except OSError:
            with contextlib.suppress(OSError):
                _put(self._file, self._end, b";")
            with contextlib.suppress(OSError):
                self._file.truncate(self._end + 1)
            raise
        self._delay_at = self._end + 4
        self._end += len(data)

    def _lengthen(self, owed: int) -> None:
        """Show the last frame for longer."""
        assert self._file is not None
        while owed > 0:
            more = min(owed, max(LONGEST - self._delay, 0))
            if more:
                _put(self._file, self._delay_at, struct.pack("<H", self._delay + more))
                self._delay += more
                self._written += more
            else:
                # one pixel, as it was: a still that goes on
                more = min(owed, LONGEST)
                self._append(self._block(np.full((1, 1), CLEAR, np.uint8), (0, 0), more, True))
                self._note(more)
            owed -= more

    def _give_up(self, error: OSError) -> None:
        kept = f"{self.frames} frames are in {self.path}" if self.frames else f"nothing is in {self.path}"
        self.problem = f"recording stopped ({error.strerror}); {kept}; choose another folder or make room"
        _log.warning("%s", self.problem)

    def _check(self) -> None:
        try:
            frames, hundredths = read_timing(self.path)
        except (OSError, ValueError) as error:
            self.problem = self.problem or f"{self.path} cannot be read back: {error}"
            return
        if self.problem is None and (frames, hundredths) != (self.frames, self._written):
            self.problem = f"{self.path} holds {frames} frames of {self.frames}"


def read_timing(path: Path) -> tuple[int, int]:
    """Frames of a GIF and their hundredths of a second in all; ValueError if it does not end as one should."""
    data = path.read_bytes()
    if not data.startswith(b"GIF8"):
        raise ValueError("it is no GIF")
    frames = hundredths = 0
    at = _after_table(data, 13, data[10])
    try:
        while data[at] != 0x3B:
            if data[at] == 0x21:
                hundredths += struct.unpack_from("<H", data, at + 4)[0] if data[at + 1] == 0xF9 else 0
                at = _after_blocks(data, at + 2)
            elif data[at] == 0x2C:
                frames += 1
                at = _after_blocks(data, _after_table(data, at + 10, data[at + 9]) + 1)
            else:
                raise ValueError(f"byte {at} begins no block")
    except (IndexError, struct.error):
        raise ValueError("it is cut short") from None
    return frames, hundredths


class _Palette:
    """Colours for some frames, and which of them is nearest to any other colour, looked up at 6 bits a channel."""

    def __init__(self, frames: Sequence[Pixels] | deque[Pixels]) -> None:
        pixels = np.concatenate([frame.reshape(-1, 3) for frame in frames])
        # an odd stride does not fall on the same columns in every row
        pixels = pixels[:: len(pixels) // SAMPLE | 1]
        # the last frame is the one to come next: it counts in full
        pixels = np.concatenate([pixels, frames[-1].reshape(-1, 3)[: SAMPLE * 4]])
        self.colours = _key_colours(pixels)  # (256, 3)
        self.table = self.colours.tobytes()
        self._nearest = np.full(1 << 18, -1, np.int16)
        self.error = _error(self.colours[self.map(pixels[None])], pixels[None])

    def map(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Indices (H, W) uint8 of the nearest colours of (H, W, 3)."""
        high = (pixels >> 2).astype(np.int32)
        bins = (high[..., 0] << 12) | (high[..., 1] << 6) | high[..., 2]
        found = self._nearest[bins]
        missing = found < 0
        if missing.any():
            new, where = np.unique(bins[missing], return_index=True)
            self._nearest[new] = _nearest(pixels[missing][where], self.colours[:COLOURS])
            found = self._nearest[bins]
        indices: NDArray[np.uint8] = found.astype(np.uint8)
        return indices


def _key_colours(pixels: Pixels) -> Pixels:
    """Up to 255 colours for pixels (n, 3): themselves if they are that few, else k-means from a median cut."""
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    few = np.unique(packed)
    if len(few) <= COLOURS:
        colours = np.stack([few >> 16, few >> 8 & 255, few & 255], axis=-1).astype(np.uint8)
    else:
        image = Image.fromarray(np.ascontiguousarray(pixels[None]))
        keyed = image.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
        colours = np.array(keyed.getpalette("RGB"), np.uint8).reshape(-1, 3)[:COLOURS]
    padded = np.zeros((256, 3), np.uint8)
    padded[: len(colours)] = colours
    # unused entries repeat the first, so that none is nearer than the colours in use
    padded[len(colours) : COLOURS] = colours[0]
    return padded


def _nearest(pixels: Pixels, colours: Pixels) -> NDArray[np.int16]:
    """Index of the nearest of (c, 3) colours for each of (n, 3) pixels."""
    points, keys = pixels.astype(np.float32), colours.astype(np.float32)
    found = np.empty(len(points), np.int16)
    for start in range(0, len(points), 4096):
        part = points[start : start + 4096]
        found[start : start + 4096] = ((keys**2).sum(axis=1) - 2 * part @ keys.T).argmin(axis=1)
    return found


def _error(found: Pixels, pixels: Pixels) -> float:
    """Mean squared error."""
    return float(np.square(found.astype(np.float32) - pixels).mean())


def _lzw(indices: NDArray[np.uint8]) -> bytes:
    """The LZW image data of indices (H, W): lifted from a GIF of one frame, which Pillow compresses fast."""
    buffer = io.BytesIO()
    # gray: Pillow leaves its indices as they are
    Image.fromarray(indices).save(buffer, "GIF", interlace=0, optimize=False)
    data = buffer.getvalue()
    at = _after_table(data, 13, data[10])
    while data[at] != 0x2C:
        at = _after_blocks(data, at + 2)
    start = _after_table(data, at + 10, data[at + 9])
    return data[start : _after_blocks(data, start + 1)]


def _after_table(data: bytes, at: int, flags: int) -> int:
    return at + (3 << (flags & 7) + 1 if flags & 0x80 else 0)


def _after_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += 1 + data[at]
    return at + 1


def _put(file: BinaryIO, at: int, data: bytes) -> None:
    """Write all of it there, past what a nearly full disk takes in one go."""
    file.seek(at)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


class StripWriter:
    """All frames beside each other in one PNG, written at the end: until then they wait compressed in memory."""

    def __init__(self, path: Path, rate: float, scale: int) -> None:
        self.path = path
        self.problem: str | None = None
        self._rate, self._scale = rate, scale
        self._frames: list[tuple[bytes, float]] = []
        self._shape: tuple[int, ...] = ()
        self._closed = False

    def add(self, pixels: Pixels, seconds: float | None = None) -> None:
        """Append a frame (H, W, 3) uint8."""
        self._shape = self._shape or pixels.shape
        if pixels.shape != self._shape or pixels.dtype != np.uint8:
            raise ValueError(f"frames of this recording are {self._shape} uint8, not {pixels.shape} {pixels.dtype}")
        packed = zlib.compress(np.ascontiguousarray(pixels).tobytes(), 1)
        self._frames.append((packed, 1 / self._rate if seconds is None else seconds))

    def close(self) -> Path | None:
        """Write the file and return where it is; None without a frame. Twice is fine."""
        if not self._frames:
            return None
        if not self._closed:
            self.path = pictures.save_bytes(self.path, self._encode())
            self._closed = True
        return self.path

    def _pixels(self) -> list[Pixels]:
        flat = [np.frombuffer(zlib.decompress(packed), np.uint8) for packed, _ in self._frames]
        return [frame.reshape(self._shape) for frame in flat]

    def _encode(self) -> bytes:
        return pictures.to_png(pictures.enlarge(pictures.strip(self._pixels()), self._scale or 1))


class _PillowWriter(StripWriter):
    """All frames in one animation that Pillow writes."""

    kind = ""
    options: ClassVar[dict[str, Any]] = {}

    def _encode(self) -> bytes:
        scale = self._scale or pictures.export_scale((self._shape[0], self._shape[1]))
        images = [Image.fromarray(pictures.enlarge(frame, scale)) for frame in self._pixels()]
        # whole milliseconds, and what rounding takes from one frame the next one gets
        ends = np.rint(np.cumsum([seconds for _, seconds in self._frames]) * 1000).astype(int)
        durations = [int(d) for d in np.diff(ends, prepend=0)]
        buffer = io.BytesIO()
        images[0].save(
            buffer, self.kind, save_all=True, append_images=images[1:], duration=durations, loop=0, **self.options
        )
        return buffer.getvalue()


class WebpWriter(_PillowWriter):
    """An animated WebP without loss."""

    kind = "WEBP"
    options: ClassVar[dict[str, Any]] = {"lossless": True, "quality": 80}

    def __init__(self, path: Path, rate: float, scale: int) -> None:
        if not features.check("webp"):
            raise GenieError("this Pillow was built without WebP; record to .gif instead")
        super().__init__(path, rate, scale)


class ApngWriter(_PillowWriter):
    """An animated PNG."""

    kind = "PNG"


class FolderWriter:
    """A new folder of PNGs 00000.png, 00001.png, ..., each written as it comes. Seconds have no place in it."""

    def __init__(self, path: Path, rate: float, scale: int) -> None:
        self.path = path
        self.problem: str | None = None
        self.frames = 0
        self._scale = scale or 1

    def add(self, pixels: Pixels, seconds: float | None = None) -> None:
        """Write a frame (H, W, 3) uint8."""
        if self.problem is not None:
            return
        if not self.frames and not (self.path.is_dir() and not any(self.path.iterdir())):
            self.path = paths.unused(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            pictures.save_png(self.path / f"{self.frames:05d}.png", pictures.enlarge(pixels, self._scale))
        except (OSError, GenieError) as error:
            self.problem = f"recording stopped ({error}); {self.frames} frames are in {self.path}"
            _log.warning("%s", self.problem)
            return
        self.frames += 1

    def close(self) -> Path | None:
        """Where the folder is; None without a frame."""
        return self.path if self.frames else None


class VideoWriter:
    """H.264 in a fragmented MP4, which can be read up to where a killed process left it. Needs PyAV."""

    def __init__(self, path: Path, rate: float, scale: int) -> None:
        try:
            self._av: Any = importlib.import_module("av")
        except ImportError:
            raise GenieError(
                "MP4 needs PyAV: pip install 'genie-play[video]'; or record to .gif or .webp instead"
            ) from None
        self.path = path
        self.problem: str | None = None
        self.frames = 0
        self._rate, self._scale = rate, scale
        self._container: Any = None
        self._stream: Any = None
        self._time = 0.0

    def add(self, pixels: Pixels, seconds: float | None = None) -> None:
        """Encode a frame (H, W, 3) uint8."""
        if self.problem is not None:
            return
        try:
            if self._container is None:
                self._open(pixels)
            image = pictures.enlarge(pixels, self._scale)
            even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            frame.pts, frame.time_base = round(self._time * 1000), Fraction(1, 1000)
            self._time += 1 / self._rate if seconds is None else seconds
            self._write(frame)
        except (OSError, self._av.FFmpegError) as error:
            self.problem = f"recording stopped ({error}); {self.frames} frames are in {self.path}"
            _log.warning("%s", self.problem)
            return
        self.frames += 1

    def close(self) -> Path | None:
        """Flush and close; where the file is, None without a frame. Twice is fine."""
        if self._container is not None:
            with contextlib.suppress(OSError, self._av.FFmpegError):
                if self.problem is None:
                    self._write(None)
                self._container.close()
            self._container = None
        return self.path if self.frames else None

    def _open(self, pixels: Pixels) -> None:
        height, width = pixels.shape[:2]
        if not self._scale:
            self._scale = pictures.export_scale((height, width))
            # chroma is halved: rather an even scale than a row or column less
            self._scale += self._scale * height * width % 2
        self.path = paths.unused(self.path)
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
        self._container = self._av.open(str(self.path), "w", format="mp4", options=options)
        self._stream = self._container.add_stream("libx264", rate=Fraction(self._rate).limit_denominator(1000))
        self._stream.width, self._stream.height = width * self._scale // 2 * 2, height * self._scale // 2 * 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = self._stream.time_base = Fraction(1, 1000)
        self._stream.options = {"crf": "16", "tune": "zerolatency", "g": "10"}

    def _write(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


RECORDERS: dict[str, Callable[[Path, float, int], Recorder]] = {
    ".png": StripWriter,
    ".webp": WebpWriter,
    ".apng": ApngWriter,
    ".mp4": VideoWriter,
    "": FolderWriter,
}
