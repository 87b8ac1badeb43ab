"""The cases that compare_gpu.py and its siblings measure: shapes, targets, FLOPs, and who attends to whom."""

import dataclasses
import math
import pathlib

HERE = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    pattern: str  # dense, sliding_tile, block_list
    heads: int
    canvas: tuple  # tokens along t, h, w; dense: 1, 1, length
    tile: tuple = (6, 8, 8)
    windows: tuple = ()  # one for all heads, or one a head
    text: int = -1  # -1: no text
    head_dim: int = 128
    lists: str = ""  # random, shared8, or a .safetensors file with real ones
    topk: int = 0
    sharing: bool = False  # whether the call says that neighbours share most of their lists
    query_scale: float = 1.0
    schedule: str = ""  # "": the default
    flex: bool = True
    targets: tuple = ()  # (against what, at least): "tflops", "G", "cudnn", "loads", or another case's name

    @property
    def video_tokens(self):
        return math.prod(self.canvas)

    @property
    def tokens(self):
        return self.video_tokens + max(self.text, 0)


SIX_WINDOWS = ((3, 3, 3), (3, 1, 10), (1, 5, 7), (3, 6, 1), (1, 6, 10), (3, 3, 5))
REAL_LISTS = HERE / "data/tree_16x48x64_lists_top10.safetensors"
SMALL, LARGE = (18, 48, 80), (30, 48, 80)
LISTS = dict(pattern="block_list", heads=12, canvas=(16, 48, 64), tile=(4, 4, 4), topk=76)
ROW_LISTS = {**LISTS, "canvas": (1, 1, 49152), "tile": (1, 1, 64)}  # neighbours in a row

CASES = [
    Case("sta 3x3x3", "sliding_tile", 24, SMALL, windows=((3, 3, 3),), targets=(("G", 1.05), ("cudnn", 1.12))),
    Case("sta 3x3x5", "sliding_tile", 24, SMALL, windows=((3, 3, 5),), flex=False,
         targets=(("G", 1.12), ("cudnn", 1.12))),
    Case("sta 3x6x10", "sliding_tile", 24, SMALL, windows=((3, 6, 10),), targets=(("G", 1.12), ("cudnn", 1.12))),
    Case("sta text 256", "sliding_tile", 24, LARGE, windows=((3, 3, 3),), text=256, targets=(("G", 1.0),)),
    Case("sta per head", "sliding_tile", 24, SMALL, windows=SIX_WINDOWS * 4, flex=False, targets=(("G", 1.0),)),
    Case("sta 24x48x80", "sliding_tile", 24, (24, 48, 80), windows=((3, 3, 3),), flex=False),
    Case("sta ragged 21x45x80", "sliding_tile", 24, (21, 45, 80), windows=((3, 3, 3),), flex=False,
         targets=(("time of sta 24x48x80", 1.05),)),
    Case("dense 16384", "dense", 12, (1, 1, 16384), flex=False, targets=(("cudnn", 1.12),)),
    Case("dense 49152", "dense", 12, (1, 1, 49152), flex=False, targets=(("cudnn", 1.12),)),
    Case("lists random", lists="random", targets=(("loads", 0.97),), **LISTS),
    Case("lists random, independent", lists="random", flex=False,
         schedule="family=sm90,block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,"
                  "consumer_registers=208,producer_registers=40,cluster=1,overlap=1,softmax=fixed", **LISTS),
    Case("lists shared by 8", lists="shared8", sharing=True, targets=(("tflops", 620),), **ROW_LISTS),
    Case("lists real", lists="real", sharing=True, targets=(("tflops", 560),), **{**LISTS, "topk": 77}),
    Case("lists 128x128 random", "block_list", 12, (16, 48, 64), tile=(2, 8, 8), topk=38, lists="random",
         targets=(("tflops", 640),)),
    Case("sta head_dim 64", "sliding_tile", 24, SMALL, windows=((3, 3, 3),), head_dim=64, targets=(("tflops", 450),)),
    Case("sta peaky", "sliding_tile", 24, SMALL, windows=((3, 3, 3),), query_scale=16, targets=(("tflops", 600),)),
    Case("sta peaky, lazy", "sliding_tile", 24, SMALL, windows=((3, 3, 3),), query_scale=16, flex=False,
         schedule="family=sm90,block_q=192,block_k=64,stages=4,blocks_per_processor=1,consumers=3,"
                  "consumer_registers=152,producer_registers=56,cluster=1,overlap=1,softmax=lazy"),
    Case("sta cluster 2", "sliding_tile", 24, SMALL, windows=((3, 3, 3),), flex=False,
         schedule="family=sm90,block_q=192,block_k=64,stages=5,blocks_per_processor=1,consumers=3,"
                  "consumer_registers=152,producer_registers=56,cluster=2,overlap=1,softmax=fixed"),
]
# For the plots: TFLOP/s against length (dense) and against sparsity (windows of one canvas).
CASES += [Case(f"dense {n}", "dense", 12, (1, 1, n), flex=False) for n in (4096, 8192, 32768)]
CASES += [Case(f"sta {'x'.join(map(str, w))}", "sliding_tile", 24, SMALL, windows=(w,), flex=False)
          for w in ((1, 3, 3), (3, 3, 7), (3, 5, 9))]


def window_tiles(case, window):
    """Key tiles that a query tile sees along each axis: as many everywhere, since windows slide inward at the edges."""
    counts = [math.ceil(c / s) for c, s in zip(case.canvas, case.tile)]
    return [min(w // 2 * 2 + 1, n) for w, n in zip(window, counts)]


def axis_pairs(extent, size, width):
    """Query-key pairs along one axis, edge tiles being smaller."""
    n = math.ceil(extent / size)
    sizes = [min(size, extent - i * size) for i in range(n)]
    start = [max(0, min(q - width // 2, n - width)) for q in range(n)]
    return sum(sizes[q] * sum(sizes[start[q]:start[q] + width]) for q in range(n))


def flops_of(case, block_count=None):
    """4 * head_dim * pairs, of all heads. block_count: listed blocks, of all heads."""
    if case.pattern == "dense":
        pairs = case.heads * case.tokens**2
    elif case.pattern == "block_list":
        pairs = block_count * math.prod(case.tile) ** 2
    else:
        pairs = 0
        text = max(case.text, 0)
        for head in range(case.heads):
            widths = window_tiles(case, case.windows[head % len(case.windows)])
            video = math.prod(axis_pairs(c, s, w) for c, s, w in zip(case.canvas, case.tile, widths))
            pairs += video + case.video_tokens * text + text * case.tokens
    return 4 * case.head_dim * pairs


def tile_starts(torch, case, window, axis, device):
    n = math.ceil(case.canvas[axis] / case.tile[axis])
    width = min(window[axis] // 2 * 2 + 1, n)
    q = torch.arange(n, device=device)
    return (q - width // 2).clamp(0, n - width), width


def tile_of(token, case):
    """Tile coordinates of a video token, raster order."""
    _, h, w = case.canvas
    return (token // (h * w) // case.tile[0], token // w % h // case.tile[1], token % w // case.tile[2])


def tile_order(torch, case, device):
    """Tokens grouped by tile: the raster number of each. Text stays behind."""
    token = torch.arange(case.video_tokens, device=device)
    t, h, w = tile_of(token, case)
    number = (t * math.ceil(case.canvas[1] / case.tile[1]) + h) * math.ceil(case.canvas[2] / case.tile[2]) + w
    return torch.cat([number.argsort(stable=True), torch.arange(case.video_tokens, case.tokens, device=device)])


def attends(torch, case, lists, device):
    """The mask as a function of (head, query token, key token) tensors: what FlexAttention is told and what the check
    uses. Written from the definition, on its own."""
    if case.pattern == "dense":
        return lambda head, q, k: q >= 0
    if case.pattern == "block_list":
        tiles = [c // s for c, s in zip(case.canvas, case.tile)]
        table = torch.zeros(case.heads, math.prod(tiles), math.prod(tiles), dtype=torch.bool, device=device)
        counts, indices = lists
        for head in range(case.heads):
            for query in range(table.shape[1]):
                table[head, query, indices[head, query, : counts[head, query]].long()] = True

        def number(token):
            t, h, w = tile_of(token, case)
            return (t * tiles[1] + h) * tiles[2] + w

        return lambda head, q, k: table[head, number(q), number(k)]
    starts = [torch.stack([tile_starts(torch, case, case.windows[head % len(case.windows)], axis, device)[0]
                           for head in range(case.heads)]) for axis in range(3)]
    widths = torch.tensor([[tile_starts(torch, case, case.windows[head % len(case.windows)], axis, device)[1]
                            for axis in range(3)] for head in range(case.heads)], device=device)

    def mask(head, q, k):
        q_text, k_text = q >= case.video_tokens, k >= case.video_tokens
        inside = k >= 0
        for axis, (qt, kt) in enumerate(zip(tile_of(q.clamp(max=case.video_tokens - 1), case),
                                            tile_of(k.clamp(max=case.video_tokens - 1), case))):
            start = starts[axis][head, qt]
            inside = inside & (kt >= start) & (kt < start + widths[head, axis])
        return q_text | k_text | inside

    return mask


def make_lists(torch, case, device):
    """counts int32 [heads, tiles] and ascending indices int32 [heads, tiles, topk]."""
    n = math.prod(c // s for c, s in zip(case.canvas, case.tile))
    generator = torch.Generator().manual_seed(3)
    if case.lists == "real":
        from safetensors.torch import load_file
        indices = load_file(REAL_LISTS)["key_blocks"][0].int().repeat(case.heads // 4, 1, 1)
    else:
        groups = n // 8 if case.lists == "shared8" else n
        noise = torch.rand(case.heads, groups, n, generator=generator)
        indices = noise.topk(case.topk).indices.sort(-1).values.int().repeat_interleave(n // groups, 1)
    counts = torch.full(indices.shape[:2], indices.shape[2], dtype=torch.int32)
    return counts.to(device), indices.contiguous().to(device)
