"""Pictures on the clipboard, which SDL knows nothing of: Pillow fetches them, the desktop's own programs take them."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageGrab

from genie_play.media import pictures
from genie_play.types import Pixels, SourceError

# they read a PNG and stay behind as the clipboard's owner
WRITERS = (["wl-copy", "--type", "image/png"], ["xclip", "-selection", "clipboard", "-t", "image/png", "-i"])
_NONE = "there is no picture on the clipboard; copy one first, or drop a file on the window"


def paste() -> bytes | Path:
    """The picture on the clipboard, as the bytes of a PNG or as a file; SourceError if there is none."""
    try:
        found = ImageGrab.grabclipboard()
    except NotImplementedError:
        raise SourceError(
            "pasting pictures needs wl-clipboard (Wayland) or xclip (X11); drop the file instead"
        ) from None
    except (OSError, ValueError, subprocess.SubprocessError):
        raise SourceError(_NONE) from None
    if isinstance(found, list):
        if not found:
            raise SourceError(_NONE)
        return Path(found[0])
    if not isinstance(found, Image.Image):
        raise SourceError(_NONE)
    return _png(found)


def copy(pixels: Pixels) -> bool:
    """Put pixels (H, W, 3) on the clipboard as a picture; False where this desktop has no way to."""
    data = pictures.to_png(pixels)
    if sys.platform == "darwin":
        script = f"set the clipboard to «data PNGf{data.hex()}»"
        return _feed(["osascript", "-"], script.encode())
    return any(_feed(command, data) for command in WRITERS if shutil.which(command[0]))


def _feed(command: list[str], data: bytes) -> bool:
    try:
        done = subprocess.run(
            command, input=data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
