"""How a picture is lit and held: uneven exposure and a camera that is not quite straight, both fixed to the picture.

Neither changes from frame to frame, so that what a network must predict stays predictable. Exposures are tables that
are multiplied and added, tilts say which four pixels each pixel is mixed of; both are made once a size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.uint8]  # (H, W, 3)
EXPOSURES, TILTS = 96, 48  # number 0 is none


@lru_cache(maxsize=256)
def exposure(number: int, size: tuple[int, int]) -> tuple[Table, Table | None]:
    """Factor and veil of exposure `number`: a pixel becomes (p * (factor + 1) >> 8) + veil."""
    rng = np.random.default_rng([7, number])
    height, width = size
    y, x = np.mgrid[:height, :width]
    x, y = (x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    kind = number % 4
    dark = np.zeros((height, width))
    if kind in (0, 1):
        dark += rng.uniform(0.05, 0.4) * (along + 0.5)
    if kind in (1, 2):
        dark += rng.uniform(0.1, 0.6) * (x * x + y * y) * 1.4
    if kind == 3:
        # the shadow of a hand or of the camera
        edge = rng.uniform(-0.15, 0.3)
        dark += rng.uniform(0.1, 0.32) / (1 + np.exp(-(along - edge) / rng.uniform(0.03, 0.12)))
    dark += rng.choice([0.0, 0.0, rng.uniform(0.0, 0.2)])
    tint = np.ones(3)
    if rng.random() < 0.5:
        warm = rng.uniform(-0.09, 0.12)
        tint = np.array([1.0, 1.0 - abs(warm) * 0.35, 1.0 - warm]) if warm > 0 else np.array([1.0 + warm, 1.0, 1.0])
    gain = np.clip(1 - dark, 0.25, 1)[..., None] * tint
    haze = rng.choice([0.0, 0.0, rng.uniform(0.03, 0.16)])
    veil = np.floor(255 * haze * gain * rng.uniform(0.6, 0.95))
    # white stays below 256
    factor = np.clip(np.floor(256 * gain * (1 - haze)) - 2, 0, 255)
    return factor.astype(np.uint8), veil.astype(np.uint8) if veil.any() else None


def expose(pictures: NDArray[np.uint8], numbers: NDArray[np.int64]) -> None:
    """Light the pictures (B, H, W, 3) of exposures (B,), in place."""
    size = (pictures.shape[1], pictures.shape[2])
    buffer = np.empty((*size, 3), np.uint16)
    for i in np.flatnonzero(numbers):
        factor, veil = exposure(int(numbers[i]), size)
        np.multiply(pictures[i], factor, out=buffer, dtype=np.uint16)
        buffer += pictures[i]
        buffer >>= 8
        np.copyto(pictures[i], buffer, casting="unsafe")
        if veil is not None:
            pictures[i] += veil


@lru_cache(maxsize=128)
def tilt(number: int, size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Where each pixel of tilt `number` comes from: four pixels (4, H * W) and their weights (4, H * W), 256 in all.

    The picture is turned, narrowed at one end and a little closer, so that no border shows.
    """
    rng = np.random.default_rng([8, number])
    height, width = size
    turn, narrow = np.deg2rad(rng.uniform(-3.2, 3.2)), rng.uniform(-0.045, 0.045, 2)
    y, x = np.mgrid[:height, :width] + 0.5
    at = np.stack([x / width - 0.5, y / height - 0.5], -1)
    shape = np.array([width, height], float)
    c, s = np.cos(turn), np.sin(turn)
    source = ((at * shape) @ np.array([[c, s], [-s, c]])) * (1 + at @ narrow)[..., None]
    source *= np.min((shape - 2) / 2 / np.abs(source).max((0, 1))) / rng.uniform(1.0, 1.08)
    place = source + shape / 2 - 0.5  # in pixels, from the middle of the first
    whole = np.clip(np.floor(place).astype(np.int64), 0, np.array([width - 2, height - 2]))
    u, v = (np.rint((place - whole) * 16).astype(np.int64).clip(0, 16)[..., i] for i in (0, 1))
    first = (whole[..., 1] * width + whole[..., 0]).ravel()
    places = np.stack([first, first + 1, first + width, first + width + 1])
    weights = np.stack([(16 - u) * (16 - v), u * (16 - v), (16 - u) * v, u * v]).reshape(4, -1)
    return places, weights.astype(np.uint32)


def lean(pictures: NDArray[np.uint8], numbers: NDArray[np.int64]) -> None:
    """Tilt the pictures (B, H, W, 3) of tilts (B,), in place."""
    size = (pictures.shape[1], pictures.shape[2])
    four = np.zeros((size[0] * size[1], 4), np.uint8)
    whole, two = four.view(np.uint32)[:, 0], np.uint32(0x00FF00FF)
    for i in np.flatnonzero(numbers):
        places, weights = tilt(int(numbers[i]), size)
        four[:, :3] = pictures[i].reshape(-1, 3)
        # the bytes of a pixel in two pairs, each with room for 256 times itself
        even, odd = (np.zeros(len(four), np.uint32) for _ in range(2))
        for place, weight in zip(places, weights, strict=True):
            pixel = whole.take(place)
            even += (pixel & two) * weight
            odd += (pixel >> 8 & two) * weight
        mixed = (even >> 8 & two) | (odd & ~two)
        pictures[i] = mixed.view(np.uint8).reshape(*size, 4)[..., :3]


def lean_masks(masks: NDArray[np.bool_], numbers: NDArray[np.int64]) -> None:
    """Tilt the masks (B, H, W) of tilts (B,), in place: each pixel is as the one that it mostly comes from."""
    for i in np.flatnonzero(numbers):
        places, weights = tilt(int(numbers[i]), (masks.shape[1], masks.shape[2]))
        nearest = np.take_along_axis(places, weights.argmax(0)[None], 0)[0]
        masks[i] = masks[i].ravel()[nearest].reshape(masks.shape[1:])
