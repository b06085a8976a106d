"""Start Genie Play on a machine where nothing was installed: `python3 launch.py [COMMAND ...]`.

Standard library only. If a requirement of setup.cfg is missing it makes `.venv`, installs into it with the exact
versions of constraints.txt and starts again in there; a stamp in `.venv` makes the next start cheap. Two words are
its own, `test [PYTEST ARGUMENTS]` and `python [ARGUMENTS]`: the suite, and the environment's Python with the test
extra installed. All others are commands of `genie_play/cli.py`. Knows nothing of them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "genie-play-stamp"
LOG = VENV / "install.log"
OLDEST = (3, 11)
CPU_BYTES, CUDA_BYTES = 2_500_000_000, 8_000_000_000  # free space that an install needs at its peak


class Trouble(Exception):
    """What a person has to do something about: one line."""


def main(arguments: list[str]) -> int:
    """Run a command, installing what it needs first; return its exit code."""
    testing = arguments[:1] in (["test"], ["python"])
    extras = ["test"] if testing else []
    try:
        python = environment(extras)
    except Trouble as trouble:
        print(f"genie-play: {trouble}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("genie-play: stopped; run it again to go on", file=sys.stderr)
        return 130
    if testing:
        os.chdir(ROOT)
        return become(python, ["-m", "pytest", *arguments[1:]] if arguments[0] == "test" else arguments[1:])
    if python != sys.executable:
        return become(python, [str(ROOT / "launch.py"), *arguments])
    from genie_play.cli import main as run

    return run(arguments)


def environment(extras: list[str]) -> str:
    """The path of a Python that has every requirement; installs into `.venv` if there is none yet."""
    if sys.version_info < OLDEST:
        raise Trouble(
            "needs Python {}.{} or newer and this is {}.{}; run launch.py with a newer one".format(
                *OLDEST, *sys.version_info[:2]
            )
        )
    inside = Path(sys.prefix).resolve() == VENV
    if not (inside or sys.prefix == sys.base_prefix) and not missing(extras):
        return sys.executable  # an environment that the person made and activated
    python = str(VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    if stamped(extras) and os.path.exists(python):
        return sys.executable if inside else python
    if (inside or not VENV.exists()) and not missing(extras):
        return sys.executable
    try:
        install(python, extras)
    except OSError as error:
        raise Trouble(f"cannot write to {VENV}: {error.strerror}; make it writable and run this again") from None
    return python


def requirements(extras: list[str]) -> list[str]:
    """The requirement lines of setup.cfg that hold on this platform, without their markers."""
    import configparser

    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    text = config["options"]["install_requires"]
    for extra in extras:
        text += "\n" + config["options.extras_require"][extra]
    lines = []
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement, _, marker = map(str.strip, line.partition(";"))
        if not marker or sys.platform.startswith("linux"):  # the one marker in use is platform_system == "Linux"
            lines.append(requirement)
    return lines


def missing(extras: list[str]) -> list[str]:
    """Requirements that this interpreter lacks, looked up in the installed metadata; nothing is imported."""
    from importlib import metadata

    lacking = []
    for requirement in requirements(extras):
        name, _, least = requirement.partition(">=")
        try:
            if _numbers(metadata.version(name)) < _numbers(least):
                lacking.append(requirement)
        except metadata.PackageNotFoundError:
            lacking.append(requirement)
    return lacking


def key(extras: list[str]) -> str:
    """What an environment was made for: requirements, pins and Python, as a short hash."""
    import hashlib

    parts = [*requirements(extras), (ROOT / "constraints.txt").read_text(encoding="utf-8"), sys.version]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def stamped(extras: list[str]) -> bool:
    """Whether `.venv` was completely installed for these extras."""
    return STAMP.is_file() and key(extras) in STAMP.read_text(encoding="utf-8").split()


def install(python: str, extras: list[str]) -> None:
    """Make `.venv` and install into it, with pip's progress on stderr; Trouble says what stands in the way."""
    _say(f"first start: installing what is missing into {VENV}")
    _enough_space(CPU_BYTES)
    _make_venv(python)
    torch = next(line.strip() for line in _constraints() if line.startswith("torch=="))
    if _has_torch(torch):
        pass  # whichever build it is, it stays
    elif has_nvidia_driver() or sys.platform == "darwin":
        _enough_space(CPU_BYTES if sys.platform == "darwin" else CUDA_BYTES)
        _pip(python, [torch])
    else:
        _say("no NVIDIA driver here: asking for the CPU build of torch")
        try:
            _pip(python, [torch + "+cpu"])
        except LookupError:
            # other indexes have one build only; on Linux it brings CUDA along
            _say("no CPU build to be had from pip's index: taking the usual one, a download of about 3 GB on Linux")
            _enough_space(CUDA_BYTES if sys.platform.startswith("linux") else CPU_BYTES)
            _pip(python, [torch])
    _pip(python, requirements(extras))
    # an environment with extras serves those who need none
    STAMP.write_text(f"{key([])}\n{key(extras)}\n", encoding="utf-8")
    _say("installed; from now on nothing touches the network")


def has_nvidia_driver() -> bool:
    """Whether a driver is loaded; asks no GPU."""
    import shutil

    return os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None


def become(python: str, arguments: list[str]) -> int:
    """Go on as another Python process, or wait for it where a process cannot turn into another."""
    if os.name != "nt":
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(python, [python, *arguments])
    import subprocess

    return subprocess.call([python, *arguments])


def _make_venv(python: str) -> None:
    import subprocess
    import venv
    from importlib.util import find_spec

    if find_spec("ensurepip") is None:
        raise Trouble(
            "this Python has no ensurepip, so no environment can be made; install it "
            "(Debian, Ubuntu: apt install python3-venv) and run this again"
        )
    settings = VENV / "pyvenv.cfg"
    ours = STAMP.exists() or LOG.exists()
    here = "{}.{}.".format(*sys.version_info[:2])
    fits = os.path.exists(python) and settings.is_file() and f"version = {here}" in settings.read_text(encoding="utf-8")
    if VENV.exists() and not fits and not ours:
        raise Trouble(f"{VENV} is not an environment for this Python; move it away and run this again")
    try:
        if not fits:
            venv.EnvBuilder(with_pip=False, clear=True, symlinks=os.name != "nt").create(VENV)
            LOG.touch()
        subprocess.run([python, "-m", "ensurepip", "--default-pip"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Trouble(f"cannot make the environment {VENV}: {error}") from None


def _pip(python: str, wanted: list[str]) -> None:
    """Install with the constraints. LookupError: the index has no such version. Trouble: what else went wrong."""
    import subprocess

    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "2"]
    command += ["-c", str(ROOT / "constraints.txt"), *wanted]
    # warnings and errors go to a file, from which one line is made; progress goes where a person sees it
    with open(LOG, "w+", encoding="utf-8", errors="replace") as log:
        done = subprocess.run(command, stdout=sys.stderr, stderr=log, check=False)
        log.seek(0)
        said = log.read()
    if done.returncode == 0:
        return
    if "No space left" in said or "Errno 28" in said:
        raise Trouble("the disk is full; free some space and run this again, it goes on where it stopped")
    if any(word in said for word in ("Retrying (", "NewConnectionError", "ConnectionError", "name resolution")):
        raise Trouble("the first start downloads its requirements and there is no network; connect and run this again")
    if "No matching distribution" in said:
        if wanted[0].startswith("torch==") and wanted[0].endswith("+cpu"):
            raise LookupError(wanted[0])
        raise Trouble(
            "no build of {} for Python {}.{} on this machine; Python 3.11 and 3.12 are known to work".format(
                said.rsplit("No matching distribution found for ", 1)[1].split()[0], *sys.version_info[:2]
            )
        )
    raise Trouble(f"the installation failed; {LOG} says why")


def _has_torch(pin: str) -> bool:
    folder = "Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages"
    return any(VENV.glob(f"{folder}/{pin.replace('==', '-')}*.dist-info"))


def _enough_space(needed: int) -> None:
    import shutil

    free = shutil.disk_usage(ROOT).free
    if free < needed:
        raise Trouble(
            f"the first start needs {needed / 1e9:.1f} GB on the disk of {ROOT} and {free / 1e9:.1f} GB are free; "
            "free some space and run this again"
        )


def _constraints() -> list[str]:
    return (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: '2.13.0+cpu' is (2, 13, 0)."""
    numbers = []
    for part in version.split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _say(text: str) -> None:
    print(f"genie-play: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
