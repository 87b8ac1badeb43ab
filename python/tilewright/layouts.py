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

from .errors import invalid

Layout = Literal["raster", "raster_bhsd", "tiled", "tiled_bshd"]

# As the native module has them: bit 0 says that tokens are grouped by tile, bit 1 that heads come before tokens.
_CODES = {"raster": 0, "raster_bhsd": 2, "tiled": 3, "tiled_bshd": 1}


def layout_code(layout: str) -> int:
    """The layout's number. Raises InvalidArgument for a layout that does not exist."""
    code = _CODES.get(layout)
    if code is None:
        raise invalid(f"layout is {layout!r}", f"one of {', '.join(_CODES)}", "see tilewright.layouts")
    return code


def lse_shape(shape: tuple[int, ...], layout: str) -> tuple[int, int, int]:
    """[batch, heads, tokens] for queries of this shape. Raises InvalidArgument for one that has not 4 dimensions."""
    if len(shape) != 4:
        raise invalid(f"q has {len(shape)} dimensions", "4 dimensions", f"see layout {layout!r}")
    batch, one, two, _ = shape
    return (batch, one, two) if layout_code(layout) & 2 else (batch, two, one)
