"""Gradients of the PyTorch operators on the CPU, against PyTorch's own autograd in float64."""

from __future__ import annotations

import copy

import pytest
import tilewright as tw
import torch
from torch.utils.checkpoint import checkpoint

from reference import sliding_tile_mask

# Inputs and gradients are rounded to bf16 (2^-9 relative) and delta comes from the rounded output: gradients of order 1
# carry a few such errors.
TOLERANCE = {"atol": 2**-6, "rtol": 2**-6}

CANVAS, TILE, WINDOW, ROWS, TEXT = (4, 6, 8), (4, 4, 4), (1, 1, 1), 10, 7
TOKENS = 4 * 6 * 8


def random(seed, *shape, dtype=torch.bfloat16):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def dense64(q, k, v, mask, scale=None):
    """(out, lse) in float64, [batch, heads, tokens, head_dim], with PyTorch's gradients."""
    q, k, v = (x.double() for x in (q, k, v))
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = (q @ k.transpose(-1, -2)) * (scale or q.shape[-1] ** -0.5)
    empty = ~mask.any(-1, keepdim=True)
    # Rows without keys: finite scores, and zeros in place of what comes of them.
    scores = scores.masked_fill(~mask & ~empty, -torch.inf)
    out = torch.softmax(scores, -1).masked_fill(empty, 0) @ v
    return out, torch.logsumexp(scores, -1)


def leaves(*tensors):
    return [x.detach().clone().requires_grad_() for x in tensors]


def sliding_case(kv_heads=2):
    shapes = [(1, TOKENS + ROWS, heads, 64) for heads in (2, kv_heads, kv_heads)]
    mask = torch.from_numpy(sliding_tile_mask(CANVAS, TILE, WINDOW, ROWS, TEXT))
    return [random(i, *shape) for i, shape in enumerate(shapes)], tw.SlidingTile(CANVAS, WINDOW, TILE, TEXT), mask


def dense_case():
    shapes = [(2, 40, 2, 64), (2, 70, 1, 64), (2, 70, 1, 64)]
    return [random(i, *shape) for i, shape in enumerate(shapes)], tw.Dense(), torch.ones(40, 70, dtype=torch.bool)


def list_case():
    counts = torch.tensor([[[1, 2], [2, 0]]], dtype=torch.int32)
    indices = torch.tensor([[[[1, 0], [0, 1]], [[0, 1], [0, 0]]]], dtype=torch.int32)
    sizes = torch.tensor([64, 20], dtype=torch.int32)
    pattern = tw.BlockList((1, 1, 128), counts, indices, (1, 1, 64), key_sizes=sizes)
    mask = torch.tensor([[[[0, 1], [1, 1]], [[1, 1], [0, 0]]]]).bool()
    valid = (torch.arange(64) < sizes[:, None]).flatten()
    whole = mask.repeat_interleave(64, 2).repeat_interleave(64, 3) & valid
    return [random(i, 1, 128, 2, 64) for i in range(3)], pattern, whole


CASES = {
    "sliding": (sliding_case(), "raster"),
    "grouped": (sliding_case(kv_heads=1), "raster"),
    "dense": (dense_case(), "raster"),
    "lists": (list_case(), "tiled_bshd"),
}


def expected_gradients(tensors, mask, dout, dlse=None):
    heads_first = [x.detach().transpose(1, 2).double().requires_grad_() for x in tensors]
    out, lse = dense64(*heads_first, mask)
    loss = (out * dout.transpose(1, 2).double()).sum()
    if dlse is not None:
        loss = loss + (lse * dlse.double()).masked_fill(~mask.any(-1).expand(lse.shape), 0).sum()
    loss.backward()
    return [x.grad.transpose(1, 2) for x in heads_first]


def compare(found, expected):
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient.double(), wanted, **TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_gradients(case):
    (tensors, pattern, mask), layout = CASES[case]
    dout = random(9, *tensors[0].shape)
    inputs = leaves(*tensors)
    out = tw.attention(*inputs, pattern, layout=layout)
    out.backward(dout)
    compare([x.grad for x in inputs], expected_gradients(tensors, mask, dout))


@pytest.mark.parametrize("case", ["sliding", "lists"])
def test_emulator_gradients(case):
    (tensors, pattern, mask), layout = CASES[case]
    dout = random(9, *tensors[0].shape)
    inputs = leaves(*tensors)
    out, lse = tw.attention(*inputs, pattern, layout=layout, return_lse=True, runtime=tw.Runtime("emulator"))
    dlse = random(10, *lse.shape, dtype=torch.float32)
    torch.autograd.backward([out, lse], [dout, dlse])
    compare([x.grad for x in inputs], expected_gradients(tensors, mask, dout, dlse))


@pytest.mark.parametrize("case", CASES)
def test_gradients_through_lse_too(case):
    (tensors, pattern, mask), layout = CASES[case]
    dout = random(9, *tensors[0].shape)
    inputs = leaves(*tensors)
    out, lse = tw.attention(*inputs, pattern, layout=layout, return_lse=True)
    dlse = random(10, *lse.shape, dtype=torch.float32)
    torch.autograd.backward([out, lse], [dout, dlse])
    compare([x.grad for x in inputs], expected_gradients(tensors, mask, dout, dlse))
    inputs = leaves(*tensors)
    (tw.attention(*inputs, pattern, layout=layout, return_lse=True)[1].nan_to_num(neginf=0) * dlse).sum().backward()
    compare([x.grad for x in inputs], expected_gradients(tensors, mask, torch.zeros_like(dout), dlse))
    inputs = leaves(*tensors)
    tw.attention(*inputs, pattern, layout=layout, return_lse=True)[
        1
    ].sum().backward()  # an expanded 1, rows without keys too
    compare([x.grad for x in inputs], expected_gradients(tensors, mask, torch.zeros_like(dout), torch.ones_like(dlse)))


def test_directional_derivative():
    """What gradcheck does, with steps that 16 bits can tell apart: a difference of losses along a direction."""
    (q, k, v), pattern, mask = sliding_case()
    dout = random(9, *q.shape).double()
    inputs = leaves(q, k, v)
    tw.attention(*inputs, pattern).backward(dout.bfloat16())
    for i in range(3):
        direction = random(20 + i, *inputs[i].shape)
        slope = (inputs[i].grad.double() * direction.double()).sum()
        losses = []
        for step in (0.125, -0.125):
            moved = [q, k, v]
            moved[i] = (moved[i].double() + step * direction.double()).float()
            heads_first = [x.transpose(1, 2) for x in moved]
            losses.append((dense64(*heads_first, mask)[0].transpose(1, 2) * dout).sum())
        # Second differences of a softmax of order-1 scores over a step of 1/8, and roundings that add up at random.
        assert abs(slope - (losses[0] - losses[1]) / 0.25) < 0.05 * abs(slope) + 2


@pytest.mark.parametrize("shape", ["expanded", "transposed", "misaligned"])
def test_any_output_gradient_is_read(shape):
    (tensors, pattern, mask), layout = CASES["sliding"]
    of_out = tensors[0].shape
    if shape == "expanded":
        dout = random(9, 1, 1, 1, 1).expand(of_out)
    elif shape == "transposed":
        dout = random(9, *of_out[:2], of_out[3], of_out[2]).transpose(2, 3)
    else:
        dout = random(9, tensors[0].numel() + 1)[1:].view(of_out)
    inputs = leaves(*tensors)
    tw.attention(*inputs, pattern, layout=layout).backward(dout)
    compare([x.grad for x in inputs], expected_gradients(tensors, mask, dout))


def loss_of(q, k, v, pattern, layout):
    return (tw.attention(q * 2, k, v, pattern, layout=layout).float() ** 2).sum()


@pytest.mark.parametrize("case", ["sliding", "lists"])
def test_compiled_gradients_are_the_eager_ones(case):
    (tensors, pattern, _), layout = CASES[case]
    eager, compiled = leaves(*tensors), leaves(*tensors)
    loss_of(*eager, pattern, layout).backward()
    torch.compile(loss_of, fullgraph=True, backend="aot_eager")(*compiled, pattern, layout).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(eager, compiled, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant):
    (tensors, pattern, _), layout = CASES["lists"]
    plain, saved = leaves(*tensors), leaves(*tensors)
    loss_of(*plain, pattern, layout).backward()
    checkpoint(loss_of, *saved, pattern, layout, use_reentrant=reentrant).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain, saved, strict=True))


def test_autocast_gives_float32_gradients():
    (tensors, pattern, mask), layout = CASES["sliding"]
    inputs = leaves(*(x.float() for x in tensors))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = tw.attention(*inputs, pattern, layout=layout)
    assert out.dtype == torch.bfloat16
    dout = random(9, *out.shape)
    out.backward(dout)
    assert all(x.grad.dtype == torch.float32 for x in inputs)
    compare([x.grad for x in inputs], expected_gradients(tensors, mask, dout))


def test_gradients_of_some_inputs_only_and_of_none():
    (tensors, pattern, _), layout = CASES["sliding"]
    q, k, v = leaves(*tensors)
    dout = random(9, *q.shape)
    tw.attention(q, k, v, pattern, layout=layout).backward(dout)
    other = tensors[1].clone().requires_grad_()
    tw.attention(tensors[0], other, tensors[2], pattern, layout=layout).backward(dout)
    assert torch.equal(other.grad, k.grad)
    with torch.no_grad():
        assert not tw.attention(q, k, v, pattern, layout=layout).requires_grad


def test_what_is_changed_before_the_backward_pass_is_an_error():
    (tensors, pattern, _), layout = CASES["lists"]
    inputs = leaves(*tensors)
    pattern = copy.copy(pattern)
    object.__setattr__(pattern, "counts", pattern.counts.clone())
    out = tw.attention(*inputs, pattern, layout=layout)
    pattern.counts.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("registered", [False, True])
def test_second_derivatives_are_an_error(registered):
    (tensors, pattern, _), layout = CASES["sliding"]
    q, k, v = leaves(*tensors)
    if registered:
        described = "sliding_tile_text", [*CANVAS, *TILE, *WINDOW, TEXT]
        out, _ = torch.ops.tilewright.attention_forward(q, k, v, layout, None, *described)
    else:
        out = tw.attention(q, k, v, pattern, layout=layout)
    (gradient,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(tw.Unsupported, match="a gradient of attention_backward"):
        gradient.sum().backward()


def test_function_transforms_are_an_error():
    """PyTorch has none for registered operators with gradients; what must not happen is a silent wrong result."""
    (tensors, pattern, _), layout = CASES["sliding"]
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(loss_of)(*tensors, pattern, layout)


def test_the_function_without_autograd():
    (tensors, pattern, mask), layout = CASES["sliding"]
    dout = random(9, *tensors[0].shape)
    out, lse = tw.attention(*tensors, pattern, layout=layout, return_lse=True)
    gradients = tw.attention_backward(*tensors, out, lse, dout, pattern, layout=layout)
    compare(gradients, expected_gradients(tensors, mask, dout))


def test_opcheck():
    (tensors, pattern, _), _ = CASES["sliding"]
    inputs = leaves(*tensors)
    rest = ("raster", None, "sliding_tile_text", [*CANVAS, *TILE, *WINDOW, TEXT])
    torch.library.opcheck(torch.ops.tilewright.attention_forward.default, (*inputs, *rest))
    out, lse = tw.attention(*tensors, pattern, return_lse=True)
    torch.library.opcheck(torch.ops.tilewright.attention_backward.default, (*tensors, out, lse, out, lse, *rest))
