"""All blocks of the dynamics model as one graph of OpenVINO: an optional extra, for one frame at a time on a CPU.

Half of what is gained is that nothing happens between blocks, so it is a graph of the whole stack and not of a block
(docs/performance.md). Two are compiled: one reads for a pass and works out the rows it is asked for, one keeps what a
commit writes. Batches, and the first frame of all, go through the blocks of `cpu.py`. bf16 is OpenVINO's own rounding
of float32, int8 its weights in int8 and what comes in rounded in groups. Knows nothing of tokens or of what passes are
for.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_play import paths
from genie_play.engine import cpu
from genie_play.nn.st_transformer import Attention, LayerKV, LayerPast, STBlock, stream_blocks
from genie_play.types import BackendError, GenieError

PRECISION = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
GROUP = 128  # numbers that share a scale where what comes in is rounded to int8
# of hidden states (relative, L2) against the blocks in float32, more is refused: sums in another order, and roundings
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2, "int8": 0.1}

log = logging.getLogger(__name__)


class WholeStack(nn.ModuleList):
    """A stack for `stream_blocks`, made of blocks that stay as they are. BackendError where OpenVINO is not there or
    gives other results than the blocks."""

    def __init__(self, blocks: nn.ModuleList, arithmetic: str, threads: int) -> None:
        super().__init__(cpu.placed(blocks, "fp32" if arithmetic == "bf16" else arithmetic))
        old = [block for block in blocks if isinstance(block, STBlock)]
        self.window, self.cross_frame = old[0].window, old[0].cross_frame
        self._read = _compiled(_Pass(old, arithmetic, rows=True), old, arithmetic, threads)
        self._keep = _compiled(_Pass(old, arithmetic, rows=False), old, arithmetic, threads)
        self._check(blocks, arithmetic)

    def stream(self, x: Tensor, past: list[LayerPast], rows: Tensor | None = None) -> tuple[Tensor, list[LayerKV]]:
        """What `stream_blocks` gives; with `rows` no keys and values, as they are those of some rows and not kept."""
        if len(x) != 1 or (self.cross_frame and past[0].spatial_k is None):
            return stream_blocks(nn.ModuleList(self), x, past, rows)
        ages = past[0].ages.clamp(0, self.window)
        given = [x, ages, *(part for layer in past for part in layer[:4] if part is not None)]
        if rows is not None:
            return self._read([*given, rows])[0], []
        hidden, *kept = self._keep(given)
        return hidden, [LayerKV(*kept[i : i + 4]) for i in range(0, len(kept), 4)]

    @torch.inference_mode()
    def _check(self, blocks: nn.ModuleList, arithmetic: str) -> None:
        """The same frame through the graphs and through the blocks in float32."""
        block = blocks[0]
        assert isinstance(block, STBlock)
        x, *rest, rows = _example(block, len(blocks), torch.Generator().manual_seed(0))
        ages, parts = rest[0], rest[1:]
        size = 4 if self.cross_frame else 2
        past = []
        for i in range(0, len(parts), size):
            spatial_k, spatial_v = (parts[i], parts[i + 1]) if self.cross_frame else (None, None)
            past.append(LayerPast(spatial_k, spatial_v, parts[i + size - 2], parts[i + size - 1], ages))
        expected, kept = stream_blocks(cpu.placed(blocks, "fp32"), x, past)
        found, keys = self.stream(x, past)
        pairs = [(found, expected), (self.stream(x, past, rows)[0], expected[:, rows])]
        pairs += [(a, b) for ours, theirs in zip(keys, kept, strict=True) for a, b in zip(ours, theirs, strict=True)]
        apart = max(float((a - b).norm() / b.norm()) for a, b in pairs)
        if not apart < TOLERANCE[arithmetic]:
            raise BackendError(f"OpenVINO is off by {apart:.1e} on this CPU; choose path.blocks plain")


class _Pass(nn.Module):
    """The blocks in words that OpenVINO can trace: (x, ages, keys and values of each layer[, rows]) to hidden states,
    and without rows the frame's own keys and values."""

    def __init__(self, blocks: list[STBlock], arithmetic: str, rows: bool) -> None:
        super().__init__()
        self.blocks, self.rows = blocks, rows
        self.size = 4 if blocks[0].cross_frame else 2
        layers = _Int8 if arithmetic == "int8" else _Float
        self.linears = nn.ModuleList(nn.ModuleList(layers(w) for w in _weights(block)) for block in blocks)
        # one more age than can be seen, for slots that hold nothing
        table = [F.pad(block.time_bias.detach().float(), (0, 1), value=-1e30) for block in blocks]
        self.register_buffer("table", torch.stack(table))

    def forward(self, x: Tensor, ages: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        rows = parts[-1] if self.rows else None
        kept: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            given = parts[self.size * layer : self.size * (layer + 1)]
            qkv, out, time_qkv, time_out, widen, narrow = cast(nn.ModuleList, self.linears[layer])
            assert isinstance(self.table, Tensor)
            last = rows if layer == len(self.blocks) - 1 else None
            order = cpu.order(block.spatial.head_dim, block.rotary)
            qk, v = _project(block.spatial, qkv(block.spatial_norm(x)), order)
            if block.rotary:
                swapped = qk.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
                qk = qk * block.rotary_cos[..., order] + swapped * block.rotary_sin[..., order]
            q, k, v = qk[:, :, 0].transpose(1, 2), qk[:, :, 1].transpose(1, 2), v.transpose(1, 2)
            if last is not None:
                x, q = x.index_select(1, last), q.index_select(2, last)
            keys, values = k, v
            if block.cross_frame:
                keys, values = torch.cat((given[0] + block.previous_key[..., order], k), 2), torch.cat((given[1], v), 2)
            seen = F.scaled_dot_product_attention(q, keys, values, scale=1.0)
            x = x + out(seen.transpose(1, 2).flatten(2))

            qk, tv = _project(
                block.temporal, time_qkv(block.temporal_norm(x)), cpu.order(block.temporal.head_dim, False)
            )
            tq, tk = qk[:, :, 0], qk[:, :, 1]  # (1, R, h, hd)
            ring_k, ring_v = given[-2:]
            if last is not None:
                ring_k, ring_v = ring_k.index_select(1, last), ring_v.index_select(1, last)
            before = (ring_k @ tq[..., None])[..., 0]  # (1, R, h, P)
            own = (tq * tk).sum(-1, keepdim=True)
            bias = torch.cat((self.table[layer].index_select(1, ages), self.table[layer, :, :1]), 1)
            weights = (torch.cat((before, own), -1) + bias).softmax(-1)
            seen = (weights[..., None, :-1] @ ring_v)[..., 0, :] + weights[..., -1:] * tv
            x = x + time_out(seen.flatten(2))
            x = x + narrow(F.relu(widen(block.ffn_norm(x))).square())
            kept += [k, v, tk, tv]
        return (x,) if self.rows else (x, *kept)


class _Float(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.weight, Tensor)
        return F.linear(x, self.weight)


class _Int8(nn.Module):
    """The weight stays in int8 in the graph: OpenVINO knows a conversion and a scale by their form."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        if not weight.isfinite().all():
            raise GenieError("the world has weights that are not finite; get its file again")
        scale = weight.detach().abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
        self.register_buffer("weight", (weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale.float())

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.weight, Tensor)
        assert isinstance(self.scale, Tensor)
        return F.linear(x, self.weight.to(torch.float32) * self.scale)


def _weights(block: STBlock) -> list[Tensor]:
    """The weights of a block's six products; channels of queries and keys lie as `cpu.CpuBlock` caches them."""
    spatial, size = block.spatial, block.spatial.head_dim
    heads = spatial.qkv.weight.unflatten(0, (3, spatial.heads, size))
    qkv = torch.cat((heads[:2, :, cpu.order(size, block.rotary)], heads[2:])).flatten(0, 2)
    rest = spatial.out, block.temporal.qkv, block.temporal.out, block.ffn_in, block.ffn_out
    return [qkv, *(linear.weight for linear in rest)]


def _project(attention: Attention, qkv: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """(1, N, 3 h hd) to queries and keys (1, N, 2, h, hd) and values (1, N, h, hd), as `Attention.project`."""
    parts = qkv.unflatten(-1, (3, attention.heads, attention.head_dim))
    scale = torch.stack((attention.q_scale * attention.head_dim**-0.5, attention.k_scale))[:, None, order]
    qk = parts[..., :2, :, :]
    return qk * torch.rsqrt((qk * qk).mean(-1, keepdim=True) + 1e-6) * scale, parts[..., 2, :, :]


def _example(block: STBlock, layers: int, generator: torch.Generator) -> list[Tensor]:
    """A frame, ages, a past of so many layers, and rows: what a pass is given."""
    tokens, width = block.grid[0] * block.grid[1], block.spatial_norm.weight.shape[0]
    heads, size, slots = block.temporal.heads, block.temporal.head_dim, block.window - 1

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    parts: list[Tensor] = []
    for _ in range(layers):
        if block.cross_frame:
            parts += [some(1, heads, tokens, size), some(1, heads, tokens, size)]
        parts += [some(1, tokens, heads, slots, size), some(1, tokens, heads, slots, size)]
    ages = torch.arange(slots, 0, -1)
    return [some(1, tokens, width), ages, *parts, torch.arange(0, tokens, 2)]


def _compiled(network: _Pass, blocks: list[STBlock], arithmetic: str, threads: int) -> _Request:
    """A graph of a pass; what was compiled once is kept in the person's cache folder."""
    # it would report over the network what was converted; without this package it is silent
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        openvino: Any = importlib.import_module("openvino")
    except ImportError:
        raise BackendError(
            "path.blocks openvino needs the package: pip install openvino; or choose path.blocks plain"
        ) from None
    example = _example(blocks[0], len(blocks), torch.Generator().manual_seed(0))
    example = example if network.rows else example[:-1]
    with warnings.catch_warnings(), torch.no_grad():
        # what a trace takes for constant is: the sizes of one world
        warnings.simplefilter("ignore")
        model = openvino.convert_model(network.eval(), example_input=tuple(example))
    shapes = [list(one.shape) for one in example]
    if network.rows:
        shapes[-1] = [-1]
    model.reshape({model.inputs[i]: openvino.PartialShape(shape) for i, shape in enumerate(shapes)})
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISION[arithmetic],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if arithmetic == "int8" else 0,
    }
    try:
        options["CACHE_DIR"] = str(paths.writable(paths.kernels() / "openvino"))
    except GenieError:
        log.info("no folder to keep compiled graphs in: they are compiled at every start")
    return _Request(openvino.Core().compile_model(model, "CPU", options))


class _Request:
    """A compiled graph: tensors in, tensors out, which are fresh."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = len(compiled.outputs)

    def __call__(self, given: list[Tensor]) -> list[Tensor]:
        self._request.infer([part.numpy() for part in given], share_inputs=True, share_outputs=True)
        return [torch.from_numpy(self._request.get_output_tensor(i).data.copy()) for i in range(self._outputs)]
