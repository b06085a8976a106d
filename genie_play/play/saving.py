"""What the person keeps: screenshots, the last seconds as a GIF, long recordings. Files are written by jobs.

Knows what the player shows, and folders; nothing of keys, engines or windows.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from genie_play import paths
from genie_play.media import pictures
from genie_play.media.recorder import Recorder, open_recorder
from genie_play.play import clipboard
from genie_play.play.jobs import Jobs
from genie_play.play.player import Player
from genie_play.play.settings import Settings
from genie_play.session.session import PAUSE
from genie_play.types import Pixels

RECENT = 8.0  # seconds that F9 saves
DEBOUNCE = 0.4  # seconds in which a second toggle of the recording is taken for a bounce
ENOUGH = 32  # recent frames that a palette is made from


class Saver:
    """Writes what the player shows into the person's folder, and says what became of it."""

    def __init__(
        self,
        player: Player,
        settings: Settings,
        jobs: Jobs,
        say: Callable[[str], None],
        complain: Callable[[Exception], None],
    ) -> None:
        self._player, self._settings, self._jobs, self._say, self._complain = player, settings, jobs, say, complain
        self._recorder: Recorder | None = None
        self._opening = False
        self._last: tuple[Pixels, float] | None = None  # the frame on screen, and since when
        self._since = self._toggled = -1e9
        self._bytes = 0

    def screenshot(self) -> None:
        """Save the frame as a PNG, enlarged like a GIF would be."""
        pixels = self._player.picture
        if pixels is None:
            return
        large, path = self._large(pixels), self._path(".png")
        self._jobs.start(
            lambda: pictures.save_png(path, large), lambda saved: self._say(f"Saved {_home(saved)}"), self._complain
        )

    def copy(self) -> None:
        """Put the frame on the clipboard, or into a file where the desktop has no way to."""
        pixels = self._player.picture
        if pixels is None:
            return
        large = self._large(pixels)

        def copied(done: bool) -> None:
            if done:
                self._say("Copied this frame")
                return
            self.screenshot()
            self._say("Copying pictures needs wl-clipboard or xclip here; the frame is saved instead")

        self._jobs.start(lambda: clipboard.copy(large), copied, self._complain)

    def recent(self) -> None:
        """Save the last seconds as a GIF."""
        if not self._player.started or self._player.session is None:
            return
        frames = self._player.session.recent(RECENT)
        path, scale = self._path(".gif"), self._settings.values.gif_scale

        def work() -> str:
            recorder = open_recorder(path, scale=scale, palette_frames=[pixels for pixels, _ in frames][-ENOUGH:])
            for pixels, seconds in frames:
                recorder.add(pixels, seconds)
            return _closed(recorder)

        self._jobs.start(work, self._say, self._complain)

    @property
    def recording(self) -> bool:
        """A long recording is running."""
        return self._recorder is not None or self._opening

    def toggle(self, now: float) -> None:
        """Start a long recording, or end it. Two in quick succession are one."""
        if now - self._toggled < DEBOUNCE or self._opening or not self._player.started:
            return
        self._toggled = now
        if self._recorder is not None:
            self.stop(now)
            return
        assert self._player.session is not None
        recent = [pixels for pixels, _ in self._player.session.recent(RECENT)][-ENOUGH:]
        path, scale = self._path(".gif"), self._settings.values.gif_scale
        self._opening, self._since, self._bytes = True, now, 0
        self._last = (self._player.picture, now) if self._player.picture is not None else None
        self._jobs.start(lambda: open_recorder(path, scale=scale, palette_frames=recent), self._opened, self._unopened)

    def frame(self, pixels: Pixels, now: float) -> None:
        """A new frame is on the screen; the one before it was shown until now."""
        if self.recording:
            self._add(now)
            self._last = (pixels, now)

    def stop(self, now: float) -> None:
        """End the long recording, if there is one."""
        if self._recorder is None:
            return
        self._add(now)
        recorder, self._recorder, self._last = self._recorder, None, None
        self._jobs.start(lambda: _closed(recorder), self._say, self._complain)

    def status(self, now: float) -> str:
        """How long and how large the long recording is; "" if there is none."""
        if not self.recording:
            return ""
        return f"{int(now - self._since) // 60}:{int(now - self._since) % 60:02d}  {self._bytes / 2**20:.1f} MB"

    def _opened(self, recorder: Recorder) -> None:
        self._recorder, self._opening = recorder, False
        self._say("Recording. Shift+F9 ends it; the file is complete after every frame")

    def _unopened(self, error: Exception) -> None:
        self._opening = False
        self._complain(error)

    def _add(self, now: float) -> None:
        if self._last is None or self._recorder is None:
            return
        recorder, (pixels, since) = self._recorder, self._last
        # a pause is shortened, as in the last seconds
        seconds = min(max(now - since, 0.0), PAUSE)

        def work() -> int:
            recorder.add(pixels, seconds)
            path = getattr(recorder, "path", None)
            return path.stat().st_size if path is not None and path.exists() else 0

        self._jobs.start(work, self._added, self._complain)

    def _added(self, size: int) -> None:
        self._bytes = size
        if self._recorder is not None and self._recorder.problem:
            self._say(self._recorder.problem)
            self._recorder.close()
            self._recorder = self._last = None

    def _large(self, pixels: Pixels) -> Pixels:
        scale = self._settings.values.gif_scale or pictures.export_scale((pixels.shape[0], pixels.shape[1]))
        return pictures.enlarge(pixels, scale)

    def _path(self, suffix: str) -> Path:
        session, info = self._player.session, self._player.info
        name = f"{info.name if info else 'world'}-s{session.seed if session else 0}"
        return paths.pictures() / f"{file_name(name)}{suffix}"


def file_name(name: str) -> str:
    """A name for a file: plain characters, and the time, so that a folder of them lies in order."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "world"
    return f"{plain[:60]}_{time.strftime('%Y%m%d-%H%M%S')}"


def _closed(recorder: Recorder) -> str:
    """Close a recorder; what to tell of it."""
    path = recorder.close()
    if recorder.problem or path is None:
        return recorder.problem or "There was nothing to save yet"
    seconds = getattr(recorder, "seconds", 0.0)
    return f"Saved {seconds:.1f} s, {path.stat().st_size / 2**20:.1f} MB: {_home(path)}"


def _home(path: Path) -> str:
    """A path as a person would say it."""
    home = str(Path.home())
    return str(path).replace(home, "~", 1) if str(path).startswith(home) else str(path)
