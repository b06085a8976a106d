"""What every test stands on: no screen, one thread, empty user folders, memory that is never zero by luck."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# before pygame or torch can be imported, and for the processes that tests start
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# where no fixture has said otherwise yet, nothing of the person's is read or written either
_NOBODY = tempfile.TemporaryDirectory(prefix="genie-play-tests-")
USER_FOLDERS = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_PICTURES_DIR")
os.environ.update(dict.fromkeys(USER_FOLDERS, _NOBODY.name))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden; read the diff")


@pytest.fixture(autouse=True)
def user_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders of the person who plays, for each test."""
    folder = tmp_path_factory.mktemp("user")
    for name in USER_FOLDERS:
        monkeypatch.setenv(name, str(folder / name.lower()))
    return folder


@pytest.fixture(autouse=True)
def _steady_torch() -> None:
    """One thread, and `torch.empty` full of NaN; only where torch is in use anyway."""
    if (torch := sys.modules.get("torch")) is not None and not torch.are_deterministic_algorithms_enabled():
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)  # without it the next line does nothing
        torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Compare integers with a file of tests/golden, or write it under --update-golden."""

    def compare(name: str, found: Any) -> None:
        path = Path(__file__).parent / "golden" / f"{name}.json"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(found))

    return compare
