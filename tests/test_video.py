"""A folder of videos as a source: read at the world's rate and size, the same for the same step, and hard to upset."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image, features

from genie_play.data import video
from genie_play.data.clips import Source
from genie_play.data.video import FolderSource, write_clip
from genie_play.types import SourceError

SIZE = (24, 32)


def numbered(n: int, mark: int = 0, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Frames that tell which clip (green) and which moment (red) they are."""
    frames = []
    for t in range(n):
        frame = np.zeros((*size, 3), np.uint8)
        frame[..., 0], frame[..., 1] = 2 * t, mark
        frame[: size[0] // 2, :, 2] = 200
        frames.append(frame)
    return frames


def times(clip: np.ndarray) -> list[int]:
    return [round(int(frame[0, 0, 0]) / 2) for frame in clip]


def save(path, frames, durations) -> None:
    images = [Image.fromarray(frame) for frame in frames]
    options = {".webp": {"lossless": True}, ".gif": {}}.get(path.suffix, {"format": "PNG"})
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, **options)


def folder(tmp_path, clips: int = 3, frames: int = 20):
    for n in range(clips):
        write_clip(tmp_path / f"clip{n}", numbered(frames, mark=40 * n))
    return tmp_path


def test_a_folder_of_frame_folders(tmp_path):
    source: Source = FolderSource(folder(tmp_path), SIZE, seed=5)
    assert source.fps == 10.0
    assert source.size == SIZE
    batch = source.batch(0, 6, 4)
    assert batch.shape == (6, 4, 24, 32, 3)
    assert batch.dtype == np.uint8
    for clip in batch:
        start = times(clip)[0]
        assert times(clip) == list(range(start, start + 4))
        assert len(np.unique(clip[..., 1])) == 1
    assert len(source) == 3
    assert source.skipped == 0


def test_a_batch_depends_on_seed_and_step_alone(tmp_path, monkeypatch):
    folder(tmp_path, clips=5)
    source = FolderSource(tmp_path, SIZE, seed=5)
    expected = [source.batch(step, 3, 4) for step in range(70)]
    fresh = FolderSource(tmp_path, SIZE, seed=5)
    monkeypatch.setattr(video, "CACHE", 1)  # what is kept in memory must not matter
    for step in (69, 3, 0, 40, 3):
        assert np.array_equal(fresh.batch(step, 3, 4), expected[step])
    assert not np.array_equal(expected[0], expected[1])
    assert not np.array_equal(FolderSource(tmp_path, SIZE, seed=6).batch(0, 3, 4), expected[0])


def test_every_clip_and_moment_comes_up(tmp_path):
    source = FolderSource(folder(tmp_path, clips=4, frames=12), SIZE)
    seen = set()
    for step in range(40):
        for clip in source.batch(step, 8, 4):
            seen.add((int(clip[0, 0, 0, 1]), times(clip)[0]))
    # 320 draws of 36 windows; each is missed with odds of about 1 in 8000
    assert len(seen) >= 34


def test_more_clips_than_slots(tmp_path):
    assert FolderSource(folder(tmp_path), SIZE).batch(0, 150, 2).shape[0] == 150


def test_numbers_sort_as_numbers(tmp_path):
    (tmp_path / "clip").mkdir()
    for t, frame in enumerate(numbered(12)):
        Image.fromarray(frame).save(tmp_path / "clip" / f"frame{t}.png")
    assert times(FolderSource(tmp_path, SIZE).batch(0, 1, 12)[0]) == list(range(12))


def test_pictures_in_the_folder_itself_are_a_clip(tmp_path):
    for t, frame in enumerate(numbered(5)):
        Image.fromarray(frame).save(tmp_path / f"{t}.bmp")
    assert times(FolderSource(tmp_path, SIZE).batch(0, 1, 5)[0]) == list(range(5))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng", ".png"])
def test_animations_by_their_own_time(tmp_path, suffix):
    if suffix == ".webp" and not features.check("webp"):
        pytest.skip("this Pillow was built without WebP")
    # 30 frames of 50 ms are 15 ticks of 100 ms; what is shown in the middle of a tick is taken
    save(tmp_path / f"a{suffix}", numbered(30), 50)
    clip = FolderSource(tmp_path, SIZE).batch(0, 1, 15)[0]
    assert np.abs(np.array(times(clip)) - np.arange(1, 31, 2)).max() <= 1
    assert (np.diff(times(clip)) > 0).all()
    save(tmp_path / f"b{suffix}", numbered(5), [300, 100, 200, 100, 300])
    clip = FolderSource(tmp_path / f"b{suffix}", SIZE).batch(0, 1, 10)[0]
    assert np.abs(np.array(times(clip)) - [0, 0, 0, 1, 2, 2, 3, 4, 4, 4]).max() == 0
    with pytest.raises(SourceError, match=r"no clip in .* has 11 frames"):
        FolderSource(tmp_path / f"b{suffix}", SIZE).batch(0, 1, 11)


def test_size_is_fitted(tmp_path):
    rng = np.random.default_rng(0)
    big = [rng.integers(0, 255, (90, 160, 3), np.uint8) for _ in range(3)]
    write_clip(tmp_path / "clip", big)
    batch = FolderSource(tmp_path, (45, 60)).batch(0, 1, 3)
    expected = big[0][:, 20:140].reshape(45, 2, 60, 2, 3).mean(axis=(1, 3))
    assert np.abs(batch[0, 0] - expected).max() <= 1


@pytest.mark.parametrize("name", ["clip", "clip.webp", "clip.apng"])
def test_what_is_written_is_read_back(tmp_path, name):
    frames = numbered(6)
    frames[3] = frames[2]  # equal neighbours keep their time
    written = write_clip(tmp_path / name, frames, 12)
    assert written == tmp_path / name
    assert np.array_equal(FolderSource(tmp_path, SIZE, rate=12).batch(0, 1, 6)[0], np.stack(frames))
    assert write_clip(tmp_path / name, frames, 12) != written
    with pytest.raises(ValueError, match="one frame"):
        write_clip(tmp_path / "none", [])


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path, caplog):
    folder(tmp_path, clips=1)
    (tmp_path / "broken.gif").write_bytes(b"GIF89a nothing")
    (tmp_path / "notes.txt").write_text("not a video")
    (tmp_path / ".hidden.gif").write_bytes(b"no")
    save(tmp_path / "tiny.gif", numbered(4, size=(4, 4)), 100)
    save(tmp_path / "still.gif", numbered(1), 100)
    whole = tmp_path / "cut.gif"
    save(whole, numbered(20, mark=240), 100)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    mixed = tmp_path / "mixed"
    write_clip(mixed, numbered(10, mark=160))
    Image.new("RGB", (9, 9)).save(mixed / "00004.png")
    (mixed / "00007.png").write_bytes(b"\x89PNG broken")
    source = FolderSource(tmp_path, SIZE)
    assert len(source) == 3
    assert source.skipped == 3
    marks = set()
    for step in range(20):
        for clip in source.batch(step, 8, 4):
            marks.add(int(clip[0, 0, 0, 1]))
            assert times(clip) == sorted(times(clip))
    assert {mark // 80 for mark in marks} == {0, 2, 3}  # also what is left of the cut and the mixed one
    assert source.skipped == 5
    assert len(caplog.records) == 1
    assert "3 files left out so far" in caplog.text
    assert source.left_out == {
        tmp_path / "broken.gif": "unreadable",
        tmp_path / "tiny.gif": "smaller than 8 pixels",
        tmp_path / "still.gif": "a single picture",
        mixed / "00004.png": "9x9 in a folder of 32x24",
        mixed / "00007.png": "unreadable",
    }
    for name, why in (("broken.gif", "unreadable"), ("tiny.gif", "smaller than 8 pixels"), ("still.gif", "a single")):
        assert f"{name} ({why}" in caplog.text


def test_of_many_that_are_left_out_a_few_are_named(tmp_path):
    for n in range(7):
        (tmp_path / f"{n}.gif").write_bytes(b"GIF89a nothing")
    with pytest.raises(SourceError, match=r"none of the 7 files in .*: 0.gif \(unreadable\), 1.gif .* and 4 more$"):
        FolderSource(tmp_path, SIZE)


def test_nothing_to_read_says_so(tmp_path):
    with pytest.raises(SourceError, match="there is no"):
        FolderSource(tmp_path / "none", SIZE)
    with pytest.raises(SourceError, match="no video in"):
        FolderSource(tmp_path, SIZE)
    (tmp_path / "a.gif").write_bytes(b"GIF89a nothing")
    with pytest.raises(SourceError, match="none of the 1 files"):
        FolderSource(tmp_path, SIZE)


def test_a_clip_that_breaks_later_is_passed_over(tmp_path):
    folder(tmp_path, clips=2, frames=8)
    source = FolderSource(tmp_path, SIZE)
    for file in (tmp_path / "clip0").iterdir():
        file.unlink()
    for step in range(10):
        assert (source.batch(step, 4, 4)[..., 1] == 40).all()
    for file in (tmp_path / "clip1").iterdir():
        file.unlink()
    source._cache.clear()
    with pytest.raises(SourceError, match="no clip in"):
        source.batch(0, 4, 4)


def test_videos_without_pyav(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"....ftyp")
    with pytest.raises(SourceError, match=r"need PyAV: pip install 'genie-play\[video\]'"):
        FolderSource(tmp_path, SIZE)
    folder(tmp_path)
    source = FolderSource(tmp_path, SIZE)
    assert source.skipped == 1
    assert "1 need PyAV" in caplog.text
    assert source.batch(0, 2, 2).shape[0] == 2


def test_videos_with_pyav(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    from genie_play.media.recorder import open_recorder

    recorder = open_recorder(tmp_path / "a.mp4", 20, scale=4)
    for frame in numbered(100):
        recorder.add(frame)
    recorder.close()
    source = FolderSource(tmp_path, SIZE)
    clip = source.batch(0, 1, 48)[0]
    assert np.abs(np.diff(times(clip)) - 2).max() <= 1
    with pytest.raises(SourceError, match="no clip"):
        source.batch(0, 1, 60)
