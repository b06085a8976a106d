"""Write clips of Procgen's CoinRun, played at random, as video that `--source FOLDER` reads.

    python3 -m venv coinrun-venv && coinrun-venv/bin/pip install procgen-mirror
    coinrun-venv/bin/python coinrun.py --out clips --levels 1500
    genie-play train all --preset spark --source clips/train --out runs/coinrun
    genie-play eval runs/coinrun --source clips/test

An environment of its own, because procgen-mirror wants an old gym and numpy 1; nothing of Genie Play is imported here.
The play is that of appendix F of the Genie paper (arXiv 2402.15391): difficulty "hard", each action uniform among all
15, a new one every tick, 1,000 ticks a level at most. From each level one stretch is kept, at a random moment; episodes
shorter than it are dropped. Levels below 10,000 go to OUT/train, one for each ten of them from 10,000 on to OUT/test.

Clips are animated WebP without loss, 64x64, named by their level. CoinRun's pictures belong to others and have no
licence file: keep them, and what was trained on them, to yourself.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

TRAIN_LEVELS = 10_000  # levels from here on are for testing
ACTIONS = 15
TICKS = 1_000  # CoinRun ends an episode here itself


def main() -> int:
    args = _arguments()
    try:
        from procgen import ProcgenGym3Env
    except ImportError:
        print("coinrun.py: procgen is not installed here: pip install procgen-mirror", file=sys.stderr)
        return 2
    pick = random.Random(args.seed)
    parts = {
        "train": pick.sample(range(TRAIN_LEVELS), args.levels),
        "test": pick.sample(range(TRAIN_LEVELS, 2 * TRAIN_LEVELS), max(1, args.levels // 10)),
    }
    for part, levels in parts.items():
        folder = args.out / part
        folder.mkdir(parents=True, exist_ok=True)
        kept, started = 0, time.monotonic()
        for level in levels:
            rng = np.random.default_rng([args.seed, level])
            frames = episode(ProcgenGym3Env, level, args.hold, rng)
            if len(frames) < args.frames:
                continue
            first = int(rng.integers(len(frames) - args.frames + 1))
            write(folder / f"level-{level:05}.webp", frames[first : first + args.frames])
            kept += 1
        seconds = time.monotonic() - started
        print(f"{folder}: {kept} clips of {args.frames} frames, {len(levels) - kept} too short, {seconds:.0f} s")
    return 0


def episode(environment: type, level: int, hold: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The frames (64, 64, 3) of one level, from its start to its end; an action lasts 1 to `hold` ticks."""
    game = environment(
        num=1, env_name="coinrun", distribution_mode="hard", num_levels=1, start_level=level, num_threads=0
    )
    frames = [game.observe()[1]["rgb"][0].copy()]
    action, left = 0, 0
    while len(frames) < TICKS:
        if left == 0:
            action, left = int(rng.integers(ACTIONS)), int(rng.integers(1, hold + 1))
        left -= 1
        game.act(np.array([action], np.int32))
        _, seen, first = game.observe()
        # the frame after the end is the start of the next round
        if first[0]:
            break
        frames.append(seen["rgb"][0].copy())
    game.close()
    return frames


def write(file: Path, frames: list[np.ndarray]) -> None:
    """One clip, a tenth of a second a frame, written beside and renamed."""
    pictures = [Image.fromarray(frame) for frame in frames]
    beside = file.with_suffix(".part")
    pictures[0].save(
        beside, format="WEBP", save_all=True, append_images=pictures[1:], duration=100, loop=0, lossless=True, method=0
    )
    beside.replace(file)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for train/ and test/")
    parser.add_argument("--levels", type=int, default=1500, help="training levels; a tenth as many more for testing")
    parser.add_argument("--frames", type=int, default=100, help="length of a clip; shorter episodes are dropped")
    parser.add_argument("--hold", type=int, default=1, help="an action lasts 1 to HOLD ticks; 1 is the paper's")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not 1 <= args.levels <= TRAIN_LEVELS:
        parser.error(f"--levels takes 1 to {TRAIN_LEVELS}")
    if not 2 <= args.frames <= TICKS:
        parser.error(f"--frames takes 2 to {TICKS}")
    if args.hold < 1:
        parser.error("--hold takes 1 or more")
    return args


if __name__ == "__main__":
    sys.exit(main())
