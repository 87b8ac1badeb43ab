"""Calls of the native module: they enqueue work on the current stream. Nothing here knows of gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import _native, _tensors
from ._tensors import Tensor, operand, optional_operand
from .errors import Error
from .layouts import layout_code, lse_shape
from .patterns import VideoSparse
from .runtime import Runtime, place

# Of workspaces. Memory is allocated larger by as much, so that an aligned address is in it.
ALIGNMENT = 256

# The tensors of a pattern by name, for the check that all of a call on the CPU are there.
Lists = dict[str, "Tensor | None"]
_NONE: Lists = {}


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: _native.Pattern,
    layout: str,
    scale: float | None,
    *,
    with_lse: bool,
    runtime: Runtime | None = None,
    lists: Lists = _NONE,
) -> tuple[Tensor, Tensor | None]:
    """(out, lse), newly allocated."""
    code = layout_code(layout)
    engine, stream = place(q, runtime)
    out = _tensors.empty_like(q)
    lse = _tensors.empty(lse_shape(tuple(q.shape), layout), "float32", q) if with_lse else None
    if stream is not None:
        _native.attention_forward(engine, q, k, v, out, lse, pattern, code, scale, stream)
    else:
        _tensors.require_on_cpu(k=k, v=v, **lists)
        _native.attention_forward(
            engine, operand(q), operand(k), operand(v), operand(out), optional_operand(lse), pattern, code, scale, 0
        )
    return out, lse


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    pattern: _native.Pattern,
    layout: str,
    scale: float | None,
    *,
    runtime: Runtime | None = None,
    lists: Lists = _NONE,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv), newly allocated."""
    code = layout_code(layout)
    engine, stream = place(q, runtime)
    if stream is None:
        _tensors.require_on_cpu(k=k, v=v, out=out, lse=lse, dout=dout, dlse=dlse, **lists)
    gradients = _tensors.empty_like(q), _tensors.empty_like(k), _tensors.empty_like(v)
    tensors = q, k, v, out, lse, dout, dlse, *gradients
    arguments: Any = tensors if stream is not None else tuple(map(optional_operand, tensors))
    run: Any = _native.attention_backward  # mypy counts no starred arguments
    run(engine, *arguments, pattern, code, scale, stream or 0, _tensors.Allocate(q))
    return gradients


def kept_bytes(q: Tensor, k: Tensor, layout: str, tiles: tuple[Any, Any], topk: Any) -> Any:
    """Bytes of what video sparse attention keeps for its backward pass: docs/video_sparse.md, "The workspace".

    Also of symbolic extents, so that fake tensors have the right shape. tiles: of queries and keys.
    """
    head_axis = 1 if layout_code(layout) & 2 else 2
    batch, heads, kv_heads, head_dim = q.shape[0], q.shape[head_axis], k.shape[head_axis], q.shape[3]
    queries, keys = tiles
    means, floats, integers = 2, 4, 4
    parts = (
        means * batch * heads * queries * head_dim,
        means * batch * kv_heads * keys * head_dim,
        means * batch * kv_heads * keys * head_dim,
        floats * batch * heads * queries * head_dim,
        floats * batch * heads * queries,
        integers * batch * heads * queries,
        integers * batch * heads * queries * topk,
    )
    return sum((part + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT for part in parts)


def tile_count(canvas: Any, tile: Any) -> Any:
    """Tiles of a canvas, those at its edges too."""
    t, h, w = ((extent + size - 1) // size for extent, size in zip(canvas, tile, strict=True))
    return t * h * w


class VideoSparseForward(NamedTuple):
    """What a call returns; the last three are empty unless it is for training."""

    out: Tensor
    lse: Tensor
    fine: Tensor
    kept: Tensor


def video_sparse_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    pattern: VideoSparse,
    layout: str,
    scale: float | None,
    *,
    train: bool,
    with_lse: bool = False,
    runtime: Runtime | None = None,
) -> VideoSparseForward:
    """Newly allocated results."""
    code = layout_code(layout)
    engine, stream = place(q, runtime)
    if stream is None:
        _tensors.require_on_cpu(k=k, v=v, gate=gate, query_sizes=pattern.query_sizes, key_sizes=pattern.key_sizes)
    out = _tensors.empty_like(q)
    fine = _tensors.empty_like(q) if train else None
    lse = _tensors.empty(lse_shape(tuple(q.shape), layout), "float32", q) if train or with_lse else None
    allocate = _tensors.Allocate(q)
    optional = map(optional_operand, (out, gate, lse, fine))
    run: Any = _native.video_sparse_attention  # mypy counts no starred arguments
    tensors = operand(q), operand(k), operand(v), *optional
    kept_of_runtime = run(engine, *tensors, pattern._native, code, scale, stream or 0, allocate)
    if not train:  # tensors of their own: an operator's results may not be one
        of_lse = _tensors.empty((0,), "uint8", q) if lse is None else lse
        return VideoSparseForward(out, of_lse, *(_tensors.empty((0,), "uint8", q) for _ in range(2)))
    tiles = tile_count(pattern.canvas, pattern.tile), tile_count(pattern.key_canvas or pattern.canvas, pattern.tile)
    size = kept_bytes(q, k, layout, tiles, pattern.topk)
    memory = allocate.memory
    if memory is None:  # the reference keeps nothing; what it returns has the same bits every time
        return VideoSparseForward(out, lse, fine, _tensors.zeros((size + ALIGNMENT,), "uint8", q))
    if size != kept_of_runtime:
        raise Error("internal", f"the workspace keeps {kept_of_runtime} bytes", f"{size} bytes", "report this")
    kept = memory[: size + ALIGNMENT]
    if stream is not None and memory.shape[0] > kept.shape[0]:
        kept = kept.clone()  # lets the scores' strips go, which no one needs any more
    return VideoSparseForward(out, lse, fine, kept)


def video_sparse_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    lse: Tensor,
    fine: Tensor,
    kept: Tensor,
    dout: Tensor,
    pattern: VideoSparse,
    layout: str,
    scale: float | None,
    *,
    runtime: Runtime | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(dq, dk, dv, dgate), newly allocated."""
    engine, stream = place(q, runtime)
    if stream is None:
        _tensors.require_on_cpu(k=k, v=v, gate=gate, lse=lse, fine=fine, kept=kept, dout=dout)
    gradients = tuple(None if tensor is None else _tensors.empty_like(tensor) for tensor in (q, k, v, gate))
    run: Any = _native.video_sparse_attention_backward  # mypy counts no starred arguments
    run(
        engine,
        *(q, k, v, gate, lse, fine),
        (kept.data_ptr(), kept),
        kept.shape[0] - ALIGNMENT,
        *(dout, *gradients),
        pattern._native,
        layout_code(layout),
        scale,
        stream or 0,
        _tensors.Allocate(q),
    )
    dq, dk, dv, dgate = gradients
    return dq, dk, dv, dgate
