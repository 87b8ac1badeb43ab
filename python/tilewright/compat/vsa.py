"""Drop-ins for the block-sparse functions of the vsa / fastvideo_kernel packages, and their metadata helpers.

Differences: query tiles without keys give 0 and an lse of -inf (undefined before); lists and maps need no particular
capacity; all of it also runs on the CPU. There is no backward pass yet: asking for a gradient raises Unsupported.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from .._tensors import Tensor
from ..attention import attention
from ..errors import invalid
from ..patterns import BlockList

VSA_TILE_SIZE = (4, 4, 4)


def _lists_from_map(block_map: Tensor) -> tuple[Tensor, Tensor]:
    """bool [batch, heads, queries, keys] -> ascending int32 indices of the same shape, int32 counts."""
    keys = block_map.shape[-1]
    numbers = torch.arange(keys, dtype=torch.int32, device=block_map.device)
    # Blocks that are not attended to sort behind all others; what stands there is never read.
    indices = torch.where(block_map, numbers, keys).sort(dim=-1).values
    return indices.clamp_(max=keys - 1), block_map.sum(dim=-1, dtype=torch.int32)


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
    indices, counts = _lists_from_map(whole.to(torch.bool))
    return block_sparse_attn_from_indices(q, k, v, indices, counts, variable_block_sizes)


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
