"""The operations of `reference.py` as Triton kernels: same names, same signatures, same results.

The sampler's draw gives the same tokens, a picture the same bytes; layers agree to rounding. Runs on an NVIDIA GPU, or
anywhere under TRITON_INTERPRET=1, set before this module is imported.
"""

from __future__ import annotations

from genie_play.ops.triton_attention import spatial, temporal
from genie_play.ops.triton_layer import layer
from genie_play.ops.triton_linear import add_product, feed_in, project_heads, quantize_rows
from genie_play.ops.triton_sampler import embed, reveal
from genie_play.ops.triton_tokenizer import nearest, picture, to_picture

__all__ = [
    "add_product", "embed", "feed_in", "layer", "nearest", "picture", "project_heads", "quantize_rows", "reveal",
    "spatial", "temporal", "to_picture",
]  # fmt: skip
