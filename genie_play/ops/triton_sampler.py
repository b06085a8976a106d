"""The draw that ends a MaskGIT pass, as two Triton kernels: same signature and same tokens as in `reference.py`.

The first multiplies by the head, draws and reduces over the codes, so that logits are never written to memory; the
second merges the splits of the vocabulary, ranks (confidence order), writes the tokens and gathers the embedding of
the next pass. In confidence order the merge is a short kernel of its own where there is more than one split: a rank
looks at every position, and would merge them all again in each program. Argmax over codes splits exactly over tiles
(FlashSampling, arXiv 2603.15854); ranks are counted, not sorted, so ties are decided by position and exactly `count`
are kept. Draws use all four words of a Philox call for four codes. Only the listed positions go through the head; in
confidence order a block of rows with nothing hidden stops at once. Nothing waits for the device: with `Dials` all that
changes from frame to frame is read from its memory.

Tiles (H200, 132 SMs): the head is at most 10 MB and stays in the L2 cache, so what costs is how often it is read from
there, once for each block of rows. 64 rows a block where there are 512 or more of them (one wave at 920), 16 where the
frame is so small that even then most SMs idle; the vocabulary is split until each SM has a tile.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return, operator, assignment"
# (a kernel's arguments are Triton values, which have no Python types)

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from genie_play.ops.reference import Dials, Noise, Revealed, check, inverse_of

# the interpreter multiplies bfloat16 dot operands as raw bits (3.6 to 3.9): convert them first
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")

BLOCK_N = 16  # positions that one program commits
LARGEST_J = 256  # positions that a rank looks at in one go
MAX_SPLITS = 16
BLOCK_MERGE = 64  # positions that one program merges
PROGRAMS = 128  # enough to give nearly every SM something to do
COLUMNS = 1024  # of the next pass's embedding that one program writes


def embed(tokens: Tensor, table: Tensor, base: Tensor) -> Tensor:
    """See `reference.embed`."""
    x = _empty_x(tokens, table, base)
    batch, n_tokens, width = x.shape
    base = base.expand(batch, n_tokens, width)
    grid = (triton.cdiv(n_tokens, BLOCK_N), batch, triton.cdiv(width, COLUMNS))
    _embed_kernel[grid](
        tokens.contiguous(), table.contiguous(), base, x, n_tokens, *base.stride(),
        WIDTH=width, COLUMNS=COLUMNS, BLOCK_N=BLOCK_N, BLOCK_D=block(width, 128), enable_fp_fusion=False,
    )  # fmt: skip
    return x


def reveal(
    hidden: Tensor,
    head: Tensor,
    tokens: Tensor,
    table: Tensor,
    base: Tensor,
    noise: Noise | Dials,
    which: Tensor | int,
    temperature: float = 1.0,
    *,
    variant: str = "gumbel",
    choice_temperature: float = 0.0,
) -> Revealed:
    """See `reference.reveal`; the variant "inverse" is not offered here."""
    check(hidden, head, tokens, table, which, temperature)
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

    block_r, block_v, splits = draw_tiles(batch, rows, codes)
    scores = torch.empty((batch, splits, rows), dtype=torch.float32, device=hidden.device)
    drawn = torch.empty((batch, splits, rows), dtype=torch.int32, device=hidden.device)
    # what it takes to merge the confidences of splits
    apart = ranked and splits > 1
    chances, levels = (torch.empty_like(scores), torch.empty_like(scores)) if apart else (scores, scores)
    if isinstance(noise, Dials):
        integers, floats = noise
        scalars = (0, 0, 0, 0.0, 0.0)
    else:
        integers, floats = tokens, scores
        scalars = (*noise, inverse_of(temperature), choice_temperature)
    wide = block_r * block_v > 4096
    _draw_kernel[(triton.cdiv(rows, block_r), splits, batch)](
        hidden, head, tokens, positions, scores, chances, levels, drawn, integers, floats, *scalars, n_tokens, rows,
        CODES=codes, WIDTH=width, TILES=triton.cdiv(triton.cdiv(codes, block_v), splits), RANKED=ranked, APART=apart,
        DIALS=isinstance(noise, Dials), NOISY=isinstance(noise, Dials) or temperature > 0, UPCAST=INTERPRETED,
        BLOCK_R=block_r, BLOCK_V=block_v, BLOCK_D=block(width, 64 if wide else 128),
        num_warps=8 if wide else 4, num_stages=3, enable_fp_fusion=False,
    )  # fmt: skip

    if apart:
        parts = scores, chances, levels, drawn
        scores, drawn = (torch.empty((batch, rows), dtype=a.dtype, device=a.device) for a in (scores, drawn))
        _merge_kernel[(triton.cdiv(rows, BLOCK_MERGE), batch)](
            tokens, *parts, scores, drawn, rows,
            CODES=codes, SPLITS=splits, BLOCK=BLOCK_MERGE, num_warps=2, enable_fp_fusion=False,
        )  # fmt: skip
    x = _empty_x(tokens, table, base)
    base = base.expand(x.shape)
    revealed = torch.empty_like(tokens)
    block_j = block(rows, LARGEST_J)
    _commit_kernel[(triton.cdiv(n_tokens, BLOCK_N), batch, triton.cdiv(width, COLUMNS))](
        tokens, positions, scores, drawn, table, base, revealed, x,
        n_tokens, rows, count, *base.stride(),
        CODES=codes, WIDTH=width, COLUMNS=COLUMNS, RANKED=ranked, SPLITS=splits,
        BLOCK_N=BLOCK_N, BLOCK_J=block_j, BLOCKS_J=triton.cdiv(rows, block_j), BLOCK_D=block(width, 128),
        enable_fp_fusion=False,
    )  # fmt: skip
    return Revealed(revealed, x)


def draw_tiles(batch: int, rows: int, codes: int) -> tuple[int, int, int]:
    """Rows and codes of a tile, and splits of the vocabulary (none of them empty), for the draw kernel."""
    total = batch * rows
    block_r = 64 if total >= 512 else 32 if total >= 128 else 16
    row_blocks = batch * triton.cdiv(rows, block_r)
    # narrower tiles where 128 codes each would leave SMs without one
    block_v = 128 if row_blocks * min(triton.cdiv(codes, 128), MAX_SPLITS) >= PROGRAMS * 3 // 4 else 64
    tiles = triton.cdiv(codes, block_v)
    splits = max(1, min(tiles, MAX_SPLITS, PROGRAMS // row_blocks))
    return block_r, block_v, triton.cdiv(tiles, triton.cdiv(tiles, splits))


def block(size: int, largest: int) -> int:
    """A power of two that tiles `size`; 16 at least, the smallest side of a matrix product."""
    return int(min(max(triton.next_power_of_2(size), 16), largest))


def _empty_x(tokens: Tensor, table: Tensor, base: Tensor) -> Tensor:
    kind = torch.promote_types(table.dtype, base.dtype)
    return torch.empty((*tokens.shape, table.shape[1]), dtype=kind, device=tokens.device)


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


@triton.jit
def _larger(a, b):
    """log(exp(a) + exp(b)), exact where one of them is -inf."""
    high = tl.maximum(a, b)
    level = tl.where(high > -float("inf"), high, 0.0)
    return level + tl.log(tl.exp(a - level) + tl.exp(b - level))


@triton.jit(do_not_specialize=["seed", "frame", "step", "rows"])
def _draw_kernel(
    hidden_ptr, head_ptr, tokens_ptr, positions_ptr, scores_ptr, chances_ptr, levels_ptr, drawn_ptr,
    integers_ptr, floats_ptr, seed, frame, step, inverse_temperature, choice_temperature, n_tokens, rows,
    CODES: tl.constexpr, WIDTH: tl.constexpr, TILES: tl.constexpr, RANKED: tl.constexpr, APART: tl.constexpr,
    DIALS: tl.constexpr, NOISY: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """For BLOCK_R rows and one split of the codes: the best code and its score, or its confidence where RANKED.

    Confidence is the chance of a code (its logit, with the noise of the choice) less the level of all (the log-sum-exp
    of the logits). Where they are APART in splits, the score, the chance and the split's level are written instead. A
    row whose logits are not finite gets the code CODES, which nobody keeps, and a score that wins any merge.
    """
    row_block, split, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = row_block.to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    live = row < rows
    position = row
    if not RANKED:
        position = tl.load(positions_ptr + row, mask=live, other=0)
    hidden_now = tl.load(tokens_ptr + batch * n_tokens + position, mask=live, other=0) == CODES
    # programs whose rows are all revealed have nothing to draw
    if tl.max((live & hidden_now).to(tl.int32), axis=0) > 0:
        if DIALS:
            key = tl.load(integers_ptr).to(tl.uint64, bitcast=True)
            frame_word = tl.load(integers_ptr + 1).to(tl.uint32)
            token_step = (2 * tl.load(integers_ptr + 2)).to(tl.uint32)
            inverse = tl.load(floats_ptr)
            choice = tl.load(floats_ptr + 1)
        else:
            key = seed
            frame_word, token_step = frame.to(tl.uint32), (2 * step).to(tl.uint32)
            inverse, choice = inverse_temperature, choice_temperature
        scale = tl.where(inverse == 0, 1.0, inverse)
        best = tl.full((BLOCK_R,), -float("inf"), tl.float32)
        best_logit = best
        best_code = tl.zeros((BLOCK_R,), tl.int32)
        peak, total = best, tl.zeros((BLOCK_R,), tl.float32)
        rows_ptr = hidden_ptr + (batch * n_tokens + position)[:, None] * WIDTH
        for tile in range(TILES):
            start = (split * TILES + tile) * BLOCK_V
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
            scaled = tl.where((code < CODES)[None, :], logits * scale, -float("inf"))

            score = scaled
            if NOISY:  # noqa: SIM102 (the one is decided when the kernel is compiled, the other when it runs)
                if inverse != 0:
                    group = start // 4 + tl.arange(0, BLOCK_V // 4)
                    w0, w1, w2, w3 = _philox(key, group[None, :], position[:, None], token_step, frame_word)
                    # word i of a group serves its i-th code
                    score += _gumbel(tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3)))
            if UPCAST:
                # the interpreter of Triton 3.9 has no argmax of a row of NaN; `total` below notices such a row
                score = tl.where(score == score, score, -float("inf"))
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
        out = (batch * tl.num_programs(1) + split) * rows + row
        if RANKED:
            nobody = tl.zeros((1,), tl.uint32)
            if choice != 0:
                word, _, _, _ = _philox(key, nobody, position, token_step + 1, frame_word)
                best_logit += choice * _gumbel(word)
            level = peak + tl.log(total)
            if APART:
                tl.store(chances_ptr + out, best_logit, mask=live)
                tl.store(levels_ptr + out, tl.where(finite, level, 0.0), mask=live)
            else:
                best = best_logit - level
                finite = finite & (best > -float("inf"))
        tl.store(scores_ptr + out, tl.where(finite, best, float("inf")), mask=live)
        tl.store(drawn_ptr + out, tl.where(finite, best_code, CODES), mask=live)


@triton.jit(do_not_specialize=["rows"])
def _merge_kernel(
    tokens_ptr, scores_ptr, chances_ptr, levels_ptr, drawn_ptr, confidences_ptr, codes_ptr, rows,
    CODES: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The code of BLOCK positions over all splits, CODES where there is none to keep, and its confidence."""
    batch = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = row < rows
    there = there & (tl.load(tokens_ptr + batch * rows + row, mask=there, other=0) == CODES)
    best = tl.full((BLOCK,), -float("inf"), tl.float32)
    chance, level = best, best
    drawn = tl.full((BLOCK,), CODES, tl.int32)
    broken = drawn != CODES
    for split in tl.static_range(SPLITS):
        at = (batch * SPLITS + split) * rows + row
        score = tl.load(scores_ptr + at, mask=there, other=-float("inf"))
        code = tl.load(drawn_ptr + at, mask=there, other=CODES)
        broken = broken | (code == CODES)
        # splits are in the order of their codes, so the first of equals has the lowest
        wins = score > best
        best, drawn = tl.where(wins, score, best), tl.where(wins, code, drawn)
        chance = tl.where(wins, tl.load(chances_ptr + at, mask=there, other=0.0), chance)
        level = _larger(level, tl.load(levels_ptr + at, mask=there, other=0.0))
    confidence = chance - level
    broken = broken | ~(confidence > -float("inf"))
    tl.store(confidences_ptr + batch * rows + row, confidence, mask=there)
    tl.store(codes_ptr + batch * rows + row, tl.where(broken, CODES, drawn), mask=there)


@triton.jit(do_not_specialize=["rows", "count"])
def _commit_kernel(
    tokens_ptr, positions_ptr, scores_ptr, drawn_ptr, table_ptr, base_ptr, revealed_ptr, x_ptr,
    n_tokens, rows, count, base_b, base_n, base_d,
    CODES: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, RANKED: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_J: tl.constexpr, BLOCKS_J: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Write BLOCK_N tokens, revealed where they were chosen, and COLUMNS of their embedding."""
    batch = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = n < n_tokens
    token = tl.load(tokens_ptr + batch * n_tokens + n, mask=live, other=0).to(tl.int32)
    masked = live & (token == CODES)
    if RANKED:
        drawn = tl.load(drawn_ptr + batch * n_tokens + n, mask=masked, other=CODES)
        mine = tl.load(scores_ptr + batch * n_tokens + n, mask=masked, other=0.0)
        rank = tl.zeros((BLOCK_N,), tl.int32)
        for j_block in range(BLOCKS_J):
            j = j_block * BLOCK_J + tl.arange(0, BLOCK_J)
            rival = tl.load(tokens_ptr + batch * n_tokens + j, mask=j < n_tokens, other=0) == CODES
            rival = rival & (tl.load(drawn_ptr + batch * n_tokens + j, mask=rival, other=CODES) < CODES)
            other = tl.load(scores_ptr + batch * n_tokens + j, mask=rival, other=-float("inf"))
            ahead = (other[None, :] == mine[:, None]) & (j[None, :] < n[:, None])
            ahead = (ahead | (other[None, :] > mine[:, None])) & rival[None, :]
            rank += tl.sum(ahead.to(tl.int32), axis=1)
        chosen = masked & (drawn < CODES) & (rank < count)
    else:
        row = tl.full((BLOCK_N,), -1, tl.int32)
        for j_block in range(BLOCKS_J):
            r = j_block * BLOCK_J + tl.arange(0, BLOCK_J)
            listed = tl.load(positions_ptr + r, mask=r < rows, other=-1)
            row = tl.maximum(row, tl.max(tl.where(listed[None, :] == n[:, None], r[None, :], -1), axis=1))
        mine = masked & (row >= 0)
        best = tl.full((BLOCK_N,), -float("inf"), tl.float32)
        drawn = tl.full((BLOCK_N,), CODES, tl.int32)
        for split in tl.static_range(SPLITS):
            at = (batch * SPLITS + split) * rows + row
            score = tl.load(scores_ptr + at, mask=mine, other=-float("inf"))
            code = tl.load(drawn_ptr + at, mask=mine, other=CODES)
            # splits are in the order of their codes, so the first of equals has the lowest
            best, drawn = tl.where(score > best, score, best), tl.where(score > best, code, drawn)
        chosen = mine & (drawn < CODES)
    token = tl.where(chosen, drawn, token)
    if tl.program_id(2) == 0:
        tl.store(revealed_ptr + batch * n_tokens + n, token.to(tl.int64), mask=live)
    _gather(
        token, batch, n, live, table_ptr, base_ptr, x_ptr, n_tokens, base_b, base_n, base_d, WIDTH, COLUMNS, BLOCK_D
    )


@triton.jit
def _embed_kernel(
    tokens_ptr, table_ptr, base_ptr, x_ptr, n_tokens, base_b, base_n, base_d,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Write COLUMNS of the embedding of BLOCK_N tokens."""
    batch = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = n < n_tokens
    token = tl.load(tokens_ptr + batch * n_tokens + n, mask=live, other=0)
    _gather(
        token, batch, n, live, table_ptr, base_ptr, x_ptr, n_tokens, base_b, base_n, base_d, WIDTH, COLUMNS, BLOCK_D
    )


@triton.jit
def _gather(
    token, batch, n, live, table_ptr, base_ptr, x_ptr, n_tokens, base_b, base_n, base_d,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    for d in range(0, min(COLUMNS, WIDTH), BLOCK_D):
        column = tl.program_id(2) * COLUMNS + d + tl.arange(0, BLOCK_D)
        there = live[:, None] & (column < WIDTH)[None, :]
        row = tl.load(table_ptr + token.to(tl.int64)[:, None] * WIDTH + column[None, :], mask=there, other=0.0)
        at = batch * base_b + n.to(tl.int64)[:, None] * base_n + column[None, :] * base_d
        base = tl.load(base_ptr + at, mask=there, other=0.0)
        x = row.to(tl.float32) + base.to(tl.float32)
        to = x_ptr + (batch * n_tokens + n)[:, None] * WIDTH + column[None, :]
        tl.store(to, x.to(x_ptr.dtype.element_ty), mask=there)
