"""The tiles and backdrops of a look, in three families: pixel, flat, sketch.

Knows the tile codes of `levels`; knows nothing of seeds or games. Lengths are eighths of a tile.
"""

from __future__ import annotations

import numpy as np

from genie_play.data import levels
from genie_play.data.levels import EAST, NORTH, SOUTH, WEST
from genie_play.data.paint import Canvas, Colour, Colours, Plane, Style, blend


def _fill_tile(kind: str, tile: int, c: Colours, variant: int) -> Canvas:
    """The inside of a ground tile; every kind has an upright edge somewhere, so that sideways motion shows."""
    p = Canvas(8, 8, tile, c["ground"])
    dark, light = c["ground_dark"], c["ground_light"]
    if kind == "bricks":
        for y in (3, 7):
            p.rect(0, y, 8, y + 1, dark)
        p.rect(3, 0, 4, 3, dark)
        p.rect(7, 4, 8, 7, dark)
        if variant:
            p.rect(4, 4, 7, 7, light)
    elif kind == "dirt":
        p.rect(1, 2, 3, 4, dark)
        p.rect(5, 5, 7, 7, light if variant else dark)
        if variant:
            p.rect(5, 1, 6, 2, dark)
    elif kind == "planks":
        for x in (3, 7):
            p.rect(x, 0, x + 1, 8, dark)
        p.rect(0, 0, 1, 8, light)
        if variant:
            p.rect(4, 3, 7, 4, dark)
    elif kind == "blocks":
        p.rect(0, 0, 8, 1, light)
        p.rect(0, 0, 1, 8, light)
        p.rect(0, 7, 8, 8, dark)
        p.rect(7, 0, 8, 8, dark)
        if variant:
            p.rect(3, 3, 5, 5, dark)
    elif kind == "checks":
        p.rect(0, 0, 4, 4, dark)
        p.rect(4, 4, 8, 8, dark)
        if variant:
            p.rect(5, 1, 7, 3, light)
    elif kind == "slant":
        p.fill((p.x + p.y) % 8 < 3 - variant, dark)
    elif kind == "panel":
        p.rect(0, 0, 8, 8, dark)
        p.rect(1, 1, 7, 7, c["ground"])
        p.rect(2, 2, 6, 6, light if variant else blend(c["ground"], light, 0.4))
    elif kind == "cobble":
        p.rect(0, 0, 8, 8, dark)
        p.disc(4, 2, 3.6, 2.0, c["ground"])
        for x in (0, 8):
            p.disc(x, 6, 3.6, 2.0, c["ground"])
        if variant:
            p.rect(2, 1, 4, 2, light)
    elif kind == "layers":
        p.rect(0, 2, 8, 4, dark)
        p.rect(0, 6, 3, 7, light)
        p.rect(5, 5, 6, 6, dark)
        if variant:
            p.rect(4, 4, 8, 6, light)
    elif kind == "diamonds":
        p.fill(np.abs(p.x - 4) + np.abs(p.y - 4) <= 3.1, dark)
        if variant:
            p.fill(np.abs(p.x - 4) + np.abs(p.y - 4) <= 1.6, light)
    elif kind == "seams":
        p.rect(7, 0, 8, 8, dark)
        if variant:
            p.rect(2, 3, 5, 5, dark)
    elif kind == "triangles":
        p.wedge(4, 1, 3, 6, dark)
        if variant:
            p.wedge(4, 1, 3, 6, light)
    elif kind == "dots":
        p.disc(4, 4, 2.2, 2.2, light if variant else dark)
    elif kind == "arches":
        p.rect(0, 0, 8, 8, dark)
        p.disc(4, 6, 3.6, 5.4, c["ground"])
        p.rect(0.6, 6, 7.4, 8, c["ground"])
        if variant:
            p.disc(4, 5.5, 1.3, 1.3, light)
    elif kind == "bars":
        p.rect(0, 0, 3, 8, dark)
        if variant:
            p.rect(5, 2, 6, 6, light)
    elif kind == "plain-blocks":
        p.rect(0, 7, 8, 8, dark)
        p.rect(7, 0, 8, 8, dark)
        if variant:
            p.rect(1, 1, 3, 3, light)
    else:  # steps
        p.rect(0, 0, 4, 8, dark)
        p.rect(4, 4, 8, 8, dark)
        if variant:
            p.rect(1, 1, 3, 3, light)
    return p


def _fill_sketch(kind: str, tile: int, c: Colours, variant: int, phase: float) -> Canvas:
    """The inside of a drawn ground tile: strokes on paper that meet those of the next tile."""
    p = Canvas(8, 8, tile, c["ground"])
    soft, ink = c["hatch"], c["ink"]
    if kind == "hatch":
        p.ink(np.abs((p.x + p.y + phase) % 8 - 4) / 1.414, 1.0, soft)
        if variant:
            p.stroke([(2, 3), (5, 3)], 1.0, soft)
    elif kind == "ticks":
        p.stroke([(2.5, 1 + phase / 4), (2, 4)], 1.0, soft)
        if variant:
            p.stroke([(6.5, 4), (5.5, 6.5)], 1.0, soft)
    elif kind == "scribble":
        p.stroke([(0, 6), (2, 2), (3.5, 6), (5.5, 2), (8, 6)], 1.0, soft)
    elif kind == "cross":
        p.ink(np.abs((p.x + p.y + phase) % 8 - 4) / 1.414, 0.9, soft)
        p.ink(np.abs((p.x - p.y + phase) % 8 - 4) / 1.414, 0.9, soft)
    elif kind == "masonry":
        p.stroke([(0, 7.5), (8, 7.5)], 1.0, soft)
        p.stroke([(3.5, 4), (3.5, 7.5)] if variant else [(7.5, 0), (7.5, 7.5)], 1.0, soft)
        p.stroke([(0, 3.5), (8, 3.5)], 1.0, soft)
        if variant:
            p.stroke([(7.5, 0), (7.5, 3.5)], 1.0, soft)
    elif kind == "dots":
        p.disc(2.2, 2.5, 0.9, 0.9, soft)
        p.disc(6.0, 6.2, 0.9, 0.9, soft)
        if variant:
            p.ring(5, 3.5, 1.8, 1.5, 0.9, ink)
    else:  # wash
        p.rgb[:] = c["wash"]
        p.stroke([(7.3, 0), (7.3, 8)] if not variant else [(3, 1), (3.4, 6)], 0.8, soft)
    return p


def ground_tiles(family: str, style: Style, tile: int, c: Colours) -> Plane:
    """The 32 ground tiles, (32, t, t, 3): variant * 16 + mask of open sides."""
    out = np.empty((32, tile, tile, 3))
    for variant in range(2):
        if family == "sketch":
            base = _fill_sketch(style.fill, tile, c, variant, style.bends[0] * 4)
        else:
            base = _fill_tile(style.fill, tile, c, variant)
        for mask in range(16):
            p = Canvas(8, 8, tile)
            p.rgb[:] = base.rgb
            if family == "sketch":
                _sketch_edges(p, mask, style, c, variant)
            else:
                _edges(p, mask, style.top, c, variant)
            out[variant * 16 + mask] = p.rgb
    return out


def _edges(p: Canvas, mask: int, top: str, c: Colours, variant: int) -> None:
    rim = c["rim"]
    if mask & SOUTH:
        p.rect(0, 7, 8, 8, rim)
    if mask & WEST:
        p.rect(0, 0, 1, 8, rim)
    if mask & EAST:
        p.rect(7, 0, 8, 8, rim)
    if not mask & NORTH:
        return
    grass, dark, light = c["top"], c["top_dark"], c["top_light"]
    if top == "fringe":
        p.rect(0, 0, 8, 2, grass)
        for x in (0, 4) if not variant else (2, 5):
            p.rect(x, 2, x + 2, 3 + (x > 3), grass)
        p.rect(0, 0, 8, 1, light)
    elif top == "cap":
        p.rect(0, 0, 8, 2, grass)
        p.disc(2, 2, 2.2, 1.8, grass)
        p.disc(6, 2, 2.2, 2.6 if variant else 1.2, grass)
    elif top == "plate":
        p.rect(0, 0, 8, 2, grass)
        p.rect(0, 2, 8, 3, dark)
        p.rect(7, 0, 8, 2, dark)
    elif top == "thick":
        p.rect(0, 0, 8, 4, grass)
        p.rect(0, 3, 8, 4, dark)
        p.rect(2 + 3 * variant, 1, 3 + 3 * variant, 3, light)
    else:
        p.rect(0, 0, 8, 1, light)
        p.rect(0, 1, 8, 2, grass)


def _sketch_edges(p: Canvas, mask: int, style: Style, c: Colours, variant: int) -> None:
    ink, width, top = c["ink"], style.pen, style.top
    bend = style.bends[1 + variant] * 0.7
    if mask & SOUTH:
        p.stroke([(0, 7.3), (4, 7.3 - abs(bend)), (8, 7.3)], width, ink)
    if mask & WEST:
        p.stroke([(0.7, 0), (0.7 + abs(bend), 4), (0.7, 8)], width, ink)
    if mask & EAST:
        p.stroke([(7.3, 0), (7.3 - abs(bend), 4), (7.3, 8)], width, ink)
    if not mask & NORTH:
        return
    if top in ("cap", "thick"):
        p.rect(0, 1, 8, 3, c["turf"])
    p.stroke([(0, 0.8), (2.5, 0.8 + abs(bend)), (5.5, 0.7), (8, 0.8)], width, ink)
    if top in ("fringe", "plate"):
        for x in (1.5, 5.0) if not variant else (3.0, 6.5):
            p.stroke([(x, 1), (x - 0.8, 3.2)], 0.9, c["turf_ink"])
    elif top == "thick":
        p.stroke([(0, 3.2), (8, 3.2)], 0.9, ink)


def thing_tile(code: int, family: str, style: Style, tile: int, c: Colours) -> Canvas:
    """A tile that is no ground: crate, ledge, ladder, coin, plant and so on."""
    p = Canvas(8, 8, tile, c["ground"] if levels.SOLID[code] else None)
    if family == "sketch":
        p.rgb[:] = c["paper"]
        sketch_thing(p, code, c, style)
    else:
        painted_thing(p, code, c, family)
    return p


def painted_thing(p: Canvas, code: int, c: Colours, family: str) -> None:
    """Draw a thing as in pixel art or flat pictures."""
    rim = c["rim"]
    if code == levels.CRATE:
        p.rect(0, 0, 8, 8, c["crate_dark"])
        p.rect(1, 1, 7, 7, c["crate"])
        if family == "pixel":
            p.fill(np.abs(p.x - p.y) < 0.9, c["crate_dark"])
        else:
            p.rect(3, 3, 5, 5, c["crate_dark"])
    elif code == levels.BRICK:
        p.rect(0, 0, 8, 8, c["brick"])
        p.rect(0, 7, 8, 8, c["brick_dark"])
        p.rect(7, 0, 8, 8, c["brick_dark"])
        if family == "pixel":
            p.rect(0, 3, 8, 4, c["brick_dark"])
            p.rect(3, 0, 4, 3, c["brick_dark"])
    elif levels.LEDGE <= code < levels.LADDER:
        left, right = (code - levels.LEDGE) & 1, (code - levels.LEDGE) & 2
        p.rect(0, 0, 8, 3, c["ledge"])
        p.rect(0, 2, 8, 3, c["ledge_dark"])
        p.rect(3, 0, 4, 2, c["ledge_dark"])
        p.rect(1 if left else 2, 3, 2 if left else 3, 5 if left else 3, c["ledge_dark"])
        if right:
            p.rect(6, 3, 7, 5, c["ledge_dark"])
    elif code in (levels.LADDER, levels.LADDER_TOP):
        for x in (1, 6):
            p.rect(x, 0, x + 1, 8, c["ladder"])
        for y in (2, 6):
            p.rect(1, y, 7, y + 1, c["ladder"])
        if code == levels.LADDER_TOP:
            p.rect(0, 0, 8, 2, c["ledge"])
    elif code == levels.COIN:
        p.disc(4, 4, 2.6, 2.9, rim)
        p.disc(4, 4, 1.9, 2.3, c["coin"])
    elif code == levels.TUFT:
        for x, h in ((1, 2), (3, 4), (5, 3), (7, 2)):
            p.rect(x - 0.5, 8 - h, x + 0.5, 8, c["leaf"])
    elif code == levels.BUSH:
        p.disc(4, 7, 3.8, 4, c["leaf_dark"])
        p.disc(3.5, 6.5, 2.4, 2.4, c["leaf"])
    elif code == levels.ROCK:
        p.disc(4, 8, 3.6, 4, c["ground_dark"])
        p.disc(3.4, 7.4, 2, 2.2, c["ground_light"])
    elif code == levels.TRUNK:
        p.rect(3, 0, 5, 8, c["trunk"])
    elif code == levels.CROWN:
        p.rect(3, 6, 5, 8, c["trunk"])
        if family == "pixel":
            p.disc(4, 3.5, 3.9, 3.6, c["leaf_dark"])
            p.disc(3.5, 3, 2.6, 2.3, c["leaf"])
        else:
            p.wedge(4, 0, 4, 7, c["leaf"])
    elif code == levels.FENCE:
        for x in (1, 5):
            p.rect(x, 3, x + 2, 8, c["ladder"])
        p.rect(0, 5, 8, 6, c["ladder"])
    elif code == levels.POOL:
        p.rect(0, 2, 8, 8, c["pool"])
        p.rect(0, 2, 4, 3, c["pool_light"])
    elif code == levels.FLOWER:
        p.rect(3.5, 5, 4.5, 8, c["leaf_dark"])
        p.disc(4, 3.6, 1.9, 1.9, c["flower"])


def sketch_thing(p: Canvas, code: int, c: Colours, style: Style) -> None:
    """Draw a thing with a pen."""
    ink, pen, soft, bend = c["ink"], style.pen, c["hatch"], style.bends[3]
    if code in (levels.CRATE, levels.BRICK):
        p.rgb[:] = c["wash"] if code == levels.BRICK else c["paper"]
        p.stroke([(0.7, 0.7), (7.3, 0.7 + bend), (7.3, 7.3), (0.7, 7.3), (0.7, 0.7)], pen, ink)
        p.stroke([(1, 1), (7, 7)] if code == levels.CRATE else [(1, 4), (7, 4)], 0.9, soft)
    elif levels.LEDGE <= code < levels.LADDER:
        left, right = (code - levels.LEDGE) & 1, (code - levels.LEDGE) & 2
        p.rect(0, 0, 8, 3, c["paper"])
        p.stroke([(0.7 if left else 0, 0.8), (4, 0.8 + bend * 0.5), (7.3 if right else 8, 0.8)], pen, ink)
        p.stroke([(0.7 if left else 0, 3), (7.3 if right else 8, 3)], 0.9, ink)
        p.stroke([(3.5, 1), (2.5, 3)], 0.9, ink)
        if left:
            p.stroke([(0.6, 0.8), (0.6, 3)], pen, ink)
        if right:
            p.stroke([(7.4, 0.8), (7.4, 3)], pen, ink)
    elif code in (levels.LADDER, levels.LADDER_TOP):
        p.stroke([(1.5, 0), (1.5 + bend * 0.5, 4), (1.5, 8)], pen, ink)
        p.stroke([(6.5, 0), (6.5 - bend * 0.5, 4), (6.5, 8)], pen, ink)
        for y in (2.5, 6.5):
            p.stroke([(1.5, y), (6.5, y + bend * 0.5)], 0.9, ink)
        if code == levels.LADDER_TOP:
            p.stroke([(0, 0.8), (8, 0.8)], pen, ink)
    elif code == levels.COIN:
        p.disc(4, 4, 2.5, 2.5, c["accent"])
        p.ring(4, 4, 2.5, 2.5, pen, ink)
    elif code == levels.TUFT:
        for x, dx in ((2.0, -1.0), (4.0, 0.5), (6.0, 1.0)):
            p.stroke([(x, 8), (x + dx, 4.5)], 1.0, c["turf_ink"])
    elif code == levels.BUSH:
        p.disc(4, 8, 3.4, 4.2, c["turf"])
        p.ring(4, 8, 3.4, 4.2, pen, c["turf_ink"])
    elif code == levels.ROCK:
        p.disc(4, 8, 3.3, 3.4, c["paper"])
        p.ring(4, 8, 3.3, 3.4, pen, ink)
        p.stroke([(4, 6), (5, 7.5)], 0.9, soft)
    elif code == levels.TRUNK:
        for x in (3.0, 5.2):
            p.stroke([(x, 0), (x + bend * 0.4, 4), (x, 8)], 1.0, ink)
    elif code == levels.CROWN:
        for x in (3.0, 5.2):
            p.stroke([(x, 6), (x, 8)], 1.0, ink)
        p.disc(4, 3.5, 3.3, 3.0, c["turf"])
        p.ring(4, 3.5, 3.3, 3.0, pen, c["turf_ink"])
    elif code == levels.FENCE:
        for x in (1.5, 6.0):
            p.stroke([(x, 8), (x + bend * 0.4, 3)], pen, ink)
        p.stroke([(0, 5), (8, 5 + bend * 0.5)], 0.9, ink)
    elif code == levels.POOL:
        p.rect(0, 3, 8, 8, c["pool"])
        p.stroke([(0, 3), (2, 2.2), (4, 3), (6, 3.8), (8, 3)], 1.0, c["pool_light"])
    elif code == levels.FLOWER:
        p.stroke([(4, 8), (4 + bend, 5)], 1.0, c["turf_ink"])
        p.disc(4, 3.5, 1.7, 1.7, c["accent2"])
        p.ring(4, 3.5, 1.7, 1.7, 0.9, ink)


def back_tiles(family: str, style: Style, tile: int, c: Colours) -> Plane:
    """The backdrop tiles, (N_BACKS, t, t, 3), in the order of the codes of `levels`."""
    out = np.zeros((levels.N_BACKS, tile, tile, 3))
    draw = sketch_back if family == "sketch" else painted_back
    for code in range(levels.SUN):
        if code < levels.STAR:
            band, kind = code // 2, f"sky-{code % 2}"
        elif code < levels.CLOUD:
            band, kind = code - levels.STAR, "star"
        elif code < levels.FAR:
            band, kind = (code - levels.CLOUD) // 3, f"cloud-{(code - levels.CLOUD) % 3}"
        else:
            band, kind = 2, f"far-{code - levels.FAR}"
        p = Canvas(8, 8, tile, c[f"sky{band}"])
        draw(p, kind, style, c, band)
        out[code] = p.rgb
    return out


def painted_back(p: Canvas, kind: str, style: Style, c: Colours, band: int) -> None:
    """Draw a piece of a painted backdrop."""
    sky, mark, cloud, far, far_dark = c[f"sky{band}"], c[f"mark{band}"], c[f"cloud{band}"], c["far"], c["far_dark"]
    motif, odd = style.motif, kind == "sky-1"
    if motif == "stripes" and odd:
        p.rect(0, 0, 8, 8, mark)
    elif motif == "dots":
        p.rect(3, 3, 5, 5, mark)
    elif motif == "plus" and odd:
        p.rect(3, 1, 5, 7, mark)
        p.rect(1, 3, 7, 5, mark)
    elif motif == "slant":
        p.fill((p.x + p.y) % 8 < 2, mark)
    elif motif == "bars":
        p.rect(0, 0, 2 + 2 * odd, 8, mark)
    elif motif == "panes":
        p.rect(0, 0, 1, 8, mark)
        p.rect(0, 0, 8, 1, mark)
    if kind == "star":
        if style.lights == "star":
            p.rect(3, 2, 5, 4, c["star"])
        else:
            p.rect(2, 2, 4, 6, cloud)
            p.rect(1, 3, 5, 5, cloud)
    elif kind == "cloud-0":
        p.disc(8, 5, 6.5, 3, cloud)
    elif kind == "cloud-1":
        p.disc(4, 4.4, 6, 3.9, cloud)
    elif kind == "cloud-2":
        p.disc(0, 5, 6.5, 3, cloud)
    elif kind.startswith("far-"):
        _painted_range(p, int(kind[4:]), style.range, far, far_dark, sky)


def _painted_range(p: Canvas, part: int, kind: str, far: Colour, dark: Colour, sky: Colour) -> None:
    """Parts: 0 1 inside (columns even, odd), 2 inside with a mark, 3.. crest + 1 (falls left) + 2 (falls right)."""
    crest, falls = part >= 3, part - 3
    if not crest or kind in ("city", "mesas", "pillars"):
        p.rect(0, 0, 8, 8, far)
        if kind in ("pillars", "city") or part == 1:
            p.rect(6, 0, 8, 8, dark)
        if part == 2:
            p.rect(2, 2, 4, 5, dark)
        if crest and kind == "mesas":
            p.rect(0, 0, 8, 2, dark)
        return
    if kind == "pines":
        p.rect(0, 4, 8, 8, far)
        p.wedge(4, 0, 4, 8, far)
    elif kind == "peaks" and falls == 3:
        p.wedge(4, 0, 4, 8, far)
        p.wedge(4, 0, 1.6, 3, dark)
    else:
        height = {0: np.zeros_like(p.x), 1: 8 - p.x, 2: p.x, 3: np.abs(p.x - 4) * 2}[falls]
        if kind == "hills":
            height = height * height / 8
        p.fill(p.y >= height, far)


def sketch_back(p: Canvas, kind: str, style: Style, c: Colours, band: int) -> None:
    """Draw a piece of a drawn backdrop."""
    rule, pale = c["rule"], c["pale"]
    paper, pen = style.paper, 0.9
    if paper in ("squared", "squared-fine"):
        for at in (0.5,) if paper == "squared" else (0.5, 4.5):
            p.rect(at - 0.5, 0, at + 0.5, 8, rule)
            p.rect(0, at - 0.5, 8, at + 0.5, rule)
    elif paper == "lined":
        p.rect(0, 7, 8, 8, rule)
    elif paper == "dotted":
        p.rect(3, 3, 5, 5, rule)
    if kind == "star":
        if style.lights == "star":
            p.stroke([(4, 2), (4, 6)], pen, pale)
            p.stroke([(2, 4), (6, 4)], pen, pale)
        else:
            p.stroke([(1, 5), (3, 3.5), (4, 5), (5, 3.5), (7, 5)], pen, pale)
    elif kind == "cloud-0":
        p.stroke([(8, 6.5), (2, 6.5), (1.2, 5), (3, 3.5), (5, 2.2), (8, 2)], pen, pale)
    elif kind == "cloud-1":
        p.stroke([(0, 2), (3, 0.8), (6, 1), (8, 2)], pen, pale)
        p.stroke([(0, 6.5), (8, 6.5)], pen, pale)
    elif kind == "cloud-2":
        p.stroke([(0, 6.5), (6, 6.5), (6.8, 5), (5, 3.5), (3, 2.2), (0, 2)], pen, pale)
    elif kind.startswith("far-"):
        part = int(kind[4:])
        if part >= 3:
            left, right = (8 if part in (4, 6) else 0.5), (8 if part in (5, 6) else 0.5)
            p.stroke([(0, left), (4, (left + right) / 2 if part < 6 else 1), (8, right)], pen, pale)
        elif part == 2:
            p.stroke([(2, 6), (4, 2), (6, 6)], pen, pale)
        elif part == 1 and style.range in ("hills", "peaks", "pillars"):
            p.stroke([(4, 1), (3, 5)], pen, pale)
