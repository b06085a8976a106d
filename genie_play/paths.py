"""Where things lie: what is shipped, and the folders of the person who plays.

Nothing is created on import; user folders are made when first written to.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from genie_play.types import GenieError

APP = "genie-play"
ROOT = Path(__file__).resolve().parent.parent


def models() -> Path:
    """The folder of shipped worlds."""
    return ROOT / "models"


def assets() -> Path:
    """Prompts, sketches, fonts, icons."""
    return ROOT / "assets"


def settings_file() -> Path:
    """`settings.json` in the user's config folder."""
    return Path(_user().user_config_path(APP)) / "settings.json"


def sessions() -> Path:
    """Journals of play-throughs."""
    return Path(_user().user_data_path(APP)) / "sessions"


def pictures() -> Path:
    """GIFs and screenshots."""
    return Path(_user().user_pictures_path()) / "Genie Play"


def logs() -> Path:
    """Log files."""
    return Path(_user().user_log_path(APP))


def kernels() -> Path:
    """Compiled kernels, so that a second start is quick; a cache, and safe to delete."""
    return Path(_user().user_cache_path(APP)) / "kernels"


def worlds() -> Path:
    """Worlds the person trained or was given."""
    return Path(_user().user_data_path(APP)) / "worlds"


def writable(folder: Path) -> Path:
    """Make the folder if need be and return it; GenieError if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GenieError(f"cannot make the folder {folder}: {error.strerror}; choose another") from None
    if not os.access(folder, os.W_OK):
        raise GenieError(f"cannot write to the folder {folder}; choose another")
    return folder


def unused(path: Path) -> Path:
    """The path itself, or with -2, -3, ... before its suffix, whichever does not exist yet. Nothing is overwritten."""
    candidate, n = path, 2
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}-{n}{path.suffix}")
        n += 1
    return candidate


def _user() -> Any:
    # imported when a folder of the person's is asked for: a machine that only measures needs none
    import platformdirs

    return platformdirs
