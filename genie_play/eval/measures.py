"""What worlds are measured by: pure functions of pictures, codes and truths, and a small avatar detector.

Knows nothing of checkpoints, engines or tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from genie_play.data.levels import KINDS

Pictures = NDArray[np.uint8]  # (..., H, W, 3)
WINDOW = 11  # pixels a side that `ssim` compares at once
SHADES = 16  # levels of a channel that count as one colour
REACH = 10  # largest shift, in pixels, that `displacement` looks for


def psnr(a: Pictures, b: Pictures, where: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio in dB of the mean squared error over all pictures, or over the pixels `where`."""
    error = (a.astype(np.float32) - b.astype(np.float32)) ** 2
    mean = error.mean() if where is None else error[where].mean()
    return float(10 * np.log10(255.0**2 / max(float(mean), 1e-6)))


def psnr_each(a: Pictures, b: Pictures) -> float:
    """The mean over pictures of each one's PSNR in dB, equal ones counted as 60: what papers tend to print.

    It is never below `psnr` but for that cap; a few bad pictures weigh less in it.
    """
    error = ((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean((-3, -2, -1))
    return float(np.minimum(10 * np.log10(255.0**2 / np.maximum(error, 1e-6)), 60.0).mean())


def ssim(a: Pictures, b: Pictures) -> float:
    """Mean structural similarity (Wang et al. 2004): Gaussian windows of sigma 1.5, wholly inside, a channel at a time.

    -1 to 1; 1 where all are equal.
    """
    height, width = a.shape[-3:-1]
    if min(height, width) < WINDOW:
        raise ValueError(f"pictures of {width}x{height} are smaller than a window of {WINDOW}")
    line = torch.exp(-((torch.arange(float(WINDOW)) - WINDOW // 2) ** 2) / (2 * 1.5**2))
    line = line / line.sum()

    def blurred(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, line.view(1, 1, WINDOW, 1)), line.view(1, 1, 1, WINDOW))

    flat = a.reshape(-1, height, width, 3), b.reshape(-1, height, width, 3)
    total, count = 0.0, 0
    for some in range(0, len(flat[0]), 256):
        x, y = (
            torch.from_numpy(np.ascontiguousarray(pictures[some : some + 256])).float().permute(0, 3, 1, 2)
            for pictures in flat
        )
        x, y = x.reshape(-1, 1, height, width), y.reshape(-1, 1, height, width)
        mean_x, mean_y = blurred(x), blurred(y)
        var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
        both = blurred(x * y) - mean_x * mean_y
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        alike = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
        total += float(alike.double().sum())
        count += alike.numel()
    return total / count


def boxes(mask: NDArray[np.bool_], margin: int = 1) -> NDArray[np.bool_]:
    """The bounding box, a little larger, of each avatar mask (..., H, W)."""
    flat = mask.reshape(-1, *mask.shape[-2:])
    out = np.zeros_like(flat)
    for picture, box in zip(flat, out, strict=True):
        rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
        if len(rows):
            top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
            box[top : rows[-1] + margin + 1, left : columns[-1] + margin + 1] = True
    return out.reshape(mask.shape)


def perplexity(tokens: NDArray[np.int64], codes: int) -> float:
    """How many codes are used, as e to the entropy of their shares."""
    share = np.bincount(tokens.ravel(), minlength=codes) / tokens.size
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def mutual_information(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Normalised mutual information of two labellings, 0 to 1 (2 I / (H(a) + H(b)))."""
    if not a.size:
        return 0.0
    _, a = np.unique(a.ravel(), return_inverse=True)
    _, b = np.unique(b.ravel(), return_inverse=True)
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1.0 / len(a))
    pa, pb = joint.sum(1), joint.sum(0)
    inside = joint > 0
    shared = float((joint[inside] * np.log(joint[inside] / np.outer(pa, pb)[inside])).sum())
    entropies = float(-(pa * np.log(pa)).sum() - (pb * np.log(pb)).sum())
    # what is nothing up to rounding may come out below it
    return max(2 * shared / entropies, 0.0) if entropies > 0 else 0.0


def displacement(before: Pictures, after: Pictures, reach: int = REACH) -> NDArray[np.float64]:
    """How far what is followed moved in the world, pixels right and down, for pairs (P, H, W, 3): (P, 2) as dx, dy.

    The camera follows, so the scene moves the other way: the shift that explains most of the scene is found by its
    mean absolute error, the middle (where the avatar stands) left out, and its sign turned. A scene that does not
    move, or that no shift explains better than none by 10%, gives (0, 0).
    """
    found = [_displacement(before[i : i + 64], after[i : i + 64], reach) for i in range(0, len(before), 64)]
    return np.concatenate(found) if found else np.zeros((0, 2))


def _displacement(before: Pictures, after: Pictures, reach: int) -> NDArray[np.float64]:
    a = torch.from_numpy(before).float().permute(0, 3, 1, 2)
    b = torch.from_numpy(after).float().permute(0, 3, 1, 2)
    height, width = a.shape[-2:]
    centre = torch.ones(height, width)
    centre[height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8] = 0
    # every other pixel of the target is enough to tell a shift; the source is split so that slices lie close
    inner = (slice(reach, height - reach, 2), slice(reach, width - reach, 2))
    weight = centre[inner]
    target = b[(..., *inner)].contiguous()
    phases = {(y, x): a[..., y::2, x::2].contiguous() for y in (0, 1) for x in (0, 1)}
    rows, columns = target.shape[-2:]
    errors = []
    for y in range(2 * reach + 1):
        for x in range(2 * reach + 1):
            moved = phases[y % 2, x % 2][..., y // 2 : y // 2 + rows, x // 2 : x // 2 + columns]
            errors.append(((target - moved).abs_().mean(1) * weight).sum((-2, -1)) / weight.sum())
    table = torch.stack(errors, 1)  # (P, shifts)
    best = table.argmin(1)
    still = table[:, len(errors) // 2]
    side = 2 * reach + 1
    # b(p) = a(p + s): the scene moved by -s, and so what is followed moved by +s
    shifts = torch.stack((best % side - reach, best // side - reach), 1).double()
    shifts[table.amin(1) > 0.9 * still] = 0
    return shifts.numpy()


def comes_down(dy: NDArray[np.float64], least: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of displacements down a tick (P, T): who rose by `least` pixels or more, and who of these lost three quarters of
    the rise again before the last tick. Both (P,)."""
    height = -np.cumsum(dy, 1)
    peak, top = height.max(1), height.argmax(1)
    later = np.arange(dy.shape[1]) >= top[:, None]
    lowest = np.where(later, height, np.inf).min(1)
    rose = peak >= least
    return rose, rose & (lowest <= peak / 4)


def ended(energy: NDArray[np.float64], real: NDArray[np.float64], run: int = 16) -> NDArray[np.int64]:
    """For each play (P, T) of edge energies the first of `run` frames in a row whose energy is below 0.5 or above 1.5
    of `real` (P,); T where there are none: (P,)."""
    off = (energy < 0.5 * real[:, None]) | (energy > 1.5 * real[:, None])
    count = off.shape[1]
    first = np.full(len(off), count, np.int64)
    for play, row in enumerate(off):
        length = 0
        for t, bad in enumerate(row):
            length = length + 1 if bad else 0
            if length == run:
                first[play] = t - run + 1
                break
    return first


def kinds_of_codes(
    tokens: NDArray[np.int64], kinds: NDArray[np.uint8], codes: int, grid: tuple[int, int], patch_size: tuple[int, int]
) -> NDArray[np.float64]:
    """What each code says of what it stands for: the share of each of `levels.KINDS` in its patches, (V, K).

    `tokens` (n, N) on a grid of patches of so many rows and columns of pixels, `kinds` (n, H, W). A code that is never
    seen says what all do together.
    """
    (rows, columns), (down, across), (height, width) = grid, patch_size, kinds.shape[1:]
    whole = np.pad(kinds, ((0, 0), (0, rows * down - height), (0, columns * across - width)), "edge")
    patches = whole.reshape(-1, rows, down, columns, across)
    share = np.stack([(patches == kind).mean((2, 4)).reshape(-1) for kind in range(len(KINDS))], 1)
    total = np.zeros((codes, len(KINDS)))
    np.add.at(total, tokens.reshape(-1), share)
    seen = np.bincount(tokens.reshape(-1), minlength=codes)[:, None]
    return np.where(seen > 0, total / np.maximum(seen, 1), share.mean(0))


def off(share: NDArray[np.float64], real: NDArray[np.float64], least: float) -> tuple[float, NDArray[np.float64]]:
    """Of shares (K,) of kinds, how many times too much or too little there is of the one that is farthest off, 1 or
    more, those below `least` of `real` left out; and of each how many times as much as in `real`, (K,)."""
    times = share / np.maximum(real, 1e-9)
    there = np.maximum(times[real >= least], 1e-9)
    return float(np.maximum(there, 1 / there).max(initial=1.0)), times


def strange(pictures: Pictures, known: Pictures) -> float:
    """Share of the pixels (n, H, W, 3) whose colour no pixel of `known` (m, H, W, 3) has, give or take: colours are
    told apart by cubes of SHADES levels a side, and those next to one that is there count as there."""
    side = 256 // SHADES
    there = np.zeros((side + 2,) * 3, bool)
    there[tuple((known // SHADES + 1).reshape(-1, 3).T)] = True
    for axis in range(3):
        there = there | np.roll(there, 1, axis) | np.roll(there, -1, axis)
    return 1 - float(there[tuple((pictures // SHADES + 1).reshape(-1, 3).T)].mean())


def apart(futures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far the two most different futures (A, P, H, W, 3) of each of P plays are apart, in grey levels: (P,)."""
    x = futures.astype(np.float32)
    most = np.zeros(x.shape[1])
    for i in range(len(x)):
        for j in range(i):
            most = np.maximum(most, np.abs(x[i] - x[j]).mean((-3, -2, -1)))
    return most


def k_means(points: NDArray[np.float64], k: int, rounds: int = 30) -> NDArray[np.float64]:
    """Centres (k, d) of points (n, d), k-means++ with a fixed seed: the plainest action codes there are."""
    noise = np.random.RandomState(0)
    centres = points[noise.randint(len(points))][None].astype(np.float64)
    while len(centres) < k:
        away = ((points[:, None] - centres) ** 2).sum(-1).min(1)
        if away.sum() == 0:
            # fewer different points than centres
            break
        centres = np.concatenate((centres, points[noise.choice(len(points), p=away / away.sum())][None]))
    for _ in range(rounds):
        nearest = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
        centres = np.stack(
            [points[nearest == c].mean(0) if (nearest == c).any() else centre for c, centre in enumerate(centres)]
        )
    return centres


def edge_energy(pictures: Pictures) -> NDArray[np.float64]:
    """Mean absolute difference of neighbouring pixels of each picture (..., H, W, 3), in grey levels."""
    x = pictures.astype(np.float32)
    rows = np.abs(x[..., 1:, :, :] - x[..., :-1, :, :]).mean((-3, -2, -1))
    columns = np.abs(x[..., 1:, :] - x[..., :-1, :]).mean((-3, -2, -1))
    return np.asarray(rows + columns, np.float64)


def frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The Frechet distance between the normal distributions fitted to features (n, d) and (m, d):

        |mean a - mean b|^2 + trace(A + B - 2 (A B)^(1/2)),  A and B the covariances

    (Dowson and Landau 1982; what FID does with features of another network). It falls with more samples: compare only
    sets of one size.
    """
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features should be (n, d) with 2 or more each, not {a.shape} and {b.shape}")
    gap = a.mean(0) - b.mean(0)
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    # the square root of a product of two has the trace of that of root B root, which is symmetric
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return max(float(gap @ gap + np.trace(first) + np.trace(second) - 2 * shared), 0.0)


@dataclass
class Detector:
    """A small network that says whether an avatar stands in the middle of a picture."""

    net: nn.Module
    crop: int

    def present(self, pictures: Pictures) -> NDArray[np.bool_]:
        """Whether each picture of (P, H, W, 3) shows an avatar."""
        with torch.inference_mode():
            return np.asarray((self.net(_middle(pictures, self.crop))[:, 0] > 0).numpy(), bool)


def train_detector(
    with_avatar: Pictures, mask: NDArray[np.bool_], seed: int = 0, steps: int = 400, crop: int = 32
) -> Detector:
    """Learn from true pictures (P, H, W, 3) and the avatar's masks (P, H, W).

    The other class is the same scenes without one: crops from beside the avatar, and the avatar's place filled with
    scenery from beside it, whole or in part.
    """
    generator = torch.Generator().manual_seed(seed)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 24, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(48, 64, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * (crop // 8) ** 2, 64),
        nn.ReLU(), nn.Linear(64, 1),
    )  # fmt: skip
    torch.random.set_rng_state(state)
    positives = _middle(with_avatar, crop)
    empty = with_avatar.copy()
    shift = 12 * with_avatar.shape[1] // 64
    box = boxes(mask, 1)
    empty[box] = np.roll(with_avatar, shift, 2)[box]
    negatives = _middle(empty, crop)
    half = empty.copy()
    lower = box & (np.arange(box.shape[1])[:, None] < box.shape[1] // 2)
    half[~lower] = with_avatar[~lower]
    negatives = torch.cat((negatives, _middle(np.roll(with_avatar, shift, 2), crop), _middle(half, crop)))
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    for _ in range(steps):
        yes = positives[torch.randint(len(positives), (96,), generator=generator)]
        no = negatives[torch.randint(len(negatives), (96,), generator=generator)]
        x = torch.cat((yes, no))
        x = x + 0.03 * torch.randn(x.shape, generator=generator)
        target = torch.cat((torch.ones(96, 1), torch.zeros(96, 1)))
        loss = F.binary_cross_entropy_with_logits(net(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Detector(net.eval(), crop)


def _middle(pictures: Pictures, crop: int) -> Tensor:
    """The middle crop x crop pixels of (P, H, W, 3), as (P, 3, crop, crop) around 0."""
    top, left = (pictures.shape[1] - crop) // 2, (pictures.shape[2] - crop) // 2
    cut = pictures[:, top : top + crop, left : left + crop]
    return torch.from_numpy(np.ascontiguousarray(cut)).permute(0, 3, 1, 2).float() / 255 - 0.5
