"""Calls of the native module: they enqueue work on the current stream. Nothing here knows of gradients."""

from __future__ import annotations

from typing import Any

from . import _native, _tensors
from ._tensors import Tensor, operand, optional_operand
from .layouts import layout_code, lse_shape
from .runtime import Runtime, place

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
        _tensors.require_on_cpu(k=k, v=v, out=out, lse=lse, dout=dout, **lists)
    gradients = _tensors.empty_like(q), _tensors.empty_like(k), _tensors.empty_like(v)
    tensors = q, k, v, out, lse, dout, *gradients
    arguments: Any = tensors if stream is not None else tuple(map(operand, tensors))
    run: Any = _native.attention_backward  # mypy counts no starred arguments
    run(engine, *arguments, pattern, code, scale, stream or 0, _tensors.Allocate(q))
    return gradients
