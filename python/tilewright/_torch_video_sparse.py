"""Video sparse attention under PyTorch: gradients, and its registered operators. As _torch_attention has it."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import torch
from torch import Tensor

from . import _execute, _tensors
from ._torch_modes import (
    autocast,
    define,
    define_gradient,
    define_no_gradient,
    is_compiling,
    is_grad_enabled,
    readable,
    refuse_runtime,
    sees_operators,
    unless_seen,
    without_gradient,
)
from .errors import Unsupported
from .patterns import VideoSparse, extent
from .runtime import Runtime


def _public() -> Any:
    return importlib.import_module("tilewright.video_sparse")


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    pattern: VideoSparse,
    layout: str,
    scale: float | None,
    return_lse: bool,
    runtime: Runtime | None,
) -> tuple[Tensor, Tensor]:
    """(out, lse) of tilewright.video_sparse_attention; lse may be empty where it is not asked for."""
    if not isinstance(pattern, VideoSparse):
        _public().check_pattern(pattern)
    if not is_compiling():
        _tensors.require_torch(q=q, k=k, v=v)
    tensors = autocast(q, k, v) if gate is None else autocast(q, k, v, gate)
    q, k, v = tensors[:3]
    gate = None if gate is None else tensors[3]
    train = is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if is_compiling() or sees_operators(tensors):
        if runtime is not None:
            raise refuse_runtime()
        result = _forward_operator(q, k, v, gate, layout, scale, *_operands(pattern), train or return_lse, train)
        return result[0], result[1].detach()
    if train:
        out, lse = _VideoSparse.apply(q, k, v, gate, pattern, layout, scale, runtime)
        return out, lse
    found = _execute.video_sparse_forward(
        q, k, v, gate, pattern, layout, scale, train=False, with_lse=return_lse, runtime=runtime
    )
    return found.out, found.lse


class _VideoSparse(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        context: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        gate: Tensor | None,
        pattern: VideoSparse,
        layout: str,
        scale: float | None,
        runtime: Runtime | None,
    ) -> tuple[Tensor, Tensor]:
        result = _execute.video_sparse_forward(q, k, v, gate, pattern, layout, scale, train=True, runtime=runtime)
        sizes = pattern.query_sizes, pattern.key_sizes
        context.save_for_backward(q, k, v, gate, result.lse, result.fine, result.kept, *sizes)
        context.call = pattern, layout, scale, runtime
        context.mark_non_differentiable(result.lse)
        return result.out, result.lse

    @staticmethod
    def backward(context: Any, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        pattern, layout, scale, runtime = context.call
        *saved, query_sizes, key_sizes = context.saved_tensors
        pattern = dataclasses.replace(pattern, query_sizes=query_sizes, key_sizes=key_sizes)

        def run(*tensors: Any) -> Any:
            *others, gradient = tensors
            execute: Any = _execute.video_sparse_backward  # mypy counts no starred arguments
            return execute(*others, readable(gradient), pattern, layout, scale, runtime=runtime)

        gradients = without_gradient("video_sparse_attention_backward", run, inputs=8)(*saved, dout)
        return *gradients, None, None, None, None


# The registered operators. canvases: canvas, tile, key_canvas.
_PATTERN = "str layout, float? scale, SymInt[] canvases, SymInt topk, Tensor? query_sizes, Tensor? key_sizes"
_QKV = "Tensor q, Tensor k, Tensor v, Tensor? gate, "


def _operands(pattern: VideoSparse) -> tuple[Any, ...]:
    canvas, tile = extent(pattern.canvas, "canvas"), extent(pattern.tile, "tile")
    keys = canvas if pattern.key_canvas is None else extent(pattern.key_canvas, "key_canvas")
    return [*canvas, *tile, *keys], pattern.topk, pattern.query_sizes, pattern.key_sizes


def _pattern(canvases: Any, topk: int, query_sizes: Tensor | None, key_sizes: Tensor | None) -> VideoSparse:
    """The inverse of _operands."""
    canvas, tile, keys = (extent(canvases[i : i + 3], "an extent") for i in range(0, 9, 3))
    return VideoSparse(canvas, topk, tile, keys, query_sizes, key_sizes)


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    layout: str,
    scale: float | None,
    canvases: list[int],
    topk: int,
    query_sizes: Tensor | None,
    key_sizes: Tensor | None,
    with_lse: bool,
    train: bool,
) -> tuple[Tensor, ...]:
    pattern = _pattern(canvases, topk, query_sizes, key_sizes)
    return tuple(_execute.video_sparse_forward(q, k, v, gate, pattern, layout, scale, train=train, with_lse=with_lse))


def _forward_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    layout: str,
    scale: float | None,
    canvases: Any,
    topk: int,
    query_sizes: Tensor | None,
    key_sizes: Tensor | None,
    with_lse: bool,
    train: bool,
) -> tuple[Tensor, ...]:
    one, two = (1, 2) if layout in ("tiled", "raster_bhsd") else (2, 1)
    lse = q.new_empty((0,), dtype=torch.uint8)
    if train or with_lse:
        lse = q.new_empty((q.shape[0], q.shape[one], q.shape[two]), dtype=torch.float32)
    if not train:
        return torch.empty_like(q), lse, *(q.new_empty((0,), dtype=torch.uint8) for _ in range(2))
    canvas, tile, keys = canvases[:3], canvases[3:6], canvases[6:]
    tiles = _execute.tile_count(canvas, tile), _execute.tile_count(keys, tile)
    size = _execute.kept_bytes(q, k, layout, tiles, topk) + _execute.ALIGNMENT
    return torch.empty_like(q), lse, torch.empty_like(q), q.new_empty((size,), dtype=torch.uint8)


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    lse: Tensor,
    fine: Tensor,
    kept: Tensor,
    dout: Tensor,
    layout: str,
    scale: float | None,
    *described: Any,
) -> tuple[Tensor, ...]:
    pattern = _pattern(*described)
    dq, dk, dv, dgate = _execute.video_sparse_backward(
        q, k, v, gate, lse, fine, kept, readable(dout), pattern, layout, scale
    )
    return dq, dk, dv, q.new_empty((0,)) if dgate is None else dgate


def _backward_fake(q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, *others: Any) -> tuple[Tensor, ...]:
    dgate = q.new_empty((0,)) if gate is None else torch.empty_like(gate)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), dgate


_forward_operator = define(
    "video_sparse_attention",
    f"({_QKV}{_PATTERN}, bool with_lse, bool train) -> (Tensor, Tensor, Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_backward_operator = define(
    "video_sparse_attention_backward",
    f"({_QKV}Tensor lse, Tensor fine, Tensor kept, Tensor dout, {_PATTERN}) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


# Below autograd, where the dispatcher is left out unless something sees it.
_forward_below = unless_seen(_forward_operator, _forward, inputs=4)
_backward_once = define_no_gradient(
    "video_sparse_attention_backward", unless_seen(_backward_operator, _backward, inputs=8), inputs=8
)


class _OfOperator(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        context: Any, q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, layout: str, scale: Any, *rest: Any
    ) -> tuple[Tensor, ...]:
        *described, _, train = rest
        out, lse, fine, kept = _forward_below(q, k, v, gate, layout, scale, *rest)
        if train:
            context.save_for_backward(q, k, v, gate, lse, fine, kept, *described[2:])
        context.call = layout, scale, *described[:2]
        context.train, context.arguments = train, 6 + len(rest)
        context.mark_non_differentiable(lse, fine, kept)
        return out, lse, fine, kept

    @staticmethod
    def backward(context: Any, dout: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        if not context.train:
            raise Unsupported(
                "unsupported", "a gradient of a call with train=False", "train=True", "call it for training"
            )
        *saved, query_sizes, key_sizes = context.saved_tensors
        backward = _backward_operator if sees_operators((*saved, dout)) else _backward_once
        dq, dk, dv, dgate = backward(*saved, dout, *context.call, query_sizes, key_sizes)
        no_more = (None for _ in range(context.arguments - 4))
        return dq, dk, dv, dgate if saved[3] is not None else None, *no_more


define_gradient("video_sparse_attention", _forward_below, _OfOperator, inputs=4)


# The parts. They have no gradient; the whole operator has.
def _refuse_gradient(*tensors: Tensor | None) -> None:
    if is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        raise Unsupported(
            "unsupported",
            "a gradient of a part of video sparse attention is asked for",
            "video_sparse_attention as a whole has gradients",
            "call it, or call this under torch.no_grad()",
        )


def _pool(tokens: Tensor, canvases: list[int], layout: str, sizes: Tensor | None) -> Any:
    canvas, tile = (extent(canvases[i : i + 3], "an extent") for i in (0, 3))
    return _public()._pool_tiles(tokens, canvas, tile, layout, sizes)


def _pool_fake(tokens: Tensor, canvases: Any, layout: str, sizes: Tensor | None) -> Tensor:
    heads = tokens.shape[1 if layout in ("tiled", "raster_bhsd") else 2]
    tiles = _execute.tile_count(canvases[:3], canvases[3:])
    return tokens.new_empty((tokens.shape[0], heads, tiles, tokens.shape[3]))


def _select(*arguments: Any) -> Any:
    return _public()._select_tiles(*arguments)


def _select_fake(
    query_means: Tensor,
    key_means: Tensor,
    value_means: Tensor | None,
    topk: int,
    scale: float | None,
    key_sizes: Tensor | None,
) -> tuple[Tensor, ...]:
    rows = query_means.shape[:3]
    return (
        query_means.new_empty(rows, dtype=torch.int32),
        query_means.new_empty((*rows, topk), dtype=torch.int32),
        query_means.new_empty((0,) if value_means is None else query_means.shape, dtype=torch.float32),
        query_means.new_empty(rows, dtype=torch.float32),
    )


def _list_mask(mask: Tensor) -> Any:
    return _public()._list_mask(mask)


def _list_mask_fake(mask: Tensor) -> tuple[Tensor, Tensor]:
    return mask.new_empty(mask.shape[:3], dtype=torch.int32), mask.new_empty(mask.shape, dtype=torch.int32)


_pool_operator = define(
    "pool_tiles", "(Tensor tokens, SymInt[] canvases, str layout, Tensor? sizes) -> Tensor", _pool, _pool_fake
)
_select_operator = define(
    "select_tiles",
    "(Tensor query_means, Tensor key_means, Tensor? value_means, SymInt topk, float? scale, Tensor? key_sizes) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _select,
    _select_fake,
)
list_mask = define("list_mask", "(Tensor mask) -> (Tensor, Tensor)", _list_mask, _list_mask_fake)
define_no_gradient("pool_tiles", unless_seen(_pool_operator, _pool, inputs=1), inputs=1)
define_no_gradient("select_tiles", unless_seen(_select_operator, _select, inputs=3), inputs=3)


def pool_tiles(tokens: Tensor, canvas: Any, tile: Any, layout: str, sizes: Tensor | None) -> Tensor:
    """The registered operator."""
    _refuse_gradient(tokens)
    means: Tensor = _pool_operator(tokens, [*canvas, *tile], layout, sizes)
    return means


def select_tiles(query_means: Tensor, key_means: Tensor, value_means: Tensor | None, *rest: Any) -> Any:
    """The registered operator."""
    _refuse_gradient(query_means, key_means, value_means)
    return _select_operator(query_means, key_means, value_means, *rest)
