"""The commands: `genie-play`, `python -m genie_play`, `python3 launch.py`.

Reads arguments, calls the library, prints. Results go to stdout, progress to stderr. Exit codes: 0 done, 1 a bug, 2 the
person's mistake (one line that says what to do), 3 a check found a difference, 130 stopped by Ctrl+C. Imports what a
command needs when it runs, so that `--help` needs neither torch nor pygame nor time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_play import __version__
from genie_play.arguments import WORLD, parse
from genie_play.types import GenieError

if TYPE_CHECKING:
    from genie_play.session.journal import Replay
    from genie_play.types import Engine, Frame, Prompt
    from genie_play.world import World


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    logging.basicConfig(level=logging.WARNING, format="genie-play: %(message)s")
    try:
        args = parse(sys.argv[1:] if arguments is None else arguments)
        code = _RUN[args.command](args)
        sys.stdout.flush()
        return code
    except GenieError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read our output has seen enough; what is still buffered must not fail at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and not missing.startswith("genie_play"):
            return _fail(f"{missing} is not installed; start with 'python3 launch.py', which installs what is needed")
        return _bug(error)


def _play(args: argparse.Namespace) -> int:
    picture = args.picture
    if picture is not None and not picture.exists():
        raise GenieError(f"there is no file {str(picture)!r}, nor a command of that name; see 'genie-play --help'")
    _check_pygame()
    from genie_play.play import app

    return app.play(args.world, picture, args.seed, args.device, args.flow, args.stats, args.fullscreen)


def _rollout(args: argparse.Namespace) -> int:
    from genie_play import world

    out, journal = _outputs(args.out)
    with _load(args) as loaded:
        actions = world.parse_actions(args.actions, loaded.info, args.seed)
        # time stands still in the journal, so that the same rollout gives the same file
        first = loaded.reset(_prompt(loaded, args.prompt, args.seed), args.seed, journal, clock=lambda: 0.0)
        started = time.perf_counter()
        frames = itertools.chain([first], loaded.rollout(actions))
        written, count = _record(frames, out, loaded.info.rate, len(actions) + 1, "rollout", args.scale)
        seconds = time.perf_counter() - started
        writer = loaded.session.journal
        assert writer is not None
        if writer.problem:
            raise GenieError(writer.problem)
        speed = round(len(actions) / max(seconds, 1e-9), 1)
        _note(f"{count} frames of {loaded.info.name} on {loaded.info.device} in {seconds:.1f} s, {speed} frames/s")
        result = {"out": written, "journal": writer.path, "frames": count, "frames_per_second": speed}
        _show(args, result, [str(path) for path in (written, writer.path) if path is not None])
    return 0


def _compare(args: argparse.Namespace) -> int:
    from genie_play import compare, world

    out, _ = _outputs(args.out, journal=False)
    seeds, columns, rates = args.seed or [0], [], []
    prompts = [world.find_picture(picture, seeds[0]) for picture in args.prompt or [None]]
    with _bar(len(args.worlds), "compare") as step:
        for name in args.worlds:
            path = _overrides(args.path)
            column, rate = compare.play(name, prompts, args.actions, seeds, args.device, path)
            columns.append(column)
            rates.append(rate)
            step()
    frames = compare.frames(columns)
    written, count = _record(frames, out, rates[0], len(frames), "record", args.scale)
    result = {"out": written, "frames": count, "worlds": [column.title for column in columns]}
    _show(args, result | {"rows": len(columns[0].plays)}, [str(written)])
    return 0


def _infer(args: argparse.Namespace) -> int:
    from genie_play import compare
    from genie_play.eval import infer
    from genie_play.types import Prompt

    out = _outputs(args.out, journal=False)[0] if args.out else None
    seen, codes = infer.infer_codes(args.world, args.video, args.frames)
    spec, written = infer.spec(codes), None
    if out is not None:
        prompt, path = Prompt(seen[:1], args.video.name), _overrides(args.path)
        again, rate = compare.play(args.world, [prompt], spec, [args.seed], args.device, path)
        frames = compare.frames([compare.Column("clip", [seen]), again])
        written, _ = _record(frames, out, rate, len(frames), "record", args.scale)
    lines = [spec] if written is None else [spec, str(written)]
    _show(args, {"actions": spec, "codes": codes, "frames": len(seen), "out": written}, lines)
    return 0


def _probe(args: argparse.Namespace) -> int:
    from genie_play.eval import report
    from genie_play.media import pictures

    if args.out is not None and args.out.suffix.lower() != ".png":
        raise GenieError(f"probe draws a PNG; name one instead of {args.out.name!r}")
    result, sheet = report.probe_world(args.world, args.prompts, args.save, _note)
    lines = _label_lines(result["labels"], result["lands"])
    result["out"] = None if args.out is None else pictures.save_png(args.out, sheet)
    _show(args, result, lines if args.out is None else [*lines, str(result["out"])])
    return 0


def _replay(args: argparse.Namespace) -> int:
    from genie_play import paths, world
    from genie_play.session import journal

    replay = journal.read(args.file)
    _note_cut(replay)
    out, _ = _outputs(args.out or paths.pictures() / f"{args.file.stem}.gif", journal=False)
    path = _path(replay.path, args.device) if args.redream else {"device": args.device or "auto"}
    apart: list[int] = []
    with contextlib.closing(world.open_engine(args.world or world.world_of(replay), path=path)) as engine:
        frames = _noting(world.redream(replay, engine), apart) if args.redream else world.tape(replay, engine)
        written, count = _record(frames, out, replay.rate, len(replay.branch()), "replay", args.scale)
    if apart:
        _note(f"like the tape up to frame {apart[0]}, then different: another machine, version or path")
    _show(args, {"out": written, "frames": count, "differs_from": apart[0] if apart else None}, [str(written)])
    return 0


def _verify(args: argparse.Namespace) -> int:
    from genie_play import world
    from genie_play.session import journal

    replay = journal.read(args.file)
    _note_cut(replay)
    name = args.world or world.world_of(replay)

    def engine_on(path: dict[str, Any]) -> Engine:
        return world.open_engine(name, path=_path(path, args.device))

    total = len(replay.nodes)
    with _bar(total, "verify") as step:
        difference = world.verify(replay, engine_on, step)
    result = {"same": difference is None, "steps": total - 1, "differs_at": difference.node if difference else None}
    _show(args, result, [str(difference) if difference else f"the same: {total - 1} steps of {name}"])
    return 3 if difference else 0


def _see(args: argparse.Namespace) -> int:
    import numpy as np

    from genie_play.media import pictures

    if args.out.suffix.lower() != ".png":
        raise GenieError(f"see writes a PNG; name one instead of {args.out.name!r}")
    with _load(args) as loaded:
        prompt = _prompt(loaded, args.picture)
        loaded.reset(prompt)
        prompt, seen = prompt.pictures[-1], loaded.see(prompt)
    error = float(((prompt.astype(float) - seen) ** 2).mean())
    psnr = 10 * np.log10(255**2 / error) if error else float("inf")
    shown = pictures.strip([prompt, seen]) if args.both else seen
    written = pictures.save_png(args.out, pictures.enlarge(shown, args.scale))
    _show(args, {"out": written, "psnr": round(psnr, 2)}, [str(written), f"{psnr:.1f} dB from the prompt"])
    return 0


def _info(args: argparse.Namespace) -> int:
    what = _describe(args.what)
    _show(args, what, _aligned(what))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from genie_play.eval import doctor

    findings = doctor.examine(args.deep, _note)
    lines, width = [], max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        mark = {"ok": " ", "note": "-", "failed": "x", "problem": "!"}[finding.state]
        lines.append(f"{mark} {finding.name:{width}}  {finding.detail}")
        lines += [f"    {line}" for line in finding.fix.splitlines()]
    ready = doctor.ready(findings)
    lines.append("ready to play" if ready else "not ready: see the lines marked with !")
    _show(args, {"ready": ready, "findings": [asdict(finding) for finding in findings]}, lines)
    if doctor.differs(findings):
        return 3
    return 0 if ready else 2


def _keys(args: argparse.Namespace) -> int:
    from genie_play import checkpoint
    from genie_play.play import keymap
    from genie_play.play.settings import Settings

    settings, keys = Settings().values, keymap.KeyMap()
    name = args.world or (WORLD if WORLD in checkpoint.names() else None)
    slots: dict[str, str] = {}
    if name is not None:
        header = checkpoint.read(checkpoint.find(name))
        keys.learn(header.labels, header.idle, settings.slots.get(header.sha256))
        codes = zip(keymap.SLOTS, keys.codes, strict=True)
        slots = {slot: f"{keys.name(slot)} for code {code}, {header.labels[code].name}" for slot, code in codes}
    rows = dict(keymap.describe(keymap.Commands(settings.keys), keys))
    _show(args, {"keys": rows, "slots": slots}, _aligned(rows | slots))
    return 0


def _recover(args: argparse.Namespace) -> int:
    from genie_play import paths
    from genie_play.session import journal

    found: list[dict[str, Any]] = []
    files = sorted(paths.sessions().glob("*.gplay"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[: args.last]:
        row: dict[str, Any] = {
            "file": file,
            "when": time.strftime("%Y-%m-%d %H:%M", time.localtime(file.stat().st_mtime)),
        }
        try:
            replay = journal.read(file)
            row |= {"steps": len(replay.nodes) - 1, "world": replay.checkpoint.get("name", ""), "cut": replay.cut}
        except GenieError as error:
            row["problem"] = str(error)
        found.append(row)
    lines = [
        f"{row['when']}  {row.get('problem') or '{steps:>5} steps in {world}'.format(**row)}  {row['file']}"
        for row in found
    ]
    _show(args, {"sessions": found}, lines or [f"no sessions yet in {paths.sessions()}"])
    if found:
        _note("to go on with one: genie-play FILE; to make a GIF of it: genie-play replay FILE --out X.gif")
    return 0


def _data(args: argparse.Namespace) -> int:
    from genie_play.config import preset
    from genie_play.data import clips, sheets, video
    from genie_play.media import pictures

    size = preset(args.preset).size
    source = clips.open_source(args.source, size, args.seed)
    if args.sheet:
        calm = str(args.source) == clips.CALM
        picture = pictures.save_png(args.out, sheets.sheet(args.sheet, source, args.seed, calm))
        found = sheets.figures(source)
        lines = [
            str(picture),
            f"copying the last frame: {found.copy_psnr:.1f} dB; still frames {found.still:.1%}; "
            f"pixels that change {found.changed:.1%}, patches of 8 x 8 {found.moved_tokens:.1%}",
        ]
        _show(args, {"sheet": picture, **asdict(found)}, lines)
        return 0
    out = _new_folder(args.out)
    with _bar(args.clips, "data") as step:
        for number in range(args.clips):
            video.write_clip(out / f"clip-{number:05}", source.batch(number, 1, args.frames)[0], source.fps)
            step()
    rows, columns = min(args.clips, 8), min(args.frames, 12)
    sheet = pictures.save_png(out / "contact.png", clips.contact_sheet(source, rows, columns))
    _show(args, {"out": out, "clips": args.clips, "contact_sheet": sheet}, [str(out), str(sheet)])
    return 0


def _train(args: argparse.Namespace) -> int:
    if args.true_actions is not None:
        from genie_play.eval import upper_bound

        if args.stage != "dynamics":
            raise GenieError(
                "--true-actions is for the stage dynamics: 'train dynamics --true-actions WORLD --out DIR'"
            )
        if args.begin is not None:
            raise GenieError("--begin does not go with --true-actions, which begins from nothing")
        file = upper_bound.train(args.true_actions, args.out, args.steps, args.minutes, args.device, args.seed)
        _show(args, {"world": file, "true_actions": True}, [str(file)])
        return 0
    from genie_play.train import run

    found = run.run(
        args.stage,
        args.preset,
        args.source,
        args.out,
        start=args.start,
        begin=args.begin,
        report=args.report,
        gated=not args.ungated,
        minutes=args.minutes,
        steps=args.steps,
        plan=args.plan,
        device=args.device,
        recipe=args.recipe,
        seed=args.seed,
        workers=args.workers,
        pool=args.pool,
    )
    _show(args, found, [str(found["world"])])
    return 0


def _bench(args: argparse.Namespace) -> int:
    from genie_play.eval import tables

    others = [tables.read(Path(file)) for file in args.against if file != "recompute"]
    if args.target.endswith(".json"):
        found, lines = tables.read(Path(args.target)), []
        if not others:
            lines = tables.text(found)
    else:
        found = _measured(args)
        lines = tables.growth(found["growth"]) if args.sweep else tables.text(found)
    if args.sweep and others:
        raise GenieError("--sweep compares with its own base; leave out the measurement after --against")
    if others:
        found = found | {"against": [tables.compare(found, other) for other in others]}
        lines += [line for compared in found["against"] for line in ["", *tables.comparison(compared)]]
    _show(args, found, lines)
    return 3 if found.get("gate", {}).get("ok") is False else 0


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    from genie_play.eval import bench, growth, targets

    shape = targets.Shape(args.layers, args.width, args.heads, args.tokens, args.window, args.codes)
    target, path = targets.find(args.target, shape, args.random), _overrides(args.path)
    if args.sweep:
        rows = growth.grow(target, max(args.frames // 14, 3), args.device, _note, **path)
        return {"target": target.describe(), "machine": bench.machine("cpu"), "growth": rows}
    recompute = "recompute" in args.against
    return bench.bench(target, args.frames, args.device, recompute, _note, **path)


def _eval(args: argparse.Namespace) -> int:
    if args.arithmetics:
        from genie_play.eval import accept

        if args.sweep or args.steps or args.out or args.page or args.upper_bound or args.source:
            raise GenieError("--arithmetics goes with --save and --quick alone")
        found = accept.accept(args.world, args.quick, args.save, _note)
        _show(args, found, accept.table(found))
        return 0
    if args.sweep:
        from genie_play.eval import study

        if args.save or args.page or args.upper_bound or args.source:
            raise GenieError("--sweep stands alone; leave out --save, --page, --upper-bound and --source")
        found = study.study(args.world, args.out, args.quick, args.steps or study.STEPS, _note)
        _show(args, found, study.table(found))
        return 0
    if args.steps:
        raise GenieError("--steps is for --sweep")
    from genie_play import checkpoint
    from genie_play.eval import clips, report

    world = checkpoint.find(args.world)

    def watch(what: str) -> None:
        _note(f"measuring {what}")

    if args.source is None:
        result = report.evaluate(world, args.out, args.quick, args.save, args.upper_bound, args.page, watch)
    elif args.upper_bound or args.page:
        raise GenieError("--upper-bound and --page are for the project's own game; leave them out with --source")
    else:
        result = clips.evaluate(world, args.source, args.out, args.quick, args.save, watch)
    _show(args, result, [*result["table"].splitlines(), "", *_label_lines(result["labels"])])
    return 0


def _label_lines(labels: Iterable[Mapping[str, Any]], lands: Mapping[str, float] | None = None) -> list[str]:
    """What each code does, a line each; `lands` by code, how often it came down again."""
    lines = []
    for label in labels:
        line = "code {code}: {name}, moves ({dx:+.1f}, {dy:+.1f}), agreed in {confidence:.0%}".format(**label)
        share = (lands or {}).get(str(label["code"]))
        lines.append(line if share is None else f"{line}, came down again in {share:.0%}")
    return lines


def _load(args: argparse.Namespace) -> World:
    from genie_play import world

    return world.load(args.world, args.device, **_overrides(args.path))


def _prompt(loaded: World, picture: str | None, seed: int = 0) -> Prompt:
    """The prompt of a world, with a line on stderr for each thing that was done to the picture."""
    from genie_play import world
    from genie_play.media import pictures

    found = pictures.load(world.find_picture(picture, seed), loaded.info.size)
    for note in found.notes:
        _note(f"{found.source}: {note}")
    return found.prompt


def _overrides(items: list[str]) -> dict[str, Any]:
    """KEY=VALUE as settings of a path; numbers and true or false are read as such."""
    found: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals:
            raise GenieError(f"--path takes KEY=VALUE, such as steps=8, not {item!r}")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def _path(path: dict[str, Any], device: str | None) -> dict[str, Any]:
    """The path of a replay, on another device if one is asked for."""
    if device is None:
        return path
    bound = ("ops", "frame", "blocks")  # what a device decides for itself
    return {key: value for key, value in path.items() if key not in bound} | {"device": device}


def _outputs(out: Path, journal: bool = True) -> tuple[Path | None, Path | None]:
    """Where a recording and its journal go, side by side under one name that is not taken yet."""
    from genie_play import paths
    from genie_play.media import recorder

    suffix = out.suffix.lower()
    alone = journal and suffix == ".gplay"
    kinds = [".gif", *filter(None, recorder.RECORDERS)]
    if not alone and suffix and suffix not in kinds:
        kinds += [".gplay"] if journal else []
        raise GenieError(f"cannot write {suffix}; use {', '.join(kinds)} or a name without suffix for a folder of PNGs")
    paths.writable(out.parent)
    name, n = out, 2
    while name.exists() or (journal and name.with_suffix(".gplay").exists()):
        name, n = out.with_name(f"{out.stem}-{n}{out.suffix}"), n + 1
    if name != out:
        _note(f"{out} is there already; writing {name}")
    return None if alone else name, name.with_suffix(".gplay") if journal else None


def _record(
    frames: Iterable[Frame], out: Path | None, rate: float, total: int, what: str, scale: int
) -> tuple[Path | None, int]:
    """Write frames as they come; what was written stays if something fails or Ctrl+C stops it."""
    from genie_play.media import recorder

    writer = None if out is None else recorder.open_recorder(out, rate, scale=scale)
    count = 0
    try:
        with _bar(total, what) as step:
            for frame in frames:
                if writer is not None:
                    writer.add(frame.pixels)
                count += 1
                step()
    finally:
        written = writer.close() if writer is not None else None
    if writer is not None and writer.problem:
        raise GenieError(writer.problem)
    return written, count


def _noting(frames: Iterator[tuple[Frame, bool]], apart: list[int]) -> Iterator[Frame]:
    """The frames; the index of the first one that differs from the tape goes into `apart`."""
    for frame, same in frames:
        if not same and not apart:
            apart.append(frame.index)
        yield frame


@contextlib.contextmanager
def _bar(total: int, what: str) -> Iterator[Callable[..., None]]:
    """A progress bar on a terminal, nothing elsewhere; yields what to call after each step."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=what, leave=False) as bar:
        yield lambda *_: bar.update() and None


def _describe(what: str) -> dict[str, Any]:
    """What there is to say about a world, a replay or a picture."""
    from genie_play import checkpoint

    path = Path(what)
    if path.is_file() and path.suffix == ".gplay":
        return _describe_replay(path)
    if path.is_file() and path.suffix != checkpoint.SUFFIX:
        return _describe_picture(path)
    header = checkpoint.read(checkpoint.find(what))
    height, width = header.world.size
    numbers: dict[str, int] = {}
    for name, shape in header.shapes.items():
        network = name.split(".")[0]
        numbers[network] = numbers.get(network, 0) + math.prod(shape)
    assert header.file is not None
    return {
        "world": header.world.name,
        "file": str(header.file),
        "bytes": header.file.stat().st_size,
        "sha256": header.sha256,
        "picture": f"{width}x{height}",
        "rate": header.world.rate,
        "tokens": f"{header.world.tokenizer.n_tokens} a frame of {header.world.tokenizer.codes} codes",
        "window": header.world.dynamics.window,
        "numbers": numbers,
        "actions": {
            str(label.code): f"{label.name} ({label.dx:+.1f}, {label.dy:+.1f}), sure {label.confidence:.0%}"
            for label in header.labels
        },
        "idle": header.idle,
        "path": asdict(header.path),
        "stages": header.stages,
        "evaluation": header.evaluation,
        "provenance": header.provenance,
    }


def _describe_replay(path: Path) -> dict[str, Any]:
    from genie_play.session import journal

    replay = journal.read(path)
    height, width = replay.size
    return {
        "replay": str(path),
        "world": replay.checkpoint.get("name", ""),
        "sha256": replay.checkpoint.get("sha256", ""),
        "app": str(replay.header.get("app", "")),
        "picture": f"{width}x{height}",
        "rate": replay.rate,
        "prompt": replay.prompt.source,
        "seed": replay.seed,
        "steps": sum(node.move is not None and node.move.action is not None for node in replay.nodes.values()),
        "edits": sum(node.move is not None and node.move.action is None for node in replay.nodes.values()),
        "branches": len(replay.histories),
        "seconds": round((replay.nodes[replay.last].index + 1) / replay.rate, 2),
        "bookmarks": replay.bookmarks,
        "path": replay.path,
        "cut_short": replay.cut,
    }


def _describe_picture(path: Path) -> dict[str, Any]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            frames, seconds = getattr(image, "n_frames", 1), 0.0
            for n in range(min(frames, 10_000)):
                image.seek(n)
                seconds += image.info.get("duration", 0) / 1000
            what = {"picture": str(path), "format": image.format, "size": f"{image.width}x{image.height}"}
            return what | {"mode": image.mode, "frames": frames, "seconds": round(seconds, 2)}
    except UnidentifiedImageError:
        raise GenieError(f"{path} is no world, no replay and no picture that can be read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise GenieError(f"{path} cannot be read as a picture: {error}") from None


def _check_pygame() -> None:
    """Both pygame distributions at once overwrite each other's files. Looked up by folder, as a window waits for it."""
    from importlib.util import find_spec

    spec = find_spec("pygame")
    if spec is None or spec.origin is None:
        raise GenieError("pygame is not installed; start with 'python3 launch.py', or: pip install pygame-ce")
    site = Path(spec.origin).parent.parent
    if any(site.glob("pygame-[0-9]*.dist-info")) and any(site.glob("pygame_ce-*.dist-info")):
        raise GenieError(
            "both pygame and pygame-ce are installed and damage each other; "
            "run 'pip uninstall -y pygame pygame-ce', then 'pip install pygame-ce'"
        )


def _new_folder(folder: Path) -> Path:
    """The folder, made; beside it with -2, -3, ... if there is something in it."""
    from genie_play import paths

    candidate, n = folder, 2
    while candidate.exists() and not (candidate.is_dir() and not any(candidate.iterdir())):
        candidate, n = folder.with_name(f"{folder.name}-{n}"), n + 1
    return paths.writable(candidate)


def _show(args: argparse.Namespace, result: dict[str, Any], lines: Iterable[str]) -> None:
    """Print a result, as JSON if that was asked for."""
    if args.json:
        print(json.dumps(result, default=str, ensure_ascii=False, indent=1))
    else:
        print("\n".join(lines))


def _aligned(what: Mapping[str, Any]) -> list[str]:
    """Names and values in two columns."""
    width = max((len(name) for name in what), default=0)
    return [f"{name:{width}}  {_plain(value)}" for name, value in what.items()]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _note(text: str) -> None:
    print(f"genie-play: {text}", file=sys.stderr)


def _note_cut(replay: Replay) -> None:
    if replay.cut:
        _note("the last line of this replay was cut short and is left out")


def _fail(message: str) -> int:
    _note(" ".join(message.split()))
    return 2


def _bug(error: Exception) -> int:
    """Say that this is our fault and where the details are."""
    from genie_play import paths

    text = "".join(traceback.format_exception(error))
    try:
        log = paths.writable(paths.logs()) / "errors.log"
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} genie-play {__version__} {sys.argv[1:]}\n{text}\n")
        _note(f"a bug: {type(error).__name__}: {' '.join(str(error).split())}; the details are in {log}")
    except (GenieError, OSError):
        print(text, file=sys.stderr)
    return 1


_RUN: dict[str, Callable[[argparse.Namespace], int]] = {
    "play": _play,
    "rollout": _rollout,
    "compare": _compare,
    "replay": _replay,
    "verify": _verify,
    "see": _see,
    "infer": _infer,
    "probe": _probe,
    "info": _info,
    "doctor": _doctor,
    "keys": _keys,
    "recover": _recover,
    "data": _data,
    "train": _train,
    "eval": _eval,
    "bench": _bench,
}
