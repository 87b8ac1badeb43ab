"""Video sparse attention, and its parts for those who bring their own selection."""

from __future__ import annotations

import importlib
from typing import Any, Literal, NamedTuple, overload

from . import _execute, _native, _tensors
from ._tensors import Tensor, operand, optional_operand
from .errors import invalid
from .layouts import Layout, layout_code
from .patterns import Extent, VideoSparse, extent
from .runtime import Runtime, default_runtime, place

_operators: Any = None
if _tensors.torch is not None:
    _operators = importlib.import_module("tilewright._torch_video_sparse")


def topk_of_tiles(sparsity: float, key_tiles: int) -> int:
    """From the share of tiles that is left out to topk: max(1, min(ceil((1 - sparsity) * key_tiles), key_tiles))."""
    return _native.topk_of_tiles(sparsity, key_tiles)


def topk_of_tokens(sparsity: float, key_tokens: int) -> int:
    """The other convention in use: ceil((1 - sparsity) * key_tokens / 64)."""
    return _native.topk_of_tokens(sparsity, key_tokens)


# torch.compile calls them while it traces. What torch.compiler.assume_constant_result does, without importing the
# compiler with the package.
_of_numbers: tuple[Any, ...] = topk_of_tiles, topk_of_tokens
for _function in _of_numbers:
    _function._dynamo_marked_constant = True


def check_pattern(pattern: object) -> None:
    """Raises InvalidArgument unless this is a VideoSparse."""
    if not isinstance(pattern, VideoSparse):
        raise invalid(f"pattern is {pattern!r}", "VideoSparse(...); attention takes the others", "make one")


@overload
def video_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: VideoSparse,
    *,
    gate: Tensor | None = ...,
    layout: Layout = ...,
    scale: float | None = ...,
    return_lse: Literal[True],
    runtime: Runtime | None = ...,
) -> tuple[Tensor, Tensor]: ...
@overload
def video_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: VideoSparse,
    *,
    gate: Tensor | None = ...,
    layout: Layout = ...,
    scale: float | None = ...,
    return_lse: Literal[False] = ...,
    runtime: Runtime | None = ...,
) -> Tensor: ...
def video_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: VideoSparse,
    *,
    gate: Tensor | None = None,
    layout: Layout = "raster",
    scale: float | None = None,
    return_lse: bool = False,
    runtime: Runtime | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(scale q k^T over the chosen tiles) v + gate * (coarse attention over the tiles' means).

    q, k, v, layout, scale, runtime  as attention has them
    gate        elementwise, of q's type and shape; 1 where it is None
    return_lse  also return the fine branch's lse, float32 [batch, heads, tokens]; it has no gradient

    Returns out, of q's shape and order in memory; padding rows are 0. Differentiable (once) in q, k, v and gate through
    both branches; the selection has no gradient.
    """
    if _operators is not None and not _tensors.is_numpy(q):
        out, lse = _operators.attention(q, k, v, gate, pattern, layout, scale, return_lse, runtime)
        return (out, lse) if return_lse else out
    check_pattern(pattern)
    _tensors.require_tensors(q=q, k=k, v=v)
    result = _execute.video_sparse_forward(
        q, k, v, gate, pattern, layout, scale, train=False, with_lse=return_lse, runtime=runtime
    )
    return (result.out, result.lse) if return_lse else result.out


def pool_tiles(
    tokens: Tensor,
    canvas: Extent,
    tile: Extent = (4, 4, 4),
    *,
    layout: Layout = "raster",
    sizes: Tensor | None = None,
    runtime: Runtime | None = None,
) -> Tensor:
    """The mean of each tile's valid tokens, in the tokens' type: [batch, heads, tiles, head_dim]; 0 for an empty tile.

    sizes: int32 [tiles] or [batch, tiles], valid tokens of each tile, in the tiled layouts only. Has no gradient.
    """
    size, grid = extent(tile, "tile"), extent(canvas, "canvas")
    if runtime is None and _tensors.is_torch(tokens):
        return _operators.pool_tiles(tokens, grid, size, layout, sizes)
    return _pool_tiles(tokens, grid, size, layout, sizes, runtime)


def _pool_tiles(
    tokens: Tensor, canvas: Extent, tile: Extent, layout: str, sizes: Tensor | None, runtime: Runtime | None = None
) -> Tensor:
    code = layout_code(layout)
    if len(tokens.shape) != 4:
        raise invalid(f"tokens has {len(tokens.shape)} dimensions", "4 dimensions", f"see layout {layout!r}")
    engine, stream = place(tokens, runtime)
    if stream is None:
        _tensors.require_on_cpu(sizes=sizes)
    shape = tokens.shape[0], tokens.shape[1 if code & 2 else 2], _execute.tile_count(canvas, tile), tokens.shape[3]
    means = _tensors.empty_of_type(shape, tokens)
    sized = optional_operand(sizes)
    _native.pool_tiles(engine, operand(tokens), operand(means), canvas, tile, sized, code, stream or 0)
    return means


class Selection(NamedTuple):
    """What each query tile attends to, as BlockList takes it, and the coarse attention.

    counts         int32 [batch, heads, query tiles]: topk in every place
    indices        int32 [batch, heads, query tiles, topk], ascending
    coarse_output  float32 [batch, heads, query tiles, head_dim]; empty without value_means
    coarse_lse     float32 [batch, heads, query tiles]
    """

    counts: Tensor
    indices: Tensor
    coarse_output: Tensor
    coarse_lse: Tensor


def select_tiles(
    query_means: Tensor,
    key_means: Tensor,
    topk: int,
    *,
    value_means: Tensor | None = None,
    scale: float | None = None,
    key_sizes: Tensor | None = None,
    runtime: Runtime | None = None,
) -> Selection:
    """The topk key tiles of largest score for each query tile, exactly topk; equal scores go to the lower tile.

    query_means, key_means, value_means  bf16 or fp16 [batch, heads, tiles, head_dim], contiguous: pool_tiles' results
    key_sizes  int32 [key tiles] or [batch, key tiles]: where one is 0 the tile is empty and chosen last
    Has no gradient.
    """
    if runtime is None and _tensors.is_torch(query_means):
        return Selection(*_operators.select_tiles(query_means, key_means, value_means, topk, scale, key_sizes))
    return Selection(*_select_tiles(query_means, key_means, value_means, topk, scale, key_sizes, runtime))


def _select_tiles(
    query_means: Tensor,
    key_means: Tensor,
    value_means: Tensor | None,
    topk: int,
    scale: float | None,
    key_sizes: Tensor | None,
    runtime: Runtime | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if len(query_means.shape) != 4 or len(key_means.shape) != 4:
        raise invalid(
            f"the means have {len(query_means.shape)} and {len(key_means.shape)} dimensions",
            "[batch, heads, tiles, head_dim]",
            "pass what pool_tiles returns",
        )
    if not 1 <= topk <= key_means.shape[2]:
        raise invalid(f"topk is {topk}", f"1 to {key_means.shape[2]}, the number of key tiles", "correct topk")
    engine, stream = place(query_means, runtime)
    if stream is None:
        _tensors.require_on_cpu(key_means=key_means, value_means=value_means, key_sizes=key_sizes)
    rows = tuple(query_means.shape[:3])
    counts = _tensors.empty(rows, "int32", query_means)
    indices = _tensors.empty((*rows, topk), "int32", query_means)
    coarse_lse = _tensors.empty(rows, "float32", query_means)
    coarse_shape = (0,) if value_means is None else tuple(query_means.shape)
    coarse_output = _tensors.empty(coarse_shape, "float32", query_means)
    _native.select_tiles(
        engine,
        operand(query_means),
        operand(key_means),
        optional_operand(value_means),
        operand(counts),
        operand(indices),
        None if value_means is None else operand(coarse_output),
        operand(coarse_lse),
        optional_operand(key_sizes),
        scale,
        stream or 0,
        _tensors.Allocate(query_means),
    )
    return counts, indices, coarse_output, coarse_lse


def lists_from_mask(mask: Tensor, *, runtime: Runtime | None = None) -> tuple[Tensor, Tensor]:
    """(counts, indices) of a BlockList from a bool mask [batch or 1, heads or 1, query tiles, key tiles].

    The mask is contiguous in its last dimension. Nothing synchronises: indices have room for every key tile.
    """
    if runtime is None and _tensors.is_torch(mask):
        lists: tuple[Tensor, Tensor] = _operators.list_mask(mask)
        return lists
    return _list_mask(mask, runtime)


def _list_mask(mask: Tensor, runtime: Runtime | None = None) -> tuple[Tensor, Tensor]:
    if len(mask.shape) != 4:
        raise invalid(f"mask has {len(mask.shape)} dimensions", "[batch or 1, heads or 1, queries, keys]", "reshape it")
    engine, stream = place(mask, runtime)
    counts = _tensors.empty(tuple(mask.shape[:3]), "int32", mask)
    # Entries behind a list's count are never read; zeros, so that equal masks give equal tensors.
    indices = _tensors.zeros(tuple(mask.shape), "int32", mask)
    _native.list_mask(engine, operand(mask), operand(counts), operand(indices), stream or 0)
    return counts, indices


def prepare_video_sparse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: VideoSparse,
    *,
    gate: Tensor | None = None,
    layout: Layout = "raster",
    backward: bool = False,
) -> None:
    """Compiles and loads what a call with such tensors needs; launches nothing. For example before a graph capture.

    backward: what its gradients need as well.
    """
    line = video_sparse_problem_of(q, k, v, pattern, gate=gate, layout=layout)
    default_runtime(_tensors.device_of(q)).prepare(line, backward=backward)


def video_sparse_problem_of(
    q: Tensor, k: Tensor, v: Tensor, pattern: VideoSparse, *, gate: Tensor | None = None, layout: Layout = "raster"
) -> str:
    """The one line that names this call, as Runtime.prepare and the tilewright command take it."""
    check_pattern(pattern)
    _tensors.require_tensors(q=q, k=k, v=v)
    code, of_gate = layout_code(layout), optional_operand(gate)
    return _native.video_sparse_problem_of(
        operand(q), operand(k), operand(v), operand(q), of_gate, pattern._native, code
    )
