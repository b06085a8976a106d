"""Is the GPU's frame right: kernels against their twins, graphs against their own code, caches against recompute.

Each check returns what it found in words, or raises AssertionError with the figure that is off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genie_play import ops, paths
from genie_play.config import PathConfig, WorldConfig, preset
from genie_play.engine import building, draw
from genie_play.engine.engine import GenieEngine
from genie_play.engine.fixed import FixedRing
from genie_play.engine.large import random_genie
from genie_play.engine.sampler import Sampler
from genie_play.engine.state import Ring
from genie_play.nn.fp8 import quantise_blocks
from genie_play.nn.genie import Genie, load_genie
from genie_play.nn.st_transformer import rotary_table
from genie_play.ops import between_reference, reference
from genie_play.ops.reference_layers import Rotary
from genie_play.types import N_ACTIONS, Frame, Prompt

# relative, L2: float32 sums in another order (tensor cores are not asked for TF32); bfloat16 keeps eight bits
NEAR = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
GUIDED = {"guidance": 1.5}
MARGIN = 1e-4  # of the best two scores, in float32: tokens are compared where it is more
AGREE = 0.97  # share of tokens that bfloat16 and float32 choose alike under the same past


def shape_world(name: str, layers: int, width: int, heads: int, size: tuple[int, int], window: int = 16) -> WorldConfig:
    """A world of that dynamics model and that picture, patches of 8."""
    base = preset("pocket")
    tokenizer = dataclasses.replace(base.tokenizer, height=size[0], width=size[1])
    dynamics = dataclasses.replace(
        base.dynamics, layers=layers, width=width, heads=heads, head_dim=width // heads, window=window
    )
    return dataclasses.replace(base, name=name, tokenizer=tokenizer, dynamics=dynamics)


def checks(device: torch.device, quick: bool) -> dict[str, Callable[[], str]]:
    """All checks by name, on small shapes where quick."""
    by_kernel = device.type == "cuda"
    worlds: dict[str, Any] = {"tiny": preset("tiny")} if quick else {"spark": spark()}
    found: dict[str, Callable[[], str]] = {}
    for kind in (torch.float32, torch.bfloat16):
        word = str(kind).removeprefix("torch.")
        found[f"kernels of a layer, {word}"] = lambda k=kind: layer_kernels(device, k, quick)  # type: ignore[misc]
        found[f"kernels between products, {word}"] = lambda k=kind: between_kernels(device, k, quick)  # type: ignore[misc]
    found["draws against the definition"] = lambda: draws(device, quick)
    for name, world in worlds.items():
        found[f"cache against recompute, {name}"] = lambda w=world: cache(w, device)  # type: ignore[misc]
        for blocks in ("fused", "layer", "library"):
            for arithmetic in ("fp32", "bf16", "fp8"):
                label = f"{blocks} blocks against plain, {name} {arithmetic}"
                found[label] = lambda w=world, b=blocks, a=arithmetic: stacks(w, device, b, a)  # type: ignore[misc]
        captured = "graph" if by_kernel else "static"
        for more in ({}, {"order": "random"}, {"order": "confidence"}, {"commit": "merged"}, {"ring": "fp8"}, GUIDED):
            label = f"{captured} against uncaptured, {name} {more or ''}".strip()
            found[label] = lambda w=world, m=more, c=captured: graphs(w, device, c, **m)  # type: ignore[misc]
        found[f"static against eager, {name} fp32"] = lambda w=world: static_against_eager(w, device)  # type: ignore[misc]
        found[f"merged against apart, {name} fp32"] = lambda w=world: merged(w, device)  # type: ignore[misc]
        found[f"bf16 against fp32, {name}"] = lambda w=world: arithmetics(w, device)  # type: ignore[misc]
    if by_kernel:
        wide = shape_world("8x256", 8, 256, 8, (72, 128))
        found["cache against recompute, 8x256"] = lambda: cache(wide, device)
        found["fused blocks against plain, 8x256 bf16"] = lambda: stacks(wide, device, "fused", "bf16")
        found["layer blocks against plain, 8x256 bf16"] = lambda: stacks(wide, device, "layer", "bf16")
        found["graph against uncaptured, 8x256"] = lambda: graphs(wide, device, "graph")
        # what takes longest to compile comes last
        found["compiled blocks against plain, spark fp32"] = lambda: stacks(spark(), device, "compiled", "fp32")
    return found


def spark() -> Path:
    """The shipped world's file."""
    return paths.models() / "spark" / "spark.safetensors"


def layer_kernels(device: torch.device, kind: torch.dtype, quick: bool) -> str:
    """`project_heads`, `spatial`, `temporal`, `add_product`, `feed_in` of the backend in use."""
    backend, twin = _backend(device), reference
    worst = 0.0
    cases = ((12, 64, 2, 32, 1),) if quick else ((64, 128, 4, 32, 1), (144, 256, 8, 32, 8), (920, 512, 8, 64, 1))
    for n, width, heads, head_dim, batch in cases:
        x = _random(device, kind, batch, n, width)
        gain, q_scale, k_scale = (_random(device, kind, size) for size in (width, head_dim, head_dim))
        weight = _random(device, kind, 3 * heads * head_dim, width) * width**-0.5
        rows = next(r for r in range(int(n**0.5), 0, -1) if n % r == 0)
        table = Rotary(*(t.flatten(1).to(device) for t in rotary_table((rows, n // rows), head_dim)))
        pairs = [(m.project_heads(x, gain, weight, q_scale, k_scale, table)) for m in (backend, twin)]
        worst = max(worst, *(_apart(a, b) for a, b in zip(*pairs, strict=True)))
        q, k, v = pairs[1]
        key = _random(device, kind, heads, 1, head_dim)
        worst = max(worst, _apart(*(m.spatial(q, k, v, k[:1], v[:1], key) for m in (backend, twin))))
        ring = _random(device, kind, 2, 1, n, heads, 15, head_dim)
        bias = _random(device, torch.float32, heads, 16)
        worst = max(worst, _apart(*(m.temporal(q, k, v, ring[0], ring[1], bias) for m in (backend, twin))))
        out = _random(device, kind, width, heads * head_dim) * width**-0.5
        worst = max(worst, _apart(*(m.add_product(x, q.flatten(2), out) for m in (backend, twin))))
        wide = _random(device, kind, 4 * width, width) * width**-0.5
        worst = max(worst, _apart(*(m.feed_in(x, gain, wide) for m in (backend, twin))))
    return _near(worst, kind)


def between_kernels(device: torch.device, kind: torch.dtype, quick: bool) -> str:
    """The operations of `between_*`, with and without fp8."""
    kernels = building.between("triton" if device.type == "cuda" else "reference")
    worst, moved = 0.0, 0.0
    for n, heads, head_dim, batch in (
        ((12, 2, 32, 2),) if quick else ((64, 4, 32, 8), (920, 8, 64, 1), (920, 36, 128, 2))
    ):
        width = heads * head_dim
        qkv, gain = _random(device, kind, batch, n, 3 * width), _random(device, kind, width)
        scales = _random(device, kind, head_dim), _random(device, kind, head_dim)
        pairs = [m.split_heads(qkv, *scales) for m in (kernels, between_reference)]
        worst = max(worst, *(_apart(a, b) for a, b in zip(*pairs, strict=True)))
        q, k, v = pairs[1]
        ring = _random(device, kind, 2, n, heads, 15, head_dim)
        bias = _random(device, torch.float32, heads, 16)
        rows = [between_reference.quantise_rows(part) for part in ring]
        small = [r.numbers.view(torch.uint8) for r in rows], [r.scales[..., 0].contiguous() for r in rows]
        for case in ((q, k, v, *ring, bias), (q, k, v, *small[0], bias, *small[1])):
            worst = max(worst, _apart(*(m.temporal(*case) for m in (kernels, between_reference))))
        x = qkv[..., :width].contiguous()
        for made in ([m.quantise_rows(x) for m in (kernels, between_reference)],
                     [m.square_quantise(x) for m in (kernels, between_reference)],
                     [m.add_norm_quantise(x, x, gain)[1] for m in (kernels, between_reference)]):  # fmt: skip
            moved = max(moved, float((made[0].numbers.float() != made[1].numbers.float()).float().mean()))
    # a number on the edge between two steps may fall to either
    assert moved < 0.01, f"{moved:.2%} of the numbers in fp8 differ"
    return _near(worst, kind) + f", fp8 numbers that differ {moved:.3%}"


def draws(device: torch.device, quick: bool) -> str:
    """Tokens of the backend's `reveal`, its key in device memory, against the reference on the host."""
    apart, total = 0, 0
    for n, codes, width in ((23, 50, 32),) if quick else ((64, 1024, 128), (920, 1024, 512)):
        for which in (torch.randperm(n, generator=torch.Generator().manual_seed(1))[: n // 3], n // 3):
            for temperature in (0.0, 0.7):
                case = draw_case(n, codes, width)
                noise = reference.Noise(0xFEDCBA9876543210, 70_000, 3)
                expected = reference.reveal(
                    *case, noise=noise, which=which, temperature=temperature, choice_temperature=0.3
                ).tokens
                hidden, head, tokens, table, base = (a.to(device) for a in case)
                picked = which.to(device) if isinstance(which, Tensor) else which
                seed = torch.tensor([noise.seed - 2**64], device=device)
                key = draw.Key(seed, torch.tensor([noise.frame], device=device))
                there = hidden, head, tokens, table, base
                drawn = draw.reveal(
                    hidden, head, tokens, table, base, key, 3, picked, temperature, choice_temperature=0.3
                )
                found = [drawn.tokens]
                dials = reference.pack([(noise, temperature, 0.3)]).at(0).to(device)
                found.append(_backend(device).reveal(*there, dials, picked).tokens)
                for tokens in found:
                    apart += int((tokens.cpu() != expected).sum())
                    total += tokens.numel()
    # float32 sums in another order decide where two scores are nearly equal
    assert apart / total < 1e-3, f"{apart} of {total} tokens differ"
    return f"{apart} of {total} tokens differ"


@torch.inference_mode()
def cache(world: WorldConfig | Path, device: torch.device) -> str:
    """Hidden states of a clip frame by frame against a ring, and of the whole clip at once, in fp32."""
    dynamics = _genie(world, device, "fp32").dynamics
    sampler = Sampler(dynamics, ops.get("reference"), PathConfig())
    g, frames = torch.Generator().manual_seed(1), 2 * dynamics.config.window + 1
    clean = torch.randint(0, dynamics.codes, (1, frames, dynamics.n_tokens), generator=g).to(device)
    actions = torch.randint(0, N_ACTIONS, (1, frames), generator=g).to(device)
    hidden = (torch.rand(clean.shape, generator=g) < 0.6).to(device)
    masked, teacher = torch.where(hidden, dynamics.mask_id, clean), dynamics.config.recipe == "teacher"
    assert teacher
    expected = dynamics(masked, actions, clean)[0]
    ring, worst = Ring(dynamics.cache_shape, dynamics.n_tokens, True, device), 0.0
    for t in range(frames):
        found = dynamics.stream(sampler.embed(masked[:, t], actions[:, t]), ring.past())[0][0]
        worst = max(worst, _apart(found, expected[t]))
        ring.commit(dynamics.stream(sampler.embed(clean[:, t], actions[:, t]), ring.past())[1])
    return _near(worst, torch.float32)


def stacks(world: WorldConfig | Path, device: torch.device, blocks: str, arithmetic: str) -> str:
    """Hidden states of a stack against plain blocks."""
    genie = _genie(world, device, arithmetic)
    dynamics, kind = genie.dynamics, genie.dynamics.head.weight.dtype
    ring = FixedRing(dynamics.cache_shape, dynamics.n_tokens, dynamics.config.recipe == "teacher", device, kind)
    path = PathConfig(arithmetic=arithmetic, blocks=blocks, ops=_ops(device), device=str(device), frame="static")
    reason = building.apart(dynamics.blocks, ring, path)
    assert not reason, reason
    return f"within {building.TOLERANCE[arithmetic]:g}" + (_choices(genie, ring, path) if kind == torch.float32 else "")


@torch.inference_mode()
def _choices(genie: Genie, ring: FixedRing, path: PathConfig) -> str:
    """Logits and tokens of a hidden frame, by the stack of a path and by plain blocks, from the same past."""
    dynamics, device = genie.dynamics, ring.temporal.device
    sampler = Sampler(dynamics, ops.get("reference"), path)
    plain = building.stack(dynamics.blocks, dynamics.norm, dataclasses.replace(path, blocks="plain"))
    tokens = torch.arange(dynamics.n_tokens, device=device)[None] % dynamics.codes
    told = torch.zeros(1, dtype=torch.int64, device=device)
    for frame in range(4):
        _, temporal, spatial = plain.keep(
            sampler.embed((tokens * (frame + 3)) % dynamics.codes, told), ring, frame == 0
        )
        ring.write(temporal, spatial)
    x = sampler.embed(torch.full_like(tokens, dynamics.mask_id), told)
    other = building.stack(dynamics.blocks, dynamics.norm, path)
    logits = [dynamics.logits(way.read(x, ring, way.look(ring)))[0] for way in (plain, other)]
    key = draw.Key(told + 5, told + 6)
    noise = draw.gumbel(draw.token_uniforms(key, torch.arange(dynamics.n_tokens, device=device), dynamics.codes, 0))
    best = (logits[0] + noise).topk(2, -1).values
    sure = best[:, 0] - best[:, 1] > MARGIN
    apart = (logits[0] + noise).argmax(-1) != (logits[1] + noise).argmax(-1)
    assert not (apart & sure).any(), f"{int((apart & sure).sum())} tokens differ that a margin of {MARGIN} decides"
    off = float((logits[0] - logits[1]).abs().max())
    return f", logits off by {off:.1e}, tokens equal in the {int(sure.sum())} of {len(sure)} places with a margin"


def graphs(world: WorldConfig | Path, device: torch.device, captured: str, **path: Any) -> str:
    """Frames of captured graphs and of their own code uncaptured, bit for bit."""
    made = []
    for frame in (captured, "static"):
        engine = _engine(world, device, frame=frame, arithmetic="bf16", **path)
        assert engine.path.frame == frame, "nothing was captured; see the log"
        made.append(_play(engine))
        engine.close()
    same = _same(*made)
    assert same == len(made[0]), f"only {same} of {len(made[0])} frames are equal"
    return f"{same} frames equal"


def static_against_eager(world: WorldConfig | Path, device: torch.device) -> str:
    """Tokens of the plain static frame and of the eager engine, both in fp32, under the same past."""
    share = _agreement(world, device, {"frame": "static", "blocks": "plain"}, {"frame": "eager"}, "fp32")
    assert share > 0.999, f"{share:.2%} of the tokens agree"
    return f"{share:.2%} of the tokens agree"


def merged(world: WorldConfig | Path, device: torch.device) -> str:
    """Tokens with the commit in the first pass of the next frame, and on its own."""
    blocks = "fused"
    ways = [{"frame": "static", "blocks": blocks, "commit": how} for how in ("merged", "apart")]
    share = _agreement(world, device, ways[0], ways[1], "fp32")
    assert share > 0.999, f"{share:.2%} of the tokens agree"
    return f"{share:.2%} of the tokens agree"


def arithmetics(world: WorldConfig | Path, device: torch.device) -> str:
    """Tokens in bf16 as played here, and in fp32 eager, under the same past."""
    share = _agreement(world, device, {"arithmetic": "bf16"}, {"frame": "eager", "arithmetic": "fp32"})
    assert share > AGREE or not isinstance(world, Path), f"{share:.2%} of the tokens agree"
    return f"{share:.2%} of the tokens agree"


def _agreement(
    world: WorldConfig | Path, device: torch.device, one: dict[str, Any], other: dict[str, Any], arithmetic: str = ""
) -> float:
    """Share of tokens that two paths draw alike, each frame from the second's past."""
    extra = {"arithmetic": arithmetic} if arithmetic else {}
    ours, theirs = (_engine(world, device, **way, **extra) for way in (one, other))
    frames, agree = _play(theirs), []
    ours.reset(_prompt(ours, frames[0].tokens), 7)
    for frame in frames[1:13]:
        assert frame.action is not None
        # what it would draw, and then what the other drew
        agree.append(float((ours.futures([frame.action])[0].tokens == frame.tokens).mean()))
        ours.step(frame.action, frame.tokens)
    for engine in (ours, theirs):
        engine.close()
    return float(np.mean(agree))


def _play(engine: GenieEngine) -> list[Frame]:
    """Sixteen steps, eight futures, a rewind."""
    frames = [engine.reset(_prompt(engine), 7)]
    for t in range(16):
        frames.append(engine.step((3 * t) % N_ACTIONS))
        if t % 3:
            engine.settle()
    frames += engine.futures(range(N_ACTIONS))
    return [*frames, engine.step(2), engine.edit(frames[3].pixels), engine.step(1)]


def _same(ours: list[Frame], theirs: list[Frame]) -> int:
    pairs = zip(ours, theirs, strict=True)
    return sum(np.array_equal(a.tokens, b.tokens) and np.array_equal(a.pixels, b.pixels) for a, b in pairs)


def _prompt(engine: GenieEngine, tokens: Any = None) -> Prompt:
    height, width = engine.info.size
    rough = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Prompt(np.kron(rough, np.ones((8, 8, 1), np.uint8))[None, :height, :width], "noise", tokens)


def _engine(world: WorldConfig | Path, device: torch.device, **path: Any) -> GenieEngine:
    if isinstance(world, Path):
        return GenieEngine(world, str(device), **path)
    genie = random_genie(world, device, path.get("arithmetic", "fp32"))
    return GenieEngine(genie, str(device), adopt=True, **path)


def _genie(world: WorldConfig | Path, device: torch.device, arithmetic: str) -> Genie:
    if isinstance(world, Path):
        genie = load_genie(world, device)[0]
        if arithmetic != "fp32":
            genie.dynamics.to(torch.bfloat16)
        if arithmetic == "fp8":
            quantise_blocks(genie.dynamics.blocks)
        return genie
    return random_genie(world, device, arithmetic)


def _backend(device: torch.device) -> Any:
    return ops.get(_ops(device))


def _ops(device: torch.device) -> str:
    return "triton" if device.type == "cuda" else "reference"


def draw_case(n: int, codes: int, width: int) -> Five:
    """Hidden states, head, tokens, table and base of a draw."""
    g = torch.Generator().manual_seed(n)
    tokens = torch.randint(0, codes, (2, n), generator=g).masked_fill(torch.rand(2, n, generator=g) < 0.7, codes)
    hidden, head = torch.randn(2, n, width, generator=g), torch.randn(codes, width, generator=g) * 2 / width**0.5
    return hidden, head, tokens, torch.randn(codes + 1, width, generator=g), torch.randn(2, 1, width, generator=g)


def _random(device: torch.device, kind: torch.dtype, *size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size))).to(device, kind)


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _near(worst: float, kind: torch.dtype) -> str:
    assert worst < NEAR[kind], f"off by {worst:.1e}, more than {NEAR[kind]:.0e}"
    return f"off by {worst:.1e} at most"
