"""The library's face: worlds without a window, for programs.

    from genie_play import world
    with world.load("spark") as spark:
        spark.reset("sketch.png", seed=7)
        for frame in spark.rollout("right:10 jump random:20"):
            ...                                    # frame.pixels is (H, W, 3) uint8

Knows engines, sessions and journals; nothing of windows. torch is imported when a world with weights is loaded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from genie_play import checkpoint, config, paths, philox
from genie_play.media import pictures
from genie_play.play.keymap import SLOTS, slot_codes
from genie_play.session.journal import Node, Replay, Writer, token_hash
from genie_play.session.session import Session
from genie_play.types import (
    LABEL_NAMES,
    N_ACTIONS,
    Engine,
    EngineInfo,
    Frame,
    GenieError,
    History,
    Move,
    Pixels,
    Prompt,
    ReplayError,
)

PLATFORMER = "platformer"  # the game that the shipped worlds learn from: an engine without weights
ENVIRONMENT = "GeniePlay-v0"
MOST_STEPS = 100_000  # of one rollout: hours of play
_SPEC_STEP = philox.ORDER_STEP + 1  # a step of the noise that no sampler and no order reaches


class World:
    """An engine and the play-through in it. `reset` comes first; a call out of order is a ValueError."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._session: Session | None = None

    @property
    def info(self) -> EngineInfo:
        """What the engine says of itself: size, rate, labels, path."""
        return self.engine.info

    @property
    def session(self) -> Session:
        """The play-through: walk it with `back`, `forward`, `goto`, `undo`."""
        if self._session is None:
            raise ValueError("reset comes first")
        return self._session

    def reset(
        self,
        prompt: Any = None,
        seed: int = 0,
        journal: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Frame:
        """Start a play-through and return frame 0.

        `prompt` is a file, the name of a shipped prompt, a picture (H, W, 3) uint8 of any size, a `Prompt`, or None for
        one that is shipped. With `journal` it is written there as it happens, or beside it if that is taken.
        SourceError if the prompt cannot be read.
        """
        writer = None if journal is None else Writer(journal)
        session = Session(self.engine, self.prompt(prompt, seed), seed, writer, clock)
        frame = session.start()
        if self._session is not None:
            self._session.close()
        self._session = session
        return frame

    def step(self, action: int | str) -> Frame:
        """Generate the next frame. `action` is a code, a label or a slot."""
        return self.session.step(parse_action(action, self.info) if isinstance(action, str) else action)

    def rollout(self, spec: str | Sequence[int]) -> Iterator[Frame]:
        """Take the steps of a SPEC (see `parse_actions`) or of a list of codes, yielding frames as they come."""
        actions = parse_actions(spec, self.info, self.session.seed) if isinstance(spec, str) else spec
        for action in actions:
            yield self.session.step(action)

    def futures(self) -> list[Frame]:
        """The frame that each of the eight actions would give; changes nothing."""
        if not self.session.engine_here:
            self.session.restore()
        return self.engine.futures(range(N_ACTIONS))

    def see(self, picture: Any) -> Pixels:
        """What the world makes of a picture, (H, W, 3) uint8; changes nothing."""
        return self.engine.see(self.prompt(picture).pictures[-1])

    def prompt(self, source: Any = None, seed: int = 0) -> Prompt:
        """A prompt at this world's size, from whatever `reset` takes."""
        if isinstance(source, Prompt):
            return source
        return pictures.load(find_picture(source, seed), self.info.size).prompt

    def close(self) -> None:
        """Close the journal and free the engine. Twice is fine."""
        if self._session is not None:
            self._session.close()
        self.engine.close()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class Difference:
    """Where a replay, computed again, first gave other tokens."""

    node: int  # the replay's i; 0 is the prompt
    index: int  # steps from the prompt
    expected: str  # hash in the replay
    found: str  # hash of what was computed

    def __str__(self) -> str:
        what = "the prompt" if self.node == 0 else f"step {self.node} (frame {self.index})"
        return f"{what} differs: the replay has {self.expected}, this machine computes {self.found}"


def load(name: Path | str = "spark", device: str = "auto", **path: Any) -> World:
    """Load a world by name, file or folder. `path` overrides fields of `config.PathConfig`, such as steps=8.

    CheckpointError lists the worlds there are; BackendError if the device is not there.
    """
    return World(open_engine(name, device, path))


def open_engine(name: Path | str, device: str = "auto", path: Mapping[str, Any] | None = None) -> Engine:
    """The engine of a world, loaded; "platformer" is the game without weights."""
    if str(name) == PLATFORMER:
        from genie_play.data.platformer import PlatformerEngine

        return PlatformerEngine()
    options = dict(path or {})
    config.from_dict(config.PathConfig, options, "path")  # names an unknown field
    file = checkpoint.find(name)
    from genie_play.engine.engine import GenieEngine

    device = options.pop("device", device) if device == "auto" else device
    return GenieEngine(file, device=device, **{key: value for key, value in options.items() if key != "device"})


def world_of(replay: Replay) -> str:
    """The name of the world that made a replay; ReplayError if no world here has its fingerprint."""
    name, sha256 = replay.checkpoint.get("name", "a world"), replay.checkpoint.get("sha256")
    if name == PLATFORMER or not sha256:
        return name
    # the one of the same name first: to hash the others may take a while
    for other in sorted(checkpoint.names(), key=lambda known: known != name):
        if checkpoint.fingerprint(checkpoint.find(other)) == sha256:
            return other
    raise ReplayError(f"this replay was made by {name} ({sha256[:8]}), which is not here; give its file with --world")


def shipped_prompts() -> dict[str, Path]:
    """The prompts that come with the program, by name."""
    return {path.stem: path for path in sorted(paths.assets().glob("prompts/*.png"))}


def find_picture(source: Any = None, seed: int = 0) -> Any:
    """What `pictures.load` takes: the source, a shipped prompt by its name, or, for None, one of them by seed."""
    shipped = shipped_prompts()
    if source is None:
        if not shipped:
            raise GenieError("no prompts are shipped with this copy; name a picture")
        return list(shipped.values())[seed % len(shipped)]
    if isinstance(source, str) and source in shipped and not Path(source).exists():
        return shipped[source]
    return source


def parse_actions(spec: str, info: EngineInfo, seed: int = 0) -> list[int]:
    """The codes of a SPEC: items ACTION or ACTION:COUNT, separated by spaces.

    ACTION is a code 0 to 7, a label (left, jump), a slot of the compass (N, NE) or `random`, which depends on the seed
    alone. GenieError says what is wrong with an item.
    """
    items = [item.partition(":") for item in spec.split()]
    if not items:
        raise GenieError("no actions were given; write them like '3:10 right:5 random:60'")
    codes: list[int] = []
    for place, (word, colon, text) in enumerate(items):
        count = 1 if not colon else _count(text, f"{word}:{text}")
        if len(codes) + count > MOST_STEPS:
            raise GenieError(f"more than {MOST_STEPS} steps are too many for one rollout; take fewer")
        if word.lower() == "random":
            noise = philox.position_uniforms(seed, np.arange(count), _SPEC_STEP, place)
            codes += (noise * N_ACTIONS).astype(int).tolist()
        else:
            codes += [parse_action(word, info)] * count
    return codes


def parse_action(word: str, info: EngineInfo) -> int:
    """The code of a code, a label or a slot; GenieError lists what there is."""
    if re.fullmatch(r"[+-]?\d+", word):
        if not 0 <= int(word) < N_ACTIONS:
            raise GenieError(f"action {word} is outside 0..{N_ACTIONS - 1}")
        return int(word)
    if word.upper() in SLOTS:
        return slot_codes(info.labels, info.idle)[SLOTS.index(word.upper())]
    named = [label for label in info.labels if label.name == word.lower()]
    if named:
        return max(named, key=lambda label: label.confidence).code
    have = ", ".join(dict.fromkeys(label.name for label in info.labels))
    if word.lower() in LABEL_NAMES:
        raise GenieError(f"no code of {info.name} bears the label {word!r}; its labels: {have}; or use a code 0 to 7")
    raise GenieError(f"{word!r} is no action: use a code 0 to 7, a slot ({', '.join(SLOTS)}), random, or one of {have}")


def verify(
    replay: Replay, engine_on: Callable[[dict[str, Any]], Engine], watch: Callable[[Node], None] = lambda node: None
) -> Difference | None:
    """Compute every step and edit of a replay again, on every branch, and say where the tokens first differ.

    `engine_on` gives the engine of a path (a PathConfig as a dict); one is open at a time. Each step follows from the
    replay's own tokens before it; `watch` is told of each that agrees. ReplayError if it belongs to another world.
    """
    engine: Engine | None = None
    path: dict[str, Any] | None = None
    at: tuple[int, int] | None = None  # the node and seed that the engine is at
    try:
        for node in replay.nodes.values():
            if engine is None or node.path != path:
                if engine is not None:
                    engine.close()
                engine, path, at = engine_on(node.path), node.path, None
                replay.check(engine.info)
            if node.parent is None or node.move is None:
                frame = engine.reset(Prompt(replay.prompt.pictures, replay.prompt.source), node.seed)
                before = ""
            else:
                if at != (node.parent, node.seed):
                    engine.restore(replay.history(node.parent, node.seed))
                before = replay.nodes[node.parent].hash
                if node.move.action is not None:
                    frame = engine.step(node.move.action)
                else:
                    assert node.move.pixels is not None
                    frame = engine.edit(node.move.pixels)
            found = token_hash(before, frame.tokens)
            if found != node.hash:
                return Difference(node.i, node.index, node.hash, found)
            at = (node.i, node.seed)
            watch(node)
    finally:
        if engine is not None:
            engine.close()
    return None


def tape(replay: Replay, engine: Engine) -> Iterator[Frame]:
    """The frames of a replay's last branch as they were, from its tokens; on any machine."""
    replay.check(engine.info)
    first, *rest = replay.branch()
    yield engine.reset(replay.prompt, first.seed)
    for node in rest:
        assert node.move is not None
        if node.move.action is not None:
            yield engine.step(node.move.action, node.move.tokens)
        else:
            # an edit is its tokens too; to paint again could give others
            yield engine.restore(replay.history(node.i))


def redream(replay: Replay, engine: Engine) -> Iterator[tuple[Frame, bool]]:
    """The last branch of a replay dreamt again from its actions, edits and seeds; whether all so far is as it was."""
    replay.check(engine.info)
    first, *rest = replay.branch()
    prompt, seed = Prompt(replay.prompt.pictures, replay.prompt.source), first.seed
    frame = engine.reset(prompt, seed)
    prompt = replace(prompt, tokens=frame.tokens)
    moves: list[Move] = []
    past = token_hash("", frame.tokens)
    agrees = past == first.hash
    yield frame, agrees
    for node in rest:
        assert node.move is not None
        if node.seed != seed:
            seed = node.seed
            engine.restore(History(prompt, seed, tuple(moves)))
        if node.move.action is not None:
            frame = engine.step(node.move.action)
        else:
            assert node.move.pixels is not None
            frame = engine.edit(node.move.pixels)
        moves.append(replace(node.move, tokens=frame.tokens))
        past = token_hash(past, frame.tokens)
        agrees = agrees and past == node.hash
        yield frame, agrees


def register() -> None:
    """Make `gymnasium.make("GeniePlay-v0", world="spark", prompt="sketch.png")` work. Twice is fine."""
    import gymnasium

    if ENVIRONMENT not in gymnasium.registry:
        gymnasium.register(ENVIRONMENT, entry_point="genie_play.world:make_env")


def make_env(world: str = "spark", prompt: Any = None, render_mode: str | None = None, **options: Any) -> Any:
    """A `gymnasium.Env` of a world: Discrete(8) in, pictures (H, W, 3) uint8 out. Reward is 0 and nothing ends.

    `options` go to `load`. `reset` takes a seed and, in its options, another "prompt".
    """
    return _env_class()(load(world, **options), prompt, render_mode)


@lru_cache(maxsize=1)
def _env_class() -> Any:
    """The class is made when asked for, because gymnasium may not be installed."""
    import gymnasium

    class GenieEnv(gymnasium.Env):
        """A world behind the interface of Gymnasium."""

        def __init__(self, world: World, prompt: Any, render_mode: str | None) -> None:
            self.world, self.render_mode = world, render_mode
            self.metadata = {"render_modes": ["rgb_array"], "render_fps": world.info.rate}
            self.action_space = gymnasium.spaces.Discrete(N_ACTIONS)
            self.observation_space = gymnasium.spaces.Box(0, 255, (*world.info.size, 3), np.uint8)
            self._prompt = prompt
            self._frame: Frame | None = None

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            super().reset(seed=seed)
            noise = seed if seed is not None else int(self.np_random.integers(1 << 62))
            self._frame = self.world.reset((options or {}).get("prompt", self._prompt), noise)
            return self._frame.pixels, self._about(self._frame)

        def step(self, action: Any) -> Any:
            self._frame = self.world.step(int(action))
            return self._frame.pixels, 0.0, False, False, self._about(self._frame)

        def render(self) -> Any:
            return self._frame.pixels.copy() if self.render_mode == "rgb_array" and self._frame is not None else None

        def get_keys_to_action(self) -> dict[str, int]:
            """Letters around S, as in the window, for `gymnasium.utils.play`."""
            codes = slot_codes(self.world.info.labels, self.world.info.idle)
            return dict(zip("wedcszaq", codes, strict=True))

        def close(self) -> None:
            self.world.close()

        def _about(self, frame: Frame) -> dict[str, Any]:
            return {"step": frame.index, "tokens": frame.tokens}

    return GenieEnv


def _count(text: str, item: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) == 0:
        raise GenieError(f"{item!r} should end in how many steps, 1 or more")
    return int(text[:9])
