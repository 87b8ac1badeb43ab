"""Gradients on CUDA tensors, and video sparse attention."""

from __future__ import annotations

import tilewright as tw
import torch
from checks import check, random, same, within
from tilewright.compat import fastvideo_kernel, vsa
from torch.utils.checkpoint import checkpoint

from reference import sliding_tile_mask

CANVAS, TILE, WINDOW, ROWS, TEXT = (6, 12, 16), (4, 4, 4), (1, 3, 3), 40, 33
TOKENS = 6 * 12 * 16
TILES = 2 * 3 * 4
SLIDING = tw.SlidingTile(CANVAS, WINDOW, TILE, TEXT)


def attend64(q, k, v, mask):
    """(out, lse) in float64 with PyTorch's gradients; [batch, tokens, heads, head_dim], lse [batch, heads, tokens]."""
    repeat = q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    empty = ~mask.any(-1, keepdim=True)
    scores = scores.masked_fill(~mask & ~empty, -torch.inf)
    out = torch.softmax(scores, -1).masked_fill(empty, 0) @ v
    return out.transpose(1, 2), torch.logsumexp(scores, -1)


def leaves(tensors, dtype=None):
    return [None if x is None else x.detach().to(dtype or x.dtype).requires_grad_() for x in tensors]


def compare(inputs, references, name):
    """Relative, in the Euclidean norm: gradients carry a few roundings to 8 or 11 bits of each product."""
    worst = 0.0
    for found, reference in zip(inputs, references, strict=True):
        if found is not None:
            worst = max(worst, within(found.grad, reference.grad, 2e-2, name))
    return worst


def sliding_inputs(dtype=torch.bfloat16, head_dim=128, kv_heads=2):
    heads = 2, kv_heads, kv_heads
    return [random(2, TOKENS + ROWS, n, head_dim, dtype=dtype, seed=i) for i, n in enumerate(heads)]


def sliding_mask():
    return torch.from_numpy(sliding_tile_mask(CANVAS, TILE, WINDOW, ROWS, TEXT)).cuda()


def list_pattern():
    """Block lists of 24 tiles with empty lists and short blocks, and the mask of tokens."""
    allowed = torch.rand(2, 2, TILES, TILES, device="cuda", generator=torch.Generator("cuda").manual_seed(3)) < 0.4
    allowed[0, 0, 1] = False
    sizes = torch.tensor([64] * (TILES - 2) + [30, 1], dtype=torch.int32, device="cuda")
    counts, indices = tw.lists_from_mask(allowed)
    length = TILES * 64
    pattern = tw.BlockList((1, 1, length), counts, indices, (1, 1, 64), key_sizes=sizes)
    valid = (torch.arange(64, device="cuda") < sizes[:, None]).flatten()
    return pattern, allowed.repeat_interleave(64, 2).repeat_interleave(64, 3) & valid


@check
def gradients_against_float64():
    lists, of_lists = list_pattern()
    dense = torch.ones(300, 500, dtype=torch.bool, device="cuda")
    cases = {
        "sliding": (sliding_inputs(), SLIDING, sliding_mask(), "raster"),
        "sliding fp16 64, grouped": (sliding_inputs(torch.float16, 64, 1), SLIDING, sliding_mask(), "raster"),
        "dense": ([random(1, n, 2, 128, seed=i) for i, n in enumerate((300, 500, 500))], tw.Dense(), dense, "raster"),
        "lists": ([random(2, TILES * 64, 2, 128, seed=i) for i in range(3)], lists, of_lists, "tiled_bshd"),
    }
    said = []
    for name, (tensors, pattern, mask, layout) in cases.items():
        inputs, references = leaves(tensors), leaves(tensors, torch.float64)
        out, lse = tw.attention(*inputs, pattern, layout=layout, return_lse=True)
        wanted, wanted_lse = attend64(*references, mask)
        within(out, wanted, 1e-2, name)
        dout, dlse = random(*out.shape, seed=9), random(*lse.shape, dtype=torch.float32, seed=10)
        dlse = dlse.masked_fill(lse.isneginf(), 0)
        torch.autograd.backward([out], [dout.to(out.dtype)], retain_graph=True)
        wanted.backward(dout.double(), retain_graph=True)
        said.append(f"{name} {compare(inputs, references, name):.1e}")
        for x in (*inputs, *references):
            x.grad = None
        torch.autograd.backward([out, lse], [dout.to(out.dtype), dlse])
        torch.autograd.backward([wanted, wanted_lse], [dout.double(), dlse.double()])
        said.append(f"with lse {compare(inputs, references, name + ', lse'):.1e}")
    return "relative errors: " + ", ".join(said)


def loss_of(q, k, v, pattern=SLIDING):
    return (tw.attention(q * 2, k, v, pattern).float() ** 2).sum()


@check
def gradients_are_the_same_bits_however_they_are_reached():
    tensors = sliding_inputs()
    eager = leaves(tensors)
    loss_of(*eager).backward()
    ways = {
        "again": loss_of,
        "compiled": torch.compile(loss_of, fullgraph=True, backend="aot_eager"),
        "checkpointed": lambda *qkv: checkpoint(loss_of, *qkv, use_reentrant=False),
    }
    for name, way in ways.items():
        inputs = leaves(tensors)
        way(*inputs).backward()
        same([x.grad for x in inputs], [x.grad for x in eager], name)


@check
def inductor_compiles_forward_and_backward():
    tensors = sliding_inputs()
    eager, compiled = leaves(tensors), leaves(tensors)
    loss_of(*eager).backward()
    torch.compile(loss_of, fullgraph=True)(*compiled).backward()
    worst = max(within(a.grad, b.grad, 1e-2, "q, k, v") for a, b in zip(compiled, eager, strict=True))
    return f"relative difference {worst:.1e}"


@check
def autocast_training():
    wide = leaves(sliding_inputs(), torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = tw.attention(*wide, SLIDING).float().sum()
    loss.backward()
    assert all(x.grad.dtype == torch.float32 and x.grad.abs().sum() > 0 for x in wide)


@check
def opcheck_of_all_operators():
    operators = torch.ops.tilewright
    q, k, v = (x[:1] for x in sliding_inputs())
    rest = ("raster", None, "sliding_tile_text", [*CANVAS, *TILE, *WINDOW, TEXT])
    torch.library.opcheck(operators.attention_forward.default, (*leaves((q, k, v)), *rest))
    out, lse = tw.attention(q, k, v, SLIDING, return_lse=True)
    quick = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operators.attention_backward.default, (q, k, v, out, lse, out, lse, *rest), test_utils=quick)
    q, k, v, gate = video_inputs()
    rest = ("raster", None, [*CANVAS, *TILE, *CANVAS], TOPK, None, None)
    torch.library.opcheck(
        operators.video_sparse_attention.default, (*leaves((q, k, v, gate)), *rest, True, True), test_utils=quick
    )
    _, lse, fine, kept = operators.video_sparse_attention(q, k, v, gate, *rest, True, True)
    torch.library.opcheck(
        operators.video_sparse_attention_backward.default, (q, k, v, gate, lse, fine, kept, q, *rest), test_utils=quick
    )
    means = tw.pool_tiles(q, CANVAS)
    torch.library.opcheck(operators.pool_tiles.default, (q, [*CANVAS, *TILE], "raster", None), test_utils=quick)
    torch.library.opcheck(operators.select_tiles.default, (means, means, means, TOPK, None, None), test_utils=quick)
    torch.library.opcheck(operators.list_mask.default, (torch.rand(1, 2, 3, 4, device="cuda") < 0.5,), test_utils=quick)


TOPK = 7
VIDEO = tw.VideoSparse(CANVAS, TOPK, TILE)


def video_inputs():
    return [random(1, TOKENS, 2, 128, seed=i) for i in range(4)]


def video64(q, k, v, gate, counts, indices):
    """In float64, [batch, tokens, heads, head_dim], attending to the lists given."""
    t, h, w = torch.meshgrid(*(torch.arange(extent, device="cuda") for extent in CANVAS), indexing="ij")
    tile = ((t // 4 * 3 + h // 4) * 4 + w // 4).flatten()
    member = torch.nn.functional.one_hot(tile, TILES).double()
    chosen = torch.zeros(*counts.shape, TILES, device="cuda").scatter(-1, indices.long(), 1).bool()
    fine, _ = attend64(q, k, v, chosen[:, :, tile][..., tile])

    def means(x):
        exact = torch.einsum("bthd,tn->bhnd", x, member) / member.sum(0)[:, None]
        return exact + (exact.bfloat16().double() - exact).detach()

    pooled = [means(x) for x in (q, k, v)]
    coarse = torch.softmax(pooled[0] @ pooled[1].transpose(-1, -2) * q.shape[-1] ** -0.5, -1) @ pooled[2]
    return fine + gate * coarse[:, :, tile].transpose(1, 2)


@check
def video_sparse_against_float64():
    tensors = video_inputs()
    means = [tw.pool_tiles(x, CANVAS) for x in tensors[:2]]
    selection = tw.select_tiles(*means, TOPK)
    inputs, references = leaves(tensors), leaves(tensors, torch.float64)
    out = tw.video_sparse_attention(*inputs[:3], VIDEO, gate=inputs[3])
    wanted = video64(*references, selection.counts, selection.indices)
    forward = within(out, wanted, 1e-2, "out")
    dout = random(*out.shape, seed=9)
    out.backward(dout)
    wanted.backward(dout.double())
    return f"relative errors: out {forward:.1e}, gradients {compare(inputs, references, 'VSA'):.1e}"


def video_loss(q, k, v, gate):
    return (tw.video_sparse_attention(q * 2, k, v, VIDEO, gate=gate).float() ** 2).sum()


@check
def video_sparse_compiled_and_checkpointed():
    eager = leaves(video_inputs())
    video_loss(*eager).backward()
    ways = {
        "compiled": torch.compile(video_loss, fullgraph=True, backend="aot_eager"),
        "checkpointed": lambda *tensors: checkpoint(video_loss, *tensors, use_reentrant=False),
    }
    for name, way in ways.items():
        inputs = leaves(video_inputs())
        way(*inputs).backward()
        same([x.grad for x in inputs], [x.grad for x in eager], name)


@check
def drop_ins():
    tensors = video_inputs()
    metadata = vsa.build_vsa_metadata(CANVAS, TILE, "cuda")
    sizes, rows = metadata["variable_block_sizes"], metadata["non_pad_index"]
    padded = []
    for x in tensors:
        y = torch.full((1, TILES * 64, *x.shape[2:]), torch.nan, device="cuda", dtype=x.dtype)
        y[:, rows] = x[:, metadata["tile_partition_indices"]]
        padded.append(y.requires_grad_())
    inputs = leaves(tensors)
    wanted = tw.video_sparse_attention(*inputs[:3], VIDEO, gate=inputs[3])
    dout = random(*wanted.shape, seed=9)
    wanted.backward(dout)
    q, k, v, gate = (x.transpose(1, 2) for x in padded)
    out = fastvideo_kernel.video_sparse_attn(q, k, v, sizes, sizes, TOPK, (4, 4, 4), gate).transpose(1, 2)
    raster = out[:, rows][:, metadata["reverse_tile_partition_indices"]]
    forward = within(raster, wanted, 1e-2, "video_sparse_attn")
    raster.backward(dout)
    worst = 0.0
    for x, y in zip(padded, inputs, strict=True):
        back = x.grad[:, rows][:, metadata["reverse_tile_partition_indices"]]
        worst = max(worst, within(back, y.grad, 1e-2, "gradients of video_sparse_attn"))
    return f"video_sparse_attn against raster tokens: {forward:.1e}, gradients {worst:.1e}"


@check
def graph_of_forward_and_backward():
    lists, _ = list_pattern()
    cases = {
        "sliding": (leaves(sliding_inputs()), lambda q, k, v: tw.attention(q, k, v, SLIDING)),
        "lists": (
            leaves([random(2, TILES * 64, 2, 128, seed=i) for i in range(3)]),
            lambda q, k, v: tw.attention(q, k, v, lists, layout="tiled_bshd"),
        ),
        "video sparse": (
            leaves(video_inputs()),
            lambda q, k, v, gate: tw.video_sparse_attention(q, k, v, VIDEO, gate=gate),
        ),
    }
    tw.prepare(*cases["sliding"][0], SLIDING, backward=True)
    tw.prepare(*cases["lists"][0], lists, layout="tiled_bshd", backward=True)
    tw.prepare_video_sparse(*cases["video sparse"][0][:3], VIDEO, gate=cases["video sparse"][0][3], backward=True)
    for name, (tensors, function) in cases.items():
        dout = random(*tensors[0].shape, seed=9)

        def step(tensors=tensors, function=function, dout=dout):
            out = function(*tensors)
            return out, *torch.autograd.grad(out, tensors, dout)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        for x in captured:
            x.fill_(float("nan"))
        with torch.no_grad():
            for i, x in enumerate(tensors):
                x.copy_(random(*x.shape, seed=30 + i))
        graph.replay()
        torch.cuda.synchronize()
        same(captured, step(), name)


@check
def streams_that_share_memory():
    """Forward and backward on two streams, of tensors made on a third: memory must not be handed out too early."""
    tensors = sliding_inputs()
    plain = leaves(tensors)
    loss_of(*plain).backward()
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(2)]
    for _ in range(8):
        found = []
        made = [leaves(tensors) for _ in streams]
        for inputs, stream in zip(made, streams, strict=True):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                found.append(torch.autograd.grad(loss_of(*inputs), inputs))
            for x in inputs:
                x.record_stream(stream)
        for stream in streams:
            torch.cuda.current_stream().wait_stream(stream)
        for gradients in found:
            same(gradients, [x.grad for x in plain], "two streams")


@check
def no_synchronisation_in_training():
    tensors, video = leaves(sliding_inputs()), leaves(video_inputs())
    dout = random(*tensors[0].shape), random(*video[0].shape)

    def step():
        torch.autograd.grad(tw.attention(*tensors, SLIDING), tensors, dout[0])
        out = tw.video_sparse_attention(*video[:3], VIDEO, gate=video[3])
        torch.autograd.grad(out, video, dout[1])

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
