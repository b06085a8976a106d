"""Both ends of the tokenizer as Triton kernels: the nearest code of a vector, and the picture of a decoder's patches.

See `nearest`, `picture` and `to_picture` in `reference.py`. Products with the codebook are never written to memory
(49,152 x 1024 float32 of them are 200 MB in a training step of `studio`), pixels are written once, as bytes.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return, operator, assignment"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from genie_play.ops.reference import patch_side
from genie_play.ops.triton_sampler import INTERPRETED, block

BLOCK_R, BLOCK_V = 64, 64
BYTES = 1024  # of a picture that one program writes


def nearest(points: Tensor, codes: Tensor) -> Tensor:
    """See `reference.nearest`."""
    points, codes = points.contiguous(), codes.contiguous()
    rows, width = points.shape
    tokens = torch.empty(rows, dtype=torch.int64, device=points.device)
    if rows:
        _nearest_kernel[(triton.cdiv(rows, BLOCK_R),)](
            points, codes, tokens, rows, CODES=len(codes), WIDTH=width, UPCAST=INTERPRETED,
            BLOCK_R=BLOCK_R, BLOCK_V=BLOCK_V, BLOCK_D=block(width, 32), enable_fp_fusion=True,
        )  # fmt: skip
    return tokens


def to_picture(pixels: Tensor) -> Tensor:
    """See `reference.to_picture`."""
    pixels = pixels.contiguous()
    picture = torch.empty(pixels.shape, dtype=torch.uint8, device=pixels.device)
    if pixels.numel():
        _bytes_kernel[(triton.cdiv(pixels.numel(), BYTES),)](
            pixels, picture, pixels.numel(), BLOCK=BYTES, enable_fp_fusion=False
        )
    return picture


def picture(patches: Tensor, size: tuple[int, int], broken: Tensor | None = None) -> Tensor:
    """See `reference.picture`."""
    side, (height, width) = patch_side(patches, size), size
    pixels = torch.empty((len(patches), height, width, 3), dtype=torch.uint8, device=patches.device)
    if pixels.numel():
        _picture_kernel[(triton.cdiv(height * width * 3, BYTES), len(patches))](
            patches, pixels, pixels if broken is None else broken, *patches.stride(),
            HEIGHT=height, WIDTH=width, SIDE=side, WATCH=broken is not None, BLOCK=BYTES, enable_fp_fusion=False,
        )  # fmt: skip
    return pixels


@triton.jit(do_not_specialize=["rows"])
def _nearest_kernel(
    points_ptr, codes_ptr, tokens_ptr, rows,
    CODES: tl.constexpr, WIDTH: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """tokens[r] = argmax_v points[r] . codes[v] for BLOCK_R rows.

    Products in float32 proper, not in TF32: codes of a good codebook are close to one another.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    live = row < rows
    best = tl.full((BLOCK_R,), -float("inf"), tl.float32)
    token = tl.zeros((BLOCK_R,), tl.int32)
    for start in range(0, CODES, BLOCK_V):
        code = start + tl.arange(0, BLOCK_V)
        products = tl.zeros((BLOCK_R, BLOCK_V), tl.float32)
        for d in range(0, WIDTH, BLOCK_D):
            column = d + tl.arange(0, BLOCK_D)
            p = tl.load(
                points_ptr + row[:, None] * WIDTH + column[None, :],
                mask=live[:, None] & (column < WIDTH)[None, :], other=0.0,
            )  # fmt: skip
            c = tl.load(
                codes_ptr + code[None, :] * WIDTH + column[:, None],
                mask=(code < CODES)[None, :] & (column < WIDTH)[:, None], other=0.0,
            )  # fmt: skip
            if UPCAST:
                p, c = p.to(tl.float32), c.to(tl.float32)
            products = tl.dot(p, c, products, input_precision="ieee")
        products = tl.where((code < CODES)[None, :], products, -float("inf"))
        here, top = tl.argmax(products, axis=1, tie_break_left=True), tl.max(products, axis=1)
        token = tl.where(top > best, start + here, token)
        best = tl.maximum(best, top)
    tl.store(tokens_ptr + row, token.to(tl.int64), mask=live)


@triton.jit
def _bytes(pixels):
    return (tl.minimum(tl.maximum(pixels, 0.0), 1.0) * 255.0 + 0.5).to(tl.uint8)


@triton.jit
def _bytes_kernel(pixels_ptr, picture_ptr, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    pixels = tl.load(pixels_ptr + at, mask=at < size, other=0.0).to(tl.float32)
    tl.store(picture_ptr + at, _bytes(pixels), mask=at < size)


@triton.jit
def _picture_kernel(
    patches_ptr, picture_ptr, broken_ptr, patch_b, patch_c, patch_y, patch_x,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SIDE: tl.constexpr, WATCH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK bytes of a picture, each fetched from its channel of its patch."""
    batch = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = at < HEIGHT * WIDTH * 3
    colour, x, y = at % 3, at // 3 % WIDTH, at // (3 * WIDTH)
    channel = colour * SIDE * SIDE + y % SIDE * SIDE + x % SIDE
    place = batch * patch_b + channel * patch_c + y // SIDE * patch_y + x // SIDE * patch_x
    pixels = tl.load(patches_ptr + place, mask=live, other=0.0).to(tl.float32) * 0.5 + 0.5
    if WATCH:
        # false for inf and nan; who stores does not matter, all store the same
        wrong = live & ~(tl.abs(pixels) < float("inf"))
        if tl.max(wrong.to(tl.int32), axis=0) > 0:
            tl.store(broken_ptr, 1)
    tl.store(picture_ptr + batch * (HEIGHT * WIDTH * 3) + at, _bytes(pixels), mask=live)
