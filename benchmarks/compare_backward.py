#!/usr/bin/env python3
"""The backward pass, whole calls, in rounds that alternate between both kernel families, cuDNN's dense backward (16384
tokens, 12 heads) and cuBLAS's 8192^3 product ("G"). TFLOP/s count 2.5 times the forward pass's 4 * head_dim * pairs.

    cmake --build build --target tilewright_benchmark_shim
    python3 benchmarks/compare_backward.py --shim build/benchmarks/hopper/libtilewright_benchmark_shim.so

A call computes the row statistics and, for block lists, the lists by key tile; "lists kept" has them from before. Every
contestant's gradients are compared with float32 ones on sampled rows, and between two runs bit by bit, before anything
is timed."""

import argparse
import ctypes
import json
import math
import pathlib
import random

from cases import LISTS, SMALL, Case, attends, flops_of, make_lists
from contestants import Contestant
from shim import Tilewright, call_of

CASES = [
    (Case("lists", lists="random", **LISTS), {"sm90": 370, "sm80": 190}),
    (Case("sliding_tile 3x3x3", "sliding_tile", 24, SMALL, windows=((3, 3, 3),)),
     {"sm90": 420}),
    (Case("dense 16384", "dense", 12, (1, 1, 16384)), {}),
]


class Gradients(ctypes.Structure):  # TilewrightGradients in hopper/shim.cpp
    _fields_ = [(name, ctypes.c_void_p) for name in ("dout", "dq", "dk", "dv", "workspace", "key_counts", "offsets",
                                                     "query_indices")] + [("workspace_bytes", ctypes.c_int64)]


class Backward:
    """One case's tensors, and its calls."""

    def __init__(self, torch, shim, case):
        self.torch, self.library, self.case = torch, shim.library, case
        device = torch.device("cuda")
        torch.manual_seed(0)
        shape = (1, case.tokens, case.heads, case.head_dim)
        self.q, self.k, self.v, self.dout = (torch.randn(shape, device=device).bfloat16() for _ in range(4))
        self.out, self.dq, self.dk, self.dv = (torch.full_like(self.q, math.nan) for _ in range(4))
        self.lse = torch.full((1, case.heads, case.tokens), math.nan, device=device)
        lists = make_lists(torch, case, device) if case.pattern == "block_list" else None
        self.mask = attends(torch, case, lists, device)
        self.call = call_of(case, self.q, self.k, self.v, self.out, self.lse, lists)
        self.flops = 2.5 * flops_of(case, int(lists[0].sum()) if lists else None)
        self.stream = torch.cuda.current_stream().cuda_stream
        shim.forward(shim.open(), self.call, self.stream)
        self.plain = self.gradients()
        self.kept = None
        if lists:
            heads, tiles = lists[0].shape
            lists_by_key = [torch.empty(heads, n, dtype=torch.int32, device=device)
                            for n in (tiles, tiles + 1, tiles * case.topk)]
            self.kept = self.gradients(*lists_by_key)

    def gradients(self, *lists_by_key):
        names = ("key_counts", "offsets", "query_indices") if lists_by_key else ()
        pointers = {name: x.data_ptr() for name, x in zip(names, lists_by_key, strict=True)}
        gradients = Gradients(dout=self.dout.data_ptr(), dq=self.dq.data_ptr(), dk=self.dk.data_ptr(),
                              dv=self.dv.data_ptr(), **pointers)
        size = self.library.tilewright_backward_workspace(ctypes.byref(self.call), ctypes.byref(gradients))
        if size < 0:
            raise self.error()
        workspace = self.torch.empty(size, dtype=self.torch.uint8, device=self.q.device)
        gradients.workspace, gradients.workspace_bytes = workspace.data_ptr(), size
        gradients.keep = (workspace, *lists_by_key)
        return gradients

    def error(self):
        return RuntimeError(self.library.tilewright_last_error().decode())

    def do(self, function, runtime, gradients):
        if function(runtime, ctypes.byref(self.call), ctypes.byref(gradients), ctypes.c_void_p(self.stream)):
            raise self.error()

    def run(self, runtime, gradients):
        self.do(self.library.tilewright_backward, runtime, gradients)

    def rows(self, tensor, tokens, head):
        return tensor[0, tokens, head].float()

    def probabilities(self, head, queries, keys):
        """P and dS of some queries and keys, in float32."""
        q, dout, out = (self.rows(x, queries, head) for x in (self.q, self.dout, self.out))
        k, v = (self.rows(x, keys, head) for x in (self.k, self.v))
        allowed = self.mask(self.torch.tensor(head, device=q.device), queries[:, None], keys[None, :])
        scores = q @ k.T * self.case.head_dim**-0.5 - self.lse[0, head, queries, None]
        p = scores.masked_fill(~allowed, -math.inf).exp()
        return p, p * (dout @ v.T - (dout * out).sum(-1, keepdim=True))

    def errors(self):
        """Relative L2 errors of dq, dk and dv on sampled rows."""
        case, device = self.case, self.q.device
        scale = case.head_dim**-0.5
        rows = self.torch.randint(case.tokens, (24,), generator=self.torch.Generator().manual_seed(1)).to(device)
        every = self.torch.arange(case.tokens, device=device)
        sums = {name: [0.0, 0.0] for name in ("dq", "dk", "dv")}
        for head in random.Random(1).sample(range(case.heads), 4):
            q, k, dout = (self.rows(x, every, head) for x in (self.q, self.k, self.dout))
            _, of_rows = self.probabilities(head, rows, every)
            p, of_columns = self.probabilities(head, every, rows)
            wanted = {"dq": scale * of_rows @ k, "dk": scale * of_columns.T @ q, "dv": p.T @ dout}
            for name, want in wanted.items():
                sums[name][0] += float((self.rows(getattr(self, name), rows, head) - want).square().sum())
                sums[name][1] += float(want.square().sum())
        return {name: math.sqrt(error / norm) for name, (error, norm) in sums.items()}

    def contestant(self, name, runtime, gradients):
        everything = (self.dq, self.dk, self.dv)
        results = []
        for _ in range(2):
            for tensor in everything:
                tensor.fill_(math.nan)
            self.run(runtime, gradients)
            results.append([tensor.clone() for tensor in everything])
        errors = self.errors()
        # NaN is not equal to itself: so nothing is left of it.
        same = all(self.torch.equal(a, b) for a, b in zip(*results, strict=True))
        if not same or max(errors.values()) > 1e-2:
            raise RuntimeError(f"{self.case.name}, {name}: errors {errors}, same bits twice: {same}")
        contestant = Contestant(self.torch, name, lambda: self.run(runtime, gradients), self.flops)
        contestant.errors = errors
        return contestant


def cudnn_backward(torch):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    q, k, v, dout = (torch.randn(1, 12, 16384, 128, device="cuda").bfloat16() for _ in range(4))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        out = torch.nn.functional.scaled_dot_product_attention(*inputs)
    return Contestant(torch, "cudnn dense",
                                  lambda: torch.autograd.grad(out, inputs, dout, retain_graph=True),
                                  2.5 * 4 * 128 * 12 * 16384**2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shim", type=pathlib.Path, required=True, help="libtilewright_benchmark_shim.so")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=pathlib.Path, help="a JSON file")
    options = parser.parse_args()
    import torch

    shim = Tilewright(options.shim)
    shim.library.tilewright_open_family.restype = ctypes.c_void_p
    shim.library.tilewright_backward_workspace.restype = ctypes.c_int64
    families = {name: ctypes.c_void_p(shim.library.tilewright_open_family(name.encode())) for name in ("sm90", "sm80")}
    a, b = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    results = {}
    for case, bars in CASES:
        backward = Backward(torch, shim, case)
        contestants = [backward.contestant(name, runtime, backward.plain) for name, runtime in families.items()]
        if backward.kept:
            backward.do(backward.library.tilewright_transpose, families["sm90"], backward.kept)
            contestants.append(backward.contestant("sm90, lists kept", families["sm90"], backward.kept))
        contestants += [cudnn_backward(torch),
                        Contestant(torch, "G", lambda: torch.matmul(a, b), 2 * 8192**3)]
        for contestant in contestants:
            contestant.warm_up()
        order, shuffled = random.Random(0), list(contestants)
        for _ in range(options.rounds):
            order.shuffle(shuffled)
            for contestant in shuffled:
                contestant.round()
        results[case.name] = {c.name: {**c.result(), "relative_l2_errors": getattr(c, "errors", None)}
                              for c in contestants}
        print(f"== {case.name}")
        for name, result in results[case.name].items():
            share = result["tflops"] / results[case.name]["cudnn dense"]["tflops"]
            bar = f", bar {bars[name]}" if name in bars else ""
            print(f"  {result['milliseconds']:8.3f} ms {result['tflops']:6.0f} TFLOP/s {share:5.2f} x cuDNN  "
                  f"{name}{bar}", flush=True)
        del backward, contestants
        torch.cuda.empty_cache()
    if options.output:
        options.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
