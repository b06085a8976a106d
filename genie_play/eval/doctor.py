"""Is this machine ready: what is installed, what works, and what to do about the rest.

Asks only this machine. pygame is asked in a process of its own, because this tower does not import it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from genie_play import __version__, checkpoint, paths
from genie_play.types import GenieError

OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 11)
PIP = f"{sys.executable} -m pip"
NO_PATH = (
    "what is played here is not what it should be, and replays made here may not verify\n"
    "delete the folder .venv, run: python3 launch.py doctor --deep, and report it if it is still so"
)
TWO_PYGAMES = f"run: {PIP} uninstall -y pygame pygame-ce\nthen: {PIP} install pygame-ce"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `state` is "ok", "note" (works, could be better), "failed" (a path that computes
    something else, and is not used) or "problem"."""

    name: str
    state: str
    detail: str
    fix: str = ""  # what to do, a line a step
    path: str = ""  # what a check speaks for, such as cpu/int8; empty where it is no check


def examine(deep: bool = False, say: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Look at everything; `deep` also checks what each shipped world computes, on every path, and writes down which
    paths may be used. That takes seconds a world; `say` is told how far it is."""
    parts: list[Callable[[], Iterator[Finding]]] = [_python, _torch, _kernels, _pygame, _extras, _folders, _worlds]
    if deep:
        parts.append(lambda: _paths(say))
    findings: list[Finding] = []
    for part in parts:
        try:
            for finding in part():
                findings.append(finding)
        except Exception as error:  # a doctor that falls ill says where, and goes on
            name = "paths" if part.__name__ == "<lambda>" else part.__name__.strip("_")
            findings.append(Finding(name, "problem", f"{type(error).__name__}: {error}"))
    return findings


def ready(findings: list[Finding]) -> bool:
    """Whether nothing stands in the way of playing."""
    return all(finding.state != "problem" for finding in findings)


def differs(findings: list[Finding]) -> bool:
    """Whether some check found other numbers than it should have."""
    return any(finding.path and finding.state in ("failed", "problem") for finding in findings)


def _python() -> Iterator[Finding]:
    version, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    good = sys.version_info >= OLDEST_PYTHON
    fix = "" if good else "install Python {}.{} or newer".format(*OLDEST_PYTHON)
    yield Finding("genie-play", "ok", __version__)
    yield Finding("python", "ok" if good else "problem", f"{version} on {system}, {os.cpu_count()} cores", fix)


def _torch() -> Iterator[Finding]:
    again = "delete the folder .venv, then run: python3 launch.py doctor"
    if find_spec("torch") is None:
        yield Finding("torch", "problem", "not installed", again)
        return
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "problem", f"cannot be imported: {error}", again)
        return
    new_enough = tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2]) >= OLDEST_TORCH
    fix = "" if new_enough else "update it: {}.{} is the oldest that works".format(*OLDEST_TORCH)
    yield Finding("torch", "ok" if new_enough else "problem", torch.__version__, fix)
    threads = f"{torch.get_num_threads()} threads"
    yield Finding("cpu", "ok", f"{torch.backends.cpu.get_cpu_capability()}, {threads}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            yield Finding("gpu", "ok", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB")
    elif _has_nvidia_driver() and torch.version.cuda is None:
        yield Finding("gpu", "note", "an NVIDIA driver is here, but torch is a build for the CPU", again)
    else:
        yield Finding("gpu", "note", "none that torch can use; worlds run on the CPU")


def _kernels() -> Iterator[Finding]:
    try:
        yield Finding("triton", "ok", metadata.version("triton"))
    except metadata.PackageNotFoundError:
        yield Finding("triton", "note", "not installed; only GPUs need it")
    if find_spec("torch") is None:
        return
    import torch

    from genie_play import ops

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen, _ = ops.choose(device)
        yield Finding("kernels", "ok", f"{', '.join(ops.available())}; {chosen} on {device}")
    except GenieError as error:
        yield Finding("kernels", "problem", str(error))


def _pygame() -> Iterator[Finding]:
    have = [name for name in ("pygame", "pygame-ce") if _installed(name)]
    if len(have) == 2:
        # they overwrite each other's files, and what is left is neither
        yield Finding("pygame", "problem", "both pygame and pygame-ce are installed", TWO_PYGAMES)
        return
    if not have:
        yield Finding("pygame", "problem", "not installed", f"run: {PIP} install pygame-ce")
        return
    yield Finding("pygame", "ok", f"{have[0]} {metadata.version(have[0])}")
    driver = _display_driver()
    if driver is None or driver in ("dummy", "offscreen"):
        detail = "no display to open a window on; rollout, replay and the rest work without"
        yield Finding("display", "note", detail, "on a server: use rollout, or a remote desktop")
    else:
        yield Finding("display", "ok", driver)


def _display_driver() -> str | None:
    """The SDL video driver that a window would open with, or None; found out in a process of its own."""
    code = "import pygame; pygame.display.init(); print(pygame.display.get_driver())"
    environment = os.environ | {"PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split()[-1] if done.returncode == 0 and done.stdout.split() else None


def _extras() -> Iterator[Finding]:
    wanted = {"av": "videos such as .mp4", "gymnasium": "the Gymnasium environment"}
    for name, purpose in wanted.items():
        if _installed(name):
            yield Finding(name, "ok", metadata.version(name))
        else:
            fix = f"if you want that, run: {PIP} install {name}"
            yield Finding(name, "note", f"not installed; needed for {purpose}", fix)


def _folders() -> Iterator[Finding]:
    folders = {
        "settings": paths.settings_file().parent,
        "sessions": paths.sessions(),
        "pictures": paths.pictures(),
        "worlds": paths.worlds(),
        "logs": paths.logs(),
    }
    for name, folder in folders.items():
        place = _nearest(folder)
        if not os.access(place, os.W_OK | os.X_OK) or not place.is_dir():
            yield Finding(f"folder of {name}", "problem", f"{folder} cannot be written", f"make {place} writable")
        else:
            yield Finding(f"folder of {name}", "ok", str(folder))
    free = shutil.disk_usage(_nearest(paths.sessions())).free
    state, fix = ("ok", "") if free > 200e6 else ("problem", "free some space")
    yield Finding("disk", state, f"{free / 1e9:.1f} GB free", fix)


def _worlds() -> Iterator[Finding]:
    names = checkpoint.shipped()
    if not names:
        yield Finding("worlds", "problem", f"none in {paths.models()}", "get the program's folder again")
    for name in names:
        try:
            header = checkpoint.read(checkpoint.find(name))
        except GenieError as error:
            yield Finding(f"world {name}", "problem", str(error), "get the program's folder again")
            continue
        height, width = header.world.size
        yield Finding(f"world {name}", "ok", f"{width}x{height}, {header.world.rate:g} steps/s, {header.sha256[:8]}")


def _paths(say: Callable[[str], None]) -> Iterator[Finding]:
    """Check every path of each shipped world, and write down which may be used."""
    from genie_play.engine import verdicts
    from genie_play.eval import selfcheck

    for name in checkpoint.shipped():
        file = checkpoint.find(name)
        failed: dict[str, str] = {}
        seen: list[str] = []
        for check in selfcheck.check_world(file, lambda doing, world=name: say(f"{world}: {doing}")):  # type: ignore[misc]
            device, _, part = check.path.partition("/")
            state, fix = {"ok": "ok", "skipped": "note"}.get(check.state, "failed"), ""
            if check.state == "failed":
                state, fix = ("problem", NO_PATH) if check.path == "cpu/fp32" else ("failed", _instead(device, part))
                failed[check.path] = f"{check.name}: {check.detail}"
            elif check.state == "ok":
                seen.append(check.path)
            where = "" if device == "cpu" else f" ({device})"
            yield Finding(f"{check.name}: {name}{where}", state, check.detail, fix, check.path)
        good = [path for path in dict.fromkeys(seen) if path not in failed]
        written = verdicts.record(name, checkpoint.fingerprint(file), good, failed)
        bad = f"; not used here: {', '.join(failed)}" if failed else ""
        detail = f"may be used: {', '.join(good) or 'none'}{bad} ({written})"
        yield Finding(f"paths of {name}", "note" if failed else "ok", detail)


def _instead(device: str, part: str) -> str:
    """What happens without a path that failed, and what to do about it."""
    without = {
        "triton": "the reference kernels are used instead",
        "graph": "frames are computed call by call instead",
        "fp32": "worlds run on the CPU instead",
    }.get(part, f"{part} is not chosen for this world; fp32 is used instead")
    if device == "cpu":
        return without
    return f"{without}; update the NVIDIA driver, torch and triton\nthen run: genie-play doctor --deep"


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _nearest(folder: Path) -> Path:
    """The folder itself or the nearest one above it that is there."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
