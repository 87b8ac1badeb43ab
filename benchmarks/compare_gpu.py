#!/usr/bin/env python3
"""Measures, in one run on one GPU and in rounds that alternate between them: cuBLAS's 8192^3 bf16 product ("G"), cuDNN's
dense attention, FlexAttention with the same mask, and tilewright. Prints a table with ratios, writes JSON and SVG plots.

    cmake --build build --target tilewright_benchmark_shim
    python3 benchmarks/compare_gpu.py --shim build/benchmarks/hopper/libtilewright_benchmark_shim.so

FLOPs are 4 * head_dim * (valid query-key pairs). Times are medians over the rounds; every contestant is warmed up first
and data are random. Every case's result is compared with float32 attention on sampled rows before anything is timed."""

import argparse
import ctypes
import dataclasses
import json
import math
import pathlib
import random
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent


# ---------------------------------------------------------------------------------------------------------------- cases
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
    Case("sta 3x3x5", "sliding_tile", 24, SMALL, windows=((3, 3, 5),), flex=False, targets=(("G", 1.12),)),
    Case("sta 3x6x10", "sliding_tile", 24, SMALL, windows=((3, 6, 10),), targets=(("G", 1.12),)),
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


# --------------------------------------------------------------------------------------------------------------- masks
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
    """The mask as a function of (head, query token, key token) tensors: what FlexAttention compiles and what the check
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


# ------------------------------------------------------------------------------------------------------------- the shim
class Call(ctypes.Structure):  # TilewrightCall in hopper/shim.cpp
    _fields_ = ([(name, ctypes.c_void_p) for name in ("q", "k", "v", "out", "lse", "counts", "indices", "windows")]
                + [(name, ctypes.c_int64)
                   for name in ("batch", "heads", "kv_heads", "tokens", "head_dim", "text_length", "capacity")]
                + [(name, ctypes.c_int32) for name in ("fp16", "pattern", "window_count", "neighbours_share")]
                + [("canvas", ctypes.c_int32 * 3), ("tile", ctypes.c_int32 * 3)])


class Tilewright:
    def __init__(self, path):
        self.library = ctypes.CDLL(str(path.resolve()))
        self.library.tilewright_open.restype = ctypes.c_void_p
        self.library.tilewright_spec.restype = ctypes.c_char_p
        self.library.tilewright_last_error.restype = ctypes.c_char_p

    def error(self):
        return RuntimeError(self.library.tilewright_last_error().decode())

    def open(self, schedule="", receive_only=""):
        runtime = self.library.tilewright_open(schedule.encode(), receive_only.encode())
        if not runtime:
            raise self.error()
        return ctypes.c_void_p(runtime)

    def forward(self, runtime, call, stream):
        if self.library.tilewright_forward(runtime, ctypes.byref(call), ctypes.c_void_p(stream)):
            raise self.error()

    def spec(self, runtime, call):
        text = self.library.tilewright_spec(runtime, ctypes.byref(call))
        if text is None:
            raise self.error()
        return text.decode()


def call_of(case, q, k, v, out, lse, lists):
    windows = (ctypes.c_int32 * (3 * max(len(case.windows), 1)))(*[x for window in case.windows for x in window])
    call = Call(q=q.data_ptr(), k=k.data_ptr(), v=v.data_ptr(), out=out.data_ptr(), lse=lse.data_ptr(), batch=1,
                heads=case.heads, kv_heads=case.heads, tokens=case.tokens, head_dim=case.head_dim,
                text_length=case.text, pattern=("dense", "sliding_tile", "block_list").index(case.pattern),
                window_count=len(case.windows), windows=ctypes.cast(windows, ctypes.c_void_p),
                neighbours_share=case.sharing)
    call.canvas[:] = case.canvas
    call.tile[:] = case.tile
    if lists:
        call.counts, call.indices, call.capacity = lists[0].data_ptr(), lists[1].data_ptr(), lists[1].shape[2]
    call.keep = (windows, q, k, v, out, lse, lists)  # the memory behind the pointers
    return call


# ---------------------------------------------------------------------------------------------------------- measurement
def check(torch, case, mask, q, k, v, out, lse):
    """Relative L2 error of the output and largest error of the log-sum-exp on sampled rows, against float32."""
    device, scale = q.device, case.head_dim**-0.5
    rows = torch.randint(case.tokens, (24,), generator=torch.Generator().manual_seed(1)).to(device)
    keys = torch.arange(case.tokens, device=device)
    error = norm = lse_error = 0.0
    for head in random.Random(1).sample(range(case.heads), min(4, case.heads)):
        allowed = mask(torch.tensor(head, device=device), rows[:, None], keys[None, :])
        scores = (q[0, rows, head].float() @ k[0, :, head].float().T * scale).masked_fill(~allowed, -math.inf)
        want = scores.softmax(-1) @ v[0, :, head].float()
        error += float((out[0, rows, head].float() - want).square().sum())
        norm += float(want.square().sum())
        lse_error = max(lse_error, float((lse[0, head, rows] - scores.logsumexp(-1)).abs().max()))
    return math.sqrt(error / norm), lse_error


def flex_block(case):
    """The longest block of FlexAttention's that divides every tile, and the text."""
    return 128 if math.prod(case.tile) % 128 == 0 and max(case.text, 0) % 128 == 0 else 64


def whole_blocks(torch, case, mask, order, block, device):
    """The mask as FlexAttention's BlockMask: tiles are whole blocks, so one token stands for its block."""
    from torch.nn.attention.flex_attention import BlockMask

    heads, tokens = torch.arange(case.heads, device=device), order[::block]
    attended = mask(heads[:, None, None], tokens[:, None], tokens[None, :])
    counts = attended.sum(-1, dtype=torch.int32)[None]
    indices = attended.int().argsort(dim=-1, descending=True, stable=True).int()[None]
    none = torch.zeros_like(counts)
    return BlockMask.from_kv_blocks(none, torch.zeros_like(indices), counts, indices, BLOCK_SIZE=block,
                                    seq_lengths=(case.tokens, case.tokens))


class Contestant:
    """Something that is timed. launches: how many fill about 100 ms, long enough for the clock to settle under the load."""

    def __init__(self, torch, name, run, flops):
        self.torch, self.name, self.run, self.flops = torch, name, run, flops
        self.milliseconds = []
        self.launches = 1

    def warm_up(self, seconds=0.3):
        per_launch = max(self.time(3), 1e-3)
        self.launches = max(1, min(500, round(100 / per_launch)))
        self.time(max(1, round(seconds * 1e3 / per_launch)))

    def time(self, launches):
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(launches):
            self.run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / launches

    def round(self):
        self.milliseconds.append(self.time(self.launches))

    def result(self):
        median = statistics.median(self.milliseconds)
        return {"milliseconds": median, "tflops": self.flops / median * 1e-9, "rounds": self.milliseconds}


def contestants_of(torch, shim, case, with_flex=True):
    """ours first; whatever else this case is compared with. Raises where ours is wrong."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    shape = (1, case.tokens, case.heads, case.head_dim)
    q, k, v = (torch.randn(shape, device=device).mul_(s).bfloat16() for s in (case.query_scale, 1, 1))
    out = torch.full_like(q, math.nan)
    lse = torch.full((1, case.heads, case.tokens), math.nan, device=device)
    lists = make_lists(torch, case, device) if case.pattern == "block_list" else None
    call = call_of(case, q, k, v, out, lse, lists)
    runtime = shim.open(case.schedule)
    stream = torch.cuda.current_stream().cuda_stream
    flops = flops_of(case, int(lists[0].sum()) if lists else None)
    mask = attends(torch, case, lists, device)

    shim.forward(runtime, call, stream)
    torch.cuda.synchronize()
    error, lse_error = check(torch, case, mask, q, k, v, out, lse)
    if not (bool(torch.isfinite(out).all()) and error < 6e-3 and lse_error < 1e-3):
        raise RuntimeError(f"{case.name}: wrong result: relative error {error:.1e}, log-sum-exp {lse_error:.1e}")
    contestants = [Contestant(torch, "ours", lambda: shim.forward(runtime, call, stream), flops)]
    facts = {"spec": shim.spec(runtime, call), "relative_l2_error": error, "lse_error": lse_error, "gflop": flops * 1e-9}

    names = {against for against, _ in case.targets}
    if "loads" in names:
        loading = shim.open("family=sm90,block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,"
                            "consumer_registers=208,producer_registers=40,cluster=1,overlap=0,softmax=fixed",
                            (HERE / "hopper/receive_only.cuh").read_text())
        contestants.append(Contestant(torch, "loads", lambda: shim.forward(loading, call, stream), flops))
    if "cudnn" in names:
        from torch.nn.attention import SDPBackend, sdpa_kernel
        n = case.tokens if case.pattern == "dense" else 16384
        dense = [torch.randn(1, 12, n, case.head_dim, device=device).bfloat16() for _ in range(3)]

        def cudnn():
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                torch.nn.functional.scaled_dot_product_attention(*dense)

        contestants.append(Contestant(torch, "cudnn", cudnn, 4 * case.head_dim * 12 * n * n))
    if with_flex and case.flex and case.pattern != "dense":
        from torch.nn.attention.flex_attention import flex_attention
        # FlexAttention skips whole blocks of 64 or 128 tokens in memory order, so it gets its tokens grouped by tile, for
        # free, and a mask without a block that is masked in part.
        order, block = tile_order(torch, case, device), flex_block(case)
        block_mask = whole_blocks(torch, case, mask, order, block, device)
        compiled = torch.compile(flex_attention)
        heads_first = [x[:, order].transpose(1, 2).contiguous() for x in (q, k, v)]
        options = {"BLOCK_M": block, "BLOCK_N": block} if block < 128 else None

        def flex():
            return compiled(*heads_first, block_mask=block_mask, kernel_options=options)

        theirs = torch.empty_like(out)
        theirs[:, order] = flex().transpose(1, 2)
        difference = float((theirs.float() - out.float()).norm() / out.float().norm())
        if not difference < 6e-3:
            raise RuntimeError(f"{case.name}: FlexAttention computes something else: difference {difference:.1e}")
        contestants.append(Contestant(torch, "flex", flex, flops))
    return contestants, facts


def measure(torch, shim, cases, rounds, with_flex, report):
    """Returns what was measured, by case; report(that) after every case: who stops the program keeps the rest."""
    device = torch.device("cuda")
    a, b = (torch.randn(8192, 8192, device=device).bfloat16() for _ in range(2))
    results = {}
    for case in cases:
        try:
            contestants, facts = contestants_of(torch, shim, case, with_flex)
            contestants.append(Contestant(torch, "G", lambda: torch.matmul(a, b), 2 * 8192**3))
            for contestant in contestants:
                contestant.warm_up()
            order = random.Random(0)
            for _ in range(rounds):
                order.shuffle(contestants)
                for contestant in contestants:
                    contestant.round()
            results[case.name] = {**facts, **{c.name: c.result() for c in contestants}}
        except Exception as problem:  # one case must not take the others along
            results[case.name] = {"error": f"{type(problem).__name__}: {problem}"}
        torch.cuda.empty_cache()
        print(row_of(case, results), flush=True)
        report(results)
    return results


# --------------------------------------------------------------------------------------------------------------- report
HEADER = f"{'case':28} {'ms':>9} {'TFLOP/s':>8} {'/ G':>6} {'/ cuDNN':>8} {'/ flex':>7}  targets"


def verdicts(case, results):
    """(target, reached, kept) for each target of a case."""
    result = results[case.name]
    for against, at_least in case.targets:
        if against == "tflops":
            reached = result["ours"]["tflops"]
        elif against.startswith("time of "):
            # Time per tile against that of another case: at most so much.
            other = results.get(against.removeprefix("time of "), {})
            if "ours" not in other:
                continue
            tiles = [math.prod(math.ceil(c / s) for c, s in zip(of.canvas, of.tile))
                     for of in (case, next(c for c in CASES if c.name == against.removeprefix("time of ")))]
            reached = result["ours"]["milliseconds"] / tiles[0] / (other["ours"]["milliseconds"] / tiles[1])
            yield against, at_least, reached, reached <= at_least
            continue
        else:
            reached = result["ours"]["tflops"] / result[against]["tflops"]
        yield against, at_least, reached, reached >= at_least


def row_of(case, results):
    result = results[case.name]
    if "error" in result:
        return f"{case.name:28} {result['error']}"
    ours = result["ours"]

    def ratio(name, width):
        return f"{ours['tflops'] / result[name]['tflops']:{width}.2f}" if name in result else " " * (width - 1) + "-"

    targets = "  ".join(f"{against} {reached:.2f} {'>=' if not against.startswith('time') else '<='} {wanted:g}"
                        f" {'ok' if kept else 'MISSED'}" for against, wanted, reached, kept in verdicts(case, results))
    return (f"{case.name:28} {ours['milliseconds']:9.3f} {ours['tflops']:8.0f} {ratio('G', 6)} {ratio('cudnn', 8)} "
            f"{ratio('flex', 7)}  {targets}").rstrip()


def svg_plot(title, x_label, series):
    """series: name -> [(x, y)]. One line each, axes from 0."""
    width, height, left, bottom = 640, 400, 60, 50
    points = [point for line in series.values() for point in line]
    x_max, y_max = max(x for x, _ in points) * 1.05, max(y for _, y in points) * 1.1

    def place(x, y):
        return left + x / x_max * (width - left - 20), height - bottom - y / y_max * (height - bottom - 40)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
             f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>',
             f'<text x="{width / 2}" y="20" text-anchor="middle">{title}</text>',
             f'<text x="{width / 2}" y="{height - 10}" text-anchor="middle">{x_label}</text>']
    for i in range(6):
        x, y = place(0, y_max * i / 5)
        parts.append(f'<line x1="{x}" y1="{y:.1f}" x2="{width - 20}" y2="{y:.1f}" stroke="#ddd"/>'
                     f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">{y_max * i / 5:.0f}</text>')
        x, y = place(x_max * i / 5, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 16}" text-anchor="middle">{x_max * i / 5:.3g}</text>')
    for i, (name, line) in enumerate(sorted(series.items())):
        color = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad")[i % 4]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in sorted(line)))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
                     f'<text x="{left + 10}" y="{height - bottom - 10 - 16 * i}" fill="{color}">{name}</text>')
    return "\n".join(parts + ["</svg>\n"])


def plots(results):
    """file name -> SVG: TFLOP/s against sequence length, and against the share of the key tiles that is kept."""
    by_length, by_share = {}, {}
    for case in CASES:
        result = results.get(case.name, {})
        if "ours" not in result or case.schedule:
            continue
        for name in ("ours", "cudnn", "G"):
            if name not in result:
                continue
            if case.pattern == "dense":
                by_length.setdefault(name, []).append((case.tokens / 1024, result[name]["tflops"]))
            elif (case.canvas, case.head_dim, case.query_scale, len(case.windows)) == (SMALL, 128, 1.0, 1) and name != "cudnn":
                share = math.prod(window_tiles(case, case.windows[0])) / math.prod(
                    math.ceil(c / s) for c, s in zip(case.canvas, case.tile))
                by_share.setdefault(name, []).append((share, result[name]["tflops"]))
    pictures = {}
    if by_length:
        pictures["dense_by_length.svg"] = svg_plot("Dense attention, 12 heads of 128, bf16: TFLOP/s", "1024 tokens", by_length)
    if by_share:
        pictures["sliding_tile_by_share.svg"] = svg_plot(
            "Sliding tile attention, canvas 18x48x80, 24 heads of 128, bf16: TFLOP/s", "share of key tiles kept", by_share)
    return pictures


def write_report(folder, results, about):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare_gpu.json").write_text(json.dumps({"about": about, "cases": results}, indent=1) + "\n")
    for name, text in plots(results).items():
        (folder / name).write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shim", type=pathlib.Path, required=True, help="libtilewright_benchmark_shim.so")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "results" / "h100", help="folder for JSON and SVG")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", default="", help="part of the cases' names")
    parser.add_argument("--no-flex", action="store_true", help="leave FlexAttention out: it takes seconds a case to compile")
    options = parser.parse_args()
    import torch

    cases = [case for case in CASES if options.only in case.name]
    about = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
             "rounds": options.rounds, "command": " ".join(sys.argv)}
    print(HEADER)
    results = measure(torch, Tilewright(options.shim), cases, options.rounds, not options.no_flex,
                      lambda measured: write_report(options.output, measured, about))
    failed = [case.name for case in cases
              if "error" in results[case.name] or not all(kept for *_, kept in verdicts(case, results))]
    print(f"{len(cases) - len(failed)} of {len(cases)} cases reach their targets" + (f"; not: {failed}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
