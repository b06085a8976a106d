"""Pictures in and out: any picture file becomes a prompt at the world's size, and pixels become PNG.

What can be shown is shown, with a note of what was done to it; what cannot is a SourceError of one line. Knows Pillow,
nothing of worlds, engines or windows.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from genie_play import paths
from genie_play.types import GenieError, Pixels, Prompt, SourceError

# EPS and the like run other programs; nothing of that is a picture here
FORMATS = (
    "PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "ICO", "ICNS", "QOI", "PCX", "SGI",
    "JPEG2000", "MPO",
)  # fmt: skip
LARGEST = 512 << 20  # bytes of a file that may still be a picture
DETAIL = 16  # a picture is looked at with up to this many times the world's resolution
PAPER_SHARE, PAPER_NEAR = 0.55, 24  # a drawing: this share of the pixels is within so many levels of one colour
INK = 0.45  # a stroke that covers share c of a pixel keeps c ** INK of its contrast; averaging alone keeps c

_STARTS = (
    (b"PK\x03\x04", "a ZIP"), (b"%PDF", "a PDF"), (b"\x7fELF", "a program"), (b"MZ", "a program"),
    (b"\x1f\x8b", "a gzip archive"), (b"7z\xbc\xaf", "a 7z archive"), (b"Rar!", "a RAR archive"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"), (b"OggS", "an Ogg recording"), (b"ID3", "an MP3"),
    (b"%!PS", "PostScript"), (b'{"gplay"', "a replay"), (b"<svg", "an SVG drawing"), (b"<?xml", "XML or SVG"),
    (b"<!doctype html", "a web page"), (b"<html", "a web page"),
)  # fmt: skip
_TURNS = {  # EXIF orientation -> what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_truncated = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A picture at the world's size."""

    pictures: NDArray[np.uint8]  # (K, H, W, 3), oldest first; K is 1 unless more were asked for
    source: str = ""
    notes: list[str] = field(default_factory=list)  # what was done to it, for a person

    @property
    def pixels(self) -> Pixels:
        """The last picture, (H, W, 3)."""
        pixels: Pixels = self.pictures[-1]
        return pixels

    @property
    def prompt(self) -> Prompt:
        """As the start of a world."""
        return Prompt(self.pictures, self.source)


def load(
    source: Path | str | bytes | NDArray[np.uint8],
    size: tuple[int, int],
    *,
    last: int = 0,
    box: tuple[float, float, float, float] | None = None,
) -> Picture:
    """Make any picture fit a world of `size` (height, width): upright, flattened on white, cropped and scaled.

    `source` is a file, the bytes of one, or pixels (H, W), (H, W, 3) or (H, W, 4) uint8. Of an animation the first
    frame is taken, or the `last` so many. `box` (left, top, right, bottom; shares of the upright picture) replaces the
    crop to the middle. SourceError if there is nothing to show.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or source.shape[2:] not in ((), (3,), (4,)):
            raise ValueError(f"pixels are (H, W), (H, W, 3) or (H, W, 4) uint8, not {source.shape} {source.dtype}")
        notes: list[str] = []
        return _finish([_plain(Image.fromarray(source), notes)], size, box, "pixels", notes)
    name = "what was pasted" if isinstance(source, bytes) else Path(source).name
    if isinstance(source, bytes):
        data = source
    else:
        data = _read(Path(source))
    notes = []
    try:
        images = _decode(data, size, last, notes)
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise SourceError(f"{name} has more than {limit} million pixels; make it smaller first") from None
    except UnidentifiedImageError:
        raise SourceError(f"{name} is not a picture I can read ({_starts_like(data)}); try a PNG or JPEG") from None
    # decoders meet any bytes there are and raise whatever comes to them
    except Exception as error:
        raise SourceError(f"{name} is damaged and nothing of it can be shown ({error}); try another copy") from None
    return _finish(images, size, box, name, notes)


def fit(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None) -> Pixels:
    """Crop an RGB image to the shape of `size` (height, width) and scale it: (H, W, 3).

    Photographs are averaged over areas. In a drawing (mostly one colour) that would bleach thin strokes to nothing,
    so there a pixel that is partly stroke keeps more of the stroke's contrast than its share. Small pictures are
    enlarged pixel by pixel where a whole number does it.
    """
    height, width = size
    if image.size == (width, height) and box is None:
        return np.array(image)
    left, top, right, bottom = _crop(image.size, size) if box is None else _scaled(box, image.size)
    wide, high = right - left, bottom - top
    if wide < width or high < height:
        whole = wide == int(wide) and high == int(high) and width % int(wide) == 0 and height % int(high) == 0
        method = Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC
        return np.array(image.resize((width, height), method, (left, top, right, bottom)))
    area = Image.Resampling.BOX
    mean = np.array(image.resize((width, height), area, (left, top, right, bottom)))
    detail = min(int(wide / width), int(high / height), DETAIL)
    if detail < 2:
        return mean
    fine = np.array(image.resize((width * detail, height * detail), area, (left, top, right, bottom)))
    return _keep_strokes(fine, mean, detail)


def to_png(pixels: Pixels) -> bytes:
    """The pixels (H, W, 3) as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def from_png(data: bytes, size: tuple[int, int] | None = None) -> Pixels:
    """The pixels (H, W, 3) of a PNG file; SourceError if it is none, or not of `size` (height, width)."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            # known before a pixel is decompressed
            if size is not None and image.size != size[::-1]:
                raise SourceError(f"a picture is {image.size[0]}x{image.size[1]}, not {size[1]}x{size[0]}")
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(f"that is no PNG that can be read: {error}") from None


def save_png(path: Path, pixels: Pixels) -> Path:
    """Write a PNG and return where it is: `path`, or beside it with -2, -3, ... if that is taken."""
    return save_bytes(path, to_png(pixels))


def save_bytes(path: Path, data: bytes) -> Path:
    """Write a file beside its place and rename it; never over another. GenieError if it cannot be written."""
    paths.writable(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        path = paths.unused(path)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise GenieError(f"cannot write {path}: {error.strerror}; choose another place") from None
    return path


def enlarge(pixels: Pixels, scale: int) -> Pixels:
    """Each pixel as a square of `scale` x `scale`: (H, W, 3) -> (scale * H, scale * W, 3)."""
    return pixels if scale == 1 else np.repeat(np.repeat(pixels, scale, axis=0), scale, axis=1)


def export_scale(size: tuple[int, int], target: int = 256) -> int:
    """The smallest whole number that gives `target` pixels or more on the long side."""
    return max(1, -(-target // max(size)))


def strip(frames: Sequence[Pixels], columns: int = 12, gap: int = 2) -> Pixels:
    """Frames (H, W, 3) side by side on white, in rows of `columns`, `gap` pixels apart."""
    if not frames:
        raise ValueError("a strip has one frame or more")
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    height, width = frames[0].shape[:2]
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for n, frame in enumerate(frames):
        y, x = n // columns * (height + gap), n % columns * (width + gap)
        sheet[y : y + height, x : x + width] = frame
    return sheet


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise SourceError(f"{path} is a folder; give a picture in it")
    if not path.exists():
        raise SourceError(f"there is no file {path}")
    if not path.is_file():
        raise SourceError(f"{path} is not an ordinary file")
    if path.stat().st_size > LARGEST:
        raise SourceError(f"{path.name} has {path.stat().st_size >> 20} MB, too many for a picture; give a smaller one")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    if not data:
        raise SourceError(f"{path.name} is empty")
    return data


def _decode(data: bytes, size: tuple[int, int], last: int, notes: list[str]) -> list[Image.Image]:
    """The wanted frames, upright and RGB."""
    try:
        return _frames(data, size, last, notes)
    except (Image.DecompressionBombError, UnidentifiedImageError):
        raise
    except Exception:
        # once more, taking what is there; Pillow's switch for that is global, so hold it for a moment only
        with _truncated:
            before = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = True
            try:
                images = _frames(data, size, last, notes)
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = before
        notes.insert(0, "the file is cut short or damaged; this is what can be shown of it")
        return images


def _frames(data: bytes, size: tuple[int, int], last: int, notes: list[str]) -> list[Image.Image]:
    notes.clear()
    with _open(data) as image:
        full = image.size
        count = getattr(image, "n_frames", 1)
        if count == 1:
            # a JPEG is decoded at an eighth of its size or more, if that is still finer than what is needed
            image.draft(image.mode, (size[1] * DETAIL, size[0] * DETAIL))
        first = max(0, count - last) if last else 0
        images: list[Image.Image] = []
        for n in range(first, first + max(1, min(last, count))):
            if n:
                try:
                    image.seek(n)
                    image.load()
                except Exception:
                    if not images:
                        raise
                    notes.append("the file is cut short or damaged; its last frames are missing")
                    break
            images.append(_upright(_plain(image, notes), image, notes))
        if count > 1:
            notes.append(f"an animation of {count} frames; the {'last ' + str(len(images)) if last else 'first'} taken")
        if full[0] * full[1] >= 12_000_000:
            notes.append(f"{full[0] * full[1] / 1e6:.0f} megapixels scaled down")
    return images


@contextlib.contextmanager
def _open(data: bytes) -> Iterator[Image.Image]:
    Image.init()
    with warnings.catch_warnings():
        # Pillow warns from 90 megapixels on and refuses at 180; metadata that is odd is not our business
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            yield image


def _plain(image: Image.Image, notes: list[str]) -> Image.Image:
    """Eight bits of red, green and blue, whatever it was."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float64)
        values = values[np.isfinite(values)] if not np.isfinite(values).all() else values
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        if image.mode.startswith("I") and low >= 0 and high < 1 << 16:
            low, high = 0.0, 65535.0 if high > 255 else 255.0
        scaled = (np.nan_to_num(np.asarray(image, np.float64), nan=low) - low) * (255.0 / max(high - low, 1e-12))
        _note(notes, "many bits reduced to eight")
        return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            _note(notes, "see-through parts laid on white")
            paper = Image.new("RGBA", rgba.size, "white")
            return Image.alpha_composite(paper, rgba).convert("RGB")
        return rgba.convert("RGB")
    if image.mode == "CMYK":
        _note(notes, "printing colours (CMYK) turned into RGB")
    return image.convert("RGB")


def _upright(plain: Image.Image, image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:
        # broken metadata is no reason to refuse a picture
        return plain
    if orientation not in _TURNS:
        return plain
    _note(notes, "turned upright")
    return plain.transpose(_TURNS[orientation])


def _finish(
    images: list[Image.Image],
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None,
    name: str,
    notes: list[str],
) -> Picture:
    wide, high = images[0].size
    if wide * size[0] != high * size[1] and box is None:
        left, top, right, bottom = _crop(images[0].size, size)
        if (right - left) * (bottom - top) < 0.98 * wide * high:
            notes.append(f"cropped to the middle, {round(right - left)}x{round(bottom - top)} of {wide}x{high}")
    if wide < size[1] or high < size[0]:
        notes.append(f"enlarged from {wide}x{high}")
    return Picture(np.stack([fit(image, size, box) for image in images]), name, notes)


def _note(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)


def _crop(have: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest middle part of (width, height) `have` in the shape of (height, width) `size`."""
    scale = min(have[0] / size[1], have[1] / size[0])
    wide, high = size[1] * scale, size[0] * scale
    left, top = (have[0] - wide) / 2, (have[1] - high) / 2
    return left, top, left + wide, top + high


def _scaled(box: tuple[float, float, float, float], have: tuple[int, int]) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"a crop box is (left, top, right, bottom) in shares of the picture, not {box}")
    return left * have[0], top * have[1], right * have[0], bottom * have[1]


def _keep_strokes(fine: Pixels, mean: Pixels, detail: int) -> Pixels:
    """`mean` with thin strokes made stronger, if `fine` (detail times as large) is a drawing."""
    height, width = mean.shape[:2]
    paper = np.median(fine[:: max(1, detail // 4), :: max(1, detail // 4)].reshape(-1, 3), axis=0).astype(np.float32)
    off = np.abs(fine - paper).max(axis=-1)  # (H * detail, W * detail): how far from the paper
    if (off <= PAPER_NEAR).mean() < PAPER_SHARE:
        return mean
    ink = off.reshape(height, detail, width, detail).max(axis=(1, 3))  # (H, W): the strongest stroke inside
    drawn = mean - paper
    share = np.abs(drawn).max(axis=-1) / np.maximum(ink, 1.0)
    gain = np.where(ink > PAPER_NEAR, np.clip(share, 1e-3, 1.0) ** (INK - 1.0), 1.0)
    kept: Pixels = np.clip(np.rint(paper + drawn * gain[..., None]), 0, 255).astype(np.uint8)
    return kept


def _starts_like(data: bytes) -> str:
    head = data[:64].lstrip().lower()
    for start, what in _STARTS:
        if head.startswith(start.lower()):
            return f"it starts like {what}"
    if data[4:8] == b"ftyp":
        return "it starts like " + ("a HEIC photo" if data[8:12] in (b"heic", b"heix", b"mif1") else "an MP4 video")
    if data[:4] == b"RIFF":
        return "it starts like " + ("an AVI video" if data[8:11] == b"AVI" else "a sound")
    if any(byte < 9 for byte in data[:512]):
        return "it starts like nothing I know"
    return "it starts like text"
