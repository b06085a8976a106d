"""The avatars and critters of a look. Lengths are eighths of a tile; x to the right, y down."""

from __future__ import annotations

import numpy as np

from genie_play.data.paint import Canvas, Colour, Colours, Style


def figure(pose: str, family: str, style: Style, tile: int, c: Colours) -> Canvas:
    """An avatar facing right: 8 x 12 eighths with room for a rim left, right and above; its feet are the lowest row."""
    kind, pad = style.figure, max(1, tile // 8)
    p = Canvas(8, 12, tile, pad=pad)
    if family == "sketch":
        p.rgb[:] = c["paper"]
        _stick(p, kind, pose, c, style.pen + 0.25)
        halo = Canvas(8, 12, tile, pad=pad)
        halo.mask |= p.mask
        halo.outline(c["paper"])
        p.rgb = np.where(p.mask[..., None], p.rgb, c["paper"])
        p.mask = halo.mask
        return p
    _figure(p, kind, pose, c)
    p.outline(c["outline"])
    return p


def _figure(p: Canvas, kind: str, pose: str, c: Colours) -> None:
    body, trim, skin, eye = c["body"], c["trim"], c["skin"], c["eye"]
    drop = 4 if pose == "duck" else 0
    back = pose == "climb"
    # legs: x of the two feet, and how far they are drawn up
    left, right, up_l, up_r = {
        "stand": (2, 5, 0, 0), "walk-a": (0, 6, 0, 1), "walk-b": (3, 4, 0, 0), "rise": (1, 5, 0, 2),
        "fall": (0, 6, 1, 1), "duck": (1, 5, 0, 0), "climb": (2, 5, 0, 2),
    }[pose]  # fmt: skip
    if kind in ("blob", "ghost"):
        wide, tall, y = {
            "rise": (3.3, 5.2, 5.8), "fall": (4.0, 4.2, 6.2), "duck": (4.0, 3.0, 8.8), "walk-b": (4.0, 4.1, 7.3),
        }.get(pose, (3.8, 4.6, 6.4))  # fmt: skip
        p.rect(left, 9.5, left + 2, 12 - up_l, trim)
        p.rect(right, 9.5, right + 2, 12 - up_r, trim)
        p.disc(4, y, wide, tall, body)
        if kind == "ghost":
            p.rect(4 - wide + 0.3, y, 4 + wide - 0.3, y + tall - 0.2, body)
        else:
            p.rect(3, y - tall - 1.2, 5, y - tall + 0.8, trim)
        if not back:
            p.rect(3, y - 2, 4, y + 0.4, eye)
            p.rect(6, y - 2, 7, y + 0.4, eye)
        _arms(p, pose, y + 1, skin)
        return
    p.rect(left, 9, left + 2, 12 - up_l, trim)
    p.rect(right, 9, right + 2, 12 - up_r, trim)
    p.rect(2, 5 + drop, 6, 10, body)
    _arms(p, pose, 6.0 + drop, skin)
    top = drop
    if kind == "robot":
        p.rect(1, top + 1, 7, top + 5, skin)
        p.rect(3.5, top - 1, 4.5, top + 1, trim)
        if not back:
            p.rect(3, top + 2, 7, top + 4, eye)
    elif kind == "animal":
        p.rect(1, top + 1, 7, top + 5.5, body)
        p.rect(1, top - 1, 3, top + 1, body)
        p.rect(5, top - 1, 7, top + 1, body)
        p.rect(-1, 7 + drop * 0.6, 1, 8 + drop * 0.6, body)
        if not back:
            p.rect(5, top + 3, 8, top + 5, skin)
            p.rect(4, top + 2, 5, top + 3.5, eye)
    elif kind == "knight":
        p.rect(1, top, 7, top + 5, trim)
        p.rect(3, top - 1, 5, top, skin)
        if not back:
            p.rect(3, top + 2, 7, top + 3.5, eye)
    else:
        p.rect(1, top + 1, 7, top + 5, trim if back else skin)
        p.rect(1, top, 7, top + 2, trim)
        p.rect(5, top + 1, 8, top + 2, trim)
        if not back:
            p.rect(5, top + 2.5, 6, top + 4, eye)


def _arms(p: Canvas, pose: str, y: float, colour: Colour) -> None:
    if pose == "rise":
        p.rect(0, y - 4, 1.5, y, colour)
        p.rect(6.5, y - 4, 8, y, colour)
    elif pose == "fall":
        p.rect(-1, y - 1, 2, y + 0.5, colour)
        p.rect(6, y - 1, 9, y + 0.5, colour)
    elif pose == "climb":
        p.rect(0.5, y - 5, 2, y, colour)
        p.rect(6, y - 1, 7.5, y + 2, colour)
    elif pose == "walk-a":
        p.rect(5, y, 8, y + 1.5, colour)
    else:
        p.rect(3, y, 5, y + 2.5, colour)


def _stick(p: Canvas, kind: str, pose: str, c: Colours, pen: float) -> None:
    ink, fill, eye = c["ink"], c["hero"], c["eye"]
    d = 3.5 if pose == "duck" else 0.0
    hip = (4.0, 8.2 + d * 0.5)
    feet = {
        "stand": [(2.4, 11.6), (5.6, 11.6)], "walk-a": [(0.6, 11.6), (7.2, 11.2)], "walk-b": [(3.4, 11.6), (4.8, 11.4)],
        "rise": [(1.6, 11.6), (6.6, 9.6)], "fall": [(0.6, 10.8), (7.4, 10.8)], "duck": [(1.2, 11.6), (6.8, 11.6)],
        "climb": [(2.2, 11.6), (6.0, 10.0)],
    }[pose]  # fmt: skip
    hands = {
        "stand": [(1.8, 8.4), (6.2, 8.4)], "walk-a": [(1.2, 7.6), (7.2, 7.0)], "walk-b": [(3.0, 8.4), (5.6, 8.2)],
        "rise": [(0.6, 2.6), (7.6, 3.2)], "fall": [(-0.4, 5.4), (8.4, 5.4)], "duck": [(0.8, 10.0), (7.2, 10.0)],
        "climb": [(1.2, 1.6), (6.8, 6.0)],
    }[pose]  # fmt: skip
    for foot in feet:
        knee = ((hip[0] + foot[0]) / 2 + (0.8 if pose in ("duck", "rise") else 0.2), (hip[1] + foot[1]) / 2)
        p.stroke([hip, knee, foot], pen, ink)
    if kind in ("bean", "box"):
        top, tall = 1.2 + d, 8.2 - d * 0.7
        if kind == "bean":
            p.disc(4, top + tall / 2, 3.4, tall / 2 + 0.2, fill)
            p.ring(4, top + tall / 2, 3.4, tall / 2 + 0.2, pen, ink)
        else:
            p.rect(0.8, top, 7.2, top + tall - 0.6, fill)
            corners = [(0.8, top), (7.2, top), (7.2, top + tall - 0.6), (0.8, top + tall - 0.6), (0.8, top)]
            p.stroke(corners, pen, ink)
        if pose != "climb":
            p.rect(3.4, top + 2, 4.4, top + 3.6, eye)
            p.rect(5.5, top + 2, 6.5, top + 3.6, eye)
        for hand in hands:
            p.stroke([(1.0 if hand[0] < 4 else 7.0, 5.8 + d * 0.6), hand], pen, ink)
        return
    neck = (4.0, 4.6 + d)
    p.stroke([neck, hip], pen * (2.6 if kind == "stick-fat" else 1.2), fill if kind == "stick-fat" else ink)
    for hand in hands:
        p.stroke([(4.0, 5.6 + d * 0.9), hand], pen, ink)
    p.disc(4.2, 2.2 + d, 2.3, 2.3, fill)
    p.ring(4.2, 2.2 + d, 2.3, 2.3, pen, ink)
    if kind == "cat":
        p.stroke([(2.2, 1.6 + d), (2.0, -0.6 + d), (3.6, 0.4 + d)], pen, ink)
        p.stroke([(4.8, 0.4 + d), (6.4, -0.6 + d), (6.2, 1.6 + d)], pen, ink)
        p.stroke([hip, (0.8, 7.0), (-0.2, 5.0)], pen, ink)
    if pose != "climb":
        p.rect(5, 1.6 + d, 6, 2.8 + d, eye)


def critter(beat: int, family: str, style: Style, tile: int, c: Colours) -> Canvas:
    """A slow enemy, one tile in size, in two beats of its walk."""
    p = Canvas(8, 8, tile)
    if family == "sketch":
        p.rgb[:] = c["paper"]
        p.disc(4, 5, 3.0, 2.6, c["accent2"])
        p.ring(4, 5, 3.0, 2.6, style.pen, c["ink"])
        for x in (2.0, 6.0):
            p.stroke([(x, 7), (x + (1 if beat else -1), 8)], 1.0, c["ink"])
            p.stroke([(x + 0.5, 4.2), (x + 0.5, 5.4)], 1.0, c["ink"])
        return p
    p.rect(1 + beat, 6.5, 3 + beat, 8, c["rim"])
    p.rect(5 - beat, 6.5, 7 - beat, 8, c["rim"])
    p.disc(4, 4.6, 3.4, 3.0, c["foe"])
    p.rect(2, 3, 3, 5, c["eye"])
    p.rect(5, 3, 6, 5, c["eye"])
    return p
