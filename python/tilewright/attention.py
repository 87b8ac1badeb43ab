"""Attention as a function of tensors."""

from __future__ import annotations

import importlib
from typing import Any, Literal, overload

from . import _execute, _native, _tensors
from ._tensors import Tensor, operand
from .layouts import Layout, layout_code
from .patterns import Pattern, check_pattern, lists_of
from .runtime import Runtime, default_runtime

_operators: Any = None
if _tensors.torch is not None:
    _operators = importlib.import_module("tilewright._torch_attention")


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    *,
    layout: Layout = ...,
    scale: float | None = ...,
    return_lse: Literal[True],
    runtime: Runtime | None = ...,
) -> tuple[Tensor, Tensor]: ...
@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    *,
    layout: Layout = ...,
    scale: float | None = ...,
    return_lse: Literal[False] = ...,
    runtime: Runtime | None = ...,
) -> Tensor: ...
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    *,
    layout: Layout = "raster",
    scale: float | None = None,
    return_lse: bool = False,
    runtime: Runtime | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(scale q k^T + mask) v, with the mask that the pattern describes.

    q, k, v     bf16 or fp16 in the layout's order of dimensions (tilewright.layouts); head_dim (64 or 128) has stride
                1, all other strides are multiples of 16 bytes. k and v may have fewer heads, which divide q's.
    layout      "raster" [batch, tokens, heads, head_dim], "tiled" [batch, heads, tokens, head_dim]; "raster_bhsd" and
                "tiled_bshd" the other way round
    scale       1/sqrt(head_dim) where it is None
    return_lse  also return the logarithm of each row's sum of exp(scaled scores), float32 [batch, heads, tokens]
    runtime     where to run; None: q's GPU, or for tensors on the CPU what tilewright.configure(cpu=...) says

    Returns out, of q's shape and order in memory; rows without keys are 0 with an lse of -inf. Work is enqueued on
    PyTorch's current stream. Nothing is copied to suit the kernels: what they cannot read is an InvalidArgument that
    names the fix. Differentiable (once) in q, k and v, through out and through lse, where PyTorch records gradients.
    """
    if _operators is not None and not _tensors.is_numpy(q):
        registered: tuple[Tensor, Tensor] = _operators.attention(q, k, v, pattern, layout, scale, return_lse, runtime)
        return registered if return_lse else registered[0]
    check_pattern(pattern)
    _tensors.require_tensors(q=q, k=k, v=v)
    out, lse = _execute.forward(
        q,
        k,
        v,
        pattern._native,
        layout,
        scale,
        with_lse=return_lse,
        runtime=runtime,
        lists=lists_of(pattern),
    )
    return out if lse is None else (out, lse)


def attention_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    pattern: Pattern,
    *,
    dlse: Tensor | None = None,
    layout: Layout = "raster",
    scale: float | None = None,
    runtime: Runtime | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) of a loss from its gradients with respect to out and lse: without PyTorch's autograd.

    dlse: float32 [batch, heads, tokens]; None: the loss does not depend on lse. The other arguments are those of
    attention and what it returned. Gradients have the shapes of q, k and v and are the same bits in every run; rows
    that are padding or that no query sees are 0.
    """
    check_pattern(pattern)
    _tensors.require_tensors(q=q, k=k, v=v, out=out, lse=lse, dout=dout)
    if dlse is not None:
        _tensors.require_tensors(dlse=dlse)
    lists = lists_of(pattern)
    return _execute.backward(
        q, k, v, out, lse, dout, dlse, pattern._native, layout, scale, runtime=runtime, lists=lists
    )


def problem_of(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, *, layout: Layout = "raster") -> str:
    """The one line that names this call's kernel, as Runtime.prepare and the tilewright command take it."""
    check_pattern(pattern)
    _tensors.require_tensors(q=q, k=k, v=v)
    code = layout_code(layout)
    return _native.problem_of(operand(q), operand(k), operand(v), operand(q), pattern._native, code)


def prepare(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, *, layout: Layout = "raster", backward: bool = False
) -> None:
    """Compiles and loads what a call with such tensors needs; launches nothing. For example before a graph capture.

    backward: what its gradients need as well.
    """
    line = problem_of(q, k, v, pattern, layout=layout)
    default_runtime(_tensors.device_of(q)).prepare(line, backward=backward)
