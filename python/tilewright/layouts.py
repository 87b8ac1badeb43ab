"""Layouts: the order of a tensor's dimensions and of its tokens.

| layout        | dimensions                      | tokens                                               |
| ------------- | ------------------------------- | ---------------------------------------------------- |
| raster        | [batch, tokens, heads, head_dim] | video in (t, h, w) order, then text                 |
| raster_bhsd   | [batch, heads, tokens, head_dim] | the same                                            |
| tiled         | [batch, heads, tokens, head_dim] | grouped by tile, each padded to its size, then text |
| tiled_bshd    | [batch, tokens, heads, head_dim] | the same                                            |
"""

from __future__ import annotations

from typing import Literal

from . import _native
from .errors import invalid

Layout = Literal["raster", "raster_bhsd", "tiled", "tiled_bshd"]

# Whether tokens are grouped by tile, and whether heads come before tokens.
_FACTS = {
    "raster": (False, False),
    "raster_bhsd": (False, True),
    "tiled": (True, True),
    "tiled_bshd": (True, False),
}


def is_tiled(layout: str) -> bool:
    """Whether tokens are grouped by tile. Raises InvalidArgument for a layout that does not exist."""
    if layout not in _FACTS:
        raise invalid(f"layout is {layout!r}", f"one of {', '.join(_FACTS)}", "see tilewright.layouts")
    return _FACTS[layout][0]


def heads_first(layout: str) -> bool:
    """Whether the dimensions are [batch, heads, tokens, head_dim]. Raises InvalidArgument."""
    is_tiled(layout)
    return _FACTS[layout][1]


def as_native(tensor: _native.View, layout: str) -> _native.View:
    """The view with its dimensions in the order that the library has for these tokens: no data moves."""
    tiled, first = _FACTS[layout]
    address, dtype, shape, strides = tensor
    if tiled == first or len(shape) != 4:
        return tensor
    return (
        address,
        dtype,
        (shape[0], shape[2], shape[1], shape[3]),
        (strides[0], strides[2], strides[1], strides[3]),
    )


def lse_shape(shape: tuple[int, ...], layout: str) -> tuple[int, int, int]:
    """[batch, heads, tokens] for queries of this shape."""
    batch, one, two, _ = shape
    return (batch, one, two) if heads_first(layout) else (batch, two, one)
