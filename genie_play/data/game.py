"""The game the shipped worlds learn from: a 2D platformer, many games at once, deterministic.

All lengths in the game are half tiles and every tick moves the avatar by -1, 0 or 1 of them in each direction:
sideways without inertia; a jump rises 4 ticks while its key is held and falls at the same pace. The avatar's box is 2
x 3 half tiles and stays on that lattice, and so does the camera, which keeps it at one place of the picture, the
middle unless told otherwise, or lets it roam within some distance of that place before it follows. Keys: 0 none, 1
left, 2 right, 3 jump, 4 jump-left, 5 jump-right, 6 down (duck; through a ledge; down a ladder), 7 up (climb; a jump
where there is no ladder). Nobody dies: gaps have floors, and the level is a cylinder. Critters (a switch) walk slowly
to and fro, do no harm, and vanish under an avatar that falls on them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from genie_play.data import levels, light, terrains
from genie_play.data.levels import CLIMB, COIN, COLS, EMPTY, ONE_WAY, ROWS, SOLID, Seeds
from genie_play.data.looks import FILLS, Wardrobe
from genie_play.data.sprites import canvas

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_AT_ONCE = 16  # games drawn together: what they need stays in a processor's cache
RISE = 4  # ticks that a jump rises: two tiles
STAND, WALK_A, WALK_B, RISING, FALLING, DUCK, CLIMBING = range(7)  # as in paint.POSES
_SIDE = np.array([0, -1, 1, 0, -1, 1, 0, 0])
_JUMPS = np.array([False, False, False, True, True, True, False, False])
DOWN, UP = 6, 7
_CRITTER_SPAN, _CRITTER_PACE = 3, 3  # tiles of a patrol, ticks a half tile


@dataclass(frozen=True)
class State:
    """Everything that changes in B games. `x` is the left edge and `y` the feet of the avatar, in half tiles."""

    x: Ints
    y: Ints
    right: Flags  # faces right
    rise: Ints  # ticks of rise left
    climbing: Flags
    grounded: Flags
    pose: Ints
    dx: Ints  # last displacement in half tiles
    dy: Ints
    tick: Ints
    stomped: Ints  # one bit a critter
    seen_x: Ints  # what the camera holds in its place, (x, y) unless the avatar may roam
    seen_y: Ints
    tiles: NDArray[np.uint8]  # (B, ROWS, COLS) coins taken are gone

    def copy(self) -> State:
        """Fresh arrays."""
        return State(*(getattr(self, f.name).copy() for f in fields(self)))

    def take(self, games: NDArray[np.int64]) -> State:
        """Those games, in that order, repeats allowed; fresh arrays."""
        return State(*(getattr(self, f.name)[games] for f in fields(self)))


def tile_size(height: int) -> int:
    """Pixels of a tile by height of the picture: 8 up to 80, then 12."""
    return 8 if height <= 80 else 12


class Platformer:
    """B games at once, one per seed, each in its look (a number in the wardrobe). Deterministic.

    The picture is (H, W); the tile size is the wardrobe's. A game starts settled on the ground or on a ledge. `shift`
    (B, 2) moves the avatar's place in the picture right and down of the middle, in half tiles; `roam` (B, 2) is how far
    it walks from there, across and along, before the camera follows.
    """

    def __init__(
        self,
        seeds: Seeds,
        looks: Ints,
        wardrobe: Wardrobe,
        size: tuple[int, int] = (64, 64),
        enemies: bool = False,
        shift: Ints | None = None,
        roam: Ints | None = None,
    ) -> None:
        self.seeds, self.looks = np.asarray(seeds, np.uint64), np.asarray(looks, np.int64)
        if self.seeds.ndim != 1 or self.seeds.shape != self.looks.shape:
            raise ValueError("a game needs one seed and one look")
        self.wardrobe, self.size, self.enemies = wardrobe, size, enemies
        still = np.zeros((len(self.seeds), 2), np.int64)
        self.shift, self.roam = still if shift is None else shift, still if roam is None else roam
        if self.shift.shape != still.shape or self.roam.shape != still.shape:
            raise ValueError("a game needs a shift and a roam of two numbers")
        if wardrobe.calm:
            level = levels.build(self.seeds, calm=True)
        else:
            level = terrains.build(self.seeds, wardrobe.drawn_by_hand[self.looks])
        self.backs, self.coins, self.ground = level.backs, level.coins, level.ground
        self._index()
        x, y = self._start(level)
        none = np.zeros(len(self), np.int64)
        right = levels.uniforms(self.seeds, 62, [0])[:, 0] < 0.5
        yes, no = np.ones(len(self), bool), np.zeros(len(self), bool)
        self._state = State(
            x, y, right, none, no, yes, none, none.copy(), none.copy(), none.copy(), none.copy(), x, y, level.tiles
        ).copy()

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def tile(self) -> int:
        """Pixels of a tile."""
        return self.wardrobe.tile

    @property
    def dx(self) -> Ints:
        """The avatar's last displacement in the world, pixels to the right, (B,)."""
        return self._state.dx * (self.tile // 2)

    @property
    def dy(self) -> Ints:
        """The avatar's last displacement in the world, pixels down, (B,)."""
        return self._state.dy * (self.tile // 2)

    @property
    def grounded(self) -> Flags:
        """Whether the avatar stands on something, (B,)."""
        return self._state.grounded.copy()

    def state(self) -> State:
        """A snapshot; `load` goes back to it."""
        return self._state.copy()

    def load(self, state: State) -> None:
        """Go back to a snapshot of the same games."""
        if state.x.shape != self.seeds.shape:
            raise ValueError("the snapshot is of another number of games")
        self._state = state.copy()

    def take(self, games: NDArray[np.int64]) -> Platformer:
        """New games that go on from those of this one, in that order; repeats branch a game."""
        games = np.asarray(games, np.int64)
        other = object.__new__(Platformer)
        other.__dict__.update(self.__dict__)
        other.seeds, other.looks = self.seeds[games], self.looks[games]
        other.backs, other.coins, other.ground = self.backs[games], self.coins[games], self.ground[games]
        other.shift, other.roam = self.shift[games], self.roam[games]
        other._index()
        other._state = self._state.take(games)
        return other

    def _some(self, games: slice) -> Platformer:
        """A view of a few games, to be looked at only."""
        other = object.__new__(Platformer)
        other.__dict__.update(self.__dict__)
        for name in ("seeds", "looks", "shift", "roam", "backs", "coins", "ground"):
            setattr(other, name, getattr(self, name)[games])
        other._games = np.arange(len(other.seeds))
        other._state = State(*(getattr(self._state, f.name)[games] for f in fields(State)))
        return other

    def _draw(self, out: NDArray[np.uint8]) -> None:
        """Draw the pictures of all games into `out`, (B, H, W, 3)."""
        cells = self._calm_cells() if self.wardrobe.calm else self._full_cells()
        # cells to rows of pixels; h pixels move as one item
        h, (rows, cols) = self.tile // 2, self._grid
        strips = cells.view(f"V{h * 3}").reshape(len(self), rows, cols, h).transpose(0, 1, 3, 2)
        wide = np.ascontiguousarray(strips).view(np.uint8).reshape(len(self), rows * h, cols * h, 3)
        height, width = self.size
        out[:] = wide[:, :height, self._crop : self._crop + width]
        if self.enemies:
            self._draw_critters(out)
        self._draw_avatar(out)
        light.expose(out, self.wardrobe.exposure[self.looks])
        light.lean(out, self.wardrobe.tilt[self.looks])

    def codes(self, row: Ints, col: Ints) -> NDArray[np.uint8]:
        """Tile codes at (row, col), (B,) or (B, n); beyond the top and bottom those of the last row."""
        games = self._games if row.ndim == 1 else self._games[:, None]
        found: NDArray[np.uint8] = self._state.tiles[games, np.clip(row, 0, ROWS - 1), col % COLS]
        return found

    def blocked(self, side: Ints, ahead: int = 1) -> Flags:
        """Whether something solid stands `ahead` half tiles to that side (-1, 1; 0 is never blocked), (B,)."""
        s = self._state
        edge: Ints = np.where(side > 0, s.x + 1 + ahead, s.x - ahead) >> 1
        wall: Flags = SOLID[self.codes((s.y - 3) >> 1, edge)] | SOLID[self.codes((s.y - 1) >> 1, edge)]
        wall[side == 0] = False
        return wall

    def gap(self, side: Ints) -> Flags:
        """Whether the ground ends a tile to that side, (B,)."""
        s = self._state
        col = (s.x >> 1) + side
        floor: Flags = (SOLID | ONE_WAY)[self.codes(s.y >> 1, col)]
        return ~floor

    def ladder(self) -> Flags:
        """Whether the avatar's lower half overlaps a ladder, (B,)."""
        s = self._state
        return self._either(CLIMB, s.x, (s.y - 1) >> 1)

    def step(self, keys: NDArray[np.int64]) -> None:
        """Play one tick with a true key (0 to 7) for each game, (B,)."""
        s, keys = self._state, np.asarray(keys, np.int64)
        side = _SIDE[keys]
        dx = np.where(self.blocked(side), 0, side)
        x = s.x + dx

        ladder = self._either(CLIMB, x, (s.y - 1) >> 1)
        jump = _JUMPS[keys] | ((keys == UP) & ~ladder)
        rise = np.where(jump, np.where(s.grounded | s.climbing, RISE, s.rise), 0)
        ledge = (s.y & 1 == 0) & self._either(ONE_WAY, x, s.y >> 1)
        floor = self._either(SOLID, x, s.y >> 1)
        head = self._either(SOLID, x, (s.y - 4) >> 1)
        down = (keys == DOWN) & ~floor
        climb_up = (keys == UP) & ladder
        climb_down = down & self._either(CLIMB, x, s.y >> 1)
        climbing = climb_up | climb_down | (s.climbing & ladder & ~jump)
        rise = np.where(climbing | head, 0, rise)
        stay = climbing | floor | (ledge & ~down)
        dy = np.where((rise > 0) | (climb_up & ~head), -1, np.where(climb_down, 1, np.where(stay, 0, 1)))
        y = s.y + dy
        rise = np.maximum(rise - 1, 0)

        floor = self._either(SOLID, x, y >> 1)
        ledge = (y & 1 == 0) & self._either(ONE_WAY, x, y >> 1)
        climbing &= ~(floor & (dy >= 0)) & self._either(CLIMB, x, (y - 1) >> 1)
        # the last rung is left standing
        grounded = (floor | ledge) & ((dy >= 0) | climb_up) & ~climbing
        walk = np.where(dx != 0, np.where(x & 1 == 1, WALK_A, WALK_B), np.where(keys == DOWN, DUCK, STAND))
        pose = np.where(climbing, CLIMBING, np.where(grounded, walk, np.where(dy < 0, RISING, FALLING)))
        right = np.where(side == 0, s.right, side > 0)
        self._state = replace(
            s, x=x, y=y, right=right, rise=rise, climbing=climbing, grounded=grounded, pose=pose, dx=dx, dy=dy,
            tick=s.tick + 1, seen_x=np.clip(s.seen_x, x - self.roam[:, 0], x + self.roam[:, 0]),
            seen_y=np.clip(s.seen_y, y - self.roam[:, 1], y + self.roam[:, 1]),
        )  # fmt: skip
        self._collect()
        if self.enemies:
            self._stomp()

    def build(self, rows: Ints, cols: Ints, solid: Flags) -> None:
        """Make tiles of every game ground or empty, (n,) each; the avatar's own place is left free."""
        s = self._state
        tiles = s.tiles.copy()
        # an avatar between two columns stands in both
        box_rows = np.stack([(s.y - 3) >> 1, (s.y - 1) >> 1], 1)[:, :, None]
        box_cols = np.stack([s.x >> 1, (s.x + 1) >> 1], 1)[:, None, :] % COLS
        was = tiles[self._games[:, None, None], box_rows, box_cols]
        tiles[:, rows, cols % COLS] = np.where(solid, levels.GROUND, EMPTY)
        tiles[self._games[:, None, None], box_rows, box_cols] = was
        levels.autotile(tiles)
        if not self.wardrobe.calm:
            terrains.vary(tiles)
        self._state = replace(s, tiles=tiles)
        floor = self._either(SOLID | ONE_WAY, s.x, s.y >> 1)
        self._state = replace(self._state, grounded=s.grounded & floor)

    def place(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tile row of each row of pixels, (B, H), and tile column of each column, (B, W); rows may lie outside."""
        h = self.tile // 2
        left, above = self._corner(self._state.seen_x, self._state.seen_y)
        rows = above[:, None] + np.arange(self.size[0]) // h
        cols = left[:, None] + (np.arange(self.size[1]) + self._crop) // h
        return rows >> 1, cols >> 1

    def render(self, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The pictures of all games, (B, H, W, 3) uint8: fresh, or written into `out`."""
        self.wardrobe.need(self.looks)
        out = np.empty((len(self), *self.size, 3), np.uint8) if out is None else out
        page = self._page
        for start in range(0, len(self), _AT_ONCE):
            some = self._some(slice(start, start + _AT_ONCE))
            some._draw(page[: len(some)])
            out[start : start + _AT_ONCE] = page[: len(some)]
        return out

    def kinds(self) -> NDArray[np.uint8]:
        """Which of `levels.KINDS` each pixel belongs to, whoever stands before it, (B, H, W)."""
        rows, cols = self.place()
        inside = np.clip(rows, 0, ROWS - 1)[:, :, None], cols[:, None] % COLS
        found: NDArray[np.uint8] = levels.KIND[self._state.tiles[(self._games[:, None, None], *inside)]]
        return found

    def mask(self) -> Flags:
        """Where the avatar is in the picture, (B, H, W)."""
        self.wardrobe.need(self.looks)
        out = np.zeros((len(self), *self.size), bool)
        (rows, cols, _), sprite, (y, x, _) = canvas(self.tile), self._sprite(), self._avatar()
        for i in range(len(self)):
            here, there = _overlap(y[i], x[i], (rows, cols), self.size)
            out[i][here] = self.wardrobe.figure_left[self.looks[i], sprite[i], ..., 0][there] < 128
        light.lean_masks(out, self.wardrobe.tilt[self.looks])
        return out

    def critters(self) -> tuple[Ints, Ints, Flags]:
        """Left edge and feet of the critters in half tiles, and which are there, each (B, COLS // SLOT)."""
        slots = np.arange(COLS // levels.SLOT)
        there = levels.uniforms(self.seeds, 63, slots) < 0.45
        there &= (self._state.stomped[:, None] >> slots) & 1 == 0
        col = slots * levels.SLOT + 2
        rows = np.stack([self.ground[:, col + i] for i in range(_CRITTER_SPAN)])
        there &= (rows == rows[0]).all(0)
        period = 4 * (_CRITTER_SPAN - 1)
        phase = (self._state.tick[:, None] // _CRITTER_PACE + slots * 3) % period
        return 2 * col + np.minimum(phase, period - phase), 2 * rows[0].astype(np.int64), there

    def _index(self) -> None:
        """What depends on the number of games and the size only."""
        self._games = np.arange(len(self.seeds))
        (height, width), t, h = self.size, self.tile, self.tile // 2
        left = (width - t) // 2
        feet = t * int((height / 2 + 0.75 * t) / t + 0.5)
        self._view = -(-left // h), feet // h  # half tiles before the avatar, and above its feet
        self._crop = -left % h
        self._grid = -(-height // h), -(-(width + self._crop) // h)
        self._spot = left, feet  # pixels before the avatar, and above its feet
        self._page = np.empty((min(_AT_ONCE, len(self)), height, width, 3), np.uint8)  # to draw on; holds nothing

    def _start(self, level: levels.Levels) -> tuple[Ints, Ints]:
        pick = levels.uniforms(self.seeds, 60, [0, 1])
        col = (pick[:, 0] * COLS).astype(np.int64)
        column = level.tiles[self._games, :, col]  # (B, ROWS)
        stand = SOLID[column] | ONE_WAY[column]
        stand[:, 2:] &= ~(SOLID[column[:, 1:-1]] | SOLID[column[:, :-2]])
        stand[:, :3] = False
        ground = level.ground[self._games, col]
        row = np.where(pick[:, 1] < 0.3, stand.argmax(1), ground)
        return 2 * col, 2 * row.astype(np.int64)

    def _either(self, table: Flags, x: Ints, row: Ints) -> Flags:
        """Whether either column under the avatar holds a tile of that kind in the row, (B,)."""
        found: Flags = table[self.codes(row, x >> 1)] | table[self.codes(row, (x + 1) >> 1)]
        return found

    def _collect(self) -> None:
        s = self._state
        rows = np.stack([(s.y - 3) >> 1, (s.y - 1) >> 1, (s.y - 3) >> 1, (s.y - 1) >> 1], 1)
        cols = np.stack([s.x >> 1, s.x >> 1, (s.x + 1) >> 1, (s.x + 1) >> 1], 1)
        game, i = np.nonzero(self.codes(rows, cols) == COIN)
        s.tiles[game, rows[game, i], cols[game, i] % COLS] = EMPTY

    def _stomp(self) -> None:
        s = self._state
        x, y, there = self.critters()
        away = (s.x[:, None] - x) % (2 * COLS)
        hit = there & ((away <= 1) | (away == 2 * COLS - 1)) & (s.dy[:, None] > 0) & (y - s.y[:, None] == 1)
        self._state = replace(s, stomped=s.stomped | (hit << np.arange(hit.shape[1])).sum(1))

    def _corner(self, x: Ints, y: Ints) -> tuple[Ints, Ints]:
        """The half tiles in the upper left of the picture when (x, y) is at the avatar's place."""
        left, above = self._view
        return x - left - self.shift[:, 0], y - above - self.shift[:, 1]

    def _half_tiles(self, slow: Ints) -> tuple[Ints, Ints]:
        """Which half tiles are in view, (B, rows) and (B, cols), at full pace (`slow` 0) or half (1)."""
        rows, cols = self._grid
        horizon = 2 * levels.HORIZON
        s = self._state
        left, above = self._corner(s.seen_x >> slow, horizon + ((s.seen_y - horizon) >> slow))
        return above[:, None] + np.arange(rows), left[:, None] + np.arange(cols)

    def _codes(self, maps: NDArray[np.uint8], hy: Ints, hx: Ints) -> NDArray[np.uint8]:
        """The code of each half tile in view, (B, rows, cols)."""
        row = np.clip(hy >> 1, 0, ROWS - 1) + (self._games * ROWS)[:, None]
        codes: NDArray[np.uint8] = maps.reshape(-1).take((row * COLS)[:, :, None] + ((hx >> 1) % COLS)[:, None, :])
        return codes

    def _quarters(self, code: NDArray[np.uint8], hy: Ints, hx: Ints, kinds: int, some: Ints) -> Ints:
        """The place in the wardrobe of `some` half tiles in view, of `kinds` codes a look, (n,)."""
        quarter = ((hy & 1) * 2 + (self.looks * kinds * 4)[:, None])[:, :, None] + (hx & 1)[:, None, :]
        place: Ints = quarter.ravel()[some] + code.ravel()[some].astype(np.int64) * 4
        return place

    def _calm_cells(self) -> NDArray[np.uint8]:
        """The half tiles in view, (B * rows * cols, bytes): a backdrop of tiles, solid tiles, things."""
        w, block = self.wardrobe, (self.tile // 2) ** 2 * 3
        hy, hx = self._half_tiles(w.slow[self.looks])
        code = self._codes(self.backs, hy, hx)
        everywhere = np.arange(code.size)
        cells = w.backs.reshape(-1, block).take(self._quarters(code, hy, hx, levels.N_BACKS, everywhere), 0)
        code = self._codes(self._state.tiles, hy, hx)
        solid = np.flatnonzero(SOLID[code])
        cells[solid] = w.tiles.reshape(-1, block).take(self._quarters(code, hy, hx, levels.N_TILES, solid), 0)
        thin = np.flatnonzero(_THIN[code])
        _lay(cells, thin, w.tiles, w.tile_left, self._quarters(code, hy, hx, levels.N_TILES, thin))
        return cells

    def _full_cells(self) -> NDArray[np.uint8]:
        """The half tiles in view, (B * rows * cols, bytes): sky and ground, backdrop, edges and things."""
        w, block = self.wardrobe, (self.tile // 2) ** 2 * 3
        hy, hx = self._half_tiles(np.zeros_like(self.looks))
        code = self._codes(self._state.tiles, hy, hx)
        inside = _GROUND[code]
        fill = np.where(inside, FILLS - 1, _BAND[np.clip(hy >> 1, 0, ROWS - 1)][:, :, None])
        place = (self.looks[:, None] * (FILLS * 64) + (hy & 7) * 8)[:, :, None] + (hx & 7)[:, None, :]
        cells = w.fills.reshape(-1, block).take((place + fill * 64).ravel(), 0)
        if not (bare := w.bare[self.looks]).all():
            slow = w.slow[self.looks]
            by, bx = self._half_tiles(slow) if slow.any() else (hy, hx)
            back = self._codes(self.backs, by, bx)
            seen = np.flatnonzero((back >= levels.STAR) & ~inside & ~bare[:, None, None])
            _lay(cells, seen, w.backs, w.back_left, self._quarters(back, by, bx, levels.N_BACKS, seen))
        over = np.flatnonzero(_OVER[code])
        _lay(cells, over, w.tiles, w.tile_left, self._quarters(code, hy, hx, levels.N_TILES, over))
        return cells

    def _sprite(self) -> Ints:
        s = self._state
        # on a ladder the hands change with the height
        right = np.where(s.pose == CLIMBING, s.y & 1 == 0, s.right)
        sprite: Ints = np.where(right, s.pose, s.pose + CLIMBING + 1)
        return sprite

    def _avatar(self) -> tuple[Ints, Ints, Flags]:
        """The upper left pixel of the avatars' pictures, y and x, (B,) each, and which of them lie all inside."""
        s, (height, width), h = self._state, self.size, self.tile // 2
        rows, cols, side = canvas(self.tile)
        left, feet = self._spot
        y = feet - rows + (s.y - s.seen_y + self.shift[:, 1]) * h
        x = left - side + (s.x - s.seen_x + self.shift[:, 0]) * h
        return y, x, (y >= 0) & (y <= height - rows) & (x >= 0) & (x <= width - cols)

    def _draw_avatar(self, out: NDArray[np.uint8]) -> None:
        (rows, cols, _), (height, width) = canvas(self.tile), self.size
        sprite, (y, x, inside) = self._sprite(), self._avatar()
        some = np.flatnonzero(inside)
        if len(some):
            # every place in the picture where an avatar's picture fits, as a view
            game, row, pixel, byte = out.strides
            shape = (len(out), height - rows + 1, width - cols + 1, rows, cols * 3)
            places = np.lib.stride_tricks.as_strided(out, shape, (game, row, pixel, row, byte))
            drawn = self.looks[some], sprite[some]
            at = some, y[some], x[some]
            left = self.wardrobe.figure_left[drawn].reshape(-1, rows, cols * 3)
            colours = self.wardrobe.figures[drawn].reshape(-1, rows, cols * 3)
            places[at] = _under(places[at], left) + colours
        for i in np.flatnonzero(~inside):
            here, there = _overlap(y[i], x[i], (rows, cols), self.size)
            left = self.wardrobe.figure_left[self.looks[i], sprite[i]][there]
            out[i][here] = _under(out[i][here], left) + self.wardrobe.figures[self.looks[i], sprite[i]][there]

    def _draw_critters(self, out: NDArray[np.uint8]) -> None:
        s, t, h = self._state, self.tile, self.tile // 2
        x, y, there = self.critters()
        left, feet = self._spot
        away = (x - s.seen_x[:, None] + COLS) % (2 * COLS) - COLS
        top = feet + (y - s.seen_y[:, None] + self.shift[:, 1:]) * h - t
        side = left + (away + self.shift[:, :1]) * h
        seen = there & (top > -t) & (top < self.size[0]) & (side > -t) & (side < self.size[1])
        game, i = np.nonzero(seen)
        if not len(game):
            return
        px = np.arange(t)
        yy, xx = top[game, i][:, None, None] + px[:, None], side[game, i][:, None, None] + px
        beat = (s.tick[game] // _CRITTER_PACE) % 2
        shape = self.wardrobe.critter_mask[self.looks[game], beat]
        shape &= (yy >= 0) & (yy < self.size[0]) & (xx >= 0) & (xx < self.size[1])
        which, a, b = np.nonzero(shape)
        colours = self.wardrobe.critters[self.looks[game], beat][which, a, b]
        out[game[which], yy[which, a, 0], xx[which, 0, b]] = colours


def _overlap(
    y: int, x: int, size: tuple[int, int], outer: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a picture of a size, its corner at (y, x), shows in an outer one: there, and in itself."""
    cuts = [(max(at, 0), max(min(at + n, total), 0), at) for at, n, total in zip((y, x), size, outer, strict=True)]
    here, there = (
        tuple(slice(low - back * at, max(high - back * at, low - back * at)) for low, high, at in cuts)
        for back in (0, 1)
    )
    return (here[0], here[1]), (there[0], there[1])


def _under(below: NDArray[np.uint8], left: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What shows of pixels when `left` of 255 of them is left uncovered: all at 255, nothing at 0."""
    wide = np.multiply(below, left, dtype=np.uint16)
    wide += below
    wide >>= 8
    return wide.astype(np.uint8)


def _lay(
    cells: NDArray[np.uint8], some: Ints, colours: NDArray[np.uint8], left: NDArray[np.uint8], place: Ints
) -> None:
    """Lay tiles of the wardrobe over some of the cells, in place."""
    block = cells.shape[1]
    below = _under(cells[some], left.reshape(-1, block).take(place, 0))
    cells[some] = below + colours.reshape(-1, block).take(place, 0)


_CODES = np.arange(levels.N_TILES)
_THIN = (_CODES != EMPTY) & ~SOLID
_GROUND = (_CODES >= levels.GROUND) & (_CODES < levels.CRATE)
# all but the inside of the ground
_OVER = (_CODES != EMPTY) & ~(_GROUND & ((_CODES - levels.GROUND) & 15 == 0))
_BAND = np.select([np.arange(ROWS) < levels.HORIZON - 11, np.arange(ROWS) < levels.HORIZON - 5], [0, 1], 2)
