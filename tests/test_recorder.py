"""Recordings: the time is exact, the colours are right, and what is on disk is whole at every moment."""

from __future__ import annotations

import errno
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from genie_play.media import recorder
from genie_play.media.recorder import GifWriter, open_recorder, read_timing
from genie_play.types import GenieError

SIZE = (24, 40)


def scene(n: int, size: tuple[int, int] = SIZE, seed: int = 0, flicker: int = 3) -> list[np.ndarray]:
    """A landscape that scrolls, with a little noise as a decoder makes it: (H, W, 3) each."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, : width + 4 * n]
    hill = height * (0.6 + 0.2 * np.sin(x / 9.0) * np.cos(x / 23.0))
    sky = np.stack([90 + y * 3, 140 + y * 2, 235 - y], axis=-1)
    ground = np.stack([60 + 40 * np.sin(x / 3), 150 - 2 * y, 40 + 0 * y], axis=-1)
    world = np.where((y > hill)[..., None], ground, sky)
    frames = []
    for i in range(n):
        shown = world[:, 4 * i : 4 * i + width] + rng.integers(-flicker, flicker + 1, (height, width, 3))
        frames.append(np.clip(shown, 0, 255).astype(np.uint8))
    return frames


def decoded(path: Path, scale: int) -> list[np.ndarray]:
    with Image.open(path) as image:
        frames = []
        for n in range(image.n_frames):
            image.seek(n)
            frames.append(np.array(image.convert("RGB"))[scale // 2 :: scale, scale // 2 :: scale])
    return frames


def pillow_timing(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        total = 0
        for n in range(image.n_frames):
            image.seek(n)
            image.load()
            total += round(image.info.get("duration", 0) / 10)
        return image.n_frames, total


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9)))


def record(path: Path, frames: list[np.ndarray], seconds: float | None = None, **options) -> GifWriter:
    writer = GifWriter(path, SIZE, options.pop("scale", 1), options.pop("palette_frames", ()), **options)
    for frame in frames:
        writer.add(frame, seconds)
    assert writer.close() == writer.path
    assert writer.problem is None
    return writer


@pytest.mark.parametrize("fps", [8, 12, 15, 24, 30, 50])
def test_time_is_exact(tmp_path, fps):
    writer = GifWriter(tmp_path / "a.gif", SIZE, 1)
    delays = []
    for n, frame in enumerate(scene(49), start=1):
        writer.add(frame, 1 / fps)
        # at every moment, not only at the end
        assert abs(read_timing(writer.path)[1] - 100 * n / fps) <= 0.5 + 1e-6
        delays.append(writer._delay)
    assert set(delays) <= {100 // fps, -(-100 // fps)}
    writer.close()
    assert pillow_timing(writer.path) == read_timing(writer.path) == (49, round(4900 / fps))


def test_33_ticks_at_rate_10(tmp_path):
    writer = open_recorder(tmp_path / "a.gif", 10)
    for frame in scene(33):
        writer.add(frame)
    path = writer.close()
    assert pillow_timing(path) == (33, 330)
    with Image.open(path) as image:
        assert image.size == (280, 168)  # 7 times: the first to reach 256
        assert image.info["loop"] == 0
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    asked = "-v error -select_streams v -count_frames -show_entries stream=nb_read_frames,duration -of csv=p=0"
    said = subprocess.run(["ffprobe", *shlex.split(asked), path], capture_output=True, text=True, check=True)
    assert said.stderr == ""
    duration, count = said.stdout.strip().split(",")
    assert int(count) == 33
    assert float(duration) == pytest.approx(3.3, abs=0.01)


def test_gifsicle_finds_nothing_to_complain_about(tmp_path):
    if shutil.which("gifsicle") is None:
        pytest.skip("gifsicle is not installed")
    for hold in (0, 8):
        writer = record(tmp_path / f"{hold}.gif", scene(12) + scene(12, seed=1), 0.1, hold=hold, scale=2)
        said = subprocess.run(["gifsicle", "--info", writer.path], capture_output=True, text=True, check=True)
        assert said.stderr == ""
        assert f"{writer.frames} images" in said.stdout
        assert "loop forever" in said.stdout
        assert "warning" not in said.stdout


def test_too_fast_drops_frames_not_time(tmp_path):
    writer = record(tmp_path / "a.gif", scene(100), 1 / 100)
    frames, hundredths = pillow_timing(writer.path)
    assert hundredths == 100
    assert 30 <= frames <= 50
    writer = record(tmp_path / "b.gif", scene(3), 0.001)
    assert pillow_timing(writer.path)[1] <= 2


def test_equal_frames_are_one_and_last_as_long(tmp_path):
    a, b = scene(2)
    writer = record(tmp_path / "a.gif", [a, a, a, b, b, a], 1 / 12)
    assert pillow_timing(writer.path) == (3, 50)
    writer = record(tmp_path / "b.gif", [a] * 7, 1 / 12)
    assert pillow_timing(writer.path) == (1, 58)


def test_long_stills_keep_their_time(tmp_path):
    a, b = scene(2)
    writer = record(tmp_path / "a.gif", [a] * 250 + [b], 0.1)
    assert pillow_timing(writer.path) == (4, 2510)
    shown = decoded(writer.path, 1)
    assert np.array_equal(shown[0], shown[2])
    writer = record(tmp_path / "b.gif", [a, b], 1000.0)
    assert pillow_timing(writer.path)[1] == 200_000
    writer = record(tmp_path / "c.gif", [a, b], 1000.0, longest=0.5)
    assert pillow_timing(writer.path) == (2, 100)


def test_colours_are_close(tmp_path):
    frames = scene(40)
    for given in ((), frames[:8]):
        writer = record(tmp_path / "a.gif", frames, 0.1, palette_frames=given, scale=3)
        quality = [psnr(a, b) for a, b in zip(frames, decoded(writer.path, 3), strict=True)]
        assert min(quality) > 36
        assert np.mean(quality) > 38


def test_few_colours_are_exact(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (40, 3), np.uint8)
    frames = [colours[rng.integers(0, 40, SIZE)] for _ in range(5)]
    writer = record(tmp_path / "a.gif", frames, 0.1, palette_frames=frames)
    assert all(np.array_equal(a, b) for a, b in zip(frames, decoded(writer.path, 1), strict=True))


def test_a_world_that_changes_colour_brings_a_palette(tmp_path):
    day = scene(10)
    night = [255 - np.roll(frame // 2, 1, axis=-1) for frame in scene(10, seed=3)]
    writer = record(tmp_path / "a.gif", day + night, 0.1)
    quality = [psnr(a, b) for a, b in zip(day + night, decoded(writer.path, 1), strict=True)]
    assert min(quality) > 35
    tables = sum(1 for local in local_tables(writer.path) if local)
    assert 1 <= tables <= 12


def local_tables(path: Path) -> list[bool]:
    data, found = path.read_bytes(), []
    at = recorder._after_table(data, 13, data[10])
    while data[at] != 0x3B:
        if data[at] == 0x21:
            at = recorder._after_blocks(data, at + 2)
        else:
            found.append(bool(data[at + 9] & 0x80))
            at = recorder._after_blocks(data, recorder._after_table(data, at + 10, data[at + 9]) + 1)
    return found


def test_hold_makes_it_small(tmp_path):
    still = [np.clip(scene(1)[0] + np.random.default_rng(i).integers(-3, 4, (*SIZE, 3)), 0, 255) for i in range(30)]
    frames = [frame.astype(np.uint8) for frame in still]
    for i, frame in enumerate(frames):
        frame[4:8, i : i + 4] = (250, 30, 30)
    faithful = record(tmp_path / "a.gif", frames, 0.1)
    small = record(tmp_path / "b.gif", frames, 0.1, hold=10)
    assert small.path.stat().st_size * 2 < faithful.path.stat().st_size
    assert pillow_timing(small.path) == (30, 300)
    assert min(psnr(a, b) for a, b in zip(frames, decoded(small.path, 1), strict=True)) > 32


def test_names_are_never_taken_twice(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"mine")
    assert record(tmp_path / "a.gif", scene(2), 0.1).path.name == "a-2.gif"
    assert (tmp_path / "a.gif").read_bytes() == b"mine"
    assert GifWriter(tmp_path / "none.gif", SIZE).close() is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-2.gif", "a.gif"]


def test_wrong_frames_are_a_value_error(tmp_path):
    writer = GifWriter(tmp_path / "a.gif", SIZE)
    with pytest.raises(ValueError, match="uint8"):
        writer.add(np.zeros((8, 8, 3), np.uint8), 0.1)
    with pytest.raises(ValueError, match="uint8"):
        writer.add(np.zeros((*SIZE, 3)), 0.1)
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.add(scene(1)[0], 0.1)


def test_frames_are_not_kept_by_reference(tmp_path):
    writer = GifWriter(tmp_path / "a.gif", SIZE, 1)
    frame = scene(1)[0]
    first = frame.copy()
    writer.add(frame, 0.1)
    frame[:] = 0
    writer.add(frame, 0.1)
    assert psnr(decoded(writer.close(), 1)[0], first) > 36


def test_the_same_frames_give_the_same_file(tmp_path):
    a = record(tmp_path / "a.gif", scene(6), 0.1)
    b = record(tmp_path / "b.gif", scene(6), 0.1)
    assert a.path.read_bytes() == b.path.read_bytes()


class Disk:
    """A file on a disk that fills up after `room` bytes, in the middle of a write."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room, self.end = file, room, file.seek(0, 2)

    def write(self, data) -> int:
        # what lies inside the file already takes no new room
        inside = max(0, self.end - self.file.tell())
        taken = self.file.write(bytes(data)[: inside + self.room])
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= max(0, taken - inside)
        self.end = max(self.end, self.file.tell())
        return taken

    def __getattr__(self, name: str):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 1, 50, 2000])
def test_a_full_disk_leaves_a_whole_file(tmp_path, caplog, room):
    frames = scene(20)
    writer = GifWriter(tmp_path / "a.gif", SIZE, 1)
    for frame in frames[:5]:
        writer.add(frame, 0.1)
    writer._file = Disk(writer._file, room)
    for frame in frames[5:]:
        writer.add(frame, 0.1)
    assert "No space left" in (writer.problem or "")
    assert len(caplog.records) == 1
    assert writer.close() == tmp_path / "a.gif"
    frames, hundredths = pillow_timing(writer.path)
    assert frames >= 5
    assert (frames, hundredths) == (writer.frames, round(writer.seconds * 100))
    assert writer.path.read_bytes().endswith(b";")


def test_a_folder_that_cannot_be_written_is_said_before_it_starts(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GenieError, match="folder"):
        open_recorder(tmp_path / "file" / "a.gif")
    writer = GifWriter(tmp_path / "file" / "a.gif", SIZE)
    writer.add(scene(1)[0], 0.1)
    assert writer.problem is not None
    assert writer.close() is None


KILLED = """
import sys
from pathlib import Path
import numpy as np
from genie_play.media.recorder import GifWriter
rng = np.random.default_rng(0)
writer = GifWriter(Path(sys.argv[1]), (24, 40), 4)
while True:
    writer.add(rng.integers(0, 255, (24, 40, 3), np.uint8), 0.1)
    sys.stdout.write("x")
    sys.stdout.flush()
"""


def test_killed_at_any_moment_it_opens(tmp_path):
    odds = random.Random(7)
    children = []
    for n in range(5):
        path = tmp_path / f"{n}.gif"
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.read(1)
        time.sleep(odds.random() * 0.15)
        child.send_signal(signal.SIGKILL)
        children.append((path, 1 + len(child.stdout.read())))
        child.wait()
        child.stdout.close()
    for path, told in children:
        frames, hundredths = pillow_timing(path)
        assert frames >= told >= 1
        assert hundredths == 10 * frames
        for tool in (["gifsicle", "--info", path], ["ffprobe", "-v", "error", path]):
            if shutil.which(tool[0]):
                subprocess.run(tool, capture_output=True, check=True)


def test_every_byte_between_two_frames_is_a_whole_gif(tmp_path):
    """Whatever part of the writes has reached the disk, in their order."""
    writer = GifWriter(tmp_path / "a.gif", SIZE, 1)
    states: list[bytes] = []
    first, second = scene(2)
    writer.add(first, 0.1)
    before = writer.path.read_bytes()
    put = recorder._put

    def slow(file, at: int, data: bytes) -> None:
        for end in range(0, len(data) + 1, 37):
            image = bytearray(before.ljust(at + end, b"\0"))
            image[at : at + end] = data[:end]
            states.append(bytes(image))
        put(file, at, data)

    recorder._put = slow
    try:
        writer.add(second, 0.1)
    finally:
        recorder._put = put
        writer.close()
    assert len(states) > 10
    for state in states:
        (tmp_path / "part.gif").write_bytes(state)
        assert read_timing(tmp_path / "part.gif") == (1, 10)
    assert read_timing(writer.path) == (2, 20)


def test_cut_files_are_told(tmp_path):
    writer = record(tmp_path / "a.gif", scene(3), 0.1)
    data = writer.path.read_bytes()
    for cut in (3, 12, 200, len(data) - 1):
        (tmp_path / "cut.gif").write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"cut short|no GIF"):
            read_timing(tmp_path / "cut.gif")


def test_a_strip_and_a_folder(tmp_path):
    frames = scene(14)
    for name in ("a.png", "folder", "folder"):
        writer = open_recorder(tmp_path / name, 10)
        assert writer.close() is None
        for frame in frames:
            writer.add(frame)
        assert writer.close() == writer.close() != None  # noqa: E711
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (12 * 42 - 2, 2 * 26 - 2)
        assert np.array_equal(np.array(image)[26:50, 42:82], frames[13])
    for name in ("folder", "folder-2"):
        files = sorted((tmp_path / name).iterdir())
        assert [file.name for file in files] == [f"{n:05d}.png" for n in range(14)]
        with Image.open(files[5]) as image:
            assert np.array_equal(np.array(image), frames[5])


@pytest.mark.parametrize("suffix", [".webp", ".apng"])
def test_animations_without_loss(tmp_path, suffix):
    if suffix == ".webp" and not features.check("webp"):
        pytest.skip("this Pillow was built without WebP")
    frames = scene(9)
    writer = open_recorder(tmp_path / f"a{suffix}", 15, scale=2)
    for frame in frames:
        writer.add(frame)
    path = writer.close()
    total = 0.0
    with Image.open(path) as image:
        assert image.n_frames == 9
        for n, frame in enumerate(frames):
            image.seek(n)
            image.load()
            total += image.info["duration"]
            assert np.array_equal(np.array(image.convert("RGB"))[::2, ::2], frame)
    assert total == pytest.approx(600, abs=1)


def test_what_cannot_be_recorded_says_what_can(tmp_path, monkeypatch):
    with pytest.raises(GenieError, match=r"cannot record to \.avi; use \.gif, "):
        open_recorder(tmp_path / "a.avi")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(GenieError, match=r"genie-play\[video\]"):
        open_recorder(tmp_path / "a.mp4")


def test_video(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    writer = open_recorder(tmp_path / "a.mp4", 12)
    frames = scene(24)
    for frame in frames:
        writer.add(frame)
    path = writer.close()
    import av

    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == 24
    assert psnr(shown[3][3::7, 3::7], frames[3]) > 25
