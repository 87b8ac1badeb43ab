from collections.abc import Callable

# (address, dtype name, shape, strides in elements)
View = tuple[int, str, tuple[int, ...], tuple[int, ...]]
Extent = tuple[int, int, int]

class Pattern: ...

class Engine:
    def prepare(self, problem: str, /) -> None: ...

def dense() -> Pattern: ...
def sliding_tile(canvas: Extent, tile: Extent, windows: tuple[Extent, ...], text_length: int | None, /) -> Pattern: ...
def block_list(
    canvas: Extent,
    tile: Extent,
    counts: View,
    indices: View,
    key_canvas: Extent | None,
    key_tile: Extent | None,
    query_sizes: View | None,
    key_sizes: View | None,
    validate_lists: bool,
    /,
) -> Pattern: ...
def make_engine(
    kind: str,
    ordinal: int,
    architecture: str,
    folder: str,
    read_only_folder: str,
    jit: str,
    maximum_bytes: int,
    maximum_entries: int,
    seed: int,
    on_message: Callable[[str], object] | None,
    /,
) -> Engine: ...
def attention_forward(
    engine: Engine,
    q: View,
    k: View,
    v: View,
    out: View,
    lse: View | None,
    pattern: Pattern,
    tiled: bool,
    scale: float | None,
    stream: int,
    /,
) -> None: ...
def problem_of(q: View, k: View, v: View, out: View, pattern: Pattern, tiled: bool, /) -> str: ...
