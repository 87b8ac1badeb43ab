"""What the checks on a GPU share: inputs, a reference, and their list."""

from __future__ import annotations

import sys
from pathlib import Path

import tilewright as tw
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from reference import sliding_tile_mask

CANVAS, TILE, WINDOW = (10, 20, 24), (4, 4, 4), (3, 3, 3)
TOKENS = 10 * 20 * 24
TEXT_ROWS, TEXT = 40, 33
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def random(*shape, dtype=torch.bfloat16, seed=0):
    return torch.randn(shape, device="cuda", generator=torch.Generator("cuda").manual_seed(seed)).to(dtype)


def attend(q, k, v, mask, scale=None):
    """float32 reference on the GPU, [batch, tokens, heads, head_dim]."""
    q, k, v = (x.float().transpose(1, 2) for x in (q, k, v))
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = (q @ k.transpose(-1, -2)) * (scale or q.shape[-1] ** -0.5)
    scores = scores.masked_fill(~mask, float("-inf"))
    out = torch.softmax(scores, -1).nan_to_num(0) @ v
    return out.transpose(1, 2), torch.logsumexp(scores, -1)


def close(a, b, tolerance, name):
    worst = (a.float() - b.float()).abs().nan_to_num(torch.inf).max().item()
    if not worst <= tolerance:
        raise AssertionError(f"{name}: largest difference {worst:.3g}, allowed {tolerance:.3g}")
    return worst


def within(found, wanted, tolerance, name):
    """The relative difference in the Euclidean norm."""
    worst = ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()
    if not worst <= tolerance:
        raise AssertionError(f"{name}: relative difference {worst:.3g}, allowed {tolerance:.3g}")
    return worst


def same(found, wanted, name):
    """The same bits."""
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if not torch.equal(a, b):
            worst = (a.float() - b.float()).abs().max().item()
            raise AssertionError(f"{name}: tensor {i} differs by up to {worst:.3g}")


PATTERN = tw.SlidingTile(CANVAS, WINDOW, TILE, text_length=TEXT)


def mask():
    return torch.from_numpy(sliding_tile_mask(CANVAS, TILE, WINDOW, TEXT_ROWS, TEXT)).cuda()


def inputs(dtype=torch.bfloat16, head_dim=128, heads=3, batch=2, seed=0):
    return [random(batch, TOKENS + TEXT_ROWS, heads, head_dim, dtype=dtype, seed=3 * seed + i) for i in range(3)]
