"""All checks and timings of a GPU in one run: `python -m genie_play.eval.gpu_check --out FOLDER`.

Each part runs in a process of its own, so that one that fails, hangs or breaks its device costs the others nothing;
what it found so far is in all.json while it goes on. A short table comes last, and is in table.txt. `--device cpu
--quick` rehearses all of it in small. Needs torch, triton, numpy, safetensors, Pillow and this package, no network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from genie_play import checkpoint
from genie_play.eval.gpu_parts import PARTS, SIZES, Row, Run

SPARE = 15.0  # seconds of the time that are kept for starting, stopping and printing
BESIDE = (  # what the table says of a row beside its value
    "fixed_us", "ranked_us", "torch_us", "library_fp8", "kernel_bf16", "step_ms", "futures_ms", "futures_exact",
    "draw_ms", "commit_ms", "decode_ms", "floor_ms", "of_floor", "us", "start_s", "frame",
)  # fmt: skip
LOOK_EVERY = 5.0  # seconds between looks at what a part has found
GRACE = 25.0  # seconds that a part may take beside its work, to import torch and to end, before it is stopped


def main(arguments: list[str] | None = None) -> int:
    """Run the parts and print the table; 3 where a check found a difference."""
    asked = _parser().parse_args(arguments)
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)
    if asked.part:
        _run_part(asked.part, out, asked)
        return 0
    # few files go where the person looks: kernels and what parts write on the way lie elsewhere
    cache = Path(tempfile.gettempdir()) / "genie-play-kernels"
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    ends = time.monotonic() + 60 * asked.minutes - SPARE
    shares = {name: share for name, (_, share) in PARTS.items() if not asked.only or name in asked.only}
    found: dict[str, list[Row]] = {}
    on = machine(asked.device)
    with tempfile.TemporaryDirectory(prefix="genie-play-gpu-") as folder:
        for number, (name, share) in enumerate(shares.items()):
            # what earlier parts did not use goes to the later ones
            seconds = max(0.0, ends - time.monotonic()) * share / sum(list(shares.values())[number:])
            print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)

            def keep(rows: list[Row], name: str = name) -> None:
                found[name] = rows
                _write(out / "all.json", {"machine": on, "parts": found})

            if asked.together:
                asked.seconds = seconds
                _run_part(name, Path(folder), asked)
                keep(_read(Path(folder) / f"{name}.json"))
            else:
                _start_part(name, Path(folder), asked, seconds, ends, keep)
    text = table(found, on)
    checkpoint.atomic_write(out / "table.txt", text.encode())
    sys.stdout.write(text + "\n")
    return 3 if any("FAILED" in str(row["value"]) for row in found.get("checks", [])) else 0


def table(found: dict[str, list[Row]], on: dict[str, Any]) -> str:
    """A line for each figure that decides something, and for whatever failed."""
    lines = [f"{on['device']}, torch {on['torch']}, python {on['python']}"]
    for name, rows in found.items():
        failed = [row for row in rows if "FAILED" in str(row["value"])]
        late = sum("not measured" in str(row["value"]) and "log" not in row for row in rows)
        if name == "checks":
            lines.append(
                f"checks: {sum(row['value'] == 'ok' for row in rows)} ok, {len(failed)} failed, {late} not run"
            )
        else:
            lines += [_line(row) for row in rows if row not in failed and "not measured" not in str(row["value"])]
            lines += [f"{name}: {late} not measured"] if late else []
        lines += [f"{row['name']}: {row['value']}" for row in failed]
    return "\n".join(line[:150] for line in lines)


def machine(device: str) -> dict[str, Any]:
    """What was measured on."""
    on_gpu = device.startswith("cuda") and torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "capability": torch.cuda.get_device_capability() if on_gpu else None,
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if on_gpu else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }


def _line(row: Row) -> str:
    beside = " ".join(f"{key} {row[key]}" for key in BESIDE if key in row)
    value = f"{row['value']:.4g}" if isinstance(row["value"], float) else row["value"]
    return f"{row['name']}: {value} {row['unit']}" + (f"  ({beside})" if beside else "")


def _run_part(name: str, out: Path, asked: argparse.Namespace) -> None:
    """One part, in this process."""
    if asked.device == "cpu":
        torch.set_num_threads(1)  # on a busy machine two wait for each other
    run = Run(
        torch.device(asked.device),
        asked.quick,
        asked.seconds,
        sizes=tuple(asked.sizes),
        keep=lambda rows: _write(out / f"{name}.json", rows),
    )
    run.keep([])
    for _ in run.each({name: lambda: PARTS[name][0](run)}):
        pass
    run.keep(run.rows)


def _start_part(
    name: str, folder: Path, asked: argparse.Namespace, seconds: float, ends: float, keep: Callable[[list[Row]], None]
) -> None:
    """One part in a process of its own, stopped where it hangs; what it has found so far is kept all the while."""
    flags = ["--quick"] if asked.quick else []
    command = [sys.executable, "-m", "genie_play.eval.gpu_check", "--out", str(folder)]
    command += ["--device", asked.device, "--part", name, "--seconds", str(seconds), "--sizes", *asked.sizes, *flags]
    stops = time.monotonic() + max(1.0, min(seconds + GRACE, ends + SPARE / 2 - time.monotonic()))
    path, log_path, code = folder / f"{name}.json", folder / f"{name}.log", None
    with open(log_path, "wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while code is None and time.monotonic() < stops:
            try:
                code = child.wait(min(LOOK_EVERY, max(0.1, stops - time.monotonic())))
            except subprocess.TimeoutExpired:
                keep(_read(path))
        if code is None:
            child.kill()
            child.wait()
    rows, told = _read(path), log_path.read_text(encoding="utf-8", errors="replace").strip()
    if code != 0:
        reason = (
            f"it stopped with exit code {code}" if code else f"it was stopped after {seconds + GRACE:.0f} s at most"
        )
        last = " ".join(told.splitlines()[-1:])[:200]
        rows.append({"name": name, "value": f"FAILED: {reason}; {last}", "unit": ""})
    if told:
        rows.append(
            {"name": f"{name}: log", "value": "not measured: said beside its figures", "unit": "", "log": told[-4000:]}
        )
    keep(rows)


def _read(path: Path) -> list[Row]:
    try:
        rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
        return rows
    except (OSError, ValueError):
        return []


def _write(path: Path, data: Any) -> None:
    checkpoint.atomic_write(path, json.dumps(data, indent=1).encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m genie_play.eval.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--minutes", type=float, default=8.5, help="all in all (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="small shapes: a rehearsal")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), help="these parts alone")
    parser.add_argument(
        "--sizes", nargs="+", default=SIZES, choices=SIZES, help="of the paper, in this order (default: all)"
    )
    parser.add_argument("--together", action="store_true", help="all parts in this process")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
