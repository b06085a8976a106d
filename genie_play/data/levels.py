"""Levels of the platformer: tile maps and backdrops as a pure function of a 64-bit seed, many at once.

Knows tiles by code only; what they look like is `looks`, what they do to an avatar is `game`. Here are the rolling
hills of the calm source; `terrains` has more kinds of land, made of the parts below.
A level is a cylinder: columns wrap, rows above are sky and rows below are rock, so that a world never ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Codes = NDArray[np.uint8]
Seeds = NDArray[np.uint64]
Ints = NDArray[np.int32]
Share = float | NDArray[np.float64]  # of all games, or of each, (B, 1)

ROWS, COLS, SLOT = 28, 128, 8  # tiles; a slot is a stretch of columns with one arrangement of platforms
HORIZON = 19  # the row that the backdrop stands on

# tile codes; ground is GROUND + 16 * variant + mask of open sides (1 north, 2 east, 4 south, 8 west)
EMPTY, GROUND, CRATE, BRICK, LEDGE, LADDER, LADDER_TOP, COIN = 0, 1, 65, 66, 67, 71, 72, 73
TUFT, BUSH, ROCK, TRUNK, CROWN, FENCE, POOL, FLOWER = 74, 75, 76, 77, 78, 79, 80, 81
N_TILES, VARIANTS = 82, 4
NORTH, EAST, SOUTH, WEST = 1, 2, 4, 8

# backdrop codes; SKY + 2 * band + column parity, CLOUD + 3 * band + part, FAR_TOP + (1: falls to the left, 2: right),
# SUN + quarter
SKY, STAR, CLOUD, FAR, FAR_MARK, FAR_TOP, SUN = 0, 6, 9, 18, 20, 21, 25
N_BACKS = 29

_CODES = np.arange(N_TILES)
SOLID = (_CODES >= GROUND) & (_CODES < LEDGE)
ONE_WAY = (_CODES >= LEDGE) & (_CODES < LADDER) | (_CODES == LADDER_TOP)
CLIMB = (_CODES == LADDER) | (_CODES == LADDER_TOP)

KINDS = ("open", "ground", "block", "ledge", "ladder", "coin")  # what a tile is to who plays; plants and such are open
KIND = np.select(
    [CLIMB, ONE_WAY, (_CODES == CRATE) | (_CODES == BRICK), SOLID, _CODES == COIN], [4, 3, 2, 1, 5], 0
).astype(np.uint8)


@dataclass(frozen=True)
class Levels:
    """Maps of B levels."""

    tiles: Codes  # (B, ROWS, COLS) tile codes
    backs: Codes  # (B, ROWS, COLS) backdrop codes
    ground: Ints  # (B, COLS) first solid row, crates included
    coins: Ints  # (B, COLS) row of the column's coin, -1 where there is none


def mix(words: Seeds) -> Seeds:
    """Scramble 64-bit words (the finaliser of SplitMix64, Steele et al. 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def uniforms(seeds: Seeds, salt: int, index: ArrayLike) -> NDArray[np.float32]:
    """Uniforms in [0, 1), (B, n) float32 for seeds (B,) and an index (n,) or (B, n): a pure function of all three."""
    counter: Seeds = np.asarray(index).astype(np.uint64) * np.uint64(0xD1342543DE82EF95)
    start: Seeds = seeds + np.uint64(((salt + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
    stream: Seeds = mix(start)[:, None] + counter
    words = mix(stream)
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def build(seeds: Seeds, calm: bool = False) -> Levels:
    """Build hills of seeds (B,); calm ones have the same ground and half the furniture."""
    height = hills(seeds, 0, low=0, high=7, p_step=0.24)
    height, pool = carve_pools(seeds, height)
    crates = stack_crates(seeds, height, pool)
    ground = (22 - height - crates).astype(np.int32)

    tiles = np.zeros((len(seeds), ROWS, COLS), np.uint8)
    rock = np.arange(ROWS)[:, None] >= (22 - height)[:, None, :]
    top = platforms(seeds, tiles, ground)
    roofed = uniforms(seeds, 15, [0]) < 0.25
    rock |= np.arange(ROWS)[:, None] <= np.where(roofed, ceiling(seeds, top), -1)[:, None, :]
    furnish(seeds, tiles, ground, pool | (crates > 0), 0.5 if calm else 1.0)
    coins = hang_coins(seeds, tiles, ground)
    settle(tiles, rock, ground, pool, crates)
    variant = uniforms(seeds, 40, np.arange(ROWS * COLS)).reshape(tiles.shape) < 0.25
    np.add(tiles, np.uint8(16), out=tiles, where=variant & (tiles >= GROUND) & (tiles < CRATE))
    return Levels(tiles, backdrop(seeds, calm), ground, seen_coins(tiles, coins))


def settle(tiles: Codes, rock: NDArray[np.bool_], ground: Ints, pool: NDArray[np.bool_], crates: Ints) -> None:
    """Put water, crates and rock over what was furnished, in place, and give rock its edges."""
    rows = np.arange(ROWS)[:, None]
    np.copyto(tiles, np.uint8(POOL), where=(rows == ground[:, None, :] - 1) & pool[:, None, :])
    stacked = (rows >= ground[:, None, :]) & (crates > 0)[:, None, :]
    np.copyto(tiles, np.uint8(CRATE), where=stacked)
    np.copyto(tiles, np.uint8(GROUND), where=rock)
    autotile(tiles)


def seen_coins(tiles: Codes, coins: Ints) -> Ints:
    """The rows of coins that nothing has covered, -1 elsewhere, (B, COLS)."""
    found = np.take_along_axis(tiles, np.maximum(coins, 0)[:, None, :], 1)[:, 0]
    return np.where(found == COIN, coins, -1).astype(np.int32)


def autotile(tiles: Codes) -> None:
    """Give each ground tile, in place, the mask of its open sides; variants are kept."""
    ground = (tiles >= GROUND) & (tiles < CRATE)
    open_ = ~ground
    mask = np.zeros(tiles.shape, np.uint8)
    mask[:, 1:] |= open_[:, :-1] * np.uint8(NORTH)
    mask[:, :-1] |= open_[:, 1:] * np.uint8(SOUTH)
    mask |= np.roll(open_, -1, 2) * np.uint8(EAST) | np.roll(open_, 1, 2) * np.uint8(WEST)
    coded = ((tiles - np.uint8(GROUND)) & np.uint8(48)) + mask + np.uint8(GROUND)
    np.copyto(tiles, coded, where=ground)


def hills(seeds: Seeds, salt: int, low: ArrayLike, high: ArrayLike, p_step: Share) -> Ints:
    """Heights (B, COLS) in steps of one or two, folded into [low, high]; the seam of the cylinder closes."""
    cols, low, high = np.arange(COLS), np.asarray(low), np.asarray(high)
    edge = uniforms(seeds, salt, cols) < p_step
    edge[:, 1:] &= ~edge[:, :-1]
    step = np.array([-2, -1, -1, 1, 1, 2])[(uniforms(seeds, salt + 1, cols) * 6).astype(np.int64)]
    start = (uniforms(seeds, salt + 2, [0]) * 2 * (high - low)).astype(np.int64)
    walk = (start + np.cumsum(step * edge, 1)) % (2 * (high - low))
    height = low + np.minimum(walk, 2 * (high - low) - walk)
    return close_seam(height)


def close_seam(height: NDArray[np.int64]) -> Ints:
    """Heights whose last columns come down or up to the first, two at a time."""
    slack = (COLS - np.arange(COLS)) // 2 + 1
    closed: Ints = np.clip(height, height[:, :1] - slack, height[:, :1] + slack).astype(np.int32)
    return closed


def carve_pools(seeds: Seeds, height: Ints, share: Share = 0.7) -> tuple[Ints, NDArray[np.bool_]]:
    """Dig pools two tiles deep and two or three wide into flat ground; return heights and which columns are pools."""
    pool = np.zeros(height.shape, bool)
    slots = np.arange(COLS // SLOT)
    wanted = uniforms(seeds, 5, slots) < share
    width = 2 + (uniforms(seeds, 6, slots) < 0.5)
    first = slots * SLOT + 2 + (uniforms(seeds, 7, slots) * 2).astype(np.int64)  # (B, slots)
    games = np.arange(len(seeds))[:, None]
    for i in range(3):
        # both banks and the pool's own columns lie at one height
        flat = height[games, first - 1] == height[games, first]
        for j in range(4):
            flat &= (height[games, first + j] == height[games, first]) | (j > width)
        pool[games, first + i] |= wanted & flat & (i < width)
    return height - np.int32(2) * pool.astype(np.int32), pool


def stack_crates(seeds: Seeds, height: Ints, pool: NDArray[np.bool_]) -> Ints:
    """How many crates (0 to 2) stand on each column: on flat ground only, so that each can be jumped."""
    chance = uniforms(seeds, 8, np.arange(COLS))
    flat = (np.roll(height, 1, 1) == height) & (np.roll(height, -1, 1) == height)
    flat &= ~(pool | np.roll(pool, 1, 1) | np.roll(pool, -1, 1))
    stacks: Ints = flat * ((chance < 0.09).astype(np.int32) + (chance < 0.03).astype(np.int32))
    return stacks


def platforms(seeds: Seeds, tiles: Codes, ground: Ints, share: Share = 1.0) -> Ints:
    """Hang one or two platforms over each slot, with a ladder where they hang high; return the highest row used.

    With a `share` below one fewer slots have any.
    """
    n = COLS // SLOT
    slots = np.arange(n)
    games = np.arange(len(seeds))[:, None]
    kind, where, length = (uniforms(seeds, salt, slots) for salt in (10, 11, 12))
    kind /= np.asarray(share, np.float32)
    span = 2 + (length * 4).astype(np.int64)  # 2 to 5 tiles
    first = slots * SLOT + 1 + (where * (SLOT - span - 1)).astype(np.int64)
    peak = ground.reshape(-1, n, SLOT).min(-1)  # the highest ground of the slot
    has_ladder = kind < 0.34
    has_ledge = has_ladder | (kind < 0.66)
    has_brick = ~has_ledge & (kind < 0.84)
    row = np.where(has_ladder, peak - 4, np.where(has_brick, peak - 3, peak - 2))
    for i in range(5):
        col = (first + i) % COLS
        on = i < span
        code = np.where(has_brick, BRICK, LEDGE + (i == 0) + 2 * (i == span - 1))
        tiles[games, row, col] = np.where(on & (has_ledge | has_brick), code, tiles[games, row, col])
    # a second ledge two tiles above the first, shifted by one
    upper = (has_ledge | has_brick) & (uniforms(seeds, 13, slots) < 0.3)
    for i in range(3):
        col = (first + 1 + i) % COLS
        end = LEDGE + (i == 0) + 2 * (i == 2)
        tiles[games, row - 2, col] = np.where(upper, end, tiles[games, row - 2, col])
    ladder_col = first + (uniforms(seeds, 14, slots) * span).astype(np.int64)
    foot = ground[games, ladder_col]
    tiles[games, row, ladder_col] = np.where(has_ladder, LADDER_TOP, tiles[games, row, ladder_col])
    for i in range(1, 14):
        rung = np.minimum(row + i, ROWS - 1)
        on = has_ladder & (row + i < foot)
        tiles[games, rung, ladder_col] = np.where(on, LADDER, tiles[games, rung, ladder_col])
    top = np.where(upper, row - 2, np.where(has_ledge | has_brick, row, peak))
    return np.repeat(top, SLOT, 1).astype(np.int32)


def ceiling(seeds: Seeds, top: Ints) -> Ints:
    """The lowest row of a roof over each column."""
    cols = np.arange(COLS)
    # no roof lower than four tiles above what stands in a slot or its neighbours
    lowest = np.minimum(np.minimum(np.roll(top, SLOT, 1), top), np.roll(top, -SLOT, 1)) - 4
    bumps = (uniforms(seeds, 16, cols // 3) * 2).astype(np.int32)
    return (lowest - bumps).astype(np.int32)


def furnish(seeds: Seeds, tiles: Codes, ground: Ints, taken: NDArray[np.bool_], density: Share) -> None:
    """Stand plants, rocks, fences and trees on free ground."""
    cols = np.arange(COLS)
    games = np.arange(len(seeds))[:, None]
    pick = uniforms(seeds, 20, cols) / np.asarray(density, np.float32)
    code = np.select(
        [pick < p for p in (0.14, 0.22, 0.29, 0.40, 0.47, 0.57)], [TUFT, BUSH, ROCK, TRUNK, FENCE, FLOWER], EMPTY
    )
    row = ground - 1
    free = ~taken & (tiles[games, row, cols] == EMPTY)
    tiles[games, row, cols] = np.where(free, code, tiles[games, row, cols])
    tree = free & (code == TRUNK)
    tall = tree & (uniforms(seeds, 21, cols) < 0.5)
    for level, what in ((2, np.where(tall, TRUNK, CROWN)), (3, np.full(tall.shape, CROWN))):
        on = (tree if level == 2 else tall) & (tiles[games, ground - level, cols] == EMPTY)
        tiles[games, ground - level, cols] = np.where(on, what, tiles[games, ground - level, cols])


def hang_coins(seeds: Seeds, tiles: Codes, ground: Ints) -> Ints:
    """Hang at most one coin over each column, in rows of a few; return its row, -1 without one."""
    cols = np.arange(COLS)
    games = np.arange(len(seeds))[:, None]
    run = uniforms(seeds, 30, cols // 3) < 0.3
    lift = 1 + (uniforms(seeds, 31, cols // 3) * 4).astype(np.int64)
    row = ground - lift
    on = run & (tiles[games, row, cols] == EMPTY)
    tiles[games, row, cols] = np.where(on, COIN, tiles[games, row, cols])
    return np.where(on, row, -1).astype(np.int32)


def backdrop(seeds: Seeds, calm: bool) -> Codes:
    """Sky in three bands with clouds and stars, and a far range of heights on the horizon."""
    cols, rows = np.arange(COLS), np.arange(ROWS)[:, None]
    walk = np.cumsum((uniforms(seeds, 50, cols) * 3).astype(np.int64) - 1, 1) + (uniforms(seeds, 51, [0]) * 10).astype(
        np.int64
    )
    walk %= 10
    far = np.minimum(walk, 10 - walk)  # 0 to 5 tiles
    band = np.select([rows < HORIZON - 11, rows < HORIZON - 5], [0, 1], 2)
    backs = np.broadcast_to(SKY + 2 * band + cols % 2, (len(seeds), ROWS, COLS)).astype(np.uint8)
    chance = uniforms(seeds, 52, np.arange(ROWS * COLS)).reshape(backs.shape)
    np.copyto(backs, (STAR + band).astype(np.uint8), where=chance < (0.02 if calm else 0.06))
    starts = (chance > 0.955) & (cols < COLS - 3)
    wide = (chance > 0.98)[:, :, :-3]
    for part, on, shift in ((0, starts[:, :, :-3], 0), (1, wide & starts[:, :, :-3], 1)):
        np.copyto(backs[:, :, shift : COLS - 3 + shift], (CLOUD + 3 * band + part).astype(np.uint8), where=on)
    for on, shift in ((starts[:, :, :-3] & ~wide, 1), (starts[:, :, :-3] & wide, 2)):
        np.copyto(backs[:, :, shift : COLS - 3 + shift], (CLOUD + 3 * band + 2).astype(np.uint8), where=on)
    top = (HORIZON - far)[:, None, :]
    mark = np.where(chance > (0.92 if calm else 0.75), FAR_MARK, FAR + cols % 2).astype(np.uint8)
    np.copyto(backs, mark, where=rows > top)
    left, right = np.roll(far, 1, 1) < far, np.roll(far, -1, 1) < far
    crest = (FAR_TOP + left + 2 * right).astype(np.uint8)[:, None, :]
    np.copyto(backs, np.broadcast_to(crest, backs.shape), where=(rows == top))
    return backs
