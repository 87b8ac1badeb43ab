"""The package with numpy alone: no PyTorch is needed."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import tilewright as tw

from reference import attend, sliding_tile_mask

# Inputs and outputs are rounded to fp16 (2^-11 relative); values are of order 1, so that 2e-3 is two roundings.
TOLERANCE = 2e-3


def random(rng, *shape):
    return rng.standard_normal(shape).astype(np.float16)


def by_head(x):
    return x.astype(np.float64).transpose(1, 0, 2)


@pytest.mark.parametrize("runtime", ["reference", "emulator"])
def test_sliding_tile_with_text_and_ragged_canvas(runtime):
    rng = np.random.default_rng(1)
    canvas, tile, windows, rows, valid = (5, 8, 9), (4, 4, 4), [(1, 3, 1), (3, 1, 3)], 20, 13
    tokens = int(np.prod(canvas)) + rows
    q, k, v = (random(rng, 1, tokens, 2, 64) for _ in range(3))
    pattern = tw.SlidingTile(canvas, windows, tile, text_length=valid)
    out, lse = tw.attention(q, k, v, pattern, return_lse=True, runtime=tw.Runtime(runtime))
    masks = np.stack([sliding_tile_mask(canvas, tile, window, rows, valid) for window in windows])
    expected, expected_lse = attend(by_head(q[0]), by_head(k[0]), by_head(v[0]), masks, 64**-0.5)
    assert np.abs(by_head(out[0]) - expected).max() < TOLERANCE
    assert np.isneginf(lse[0][:, tokens - rows + valid :]).all()
    finite = np.isfinite(expected_lse)
    assert np.abs(lse[0][finite] - expected_lse[finite]).max() < TOLERANCE


def test_dense_layouts_scale_and_grouped_heads_agree():
    rng = np.random.default_rng(2)
    q, k, v = random(rng, 2, 33, 4, 64), random(rng, 2, 50, 2, 64), random(rng, 2, 50, 2, 64)
    out = tw.attention(q, k, v, tw.Dense(), scale=0.3)
    for batch in range(2):
        expected, _ = attend(by_head(q[batch]), by_head(k[batch]), by_head(v[batch]), np.ones((1, 33, 50), bool), 0.3)
        assert np.abs(by_head(out[batch]) - expected).max() < TOLERANCE
    heads_first = [x.transpose(0, 2, 1, 3) for x in (q, k, v)]
    other, lse = tw.attention(*heads_first, tw.Dense(), scale=0.3, layout="raster_bhsd", return_lse=True)
    assert np.array_equal(other.transpose(0, 2, 1, 3), out)
    assert lse.shape == (2, 4, 33)


def test_block_lists_with_an_empty_row():
    rng = np.random.default_rng(3)
    q, k, v = random(rng, 1, 2, 128, 64), random(rng, 1, 2, 192, 64), random(rng, 1, 2, 192, 64)
    counts = np.array([[[2, 0], [1, 3]]], dtype=np.int32)
    indices = np.array([[[[0, 2, 0], [0, 0, 0]], [[1, 0, 0], [0, 1, 2]]]], dtype=np.int32)
    sizes = np.array([64, 10, 33], dtype=np.int32)
    pattern = tw.BlockList(
        (1, 1, 128), counts, indices, (1, 1, 64), key_canvas=(1, 1, 192), key_tile=(1, 1, 64), key_sizes=sizes
    )
    out, lse = tw.attention(q, k, v, pattern, layout="tiled", return_lse=True)
    mask = np.zeros((2, 128, 192), bool)
    for head in range(2):
        for block in range(2):
            for entry in indices[0, head, block, : counts[0, head, block]]:
                mask[head, 64 * block : 64 * block + 64, 64 * entry : 64 * entry + sizes[entry]] = True
    expected, _ = attend(*(x[0].astype(np.float64) for x in (q, k, v)), mask, 64**-0.5)
    assert np.abs(out[0] - expected).max() < TOLERANCE
    assert (out[0, 0, 64:] == 0).all() and np.isneginf(lse[0, 0, 64:]).all()


def call(**changes):
    rng = np.random.default_rng(4)
    values = {name: random(rng, 1, 64, 2, 64) for name in "qkv"} | {"pattern": tw.Dense()} | changes
    return tw.attention(**values)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"k": np.zeros((1, 64, 2, 64), np.float32)}, "float32"),
        ({"k": np.zeros((1, 64, 2, 64), np.float64)}, "float64"),
        ({"k": [1, 2]}, "k is a list"),
        ({"q": np.zeros((64, 2, 64), np.float16)}, "q has 3 dimensions"),
        ({"pattern": "dense"}, "pattern is 'dense'"),
        ({"layout": "bshd"}, "layout is 'bshd'"),
        ({"scale": -1.0}, "scale is -1"),
        ({"v": np.zeros((1, 64, 2, 128), np.float16)[..., ::2]}, "stride 2"),
        ({"pattern": tw.SlidingTile((4, 4, 5), (1, 1, 1), (4, 4, 4))}, "80 tokens"),
    ],
)
def test_errors_name_the_argument_and_the_fix(changes, named):
    with pytest.raises(tw.InvalidArgument) as caught:
        call(**changes)
    assert named in str(caught.value)
    assert caught.value.code == "invalid_argument"
    assert all((caught.value.problem, caught.value.allowed, caught.value.remedy))
    assert isinstance(caught.value, ValueError)


def test_unsupported_head_dim_is_its_own_class():
    x = np.zeros((1, 64, 2, 32), np.float16)
    with pytest.raises(tw.Unsupported, match="head_dim is 32"):
        tw.attention(x, x, x, tw.Dense())


def test_errors_survive_pickling():
    error = tw.InvalidArgument("invalid_argument", "a", "b", "c")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is tw.InvalidArgument and str(again) == "a; b; c" and again.remedy == "c"


def test_patterns_are_values():
    one = tw.SlidingTile("30x48x80", (3, 3, 3))
    assert one == tw.SlidingTile((30, 48, 80), [(3, 3, 3)]) and hash(one) == hash(tw.SlidingTile("30x48x80", ["3x3x3"]))
    with pytest.raises(AttributeError):
        one.tile = (1, 1, 1)
    with pytest.raises(tw.InvalidArgument, match="canvas is"):
        tw.SlidingTile((1, 2), (3, 3, 3))


def test_problem_line():
    x = np.zeros((1, 128, 2, 64), np.float16)
    line = tw.problem_of(x, x, x, tw.SlidingTile((4, 4, 8), (1, 1, 1), (4, 4, 4)))
    assert line.startswith("attention_forward:pattern=sliding_tile,tile=4x4x4,window=1x1x1")
    tw.prepare(x, x, x, tw.Dense())


def test_runtime_names():
    with pytest.raises(tw.InvalidArgument, match="device is"):
        tw.Runtime("tpu")
    with pytest.raises(tw.InvalidArgument, match="device is"):
        tw.Runtime("emulator:1")
    with pytest.raises(tw.InvalidArgument, match="jit is"):
        tw.Runtime("reference", cache=tw.CacheOptions(jit="never"))


def test_a_runtime_says_where_its_kernels_came_from(tmp_path):
    problem = "attention_forward:pattern=dense,edges=full,head_dim=64"
    options = tw.CacheOptions(folder=str(tmp_path))
    first = tw.Runtime("emulator", cache=options)
    assert not any(vars(first.cache_statistics()).values())
    first.prepare(problem)
    first.prepare(problem)
    assert first.cache_statistics().compiles == 1
    assert first.cache_statistics().disk_hits == 0
    second = tw.Runtime("emulator", cache=options)
    second.prepare(problem)
    assert second.cache_statistics().compiles == 0
    assert second.cache_statistics().disk_hits == 1
    assert not any(vars(tw.Runtime("reference").cache_statistics()).values())


def test_configure_chooses_what_cpu_tensors_run_through():
    from tilewright.runtime import default_runtime

    assert default_runtime(("cpu", 0)).kind == "reference"
    x = random(np.random.default_rng(5), 1, 64, 1, 64)
    computed = tw.attention(x, x, x, tw.Dense())
    try:
        tw.configure(cpu="emulator")
        assert default_runtime(("cpu", 0)).kind == "emulator"
        assert np.abs(tw.attention(x, x, x, tw.Dense()) - computed).max() < TOLERANCE
    finally:
        tw.configure(cpu="reference")
    with pytest.raises(tw.InvalidArgument, match="cpu is 'gpu'"):
        tw.configure(cpu="gpu")


def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(tw.Error) as caught:
        tw.Runtime("cuda:63")
    assert caught.value.code in ("no_device", "invalid_argument")


@pytest.mark.parametrize("runtime", ["reference", "emulator"])
def test_backward_with_numpy_alone(runtime):
    """Along a direction, the gradient is the loss's slope: in float64, where steps of 1/64 are small."""
    rng = np.random.default_rng(7)
    canvas, tile, window = (4, 4, 8), (4, 4, 4), (1, 1, 1)
    q, k, v, dout = (random(rng, 1, 128, 1, 64) for _ in range(4))
    dlse = rng.standard_normal((1, 1, 128)).astype(np.float32)
    pattern = tw.SlidingTile(canvas, window, tile)
    where = tw.Runtime(runtime)
    out, lse = tw.attention(q, k, v, pattern, return_lse=True, runtime=where)
    gradients = tw.attention_backward(q, k, v, out, lse, dout, pattern, dlse=dlse, runtime=where)
    mask = sliding_tile_mask(canvas, tile, window)[None]

    def loss(*tensors):
        exact_out, exact_lse = attend(*tensors, mask, 64**-0.5)
        return (exact_out * by_head(dout[0])).sum() + (exact_lse * dlse[0]).sum()

    exact = [by_head(x[0]) for x in (q, k, v)]
    for i, gradient in enumerate(gradients):
        direction = rng.standard_normal(exact[i].shape)
        step = 1 / 64
        moved = [[x + sign * step * direction if j == i else x for j, x in enumerate(exact)] for sign in (1, -1)]
        slope = (loss(*moved[0]) - loss(*moved[1])) / (2 * step)
        # fp16 keeps 2^-11 of each gradient; 8192 roundings of random sign add up to about their norm.
        allowed = 4e-3 * np.linalg.norm(gradient.astype(np.float64)) * np.linalg.norm(direction) / 8
        assert abs((by_head(gradient[0]) * direction).sum() - slope) < allowed


def test_video_sparse_with_numpy_alone():
    rng = np.random.default_rng(8)
    canvas = (4, 8, 8)  # 4 tiles
    q, k, v = (random(rng, 1, 256, 2, 64) for _ in range(3))
    # Every tile is chosen: the fine branch is dense attention, and a gate of 0 leaves the coarse one out.
    pattern = tw.VideoSparse(canvas, topk=4)
    out = tw.video_sparse_attention(q, k, v, pattern, gate=np.zeros_like(q))
    np.testing.assert_allclose(out, tw.attention(q, k, v, tw.Dense()), atol=TOLERANCE)
    means = [tw.pool_tiles(x, canvas) for x in (q, k)]
    selection = tw.select_tiles(*means, topk=2)
    assert selection.indices.shape == (1, 2, 4, 2) and (np.diff(selection.indices, axis=-1) > 0).all()
    first = q[0].reshape(1, 4, 8, 8, 2, 64)[0, :4, :4, :4].reshape(64, 2, 64).astype(np.float64).mean(0)
    np.testing.assert_allclose(means[0][0, :, 0], first, atol=TOLERANCE)
    counts, indices = tw.lists_from_mask(np.array([[[[True, False, True, True]]]]))
    assert counts.item() == 3 and indices[0, 0, 0, :3].tolist() == [0, 2, 3]
    assert "blend=gated" in tw.video_sparse_problem_of(q, k, v, pattern, gate=q)
    with pytest.raises(tw.InvalidArgument, match="attention takes the others"):
        tw.video_sparse_attention(q, k, v, tw.Dense())
    with pytest.raises(tw.InvalidArgument, match="video_sparse_attention takes"):
        tw.attention(q, k, v, pattern)
