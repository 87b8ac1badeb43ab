"""Video sparse attention on the CPU, forward and backward, against float64 with PyTorch's autograd; its drop-ins."""

from __future__ import annotations

import pytest
import tilewright as tw
import torch
from tilewright.compat import fastvideo_kernel, vsa

# Results are rounded to bf16 (2^-9 relative) once in the forward pass, and a few times on the way to a gradient.
FORWARD = {"atol": 2**-7, "rtol": 2**-7}
BACKWARD = {"atol": 2**-5, "rtol": 2**-5}

CANVAS, TILE = (4, 8, 10), (4, 4, 4)  # 2 x 3 tiles, the last ones clipped
TOKENS = 4 * 8 * 10
TILES, TOPK = 6, 2


def random(seed, *shape, dtype=torch.bfloat16):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def tile_of_tokens():
    t, h, w = torch.meshgrid(*(torch.arange(extent) for extent in CANVAS), indexing="ij")
    return ((t // 4 * 2 + h // 4) * 3 + w // 4).flatten()


def expected(q, k, v, gate, tile, topk=TOPK):
    """(out, coarse lse, chosen) in float64; q, k, v, gate [batch, heads, tokens, head_dim]; tile: of each token."""
    q, k, v = (x.double() for x in (q, k, v))
    gate = torch.ones_like(q) if gate is None else gate.double()
    repeat = q.shape[1] // k.shape[1]
    member = torch.nn.functional.one_hot(tile[tile >= 0], TILES).double()
    valid = tile >= 0

    def means(x):
        exact = torch.einsum("bhtd,tn->bhnd", x[:, :, valid], member) / member.sum(0).clamp(min=1)[:, None]
        return exact + (exact.bfloat16().double() - exact).detach()  # rounding counts as no change

    pooled_q, pooled_k, pooled_v = means(q), *(means(x).repeat_interleave(repeat, 1) for x in (k, v))
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scale = q.shape[-1] ** -0.5
    coarse = pooled_q @ pooled_k.transpose(-1, -2) * scale
    chosen = torch.zeros_like(coarse).scatter(-1, coarse.topk(topk).indices, 1).bool()
    of_token = chosen[:, :, tile.clamp(min=0)][..., tile.clamp(min=0)] & valid
    scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~of_token, -torch.inf)
    fine = torch.softmax(scores, -1) @ v
    out = fine + gate * (torch.softmax(coarse, -1) @ pooled_v)[:, :, tile.clamp(min=0)]
    return out * valid[:, None], torch.logsumexp(coarse, -1), chosen


def case(kv_heads=2, gated=True):
    shapes = [(1, TOKENS, heads, 64) for heads in (2, kv_heads, kv_heads)]
    q, k, v = (random(i, *shape) for i, shape in enumerate(shapes))
    return q, k, v, random(7, *q.shape) if gated else None


def leaves(*tensors):
    return [None if x is None else x.detach().clone().requires_grad_() for x in tensors]


PATTERN = tw.VideoSparse(CANVAS, TOPK, TILE)


def run(q, k, v, gate, runtime=None):
    return tw.video_sparse_attention(q, k, v, PATTERN, gate=gate, runtime=runtime)


@pytest.mark.parametrize("where", ["reference", "emulator"])
@pytest.mark.parametrize(("kv_heads", "gated"), [(2, True), (1, False)])
def test_forward_and_backward(where, kv_heads, gated):
    tensors = case(kv_heads, gated)
    inputs = leaves(*tensors)
    out = run(*inputs, runtime=tw.Runtime(where))
    references = [None if x is None else x.double().transpose(1, 2).detach().requires_grad_() for x in tensors]
    wanted, _, _ = expected(*references, tile_of_tokens())
    torch.testing.assert_close(out.double(), wanted.transpose(1, 2), **FORWARD)
    dout = random(9, *out.shape)
    out.backward(dout)
    wanted.backward(dout.double().transpose(1, 2))
    for found, reference in zip(inputs, references, strict=True):
        if found is not None:
            torch.testing.assert_close(found.grad.double(), reference.grad.transpose(1, 2), **BACKWARD)


def test_the_parts_make_the_whole():
    q, k, v, _ = case()
    means = [tw.pool_tiles(x, CANVAS) for x in (q, k, v)]
    selection = tw.select_tiles(means[0], means[1], TOPK, value_means=means[2])
    heads_first = [x.transpose(1, 2) for x in (q, k, v)]
    _, coarse_lse, chosen = expected(*heads_first, None, tile_of_tokens())
    torch.testing.assert_close(selection.coarse_lse.double(), coarse_lse, atol=1e-4, rtol=0)
    counts, indices = tw.lists_from_mask(chosen)
    assert torch.equal(counts, selection.counts)
    assert torch.equal(indices[..., :TOPK], selection.indices)
    fine = tw.attention(q, k, v, tw.BlockList(CANVAS, selection.counts, selection.indices, TILE))
    coarse = selection.coarse_output[:, :, tile_of_tokens()].transpose(1, 2)
    out, lse = tw.video_sparse_attention(q, k, v, PATTERN, return_lse=True)
    torch.testing.assert_close(out.float(), fine.float() + coarse, **FORWARD)
    assert lse.shape == (1, 2, TOKENS) and not lse.requires_grad


def test_parts_on_the_emulator_agree_with_the_reference():
    q, k, v, _ = case()
    emulator = tw.Runtime("emulator")
    means = [tw.pool_tiles(x, CANVAS) for x in (q, k, v)]
    for x, mean in zip((q, k, v), means, strict=True):
        assert torch.equal(tw.pool_tiles(x, CANVAS, runtime=emulator), mean)
    found = tw.select_tiles(means[0], means[1], TOPK, value_means=means[2], runtime=emulator)
    wanted = tw.select_tiles(means[0], means[1], TOPK, value_means=means[2])
    assert torch.equal(found.indices, wanted.indices) and torch.equal(found.counts, wanted.counts)
    torch.testing.assert_close(found.coarse_output, wanted.coarse_output, atol=1e-2, rtol=1e-2)
    mask = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    for a, b in zip(tw.lists_from_mask(mask, runtime=emulator), tw.lists_from_mask(mask), strict=True):
        assert torch.equal(a, b)


def test_gradients_of_the_parts_are_refused():
    q, _, _, _ = case()
    q = q.requires_grad_()
    with pytest.raises(tw.Unsupported, match="a part"):
        tw.pool_tiles(q, CANVAS)
    with torch.no_grad():
        assert not tw.pool_tiles(q, CANVAS).requires_grad


def loss_of(q, k, v, gate):
    return (run(q * 2, k, v, gate).float() ** 2).sum()


def test_compiled_gradients_are_the_eager_ones():
    eager, compiled = leaves(*case()), leaves(*case())
    loss_of(*eager).backward()
    torch.compile(loss_of, fullgraph=True, backend="aot_eager")(*compiled).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(eager, compiled, strict=True))
    with torch.no_grad():
        whole = torch.compile(run, fullgraph=True, backend="aot_eager")(*case())
        assert torch.equal(whole, run(*case()))


def test_checkpointing_and_autocast():
    plain, saved = leaves(*case()), leaves(*case())
    loss_of(*plain).backward()
    torch.utils.checkpoint.checkpoint(loss_of, *saved, use_reentrant=False).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain, saved, strict=True))
    wide = leaves(*(x.float() for x in case()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = run(*wide)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert all(x.grad.dtype == torch.float32 for x in wide)


def test_opcheck():
    q, k, v, gate = case()
    operators = torch.ops.tilewright
    rest = ("raster", None, [*CANVAS, *TILE, *CANVAS], TOPK, None, None)
    torch.library.opcheck(operators.video_sparse_attention.default, (q, k, v, gate, *rest, True, False))
    torch.library.opcheck(operators.video_sparse_attention.default, (*leaves(q, k, v, gate), *rest, True, True))
    _, lse, fine, kept = operators.video_sparse_attention(q, k, v, gate, *rest, True, True)
    torch.library.opcheck(operators.video_sparse_attention_backward.default, (q, k, v, gate, lse, fine, kept, q, *rest))
    means = tw.pool_tiles(q, CANVAS), tw.pool_tiles(k, CANVAS)
    torch.library.opcheck(operators.pool_tiles.default, (q, [*CANVAS, *TILE], "raster", None))
    torch.library.opcheck(operators.select_tiles.default, (*means, means[1], TOPK, None, None))
    torch.library.opcheck(operators.list_mask.default, (torch.rand(1, 2, 3, 4) < 0.5,))


def test_emulator_keeps_what_the_formula_says():
    """The registered operator's fake tells how many bytes the backward pass keeps; the runtime's word is the last."""
    tensors = leaves(*case())
    tw.configure(cpu="emulator")
    try:
        operator = torch.ops.tilewright.video_sparse_attention.default
        rest = ("raster", None, [*CANVAS, *TILE, *CANVAS], TOPK, None, None, True, True)
        torch.library.opcheck(operator, (*tensors, *rest), test_utils=("test_schema", "test_faketensor"))
    finally:
        tw.configure(cpu="reference")


def tiled(x, metadata):
    """Raster [batch, tokens, heads, head_dim] to padded blocks, padding NaN."""
    y = torch.full((x.shape[0], TILES * 64, *x.shape[2:]), torch.nan, dtype=x.dtype)
    y[:, metadata["non_pad_index"]] = x[:, metadata["tile_partition_indices"]]
    return y


@pytest.mark.parametrize("bshd", [False, True])
def test_video_sparse_attn(bshd):
    tensors = case()
    metadata = vsa.build_vsa_metadata(CANVAS, TILE, "cpu")
    sizes, rows = metadata["variable_block_sizes"], metadata["non_pad_index"]
    inputs = [tiled(x, metadata).requires_grad_() for x in tensors]
    given = inputs if bshd else [x.transpose(1, 2) for x in inputs]
    function = fastvideo_kernel.video_sparse_attn_bshd if bshd else fastvideo_kernel.video_sparse_attn
    out = function(*given[:3], sizes, sizes, TOPK, 64, compress_attn_weight=given[3])
    out = out if bshd else out.transpose(1, 2)
    raster = out[:, rows][:, metadata["reverse_tile_partition_indices"]]
    torch.testing.assert_close(raster, run(*tensors), **FORWARD)
    padding = torch.ones(TILES * 64, dtype=torch.bool)
    padding[rows] = False
    assert (out[:, padding] == 0).all()
    dout = random(9, *raster.shape)
    raster.backward(dout)
    whole = leaves(*tensors)
    run(*whole).backward(dout)
    for x, y in zip(inputs, whole, strict=True):
        back = x.grad[:, rows][:, metadata["reverse_tile_partition_indices"]]
        torch.testing.assert_close(back, y.grad, **BACKWARD)


def test_block_sizes_and_topk():
    q = random(1, 1, 1, 256, 64)
    sizes = torch.tensor([256])
    everything = vsa.video_sparse_attn(q, q, q, sizes, sizes, 99, 256)  # topk is clamped
    assert torch.equal(everything, vsa.video_sparse_attn(q, q, q, sizes, sizes, 1, (4, 8, 8)))
    with pytest.raises(tw.InvalidArgument, match="block_size is 4"):
        vsa.video_sparse_attn(q, q, q, sizes, sizes, 1, 4)
    broadcast = vsa.video_sparse_attn(q, q, q, sizes, sizes, 1, 256, torch.zeros(1, 1, 256, 1))
    ones = torch.ones(1, 1, dtype=torch.bool)
    dense, _ = vsa.block_sparse_attn(q, q, q, ones[None, None], sizes)
    assert torch.equal(broadcast, dense)
    assert tw.topk_of_tiles(0.9, 768) == 77 and tw.topk_of_tokens(0.9, 768 * 64) == 77
    with pytest.raises(tw.InvalidArgument, match="topk is 5"):
        tw.video_sparse_attention(q, q, q, tw.VideoSparse((4, 8, 8), 5), layout="tiled")


def test_both_orders_of_arguments_in_use():
    """fastvideo_kernel's by place; the older vsa package's, in which SGLang calls it, by name. Else an error."""
    q = random(1, 1, 2, 256, 64)
    sizes = torch.tensor([64, 64, 64, 30])
    by_place = fastvideo_kernel.video_sparse_attn(q, q, q, sizes, sizes, 2, (4, 4, 4), q)
    by_name = vsa.video_sparse_attn(
        q, q, q, variable_block_sizes=sizes, topk=2, block_size=(4, 4, 4), compress_attn_weight=q
    )
    assert torch.equal(by_name, by_place)
    with pytest.raises(tw.InvalidArgument, match="give topk, block_size and compress_attn_weight by name"):
        vsa.video_sparse_attn(q, q, q, sizes, 2, (4, 4, 4), q)
    with pytest.raises(tw.InvalidArgument, match="no topk"):
        vsa.video_sparse_attn(q, q, q, sizes)


def test_block_sparse_attn_has_gradients():
    q, k, v = (random(seed, 2, 2, length, 64) for seed, length in enumerate((128, 256, 256)))
    block_map = torch.rand(2, 2, 2, 4, generator=torch.Generator().manual_seed(5)) < 0.5
    block_map[0, 0, 1] = False
    sizes = torch.tensor([64, 64, 30, 1])
    inputs = leaves(q, k, v)
    out, _ = vsa.block_sparse_attn(*inputs, block_map, sizes)
    dout = random(9, *out.shape)
    out.backward(dout)
    references = [x.double().requires_grad_() for x in (q, k, v)]
    valid = (torch.arange(64) < sizes[:, None]).flatten()
    mask = block_map.repeat_interleave(64, 2).repeat_interleave(64, 3) & valid
    empty = ~mask.any(-1, keepdim=True)
    scores = references[0] @ references[1].transpose(-1, -2) / 8
    weights = torch.softmax(scores.masked_fill(~mask & ~empty, -torch.inf), -1).masked_fill(empty, 0)
    (weights @ references[2]).backward(dout.double())
    for found, reference in zip(inputs, references, strict=True):
        torch.testing.assert_close(found.grad.double(), reference.grad, **BACKWARD)


def test_drop_ins_compile_whole():
    q, k, v = (random(seed, 1, 2, 256, 64) for seed in range(3))
    sizes = torch.tensor([64, 64, 64, 30])
    block_map = torch.ones(1, 2, 4, 4, dtype=torch.bool).tril()

    def both(q, k, v):
        one, _ = vsa.block_sparse_attn(q, k, v, block_map, sizes)
        return one + vsa.video_sparse_attn(q, k, v, sizes, sizes, 2)

    assert torch.equal(torch.compile(both, fullgraph=True, backend="aot_eager")(q, k, v), both(q, k, v))
