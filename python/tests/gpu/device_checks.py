"""Several GPUs in one process. With one GPU these checks say so and pass."""

from __future__ import annotations

import functools
import threading

import tilewright as tw
import torch
from checks import check, same
from training_checks import SLIDING, VIDEO, leaves, list_pattern, sliding_inputs, video_inputs

FIRST, SECOND = 0, 1


def on_two_devices(function):
    """A check that needs two GPUs, and that leaves the current one as it was."""

    @check
    @functools.wraps(function)
    def run():
        if torch.cuda.device_count() < 2:
            return "SKIP: one GPU"
        assert torch.cuda.current_device() == FIRST
        said = function()
        assert torch.cuda.current_device() == FIRST, "the current device is another one"
        return said

    return run


def moved(tensors, device):
    return [x.detach().to(f"cuda:{device}") for x in tensors]


def sliding_step(*tensors):
    """(out, dq, dk, dv) of sliding tile attention."""
    inputs = leaves(tensors)
    out = tw.attention(*inputs, SLIDING)
    return out, *torch.autograd.grad(out, inputs, torch.ones_like(out))


def video_step(*tensors):
    """(out, dq, dk, dv, dgate) of video sparse attention."""
    inputs = leaves(tensors)
    out = tw.video_sparse_attention(*inputs[:3], VIDEO, gate=inputs[3])
    return out, *torch.autograd.grad(out, inputs, torch.ones_like(out))


def compiled_step(*tensors):
    """As sliding_step, through the registered operator."""
    inputs = leaves(tensors)
    attend = torch.compile(lambda q, k, v: tw.attention(q, k, v, SLIDING), fullgraph=True, backend="aot_eager")
    out = attend(*inputs)
    return out, *torch.autograd.grad(out, inputs, torch.ones_like(out))


STEPS = {"sliding": (sliding_step, sliding_inputs), "video sparse": (video_step, video_inputs)}
STEPS["compiled"] = (compiled_step, sliding_inputs)


@on_two_devices
def each_device_has_the_same_results_and_the_current_one_stays():
    for name, (step, inputs) in STEPS.items():
        tensors = inputs()
        wanted = step(*moved(tensors, FIRST))
        found = step(*moved(tensors, SECOND))
        assert all(x.device.index == SECOND for x in found), name
        assert torch.cuda.current_device() == FIRST, name
        same(moved(found, FIRST), wanted, name)
        with torch.cuda.device(SECOND):  # the other way round
            again = step(*moved(tensors, FIRST))
            assert torch.cuda.current_device() == SECOND and all(x.device.index == FIRST for x in again), name
        same(again, wanted, f"{name}, the other device current")


@on_two_devices
def tensors_of_another_device_are_errors_that_name_the_fix():
    q, k, v = moved(sliding_inputs(), SECOND)
    lists, _ = list_pattern()
    x = moved([torch.randn(2, 24 * 64, 2, 128, dtype=torch.bfloat16)], SECOND)[0]
    tensors = moved(video_inputs(), SECOND)
    gate = moved(tensors[3:], FIRST)[0]
    out, lse = tw.attention(q, k, v, SLIDING, return_lse=True)
    calls = {
        "k": lambda: tw.attention(q, *moved([k], FIRST), v, SLIDING),
        "v": lambda: torch.ops.tilewright.attention_forward(q, k, *moved([v], FIRST), "raster", None, "dense", []),
        "counts": lambda: tw.attention(x, x, x, lists, layout="tiled_bshd"),
        "gate": lambda: tw.video_sparse_attention(*tensors[:3], VIDEO, gate=gate),
        "dout": lambda: tw.attention_backward(q, k, v, out, lse, *moved([out], FIRST), SLIDING),
    }
    for name, call in calls.items():
        try:
            call()
        except tw.InvalidArgument as error:
            said = str(error)
            assert said.startswith(name + " is ") and f"copy {name} to device {SECOND}" in said, said
            continue
        raise AssertionError(f"no error for {name} on device {FIRST}")
    try:
        tw.attention(q, k, v, SLIDING, runtime=tw.Runtime(f"cuda:{FIRST}"))
    except tw.InvalidArgument as error:
        assert f"copy q to device {FIRST}" in str(error), str(error)
    else:
        raise AssertionError("no error for a runtime of another device")


@on_two_devices
def both_devices_at_once_from_two_threads():
    step, inputs = STEPS["sliding"]
    tensors = inputs()
    wanted = step(*moved(tensors, FIRST))
    torch.cuda.synchronize(FIRST)
    failed = []

    def work(device):
        try:
            mine = moved(tensors, device)
            with torch.cuda.stream(torch.cuda.Stream(device)):
                torch.cuda.current_stream(device).wait_stream(torch.cuda.default_stream(device))
                for _ in range(10):
                    found = step(*mine)
                torch.cuda.current_stream(device).synchronize()
            same(moved(found, FIRST), wanted, f"device {device}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(device,)) for device in (FIRST, SECOND)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


@on_two_devices
def graph_of_the_second_device():
    q, k, v = moved(sliding_inputs(), SECOND)
    tw.prepare(q, k, v, SLIDING)
    wanted = tw.attention(q, k, v, SLIDING)
    with torch.cuda.device(SECOND):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(SECOND)):
            out = tw.attention(q, k, v, SLIDING)
        out.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize(SECOND)
    assert torch.equal(out, wanted), "replay differs from a direct call"
