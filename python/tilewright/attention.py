"""The operators as functions of tensors."""

from __future__ import annotations

import importlib
from typing import Any, Literal, overload

from . import _native, _tensors
from ._tensors import Tensor, view
from .errors import invalid
from .layouts import Layout, as_native, is_tiled, lse_shape
from .patterns import BlockList, Dense, Pattern, SlidingTile
from .runtime import Runtime, default_runtime

_operators: Any = None
if _tensors.torch is not None:
    _operators = importlib.import_module("tilewright._torch_operators")


def _check(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, layout: str) -> None:
    if not isinstance(pattern, (Dense, SlidingTile, BlockList)):
        raise invalid(f"pattern is {pattern!r}", "Dense(), SlidingTile(...) or BlockList(...)", "make one of them")
    is_tiled(layout)
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        _tensors.require_tensor(tensor, name)
        if len(tensor.shape) != 4:
            raise invalid(f"{name} has {len(tensor.shape)} dimensions", "4 dimensions", f"see layout {layout!r}")


def run_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    *,
    layout: str,
    scale: float | None,
    out: Tensor,
    lse: Tensor | None,
    runtime: Runtime | None = None,
) -> None:
    """Enqueues the forward operator on the current stream, which writes out and lse. Knows nothing of gradients."""
    device = _tensors.device_of(q)
    lists = pattern.tensors() if isinstance(pattern, BlockList) else {}
    if lists or not _tensors.share_device(q, k, v):
        _tensors.require_same_device(device, {"k": k, "v": v} | lists)
    chosen = runtime or default_runtime(device)
    if (chosen.kind == "cuda") != (device[0] == "cuda"):
        raise invalid(f"q is on {device[0]} and the runtime is {chosen!r}", "a runtime of q's device", "move q, k, v")
    _native.attention_forward(
        chosen._engine,
        as_native(view(q), layout),
        as_native(view(k), layout),
        as_native(view(v), layout),
        as_native(view(out), layout),
        None if lse is None else view(lse),
        pattern._native,
        is_tiled(layout),
        scale,
        _tensors.current_stream(device),
    )


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
    names the fix. There is no backward pass yet: Unsupported is raised where a gradient would be asked for.
    """
    _check(q, k, v, pattern, layout)
    if _operators is not None and _tensors.is_torch(q):
        q, k, v = _operators.autocast(q, k, v)
        if runtime is None and _operators.needs_operator(q, k, v):
            registered = _operators.call(q, k, v, pattern, layout, scale)
            return registered if return_lse else registered[0]
        if runtime is not None:
            _operators.refuse_gradient(q, k, v)
    out = _tensors.empty_like(q)
    lse = _tensors.empty_float32(lse_shape(tuple(q.shape), layout), q) if return_lse else None
    run_forward(q, k, v, pattern, layout=layout, scale=scale, out=out, lse=lse, runtime=runtime)
    return out if lse is None else (out, lse)


def problem_of(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, *, layout: Layout = "raster") -> str:
    """The one line that names this call's kernel, as Runtime.prepare and the tilewright command take it."""
    _check(q, k, v, pattern, layout)
    views = [as_native(view(tensor), layout) for tensor in (q, k, v)]
    return _native.problem_of(views[0], views[1], views[2], views[0], pattern._native, is_tiled(layout))


def prepare(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, *, layout: Layout = "raster") -> None:
    """Compiles and loads what a call with such tensors needs; launches nothing. For example before a graph capture."""
    default_runtime(_tensors.device_of(q)).prepare(problem_of(q, k, v, pattern, layout=layout))
