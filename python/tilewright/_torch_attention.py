"""Attention under PyTorch: gradients, and the operators torch.ops.tilewright.attention_{forward,backward}.

An eager call goes straight to the kernels, through an autograd.Function where gradients are recorded: that costs less
than the dispatcher. What traces or compiles sees the registered operators. Both run the same functions.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor

from . import _execute, _native, _tensors
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
from .patterns import BlockList, Dense, Pattern, SlidingTile, check_pattern, extent, lists_of
from .runtime import Runtime


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    layout: str,
    scale: float | None,
    return_lse: bool,
    runtime: Runtime | None,
) -> tuple[Tensor, Tensor | None]:
    """(out, lse) of tilewright.attention; lse may be None where it is not asked for."""
    if is_compiling() or sees_operators((q, k, v)):
        return _registered(q, k, v, pattern, layout, scale, runtime)
    q, k, v = autocast(q, k, v)
    if is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        check_pattern(pattern)
        result: tuple[Tensor, Tensor] = _Attention.apply(q, k, v, pattern, layout, scale, runtime)
        return result
    check_pattern(pattern)
    lists = lists_of(pattern)
    return _execute.forward(q, k, v, pattern._native, layout, scale, with_lse=return_lse, runtime=runtime, lists=lists)


def _gradients_of(out: Tensor, dout: Tensor | None, dlse: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """dout and dlse as the backward pass takes them: autograd gives None for what the loss does not depend on."""
    dout = torch.zeros_like(out) if dout is None else dout
    return dout, None if dlse is None else dlse.contiguous()


_BACKWARD_INPUTS = 7  # q, k, v, out, lse, dout, dlse


class _Attention(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        context: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pattern: Pattern,
        layout: str,
        scale: float | None,
        runtime: Runtime | None,
    ) -> tuple[Tensor, Tensor]:
        lists = lists_of(pattern)
        out, lse = _execute.forward(
            q, k, v, pattern._native, layout, scale, with_lse=True, runtime=runtime, lists=lists
        )
        context.save_for_backward(q, k, v, out, lse, *lists.values())
        context.call = pattern, layout, scale, runtime
        context.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(context: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
        pattern, layout, scale, runtime = context.call
        saved = context.saved_tensors
        lists = {}
        if isinstance(pattern, BlockList):
            lists = dict(zip(("counts", "indices", "query_sizes", "key_sizes"), saved[5:], strict=True))
            pattern = dataclasses.replace(pattern, **lists)
        native = pattern._native

        def run(*tensors: Any) -> Any:
            *others, dout, dlse = tensors
            execute: Any = _execute.backward  # mypy counts no starred arguments
            return execute(*others, readable(dout), dlse, native, layout, scale, runtime=runtime, lists=lists)

        once = without_gradient("attention_backward", run, inputs=_BACKWARD_INPUTS)
        return *once(*saved[:5], *_gradients_of(saved[3], dout, dlse)), None, None, None, None


def _heads_first(layout: str) -> bool:
    return layout in ("tiled", "raster_bhsd")


# The registered operators. Few arguments: each costs a conversion there and one back, for every key of the dispatcher.
#
# pattern  "dense", "sliding_tile", "sliding_tile_text", "block_list" or "block_list_shared" (neighbours_share)
# extents  sliding_tile: canvas, tile, windows, then the text's length where it has one;
#          block_list: canvas, tile, key_canvas, key_tile
_PATTERN = (
    "str layout, float? scale, str pattern, SymInt[] extents, "
    "Tensor? counts=None, Tensor? indices=None, Tensor? query_sizes=None, Tensor? key_sizes=None"
)


def operands(pattern: Pattern) -> tuple[Any, ...]:
    """A pattern as the operators take it: pattern, extents and what follows."""
    if isinstance(pattern, SlidingTile):
        extents = [*pattern.canvas, *pattern.tile]
        for window in pattern.windows:
            extents += window
        if pattern.text_length is None:
            return "sliding_tile", extents
        return "sliding_tile_text", [*extents, pattern.text_length]
    if isinstance(pattern, BlockList):
        canvas, tile = extent(pattern.canvas, "canvas"), extent(pattern.tile, "tile")
        key_canvas = canvas if pattern.key_canvas is None else extent(pattern.key_canvas, "key_canvas")
        key_tile = tile if pattern.key_tile is None else extent(pattern.key_tile, "key_tile")
        extents = [*canvas, *tile, *key_canvas, *key_tile]
        kind = "block_list_shared" if pattern.neighbours_share else "block_list"
        return kind, extents, pattern.counts, pattern.indices, pattern.query_sizes, pattern.key_sizes
    return "dense", []


@functools.lru_cache(maxsize=256)
def _without_lists(kind: str, extents: tuple[int, ...]) -> _native.Pattern:
    if kind == "dense":
        return Dense()._native
    end = len(extents) // 3 * 3
    windows = [extents[i : i + 3] for i in range(6, end, 3)]
    text_length = extents[end] if kind == "sliding_tile_text" else None
    return SlidingTile(extents[:3], windows, extents[3:6], text_length)._native


def _native_pattern(
    kind: str,
    extents: list[int],
    counts: Tensor | None = None,
    indices: Tensor | None = None,
    query_sizes: Tensor | None = None,
    key_sizes: Tensor | None = None,
) -> tuple[_native.Pattern, _execute.Lists]:
    """The inverse of operands, and the tensors by name."""
    if counts is None:
        return _without_lists(kind, tuple(extents)), {}
    canvas, tile, key_canvas, key_tile = (extent(extents[i : i + 3], "an extent") for i in range(0, 12, 3))
    pattern: Any = BlockList(
        canvas=canvas,
        counts=counts,
        indices=indices,
        tile=tile,
        key_canvas=key_canvas,
        key_tile=key_tile,
        query_sizes=query_sizes,
        key_sizes=key_sizes,
        neighbours_share=kind == "block_list_shared",
    )
    return pattern._native, pattern.tensors()


def _forward(q: Tensor, k: Tensor, v: Tensor, layout: str, scale: float | None, *described: Any) -> Any:
    pattern, lists = _native_pattern(*described)
    return _execute.forward(q, k, v, pattern, layout, scale, with_lse=True, lists=lists)


def _forward_fake(q: Tensor, k: Tensor, v: Tensor, layout: str, *described: Any) -> tuple[Tensor, Tensor]:
    one, two = (1, 2) if _heads_first(layout) else (2, 1)
    return torch.empty_like(q), q.new_empty((q.shape[0], q.shape[one], q.shape[two]), dtype=torch.float32)


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    layout: str,
    scale: float | None,
    *described: Any,
) -> Any:
    pattern, lists = _native_pattern(*described)
    return _execute.backward(q, k, v, out, lse, readable(dout), dlse, pattern, layout, scale, lists=lists)


def _backward_fake(q: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


_forward_operator = define(
    "attention_forward", f"(Tensor q, Tensor k, Tensor v, {_PATTERN}) -> (Tensor, Tensor)", _forward, _forward_fake
)
_backward_operator = define(
    "attention_backward",
    "(Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor dout, Tensor? dlse, "
    f"{_PATTERN}) -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


# Below autograd, where the dispatcher is left out unless something sees it.
_forward_below = unless_seen(_forward_operator, _forward, inputs=3)
_backward_below = unless_seen(_backward_operator, _backward, inputs=_BACKWARD_INPUTS)
_backward_once = define_no_gradient("attention_backward", _backward_below, inputs=_BACKWARD_INPUTS)


class _OfOperator(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(context: Any, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        out, lse = _forward_below(q, k, v, *rest)
        lists = [value for value in rest if isinstance(value, Tensor)]
        context.save_for_backward(q, k, v, out, lse, *lists)
        context.rest = rest if not lists else tuple(_SAVED if isinstance(value, Tensor) else value for value in rest)
        context.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(context: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = context.saved_tensors
        lists = iter(saved[5:])
        rest = [next(lists) if value is _SAVED else value for value in context.rest]

        tensors = *saved[:5], *_gradients_of(saved[3], dout, dlse)
        backward = _backward_operator if sees_operators(tensors) else _backward_once
        return *backward(*tensors, *rest), *(None for _ in rest)


_SAVED = object()
define_gradient("attention_forward", _forward_below, _OfOperator, inputs=3)


def _registered(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    layout: str,
    scale: float | None,
    runtime: Runtime | None,
) -> tuple[Tensor, Tensor]:
    """The registered operator with this pattern."""
    check_pattern(pattern)
    if not is_compiling():
        _tensors.require_torch(q=q, k=k, v=v)
    if runtime is not None:
        raise refuse_runtime()
    q, k, v = autocast(q, k, v)
    result: tuple[Tensor, Tensor] = _forward_operator(q, k, v, layout, scale, *operands(pattern))
    return result
