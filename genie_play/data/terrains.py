"""Kinds of land for the full platformer: hills, flats, stairs, sky, towers, caves, rooms, and sparse paper levels.

As `levels`, a pure function of a seed, many at once. Which kind a seed has depends on whether the look is drawn by
hand: half the drawn levels are what a person would put on paper, one ground line, some platforms and much empty space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genie_play.data import levels
from genie_play.data.levels import (
    BRICK,
    COIN,
    COLS,
    CRATE,
    EMPTY,
    GROUND,
    LADDER,
    LADDER_TOP,
    LEDGE,
    ROWS,
    SLOT,
    VARIANTS,
    Codes,
    Ints,
    Levels,
    Seeds,
    Share,
    uniforms,
)  # fmt: skip

Flags = NDArray[np.bool_]

# shares of the kinds in scenes and in drawings
SCENES = {"hills": 0.26, "flats": 0.10, "stairs": 0.12, "sky": 0.12, "towers": 0.12, "caves": 0.14, "rooms": 0.14}
DRAWINGS = {"paper": 0.5} | {kind: share / 2 for kind, share in SCENES.items()}
KINDS = (*SCENES, "paper")
_SLOTS = np.arange(COLS // SLOT)
_STOREY = 5  # rows from floor to floor in rooms


@dataclass
class _Land:
    """What a kind of land makes before it is furnished."""

    tiles: Codes  # (B, ROWS, COLS)
    rock: Flags  # (B, ROWS, COLS)
    ground: Ints  # (B, COLS) first row to stand on, crates included
    pool: Flags  # (B, COLS)
    crates: Ints  # (B, COLS)
    density: Share = 1.0  # of plants and stones
    coins: bool = True


def kinds(seeds: Seeds, drawn: Flags) -> NDArray[np.int64]:
    """The kind of each level, (B,), an index into KINDS."""
    pick = uniforms(seeds, 90, [0])[:, 0]
    scene, drawing = (
        np.searchsorted(np.cumsum([shares.get(kind, 0.0) for kind in KINDS])[:-1], pick, side="right")
        for shares in (SCENES, DRAWINGS)
    )
    return np.where(drawn, drawing, scene)


def build(seeds: Seeds, drawn: Flags) -> Levels:
    """Build the levels of seeds (B,); `drawn` says which are seen in a look that is drawn by hand, (B,)."""
    kind = kinds(seeds, drawn)
    tiles = np.empty((len(seeds), ROWS, COLS), np.uint8)
    ground = np.empty((len(seeds), COLS), np.int32)
    coins = np.empty((len(seeds), COLS), np.int32)
    made = np.where(np.isin(kind, _OTHERS), kind, -1)
    for number in np.unique(made):
        some = np.flatnonzero(made == number)
        land = _rolling(seeds[some], kind[some]) if number < 0 else _BUILT[KINDS[number]](seeds[some])
        tiles[some], ground[some], coins[some] = _finish(seeds[some], land)
    return Levels(tiles, _backdrop(seeds), ground, coins)


def vary(tiles: Codes) -> None:
    """Give each ground tile, in place, the variant of its place: neighbours to the right and below have the next."""
    place = (np.arange(ROWS)[:, None] + np.arange(COLS)) % VARIANTS
    ground = (tiles >= GROUND) & (tiles < CRATE)
    coded = ((tiles - np.uint8(GROUND)) & np.uint8(15)) + (GROUND + 16 * place).astype(np.uint8)
    np.copyto(tiles, coded, where=ground)


def _backdrop(seeds: Seeds) -> Codes:
    """Stars, clouds and perhaps a few suns in an empty sky, and a far range of heights before them."""
    games, cols, rows = np.arange(len(seeds))[:, None], np.arange(COLS), np.arange(ROWS)[:, None]
    backs = np.zeros((len(seeds), ROWS, COLS), np.uint8)
    band = np.select([rows[:, 0] < levels.HORIZON - 11, rows[:, 0] < levels.HORIZON - 5], [0, 1], 2)
    row, col, wide = (uniforms(seeds, salt, range(72)) for salt in (160, 161, 162))
    row, col = (row * levels.HORIZON).astype(np.int64), (col * (COLS - 3)).astype(np.int64)
    stars = slice(0, 44)
    backs[games, row[:, stars], col[:, stars]] = levels.STAR + band[row[:, stars]]
    row, col, broad = row[:, 44:], col[:, 44:], wide[:, 44:] < 0.45
    first = levels.CLOUD + 3 * band[row]
    backs[games, row, col] = first
    backs[games, row, col + 1] = np.where(broad, first + 1, first + 2)
    backs[games, row, col + 2] = np.where(broad, first + 2, backs[games, row, col + 2])
    _shine(seeds, backs)

    walk = np.cumsum((uniforms(seeds, 50, cols) * 3).astype(np.int64) - 1, 1)
    walk = (walk + (uniforms(seeds, 51, [0]) * 10).astype(np.int64)) % 10
    far = np.minimum(walk, 10 - walk)  # 0 to 5 tiles
    top = (levels.HORIZON - far)[:, None, :]
    # marks stand wherever a column's own number, stepped by the golden ratio, comes out high
    marked = (uniforms(seeds, 52, cols)[:, None, :] + np.float32(0.618) * rows.astype(np.float32)) % 1 > 0.8
    inside = np.where(marked, levels.FAR_MARK, levels.FAR + cols % 2).astype(np.uint8)
    np.copyto(backs, inside, where=rows > top)
    left, right = np.roll(far, 1, 1) < far, np.roll(far, -1, 1) < far
    crest = (levels.FAR_TOP + left + 2 * right).astype(np.uint8)[:, None, :]
    np.copyto(backs, np.broadcast_to(crest, backs.shape), where=rows == top)
    return backs


def _shine(seeds: Seeds, backs: Codes) -> None:
    """Hang a sun, two tiles by two, over each third of half the levels, in place."""
    games, thirds = np.arange(len(seeds))[:, None], np.arange(3)
    there = uniforms(seeds, 163, [0]) < 0.5
    row = levels.HORIZON - 14 + (uniforms(seeds, 164, thirds) * 8).astype(np.int64)
    col = 42 * thirds + (uniforms(seeds, 165, thirds) * 40).astype(np.int64)
    for quarter in range(4):
        spot = (games, row + quarter // 2, col + quarter % 2)
        backs[spot] = np.where(there, levels.SUN + quarter, backs[spot])


def _finish(seeds: Seeds, land: _Land) -> tuple[Codes, Ints, Ints]:
    levels.furnish(seeds, land.tiles, land.ground, land.pool | (land.crates > 0), land.density)
    if land.coins:
        coins = levels.hang_coins(seeds, land.tiles, land.ground)
    else:
        found = land.tiles == COIN
        coins = np.where(found.any(1), found.argmax(1), -1).astype(np.int32)
    levels.settle(land.tiles, land.rock, land.ground, land.pool, land.crates)
    vary(land.tiles)
    return land.tiles, land.ground, levels.seen_coins(land.tiles, coins)


def _land(seeds: Seeds, height: Ints, pools: Share = 0.0, crates: ArrayLike = False) -> _Land:
    """Bare land of heights (B, COLS), with pools and crates on its flat parts."""
    height, pool = levels.carve_pools(seeds, height, pools)
    stacks = levels.stack_crates(seeds, height, pool) * np.asarray(crates, np.int32)
    rock = np.arange(ROWS)[:, None] >= (22 - height)[:, None, :]
    tiles = np.zeros((len(seeds), ROWS, COLS), np.uint8)
    return _Land(tiles, rock, (22 - height - stacks).astype(np.int32), pool, stacks)


def _rolling(seeds: Seeds, kind: NDArray[np.int64]) -> _Land:
    """Hills; flats, long and even; stairs; caves, under a low uneven roof; paper, with little but a line.

    Kinds that differ in numbers only are built together: see the table.
    """
    low, high, steps, pools, crates, shelves, density = (column[:, None] for column in _ROLLING[kind].T)
    height = levels.hills(seeds, 0, low.astype(np.int64), high.astype(np.int64), steps)
    height = np.where(kind[:, None] == KINDS.index("stairs"), _stairs(seeds), height)
    land = _land(seeds, height, pools, crates > 0)
    top = levels.platforms(seeds, land.tiles, land.ground, shelves)
    teeth = (uniforms(seeds, 97, np.arange(COLS)) < 0.2).astype(np.int32)
    roof = levels.ceiling(seeds, top) + teeth - (uniforms(seeds, 98, np.arange(COLS) // 5) * 2).astype(np.int32)
    # one hilly level in six is roofed too, without teeth
    roofed = (uniforms(seeds, 15, [0]) < 0.17) & (kind[:, None] == KINDS.index("hills"))
    roof = np.where(kind[:, None] == KINDS.index("caves"), roof, np.where(roofed, roof - teeth, -1))
    land.rock |= np.arange(ROWS)[:, None] <= roof[:, None, :]
    land.density = density
    return land


def _stairs(seeds: Seeds) -> Ints:
    """Heights of slopes of single steps, up or down for the length of a slot."""
    way = (uniforms(seeds, 91, _SLOTS) * 3).astype(np.int64) - 1
    steep = uniforms(seeds, 92, _SLOTS) < 0.5
    step = np.repeat(way, SLOT, 1) * ((np.arange(COLS) % 2 == 0) | np.repeat(steep, SLOT, 1))
    walk = (np.cumsum(step, 1) + (uniforms(seeds, 93, [0]) * 20).astype(np.int64)) % 20
    return levels.close_seam(np.minimum(walk, 20 - walk))


def _sky(seeds: Seeds) -> _Land:
    """Ledges and islands in eight layers, each a jump above the next, over low ground."""
    land = _land(seeds, levels.hills(seeds, 0, low=0, high=1, p_step=0.1), crates=True)
    games = np.arange(len(seeds))[:, None]
    for layer in range(8):
        row = 19 - 2 * layer
        chance, where, length, what = (uniforms(seeds, 100 + 4 * layer + i, _SLOTS) for i in range(4))
        there = chance < 0.42
        span = 2 + (length * 5).astype(np.int64)
        first = _SLOTS * SLOT + (where * (SLOT - span + 1)).astype(np.int64)
        island, brick = there & (what < 0.2), there & (what > 0.8)
        for i in range(6):
            col, on = (first + i) % COLS, i < span
            land.rock[games, row, col] |= island & on
            code = np.where(brick, BRICK, LEDGE + (i == 0) + 2 * (i == span - 1))
            land.tiles[games, row, col] = np.where(there & on & ~island, code, land.tiles[games, row, col])
        climb = there & ~island & ~brick & (chance < 0.12)
        for drop in range(5):
            rung = LADDER_TOP if drop == 0 else LADDER
            here = land.tiles[games, row + drop, first]
            free = climb & ((here == EMPTY) | (drop == 0)) & ~land.rock[games, row + drop, first]
            land.tiles[games, row + drop, first] = np.where(free, rung, here)
            climb = free
    return land


def _towers(seeds: Seeds) -> _Land:
    """Even land with towers three tiles wide, each with a ladder at its side."""
    land = _land(seeds, levels.hills(seeds, 0, low=0, high=4, p_step=0.12))
    games = np.arange(len(seeds))[:, None]
    tower = uniforms(seeds, 94, _SLOTS) < 0.5
    right = uniforms(seeds, 95, _SLOTS) < 0.5
    lift = 3 + (uniforms(seeds, 96, _SLOTS) * 4).astype(np.int32)
    first = _SLOTS * SLOT + 2
    top = np.stack([land.ground[games, first + i] for i in range(3)]).min(0) - lift
    for i in range(3):
        land.ground[games, first + i] = np.where(tower, top, land.ground[games, first + i])
    side = first + np.where(right, 3, -1)
    foot = land.ground[games, side]
    for drop in range(14):
        row = np.minimum(top + drop, ROWS - 1)
        on = tower & (top + drop < foot)
        code = LADDER_TOP if drop == 0 else LADDER
        land.tiles[games, row, side] = np.where(on, code, land.tiles[games, row, side])
    land.rock |= np.arange(ROWS)[:, None] >= land.ground[:, None, :]
    levels.platforms(seeds, land.tiles, land.ground, share=0.4)
    return land


def _rooms(seeds: Seeds) -> _Land:
    """Four storeys with holes and ladders, walls with doors."""
    land = _land(seeds, np.zeros((len(seeds), COLS), np.int32))
    games = np.arange(len(seeds))[:, None]
    land.rock[:, :3] = True
    for storey in range(4):
        floor = 22 - _STOREY * storey
        wall = uniforms(seeds, 110 + storey, _SLOTS) < 0.45
        for row in (floor - 4, floor - 3):
            land.rock[games, row, _SLOTS * SLOT] |= wall
        taken = np.zeros((len(seeds), COLS), bool)
        if storey:
            land.rock[:, floor] = True
            hole = uniforms(seeds, 120 + storey, _SLOTS) < 0.5
            col = _SLOTS * SLOT + 2 + (uniforms(seeds, 130 + storey, _SLOTS) * 4).astype(np.int64)
            for i in range(2):
                land.rock[games, floor, col + i] &= ~hole
                taken[games, col + i] |= hole
            for drop in range(_STOREY):
                code = LADDER_TOP if drop == 0 else LADDER
                was = land.tiles[games, floor + drop, col]
                land.tiles[games, floor + drop, col] = np.where(hole, code, was)
            rows = np.full((len(seeds), COLS), floor, np.int32)
            levels.furnish(levels.mix(seeds + np.uint64(storey)), land.tiles, rows, taken, 0.5)
        run = uniforms(seeds, 140 + storey, np.arange(COLS) // 3) < 0.1
        lift = 1 + (uniforms(seeds, 150 + storey, np.arange(COLS) // 3) * 3).astype(np.int64)
        run &= ~(land.tiles == COIN).any(1)
        games_, cols = np.nonzero(run)
        spot = (games_, floor - lift[games_, cols], cols)
        free = (land.tiles[spot] == EMPTY) & ~land.rock[spot]
        land.tiles[spot] = np.where(free, COIN, land.tiles[spot])
    land.coins, land.density = False, 0.6
    return land


_BUILT: dict[str, Callable[[Seeds], _Land]] = {"sky": _sky, "towers": _towers, "rooms": _rooms}
_OTHERS = np.array([KINDS.index(kind) for kind in _BUILT])
# of each kind: lowest and highest ground, steps a column, pools and crates, platforms, plants and stones
_ROLLING = np.array([
    {
        "hills": (0, 7, 0.24, 0.7, 1, 1.0, 1.0), "flats": (1, 6, 0.04, 0.2, 1, 0.7, 1.0),
        "stairs": (0, 1, 0, 0.7, 1, 0.5, 1.0),
        "caves": (0, 5, 0.22, 0.7, 1, 0.55, 0.6), "paper": (1, 6, 0.07, 0, 0, 0.55, 0.12),
    }.get(kind, (0, 1, 0, 0, 0, 1, 1))
    for kind in KINDS
])  # fmt: skip
