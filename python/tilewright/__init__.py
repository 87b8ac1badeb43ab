"""Fast sparse attention for video models, generated at run time.

>>> import tilewright
>>> pattern = tilewright.SlidingTile(canvas=(30, 48, 80), windows=(3, 3, 3), tile=(6, 8, 8), text_length=256)
>>> out = tilewright.attention(q, k, v, pattern)  # [batch, tokens, heads, head_dim], as the model has them
"""

from .attention import attention, attention_backward, prepare, problem_of
from .errors import Error, InvalidArgument, Unsupported
from .patterns import BlockList, Dense, Pattern, SlidingTile, VideoSparse
from .runtime import CacheOptions, CacheStatistics, Runtime, configure
from .video_sparse import (
    Selection,
    lists_from_mask,
    pool_tiles,
    prepare_video_sparse,
    select_tiles,
    topk_of_tiles,
    topk_of_tokens,
    video_sparse_attention,
    video_sparse_problem_of,
)

__version__ = "0.1.0"
__all__ = [
    "BlockList",
    "CacheOptions",
    "CacheStatistics",
    "Dense",
    "Error",
    "InvalidArgument",
    "Pattern",
    "Runtime",
    "Selection",
    "SlidingTile",
    "Unsupported",
    "VideoSparse",
    "attention",
    "attention_backward",
    "configure",
    "lists_from_mask",
    "pool_tiles",
    "prepare",
    "prepare_video_sparse",
    "problem_of",
    "select_tiles",
    "topk_of_tiles",
    "topk_of_tokens",
    "video_sparse_attention",
    "video_sparse_problem_of",
]
