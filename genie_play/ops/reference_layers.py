"""The operations of one ST layer on one frame, in plain torch: the specification of the layer kernels.

Together they are `STBlock.stream`: `project_heads`, `spatial`, `add_product`; `project_heads`, `temporal`,
`add_product`; `feed_in`, `add_product`: eight launches where each is one kernel. All compute in float32 and give back
the kind of their first argument. `gain` is the weight of the RMSNorm before a product; None where it is folded into the
product's own. A weight may be `Rows8`, as `quantize_rows` makes them: then the other factor is rounded to float8 too,
128 columns at a time. Knows nothing of modules or of how long anything is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6  # of every RMSNorm
E4M3_MAX = 448.0
GROUP = 128  # columns that share a scale where a product rounds its first factor to float8


class Heads(NamedTuple):
    """Queries, keys and values of one frame, each (B, N, h, hd); the queries come scaled."""

    q: Tensor
    k: Tensor
    v: Tensor


class Rotary(NamedTuple):
    """Cosines and signed sines (N, hd) of 2-D rotary positions, as `nn.st_transformer.rotary_table` lays them out.

    In each half of a head, (j, j + hd / 4) turn together: equal cosines, opposite sines.
    """

    cos: Tensor
    sin: Tensor


class Layer(NamedTuple):
    """The weights of an ST block after its first product."""

    spatial_out: Tensor  # (D, h * hd)
    time_gain: Tensor  # (D,)
    time_qkv: Tensor  # (3 * h * hd, D)
    time_q: Tensor  # (hd,)
    time_k: Tensor  # (hd,)
    time_out: Tensor  # (D, h * hd)
    feed_gain: Tensor  # (D,)
    feed_in: Tensor  # (F, D)
    feed_out: Tensor  # (D, F)


class Entry(NamedTuple):
    """What `project_heads` wants of a block beside the frame."""

    gain: Tensor
    qkv: Tensor
    q_scale: Tensor
    k_scale: Tensor
    rotary: Rotary | None


class Layered(NamedTuple):
    """A frame after a layer, its keys and values along time, and the heads that the next layer begins with."""

    x: Tensor  # (B, N, D)
    k: Tensor  # (B, N, h, hd)
    v: Tensor  # (B, N, h, hd)
    heads: Heads | None


class Rows8(NamedTuple):
    """Rows (..., D) in float8 e4m3 and the scale (..., 1) float32 that gives them back."""

    values: Tensor
    scales: Tensor


def project_heads(
    x: Tensor,
    gain: Tensor | None,
    weight: Tensor | Rows8,
    q_scale: Tensor,
    k_scale: Tensor,
    rotary: Rotary | None = None,
) -> Heads:
    """RMSNorm, product, QK-norm and rotary positions: x (B, N, D) and weight (3 * h * hd, D) to heads.

        [q k v] = rms(x) * gain @ weight.T
        q = rotate(rms(q) * q_scale * hd**-0.5), k = rotate(rms(k) * k_scale), rms over each head

    rms(x) = x / sqrt(mean(x**2) + 1e-6). q_scale and k_scale are (hd,).
    """
    head_dim = len(q_scale)
    qkv = _product(_normed(x, gain), weight)
    q, k, v = qkv.unflatten(-1, (3, -1, head_dim)).unbind(-3)
    q = F.rms_norm(q, (head_dim,), eps=EPSILON) * (q_scale.float() * head_dim**-0.5)
    k = F.rms_norm(k, (head_dim,), eps=EPSILON) * k_scale.float()
    if rotary is not None:
        q, k = _rotated(q, rotary), _rotated(k, rotary)
    return Heads(q.to(x.dtype), k.to(x.dtype), v.to(x.dtype))


def feed_in(x: Tensor, gain: Tensor | None, weight: Tensor | Rows8) -> Tensor:
    """relu(rms(x) * gain @ weight.T) ** 2: the first half of the feed-forward, (B, N, D) to (B, N, F)."""
    return F.relu(_product(_normed(x, gain), weight)).square().to(x.dtype)


def add_product(x: Tensor, a: Tensor, weight: Tensor | Rows8) -> Tensor:
    """x + a @ weight.T: back to the residual stream x (B, N, D) from a (B, N, F)."""
    return (x.float() + _product(a.float(), weight)).to(x.dtype)


def spatial(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    before_k: Tensor | None = None,
    before_v: Tensor | None = None,
    previous_key: Tensor | None = None,
) -> Tensor:
    """Attention inside a frame, (B, N, h, hd): to its own keys and, with `previous_key`, to those of the frame before.

        softmax(q [before_k + previous_key, k].T) [before_v, v]

    before_k, before_v are (B or 1, N, h, hd), None before the first frame, which is then its own; previous_key is
    (h, 1, hd). Without it a frame sees itself alone.
    """
    queries, keys, values = (a.float().transpose(1, 2) for a in (q, k, v))  # (B, h, N, hd)
    if previous_key is not None:
        earlier_k = keys if before_k is None else before_k.float().transpose(1, 2).expand_as(keys)
        earlier_v = values if before_v is None else before_v.float().transpose(1, 2).expand_as(values)
        keys = torch.cat((earlier_k + previous_key.float(), keys), 2)
        values = torch.cat((earlier_v, values), 2)
    return ((queries @ keys.mT).softmax(-1) @ values).transpose(1, 2).to(q.dtype)


def temporal(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, bias: Tensor, slot: Tensor | None = None
) -> Tensor:
    """Attention of one frame along time, (B, N, h, hd): each place to its own past in the ring and to itself.

        softmax([ring_k . q, k . q] + bias) [ring_v, v]

    The rings are (B or 1, N, h, P, hd); batch 1 is shared by all rows. bias (h, P + 1) belongs to the slots and, last,
    to the frame itself; -inf where a slot is not seen. `slot`, int64 of one element on the device, also writes k and v
    over that slot, after it was read; the rings must then have a row for each row of the batch.
    """
    check_rings(q, ring_k, ring_v, bias, slot)
    queries, keys, values = q.float(), k.float(), v.float()
    own = (queries * keys).sum(-1, keepdim=True)  # (B, N, h, 1)
    # batched products: on a CPU twice as fast as to multiply and add
    before = (ring_k.float() @ queries[..., None])[..., 0]  # (B, N, h, P)
    weights = (torch.cat((before, own), -1) + bias.float()).softmax(-1)
    seen = (weights[..., None, :-1] @ ring_v.float())[..., 0, :] + weights[..., -1:] * values
    if slot is not None:
        ring_k.index_copy_(3, slot.view(1), k[..., None, :].to(ring_k.dtype))
        ring_v.index_copy_(3, slot.view(1), v[..., None, :].to(ring_v.dtype))
    return seen.to(q.dtype)


def layer(
    x: Tensor,
    heads: Heads,
    before: tuple[Tensor, Tensor] | None,
    previous_key: Tensor | None,
    rings: tuple[Tensor, Tensor],
    bias: Tensor,
    weights: Layer,
    entry: Entry | None = None,
    parts: tuple[Callable[..., Any], ...] = (),
) -> Layered:
    """An ST block from its heads on, and with `entry` the heads of the block after it: the operations above in a row.

    x (B, N, D), heads as `project_heads` made them of it; `before` and `previous_key` as in `spatial`; rings
    (1, N, h, P, hd) and bias (h, P + 1) as in `temporal`. `parts` are another backend's spatial, add_product,
    project_heads, temporal and feed_in.
    """
    own: tuple[Callable[..., Any], ...] = (spatial, add_product, project_heads, temporal, feed_in)
    inside, back, split, along, feed = parts or own
    x = back(x, inside(*heads, *(before or (None, None)), previous_key).flatten(2), weights.spatial_out)
    q, k, v = split(x, weights.time_gain, weights.time_qkv, weights.time_q, weights.time_k)
    x = back(x, along(q, k, v, *rings, bias).flatten(2), weights.time_out)
    x = back(x, feed(x, weights.feed_gain, weights.feed_in), weights.feed_out)
    return Layered(x, k, v, None if entry is None else split(x, *entry))


def quantize_rows(x: Tensor, gain: Tensor | None = None, norm: bool = False) -> Rows8:
    """Rows (..., D) in float8 e4m3 with a scale each, as `torch._scaled_mm` takes them; normed first where asked.

    scale = max |y| / 448 over the row (1 where the row is zero), values = y / scale, y = x or rms(x) * gain.
    """
    y = _normed(x, gain) if norm else x.float()
    largest = y.abs().amax(-1, keepdim=True)
    scales = torch.where(largest > 0, largest / E4M3_MAX, 1.0)
    return Rows8((y / scales).to(torch.float8_e4m3fn), scales)


def check_rings(q: Tensor, ring_k: Tensor, ring_v: Tensor, bias: Tensor, slot: Tensor | None) -> None:
    """ValueError where the shapes of `temporal` do not fit."""
    batch, n_tokens, heads, head_dim = q.shape
    rows, slots = ring_k.shape[0], ring_k.shape[3]
    if ring_k.shape != (rows, n_tokens, heads, slots, head_dim) or ring_v.shape != ring_k.shape:
        raise ValueError(f"rings {tuple(ring_k.shape)} and {tuple(ring_v.shape)} do not fit queries {tuple(q.shape)}")
    if rows not in (1, batch) or bias.shape != (heads, slots + 1):
        raise ValueError(f"a ring of batch {rows} with bias {tuple(bias.shape)} does not fit queries {tuple(q.shape)}")
    if slot is not None and (rows != batch or slot.numel() != 1):
        raise ValueError("to write a slot, the rings need a row for each row of the batch, and slot one element")


def _normed(x: Tensor, gain: Tensor | None) -> Tensor:
    y = F.rms_norm(x.float(), (x.shape[-1],), eps=EPSILON)
    return y if gain is None else y * gain.float()


def _product(x: Tensor, weight: Tensor | Rows8) -> Tensor:
    """x @ weight.T; with a float8 weight each 128 columns of a row of x are rounded to float8 first."""
    if not isinstance(weight, Rows8):
        return x @ weight.float().T
    rounded = [values.float() * scales for values, scales in map(quantize_rows, x.split(GROUP, -1))]
    return torch.cat(rounded, -1) @ (weight.values.float() * weight.scales).T


def _rotated(x: Tensor, rotary: Rotary) -> Tensor:
    """(B, N, h, hd) turned by its place."""
    swapped = x.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3)
    return x * rotary.cos.float()[:, None] + swapped * rotary.sin.float()[:, None]
