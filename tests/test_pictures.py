"""Any picture file as a prompt: what is odd is put right and said, what is no picture says what it looks like."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFile

from genie_play.media import pictures
from genie_play.types import GenieError, SourceError

SIZE = (24, 32)
RED, GREEN, BLUE = (220, 30, 20), (20, 200, 40), (30, 40, 210)


def quarters(width: int = 64, height: int = 48) -> Image.Image:
    """Red, green over blue, white: which way is up can be told."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 2 - 1, height // 2 - 1), RED)
    draw.rectangle((width // 2, 0, width, height // 2 - 1), GREEN)
    draw.rectangle((0, height // 2, width // 2 - 1, height), BLUE)
    return image


def data(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corners(pixels: np.ndarray) -> np.ndarray:
    return pixels[[3, 3, -4], [3, -4, 3]].astype(int)


def like(pixels: np.ndarray, tolerance: int = 12) -> bool:
    return bool(np.abs(corners(pixels) - np.array([RED, GREEN, BLUE])).max() <= tolerance)


KINDS = [
    ("PNG", {}), ("JPEG", {"quality": 95}), ("GIF", {}), ("WEBP", {"quality": 95}), ("BMP", {}), ("TIFF", {}),
    ("PPM", {}), ("TGA", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PNG", {"interlace": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_kinds_of_files(tmp_path, kind, options):
    path = tmp_path / "a.bin"  # the suffix does not matter
    path.write_bytes(data(quarters(), kind, **options))
    found = pictures.load(path, SIZE)
    assert found.pixels.shape == (24, 32, 3)
    assert found.pixels.dtype == np.uint8
    assert like(found.pixels)
    assert found.notes == []
    assert found.prompt.pictures.shape == (1, 24, 32, 3)
    assert found.source == "a.bin"


def modes() -> dict[str, tuple[bytes, str]]:
    """name -> a file of that kind, what must be said of it."""
    clear = quarters().convert("RGBA")
    clear.paste((255, 0, 255, 0), (32, 24, 64, 48))
    half = Image.new("LA", (64, 48), (0, 0))
    palette = quarters().convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    deep = np.repeat(np.linspace(0, 65535, 64)[None].astype(np.uint16), 48, axis=0)
    return {
        "alpha": (data(clear), "laid on white"),
        "gray alpha": (data(half), "laid on white"),
        "palette": (data(palette), ""),
        "see-through palette": (data(palette, transparency=0), "laid on white"),
        "one bit": (data(quarters().convert("1")), ""),
        "gray": (data(quarters().convert("L")), ""),
        "16 bits": (data(Image.fromarray(deep)), "many bits"),
        "16 bit tiff": (data(Image.fromarray(deep), "TIFF"), "many bits"),
        "float tiff": (data(Image.fromarray(deep.astype(np.float32)), "TIFF"), "many bits"),
        "cmyk": (data(quarters().convert("CMYK"), "JPEG", quality=95), "CMYK"),
    }


@pytest.mark.parametrize("name", modes())
def test_odd_pixels(name):
    file, said = modes()[name]
    found = pictures.load(file, SIZE)
    assert found.pixels.shape == (24, 32, 3)
    assert said in " ".join(found.notes)
    if "alpha" in name:
        assert found.pixels[-4, -4].tolist() == [255, 255, 255]
    if "bit" in name and name != "one bit":
        ramp = found.pixels[12, :, 0].astype(int)
        assert (np.diff(ramp) > 4).all()
        assert ramp[0] < 8
        assert ramp[-1] > 247
    if name in ("alpha", "palette", "cmyk"):
        assert like(found.pixels, 60 if name == "cmyk" else 12)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_rotation(orientation, kind):
    upright = quarters()
    turn = {
        1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4,  # the inverse of what a viewer has to do
    }[orientation]  # fmt: skip
    stored = upright if turn is None else upright.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pictures.load(data(stored, kind, exif=exif, **({"quality": 95} if kind in ("JPEG", "WEBP") else {})), SIZE)
    assert like(found.pixels)
    # Pillow turns a TIFF by itself
    assert ("turned upright" in found.notes) == (orientation > 1 and kind != "TIFF")


def test_broken_exif_is_no_reason():
    assert like(pictures.load(data(quarters(), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), SIZE).pixels)


def animation(n: int = 5) -> bytes:
    frames = [Image.new("RGB", (64, 48), (40 * i, 10, 10)) for i in range(n)]
    return data(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)


def test_animations():
    found = pictures.load(animation(), SIZE)
    assert found.pictures.shape == (1, 24, 32, 3)
    assert found.pixels[0, 0, 0] < 10
    assert found.notes == ["an animation of 5 frames; the first taken"]
    found = pictures.load(animation(), SIZE, last=3)
    assert [int(p[0, 0, 0]) for p in found.pictures] == pytest.approx([80, 120, 160], abs=4)
    assert pictures.load(animation(2), SIZE, last=9).pictures.shape[0] == 2
    cut = animation()
    assert pictures.load(cut[: len(cut) * 3 // 4], SIZE).pixels[0, 0, 0] < 10


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_cut_short(kind):
    rng = np.random.default_rng(0)
    noisy = Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8))
    noisy.paste(RED, (0, 0, 64, 12))
    noisy.paste(RED, (0, 36, 64, 48))
    file = data(noisy, kind)
    found = pictures.load(file[: len(file) * 2 // 3], SIZE)
    row = -3 if kind == "BMP" else 2  # a BMP begins at the bottom
    assert np.abs(found.pixels[row, 3:-3].astype(int) - RED).max() < 30
    assert "cut short" in found.notes[0]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_damaged_chunk_is_looked_past():
    file = bytearray(data(quarters()))
    file[-8] ^= 0xFF  # IEND's checksum
    file[file.index(b"IDAT") + 40] ^= 0xFF
    assert "cut short or damaged" in pictures.load(bytes(file), SIZE).notes[0]


def test_forty_megapixels(tmp_path):
    path = tmp_path / "big.jpg"
    quarters().resize((7296, 5472), Image.Resampling.NEAREST).save(path, quality=80)
    found = pictures.load(path, SIZE)
    assert like(found.pixels, 20)
    assert found.notes == ["40 megapixels scaled down"]


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused():
    with pytest.raises(SourceError, match="million pixels; make it smaller"):
        pictures.load(png_that_claims(100_000, 100_000), SIZE)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"PK\x03\x04rest of it", "starts like a ZIP"),
        (b"%PDF-1.7 and so on", "starts like a PDF"),
        (b"\x7fELF\x02\x01", "a program"),
        (b"\x00\x00\x00\x20ftypisom", "an MP4 video"),
        (b"\x00\x00\x00\x20ftypheic", "a HEIC photo"),
        (b"RIFF\x24\x00\x00\x00AVI LIST", "an AVI video"),
        (b"\x1aE\xdf\xa3", "Matroska"),
        (b'{"gplay":1}', "a replay"),
        (b"  <!DOCTYPE html>", "a web page"),
        (b"<svg xmlns=''/>", "an SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"hello there", "starts like text"),
        (bytes(range(40)), "nothing I know"),
    ],
)
def test_what_is_no_picture_says_what_it_looks_like(tmp_path, file, says):
    path = tmp_path / "thing.png"
    path.write_bytes(file)
    with pytest.raises(SourceError, match=r"^thing\.png is not a picture I can read") as caught:
        pictures.load(path, SIZE)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path):
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("empty.png", "empty"), ("none.png", "no file"), ("", "folder"), ("pipe", "not an ordinary")):
        with pytest.raises(SourceError, match=says):
            pictures.load(tmp_path / name, SIZE)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", ""]))
def test_no_bytes_bring_it_down(noise, kind):
    file = data(quarters(), kind) if kind else b""
    cut = len(noise) * len(file) // 300
    with contextlib.suppress(SourceError):
        assert pictures.load(file[:cut] + noise + file[cut + len(noise) :], SIZE).pixels.shape == (24, 32, 3)


def test_pixels_and_pasted_bytes():
    assert like(pictures.load(np.array(quarters()), SIZE).pixels)
    assert pictures.load(np.zeros((48, 64), np.uint8), SIZE).pixels.max() == 0
    assert pictures.load(np.zeros((48, 64, 4), np.uint8), SIZE).pixels.min() == 255
    assert like(pictures.load(data(quarters()), SIZE).pixels)
    with pytest.raises(SourceError, match="what was pasted is not a picture"):
        pictures.load(b"nothing", SIZE)
    with pytest.raises(ValueError, match="uint8"):
        pictures.load(np.zeros((4, 4, 3)), SIZE)


def test_crop_and_fit():
    wide = Image.new("RGB", (96, 24), "black")
    wide.paste(RED, (32, 0, 64, 24))
    found = pictures.load(np.array(wide), SIZE)
    assert (np.abs(found.pixels.astype(int) - RED) < 3).all()
    assert found.notes == ["cropped to the middle, 32x24 of 96x24"]
    left = pictures.load(np.array(wide), SIZE, box=(0, 0, 1 / 3, 1))
    assert left.pixels.max() == 0
    with pytest.raises(ValueError, match="crop box"):
        pictures.load(np.array(wide), SIZE, box=(0.5, 0, 0.2, 1))
    exact = np.random.default_rng(1).integers(0, 255, (24, 32, 3), np.uint8)
    assert np.array_equal(pictures.load(exact, SIZE).pixels, exact)
    small = exact[:12, :16]
    doubled = pictures.load(small, SIZE)
    assert np.array_equal(doubled.pixels, small.repeat(2, 0).repeat(2, 1))
    assert doubled.notes == ["enlarged from 16x12"]
    assert pictures.load(exact[:7, :5], SIZE).pixels.shape == (24, 32, 3)
    assert pictures.load(exact[:1, :1], SIZE).pixels.shape == (24, 32, 3)


@pytest.mark.parametrize(("ink", "paper"), [("black", "white"), ("white", "#102040"), ("#c02020", "#fff8e0")])
def test_thin_strokes_survive(ink, paper):
    image = Image.new("RGB", (512, 384), paper)
    ImageDraw.Draw(image).line((0, 200, 511, 200), ink, 1)  # one pixel in sixteen
    full = np.abs(np.array(Image.new("RGB", (1, 1), ink)).astype(int) - np.array(Image.new("RGB", (1, 1), paper)))
    found = pictures.load(np.array(image), SIZE).pixels.astype(int)
    kept = np.abs(found[12] - found[2]).max(axis=-1) / full.max()
    assert (kept > 0.25).all()  # averaging keeps 0.06
    assert (found[[5, 20]] == found[2, 2]).all()  # the paper stays clean


def test_photographs_are_averaged():
    noise = np.random.default_rng(2).integers(0, 255, (240, 320, 3), np.uint8)
    found = pictures.load(noise, SIZE).pixels
    mean = noise.reshape(24, 10, 32, 10, 3).mean(axis=(1, 3))
    assert np.abs(found - mean).max() <= 1


def test_png_out_and_in(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 255, (24, 32, 3), np.uint8)
    assert np.array_equal(pictures.from_png(pictures.to_png(pixels)), pixels)
    first = pictures.save_png(tmp_path / "new" / "a.png", pixels)
    second = pictures.save_png(tmp_path / "new" / "a.png", pixels // 2)
    assert [first.name, second.name] == ["a.png", "a-2.png"]
    assert np.array_equal(pictures.from_png(first.read_bytes()), pixels)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a-2.png", "a.png"]
    with pytest.raises(SourceError, match="no PNG"):
        pictures.from_png(b"nonsense")
    (tmp_path / "file").touch()
    with pytest.raises(GenieError, match="folder"):
        pictures.save_png(tmp_path / "file" / "a.png", pixels)


def test_strips_and_scales():
    frames = [np.full((24, 32, 3), i, np.uint8) for i in range(5)]
    sheet = pictures.strip(frames, columns=3, gap=2)
    assert sheet.shape == (24 * 2 + 2, 32 * 3 + 4, 3)
    assert sheet[30, 40].tolist() == [4, 4, 4]
    assert sheet[30, 90].tolist() == [255, 255, 255]
    assert pictures.enlarge(frames[1], 3).shape == (72, 96, 3)
    assert [pictures.export_scale(size) for size in ((64, 64), (24, 32), (90, 160), (512, 300))] == [4, 8, 2, 1]
    with pytest.raises(ValueError, match="one frame"):
        pictures.strip([])
