"""The window: where pygame begins and ends.

Turns SDL's events into plain ones and paints lists of items. Knows nothing of worlds, sessions or what a key means.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

# pygame reads these while it is imported: no greeting, and what a desktop groups the window under
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("SDL_VIDEO_X11_WMCLASS", "genie-play")
os.environ.setdefault("SDL_VIDEO_WAYLAND_WMCLASS", "genie-play")
import pygame

from genie_play.play.items import (
    NIGHT,
    Box,
    Closed,
    Dropped,
    Event,
    Focused,
    Hatch,
    Item,
    Key,
    Mouse,
    Picture,
    Resized,
    Shape,
    Text,
    Typed,
)
from genie_play.play.shapes import FINE, disc, shape
from genie_play.types import GenieError, Pixels

SIZE = (1120, 780)
SMALLEST = 240
_KEPT = 400  # painted texts and shapes kept for the next time


class Window:
    """One resizable window at native pixels. All calls from the main thread."""

    def __init__(self, title: str, size: tuple[int, int] = SIZE, fullscreen: bool = False) -> None:
        _open_display()
        pygame.font.init()
        pygame.display.set_caption(title)
        _set_icon()
        desktop = pygame.display.get_desktop_sizes()[0]
        self._windowed = (min(size[0], desktop[0]), min(size[1], desktop[1]))
        self._last: list[Item] | None = None
        self._kept: OrderedDict[Any, pygame.Surface] = OrderedDict()
        self._fonts: dict[int, pygame.font.Font] = {}
        self._widths: dict[tuple[int, str], int] = {}
        self._scaled: dict[tuple[int, int], pygame.Surface] = {}
        self._down: set[int] = set()
        self.fullscreen = False
        self._set_mode(fullscreen)
        pygame.key.set_repeat(400, 45)
        pygame.key.stop_text_input()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what can be painted on."""
        return self._surface.get_size()

    @property
    def locales(self) -> list[str]:
        """The person's languages, the preferred one first."""
        system = getattr(pygame, "system", None)
        found = system.get_pref_locales() if system is not None else []
        return [str(locale["language"]) for locale in found if locale.get("language")]

    def poll(self) -> list[Event]:
        """What happened since the last call; keeps the window alive, so call it often."""
        found: list[Event] = []
        for event in pygame.event.get():
            if (plain := self._plain(event)) is None:
                continue
            # of a mouse that only moves, the last place is enough
            if found and _moves(plain) and _moves(found[-1]):
                found.pop()
            found.append(plain)
        return found

    def show(self, items: list[Item]) -> bool:
        """Paint a list of items if it differs from the last; whether it did."""
        if items == self._last:
            return False
        rects = self._changed(items)
        for rect in rects:
            self._surface.set_clip(rect)
            self._surface.fill(NIGHT)
            for item in items:
                if rect.colliderect(self._bounds(item)):
                    self._paint(item)
        self._surface.set_clip(None)
        pygame.display.update(rects)
        self._last = list(items)
        return True

    def measure(self, text: str, size: int) -> int:
        """Width of a text in pixels."""
        if (size, text) not in self._widths:
            if len(self._widths) > 10 * _KEPT:
                self._widths.clear()
            self._widths[size, text] = round(self._font(size * FINE).size(text)[0] / FINE)
        return self._widths[size, text]

    def typing(self, on: bool) -> None:
        """Whether characters are wanted beside keys."""
        if on:
            pygame.key.start_text_input()
        else:
            pygame.key.stop_text_input()

    def toggle_fullscreen(self) -> bool:
        """Fill the screen, or go back to a window; which of them it is now."""
        if not self.fullscreen:
            self._windowed = self.size
        self._set_mode(not self.fullscreen)
        return self.fullscreen

    def pixels(self) -> Pixels:
        """What is on the window, (H, W, 3). Slow: for tests and screenshots of the window itself."""
        return pygame.surfarray.array3d(self._surface).swapaxes(0, 1).copy()

    def save(self, path: Path) -> None:
        """Write what is on the window to a picture file."""
        pygame.image.save(self._surface, str(path))

    def paste_text(self) -> str:
        """Text on the clipboard."""
        return pygame.scrap.get_text() if pygame.scrap.has_text() else ""

    def copy_text(self, text: str) -> None:
        """Put text on the clipboard."""
        pygame.scrap.put_text(text)

    def close(self) -> None:
        """Close the window. Twice is fine."""
        pygame.display.quit()

    def _set_mode(self, fullscreen: bool) -> None:
        if fullscreen:
            self._surface = pygame.display.set_mode((0, 0), pygame.FULLSCREEN)
        else:
            self._surface = pygame.display.set_mode(self._windowed, pygame.RESIZABLE)
        self.fullscreen = fullscreen
        self._last = None
        self._scaled.clear()

    def _changed(self, items: list[Item]) -> list[pygame.Rect]:
        """The parts of the window in which a list differs from the last; none touches another."""
        whole = self._surface.get_rect()
        if self._last is None:
            return [whole]
        new, old = set(items), set(self._last)
        rects: list[pygame.Rect] = []
        for rect in (self._bounds(item).clip(whole) for item in new ^ old):
            while (i := rect.collidelist(rects)) >= 0:
                rect = rect.union(rects.pop(i))
            rects.append(rect)
        return rects

    def _bounds(self, item: Item) -> pygame.Rect:
        """What an item can touch."""
        if isinstance(item, Text):
            width, height = self.measure(item.text, item.size) + 4, 2 * item.size
            left = item.x - {"left": 2, "center": width // 2, "right": width - 2}[item.anchor]
            return pygame.Rect(left, item.y - height // 2, width, height)
        if isinstance(item, Shape):
            side = item.radius + item.outline + 2
            return pygame.Rect(item.x - side, item.y - side, 2 * side, 2 * side)
        return pygame.Rect(item.rect)

    def _plain(self, event: pygame.event.Event) -> Event | None:
        kind = event.type
        if kind in (pygame.KEYDOWN, pygame.KEYUP):
            return self._key(event, kind == pygame.KEYDOWN)
        if kind == pygame.TEXTINPUT:
            return Typed(event.text)
        if kind == pygame.MOUSEMOTION:
            return Mouse("move", event.pos)
        if kind in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP):
            down = kind == pygame.MOUSEBUTTONDOWN
            return Mouse("down" if down else "up", event.pos) if event.button == 1 else None
        if kind == pygame.MOUSEWHEEL:
            return Mouse("wheel", pygame.mouse.get_pos(), event.y)
        if kind == pygame.DROPFILE:
            return Dropped(event.file)
        if kind == pygame.DROPTEXT:
            return Dropped(_as_path(event.text))
        if kind in (pygame.WINDOWFOCUSLOST, pygame.WINDOWFOCUSGAINED):
            self._down.clear()
            return Focused(kind == pygame.WINDOWFOCUSGAINED)
        if kind in (pygame.WINDOWSIZECHANGED, pygame.WINDOWEXPOSED, pygame.WINDOWRESTORED):
            self._surface = pygame.display.get_surface() or self._surface
            self._last = None
            return Resized()
        return Closed() if kind == pygame.QUIT else None

    def _key(self, event: pygame.event.Event, down: bool) -> Key:
        repeat = down and event.scancode in self._down
        (self._down.add if down else self._down.discard)(event.scancode)
        # the right Alt types characters on many boards, on some systems as Ctrl+Alt: it is neither here
        altgr = event.mod & (pygame.KMOD_RALT | pygame.KMOD_MODE)
        masks = {"alt": pygame.KMOD_LALT, "shift": pygame.KMOD_SHIFT}
        masks["ctrl"] = 0 if altgr else pygame.KMOD_CTRL | pygame.KMOD_META
        mods = frozenset(name for name, mask in masks.items() if event.mod & mask)
        return Key(event.scancode, pygame.key.name(event.key), down, mods, repeat)

    def _paint(self, item: Item) -> None:
        if isinstance(item, Text):
            if item.text:
                picture = self._keep(item.text, item.size, item.color, make=lambda: self._text(item))
                left = {"left": 0, "center": picture.get_width() // 2, "right": picture.get_width()}[item.anchor]
                self._surface.blit(picture, (item.x - left, item.y - picture.get_height() // 2))
        elif isinstance(item, Box):
            self._box(item)
        elif isinstance(item, Picture):
            self._picture(item)
        elif isinstance(item, Shape):
            key = (item.name, item.radius, item.color, item.outline)
            picture = self._keep(*key, make=lambda: shape(item))
            self._surface.blit(picture, picture.get_rect(center=(item.x, item.y)))
        else:
            self._hatch(item)

    def _keep(self, *key: Any, make: Callable[[], pygame.Surface]) -> pygame.Surface:
        """What was painted for this key before, or what `make` paints now."""
        if key not in self._kept:
            self._kept[key] = make()
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _font(self, size: int) -> pygame.font.Font:
        if size not in self._fonts:
            # pygame's own font, scaled up by what its loader takes off, so that sizes are those of the em
            self._fonts[size] = pygame.font.Font(None, round(max(size, 1) / 0.6875))
        return self._fonts[size]

    def _text(self, item: Text) -> pygame.Surface:
        # painted large and shrunk: at its own size the hinting spaces letters unevenly
        large = self._font(item.size * FINE).render(item.text, True, item.color)
        width, height = large.get_size()
        return pygame.transform.smoothscale(large, (max(round(width / FINE), 1), max(round(height / FINE), 1)))

    def _box(self, box: Box) -> None:
        if box.rect.w <= 0 or box.rect.h <= 0:
            return
        if len(box.color) == 4:
            veil = pygame.Surface(box.rect[2:], pygame.SRCALPHA)
            pygame.draw.rect(veil, box.color, veil.get_rect(), box.outline, box.radius)
            self._surface.blit(veil, box.rect[:2])
            return
        radius = min(box.radius, box.rect.w // 2, box.rect.h // 2)
        self._straight(box, radius)
        if radius == 0:
            return
        corner = self._keep("corner", radius, box.color, box.outline, make=lambda: disc(radius, box.color, box.outline))
        x, y, w, h = box.rect
        for right, low in ((0, 0), (1, 0), (0, 1), (1, 1)):
            place = (x + right * (w - radius), y + low * (h - radius))
            self._surface.blit(corner, place, (right * radius, low * radius, radius, radius))

    def _straight(self, box: Box, radius: int) -> None:
        """All of a box but its round corners."""
        # by fills: pygame's own rectangles get a border where they are clipped
        x, y, w, h = box.rect
        thick = min(box.outline or radius, w, h)
        for part in (
            (x + radius, y, w - 2 * radius, thick),
            (x + radius, y + h - thick, w - 2 * radius, thick),
            (x, y + radius, thick, h - 2 * radius),
            (x + w - thick, y + radius, thick, h - 2 * radius),
        ):
            self._surface.fill(box.color, part)
        if not box.outline:
            self._surface.fill(box.color, (x + radius, y + radius, w - 2 * radius, h - 2 * radius))

    def _picture(self, item: Picture) -> None:
        pixels, (x, y, w, h) = item.pixels, item.rect
        small = pygame.image.frombuffer(pixels.tobytes(), pixels.shape[1::-1], "RGB").convert(self._surface)
        if (w, h) not in self._scaled:
            if len(self._scaled) > 40:
                self._scaled.clear()
            self._scaled[w, h] = pygame.Surface((w, h), 0, self._surface)
        shrink = w < pixels.shape[1] or h < pixels.shape[0]
        scale = pygame.transform.smoothscale if shrink else pygame.transform.scale
        self._surface.blit(scale(small, (w, h), self._scaled[w, h]), (x, y))

    def _hatch(self, hatch: Hatch) -> None:
        x, y, w, h = hatch.rect
        n, gap = hatch.width, hatch.width * 2
        clip = self._surface.get_clip()
        inside = clip.clip(hatch.rect)
        for band in ((x, y, w, n), (x, y + h - n, w, n), (x, y, n, h), (x + w - n, y, n, h)):
            self._surface.set_clip(inside.clip(band))
            self._surface.fill(NIGHT)
            for start in range(x - h - (x - h) % gap, x + w, gap):
                line = (start, y + h), (start + h, y)
                pygame.draw.line(self._surface, hatch.color, *line, max(n // 2, 1))
        self._surface.set_clip(clip)


def _open_display() -> None:
    """Start SDL's video; GenieError where there is no screen (SDL would paint into the void)."""
    asked = os.environ.get("SDL_VIDEODRIVER") or os.environ.get("SDL_VIDEO_DRIVER")
    try:
        pygame.display.init()
    except pygame.error as error:
        raise GenieError(f"there is no display ({error})") from None
    if not asked and pygame.display.get_driver() in ("offscreen", "dummy"):
        pygame.display.quit()
        raise GenieError("there is no display")


def _set_icon() -> None:
    icon = pygame.Surface((64, 64), pygame.SRCALPHA)
    pygame.draw.rect(icon, (86, 180, 233), (4, 4, 56, 56), border_radius=14)
    pygame.draw.circle(icon, (17, 19, 25), (32, 32), 17)
    pygame.draw.polygon(icon, (240, 228, 66), [(27, 22), (44, 32), (27, 42)])
    pygame.display.set_icon(icon)


def _moves(event: Event) -> bool:
    return isinstance(event, Mouse) and event.kind == "move"


def _as_path(text: str) -> str:
    """What was dropped as text, as a path if it is a file's address (some desktops send those)."""
    line = text.strip().splitlines()[0].strip() if text.strip() else ""
    if line.startswith("file:"):
        path = unquote(urlparse(line).path)
        return path.lstrip("/") if sys.platform == "win32" else path
    return line
