"""What the commands take. Standard library only, so that `--help` costs nothing. Knows nothing of what they do."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from genie_play import __version__
from genie_play.types import GenieError

COMMANDS = (
    "play", "rollout", "compare", "replay", "verify", "see", "infer", "probe", "info", "doctor", "keys", "recover",
    "data", "train", "eval", "bench",
)  # fmt: skip
WORLD = "spark"
SHEETS = ("clips", "pixel", "flat", "sketch", "painted", "photo")
SPEC = "items ACTION:COUNT separated by spaces, such as '3:10 right:5 random:60 N'; ACTION is a code 0-7, a label, a \
slot of the compass (N, NE, ...) or random"
PICTURE = "the picture to start from, or the name of one that is shipped (default: one of these, by seed)"
OUT = ".gif, .png (a strip), .webp, .apng, .mp4, or a name without suffix for a folder of PNGs"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The arguments of a command, its name in `command`; GenieError where they make no sense."""
    word = arguments[0] if arguments else "play"
    if word not in (*COMMANDS, "-h", "--help", "--version"):
        close = difflib.get_close_matches(word, COMMANDS, 1)
        if close and not Path(word).exists():
            raise GenieError(f"{word!r} is no command and no file; did you mean {close[0]!r}?")
        arguments = ["play", *arguments]
    return parser().parse_args(arguments or ["play"])


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = _Parser(
        prog="genie-play",
        description="Play worlds that a neural network makes up frame by frame.",
        epilog="Without a command: play. 'genie-play PICTURE' plays from that picture.",
    )
    top.add_argument("--version", action="version", version=f"genie-play {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)

    def command(name: str, does: str, *parts: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=does, description=does[0].upper() + does[1:] + ".")
        for part in parts:
            part(added)
        return added

    play = command("play", "steer a world in a window")
    play.add_argument("picture", nargs="?", type=Path, help="a picture to start from, or a .gplay to go on with")
    play.add_argument("--seed", type=_seed, help="the same seed and keys give the same frames (default: a new one)")
    play.add_argument("--world", help="name, file or folder (default: that of your settings)")
    play.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: that of your settings)")
    play.add_argument("--flow", action=argparse.BooleanOptionalAction, help="time flows on while no key is held")
    play.add_argument("--fullscreen", action=argparse.BooleanOptionalAction)
    play.add_argument("--stats", type=Path, metavar="FILE", help="write measured times to FILE as JSON lines")

    rollout = command("rollout", "play a list of actions without a window", _world, _paths, _out, _json)
    rollout.add_argument("--prompt", metavar="PICTURE", help=PICTURE)
    rollout.add_argument("--actions", required=True, metavar="SPEC", help=SPEC)
    rollout.add_argument("--seed", type=_seed, default=0, help="default 0")

    compare = command("compare", "record worlds side by side under the same actions", _paths, _device, _json)
    compare.add_argument("worlds", nargs="+", metavar="WORLD", help="name, file or folder")
    compare.add_argument("--prompt", action="append", metavar="PICTURE", help=f"{PICTURE}; may be repeated")
    compare.add_argument("--actions", required=True, metavar="SPEC", help=f"{SPEC}; labels are each world's own")
    compare.add_argument("--seed", type=_seed, action="append", metavar="N", help="default 0; may be repeated")
    compare.add_argument("--out", type=Path, required=True, metavar="X", help=OUT)
    compare.add_argument("--scale", type=_count, default=0, metavar="N", help="enlarge so many times")

    replay = command("replay", "make a recording of a .gplay, as it was", _replayed, _json)
    replay.add_argument("--out", type=Path, metavar="X", help=f"{OUT} (default: a GIF in your pictures folder)")
    replay.add_argument("--scale", type=_count, default=0, metavar="N", help="enlarge so many times")
    replay.add_argument("--redream", action="store_true", help="compute the frames again from the actions")

    command("verify", "compute a .gplay again and compare; 3 if it differs", _replayed, _json)

    see = command("see", "show what a world makes of a picture", _world, _paths, _json)
    see.add_argument("picture", metavar="PICTURE", help="a picture, or the name of one that is shipped")
    see.add_argument("--out", type=Path, required=True, metavar="X.png")
    see.add_argument("--both", action="store_true", help="the picture itself to the left")
    see.add_argument("--scale", type=_count, default=1, metavar="N", help="enlarge so many times")

    infer = command("infer", "find the actions in a real clip, as a SPEC", _world, _paths, _json)
    infer.add_argument("video", type=Path, metavar="VIDEO", help="an animation, a video, or a folder of pictures")
    infer.add_argument("--frames", type=_count, default=200, metavar="N", help="at most (default: %(default)s)")
    infer.add_argument("--seed", type=_seed, default=0, help="of the clip made again; default 0")
    infer.add_argument("--out", type=Path, metavar="X", help=f"the clip beside the same actions played: {OUT}")
    infer.add_argument("--scale", type=_count, default=0, metavar="N", help="enlarge so many times")

    probe = command("probe", "measure what each action of a world does", _json)
    probe.add_argument("world", nargs="?", default=WORLD, help="name, file or folder (default: %(default)s)")
    probe.add_argument("--prompts", type=_count, default=100, metavar="N", help="default %(default)s")
    probe.add_argument("--out", type=Path, metavar="X.png", help="a sheet: every action held, tick by tick")
    probe.add_argument("--save", action="store_true", help="write the labels into the world itself")

    info = command("info", "say what is in a world, a .gplay or a picture", _json)
    info.add_argument("what", help="the name of a world, or a file")

    doctor = command("doctor", "say whether this machine is ready, and what to do if not", _json)
    doctor.add_argument(
        "--deep",
        action="store_true",
        help="also check what each shipped world computes here, on every path; 3 if it differs",
    )

    keys = command("keys", "print what every key does", _json)
    keys.add_argument("--world", help=f"whose slots to print (default: {WORLD})")

    recover = command("recover", "list the play-throughs that were written down, newest first", _json)
    recover.add_argument("--last", type=_count, default=20, metavar="N", help="how many (default: %(default)s)")

    data = command("data", "write clips of a source of video to a folder", _source, _json)
    data.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    data.add_argument(
        "--sheet",
        choices=SHEETS,
        help="one PNG at --out instead: clips, or looks of a family; and what changes a frame",
    )
    data.add_argument("--clips", type=_count, default=16, metavar="N", help="default %(default)s")
    data.add_argument("--frames", type=_count, default=16, metavar="N", help="of a clip; default %(default)s")

    train = command("train", "train a world, one stage or all", _source, _device, _json)
    train.add_argument("stage", help="a stage, such as tokenizer or dynamics, or all, in order")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="resumes from what is there")
    train.add_argument("--from", type=Path, dest="start", metavar="DIR", help="go on from a --report, if --out is new")
    train.add_argument("--begin", metavar="WORLD", help="begin as this world is, shipped or yours, not from nothing")
    train.add_argument("--report", type=Path, metavar="DIR", help="leave weights, metrics, samples, a summary there")
    train.add_argument("--steps", type=_count, metavar="N", help="of each stage (default: the preset's)")
    train.add_argument("--plan", type=_minutes, metavar="M", help="minutes of all stages and runs together: sets steps")
    train.add_argument(
        "--minutes", type=_minutes, metavar="M", help="stop cleanly after so many; run it again to go on"
    )
    train.add_argument("--ungated", action="store_true", help="go on where a stage misses its stop value")
    train.add_argument("--workers", type=_workers, metavar="N", help="processes that make clips (default: by cores)")
    train.add_argument(
        "--pool", type=_workers, metavar="N", help="clips on the device, 0 for none (default: by device)"
    )
    train.add_argument("--recipe", default="default", choices=("default", "paper"), help="default: %(default)s")

    train.add_argument(
        "--true-actions", metavar="WORLD",
        help="dynamics only: told the game's own keys, on WORLD's tokenizer; for eval --upper-bound, never to play",
    )  # fmt: skip

    evaluate = command("eval", "measure a world on levels and looks that it was not trained on", _json)
    evaluate.add_argument("world", nargs="?", default=WORLD, help="name, file or folder (default: %(default)s)")
    what = "folder of clips, held out from training: measure on these, from pictures alone"
    evaluate.add_argument("--source", type=Path, metavar="FOLDER", help=what)
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="where the table and its pictures go")
    evaluate.add_argument("--quick", action="store_true", help="fewer samples: a first impression")
    evaluate.add_argument("--save", action="store_true", help="write figures and labels into the world itself")

    evaluate.add_argument("--upper-bound", type=Path, metavar="FILE", help="of train --true-actions, to stand beside")
    evaluate.add_argument("--sweep", action="store_true", help="quality against passes, order and temperature instead")
    evaluate.add_argument(
        "--arithmetics", action="store_true", help="which arithmetics of this CPU play as well as float32 instead"
    )
    evaluate.add_argument("--steps", type=_counts, metavar="N,N", help="passes of the sweep (default: 1,2,4,8,25)")
    evaluate.add_argument("--page", type=Path, metavar="X.md", help="write tables and sheets into this page")

    bench = command("bench", "measure how fast a world plays here", _paths, _device, _json)
    target = "a world's name, file or folder; a preset's name or 'custom' for random weights; or a measurement (.json)"
    bench.add_argument("target", nargs="?", default=WORLD, help=f"{target} (default: %(default)s)")
    bench.add_argument("--frames", type=_count, default=100, metavar="N", help="default: %(default)s")
    against = "recompute: time it without the cache too, in the same run; or a measurement (.json) to compare with"
    bench.add_argument("--against", action="append", default=[], metavar="X", help=against)
    bench.add_argument("--sweep", action="store_true", help="how cost grows with passes, tokens, window and width")
    bench.add_argument("--random", action="store_true", help="random weights, where a world has a preset's name too")
    for name in ("layers", "width", "heads", "window", "codes"):
        bench.add_argument(f"--{name}", type=_count, metavar="N", help="of the dynamics model, with random weights")
    bench.add_argument("--tokens", type=_grid, metavar="RxC", help="rows and columns of tokens, such as 9x16")
    return top


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise GenieError(f"{message}; see '{self.prog} --help'")


def _world(command: argparse.ArgumentParser) -> None:
    command.add_argument("--world", default=WORLD, help="name, file or folder (default: %(default)s)")
    _device(command)


def _device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")


def _paths(command: argparse.ArgumentParser) -> None:
    what = "how tokens are computed: steps=8, temperature=0.9, order=random, threads=2, ...; may be repeated"
    command.add_argument("--path", action="append", default=[], metavar="KEY=VALUE", help=what)


def _replayed(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="FILE.gplay")
    command.add_argument("--world", help="the world that made it (default: found by its fingerprint)")
    command.add_argument("--device", help="default: that of the replay")


def _out(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, required=True, metavar="X", help=f"{OUT}, or .gplay alone")
    command.add_argument("--scale", type=_count, default=0, metavar="N", help="enlarge so many times")


def _source(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", default=WORLD, help="size of picture and networks (default: %(default)s)")
    sources = "platformer, platformer-calm, platformer-sketch, or a folder of videos"
    command.add_argument("--source", default="platformer", help=sources)
    command.add_argument("--seed", type=_seed, default=0, help="default 0")


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _grid(text: str) -> tuple[int, int]:
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and 0 < int(rows) < 1000 and 0 < int(columns) < 1000):
        raise argparse.ArgumentTypeError(f"{text!r} is not ROWSxCOLUMNS, such as 9x16")
    return int(rows), int(columns)


def _workers(text: str) -> int | None:
    return None if text == "auto" else 0 if text == "0" else _count(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return minutes


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up to 2**64 - 1")
    return int(text)
