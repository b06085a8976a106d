"""Batches made ahead by other processes are those of the source, in order; nothing outlives the feed."""

from __future__ import annotations

import os
import pickle
import signal
import time

import numpy as np
import pytest
from PIL import Image

from genie_play.data.clips import PlatformerSource
from genie_play.data.feed import Ahead, auto_workers
from genie_play.data.video import FolderSource, write_clip
from genie_play.types import GenieError, SourceError

SIZE = (24, 32)


class Torn:
    """A source whose film tears at the third batch."""

    fps, size = 10.0, SIZE

    def batch(self, step: int, clips: int, frames: int) -> np.ndarray:
        if step >= 2:
            raise SourceError("the film tore; splice it")
        return np.full((clips, frames, *SIZE, 3), step, np.uint8)


@pytest.fixture
def platformer() -> PlatformerSource:
    return PlatformerSource(SIZE, 3, split="held-out", mix={"sketch": 1.0}, n_looks=4, enemies=True, calm=True)


def test_a_source_that_was_sent_to_another_process_makes_the_same_clips(platformer):
    sent = pickle.loads(pickle.dumps(platformer))
    assert np.array_equal(sent.batch(5, 3, 4), platformer.batch(5, 3, 4))
    assert len(pickle.dumps(platformer)) < 10_000  # not the wardrobe


def test_a_look_that_a_worker_draws_is_drawn_for_all(platformer):
    platformer.batch(0, 1, 1)
    before = platformer.wardrobe._drawn.copy()
    with Ahead(platformer, 8, 2, workers=2) as ahead:
        for _ in range(4):
            ahead.take()
            ahead.free()
    assert before.sum() == 1
    assert platformer.wardrobe._drawn.all()
    alone = PlatformerSource(SIZE, 3, split="held-out", mix={"sketch": 1.0}, n_looks=4, enemies=True, calm=True)
    assert np.array_equal(platformer.batch(9, 8, 2), alone.batch(9, 8, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_and_are_those_of_the_source(platformer, workers):
    with Ahead(platformer, 2, 3, first=7, workers=workers) as ahead:
        for step in range(7, 14):
            assert np.array_equal(ahead.take(), platformer.batch(step, 2, 3)), step
            ahead.free()
    ahead.close()  # twice is fine


def test_what_was_taken_stays_until_it_is_given_back(platformer):
    with Ahead(platformer, 2, 3, workers=2) as ahead:
        held = [ahead.take() for _ in range(4)]  # all the slots there are
        time.sleep(0.3)  # a worker that did not wait would write over them now
        for step, batch in enumerate(held):
            assert np.array_equal(batch, platformer.batch(step, 2, 3)), step
        for _ in held:
            ahead.free()
        assert np.array_equal(ahead.take(), platformer.batch(4, 2, 3))


def test_what_the_source_raises_is_raised_here():
    with Ahead(Torn(), 1, 2, workers=2) as ahead:
        assert [int(ahead.take()[0, 0, 0, 0, 0]) for _ in range(2)] == [0, 1]
        ahead.free(), ahead.free()
        with pytest.raises(SourceError, match="the film tore"):
            ahead.take()


def test_a_worker_that_is_killed_is_missed_and_none_outlives_the_feed(platformer):
    ahead = Ahead(platformer, 1, 2, workers=2)
    children = [child.pid for child in ahead._children]
    ahead.take(), ahead.take()
    os.kill(children[0], signal.SIGKILL)
    ahead.free(), ahead.free()
    with pytest.raises(GenieError, match=r"ended by itself \(code -9\)"):
        [ahead.take() for _ in range(4)]
    ahead.close()
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_files_that_the_workers_leave_out_are_named_once(tmp_path, caplog):
    write_clip(tmp_path / "clip", [np.full((*SIZE, 3), t, np.uint8) for t in range(12)])
    Image.new("RGB", (9, 9)).save(tmp_path / "clip" / "00004.png")
    with Ahead(FolderSource(tmp_path, SIZE), 2, 3, workers=2) as ahead:
        for _ in range(4):
            ahead.take()
            ahead.free()
        assert {file.name for file in ahead.left_out} == {"00004.png"}
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: files left out: clip/00004.png (9x9 in a folder of 32x24)"
    ]


def test_no_workers_where_they_would_hurt():
    assert [auto_workers(cores) for cores in (1, 2, 3, 4, 16, 64)] == [0, 0, 0, 2, 14, 16]
