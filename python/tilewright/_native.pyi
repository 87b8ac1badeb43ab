from collections.abc import Callable
from typing import Any

Extent = tuple[int, int, int]
# A torch.Tensor, or (address, dtype name, shape, strides in elements).
Operand = Any
# Of a number of bytes: (address, owner). The owner is kept until the call has been enqueued.
Allocate = Callable[[int], tuple[int, Any]]

class Pattern: ...
class VideoSparse: ...

class Engine:
    def prepare(self, problem: str, backward: bool, /) -> None: ...
    def cache_statistics(self) -> dict[str, int]: ...

def dense() -> Pattern: ...
def sliding_tile(canvas: Extent, tile: Extent, windows: tuple[Extent, ...], text_length: int | None, /) -> Pattern: ...
def block_list(
    canvas: Extent,
    tile: Extent,
    counts: Operand,
    indices: Operand,
    key_canvas: Extent | None,
    key_tile: Extent | None,
    query_sizes: Operand | None,
    key_sizes: Operand | None,
    neighbours_share: bool,
    validate_lists: bool,
    /,
) -> Pattern: ...
def video_sparse(
    canvas: Extent,
    tile: Extent,
    key_canvas: Extent | None,
    topk: int,
    query_sizes: Operand | None,
    key_sizes: Operand | None,
    /,
) -> VideoSparse: ...
def topk_of_tiles(sparsity: float, key_tiles: int, /) -> int: ...
def topk_of_tokens(sparsity: float, key_tokens: int, /) -> int: ...

# kind: cuda, emulator, reference, or idle, which checks calls and runs nothing: for measuring what Python costs
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
    q: Operand,
    k: Operand,
    v: Operand,
    out: Operand,
    lse: Operand | None,
    pattern: Pattern,
    layout: int,
    scale: float | None,
    stream: int,
    /,
) -> None: ...
def attention_backward(
    engine: Engine,
    q: Operand,
    k: Operand,
    v: Operand,
    out: Operand,
    lse: Operand,
    dout: Operand,
    dlse: Operand | None,
    dq: Operand,
    dk: Operand,
    dv: Operand,
    pattern: Pattern,
    layout: int,
    scale: float | None,
    stream: int,
    allocate: Allocate,
    /,
) -> None: ...
def problem_of(q: Operand, k: Operand, v: Operand, out: Operand, pattern: Pattern, layout: int, /) -> str: ...
def video_sparse_attention(
    engine: Engine,
    q: Operand,
    k: Operand,
    v: Operand,
    out: Operand,
    gate: Operand | None,
    lse: Operand | None,
    fine: Operand | None,
    pattern: VideoSparse,
    layout: int,
    scale: float | None,
    stream: int,
    allocate: Allocate,
    /,
) -> int: ...
def video_sparse_attention_backward(
    engine: Engine,
    q: Operand,
    k: Operand,
    v: Operand,
    gate: Operand | None,
    lse: Operand,
    fine: Operand,
    kept: tuple[int, Any] | None,
    kept_bytes: int,
    dout: Operand,
    dq: Operand,
    dk: Operand,
    dv: Operand,
    dgate: Operand | None,
    pattern: VideoSparse,
    layout: int,
    scale: float | None,
    stream: int,
    allocate: Allocate,
    /,
) -> None: ...
def video_sparse_problem_of(
    q: Operand, k: Operand, v: Operand, out: Operand, gate: Operand | None, pattern: VideoSparse, layout: int, /
) -> str: ...
def pool_tiles(
    engine: Engine,
    tokens: Operand,
    means: Operand,
    canvas: Extent,
    tile: Extent,
    sizes: Operand | None,
    layout: int,
    stream: int,
    /,
) -> None: ...
def select_tiles(
    engine: Engine,
    query_means: Operand,
    key_means: Operand,
    value_means: Operand | None,
    counts: Operand,
    indices: Operand,
    coarse_output: Operand | None,
    coarse_lse: Operand | None,
    key_sizes: Operand | None,
    scale: float | None,
    stream: int,
    allocate: Allocate,
    /,
) -> None: ...
def list_mask(engine: Engine, mask: Operand, counts: Operand, indices: Operand, stream: int, /) -> None: ...
