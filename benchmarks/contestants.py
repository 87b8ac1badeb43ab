"""What is timed: tilewright, cuDNN, FlexAttention and loads alone, each checked first and timed in the same way."""

import math
import pathlib
import random
import statistics
import time

from cases import attends, flops_of, make_lists, tile_order
from shim import call_of

HERE = pathlib.Path(__file__).resolve().parent


def check(torch, case, mask, q, k, v, out, lse):
    """Relative L2 error of the output and largest error of the log-sum-exp on sampled rows, against float32."""
    device, scale = q.device, case.head_dim**-0.5
    rows = torch.randint(case.tokens, (24,), generator=torch.Generator().manual_seed(1)).to(device)
    keys = torch.arange(case.tokens, device=device)
    error = norm = lse_error = 0.0
    for head in random.Random(1).sample(range(case.heads), min(4, case.heads)):
        allowed = mask(torch.tensor(head, device=device), rows[:, None], keys[None, :])
        scores = (q[0, rows, head].float() @ k[0, :, head].float().T * scale).masked_fill(~allowed, -math.inf)
        want = scores.softmax(-1) @ v[0, :, head].float()
        error += float((out[0, rows, head].float() - want).square().sum())
        norm += float(want.square().sum())
        lse_error = max(lse_error, float((lse[0, head, rows] - scores.logsumexp(-1)).abs().max()))
    return math.sqrt(error / norm), lse_error


def flex_block(case):
    """The longest block of FlexAttention's that divides every tile, and the text."""
    return 128 if math.prod(case.tile) % 128 == 0 and max(case.text, 0) % 128 == 0 else 64


def whole_blocks(torch, case, mask, order, block, device):
    """The mask as FlexAttention's BlockMask: tiles are whole blocks, so one token stands for its block."""
    from torch.nn.attention.flex_attention import BlockMask

    heads, tokens = torch.arange(case.heads, device=device), order[::block]
    attended = mask(heads[:, None, None], tokens[:, None], tokens[None, :])
    counts = attended.sum(-1, dtype=torch.int32)[None]
    indices = attended.int().argsort(dim=-1, descending=True, stable=True).int()[None]
    none = torch.zeros_like(counts)
    return BlockMask.from_kv_blocks(none, torch.zeros_like(indices), counts, indices, BLOCK_SIZE=block,
                                    seq_lengths=(case.tokens, case.tokens))


class Contestant:
    """Something that is timed. launches: how many fill a turn; 100 ms are long enough for the clock to settle under the
    load."""

    def __init__(self, torch, name, run, flops):
        self.torch, self.name, self.run, self.flops = torch, name, run, flops
        self.milliseconds = []
        self.launches = 1

    def warm_up(self, seconds=0.3, turn=0.1):
        per_launch = max(self.time(3), 1e-3)
        self.launches = max(1, min(500, round(turn * 1e3 / per_launch)))
        self.time(max(1, round(seconds * 1e3 / per_launch)))

    def time(self, launches):
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(launches):
            self.run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / launches

    def round(self, rest=0.0):
        """One turn, after so many seconds of rest."""
        time.sleep(rest)
        self.milliseconds.append(self.time(self.launches))

    def result(self):
        median = statistics.median(self.milliseconds)
        return {"milliseconds": median, "tflops": self.flops / median * 1e-9, "rounds": self.milliseconds}


def contestants_of(torch, shim, case, with_flex=True):
    """ours first; whatever else this case is compared with. Raises where ours is wrong."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    shape = (1, case.tokens, case.heads, case.head_dim)
    q, k, v = (torch.randn(shape, device=device).mul_(s).bfloat16() for s in (case.query_scale, 1, 1))
    out = torch.full_like(q, math.nan)
    lse = torch.full((1, case.heads, case.tokens), math.nan, device=device)
    lists = make_lists(torch, case, device) if case.pattern == "block_list" else None
    call = call_of(case, q, k, v, out, lse, lists)
    runtime = shim.open(case.schedule)
    stream = torch.cuda.current_stream().cuda_stream
    flops = flops_of(case, int(lists[0].sum()) if lists else None)
    mask = attends(torch, case, lists, device)

    shim.forward(runtime, call, stream)
    torch.cuda.synchronize()
    error, lse_error = check(torch, case, mask, q, k, v, out, lse)
    if not (bool(torch.isfinite(out).all()) and error < 6e-3 and lse_error < 1e-3):
        raise RuntimeError(f"{case.name}: wrong result: relative error {error:.1e}, log-sum-exp {lse_error:.1e}")
    contestants = [Contestant(torch, "ours", lambda: shim.forward(runtime, call, stream), flops)]
    facts = {"spec": shim.spec(runtime, call), "relative_l2_error": error, "lse_error": lse_error, "gflop": flops * 1e-9}

    names = {against for against, _ in case.targets}
    if "loads" in names:
        loading = shim.open("family=sm90,block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,"
                            "consumer_registers=208,producer_registers=40,cluster=1,overlap=0,softmax=fixed",
                            (HERE / "hopper/receive_only.cuh").read_text())
        contestants.append(Contestant(torch, "loads", lambda: shim.forward(loading, call, stream), flops))
    if "cudnn" in names:
        from torch.nn.attention import SDPBackend, sdpa_kernel
        n = case.tokens if case.pattern == "dense" else 16384
        dense = [torch.randn(1, 12, n, case.head_dim, device=device).bfloat16() for _ in range(3)]

        def cudnn():
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                torch.nn.functional.scaled_dot_product_attention(*dense)

        contestants.append(Contestant(torch, "cudnn", cudnn, 4 * case.head_dim * 12 * n * n))
    if with_flex and case.flex and case.pattern != "dense":
        from torch.nn.attention.flex_attention import flex_attention
        # FlexAttention skips whole blocks of 64 or 128 tokens in memory order, so it gets its tokens grouped by tile, for
        # free, and a mask without a block that is masked in part.
        order, block = tile_order(torch, case, device), flex_block(case)
        block_mask = whole_blocks(torch, case, mask, order, block, device)
        compiled = torch.compile(flex_attention)
        heads_first = [x[:, order].transpose(1, 2).contiguous() for x in (q, k, v)]
        options = {"BLOCK_M": block, "BLOCK_N": block} if block < 128 else None

        def flex():
            return compiled(*heads_first, block_mask=block_mask, kernel_options=options)

        theirs = torch.empty_like(out)
        theirs[:, order] = flex().transpose(1, 2)
        difference = float((theirs.float() - out.float()).norm() / out.float().norm())
        if not difference < 6e-3:
            raise RuntimeError(f"{case.name}: FlexAttention computes something else: difference {difference:.1e}")
        contestants.append(Contestant(torch, "flex", flex, flops))
    return contestants, facts
