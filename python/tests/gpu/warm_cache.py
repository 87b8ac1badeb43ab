"""The kernels of docs/python.md's Docker image serve a process that may not compile, whatever the canvas and prompt.

TILEWRIGHT_CACHE_RO=... TILEWRIGHT_JIT=forbid python warm_cache.py     # the folder that the image was built with
"""

from __future__ import annotations

import os

import tilewright as tw
from checks import random


def main():
    assert os.environ.get("TILEWRIGHT_JIT") == "forbid" and os.environ.get("TILEWRIGHT_CACHE_RO"), __doc__
    for canvas, rows, text in (((12, 16, 16), 96, 80), ((10, 20, 24), 40, 33)):  # whole tiles; clipped ones
        tokens = canvas[0] * canvas[1] * canvas[2] + rows
        inputs = [random(1, tokens, 2, 128, seed=i).requires_grad_() for i in range(3)]
        out = tw.attention(*inputs, tw.SlidingTile(canvas, (3, 3, 3), (6, 8, 8), text_length=text))
        out.float().square().sum().backward()
        assert all(x.grad.isfinite().all() and x.grad.abs().max() > 0 for x in inputs), canvas
    x = random(1, 64, 1, 64)
    try:
        tw.attention(x, x, x, tw.SlidingTile((4, 4, 4), (1, 1, 1), (4, 4, 4)))
    except tw.Error as error:
        assert error.code == "jit_forbidden", repr(error)
    else:
        raise AssertionError("a kernel that the image lacks was compiled")
    print("forward and backward from the image's kernels; others are refused")


if __name__ == "__main__":
    main()
