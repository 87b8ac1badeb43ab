"""Sequence parallel (Ulysses): tokens are spread over processes, heads over processes for the time of the attention.

    torchrun --nproc-per-node 2 python/examples/ulysses.py       # gloo on the CPU; nccl where there are GPUs

Each process holds its share of the video's tokens for all heads. One all-to-all gives it all tokens for its share of
the heads, in raster order, which is all that our operators need; a second one takes the result back. Gradients go the
same way in reverse.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import tilewright
import torch
import torch.distributed as distributed


def exchange(x: torch.Tensor, gather_tokens: bool) -> torch.Tensor:
    """[batch, tokens/n, heads, d] -> [batch, tokens, heads/n, d], or the way back."""
    world = distributed.get_world_size()
    split, join = (2, 1) if gather_tokens else (1, 2)
    parts = [part.contiguous() for part in x.chunk(world, dim=split)]
    received = [torch.empty_like(part) for part in parts]
    if distributed.get_backend() == "gloo":  # has no all-to-all of its own
        mine = distributed.get_rank()
        pending = []
        for peer in range(world):
            if peer == mine:
                received[peer].copy_(parts[peer])
            else:
                pending += [distributed.isend(parts[peer], peer), distributed.irecv(received[peer], peer)]
        for work in pending:
            work.wait()
    else:
        distributed.all_to_all(received, parts)
    return torch.cat(received, dim=join)


class Exchange(torch.autograd.Function):
    """exchange, whose gradient is the exchange the other way."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, gather_tokens: bool) -> torch.Tensor:
        context.gather_tokens = gather_tokens
        return exchange(x, gather_tokens)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return exchange(gradient, not context.gather_tokens), None


def ulysses(attend: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """attend, a function of all tokens, for tensors of this process's tokens: queries, keys, values, perhaps a gate."""
    return Exchange.apply(attend(*(Exchange.apply(x, True) for x in tensors)), False)


def compare(attend: Callable[..., torch.Tensor], whole: list[torch.Tensor], dout: torch.Tensor) -> bool:
    """Whether the result and all gradients have the same bits as those of a single process."""
    rank, world = distributed.get_rank(), distributed.get_world_size()

    def share(x: torch.Tensor) -> torch.Tensor:
        return x.chunk(world, dim=1)[rank]

    mine = [share(x).detach().requires_grad_() for x in whole]
    out = ulysses(attend, *mine)
    out.backward(share(dout))
    alone = [x.detach().requires_grad_() for x in whole]
    expected = attend(*alone)
    expected.backward(dout)
    pairs = [(out, share(expected)), *((x.grad, share(y.grad)) for x, y in zip(mine, alone, strict=True))]
    return all(torch.equal(*pair) for pair in pairs)


def main() -> None:
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    canvas, tile, heads = (4, 8, 8), (4, 4, 4), 2 * world
    # Every process makes all of the tensors, so that it can compare; a model would have its share of them only.
    whole = [torch.randn(1, 4 * 8 * 8, heads, 64, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    *qkvg, dout = (x.to(device, torch.bfloat16) for x in whole)
    sliding = tilewright.SlidingTile(canvas, windows=(1, 1, 1), tile=tile)
    sparse = tilewright.VideoSparse(canvas, topk=2, tile=tile)
    same = {
        "sliding tile": compare(lambda q, k, v: tilewright.attention(q, k, v, sliding), qkvg[:3], dout),
        "video sparse": compare(
            lambda q, k, v, gate: tilewright.video_sparse_attention(q, k, v, sparse, gate=gate), qkvg, dout
        ),
    }
    for name, equal in same.items():
        if not equal:
            raise SystemExit(f"rank {rank}, {name}: the parallel result differs from the one of a single process")
        print(f"rank {rank} of {world}, {name}: the same bits as a single process, forward and backward")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
