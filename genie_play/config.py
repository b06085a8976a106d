"""Every setting of the project as a frozen dataclass, the presets, and their JSON form.

Floor 0: standard library only. A config travels inside the checkpoint's header.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args, get_origin

from genie_play.types import N_ACTIONS, GenieError

T = TypeVar("T")

# a given picture is cut into pieces at so many offsets each way, and pieces are chosen in so many ways (`nn/look.py`)
LOOK_OFFSETS = 2
LOOK_WAYS = 3


@dataclass(frozen=True)
class TokenizerConfig:
    """Video tokenizer. `trunk` "conv" is ours (DESIGN 4); "patch" is the paper's ST-ViViT on linear patches."""

    height: int = 64
    width: int = 64
    patch: int = 8  # pixels across; and down, unless `patch_height` says otherwise
    patch_height: int = 0
    codes: int = 1024
    code_dim: int = 16
    trunk: str = "conv"  # conv | patch
    stem: int = 64  # channels of the convolutions at a finer stride than the token grid's (conv trunk only)
    fine: int = 0  # pixels, each way, of a place of that stride; 0: half a patch (conv trunk only)
    encoder_width: int = 128
    encoder_blocks: int = 2  # residual convolution blocks on the token grid (conv trunk only)
    encoder_layers: int = 1  # ST blocks on the token grid
    encoder_heads: int = 4
    decoder_width: int = 128
    decoder_blocks: int = 2
    decoder_layers: int = 1
    decoder_heads: int = 4
    head_dim: int = 32
    ffn: float = 2.0  # feed-forward hidden width, in widths
    window: int = 4  # frames that a temporal layer sees, itself included
    look: bool = False  # the decoder also sees the last picture that was given, and keeps to its look (conv trunk only)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Rows and columns of pixels that a token stands for."""
        return self.patch_height or self.patch, self.patch

    @property
    def cell(self) -> int:
        """Pixels, each way, that the decoder's last layer makes at each of its places."""
        return self.patch if self.trunk == "patch" else self.fine or self.patch // 2

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of such places that a token stands for."""
        down, across = self.patch_size
        return down // self.cell, across // self.cell

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens (the picture is padded up to whole patches)."""
        down, across = self.patch_size
        return -(-self.height // down), -(-self.width // across)

    @property
    def n_tokens(self) -> int:
        """Tokens a frame."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class ActionsConfig:
    """Latent action model: "shift" is cost volume and shift kernels (ours), "paper" an ST-transformer on pixels."""

    recipe: str = "shift"  # shift | paper
    codes: int = N_ACTIONS
    motions: int = (
        0  # kinds of motion that are told apart, and codes are keys over them; 0: each code is a motion (shift)
    )
    code_dim: int = 8
    pool: int = 2  # pictures are averaged over pool x pool pixels first (shift)
    reach: tuple[int, int] = (3, 3)  # largest shift seen, in pooled pixels: rows, columns (shift)
    width: int = 64
    patch: int = 16  # (paper)
    layers: int = 4  # (paper)
    heads: int = 4
    head_dim: int = 32
    ffn: float = 4.0
    window: int = 8  # (paper)


@dataclass(frozen=True)
class DynamicsConfig:
    """MaskGIT dynamics: "teacher" is complete teacher forcing, cross-frame keys, 2-D rotary; "paper" the paper's."""

    recipe: str = "teacher"  # teacher | paper
    layers: int = 4
    width: int = 128
    heads: int = 4
    head_dim: int = 32
    ffn: float = 4.0
    window: int = 8
    noise_levels: int = 8  # buckets of the context corruption embedding; 0 is clean, the one used in play
    anchor: bool = False  # of the frames in the window one is always the first: its look does not fade


@dataclass(frozen=True)
class SampleConfig:
    """How a frame of tokens is filled in."""

    steps: int = 4  # MaskGIT passes a frame
    order: str = "halton"  # halton | random | confidence
    temperature: float = 0.7  # belongs to the order: confidence wants another
    last_argmax: bool = True  # the last pass takes the most likely code
    guidance: float = 1.0  # how much of what an action says counts; 1: as much as it says, in one row a pass, not two


@dataclass(frozen=True)
class PathConfig:
    """How tokens are computed: same path, same machine, same versions give the same tokens."""

    variant: str = "gumbel"  # gumbel (draw-equal everywhere) | inverse (one uniform a position)
    order: str = "halton"
    steps: int = 4
    temperature: float = 0.7
    last_argmax: bool = True
    guidance: float = 1.0  # logits are those of 'no action', and so many times what the action adds to them
    arithmetic: str = "fp32"  # fp32 | bf16 | int8 (CPU) | fp8 (CUDA: e4m3 products, the rest bf16)
    threads: int = 1
    device: str = "cpu"
    ops: str = "reference"  # reference | triton
    frame: str = "eager"  # eager | static (one fixed list of operations) | graph (the same, captured; CUDA)
    blocks: str = "plain"  # plain | fused (few kernels) | layer (one each) | library (its products) | compiled
    commit: str = "apart"  # apart (while nobody waits) | merged (with the first pass of the next frame)
    ring: str = "plain"  # plain | fp8 (keys and values of past frames in e4m3)
    sure: float = 0.0  # fill in what is left once every draw of a pass was this likely; 0: never


@dataclass(frozen=True)
class WorldConfig:
    """A whole world: three networks, its rate and how it is sampled."""

    name: str = "world"
    rate: float = 10.0  # steps a second
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    actions: ActionsConfig = field(default_factory=ActionsConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.tokenizer.height, self.tokenizer.width


@dataclass(frozen=True)
class StageConfig:
    """How one stage is trained."""

    steps: int
    batch: int  # clips a step
    frames: int  # frames a clip
    gap: int = 0  # frames, at most, that are left out after the first: what it looked like was long ago in play
    lr: float = 2e-3  # AdamW: embeddings, norms, convolution stems, heads
    muon_lr: float = 0.02  # Muon: hidden matrices
    warmup: float = 0.03  # share of the steps
    decay: float = 0.25  # share of the steps in which the rate falls to zero
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.998


@dataclass(frozen=True)
class TrainConfig:
    """The stages of a preset."""

    tokenizer: StageConfig
    actions: StageConfig
    keys: StageConfig
    decoder: StageConfig
    dynamics: StageConfig


@dataclass(frozen=True)
class PlaySettings:
    """What `settings.json` holds. Flags override; unknown keys in the file are kept."""

    world: str = "spark"
    device: str = "auto"
    flow: bool = False
    scale: float = 1.0  # of the interface, not of the world
    rate: float = 0.0  # steps a second; 0 is the world's own
    gif_scale: int = 0  # 0: the smallest whole number that gives 256 pixels or more on the long side
    fullscreen: bool = False
    keys: dict[str, list[str]] = field(default_factory=dict)  # command -> keys, where the user changed them
    slots: dict[str, list[int]] = field(default_factory=dict)  # checkpoint sha256 -> code of each slot N, NE, ... NW


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON-ready data."""
    return dataclasses.asdict(config)


def from_dict(kind: type[T], data: Any, where: str = "") -> T:
    """Build a config from plain data; GenieError names an unknown field or one of the wrong kind."""
    where = where or kind.__name__
    if not isinstance(data, dict):
        raise GenieError(f"{where} should be a table of settings, not {type(data).__name__}")
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in names:
            raise GenieError(f"{where} has an unknown field {key!r}; it may come from a newer version")
    try:
        return kind(**{key: _convert(hints[key], value, f"{where}.{key}") for key, value in data.items()})
    except TypeError as error:
        raise GenieError(f"{where} is incomplete: {error}") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    origin = get_origin(hint)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = get_args(hint)
        kinds = (kinds[0],) * len(value) if len(kinds) == 2 and kinds[1] is Ellipsis else kinds
        if len(kinds) == len(value):
            return tuple(_convert(k, v, where) for k, v in zip(kinds, value, strict=True))
    elif origin in (dict, list) and isinstance(value, origin):
        return value
    elif origin in (types.UnionType, typing.Union):
        for option in get_args(hint):
            if option is type(None) and value is None:
                return None
            if option is not type(None) and value is not None:
                return _convert(option, value, where)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif hint in (int, str, bool) and type(value) is hint:
        return value
    raise GenieError(f"{where} has the wrong kind of value: {value!r}")


def _paper(name: str, layers: int, width: int, heads: int, head_dim: int, big: bool = False) -> WorldConfig:
    """A size of the paper: tables 5, 7, 10 and 12; feed-forward hidden width D/4 meets the printed counts."""
    tokenizer = TokenizerConfig(
        height=90, width=160, patch=4, codes=1024, code_dim=32, trunk="patch", stem=0,
        encoder_width=512, encoder_blocks=0, encoder_layers=12, encoder_heads=8,
        decoder_width=1024, decoder_blocks=0, decoder_layers=20, decoder_heads=16, head_dim=64, ffn=0.25, window=16,
    )  # fmt: skip
    actions = ActionsConfig(
        recipe="paper", code_dim=32, width=1024, patch=16, layers=20, heads=16, head_dim=64, ffn=0.25, window=16
    )
    dynamics = DynamicsConfig(
        recipe="paper", layers=layers, width=width, heads=heads, head_dim=head_dim, ffn=0.25, window=16, noise_levels=1
    )
    sample = SampleConfig(steps=25, order="random", temperature=1.0, last_argmax=False)
    return WorldConfig(name, 10.0, tokenizer, actions, dynamics, sample)


DRAWN = SampleConfig(temperature=1.0, last_argmax=False)  # as the dynamics were taught, in every pass
# a guided pass runs two rows, and two passes do as well as four (docs/worlds.md)
GUIDED = dataclasses.replace(DRAWN, steps=2, guidance=1.25)

PRESETS: dict[str, WorldConfig] = {
    "tiny": WorldConfig(
        "tiny",
        10.0,
        TokenizerConfig(
            height=24, width=32, codes=64, code_dim=8, stem=16, encoder_width=32, encoder_blocks=1, encoder_heads=2,
            decoder_width=32, decoder_blocks=1, decoder_heads=2, head_dim=16, window=3,
        ),
        ActionsConfig(motions=12, width=16, pool=1, reach=(4, 4), patch=8, layers=1, heads=2, head_dim=16, window=4),
        DynamicsConfig(layers=2, width=64, heads=2, head_dim=32, ffn=2.0, window=4, noise_levels=4),
        SampleConfig(steps=3),
    ),
    "spark": WorldConfig(
        "spark", actions=ActionsConfig(motions=16), dynamics=DynamicsConfig(window=16, anchor=True), sample=GUIDED
    ),
    "doodle": WorldConfig(
        "doodle", 10.0, TokenizerConfig(look=True), ActionsConfig(motions=16), DynamicsConfig(window=16, anchor=True),
        SampleConfig(temperature=1.0),
    ),
    "pocket": WorldConfig(
        "pocket",
        10.0,
        # all motion is by 4 pixels, most of it sideways: so scrolling moves whole tokens
        TokenizerConfig(
            height=64, width=96, patch=4, patch_height=8, stem=80, fine=2, encoder_width=160, encoder_heads=5,
            decoder_width=224, decoder_heads=7, look=True,
        ),
        ActionsConfig(motions=16, width=96),
        DynamicsConfig(layers=6, width=256, heads=8, window=16, anchor=True),
        dataclasses.replace(DRAWN, steps=2),
    ),
    "doodle-fine": WorldConfig(
        "doodle-fine",
        10.0,
        TokenizerConfig(patch=4, patch_height=8, stem=48, fine=2, look=True),
        ActionsConfig(motions=16),
        DynamicsConfig(window=16, anchor=True),
        SampleConfig(steps=3, temperature=1.0, guidance=1.25),
    ),
    "studio": WorldConfig(
        "studio",
        10.0,
        TokenizerConfig(
            height=96, width=160, stem=128, encoder_width=384, encoder_layers=2, encoder_heads=6, decoder_width=448,
            decoder_layers=2, decoder_heads=7, head_dim=64, look=True,
        ),
        ActionsConfig(motions=16, width=128, reach=(6, 5)),
        DynamicsConfig(layers=12, width=512, heads=8, head_dim=64, window=16, anchor=True),
        dataclasses.replace(DRAWN, steps=8),
    ),
    "genie-41m": _paper("genie-41m", 18, 512, 8, 64),
    "genie-96m": _paper("genie-96m", 16, 768, 16, 64),
    "genie-192m": _paper("genie-192m", 20, 1024, 18, 64),
    "genie-404m": _paper("genie-404m", 21, 1536, 12, 128),
    "genie-811m": _paper("genie-811m", 20, 2048, 20, 128),
    "genie-1.6b": _paper("genie-1.6b", 28, 2560, 22, 128),
    "genie-2.7b": _paper("genie-2.7b", 36, 3072, 22, 128),
    "genie-11b": _paper("genie-11b", 48, 5120, 36, 128),
}  # fmt: skip

TRAINING: dict[str, TrainConfig] = {
    "tiny": TrainConfig(
        StageConfig(200, 8, 4), StageConfig(200, 32, 4), StageConfig(200, 16, 8, lr=1e-2, ema=0.98),
        StageConfig(100, 8, 4), StageConfig(200, 8, 8),
    ),
    "spark": TrainConfig(
        StageConfig(4500, 16, 4), StageConfig(900, 64, 3), StageConfig(1200, 24, 16, lr=1e-2, ema=0.98),
        StageConfig(8000, 16, 4), StageConfig(2600, 3, 48),
    ),
    "doodle": TrainConfig(
        StageConfig(8000, 16, 5, gap=35), StageConfig(900, 64, 3), StageConfig(1200, 24, 16, lr=1e-2, ema=0.98),
        StageConfig(8000, 16, 5, gap=35), StageConfig(8000, 3, 48),
    ),
    "pocket": TrainConfig(
        StageConfig(16000, 16, 8, gap=32), StageConfig(4000, 128, 4), StageConfig(2000, 128, 16, lr=1e-2, ema=0.99),
        StageConfig(8000, 16, 8, gap=32), StageConfig(12000, 8, 48),
    ),
    "doodle-fine": TrainConfig(
        StageConfig(4500, 16, 4, gap=35), StageConfig(900, 64, 3), StageConfig(1200, 24, 16, lr=1e-2, ema=0.98),
        StageConfig(1000, 16, 4, gap=35), StageConfig(6000, 3, 48, lr=1.4e-3, muon_lr=0.014),
    ),
    "studio": TrainConfig(
        StageConfig(13000, 32, 8, gap=32), StageConfig(6000, 128, 4), StageConfig(2000, 128, 16, lr=1e-2, ema=0.99),
        StageConfig(6000, 32, 8, gap=32), StageConfig(21000, 21, 48),
    ),
}  # fmt: skip

# of the minutes of a plan (`train --plan`), to each stage; they need not add up to anything
SHARES: dict[str, float] = {"tokenizer": 28, "actions": 10, "keys": 6, "decoder": 10, "dynamics": 46}


def preset(name: str) -> WorldConfig:
    """The world config of that name; GenieError lists the names."""
    if name not in PRESETS:
        raise GenieError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def training(name: str) -> TrainConfig:
    """How a preset is trained. The paper's sizes share one recipe (tables 8 and 9), on clips of two windows."""
    paper = StageConfig(200_000, 16, 32, lr=3e-4, muon_lr=3e-3)
    return TRAINING.get(preset(name).name, TrainConfig(paper, paper, paper, paper, paper))
