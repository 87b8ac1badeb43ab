"""Drop-in for st_attn.sliding_tile_attention.

Differences: any canvas, tile and window; batches; any text length in 0..rows; no padding copies; one launch for all
heads. A call that the older kernels computed on a canvas other than the one given, or not at all, is right or an error.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._tensors import Tensor
from ..attention import attention
from ..patterns import SlidingTile, extent


def sliding_tile_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: Sequence[Sequence[int]],
    text_length: int,
    has_text: bool = True,
    seq_shape: str = "30x48x80",
    *,
    tile_size: Sequence[int] = (6, 8, 8),
) -> Tensor:
    """q, k, v: [batch, heads, tokens, head_dim], tokens in tile order, text rows behind the video's.

    window_size: (t, h, w) in tiles for each head. text_length: valid text tokens. seq_shape: the canvas, "TxHxW".
    tile_size is our addition. Returns a tensor like q; rows of text padding are 0.
    """
    windows = [extent(window, "a window") for window in window_size]
    pattern = SlidingTile(
        canvas=seq_shape,
        windows=windows[:1] if len(set(windows)) == 1 else windows,
        tile=tile_size,
        text_length=int(text_length) if has_text else None,
    )
    return attention(q, k, v, pattern, layout="tiled")
