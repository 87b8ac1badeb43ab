"""What a call costs the host, and the kernels themselves."""

from __future__ import annotations

import statistics
import time

import tilewright as tw
import torch
from checks import check, random
from tilewright import _native, _tensors, runtime


def microseconds(function, calls=100, rounds=15):
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


def in_one_thread(function):
    """Without PyTorch's own thread for a device's backward pass: what is left is work, not waking and waiting."""

    def run():
        with torch.autograd.set_multithreading_enabled(False):
            function()

    return run


def forward_parts(x, grad, pattern, described):
    """Calls and what they are made of."""
    operator = torch.ops.tilewright.attention_forward.default
    out = tw.attention(x, x, x, pattern)
    engine, stream = runtime.place(x, None)
    idle = tw.Runtime("idle")._engine  # checks its calls and launches nothing
    native, forward = pattern._native, _native.attention_forward
    return {
        "attention()": lambda: tw.attention(x, x, x, pattern),
        "operator": lambda: operator(x, x, x, *described),
        "attention() with gradient": lambda: tw.attention(grad, x, x, pattern),
        "operator with gradient": lambda: operator(grad, x, x, *described),
        "native call": lambda: forward(engine, x, x, x, out, None, native, 0, None, stream),
        "native call that launches nothing": lambda: forward(idle, x, x, x, out, None, native, 0, None, stream),
        "a launch (torch.cuda._sleep)": lambda: torch.cuda._sleep(1),
        "add_": lambda: out.add_(1),
    }


def gradient_parts(x, grad, dout, pattern, described):
    """A forward call and its gradient, what of it is ours, and the same of PyTorch's own functions."""
    operator = torch.ops.tilewright.attention_forward.default
    heads_first, dout_first = grad.transpose(1, 2), dout.transpose(1, 2)
    attend = torch.nn.functional.scaled_dot_product_attention
    both = {
        "attention()": lambda: torch.autograd.grad(tw.attention(grad, x, x, pattern), grad, dout),
        "operator": lambda: torch.autograd.grad(operator(grad, x, x, *described)[0], grad, dout),
        "an empty function": lambda: torch.autograd.grad(Nothing.apply(grad), grad, dout),
        "PyTorch's attention": lambda: torch.autograd.grad(
            attend(heads_first, heads_first, heads_first), heads_first, dout_first
        ),
    }
    return both | {f"{name}, one thread": in_one_thread(function) for name, function in both.items()}


def backward_parts(x, dout, pattern):
    """The kernels' calls of a backward pass alone."""
    out, lse = tw.attention(x, x, x, pattern, return_lse=True)
    gradients = [torch.empty_like(x) for _ in range(3)]
    engine, stream = runtime.place(x, None)
    idle = tw.Runtime("idle")._engine
    tensors, native = (x, x, x, out, lse, dout, None, *gradients), pattern._native

    def call(where):
        return lambda: _native.attention_backward(where, *tensors, native, 0, None, stream, _tensors.Allocate(x))

    return {
        "attention_backward()": lambda: tw.attention_backward(x, x, x, out, lse, dout, pattern),
        "native backward (3 launches)": call(engine),
        "native backward that launches nothing": call(idle),
    }


@check
def host_overhead():
    x = random(1, 64, 1, 64)
    grad = x.clone().requires_grad_()
    dout = torch.randn_like(x)
    pattern = tw.SlidingTile((4, 4, 4), (1, 1, 1), (4, 4, 4))
    described = ("raster", None, "sliding_tile", [4, 4, 4, 4, 4, 4, 1, 1, 1])
    sections = {
        "forward": forward_parts(x, grad, pattern, described),
        "forward and backward": gradient_parts(x, grad, dout, pattern, described),
        "backward": backward_parts(x, dout, pattern),
    }
    lines = ["host microseconds a call"]
    for section, functions in sections.items():
        times = [f"{name} {microseconds(function):.1f}" for name, function in functions.items()]
        lines.append(f"    {section}: " + ", ".join(times))
    return "\n".join(lines)


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
