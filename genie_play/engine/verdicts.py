"""What `doctor --deep` found out about this machine: which paths of a world gave wrong numbers and are not used.

A path is "device/part", such as cuda/fp32, cuda/triton, cuda/graph or cpu/int8. A verdict holds for one machine, its
versions and one checkpoint; when any of them changes there is none, and every path may be used. Asked for by name, a
path is taken whatever was found. Knows nothing of how it was found.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from genie_play import __version__, checkpoint, paths

KEPT = 64  # verdicts; the oldest go first

log = logging.getLogger(__name__)


def file() -> Path:
    """Where verdicts are kept: beside the settings."""
    return paths.settings_file().with_name("checks.json")


def barred(world: Path | str, sha256: str = "") -> dict[str, str]:
    """The paths of a checkpoint that failed here, and why; none where nobody has looked."""
    known = _read()
    if not known:
        return {}
    entry = known.get(_key(sha256 or checkpoint.fingerprint(world)), {})
    found = entry.get("failed", {}) if isinstance(entry, dict) else {}
    return {str(path): str(why) for path, why in found.items()} if isinstance(found, dict) else {}


def record(world: str, sha256: str, passed: list[str], failed: Mapping[str, str]) -> Path:
    """Write down what was found of a checkpoint, over what was found before."""
    known, key = _read(), _key(sha256)
    known.pop(key, None)
    known[key] = {
        "world": world,
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "passed": passed,
        "failed": dict(failed),
    }
    while len(known) > KEPT:
        del known[next(iter(known))]
    paths.writable(file().parent)
    return checkpoint.atomic_write(file(), (json.dumps(known, indent=1) + "\n").encode())


def _read() -> dict[str, Any]:
    try:
        known = json.loads(file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning(
            "%s cannot be read and is left aside (%s); 'genie-play doctor --deep' writes it anew", file(), error
        )
        return {}
    return known if isinstance(known, dict) else {}


def _key(sha256: str) -> str:
    return " | ".join((sha256, *machine()))


@lru_cache(maxsize=1)
def machine() -> tuple[str, ...]:
    """What a verdict depends on beside the checkpoint: processor, GPUs and their driver, versions."""
    import torch

    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    driver = _line("/proc/driver/nvidia/version", "NVRM version") if gpus else ""
    return (
        f"{processor()} {torch.backends.cpu.get_cpu_capability()}",
        ", ".join(gpus) or "no GPU",
        driver,
        f"torch {torch.__version__}",
        f"triton {_version('triton')}",
        f"genie-play {__version__}",
    )


def processor() -> str:
    """The processor's name."""
    return _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _line(path: str, start: str) -> str:
    """What follows the colon of the first line that starts so, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith(start)), "")
    except OSError:
        return ""


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"
