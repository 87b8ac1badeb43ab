"""Who attends to whom. Patterns are small frozen values; canvases and tiles are counted in tokens, windows in tiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Union

from . import _native
from ._tensors import Tensor, operand, optional_operand
from .errors import invalid

Extent = tuple[int, int, int]


def extent(value: object, name: str) -> Extent:
    """Three integers (t, h, w), from a sequence or from "6x8x8". Raises InvalidArgument."""
    parts: object = value.split("x") if isinstance(value, str) else value
    if isinstance(parts, Iterable):
        try:
            numbers = tuple(int(part) for part in parts)
        except (TypeError, ValueError):
            numbers = ()
        if len(numbers) == 3:
            return numbers
    raise invalid(f"{name} is {value!r}", 'three integers (t, h, w), or a text like "6x8x8"', f"give {name} all three")


@dataclass(frozen=True)
class Dense:
    """Every query attends to every key. The lengths are the tensors'; they may differ."""

    @cached_property
    def _native(self) -> _native.Pattern:
        return _native.dense()


@dataclass(frozen=True)
class SlidingTile:
    """Sliding tile attention: a query tile attends to the window of tiles around it, and to the text.

    canvas       (t, h, w) of the video, in tokens
    windows      (t, h, w) in tiles: one for all heads, or a sequence of one a head. An even extent acts as the next odd
    tile         (t, h, w) in tokens
    text_length  valid text tokens behind the video's; None: the tensors hold no text
    """

    canvas: Extent
    windows: tuple[Extent, ...]
    tile: Extent = (6, 8, 8)
    text_length: int | None = None

    def __init__(
        self,
        canvas: object,
        windows: object,
        tile: object = (6, 8, 8),
        text_length: int | None = None,
    ) -> None:
        object.__setattr__(self, "canvas", extent(canvas, "canvas"))
        object.__setattr__(self, "tile", extent(tile, "tile"))
        whole = isinstance(windows, str) or (
            isinstance(windows, Iterable) and all(isinstance(part, int) for part in windows)
        )
        each = (windows,) if whole else windows
        if not isinstance(each, Iterable):
            raise invalid(f"windows is {windows!r}", "one (t, h, w), or a sequence of one a head", "give a window")
        object.__setattr__(self, "windows", tuple(extent(window, "a window") for window in each))
        object.__setattr__(self, "text_length", text_length)

    @cached_property
    def _native(self) -> _native.Pattern:
        return _native.sliding_tile(self.canvas, self.tile, self.windows, self.text_length)


@dataclass(frozen=True, eq=False)
class BlockList:
    """Each query tile attends to its own ascending list of key tiles.

    canvas      (t, h, w) in tokens. A plain sequence of blocks is a canvas of (1, 1, length) with tiles (1, 1, block)
    counts      int32 [batch or 1, heads or 1, query tiles]: entries of each list in use; 0 is allowed
    indices     int32 [batch or 1, heads or 1, query tiles, capacity]: ascending key tile numbers
    tile        (t, h, w) in tokens
    key_canvas, key_tile    the keys'; None: as the queries'
    query_sizes, key_sizes  int32 [tiles] or [batch, tiles]: valid tokens of each tile, in the tiled layouts only; None:
                they follow from the canvas
    neighbours_share  query tiles that are neighbours share most of their lists. Only for speed: picks the kernel that
                reads what they share once
    validate    copy the lists to the host and check them first: synchronises, for debugging

    The tensors are not copied: keep them as they are until the calls that use them have run.
    """

    canvas: Extent
    counts: Tensor
    indices: Tensor
    tile: Extent = (4, 4, 4)
    key_canvas: Extent | None = None
    key_tile: Extent | None = None
    query_sizes: Tensor | None = None
    key_sizes: Tensor | None = None
    neighbours_share: bool = False
    validate: bool = field(default=False)

    def tensors(self) -> dict[str, Tensor | None]:
        """The lists and sizes, by name."""
        return {
            "counts": self.counts,
            "indices": self.indices,
            "query_sizes": self.query_sizes,
            "key_sizes": self.key_sizes,
        }

    @property
    def _native(self) -> _native.Pattern:
        return _native.block_list(
            extent(self.canvas, "canvas"),
            extent(self.tile, "tile"),
            operand(self.counts),
            operand(self.indices),
            None if self.key_canvas is None else extent(self.key_canvas, "key_canvas"),
            None if self.key_tile is None else extent(self.key_tile, "key_tile"),
            optional_operand(self.query_sizes),
            optional_operand(self.key_sizes),
            self.neighbours_share,
            self.validate,
        )


@dataclass(frozen=True, eq=False)
class VideoSparse:
    """Video sparse attention: a query tile attends to its topk key tiles, chosen by the tiles' means.

    canvas      (t, h, w) of the video, in tokens
    topk        key tiles that each query tile attends to: 1 to their number. See topk_of_tiles and topk_of_tokens
    tile        (t, h, w) in tokens: 64, 128 or 256 in all
    key_canvas  the keys'; None: as the queries'
    query_sizes, key_sizes  int32 [tiles] or [batch, tiles]: valid tokens of each tile, in the tiled layouts only; None:
                they follow from the canvas
    """

    canvas: Extent
    topk: int
    tile: Extent = (4, 4, 4)
    key_canvas: Extent | None = None
    query_sizes: Tensor | None = None
    key_sizes: Tensor | None = None

    @property
    def _native(self) -> _native.VideoSparse:
        return _native.video_sparse(
            extent(self.canvas, "canvas"),
            extent(self.tile, "tile"),
            None if self.key_canvas is None else extent(self.key_canvas, "key_canvas"),
            int(self.topk),
            optional_operand(self.query_sizes),
            optional_operand(self.key_sizes),
        )


Pattern = Union[Dense, SlidingTile, BlockList]  # noqa: UP007 (a value at run time, for isinstance)


def check_pattern(pattern: object) -> None:
    """Raises InvalidArgument unless attention takes this pattern."""
    if not isinstance(pattern, (Dense, SlidingTile, BlockList)):
        raise invalid(
            f"pattern is {pattern!r}",
            "Dense(), SlidingTile(...) or BlockList(...); video_sparse_attention takes a VideoSparse(...)",
            "make one of them",
        )


def lists_of(pattern: Pattern) -> dict[str, Tensor | None]:
    """The pattern's tensors by name."""
    return pattern.tensors() if isinstance(pattern, BlockList) else {}
