"""The PyTorch operators on the CPU: results, torch.compile, modes, compat modules."""

from __future__ import annotations

import pytest
import tilewright as tw
import torch
from tilewright.compat import fastvideo_kernel, st_attn, vsa

from reference import attend, sliding_tile_mask

# bf16 keeps 2^-9 relative; values are of order 1 and outputs are rounded once.
TOLERANCE = 2**-8 * 2


def random(seed, *shape, dtype=torch.bfloat16):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def numpy64(x):
    return x.detach().to(torch.float64).numpy()


CANVAS, TILE = (4, 8, 6), (4, 4, 4)
PATTERN = tw.SlidingTile(CANVAS, (1, 1, 1), TILE)
TOKENS = 4 * 8 * 6


def expected_sliding(q, k, v):
    """[tokens, heads, head_dim] of one batch, raster."""
    heads = [numpy64(x).transpose(1, 0, 2) for x in (q, k, v)]
    out, lse = attend(*heads, sliding_tile_mask(CANVAS, TILE, (1, 1, 1))[None], q.shape[-1] ** -0.5)
    return torch.from_numpy(out.transpose(1, 0, 2)), torch.from_numpy(lse)


def test_raster_slices_of_a_fused_projection():
    qkv = random(1, 2, TOKENS, 3, 2, 64)
    q, k, v = qkv.unbind(2)
    out, lse = tw.attention(q, k, v, PATTERN, return_lse=True)
    assert out.shape == q.shape and out.is_contiguous()
    for batch in range(2):
        expected, expected_lse = expected_sliding(q[batch], k[batch], v[batch])
        torch.testing.assert_close(out[batch].double(), expected, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(lse[batch].double(), expected_lse, atol=1e-4, rtol=0)


def test_heads_first_views_keep_their_order_in_memory():
    q, k, v = (random(seed, 1, TOKENS, 2, 64) for seed in range(3))
    out = tw.attention(q, k, v, PATTERN)
    views = [x.transpose(1, 2) for x in (q, k, v)]
    other = tw.attention(*views, PATTERN, layout="raster_bhsd")
    assert other.stride() == views[0].stride() and torch.equal(other.transpose(1, 2), out)


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_emulator_agrees_with_the_reference(head_dim, dtype):
    q, k, v = (random(seed, 1, TOKENS, 1, head_dim, dtype=dtype) for seed in range(3))
    emulated = tw.attention(q, k, v, PATTERN, runtime=tw.Runtime("emulator"))
    torch.testing.assert_close(emulated, tw.attention(q, k, v, PATTERN), atol=TOLERANCE, rtol=2**-7)


def operator_arguments(q, k, v):
    return (q, k, v, "raster", None, "sliding_tile", [*CANVAS, *TILE, 1, 1, 1])


def block_list_arguments():
    q, k, v = (random(seed, 1, 2, 128, 64) for seed in range(3))
    counts = torch.tensor([[[1, 2], [2, 0]]], dtype=torch.int32)
    indices = torch.tensor([[[[1, 0], [0, 1]], [[0, 1], [0, 0]]]], dtype=torch.int32)
    sizes = torch.tensor([64, 20], dtype=torch.int32)
    extents = [1, 1, 128, 1, 1, 64] * 2
    return q, k, v, "tiled", None, "block_list", extents, counts, indices, None, sizes


def test_opcheck():
    q, k, v = (random(seed, 1, TOKENS, 2, 64) for seed in range(3))
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static", "test_aot_dispatch_dynamic")
    operator = torch.ops.tilewright.attention_forward.default
    torch.library.opcheck(operator, operator_arguments(q, k, v), test_utils=checks)
    torch.library.opcheck(operator, block_list_arguments(), test_utils=checks)


def test_compiles_whole():
    def layer(q, k, v):
        return tw.attention(q * 2, k, v, PATTERN) + 1

    q, k, v = (random(seed, 1, TOKENS, 2, 64) for seed in range(3))
    with torch.no_grad():
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(q, k, v), layer(q, k, v))


def test_autocast():
    q, k, v = (random(seed, 1, TOKENS, 2, 64, dtype=torch.float32) for seed in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = tw.attention(q, k, v, PATTERN)
    assert torch.equal(out, tw.attention(*(x.bfloat16() for x in (q, k, v)), PATTERN))


def test_fake_tensors_go_through_the_operator():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        q = torch.empty(1, TOKENS, 2, 64, dtype=torch.bfloat16)
        out, lse = tw.attention(q, q, q, PATTERN, return_lse=True)
    assert out.shape == q.shape and lse.shape == (1, 2, TOKENS) and lse.dtype == torch.float32


def test_tensors_of_other_devices_are_errors():
    q = random(1, 1, TOKENS, 2, 64)
    with pytest.raises(tw.InvalidArgument, match="meta"):
        tw.attention(q, q.to("meta"), q, PATTERN)
    with pytest.raises(tw.InvalidArgument, match="k is a ndarray"):
        tw.attention(q, q.half().numpy(), q, PATTERN)
    with pytest.raises(tw.InvalidArgument, match="v is a list"):
        tw.attention(q, q, [q], PATTERN)


@pytest.mark.parametrize("has_text", [True, False])
def test_st_attn_on_a_ragged_canvas(has_text):
    canvas, windows, rows, valid = (4, 8, 6), [(1, 1, 1), (3, 3, 3)], 10 if has_text else 0, 7 if has_text else 0
    index = vsa.get_tile_partition_indices(canvas, TILE, torch.device("cpu"))
    metadata = vsa.build_vsa_metadata(canvas, TILE, "cpu")
    raster = [random(seed, 2, TOKENS + rows, 2, 64) for seed in range(3)]
    padded = 4 * 64
    tiled = []
    for x in raster:
        y = torch.full((2, padded + rows, 2, 64), torch.nan, dtype=x.dtype)
        y[:, metadata["non_pad_index"]] = x[:, :TOKENS][:, index]
        y[:, padded:] = x[:, TOKENS:]
        tiled.append(y.transpose(1, 2).contiguous())
    out = st_attn.sliding_tile_attention(*tiled, windows, valid, has_text, "4x8x6", tile_size=TILE).transpose(1, 2)
    mask = torch.stack([torch.from_numpy(sliding_tile_mask(canvas, TILE, w, rows, valid)) for w in windows]).numpy()
    for batch in range(2):
        expected, _ = attend(*(numpy64(x[batch]).transpose(1, 0, 2) for x in raster), mask, 64**-0.5)
        expected = torch.from_numpy(expected.transpose(1, 0, 2))
        video = out[batch, metadata["non_pad_index"]][metadata["reverse_tile_partition_indices"]]
        torch.testing.assert_close(video.double(), expected[:TOKENS], atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(out[batch, padded:].double(), expected[TOKENS:], atol=TOLERANCE, rtol=0)


def test_block_sparse_map_and_indices():
    q, k, v = (random(seed, 2, 2, length, 64) for seed, length in enumerate((128, 256, 256)))
    block_map = torch.rand(2, 2, 2, 4, generator=torch.Generator().manual_seed(5)) < 0.5
    block_map[0, 0, 1] = False
    sizes = torch.tensor([64, 64, 30, 1])
    out, lse = fastvideo_kernel.block_sparse_attn(q, k, v, block_map, sizes)
    valid = (torch.arange(64) < sizes[:, None]).flatten()
    mask = block_map.repeat_interleave(64, 2).repeat_interleave(64, 3) & valid
    for batch in range(2):
        expected, expected_lse = attend(*(numpy64(x[batch]) for x in (q, k, v)), mask[batch].numpy(), 64**-0.5)
        torch.testing.assert_close(out[batch].double(), torch.from_numpy(expected), atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(lse[batch].double(), torch.from_numpy(expected_lse), atol=1e-4, rtol=0)
    assert (out[0, 0, 64:] == 0).all()


def test_vsa_metadata():
    metadata = vsa.build_vsa_metadata((5, 6, 4), device="cpu")
    assert metadata["num_tiles"] == (2, 2, 1) and metadata["max_block_size"] == 64
    assert metadata["variable_block_sizes"].tolist() == [64, 32, 16, 8]
    tokens = torch.arange(5 * 6 * 4)
    tiled = tokens[metadata["tile_partition_indices"]]
    assert torch.equal(tiled[metadata["reverse_tile_partition_indices"]], tokens)
    first = tokens.view(5, 6, 4)[:4, :4, :4].flatten()
    assert torch.equal(tiled[:64], first)
    assert metadata["non_pad_index"].tolist()[64:96] == list(range(64, 96))
    with pytest.raises(tw.InvalidArgument, match="tile_size"):
        vsa.build_vsa_metadata((4, 4, 4), (3, 3, 3), "cpu")


def test_flex_attentions_block_masks_are_block_lists():
    """docs/python.md, "Coming from other packages"."""
    flex_attention = pytest.importorskip("torch.nn.attention.flex_attention", reason="SKIP: PyTorch before 2.5")
    q, k, v = (random(seed, 1, 2, 512, 64) for seed in range(3))
    block_mask = flex_attention.create_block_mask(
        lambda b, h, query, key: (query // 128 >= key // 128) | (h == 1), None, 2, 512, 512, device="cpu"
    )
    counts, indices = block_mask.full_kv_num_blocks, block_mask.full_kv_indices
    assert block_mask.kv_num_blocks.sum() == 0
    pattern = tw.BlockList((1, 1, 512), counts, indices, tile=(1, 1, 128))
    out = tw.attention(q, k, v, pattern, layout="tiled")
    tokens = torch.arange(512)
    mask = torch.stack([tokens[:, None] // 128 >= tokens // 128, torch.ones(512, 512, dtype=torch.bool)])
    expected, _ = attend(*(numpy64(x[0]) for x in (q, k, v)), mask.numpy(), 64**-0.5)
    torch.testing.assert_close(out[0].double(), torch.from_numpy(expected), atol=TOLERANCE, rtol=0)


def test_function_modes_and_transforms_see_the_operator():
    from torch.utils.flop_counter import FlopCounterMode

    q, k, v = (random(seed, 1, TOKENS, 2, 64) for seed in range(3))
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            seen.append(str(function))
            return function(*arguments, **(named or {}))

    with Watch():
        tw.attention(q, k, v, PATTERN)
        tw.video_sparse_attention(q, k, v, tw.VideoSparse(CANVAS, 1, TILE))
    assert "tilewright.attention_forward.default" in seen
    assert "tilewright.video_sparse_attention.default" in seen
    with FlopCounterMode(display=False), pytest.raises(tw.Unsupported, match="a runtime is given"):
        tw.attention(q, k, v, PATTERN, runtime=tw.Runtime("reference"))


def test_export_of_a_model_step():
    class Layer(torch.nn.Module):
        def forward(self, q, k, v):
            return tw.attention(q * 2, k, v, PATTERN)

    q, k, v = (random(seed, 1, TOKENS, 2, 64) for seed in range(3))
    exported = torch.export.export(Layer(), (q, k, v))
    assert torch.equal(exported.module()(q, k, v), Layer()(q, k, v))


def test_lists_that_neighbours_share_change_the_kernel_only():
    q, k, v, _, _, _, _, counts, indices, _, sizes = block_list_arguments()
    plain = tw.BlockList((1, 1, 128), counts, indices, (1, 1, 64), key_sizes=sizes)
    shared = tw.BlockList((1, 1, 128), counts, indices, (1, 1, 64), key_sizes=sizes, neighbours_share=True)
    lines = [tw.problem_of(q, k, v, pattern, layout="tiled") for pattern in (plain, shared)]
    assert lines[0] != lines[1]

    def layer(q, k, v, pattern):
        return tw.attention(q, k, v, pattern, layout="tiled")

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v, shared), layer(q, k, v, plain))
