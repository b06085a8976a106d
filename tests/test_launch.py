"""launch.py: when it installs, what it asks pip for, and what it says when it cannot. No network, no real pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from importlib import metadata, util

import pytest

import launch
from genie_play.paths import ROOT


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A fresh clone where nothing is installed, on a machine without a GPU and with room."""
    for name in ("launch.py", "setup.cfg", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    venv = tmp_path / ".venv"
    for name, value in {
        "ROOT": tmp_path,
        "VENV": venv,
        "STAMP": venv / "genie-play-stamp",
        "LOG": venv / "install.log",
    }.items():
        monkeypatch.setattr(launch, name, value)
    monkeypatch.setattr(launch, "missing", lambda extras: ["torch>=2.11"])
    monkeypatch.setattr(launch, "has_nvidia_driver", lambda: False)
    space(monkeypatch, 50e9)
    return tmp_path


def space(monkeypatch, free):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100e9, 100e9 - free, int(free)))


class Pip:
    """Stands in for subprocess.run: notes what is asked, answers as told; makes the environment's Python real."""

    def __init__(self, monkeypatch, *answers):
        self.asked, self.answers = [], list(answers)
        monkeypatch.setattr(subprocess, "run", self)

    def __call__(self, command, *, stderr=None, **known):
        done = subprocess.CompletedProcess(command, 0)
        if command[1:3] == ["-m", "ensurepip"]:
            return done
        assert command[1:4] == ["-m", "pip", "install"]
        assert command[command.index("-c") + 1] == str(launch.ROOT / "constraints.txt")
        self.asked.append(command[command.index("-c") + 2 :])
        if self.answers and (said := self.answers.pop(0)):
            stderr.write(said)
            done.returncode = 1
        return done


TORCH = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
NO_MATCH = "ERROR: No matching distribution found for {}\n"
OFFLINE = (
    "WARNING: Retrying (Retry(total=1)) after connection broken\nERROR: No matching distribution found for torch\n"
)


def python_of(clone):
    return str(clone / ".venv" / "bin" / "python")


def test_installs_the_cpu_build_once(clone, monkeypatch, capsys):
    pip = Pip(monkeypatch)
    assert launch.environment([]) == python_of(clone)
    assert [asked[0] for asked in pip.asked] == [f"{TORCH}+cpu", "torch>=2.11"]
    assert "pytest>=8" not in pip.asked[1]
    out, err = capsys.readouterr()
    assert out == ""  # stdout is for results
    assert "no NVIDIA driver" in err
    assert launch.environment([]) == python_of(clone)
    assert len(pip.asked) == 2


def test_the_test_extra_comes_on_top(clone, monkeypatch):
    pip = Pip(monkeypatch)
    launch.environment([])
    (clone / ".venv/lib/python3.11/site-packages" / f"{TORCH.replace('==', '-')}+cpu.dist-info").mkdir(parents=True)
    launch.environment(["test"])
    assert len(pip.asked) == 3  # torch is there already, whichever build
    assert "pytest>=8" in pip.asked[2]
    launch.environment(["test"])
    launch.environment([])
    assert len(pip.asked) == 3


def test_falls_back_to_the_one_build_there_is(clone, monkeypatch):
    pip = Pip(monkeypatch, NO_MATCH.format(f"{TORCH}+cpu"))
    launch.environment([])
    assert [asked[0] for asked in pip.asked] == [f"{TORCH}+cpu", TORCH, "torch>=2.11"]


def test_a_driver_asks_for_the_usual_build(clone, monkeypatch):
    monkeypatch.setattr(launch, "has_nvidia_driver", lambda: True)
    pip = Pip(monkeypatch)
    launch.environment([])
    assert pip.asked[0] == [TORCH]


def test_changed_pins_install_again(clone, monkeypatch):
    pip = Pip(monkeypatch)
    launch.environment([])
    (clone / "constraints.txt").write_text(f"{TORCH}\nnumpy==2.0.0\n")
    launch.environment([])
    assert len(pip.asked) == 4


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([OFFLINE], "there is no network; connect and run this again"),
        (["ERROR: Could not install: [Errno 28] No space left on device"], "the disk is full; free some space"),
        ([NO_MATCH.format(TORCH), NO_MATCH.format(TORCH)], f"no build of {TORCH} for Python"),
        (["ERROR: something else"], "install.log says why"),
    ],
)
def test_an_install_that_fails_says_one_line(clone, monkeypatch, capsys, answers, says):
    Pip(monkeypatch, *answers)
    assert launch.main(["info"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not launch.stamped([])


@pytest.mark.parametrize(("driver", "free"), [(False, 1e9), (True, 6e9)])
def test_too_little_disk(clone, monkeypatch, capsys, driver, free):
    monkeypatch.setattr(launch, "has_nvidia_driver", lambda: driver)
    space(monkeypatch, free)
    pip = Pip(monkeypatch)
    assert launch.main([]) == 2
    assert f"{free / 1e9:.1f} GB are free" in capsys.readouterr().err.splitlines()[-1]
    assert pip.asked == []


def test_no_ensurepip(clone, monkeypatch, capsys):
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "ensurepip" else find(name, *rest))
    assert launch.main(["test"]) == 2
    assert "apt install python3-venv" in capsys.readouterr().err.splitlines()[-1]
    assert not (clone / ".venv").exists()


def test_a_folder_that_is_not_ours_stays(clone, monkeypatch, capsys):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "diary").write_text("mine")
    Pip(monkeypatch)
    assert launch.main([]) == 2
    assert "move it away" in capsys.readouterr().err.splitlines()[-1]
    assert (clone / ".venv" / "diary").read_text() == "mine"


def test_a_folder_that_cannot_be_written(clone, monkeypatch, capsys):
    (clone / ".venv").write_text("a file")
    Pip(monkeypatch)
    assert launch.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) <= 2


def test_python_too_old(clone, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1, "final", 0))
    assert launch.main(["test"]) == 2
    assert "needs Python 3.11 or newer and this is 3.9" in capsys.readouterr().err


def test_an_environment_that_has_everything_is_used(clone, monkeypatch):
    monkeypatch.setattr(launch, "missing", lambda extras: [])
    assert launch.environment(["test"]) == sys.executable
    assert not (clone / ".venv").exists()


def test_missing_reads_metadata_only(monkeypatch):
    have = {"torch": "2.13.0+cpu", "numpy": "1.9", "pillow": "13.0.0rc1"}

    def version(name):
        if name not in have:
            raise metadata.PackageNotFoundError(name)
        return have[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(
        launch, "requirements", lambda extras: ["torch>=2.11", "numpy>=1.26", "pillow>=10.3", "tqdm>=4"]
    )
    before = set(sys.modules)
    assert launch.missing([]) == ["numpy>=1.26", "tqdm>=4"]
    assert "torch" not in set(sys.modules) - before


def test_requirements_are_those_of_setup_cfg():
    """Every line is one that launch.py understands, and every direct requirement is pinned."""
    wanted = launch.requirements(["test"])
    assert "torch>=2.11" in wanted
    assert ("triton>=3.6" in wanted) == sys.platform.startswith("linux")
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for requirement in wanted:
        name, _, least = requirement.partition(">=")
        assert least
        assert launch._numbers(pins[name]) >= launch._numbers(least)


def test_words_of_its_own(monkeypatch):
    gone = []
    monkeypatch.setattr(launch, "environment", lambda extras: f"/env/{'+'.join(extras)}/python")
    monkeypatch.setattr(os, "chdir", lambda path: None)
    monkeypatch.setattr(launch, "become", lambda python, arguments: gone.append([python, *arguments]) or 5)
    assert [launch.main(a) for a in (["test", "-x"], ["python", "-m", "mypy"], ["info", "spark"])] == [5, 5, 5]
    assert gone == [
        ["/env/test/python", "-m", "pytest", "-x"],
        ["/env/test/python", "-m", "mypy"],
        ["/env//python", str(ROOT / "launch.py"), "info", "spark"],
    ]


def test_with_everything_in_place_it_costs_little(clone, monkeypatch):
    """Under 0.1 s: the check of a stamped environment, imports of the standard library included."""
    Pip(monkeypatch)
    launch.environment([])
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        launch.environment([])
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05  # the rest is for starting Python once more
