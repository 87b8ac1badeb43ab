"""The operator torch.ops.tilewright.attention_forward: what torch.compile, autograd and PyTorch's modes see."""

from __future__ import annotations

from typing import Any

import torch

from . import _tensors
from .errors import Unsupported
from .layouts import lse_shape
from .patterns import BlockList, Dense, Pattern, SlidingTile

# A dispatch mode (fake tensors, a tracer, a FLOP counter) wants to see the operator. Not a public name of PyTorch's.
_modes_in_force = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)


def autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors in autocast's type where autocast is on, as PyTorch's own attention has them."""
    kind = tensors[0].device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        return tuple(t.to(dtype) if t.dtype == torch.float32 else t for t in tensors)
    return tensors


def _wants_gradient(*tensors: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def refuse_gradient(*tensors: torch.Tensor) -> None:
    """Raises Unsupported where a gradient would be recorded."""
    if _wants_gradient(*tensors):
        raise _no_gradient()


def _no_gradient() -> Unsupported:
    return Unsupported(
        "unsupported",
        "a gradient of attention is asked for",
        "the forward pass only: this version has no backward kernels",
        "call it under torch.no_grad(), or detach q, k and v",
    )


def needs_operator(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether this call must go through the registered operator; else a direct call costs less."""
    if torch.compiler.is_compiling() or _wants_gradient(q, k, v) or _modes_in_force():
        return True
    return not all(type(t) in (torch.Tensor, torch.nn.Parameter) for t in (q, k, v))


def call(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pattern: Pattern, layout: str, scale: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The registered operator with this pattern: (out, lse)."""
    refuse_gradient(q, k, v)
    operator: Any = torch.ops.tilewright.attention_forward
    if isinstance(pattern, SlidingTile):
        windows = [size for window in pattern.windows for size in window]
        result = operator(
            q, k, v, layout, scale, "sliding_tile", pattern.canvas, pattern.tile, windows, pattern.text_length
        )
    elif isinstance(pattern, BlockList):
        result = operator(
            q,
            k,
            v,
            layout,
            scale,
            "block_list",
            pattern.canvas,
            pattern.tile,
            [],
            None,
            pattern.counts,
            pattern.indices,
            pattern.key_canvas,
            pattern.key_tile,
            pattern.query_sizes,
            pattern.key_sizes,
        )
    else:
        result = operator(q, k, v, layout, scale, "dense", [], [], [], None)
    return result[0], result[1]


def _three(values: Any) -> Any:
    return tuple(values)


# Written out: PyTorch 2.4 does not infer a schema from these annotations.
_SCHEMA = (
    "(Tensor q, Tensor k, Tensor v, str layout, float? scale, str pattern, SymInt[] canvas, SymInt[] tile, "
    "SymInt[] windows, SymInt? text_length, Tensor? counts=None, Tensor? indices=None, SymInt[]? key_canvas=None, "
    "SymInt[]? key_tile=None, Tensor? query_sizes=None, Tensor? key_sizes=None) -> (Tensor, Tensor)"
)


@torch.library.custom_op("tilewright::attention_forward", mutates_args=(), schema=_SCHEMA)  # type: ignore[untyped-decorator]
def _attention_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: str,
    scale: float | None,
    pattern: str,
    canvas: list[int],
    tile: list[int],
    windows: list[int],
    text_length: int | None,
    counts: torch.Tensor | None = None,
    indices: torch.Tensor | None = None,
    key_canvas: list[int] | None = None,
    key_tile: list[int] | None = None,
    query_sizes: torch.Tensor | None = None,
    key_sizes: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    from .attention import run_forward

    chosen: Pattern = Dense()
    if pattern == "sliding_tile":
        each = [windows[i : i + 3] for i in range(0, len(windows), 3)]
        chosen = SlidingTile(canvas, each, tile, text_length)
    elif pattern == "block_list":
        chosen = BlockList(
            canvas=_three(canvas),
            tile=_three(tile),
            counts=counts,
            indices=indices,
            key_canvas=None if key_canvas is None else _three(key_canvas),
            key_tile=None if key_tile is None else _three(key_tile),
            query_sizes=query_sizes,
            key_sizes=key_sizes,
        )
    out = torch.empty_like(q)
    lse = _tensors.empty_float32(lse_shape(tuple(q.shape), layout), q)
    run_forward(q, k, v, chosen, layout=layout, scale=scale, out=out, lse=lse)
    return out, lse


@_attention_forward.register_fake  # type: ignore[untyped-decorator]
def _attention_forward_fake(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: str,
    *rest: object,
    **named: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(q), q.new_empty(lse_shape(tuple(q.shape), layout), dtype=torch.float32)


def _refuse_backward(context: Any, *gradients: torch.Tensor) -> Any:
    raise _no_gradient()


_attention_forward.register_autograd(_refuse_backward)
