"""Does every path of a world compute what it should on this machine? The promises that play rests on, one by one.

Each check compares two ways to the same numbers and says what it found; none knows what will be done about it. Paths
are asked for by name, so that one which failed before is looked at again. Names of paths: see `engine/verdicts.py`.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genie_play import checkpoint, ops
from genie_play.config import PathConfig
from genie_play.engine.engine import ARITHMETIC, GenieEngine
from genie_play.engine.state import Ring
from genie_play.eval.stopwatch import Watch, networks
from genie_play.nn.genie import Genie, load_genie
from genie_play.session import journal
from genie_play.session.session import Session
from genie_play.types import Frame, GenieError, History, Move, Pixels, Prompt

# relative error (L2) of logits: float32 sums in another order; bf16 on spark is off by 1 to 2% (measured), and a world
# whose numbers have outliers needs some room
LOGITS = {"fp32": 1e-4, "bf16": 0.04, "int8": 0.06, "fp8": 0.12}
AGREE = {"fp32": 1.0, "bf16": 0.98, "int8": 0.97, "fp8": 0.95}  # share of the sure tokens that must be the same
SURE = 1.0  # nats between the best code and the second: a token that no rounding should change
# how an engine is asked for the most likely code of every place at once: all of them in one pass
PROBE: dict[str, Any] = {"order": "confidence", "steps": 1, "temperature": 0.0, "last_argmax": True, "guidance": 1.0}
ACTIONS = (3, 0, 5, 1, 1, 7, 2, 4, 6, 6, 0, 3)


@dataclass(frozen=True)
class Check:
    """One comparison. `path` is what it speaks for; `state` is "ok", "failed" or "skipped"."""

    name: str
    path: str
    state: str
    detail: str


def check_world(world: Path | str, say: Callable[[str], None] = lambda _: None) -> Iterator[Check]:
    """All checks of a world on every device that is here; `say` is told what is being done.

    A check that cannot be made at all (an error, where numbers were expected) has failed.
    """
    file = checkpoint.find(world)
    plain, _ = load_genie(file)
    expected = whole_clip(plain)
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:

        def against(arithmetic: str, at: str = device) -> Iterator[Check]:
            engine = GenieEngine(file, **PROBE, device=at, arithmetic=arithmetic)
            return _against(engine, expected, f"{at}/{arithmetic}")

        plans: list[tuple[str, str, Callable[[], Iterator[Check]]]] = [
            ("cache against recompute", "fp32", partial(against, "fp32")),
            ("tokenizer against recompute", "fp32", partial(_tokenizer, plain, device)),
            ("same twice", "fp32", partial(_same_twice, file, device)),
            ("replay verifies", "fp32", partial(_replay, file, device)),
            *((f"{kind} against fp32", kind, partial(against, kind)) for kind in ARITHMETIC if kind != "fp32"),
            *(
                ("kernels against twins", name, partial(_kernels, name, device))
                for name in ops.BACKENDS
                if name != "reference"
            ),
            ("graph against eager", "graph", partial(_graph, file, device)),
        ]
        for name, part, plan in plans:
            path = f"{device}/{part}"
            say(f"{name} on {path}")
            try:
                yield from plan()
            except GenieError as error:
                yield Check(name, path, "skipped", str(error))
            except Exception as error:  # whatever a path raises, it is a path that does not work
                yield Check(name, path, "failed", f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")


@dataclass(frozen=True)
class Expected:
    """A clip of random tokens and what the dynamics model says of each frame, hidden, given all before it."""

    prompt: Prompt
    moves: tuple[Move, ...]
    logits: Tensor  # (F, N, V) of the last F frames


@dataclass(frozen=True)
class Followed:
    """How an engine that was led through a clip compares with the clip as a whole."""

    error: float | None  # relative (L2) of the logits; None where the engine keeps them to itself
    agree: float  # share of the sure tokens that are the same
    sure: int  # how many those are
    same: float  # share of all tokens that are the same

    def within(self, arithmetic: str) -> bool:
        """Whether that is what rounding alone does."""
        near = self.error is None or self.error <= LOGITS[arithmetic]
        return near and self.agree >= AGREE[arithmetic]

    def __str__(self) -> str:
        near = "" if self.error is None else f"logits {self.error:.1e} apart, "
        return f"{near}{self.agree:.1%} of {self.sure} sure tokens agree, {self.same:.1%} of all"


@torch.inference_mode()
def whole_clip(genie: Genie, frames: int = 0) -> Expected:
    """Run float32 networks over a whole clip at once, without any cache: twice the window and two frames, so that a
    ring of their keys wraps twice on the way."""
    dynamics = genie.dynamics
    frames = frames or 2 * dynamics.config.window + 2
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(0, dynamics.codes, (1, frames, dynamics.n_tokens), generator=generator)
    actions = torch.randint(0, dynamics.no_action, (1, frames), generator=generator)
    actions[:, 0] = dynamics.no_action
    hidden = torch.full_like(clean, dynamics.mask_id)
    if dynamics.config.recipe == "teacher":
        states = dynamics(hidden, actions, clean)[0, 1:]
    else:
        # one stream: only its last frame may be hidden
        states = dynamics(torch.cat((clean[:, :-1], hidden[:, -1:]), 1), actions)[0, -1:]
    tokens = clean[0].numpy().astype(np.uint16)
    moves = tuple(Move(int(actions[0, t]), tokens[t]) for t in range(1, frames))
    prompt = Prompt(np.zeros((1, *genie.config.size, 3), np.uint8), "check", tokens[0])
    return Expected(prompt, moves, dynamics.logits(states))


def follow(engine: GenieEngine, expected: Expected) -> Followed:
    """Lead an engine on a path like PROBE through the clip, and ask it for each frame before telling it."""
    first = len(expected.moves) - len(expected.logits)
    engine.reset(expected.prompt, 1)
    drawn, hidden = [], []
    with Watch(engine.device) as watch:
        seen = watch.keep(ops.get(engine.path.ops), "reveal")
        for number, move in enumerate(expected.moves):
            if number >= first:
                seen.clear()
                drawn.append(engine.futures([int(move.action or 0)])[0].tokens.astype(np.int64))
                if seen:
                    hidden.append(seen[0][0][0].float().cpu())
            engine.step(int(move.action or 0), move.tokens)
    best = expected.logits.topk(2, -1).values
    sure = best[..., 0] - best[..., 1] > SURE
    same = expected.logits.argmax(-1) == torch.from_numpy(np.stack(drawn))
    error = None
    if len(hidden) == len(expected.logits):
        head = networks(engine).dynamics.head.weight.float().cpu()
        error = _apart(expected.logits, torch.stack(hidden) @ head.T)
    agree = float(same[sure].float().mean()) if sure.any() else 1.0
    return Followed(error, agree, int(sure.sum()), float(same.float().mean()))


@torch.inference_mode()
def tokenizer_error(genie: Genie) -> float:
    """The same of the tokenizer: latents and pixels, frame by frame against the whole clip."""
    tokenizer = genie.tokenizer
    device, frames = genie.dynamics.head.weight.device, 2 * tokenizer.config.window + 2
    clip = torch.from_numpy(scenery(genie.config.size, frames)).float().to(device)[None] / 255
    latents, tokens = tokenizer.encoder(clip)[0], tokenizer.encode(clip)
    look = tokenizer.look(clip[:, 0])
    pixels = tokenizer.decode(tokens, look)[0]
    encoder = Ring(tokenizer.encoder_shape, tokenizer.config.n_tokens, False, device)
    decoder = Ring(tokenizer.decoder_shape, tokenizer.config.n_tokens, False, device)
    worst = 0.0
    for t in range(frames):
        seen, kept = tokenizer.encoder.stream(clip[:, t], encoder.past())
        encoder.commit(kept)
        painted, kept = tokenizer.decode_step(tokens[:, t], decoder.past(), look)
        decoder.commit(kept)
        worst = max(worst, _apart(latents[t], seen[0]), _apart(pixels[t], painted[0]))
    return worst


def scenery(size: tuple[int, int], frames: int) -> Pixels:
    """Coarse random scenery that scrolls by two pixels a frame: (frames, H, W, 3)."""
    height, width = size
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3))
    picture = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)
    return np.stack([np.roll(picture, -2 * t, 1) for t in range(frames)])


def _against(engine: GenieEngine, expected: Expected, path: str) -> Iterator[Check]:
    """An engine against the clip as a whole, in float32 and uncached."""
    try:
        found = follow(engine, expected)
    finally:
        engine.close()
    arithmetic = path.partition("/")[2]
    allowed = f"({LOGITS[arithmetic]:g} allowed, {AGREE[arithmetic]:.0%} of the sure asked)"
    name = "cache against recompute" if arithmetic == "fp32" else f"{arithmetic} against fp32"
    yield Check(name, path, "ok" if found.within(arithmetic) else "failed", f"{found} {allowed}")


def _tokenizer(genie: Genie, device: str) -> Iterator[Check]:
    error = tokenizer_error(copy.deepcopy(genie).to(device))
    state = "ok" if error <= LOGITS["fp32"] else "failed"
    detail = f"latents and pixels {error:.1e} apart ({LOGITS['fp32']:g} allowed)"
    yield Check("tokenizer against recompute", f"{device}/fp32", state, detail)


def _same_twice(file: Path, device: str) -> Iterator[Check]:
    """Played twice, and once rebuilt from tokens alone in an engine that has never seen them."""
    engine = _engine(file, device, "fp32")
    first = _play(engine, 2 * engine.info.window + 2)
    second = _play(engine, 2 * engine.info.window + 2)
    engine.close()
    half = len(first) // 2
    moves = tuple(Move(frame.action, frame.tokens) for frame in first[1:half])
    fresh = _engine(file, device, "fp32")
    fresh.restore(History(_prompt(fresh, first[0].tokens), 1, moves))
    rest = [fresh.step(int(frame.action or 0)) for frame in first[half:]]
    fresh.close()
    same, rebuilt = _equal(first, second), _equal(first[half:], rest)
    words = {True: "equal", False: "differ"}
    detail = f"{len(first)} frames {words[same]} twice, {words[rebuilt]} rebuilt"
    yield Check("same twice", f"{device}/fp32", "ok" if same and rebuilt else "failed", detail)


def _replay(file: Path, device: str) -> Iterator[Check]:
    """A play-through is written down, read, and dreamt again on the path that it names."""
    with tempfile.TemporaryDirectory() as folder:
        engine = _engine(file, device, "fp32")
        session = Session(engine, _prompt(engine), 5, journal.Writer(Path(folder) / "check.gplay"))
        session.start()
        for action in ACTIONS:
            session.step(action)
        session.close()
        engine.close()
        replay = journal.read(Path(folder) / "check.gplay")
    path = dict(replay.path)
    again = GenieEngine(file, device=path.pop("device"), **path)
    first, *rest = replay.branch()
    hashes, past = [], ""
    for node in (first, *rest):
        if node.move is None:
            frame = again.reset(Prompt(replay.prompt.pictures), first.seed)
        else:
            frame = again.step(int(node.move.action or 0))
        past = journal.token_hash(past, frame.tokens)
        hashes.append(past)
    again.close()
    wrong = next((n for n, node in enumerate(replay.branch()) if node.hash != hashes[n]), None)
    detail = f"{len(rest)} steps the same" if wrong is None else f"step {wrong} of {len(rest)} differs"
    yield Check("replay verifies", f"{device}/fp32", "ok" if wrong is None else "failed", detail)


def _kernels(name: str, device: str) -> Iterator[Check]:
    """A backend against its twins: its own list of comparisons, else the small frame that the choice of it rests on."""
    path = f"{device}/{name}"
    if name not in ops.available() or (device == "cpu" and ops._unfit(name, torch.device(device))):
        yield Check(
            "kernels against twins", path, "skipped", ops._missing(name) or ops._unfit(name, torch.device(device))
        )
        return
    compare: Callable[..., list[tuple[str, bool, str]]] | None = getattr(ops, "self_check", None)
    if compare is not None:
        results = compare(name, torch.device(device))
        wrong = "; ".join(f"{kernel}: {detail}" for kernel, right, detail in results if not right)
        good = f"{len(results)} comparisons equal"
    else:
        wrong, good = ops._failure(name, torch.device(device)), "a small frame is equal"
    yield Check("kernels against twins", path, "failed" if wrong else "ok", wrong or good)


def _graph(file: Path, device: str) -> Iterator[Check]:
    """Frames captured as a graph against the same operations run one by one: equal bit for bit."""
    path = f"{device}/graph"
    if device == "cpu" or "frame" not in {field.name for field in dataclasses.fields(PathConfig)}:
        reason = "only an NVIDIA GPU captures frames" if device == "cpu" else "this version captures no frames"
        yield Check("graph against eager", path, "skipped", reason)
        return
    runs = []
    for frame in ("graph", "static"):
        engine = GenieEngine(file, device=device, frame=frame)
        runs.append(_play(engine, 2 * engine.info.window + 2))
        engine.close()
    same = _equal(*runs) and all(np.array_equal(a.pixels, b.pixels) for a, b in zip(*runs, strict=True))
    detail = f"{len(runs[0])} frames {'equal bit for bit' if same else 'differ'}"
    yield Check("graph against eager", path, "ok" if same else "failed", detail)


def _engine(file: Path, device: str, arithmetic: str) -> GenieEngine:
    return GenieEngine(file, device=device, arithmetic=arithmetic)


def _prompt(engine: GenieEngine, tokens: Any = None) -> Prompt:
    return Prompt(scenery(engine.info.size, 1), "check", tokens)


def _play(engine: GenieEngine, steps: int) -> list[Frame]:
    frames = [engine.reset(_prompt(engine), 1)]
    return frames + [engine.step(ACTIONS[step % len(ACTIONS)]) for step in range(steps)]


def _equal(a: list[Frame], b: list[Frame]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x.tokens, y.tokens) for x, y in zip(a, b, strict=True))


def _apart(expected: Tensor, found: Tensor) -> float:
    """Relative error in L2; infinite where a number is not finite."""
    error = float((expected.float() - found.float()).norm() / expected.float().norm().clamp_min(1e-12))
    return error if np.isfinite(error) else float("inf")
