"""Once in a real window: Xvfb, a small window manager, keys pressed by xdotool on a US and a French board."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from genie_play.paths import ROOT
from genie_play.session import journal

NEEDED = ("Xvfb", "openbox", "xdotool", "setxkbmap")
missing = [name for name in NEEDED if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

PROGRAM = """
import sys, time
from pathlib import Path
from genie_play.play import app
def play():
    real = app.Window
    def noted(*arguments):
        window = real(*arguments)
        print(f"window {time.process_time():.3f} torch {'torch' in sys.modules}", flush=True)
        return window
    app.Window = noted
    return app.play("platformer", None, 3, "cpu", False, Path(sys.argv[1]))
if __name__ == "__main__":
    sys.exit(play())
"""


@pytest.fixture
def display() -> Iterator[dict[str, str]]:
    reader, writer = os.pipe()
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x900x24", "-nolisten", "tcp"],
        pass_fds=[writer], stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        os.close(writer)
        with os.fdopen(reader) as line:
            number = line.readline().strip()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SDL_VIDEO")}
        environment |= {"DISPLAY": f":{number}", "PYTHONPATH": str(ROOT)}
        environment.pop("WAYLAND_DISPLAY", None)
        Path(environment["HOME"]).mkdir(parents=True)
        with subprocess.Popen(["openbox"], env=environment, stderr=subprocess.DEVNULL) as manager:
            # a window that opens before its manager waits for it
            wait_for(lambda: _works(environment, "xdotool", "get_desktop"))
            yield environment
            manager.terminate()
        server.terminate()


def wait_for(what, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_played_with_real_keys(display, tmp_path):
    stats = tmp_path / "stats.jsonl"
    folder = Path(display["XDG_DATA_HOME"]) / "genie-play" / "sessions"

    def do(*command: str) -> str:
        return subprocess.run(command, env=display, capture_output=True, text=True, check=True).stdout

    def actions() -> list[int]:
        files = list(folder.glob("*.gplay"))
        return [move.action for move in journal.read(files[0]).history().moves] if files else []

    game = subprocess.Popen([sys.executable, "-c", PROGRAM, str(stats)], env=display, stdout=subprocess.PIPE, text=True)
    try:
        opened = game.stdout.readline().split()
        assert float(opened[1]) < 1.5  # seconds of processor time: whatever else this machine does
        assert opened[3] == "False"
        wait_for(lambda: _works(display, "xdotool", "search", "--class", "genie-play"))
        window = do("xdotool", "search", "--class", "genie-play").split()[0]
        do("xdotool", "windowfocus", "--sync", window)
        time.sleep(1.0)
        do("xdotool", "key", "d")
        wait_for(lambda: actions() == [2])  # right, on E
        do("xdotool", "keydown", "a", "sleep", "1.0", "keyup", "a")
        wait_for(lambda: actions().count(1) >= 4)
        held = actions().count(1)
        do("xdotool", "key", "3")
        wait_for(lambda: actions()[-1] == 2 and len(actions()) > held + 1)
        do("xdotool", "key", "F8")
        pictures = Path(display["XDG_PICTURES_DIR"])
        wait_for(lambda: list(pictures.rglob("*.png")))
        # the same places on a French board, where W is Z and A is Q: positions count
        do("setxkbmap", "fr")
        time.sleep(0.3)
        before = len(actions())
        do("xdotool", "key", "q")
        wait_for(lambda: len(actions()) == before + 1)
        assert actions()[-1] == 1
        do("xdotool", "key", "ctrl+q")
        assert game.wait(20) == 0
    finally:
        if game.poll() is None:
            game.send_signal(signal.SIGKILL)
            game.wait()
        game.stdout.close()
    last = json.loads(stats.read_text().splitlines()[-1])
    assert last["state"] == "closed"
    assert last["frames"] == len(actions())
    assert last["key_to_picture_ms"]["n"] >= 4


def _works(environment: dict[str, str], *command: str) -> bool:
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
