"""The operations of `reference.py` as Triton kernels: same names, same signatures, same tokens.

`reveal` is two launches. The first multiplies by the head, draws and reduces over the codes, so that logits are never
written to memory; the second ranks (confidence order), writes the tokens and gathers the embedding of the next pass.
Argmax over codes splits exactly over tiles (FlashSampling, arXiv 2603.15854); ranks are counted, not sorted, so ties
are decided by position and exactly `count` are kept. Draws use all four words of a Philox call for four codes.

Runs on an NVIDIA GPU, or anywhere under TRITON_INTERPRET=1, set before this module is imported.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return, operator, assignment"
# (a kernel's arguments are Triton values, which have no Python types)

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from genie_play.ops.reference import Noise, Revealed, _check

# the interpreter multiplies bfloat16 dot operands as raw bits (3.6 to 3.9): convert them first
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")

BLOCK_R, BLOCK_N, BLOCK_J = 16, 16, 128  # rows of a draw, rows of a commit, positions compared at a time
MAX_SPLITS = 16
PROGRAMS = 128  # enough to give nearly every SM of an H200 something to do


def embed(tokens: Tensor, table: Tensor, base: Tensor) -> Tensor:
    """See `reference.embed`."""
    x = _empty_x(tokens, table, base)
    batch, n_tokens, width = x.shape
    base = base.expand(batch, n_tokens, width)
    grid = (triton.cdiv(n_tokens, BLOCK_N), batch)
    _embed_kernel[grid](
        tokens.contiguous(), table.contiguous(), base, x, n_tokens, *base.stride(),
        WIDTH=width, BLOCK_N=BLOCK_N, BLOCK_D=_block(width, 128), enable_fp_fusion=False,
    )  # fmt: skip
    return x


def reveal(
    hidden: Tensor,
    head: Tensor,
    tokens: Tensor,
    table: Tensor,
    base: Tensor,
    noise: Noise,
    which: Tensor | int,
    temperature: float,
    *,
    variant: str = "gumbel",
    choice_temperature: float = 0.0,
) -> Revealed:
    """See `reference.reveal`; the variant "inverse" is not offered here."""
    _check(hidden, head, tokens, table, which, temperature)
    if variant != "gumbel":
        raise ValueError(f"the triton ops have no variant {variant!r}")
    batch, n_tokens, width = hidden.shape
    hidden, head, tokens, table = (a.contiguous() for a in (hidden, head, tokens, table))
    codes, ranked = len(head), isinstance(which, int)
    if isinstance(which, int):
        # every position is drawn, and the list of positions is never read
        positions, rows, count = tokens, n_tokens, which
    else:
        positions, rows, count = which.contiguous(), len(which), 0
    if rows == 0:
        return Revealed(tokens.clone(), embed(tokens, table, base))

    block_v = min(max(triton.next_power_of_2(codes), 64), 128)
    tiles, row_blocks = triton.cdiv(codes, block_v), triton.cdiv(rows, BLOCK_R)
    # a rank compares confidences, so one program must see all the codes of its rows
    splits = 1 if ranked else max(1, min(tiles, MAX_SPLITS, PROGRAMS // (batch * row_blocks)))
    per_split = triton.cdiv(tiles, splits) * block_v
    scores = torch.empty((batch, rows, splits), dtype=torch.float32, device=hidden.device)
    drawn = torch.empty((batch, rows, splits), dtype=torch.int32, device=hidden.device)
    _draw_kernel[(row_blocks, splits, batch)](
        hidden, head, tokens, positions, scores, drawn,
        noise.seed, noise.frame, noise.step, 1.0 / temperature if temperature else 1.0, choice_temperature,
        n_tokens, rows,
        CODES=codes, WIDTH=width, PER_SPLIT=per_split, RANKED=ranked, NOISY=temperature > 0, UPCAST=INTERPRETED,
        BLOCK_R=BLOCK_R, BLOCK_V=block_v, BLOCK_D=_block(width, 64), enable_fp_fusion=False,
    )  # fmt: skip

    x = _empty_x(tokens, table, base)
    base = base.expand(x.shape)
    revealed = torch.empty_like(tokens)
    _commit_kernel[(triton.cdiv(n_tokens, BLOCK_N), batch)](
        tokens, positions, scores, drawn, table, base, revealed, x,
        n_tokens, rows, count, splits, *base.stride(),
        CODES=codes, WIDTH=width, RANKED=ranked, SPLITS=triton.next_power_of_2(splits),
        BLOCK_N=BLOCK_N, BLOCK_J=BLOCK_J, BLOCKS_J=triton.cdiv(rows, BLOCK_J), BLOCK_D=_block(width, 128),
        enable_fp_fusion=False,
    )  # fmt: skip
    return Revealed(revealed, x)


def to_picture(pixels: Tensor) -> Tensor:
    """See `reference.to_picture`."""
    pixels = pixels.contiguous()
    picture = torch.empty(pixels.shape, dtype=torch.uint8, device=pixels.device)
    _picture_kernel[(triton.cdiv(pixels.numel(), 1024),)](
        pixels, picture, pixels.numel(), BLOCK=1024, enable_fp_fusion=False
    )
    return picture


def _empty_x(tokens: Tensor, table: Tensor, base: Tensor) -> Tensor:
    kind = torch.promote_types(table.dtype, base.dtype)
    return torch.empty((*tokens.shape, table.shape[1]), dtype=kind, device=tokens.device)


def _block(size: int, largest: int) -> int:
    """A power of two that tiles `size`; 16 at least, the smallest side of a matrix product."""
    return min(max(triton.next_power_of_2(size), 16), largest)


@triton.jit
def _uniform(word):
    """uint32 to (0, 1), as `philox.uniform`."""
    u = ((word >> 8).to(tl.float32) + 0.5) * 5.9604644775390625e-08  # 2**-24
    return tl.minimum(u, 0.999999940395355224609375)  # 1 - 2**-24


@triton.jit
def _gumbel(word):
    return -tl.log(-tl.log(_uniform(word)))


@triton.jit
def _philox(seed, c0, c1, c2, c3):
    """`tl.philox` on counters of any integer type and of shapes that broadcast."""
    zero = c0.to(tl.uint32) * 0 + c1.to(tl.uint32) * 0
    return tl.philox(seed, zero + c0.to(tl.uint32), zero + c1.to(tl.uint32), zero + c2, zero + c3)


@triton.jit(do_not_specialize=["seed", "frame", "step"])
def _draw_kernel(
    hidden_ptr, head_ptr, tokens_ptr, positions_ptr, scores_ptr, drawn_ptr,
    seed, frame, step, inverse_temperature, choice_temperature, n_tokens, rows,
    CODES: tl.constexpr, WIDTH: tl.constexpr, PER_SPLIT: tl.constexpr,
    RANKED: tl.constexpr, NOISY: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """For BLOCK_R rows and one split of the codes: the best code and its score, or its confidence where RANKED.

    A row whose logits are not finite gets the code CODES, which nobody keeps, and a score that wins any merge.
    """
    block, split, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = block.to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    live = row < rows
    position = row
    if not RANKED:
        position = tl.load(positions_ptr + row, mask=live, other=0)
    hidden_now = tl.load(tokens_ptr + batch * n_tokens + position, mask=live, other=0) == CODES
    # programs whose rows are all revealed have nothing to draw
    if tl.max((live & hidden_now).to(tl.int32), axis=0) > 0:
        frame_word, token_step = frame.to(tl.uint32), (2 * step).to(tl.uint32)
        best = tl.full((BLOCK_R,), -float("inf"), tl.float32)
        best_logit = best
        best_code = tl.zeros((BLOCK_R,), tl.int32)
        peak, total = best, tl.zeros((BLOCK_R,), tl.float32)
        rows_ptr = hidden_ptr + (batch * n_tokens + position)[:, None] * WIDTH
        for tile in range(0, PER_SPLIT, BLOCK_V):
            start = split * PER_SPLIT + tile
            code = start + tl.arange(0, BLOCK_V)
            logits = tl.zeros((BLOCK_R, BLOCK_V), tl.float32)
            for d in range(0, WIDTH, BLOCK_D):
                column = d + tl.arange(0, BLOCK_D)
                h = tl.load(rows_ptr + column[None, :], mask=live[:, None] & (column < WIDTH)[None, :], other=0.0)
                w = tl.load(
                    head_ptr + code.to(tl.int64)[None, :] * WIDTH + column[:, None],
                    mask=(code < CODES)[None, :] & (column < WIDTH)[:, None], other=0.0,
                )  # fmt: skip
                if UPCAST:
                    h, w = h.to(tl.float32), w.to(tl.float32)
                logits = tl.dot(h, w, logits, input_precision="ieee")
            scaled = tl.where((code < CODES)[None, :], logits * inverse_temperature, -float("inf"))

            score = scaled
            if NOISY:
                group = start // 4 + tl.arange(0, BLOCK_V // 4)
                w0, w1, w2, w3 = _philox(seed, group[None, :], position[:, None], token_step, frame_word)
                # word i of a group serves its i-th code
                score += _gumbel(tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3)))
            here = tl.argmax(score, axis=1, tie_break_left=True)
            top = tl.max(score, axis=1)
            logit = tl.sum(tl.where(tl.arange(0, BLOCK_V)[None, :] == here[:, None], scaled, 0.0), axis=1)
            # only a strictly better code of a later tile wins: ties go to the lowest code
            wins = top > best
            best_code = tl.where(wins, start + here, best_code)
            best_logit = tl.where(wins, logit, best_logit)
            best = tl.where(wins, top, best)

            higher = tl.maximum(peak, tl.max(scaled, axis=1))
            # a tile of padding alone has no finite peak
            level = tl.where(higher > -float("inf"), higher, 0.0)
            total = total * tl.exp(peak - level) + tl.sum(tl.exp(scaled - level[:, None]), axis=1)
            peak = higher

        finite = total < float("inf")  # false for inf and nan: some logit was not finite
        if RANKED:
            best = best_logit - (peak + tl.log(total))
            nobody = tl.zeros((1,), tl.uint32)
            if choice_temperature != 0:
                word, _, _, _ = _philox(seed, nobody, position, token_step + 1, frame_word)
                best += choice_temperature * _gumbel(word)
            finite = finite & (best > -float("inf"))
        out = (batch * rows + row) * tl.num_programs(1) + split
        tl.store(scores_ptr + out, tl.where(finite, best, float("inf")), mask=live)
        tl.store(drawn_ptr + out, tl.where(finite, best_code, CODES), mask=live)


@triton.jit
def _commit_kernel(
    tokens_ptr, positions_ptr, scores_ptr, drawn_ptr, table_ptr, base_ptr, revealed_ptr, x_ptr,
    n_tokens, rows, count, splits, base_b, base_n, base_d,
    CODES: tl.constexpr, WIDTH: tl.constexpr, RANKED: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_J: tl.constexpr, BLOCKS_J: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Write BLOCK_N tokens, revealed where they were chosen, and their embedding."""
    batch = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = n < n_tokens
    token = tl.load(tokens_ptr + batch * n_tokens + n, mask=live, other=0).to(tl.int32)
    masked = live & (token == CODES)
    if RANKED:
        drawn = tl.load(drawn_ptr + batch * n_tokens + n, mask=masked, other=CODES)
        mine = tl.load(scores_ptr + batch * n_tokens + n, mask=masked, other=0.0)
        rank = tl.zeros((BLOCK_N,), tl.int32)
        for block in range(BLOCKS_J):
            j = block * BLOCK_J + tl.arange(0, BLOCK_J)
            inside = j < n_tokens
            rival = tl.load(tokens_ptr + batch * n_tokens + j, mask=inside, other=0) == CODES
            rival = rival & (tl.load(drawn_ptr + batch * n_tokens + j, mask=rival, other=CODES) < CODES)
            other = tl.load(scores_ptr + batch * n_tokens + j, mask=rival, other=-float("inf"))
            ahead = (other[None, :] == mine[:, None]) & (j[None, :] < n[:, None])
            ahead = (ahead | (other[None, :] > mine[:, None])) & rival[None, :]
            rank += tl.sum(ahead.to(tl.int32), axis=1)
        chosen = masked & (drawn < CODES) & (rank < count)
    else:
        row = tl.full((BLOCK_N,), -1, tl.int32)
        for block in range(BLOCKS_J):
            r = block * BLOCK_J + tl.arange(0, BLOCK_J)
            listed = tl.load(positions_ptr + r, mask=r < rows, other=-1)
            row = tl.maximum(row, tl.max(tl.where(listed[None, :] == n[:, None], r[None, :], -1), axis=1))
        mine = masked & (row >= 0)
        part = tl.arange(0, SPLITS)
        at = (batch * rows + row)[:, None] * splits + part[None, :]
        there = mine[:, None] & (part < splits)[None, :]
        score = tl.load(scores_ptr + at, mask=there, other=-float("inf"))
        parts = tl.load(drawn_ptr + at, mask=there, other=CODES)
        # splits are in the order of their codes, so the leftmost of equals has the lowest code
        winner = tl.argmax(score, axis=1, tie_break_left=True)
        drawn = tl.sum(tl.where(part[None, :] == winner[:, None], parts, 0), axis=1)
        chosen = mine & (drawn < CODES) & (tl.max(score, axis=1) > -float("inf"))
    token = tl.where(chosen, drawn, token)
    tl.store(revealed_ptr + batch * n_tokens + n, token.to(tl.int64), mask=live)
    _gather(token, batch, n, live, table_ptr, base_ptr, x_ptr, n_tokens, base_b, base_n, base_d, WIDTH, BLOCK_D)


@triton.jit
def _embed_kernel(
    tokens_ptr, table_ptr, base_ptr, x_ptr, n_tokens, base_b, base_n, base_d,
    WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Write the embedding of BLOCK_N tokens."""
    batch = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = n < n_tokens
    token = tl.load(tokens_ptr + batch * n_tokens + n, mask=live, other=0)
    _gather(token, batch, n, live, table_ptr, base_ptr, x_ptr, n_tokens, base_b, base_n, base_d, WIDTH, BLOCK_D)


@triton.jit
def _gather(
    token, batch, n, live, table_ptr, base_ptr, x_ptr, n_tokens, base_b, base_n, base_d,
    WIDTH: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    for d in range(0, WIDTH, BLOCK_D):
        column = d + tl.arange(0, BLOCK_D)
        there = live[:, None] & (column < WIDTH)[None, :]
        row = tl.load(table_ptr + token.to(tl.int64)[:, None] * WIDTH + column[None, :], mask=there, other=0.0)
        at = batch * base_b + n.to(tl.int64)[:, None] * base_n + column[None, :] * base_d
        base = tl.load(base_ptr + at, mask=there, other=0.0)
        x = row.to(tl.float32) + base.to(tl.float32)
        to = x_ptr + (batch * n_tokens + n)[:, None] * WIDTH + column[None, :]
        tl.store(to, x.to(x_ptr.dtype.element_ty), mask=there)


@triton.jit
def _picture_kernel(pixels_ptr, picture_ptr, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    pixels = tl.load(pixels_ptr + at, mask=at < size, other=0.0).to(tl.float32)
    pixels = tl.minimum(tl.maximum(pixels, 0.0), 1.0) * 255.0 + 0.5
    tl.store(picture_ptr + at, pixels.to(tl.uint8), mask=at < size)
