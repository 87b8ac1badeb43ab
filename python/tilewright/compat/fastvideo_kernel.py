"""The part of the fastvideo_kernel package that tilewright has."""

from .st_attn import sliding_tile_attention
from .vsa import (
    VSA_TILE_SIZE,
    block_sparse_attn,
    block_sparse_attn_from_indices,
    build_vsa_metadata,
    construct_variable_block_sizes,
    get_non_pad_index,
    get_reverse_tile_partition_indices,
    get_tile_partition_indices,
    video_sparse_attn,
    video_sparse_attn_bshd,
)

__all__ = [
    "VSA_TILE_SIZE",
    "block_sparse_attn",
    "block_sparse_attn_from_indices",
    "build_vsa_metadata",
    "construct_variable_block_sizes",
    "get_non_pad_index",
    "get_reverse_tile_partition_indices",
    "get_tile_partition_indices",
    "sliding_tile_attention",
    "video_sparse_attn",
    "video_sparse_attn_bshd",
]
