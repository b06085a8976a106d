"""Batches on the device: those of the source, or cut from a rolling pool, the same at a step however one got there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genie_play.data.clips import PlatformerSource
from genie_play.train.feeder import REUSE, Feeder, Pool, draw, pool_for

SIZE = (24, 32)


class Numbered:
    """Frames that tell which chunk (red), which clip of it (green) and which moment (blue) they are."""

    fps, size = 10.0, SIZE

    def batch(self, step: int, clips: int, frames: int) -> np.ndarray:
        out = np.zeros((clips, frames, *SIZE, 3), np.uint8)
        out[..., 0] = step
        out[..., 1] = np.arange(clips)[:, None, None, None]
        out[..., 2] = np.arange(frames)[:, None, None]
        return out


@pytest.mark.parametrize("workers", [0, 2])
def test_without_a_pool_a_step_sees_the_batch_of_the_source(workers):
    source = PlatformerSource(SIZE, 1, n_looks=4, calm=True)
    with Feeder(source, 2, 3, first=5, workers=workers) as feeder:
        for step in (5, 6, 7):
            assert torch.equal(feeder.take(), torch.from_numpy(source.batch(step, 2, 3)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pool_gives_the_same_batch_at_a_step_however_one_got_there(workers):
    pool = Pool(fresh=3, length=6, depth=4)
    with Feeder(Numbered(), 5, 2, pool=pool, seed=9) as whole:
        unbroken = [whole.take() for _ in range(20)]
    for first in (0, 3, 13):
        with Feeder(Numbered(), 5, 2, first=first, workers=workers, pool=pool, seed=9) as feeder:
            for step in range(first, first + 4):
                assert torch.equal(feeder.take(), unbroken[step]), step
    with Feeder(Numbered(), 5, 2, pool=pool, seed=8) as other:
        assert not torch.equal(other.take(), unbroken[0])


def test_a_pool_rolls_and_its_clips_stay_whole():
    pool = Pool(fresh=3, length=6, depth=4)
    seen = np.zeros(40, int)
    with Feeder(Numbered(), 5, 2, pool=pool) as feeder:
        for step in range(36):
            batch = feeder.take().numpy()[:, :, 0, 0]  # (clips, frames, 3)
            chunk, clip, moment = batch[..., 0], batch[..., 1], batch[..., 2]
            assert ((chunk >= step) & (chunk < step + 4)).all()  # the newest four chunks and nothing else
            assert (chunk[:, 0] == chunk[:, 1]).all()
            assert (clip[:, 0] == clip[:, 1]).all()
            assert (moment[:, 1] == moment[:, 0] + 1).all()
            assert len({(int(c), int(k)) for c, k in zip(chunk[:, 0], clip[:, 0], strict=True)}) == 5
            np.add.at(seen, chunk[:, 0], 1)
    # 20 of 12 clips' worth are drawn while a chunk is there: 5 of its 3 clips on average
    assert 4 < seen[4:32].mean() < 6


def test_every_moment_of_a_clip_is_drawn():
    pool = Pool(fresh=4, length=8, depth=8)
    first = np.concatenate([draw(0, step, 6, 3, pool)[:, 0] % pool.length for step in range(100)])
    # 600 draws of 6 moments: 100 of each on average, 70 or fewer with odds below 1 in 1000
    assert np.bincount(first, minlength=8)[:6].min() > 70
    assert first.max() == 5


def test_sizes_of_pools():
    assert pool_for(0, 64, 8, False) is None
    for clips, frames in ((64, 8), (128, 4), (32, 16), (8, 32)):
        for short in (False, True):
            pool = pool_for(2048, clips, frames, short)
            assert pool.length >= frames
            assert not short or pool.length == frames
            assert pool.clips >= 2048
            # frames that go in, against frames that are taken
            assert clips * frames / (pool.fresh * pool.length) == REUSE
    assert pool_for(10, 64, 8, False).clips >= 64  # no clip twice in a batch
    some = pool_for(512, 64, 40, False, seen=8)  # of each clip of 40 a batch looks at 8
    assert 64 * 8 / (some.fresh * some.length) == pytest.approx(REUSE, rel=0.1)


@pytest.mark.gpu
def test_a_gpu_sees_what_a_cpu_sees():
    for pool in (None, Pool(fresh=3, length=6, depth=4)):
        seen = {}
        for device in ("cpu", "cuda"):
            with Feeder(Numbered(), 5, 2, device=device, workers=2, pool=pool) as feeder:
                seen[device] = [feeder.take().cpu() for _ in range(12)]
        assert all(torch.equal(a, b) for a, b in zip(seen["cpu"], seen["cuda"], strict=True))
