"""What a call costs the host, and the kernels themselves."""

from __future__ import annotations

import statistics
import time

import tilewright as tw
import torch
from checks import check, random
from tilewright import _native, runtime


def microseconds(function, calls=200, rounds=9):
    """Median host time of a call; each round is short enough that the launch queue does not fill."""
    function()
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            function()
        times.append((time.perf_counter() - start) / calls * 1e6)
        torch.cuda.synchronize()
    return statistics.median(times)


class Nothing(torch.autograd.Function):
    """What PyTorch itself takes for a gradient that Python computes."""

    @staticmethod
    def forward(context, x):
        return x.view_as(x)

    @staticmethod
    def backward(context, gradient):
        return gradient


def backward_parts(x, dout, pattern):
    """What of a backward pass is ours: the kernels' calls alone, and PyTorch's own attention for comparison."""
    grad = x.clone().requires_grad_()
    out, lse = tw.attention(x, x, x, pattern, return_lse=True)
    heads_first = grad.transpose(1, 2)
    attend = torch.nn.functional.scaled_dot_product_attention
    return {
        "attention_backward()": lambda: tw.attention_backward(x, x, x, out, lse, dout, pattern),
        "an empty function, forward and backward": lambda: torch.autograd.grad(Nothing.apply(grad), grad, dout),
        "PyTorch's attention, forward and backward": lambda: torch.autograd.grad(
            attend(heads_first, heads_first, heads_first), heads_first, dout.transpose(1, 2)
        ),
    }


@check
def host_overhead():
    x = random(1, 64, 1, 64)
    grad = x.clone().requires_grad_()
    dout = torch.randn_like(x)
    pattern = tw.SlidingTile((4, 4, 4), (1, 1, 1), (4, 4, 4))
    operator = torch.ops.tilewright.attention_forward.default
    rest = ("raster", None, "sliding_tile", [4, 4, 4, 4, 4, 4, 1, 1, 1])
    out = tw.attention(x, x, x, pattern)
    engine, stream = runtime.place(x, None)
    idle = tw.Runtime("idle")._engine  # checks its calls and launches nothing
    native = pattern._native
    measured = {
        "attention()": lambda: tw.attention(x, x, x, pattern),
        "operator": lambda: operator(x, x, x, *rest),
        "attention() with gradient": lambda: tw.attention(grad, x, x, pattern),
        "operator with gradient": lambda: operator(grad, x, x, *rest),
        "forward and backward": lambda: torch.autograd.grad(tw.attention(grad, x, x, pattern), grad, dout),
        "operator, forward and backward": lambda: torch.autograd.grad(operator(grad, x, x, *rest)[0], grad, dout),
        "native call": lambda: _native.attention_forward(engine, x, x, x, out, None, native, 0, None, stream),
        "native call that launches nothing": lambda: _native.attention_forward(
            idle, x, x, x, out, None, native, 0, None, stream
        ),
        "a launch (torch.cuda._sleep)": lambda: torch.cuda._sleep(1),
        "add_": lambda: out.add_(1),
    }
    measured |= backward_parts(x, dout, pattern)
    times = {name: microseconds(function) for name, function in measured.items()}
    return "host microseconds a call: " + ", ".join(f"{name} {time:.1f}" for name, time in times.items())


@check
def kernel_time():
    canvas = (18, 48, 80)
    q, k, v = (random(1, 18 * 48 * 80, 12, 128, seed=i) for i in range(3))
    pattern = tw.SlidingTile(canvas, (3, 3, 3), (6, 8, 8))
    times = []
    for _ in range(30):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        tw.attention(q, k, v, pattern)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return f"canvas 18x48x80, tile 6x8x8, window 3x3x3, 12 heads, head_dim 128: {statistics.median(times[10:]):.2f} ms"
