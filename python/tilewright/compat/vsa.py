"""Drop-ins for the functions of the vsa / fastvideo_kernel packages, and their metadata helpers.

Differences, on purpose: query tiles without keys give 0 and an lse of -inf (undefined before); padding rows give 0; an
integer block size is a number of tokens (it was cubed before); a query tile chooses exactly topk key tiles, also where
scores are equal; any batch; gradients are the same bits in every run; lists and maps need no particular capacity; all
of it also runs on the CPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch

from .._tensors import Tensor
from ..attention import attention
from ..errors import invalid
from ..layouts import Layout
from ..patterns import BlockList, VideoSparse, extent
from ..video_sparse import lists_from_mask, video_sparse_attention

VSA_TILE_SIZE = (4, 4, 4)


def block_sparse_attn_from_indices(
    q: Tensor, k: Tensor, v: Tensor, q2k_idx: Tensor, q2k_num: Tensor, variable_block_sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """q, k, v: [batch, heads, tokens, head_dim] in blocks of equal size, valid tokens first.

    q2k_idx: [batch or 1, heads or 1, query blocks, capacity], ascending; q2k_num: entries in use; variable_block_sizes:
    valid keys of each key block. Returns (out, lse), lse float32 [batch, heads, tokens].
    """
    key_blocks = int(variable_block_sizes.numel())
    if key_blocks == 0 or k.shape[2] % key_blocks != 0:
        raise invalid(
            f"k has {k.shape[2]} tokens and variable_block_sizes {key_blocks} entries",
            "tokens that are a whole number of blocks",
            "pad k and v to whole blocks",
        )
    block = k.shape[2] // key_blocks
    pattern = BlockList(
        canvas=(1, 1, int(q.shape[2])),
        tile=(1, 1, block),
        counts=q2k_num.to(torch.int32).contiguous(),
        indices=q2k_idx.to(torch.int32).contiguous(),
        key_canvas=(1, 1, int(k.shape[2])),
        key_tile=(1, 1, block),
        key_sizes=variable_block_sizes.to(torch.int32).contiguous(),
    )
    return attention(q, k, v, pattern, layout="tiled", return_lse=True)


def block_sparse_attn(
    q: Tensor, k: Tensor, v: Tensor, block_map: Tensor, variable_block_sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """As block_sparse_attn_from_indices, from a bool map [batch, heads, query blocks, key blocks] or [heads, ...]."""
    whole = block_map.unsqueeze(0) if block_map.dim() == 3 else block_map
    counts, indices = lists_from_mask(whole.to(torch.bool).contiguous())
    return block_sparse_attn_from_indices(q, k, v, indices, counts, variable_block_sizes)


def _block_tile(block_size: int | Sequence[int]) -> tuple[int, int, int]:
    """A tile of as many tokens; in the tiled layout its shape changes nothing."""
    tiles = {64: (4, 4, 4), 128: (2, 8, 8), 256: (4, 8, 8)}
    tile = tiles.get(block_size) if isinstance(block_size, int) else extent(block_size, "block_size")
    if tile is None or math.prod(tile) not in tiles:
        raise invalid(
            f"block_size is {block_size}",
            "64, 128 or 256 tokens: an integer, or (t, h, w) whose product is one of them",
            "use 64 or (4, 4, 4)",
        )
    return tile


def _video_sparse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variable_block_sizes: Tensor,
    q_variable_block_sizes: Tensor | None,
    topk: int | None,
    block_size: int | Sequence[int],
    gate: Tensor | None,
    layout: Layout,
) -> Tensor:
    if topk is None or isinstance(q_variable_block_sizes, int):
        seen = "no topk" if topk is None else f"q_variable_block_sizes is {q_variable_block_sizes}"
        raise invalid(
            seen,
            "(..., variable_block_sizes, q_variable_block_sizes, topk, ...) as fastvideo_kernel has them; in the older "
            "vsa package topk came first",
            "give topk, block_size and compress_attn_weight by name",
        )
    t, h, w = _block_tile(block_size)
    if q_variable_block_sizes is None:
        q_variable_block_sizes = variable_block_sizes
    query_tiles, key_tiles = int(q_variable_block_sizes.numel()), int(variable_block_sizes.numel())
    pattern = VideoSparse(
        canvas=(query_tiles * t, h, w),  # one tile after the other
        topk=max(1, min(int(topk), key_tiles)),
        tile=(t, h, w),
        key_canvas=(key_tiles * t, h, w),
        query_sizes=q_variable_block_sizes.to(torch.int32).contiguous(),
        key_sizes=variable_block_sizes.to(torch.int32).contiguous(),
    )
    if gate is not None:
        gate = gate.to(q.dtype).expand(q.shape).contiguous()
    return video_sparse_attention(q, k, v, pattern, gate=gate, layout=layout)


def video_sparse_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variable_block_sizes: Tensor,
    q_variable_block_sizes: Tensor | None = None,
    topk: int | None = None,
    block_size: int | Sequence[int] = VSA_TILE_SIZE,
    compress_attn_weight: Tensor | None = None,
) -> Tensor:
    """Video sparse attention on [batch, heads, tokens, head_dim] in blocks of equal size, valid tokens first.

    variable_block_sizes: valid tokens of each key block; q_variable_block_sizes: of each query block, the same where it
    is None. topk: key blocks for each query block, clamped to their number; it must be given. compress_attn_weight: the
    gate, broadcastable to q; None: 1. Returns a tensor like q.
    """
    return _video_sparse(
        *(q, k, v, variable_block_sizes, q_variable_block_sizes, topk, block_size, compress_attn_weight), "tiled"
    )


def video_sparse_attn_bshd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variable_block_sizes: Tensor,
    q_variable_block_sizes: Tensor | None = None,
    topk: int | None = None,
    block_size: int | Sequence[int] = VSA_TILE_SIZE,
    compress_attn_weight: Tensor | None = None,
) -> Tensor:
    """As video_sparse_attn, on [batch, tokens, heads, head_dim]."""
    return _video_sparse(
        *(q, k, v, variable_block_sizes, q_variable_block_sizes, topk, block_size, compress_attn_weight), "tiled_bshd"
    )


def _tiles(canvas: tuple[int, int, int], tile: tuple[int, int, int]) -> tuple[int, int, int]:
    t, h, w = (math.ceil(c / s) for c, s in zip(canvas, tile, strict=True))
    return t, h, w


@functools.lru_cache(maxsize=16)
def get_tile_partition_indices(
    dit_seq_shape: tuple[int, int, int], tile_size: tuple[int, int, int], device: Any
) -> Tensor:
    """The raster number of each token, tokens in tile order (clipped tiles without padding)."""
    axes = [torch.arange(extent, device=device) for extent in dit_seq_shape]
    t, h, w = torch.meshgrid(*axes, indexing="ij")
    tiles = _tiles(dit_seq_shape, tile_size)
    tile = ((t // tile_size[0]) * tiles[1] + h // tile_size[1]) * tiles[2] + w // tile_size[2]
    # Stable: inside a tile, tokens keep their raster order.
    return torch.argsort(tile.flatten(), stable=True)


@functools.lru_cache(maxsize=16)
def get_reverse_tile_partition_indices(
    dit_seq_shape: tuple[int, int, int], tile_size: tuple[int, int, int], device: Any
) -> Tensor:
    """The place in tile order of each raster token."""
    return torch.argsort(get_tile_partition_indices(dit_seq_shape, tile_size, device))


@functools.lru_cache(maxsize=16)
def construct_variable_block_sizes(
    dit_seq_shape: tuple[int, int, int],
    num_tiles: tuple[int, int, int],
    device: Any,
    tile_size: tuple[int, int, int] = VSA_TILE_SIZE,
) -> Tensor:
    """int32 [tiles]: valid tokens of each tile, in (t, h, w) order."""
    sizes = [
        (extent - torch.arange(count, device=device, dtype=torch.int32) * size).clamp(max=size)
        for extent, count, size in zip(dit_seq_shape, num_tiles, tile_size, strict=True)
    ]
    return (sizes[0][:, None, None] * sizes[1][:, None] * sizes[2]).flatten()


def get_non_pad_index(variable_block_sizes: Tensor, max_block_size: int) -> Tensor:
    """Rows of the padded layout that hold tokens."""
    rows = torch.arange(max_block_size, device=variable_block_sizes.device)
    return (rows < variable_block_sizes[:, None]).flatten().nonzero().flatten()


def build_vsa_metadata(
    dit_seq_shape: tuple[int, int, int],
    tile_size: tuple[int, int, int] = VSA_TILE_SIZE,
    device: Any = "cuda",
) -> dict[str, Any]:
    """All of the above for one canvas, with num_tiles and max_block_size."""
    volume = math.prod(tile_size)
    if volume not in (64, 128, 256):
        raise invalid(f"tile_size is {tile_size} = {volume} tokens", "64, 128 or 256 tokens", "use (4, 4, 4)")
    where = torch.device(device)
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", torch.cuda.current_device())
    tiles = _tiles(dit_seq_shape, tile_size)
    sizes = construct_variable_block_sizes(dit_seq_shape, tiles, where, tile_size)
    return {
        "tile_partition_indices": get_tile_partition_indices(dit_seq_shape, tile_size, where),
        "reverse_tile_partition_indices": get_reverse_tile_partition_indices(dit_seq_shape, tile_size, where),
        "variable_block_sizes": sizes,
        "non_pad_index": get_non_pad_index(sizes, volume),
        "num_tiles": tiles,
        "max_block_size": volume,
    }
