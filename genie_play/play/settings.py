"""`settings.json`: read at the start, written beside and renamed when something changed; unknown keys are kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from genie_play import paths
from genie_play.checkpoint import atomic_write
from genie_play.config import PlaySettings, from_dict, to_dict
from genie_play.types import GenieError


class Settings:
    """The person's settings, and the file they are in."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or paths.settings_file()
        self.values = PlaySettings()
        self.problem = ""  # what could not be used, in a line for the person
        self._file: dict[str, Any] = {}
        self._load()

    def change(self, **values: Any) -> None:
        """Set fields; `save` writes them."""
        self.values = dataclasses.replace(self.values, **values)
        self._file |= {name: to_dict(self.values)[name] for name in values}

    def override(self, **values: Any) -> None:
        """Set fields for this run alone, as flags do; None leaves one as it is."""
        given = {name: value for name, value in values.items() if value is not None}
        self.values = dataclasses.replace(self.values, **given)

    def save(self) -> None:
        """Write the file beside and rename it; GenieError if that fails. A slow disk: let a job do it."""
        text = json.dumps(dict(self._file), indent=2, sort_keys=True) + "\n"
        atomic_write(paths.writable(self.path.parent) / self.path.name, text.encode())

    def _load(self) -> None:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._keep_aside(error)
            return
        if not isinstance(data, dict):
            self._keep_aside(ValueError("it is no JSON object"))
            return
        self._file = data
        known = {field.name for field in dataclasses.fields(PlaySettings)}
        good: dict[str, Any] = {}
        for name in sorted(known & set(data)):
            try:
                from_dict(PlaySettings, {name: data[name]})
            except GenieError as error:
                self.problem = f"{self.path}: {error}; its usual value is used"
                continue
            good[name] = data[name]
        self.values = from_dict(PlaySettings, good)

    def _keep_aside(self, error: Exception) -> None:
        """A file that cannot be read is not written over: it may be one comma from right."""
        aside = paths.unused(self.path.with_suffix(".broken.json"))
        self.problem = f"{self.path} cannot be read ({error}); it is now {aside.name} and the usual settings are used"
        try:
            self.path.rename(aside)
        except OSError:
            self.problem = f"{self.path} cannot be read ({error}); the usual settings are used"
