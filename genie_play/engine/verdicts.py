"""What `doctor --deep` found out about this machine: which paths of a world gave wrong numbers and are not used.

A path is "device/part", such as cuda/fp32, cuda/triton, cuda/graph or cpu/int8. A verdict holds for one machine, its
versions and one checkpoint; when any of them changes there is none, and every path may be used. Asked for by name, a
path is taken whatever was found. Knows nothing of how it was found.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import platform
import time
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from genie_play import __version__, checkpoint, paths
from genie_play.config import PathConfig

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


def steer(world: Any, device: str, path: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A device and the changes to a path, with what failed here replaced where nobody asked for it by name.

    A device of "auto" is no GPU that failed; kernels, captured frames and the arithmetic that a world ships with give
    way to their references. What is in memory and no file has no verdict.
    """
    failed = barred(world) if isinstance(world, str | Path) else {}
    changes = dict(path)
    if not failed:
        return device, changes
    import torch

    from genie_play import ops

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and "cuda/fp32" not in failed else "cpu"
    kind = device.partition(":")[0]

    def instead(part: str, name: str, value: str) -> None:
        if f"{kind}/{part}" in failed and changes.get(name) is None:
            log.warning("%s of %s is not used on this machine: %s", f"{kind}/{part}", world, failed[f"{kind}/{part}"])
            changes[name] = value

    if not os.environ.get(ops.VARIABLE):
        instead("triton", "ops", "reference")
    if "frame" in {field.name for field in dataclasses.fields(PathConfig)}:
        instead("graph", "frame", "static")
    shipped = checkpoint.read(world).path.arithmetic
    if shipped != "fp32":  # there is nothing to put in its place
        instead(shipped, "arithmetic", "fp32")
    return device, changes


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
    except (FileNotFoundError, ModuleNotFoundError):  # without platformdirs nobody can have written one
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


def vendor() -> str:
    """Who made the processor, in its own words."""
    return _line("/proc/cpuinfo", "vendor_id") or platform.processor()


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
