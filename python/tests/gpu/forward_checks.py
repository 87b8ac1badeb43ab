"""The forward operators on CUDA tensors."""

from __future__ import annotations

import tilewright as tw
import torch
from checks import PATTERN, attend, check, close, inputs, mask, random
from tilewright.compat import st_attn, vsa

from reference import sliding_tile_mask


@check
def sliding_tile_forward():
    worst = 0.0
    allowed = mask()
    for dtype, head_dim in ((torch.bfloat16, 128), (torch.float16, 128), (torch.bfloat16, 64), (torch.float16, 64)):
        q, k, v = inputs(dtype, head_dim)
        out, lse = tw.attention(q, k, v, PATTERN, return_lse=True)
        expected, expected_lse = attend(q, k, v, allowed)
        # Scores have the float32 sums' error; probabilities and the output are rounded to the type (2^-9, 2^-11).
        worst = max(worst, close(out, expected, 2**-6 if dtype == torch.bfloat16 else 2**-8, f"{dtype} {head_dim}"))
        finite = expected_lse.isfinite()
        close(lse[finite], expected_lse[finite], 2e-3, "lse")
        assert lse[~finite].isneginf().all()
        other = tw.attention(*(x.transpose(1, 2) for x in (q, k, v)), PATTERN, layout="raster_bhsd")
        assert torch.equal(other.transpose(1, 2), out), "raster_bhsd differs from raster"
    return f"largest difference {worst:.2g}"


@check
def dense_and_grouped_heads():
    q, k, v = random(1, 1000, 4, 128), random(1, 777, 2, 128, seed=1), random(1, 777, 2, 128, seed=2)
    out = tw.attention(q, k, v, tw.Dense())
    expected, _ = attend(q, k, v, torch.ones(1000, 777, device="cuda").bool())
    return f"largest difference {close(out, expected, 2**-6, 'out'):.2g}"


@check
def block_sparse():
    q, k, v = (random(2, 3, 64 * n, 128, seed=n) for n in (10, 12, 12))
    v = random(2, 3, 64 * 12, 128, seed=3)
    block_map = torch.rand(2, 3, 10, 12, device="cuda") < 0.4
    block_map[0, 0, 1] = False
    sizes = torch.tensor([64] * 10 + [30, 1], device="cuda")
    out, lse = vsa.block_sparse_attn(q, k, v, block_map, sizes)
    valid = (torch.arange(64, device="cuda") < sizes[:, None]).flatten()
    whole = block_map.repeat_interleave(64, 2).repeat_interleave(64, 3) & valid
    expected, _ = attend(*(x.transpose(1, 2) for x in (q, k, v)), whole)
    assert lse[0, 0, 64:128].isneginf().all()
    return f"largest difference {close(out, expected.transpose(1, 2), 2**-6, 'out'):.2g}"


@check
def st_attn_tiled():
    canvas, tokens = (12, 16, 16), 12 * 16 * 16
    index = vsa.get_tile_partition_indices(canvas, (6, 8, 8), torch.device("cuda"))
    q, k, v = (random(1, tokens + 100, 2, 128, seed=i) for i in range(3))
    tiled = [torch.cat([x[:, :tokens][:, index], x[:, tokens:]], 1).transpose(1, 2).contiguous() for x in (q, k, v)]
    out = st_attn.sliding_tile_attention(*tiled, [(1, 1, 1), (3, 3, 1)], 77, True, "12x16x16").transpose(1, 2)
    back = torch.cat([out[:, :tokens][:, torch.argsort(index)], out[:, tokens:]], 1)
    masks = [sliding_tile_mask(canvas, (6, 8, 8), w, 100, 77) for w in ((1, 1, 1), (3, 3, 1))]
    expected, _ = attend(q, k, v, torch.stack([torch.from_numpy(m) for m in masks]).cuda())
    return f"largest difference {close(back, expected, 2**-6, 'out'):.2g}"


@check
def compile_whole_graph():
    def layer(q, k, v):
        return tw.attention(q * 2, k, v, PATTERN) + 1

    with torch.no_grad():
        q, k, v = inputs()
        compiled = torch.compile(layer, fullgraph=True)
        return f"largest difference {close(compiled(q, k, v), layer(q, k, v), 2**-6, 'out'):.2g}"


@check
def autocast():
    q, k, v = (x.float() for x in inputs())
    with torch.autocast("cuda", dtype=torch.float16):
        assert tw.attention(q, k, v, PATTERN).dtype == torch.float16


@check
def graph_capture():
    q, k, v = inputs()
    tw.prepare(q, k, v, PATTERN)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = tw.attention(q, k, v, PATTERN)
    for seed in (5, 6):
        for target, source in zip((q, k, v), inputs(seed=seed), strict=True):
            target.copy_(source)
        out.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, tw.attention(q, k, v, PATTERN)), "replay differs from a direct call"


@check
def capture_of_what_is_not_prepared_is_an_error():
    q = random(1, 4 * 4 * 4, 1, 64)
    pattern = tw.SlidingTile((4, 4, 4), (1, 1, 1), (2, 4, 8))
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()
    caught = None
    with torch.cuda.stream(stream):
        graph.capture_begin()
        try:
            tw.attention(q, q, q, pattern)
        except tw.Error as error:
            caught = error
        graph.capture_end()
    assert caught is not None and caught.code == "capture_in_progress", repr(caught)


@check
def two_streams():
    sets = [inputs(seed=seed) for seed in (1, 2)]
    expected = [tw.attention(*s, PATTERN) for s in sets]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in sets]
    for _ in range(10):
        results = []
        for s, stream in zip(sets, streams, strict=True):
            with torch.cuda.stream(stream):
                results.append(tw.attention(*s, PATTERN))
        torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


@check
def no_synchronisation():
    q, k, v = inputs()
    block_map = torch.rand(1, 2, 4, 4, device="cuda") < 0.5
    x = random(1, 2, 256, 128)
    sizes = torch.full((4,), 64, device="cuda")
    vsa.block_sparse_attn(x, x, x, block_map, sizes)
    torch.cuda.set_sync_debug_mode("error")
    try:
        tw.attention(q, k, v, PATTERN, return_lse=True)
        vsa.block_sparse_attn(x, x, x, block_map, sizes)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@check
def wrong_memory_is_an_error():
    q = random(1, 64, 2, 128)
    for wrong in (q.cpu(), q.float(), q.repeat(1, 1, 1, 2)[..., ::2]):
        try:
            tw.attention(q, wrong, q, tw.Dense())
        except tw.InvalidArgument:
            continue
        raise AssertionError(f"no error for {wrong.device} {wrong.dtype} {wrong.stride()}")
