"""What is timed on a GPU: launches, products, kernels, whole frames, and the paper's sizes against their floors.

Each part takes a `Run` and adds rows to it; what is slow asks `run.left()` before it starts. The floors and their
constants are those of docs/performance.md: 790 TFLOP/s in bf16, 1500 in fp8 for the linear layers, 4.3 TB/s.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from genie_play import ops
from genie_play.config import PathConfig, WorldConfig, preset, to_dict
from genie_play.engine import building, draw, large
from genie_play.engine.engine import GenieEngine
from genie_play.engine.graph import FrameRunner
from genie_play.engine.sampler import Sampler
from genie_play.eval import gpu_checks
from genie_play.eval.gpu_timing import milliseconds, wait, wall_milliseconds
from genie_play.nn.fp8 import product
from genie_play.ops import between_reference, reference
from genie_play.types import N_ACTIONS, GenieError

BF16, FP8, BYTES = 790e12, 1500e12, 4.3e12  # an H200's ceilings: operations and bytes a second
SIZES = ("41m", "96m", "192m", "404m", "811m", "1.6b", "2.7b", "11b")
Row = dict[str, Any]


@dataclass
class Run:
    """One run of the script, or of a part of it, and what it found so far."""

    device: torch.device
    quick: bool
    seconds: float
    rows: list[Row] = field(default_factory=list)
    sizes: tuple[str, ...] = SIZES  # of the paper
    keep: Callable[[list[Row]], None] = lambda rows: None
    started: float = field(default_factory=time.monotonic)

    def add(self, name: str, value: Any, unit: str = "", **beside: Any) -> None:
        """Note a figure, and write down all that is known."""
        value = round(value, 5) if isinstance(value, float) else value
        self.rows.append({"name": name, "value": value, "unit": unit, **beside})
        self.keep(self.rows)

    def left(self) -> float:
        """Seconds until this part should have ended."""
        return self.seconds - (time.monotonic() - self.started)

    def each(self, cases: dict[str, Callable[[], Any]]) -> Iterator[str]:
        """Run cases until time is up; an error is a row. Yields the name of each that ran without one."""
        for name, work in cases.items():
            if self.left() <= 0:
                self.add(name, "not measured: out of time")
                continue
            try:
                work()
            except (AssertionError, GenieError) as error:
                self.add(name, f"FAILED: {error}")
            except Exception as error:
                self.add(name, f"FAILED: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}")
            else:
                yield name


def checks(run: Run) -> None:
    """Everything that has to hold before a time counts."""
    for name, check in gpu_checks.checks(run.device, run.quick).items():
        for _ in run.each({name: lambda n=name, c=check: run.add(n, "ok", beside=c())}):  # type: ignore[misc]
            pass
        _forget(run)


def ceilings(run: Run) -> None:
    """What the card does at most: a large copy, a large product."""
    size = 256 if run.quick else 8192
    a, b = (torch.randn(size, size, device=run.device, dtype=torch.bfloat16) for _ in range(2))
    spent = milliseconds(lambda: a @ b, run.device, calls=3)
    run.add("product 8192, bf16", 2e-9 * size**3 / spent, "TFLOP/s")
    numbers = torch.empty(2**20 if run.quick else 2**31, dtype=torch.uint8, device=run.device)
    other = torch.empty_like(numbers)
    spent = milliseconds(lambda: other.copy_(numbers), run.device, calls=3)
    run.add("copy, bytes read and written", 2e-9 * numbers.numel() / spent, "TB/s")


def gaps(run: Run) -> None:
    """A chain of kernels that do nothing, in a graph: what each costs, with and without PDL."""
    if run.device.type != "cuda":
        run.add("empty kernel", "not measured: no GPU")
        return
    from genie_play.eval.gpu_kernels import touch

    def chain(programs: int, pdl: bool) -> None:
        numbers, before = torch.zeros(programs, dtype=torch.int32, device=run.device), 0
        touch(numbers, pdl)
        spent = milliseconds(lambda: touch(numbers, pdl), run.device, calls=400)
        assert int(numbers.min()) > before
        run.add(f"empty kernel, {programs} programs{', PDL' if pdl else ''}", 1000 * spent, "us")

    cases = {f"{n} {p}": lambda n=n, p=p: chain(n, p) for n in (1, 132) for p in (False, True)}
    for _ in run.each(cases):  # type: ignore[arg-type]
        pass


def products(run: Run) -> None:
    """Products of a frame's rows with weights: the library in bf16 and fp8, the kernel in bf16."""
    widths = ((64, 64),) if run.quick else ((256, 768), (512, 1536), (1536, 4608), (5120, 13824), (4608, 5120))
    heights = (64,) if run.quick else (64, 160, 256, 512, 920, 2048)
    backend = ops.get("triton" if run.device.type == "cuda" else "reference")

    def one(inputs: int, outputs: int, rows: int) -> None:
        x = torch.randn(1, rows, inputs, device=run.device, dtype=torch.bfloat16)
        w = torch.randn(outputs, inputs, device=run.device, dtype=torch.bfloat16)
        y = torch.zeros(1, rows, outputs, device=run.device, dtype=torch.bfloat16)
        a, b = between_reference.quantise_rows(x[0]), between_reference.quantise_rows(w)
        ways = {"library bf16": lambda: x[0] @ w.T, "library fp8": lambda: product(*a, *b),
                "kernel bf16": lambda: backend.add_product(y, x, w)}  # fmt: skip
        found = {way: 2e-9 * rows * inputs * outputs / milliseconds(work, run.device) for way, work in ways.items()}
        run.add(f"{rows} x {inputs} x {outputs}", found["library bf16"], "TFLOP/s",
                **{way.replace(" ", "_"): round(rate, 1) for way, rate in found.items()})  # fmt: skip

    cases = {f"{m} x {k} x {n}": lambda k=k, n=n, m=m: one(k, n, m) for k, n in widths for m in heights}
    for _ in run.each(cases):  # type: ignore[arg-type]
        pass


def temporal(run: Run) -> None:
    """Attention along time: bytes of the ring a second. Rings are taken in turn, so that none stays in the cache."""
    kind = "triton" if run.device.type == "cuda" else "reference"
    backend, between = ops.get(kind), building.between(kind)

    def one(n: int, heads: int, head_dim: int, batch: int, way: str) -> None:
        size = n * heads * 15 * head_dim * 2 * 2
        layers = 2 if run.quick else max(2, int(3e8 // size))
        dtype = torch.bfloat16
        q, k, v = (torch.randn(batch, n, heads, head_dim, device=run.device, dtype=dtype) for _ in range(3))
        rings = torch.randn(layers, 2, 1, n, heads, 15, head_dim, device=run.device, dtype=dtype)
        bias = torch.zeros(heads, 16, device=run.device)
        if way == "fp8":
            rows = between_reference.quantise_rows(rings)
            numbers, scales = rows.numbers.view(torch.uint8)[:, :, 0], rows.scales[:, :, 0, ..., 0].contiguous()
            size //= 2
            size += n * heads * 15 * 2 * 4

        def all_layers() -> None:
            for i in range(layers):
                if way == "backend":
                    backend.temporal(q, k, v, rings[i, 0], rings[i, 1], bias)
                elif way == "between":
                    between.temporal(q, k, v, rings[i, 0, 0], rings[i, 1, 0], bias)
                else:
                    between.temporal(q, k, v, *numbers[i], bias, *scales[i])

        spent = milliseconds(all_layers, run.device, calls=1) / layers
        run.add(
            f"temporal N={n} {heads}x{head_dim} batch {batch}, {way}",
            1e-6 * size / spent,
            "GB/s",
            us=round(1000 * spent, 1),
        )

    sizes: Any = ((12, 2, 32),) if run.quick else ((256, 8, 64), (920, 8, 64), (920, 36, 128))
    cases = {f"temporal {s} {b} {w}": lambda s=s, b=b, w=w: one(s[0], s[1], s[2], b, w)
             for s in sizes for b in (1, 8) for w in ("backend", "between", "fp8")}  # fmt: skip
    for _ in run.each(cases):  # type: ignore[arg-type]
        pass


def sampler(run: Run) -> None:
    """The draw that ends a pass: by kernel with a fixed order, by kernel with a rank, in plain torch."""
    backend = ops.get("triton" if run.device.type == "cuda" else "reference")

    def one(n: int, width: int) -> None:
        hidden, head, _, table, base = (a.to(run.device, torch.bfloat16) for a in gpu_checks.draw_case(n, 1024, width))
        masked = torch.full((1, n), 1024, device=run.device)
        case = hidden[:1].contiguous(), head, masked, table, base[:1].contiguous()
        some = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: n // 4].to(run.device)
        dials = reference.pack([(reference.Noise(1, 2, 3), 0.7, 0.3)]).at(0).to(run.device)
        key = draw.Key(torch.tensor([1], device=run.device), torch.tensor([2], device=run.device))
        ways = {"fixed": lambda: backend.reveal(*case, dials, some),
                "ranked": lambda: backend.reveal(*case, dials, n // 4),
                "torch": lambda: draw.reveal(*case, key, 3, some, 0.7)}  # fmt: skip
        found = {f"{way}_us": round(1000 * milliseconds(work, run.device), 2) for way, work in ways.items()}
        run.add(f"draw of N={n} D={width} V=1024", found["fixed_us"], "us", **found)

    sizes = ((16, 64),) if run.quick else ((64, 128), (144, 256), (256, 512), (920, 512), (920, 1536), (920, 5120))
    for _ in run.each({f"draw {s}": lambda s=s: one(*s) for s in sizes}):  # type: ignore[misc]
        pass


def frames(run: Run) -> None:
    """Whole frames of small worlds at 8 steps, every way of making them; eight futures, merged commit, recompute."""
    worlds: dict[str, Any] = {
        "spark": gpu_checks.spark(),
        "8x256, 144 tokens": gpu_checks.shape_world("8x256", 8, 256, 8, (72, 128)),
        "8x512, 256 tokens": gpu_checks.shape_world("8x512", 8, 512, 8, (128, 128)),
    }
    if run.quick:
        worlds = {"tiny": preset("tiny")}
    captured = "graph" if run.device.type == "cuda" else "static"
    ways: dict[str, dict[str, Any]] = {
        "graph, fused": {"frame": captured, "blocks": "fused"},
        "graph, layer": {"frame": captured, "blocks": "layer"},
        "graph, fused, merged": {"frame": captured, "blocks": "fused", "commit": "merged"},
        "graph, fused, guided": {"frame": captured, "blocks": "fused", "guidance": 1.5},
        "graph, library": {"frame": captured, "blocks": "library"},
        "graph, plain": {"frame": captured, "blocks": "plain"},
        "eager": {"frame": "eager"},
        "uncaptured, fused": {"frame": "static", "blocks": "fused"},
    }
    if run.device.type == "cuda":
        ways["graph, compiled"] = {"frame": "graph", "blocks": "compiled"}
    steps = 2 if run.quick else 8

    def one(label: str, world: Any, way: dict[str, Any]) -> None:
        started = time.perf_counter()
        engine = gpu_checks._engine(world, run.device, arithmetic="bf16", steps=steps, **way)
        built = time.perf_counter() - started
        found = _frame_times(engine, run)
        engine.close()
        run.add(label, found["frame_ms"], "ms a frame", start_s=round(built, 1), **found)

    def made(names: list[str]) -> dict[str, Callable[[], None]]:
        return {
            f"{name}: {way}": lambda n=name, w=world, k=way: one(f"{n}: {k}", w, ways[k])  # type: ignore[misc]
            for way in names
            for name, world in worlds.items()
        }

    again: dict[str, Callable[[], None]] = {
        f"{name}: recompute": lambda n=name, w=world: _recompute(run, n, w, steps)  # type: ignore[misc]
        for name, world in worlds.items()
    }
    # what play uses comes first, for every world; what takes longest to compile comes last
    first, *others = ways
    for _ in run.each(made([first]) | again | made(others)):
        _forget(run)


def _frame_times(engine: GenieEngine, run: Run) -> dict[str, float]:
    """Wall milliseconds: of a frame with its commit in a row of them, of a step up to its picture, of eight futures."""
    engine.reset(gpu_checks._prompt(engine), 1)
    count = [0]

    def frame() -> None:
        count[0] += 1
        engine.step(count[0] % N_ACTIONS)
        engine.settle()

    for _ in range(4):
        frame()
    calls = 2 if run.quick else 30
    spent = {"frame_ms": wall_milliseconds(frame, run.device, calls)}
    steps, many = [], []
    for _ in range(calls):
        engine.settle()
        wait(run.device)
        started = time.perf_counter()
        engine.step(count[0] % N_ACTIONS)
        steps.append(time.perf_counter() - started)
    engine.settle()
    engine.futures(range(N_ACTIONS))  # looks once whether a batch is exact
    for _ in range(3 if run.quick else 15):
        wait(run.device)
        started = time.perf_counter()
        engine.futures(range(N_ACTIONS))
        many.append(time.perf_counter() - started)
    spent["step_ms"], spent["futures_ms"] = (1000 * float(np.median(times)) for times in (steps, many))
    exact = float(engine._batch_exact.get(N_ACTIONS, False))
    return {name: round(value, 4) for name, value in spent.items()} | {"futures_exact": exact}


def _recompute(run: Run, name: str, world: Any, steps: int) -> None:
    """The dynamics model's whole window at every pass, as networks without a cache run it, in a graph."""
    genie = gpu_checks._genie(world, run.device, "bf16")
    dynamics = genie.dynamics
    shape = (1, dynamics.config.window, dynamics.n_tokens)
    tokens = torch.randint(0, dynamics.codes, shape, device=run.device)
    actions = torch.zeros(shape[:2], dtype=torch.int64, device=run.device)
    with torch.inference_mode():
        spent = milliseconds(lambda: dynamics.logits(dynamics(tokens, actions)[:, -1]), run.device, calls=2)
    run.add(f"{name}: recompute", steps * spent, "ms a frame", passes=steps, note="dynamics alone, captured")


def large_bf16(run: Run) -> None:
    """The paper's sizes in bf16."""
    _large(run, "bf16", {})


def large_fp8(run: Run) -> None:
    """The paper's sizes in fp8, with the ring in fp8 too."""
    _large(run, "fp8", {"ring": "fp8"})


def _large(run: Run, arithmetic: str, more: dict[str, Any]) -> None:
    # the smallest first unless asked for otherwise: what is dropped where time is short is the largest
    worlds = [_shrunk()] if run.quick else [preset(f"genie-{size}") for size in run.sizes]
    for world in worlds:
        label = f"{world.name} {arithmetic}"
        for _ in run.each({label: lambda w=world: _one_large(run, w, arithmetic, more)}):  # type: ignore[misc]
            pass
        _forget(run)


def _one_large(run: Run, world: WorldConfig, arithmetic: str, more: dict[str, Any]) -> None:
    memory = large.memory_estimate(world, arithmetic, more.get("ring", "plain"))
    large.check_memory(world.name, memory, run.device)
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    genie = large.random_genie(world, run.device, arithmetic)
    kind = "triton" if run.device.type == "cuda" else "reference"
    blocks = "fused" if world.dynamics.width <= building.WIDEST and arithmetic != "fp8" else "library"
    for steps in (4, 8, 25):
        if run.left() <= 0:
            run.add(f"{world.name} {arithmetic}, {steps} steps", "not measured: out of time")
            continue
        path = PathConfig(**{**to_dict(world.sample), "steps": steps}, arithmetic=arithmetic, device=str(run.device),
                          ops=kind, frame="graph" if kind == "triton" else "static", blocks=blocks, **more)  # fmt: skip
        frame, path = building.runner(genie, Sampler(genie.dynamics, ops.get(kind), path), ops.get(kind), path)
        found = _parts_of_a_frame(frame, run)
        floor, kernels = pass_floor(world, arithmetic, more.get("ring") == "fp8"), 0.0
        spent = found["draw_ms"] - found["decode_ms"] + found["commit_ms"]
        run.add(
            f"{world.name} {arithmetic}, {steps} steps", 1000 / (found["draw_ms"] + found["commit_ms"]), "frames/s",
            **found, floor_ms=round((steps + 1) * floor, 4), of_floor=round((steps + 1) * floor / spent, 3),
            frame=path.frame, blocks=path.blocks, estimate_gib=round(memory.total / large.GIB, 2),
            held_gib=round(torch.cuda.max_memory_allocated() / large.GIB, 2) if run.device.type == "cuda" else kernels,
        )  # fmt: skip
        del frame
        _forget(run)


def _parts_of_a_frame(frame: FrameRunner, run: Run) -> dict[str, float]:
    """Milliseconds of drawing a frame with its decode, of the decode, of the commit; from rings that are full."""
    tokens = np.zeros(frame.frame.genie.dynamics.n_tokens, np.uint16)
    with torch.inference_mode():
        for t in range(2 if run.quick else frame.frame.past.slots + 1):
            frame.show(tokens)
            frame.take(0)
            frame.commit(tokens, t % N_ACTIONS)
        calls = 1 if run.quick else 3
        found = {
            "draw_ms": wall_milliseconds(lambda: frame.draw([3], 1, 9), run.device, calls, 3),
            "decode_ms": wall_milliseconds(lambda: frame.show(tokens), run.device, calls, 3),
            "commit_ms": wall_milliseconds(lambda: frame.commit(tokens, 3), run.device, calls, 3),
        }
    return {name: round(value, 4) for name, value in found.items()}


def pass_floor(world: WorldConfig, arithmetic: str, fp8_ring: bool = False) -> float:
    """Milliseconds that one pass takes at least, on an H200: arithmetic, weights, or keys and values."""
    d, n = world.dynamics, world.tokenizer.n_tokens
    inner = d.heads * d.head_dim
    weights = d.layers * (8 * d.width * inner + 2 * d.width * int(d.width * d.ffn))
    seen = 2 * n if d.recipe == "teacher" else n
    attention = 4 * d.layers * n * inner * (seen + d.window) / BF16
    head = 2 * n * d.width * world.tokenizer.codes / BF16
    ring = 2 * d.layers * n * inner * (d.window - 1) * (1 if fp8_ring else 2) / BYTES
    linear = 2 * n * weights / (FP8 if arithmetic == "fp8" else BF16)
    return 1000 * max(linear + attention + head, weights * (1 if arithmetic == "fp8" else 2) / BYTES, ring)


def _shrunk() -> WorldConfig:
    """A paper's size small enough for a rehearsal."""
    config = preset("genie-41m")
    return dataclasses.replace(
        config,
        name="genie-shrunk",
        tokenizer=dataclasses.replace(
            config.tokenizer, height=18, width=32, encoder_width=64, encoder_layers=1, encoder_heads=2,
            decoder_width=64, decoder_layers=1, decoder_heads=2, head_dim=32, window=4,
        ),
        dynamics=dataclasses.replace(config.dynamics, layers=2, width=64, heads=2, head_dim=32, window=4),
    )  # fmt: skip


def _forget(run: Run) -> None:
    gc.collect()
    if run.device.type == "cuda":
        torch.cuda.empty_cache()


# name -> what it does, and its share of the time
PARTS: dict[str, tuple[Callable[[Run], None], float]] = {
    "checks": (checks, 0.26),
    "ceilings": (ceilings, 0.02),
    "gaps": (gaps, 0.02),
    "products": (products, 0.09),
    "temporal": (temporal, 0.05),
    "sampler": (sampler, 0.04),
    "frames": (frames, 0.20),
    "large-fp8": (large_fp8, 0.17),
    "large-bf16": (large_bf16, 0.15),
}
