"""What worlds are measured by: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from genie_play.data.clips import PlatformerSource
from genie_play.data.levels import KINDS
from genie_play.data.platformer import with_truth
from genie_play.eval import measures
from genie_play.eval.probe import name_codes
from genie_play.eval.table import Row, table


def test_psnr_of_a_known_error():
    a = np.full((2, 4, 6, 3), 100, np.uint8)
    b = a + 10
    assert measures.psnr(a, b) == pytest.approx(10 * np.log10(255**2 / 100), abs=1e-3)
    where = np.zeros((2, 4, 6), bool)
    where[0, 1, 2] = True
    b[0, 1, 2] = 100
    assert measures.psnr(a, b, where) > 90


def test_psnr_of_each_picture_weighs_a_bad_one_less():
    a = np.full((2, 4, 6, 3), 100, np.uint8)
    b = a.copy()
    b[0] += 1
    b[1] += 40
    each = [10 * np.log10(255**2 / error) for error in (1, 1600)]
    assert measures.psnr_each(a, b) == pytest.approx(np.mean(each), abs=1e-3)
    assert measures.psnr_each(a, a) == 60
    assert measures.psnr(a, b) < measures.psnr_each(a, b)


def test_ssim_gives_known_values():
    y, x, c = np.mgrid[0:24, 0:32, 0:3]
    a = ((7 * x + 13 * y + 31 * c + (x * y) % 11 * 9) % 256).astype(np.uint8)
    b = np.clip(a.astype(int) + ((x + 2 * y + c) % 5 - 2) * 12, 0, 255).astype(np.uint8)
    # scikit-image 0.26: structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert measures.ssim(a, b) == pytest.approx(0.9406067706, abs=1e-4)
    assert measures.ssim(np.stack((a, b)), np.stack((b, b))) == pytest.approx((0.9406067706 + 1) / 2, abs=1e-4)
    # where nothing varies only the means speak
    flat = np.full((16, 16, 3), 100, np.uint8)
    c1 = 2.55**2
    known = (2 * 100 * 140 + c1) / (100**2 + 140**2 + c1)
    assert measures.ssim(flat, flat + 40) == pytest.approx(known, abs=1e-4)
    with pytest.raises(ValueError, match="window of 11"):
        measures.ssim(flat[:8], flat[:8])


def test_mutual_information_of_equal_and_of_independent_labels():
    labels = np.arange(800) % 4
    assert measures.mutual_information(labels, (labels + 1) % 4) == pytest.approx(1.0)
    assert measures.mutual_information(labels, np.repeat(np.arange(8), 100)) == pytest.approx(0.0, abs=1e-9)
    assert measures.mutual_information(labels, np.zeros(800, np.int64)) == pytest.approx(0.0, abs=1e-9)


def test_perplexity():
    assert measures.perplexity(np.arange(64), 64) == pytest.approx(64)
    assert measures.perplexity(np.zeros(10, np.int64), 64) == pytest.approx(1)


def test_displacement_finds_what_the_game_did():
    """On real clips; where flat sky or a mirrored scene hides a shift it may say nothing."""
    truth = with_truth(PlatformerSource((64, 96), 5, calm=True, n_looks=32), 0, 24, 6)
    before, after = (frames.reshape(-1, 64, 96, 3) for frames in (truth.frames[:, :-1], truth.frames[:, 1:]))
    found = measures.displacement(before, after)
    true = np.stack((truth.dx, truth.dy), -1).reshape(-1, 2)
    assert (found == true).all(1).mean() > 0.85
    moved = np.roll(before[:3], (3, -5), (1, 2))
    assert (measures.displacement(before[:3], moved) == [5, -3]).all()


def test_boxes_hold_the_mask():
    mask = np.zeros((2, 10, 12), bool)
    mask[0, 3:5, 6:9] = True
    box = measures.boxes(mask, 1)
    assert box[0, 2:6, 5:10].all()
    assert box[0].sum() == 4 * 5
    assert not box[1].any()


def test_frechet_distance_of_known_normals():
    rng = np.random.default_rng(3)
    a = rng.standard_normal((4000, 6))
    assert measures.frechet(a, a) == pytest.approx(0, abs=1e-8)
    # a shift costs its square, a stretch by s costs (s - 1)^2 a dimension
    assert measures.frechet(a, a + 2.0) == pytest.approx(6 * 4.0)
    a = (a - a.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(a, rowvar=False)).T)
    assert measures.frechet(a, a * 3.0) == pytest.approx(6 * (3 - 1) ** 2)
    # turned apart: covariances diag(9, 1) and diag(1, 9) have 2 * (3 - 1)^2 between them
    b = a[:, :2] * [3.0, 1.0]
    assert measures.frechet(b, b[:, ::-1]) == pytest.approx(8.0, rel=0.05)


def test_frechet_distance_is_symmetric_and_needs_two():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((300, 5)) @ rng.standard_normal((5, 5)), rng.standard_normal((300, 5)) + 1
    assert measures.frechet(a, b) == pytest.approx(measures.frechet(b, a))
    # fewer samples than dimensions: the covariance has no inverse, and none is needed
    assert np.isfinite(measures.frechet(a[:3], b[:4]))
    with pytest.raises(ValueError, match="2 or more"):
        measures.frechet(a[:1], b)


def test_detector_tells_scenes_with_an_avatar_from_scenes_without():
    truth = with_truth(PlatformerSource((64, 64), 6, calm=True, n_looks=64), 0, 60, 3)
    frames, masks = truth.frames.reshape(-1, 64, 64, 3), truth.mask.reshape(-1, 64, 64)
    detector = measures.train_detector(frames[:120], masks[:120], steps=150)
    assert detector.present(frames[120:]).mean() > 0.8
    assert detector.present(np.roll(frames[120:], 14, 2)).mean() < 0.25


def test_codes_say_what_they_stand_for():
    kinds = np.zeros((2, 4, 6), np.uint8)
    kinds[:, :2, :2], kinds[:, 2:, 4:], kinds[1, 0, 2] = 1, 4, 5
    tokens = np.array([[7, 0, 0, 0, 0, 2], [7, 3, 0, 0, 0, 2]])
    said = measures.kinds_of_codes(tokens, kinds, 9, (2, 3), (2, 2))
    assert said.shape == (9, len(KINDS))
    assert np.allclose(said.sum(1), 1)
    assert said[7, 1] == said[2, 4] == said[0, 0] == 1
    assert said[3].tolist() == [0.75, 0, 0, 0, 0, 0.25]
    everywhere = np.bincount(kinds.ravel(), minlength=len(KINDS)) / kinds.size
    assert np.allclose(said[[1, 4, 5, 6, 8]], everywhere)
    # a picture that is not whole patches high ends with its last row
    assert measures.kinds_of_codes(tokens, kinds[:, :3], 9, (2, 3), (2, 2))[2, 4] == 1
    # patches of one row and two columns
    said = measures.kinds_of_codes(np.tile(np.arange(12), (2, 1)), kinds, 12, (4, 3), (1, 2))
    assert said[0, 1] == said[8, 4] == said[11, 4] == 1
    assert said[1].tolist() == [0.75, 0, 0, 0, 0, 0.25]


def test_what_is_off_is_what_is_there_and_too_much_or_too_little():
    real = np.array([0.6, 0.3, 0.05, 0.001])
    worst, times = measures.off(np.array([0.6, 0.2, 0.15, 0.01]), real, 0.01)
    assert np.allclose(times, [1, 2 / 3, 3, 10])
    assert np.isclose(worst, 3)
    assert np.isclose(measures.off(np.array([0.7, 0.3, 0.01, 0.0]), real, 0.01)[0], 5)
    assert measures.off(real, real, 0.01)[0] == 1


def test_edge_energy_falls_with_blur():
    rng = np.random.default_rng(1)
    sharp = rng.integers(0, 256, (1, 24, 32, 3), dtype=np.uint8)
    soft = sharp.copy()
    soft[:, :, 1:] = (sharp[:, :, 1:].astype(int) + sharp[:, :, :-1]) // 2
    assert measures.edge_energy(soft)[0] < measures.edge_energy(sharp)[0]


def test_codes_are_named_by_what_they_do_and_a_world_that_always_scrolls_does_not_pass():
    moves = np.zeros((50, 8, 2))
    moves[:, 1], moves[:, 2], moves[:, 3], moves[:, 4], moves[:, 5] = (-4, 0), (4, 0), (0, -4), (0, 4), (4, -4)
    labels = name_codes(moves)
    assert [label.name for label in labels[:6]] == ["idle", "left", "right", "up", "down", "jump-right"]
    assert labels[1].confidence == 1.0
    assert (labels[1].dx, labels[1].dy) == (-4.0, 0.0)
    changed = np.full((50, 8), 9.0)
    changed[:, 6] = 1.0  # of the three that stand still the two others duck
    assert [label.name for label in name_codes(moves, None, changed)] == [
        "other", "left", "right", "up", "down", "jump-right", "idle", "other",
    ]  # fmt: skip
    scrolls = np.tile([4.0, 0.0], (50, 8, 1))
    assert all(label.confidence == 0 for label in name_codes(scrolls))


def test_table_shows_what_is_asked_and_whether_it_is_there():
    text = table([Row("play", "a thing", 0.5, "dB", "1.2", 0.7), Row("play", "another", 3.0)])
    assert "| play | a thing | 0.5 dB | 1.2 | 0.7 or more | **no** |" in text
    assert text.count("\n") == 4


def test_strange_colours_are_those_that_nothing_known_is_near():
    known = np.zeros((1, 4, 4, 3), np.uint8)
    known[..., 1] = 130
    assert measures.strange(known, known) == 0
    near, far = known.copy(), known.copy()
    near[..., 0], far[0, 0, :, 0] = measures.SHADES, 2 * measures.SHADES
    assert measures.strange(near, known) == 0
    assert measures.strange(far, known) == 0.25
    # the darkest and the lightest are not neighbours
    assert measures.strange(np.full_like(known, 255), np.zeros_like(known)) == 1
