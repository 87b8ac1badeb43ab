"""Sequence parallel (Ulysses): tokens are spread over processes, heads over processes for the time of the attention.

    torchrun --nproc-per-node 2 python/examples/ulysses.py       # gloo on the CPU; nccl where there are GPUs

Each process holds its share of the video's tokens for all heads. One all-to-all gives it all tokens for its share of
the heads, in raster order, which is all that our operator needs; a second one takes the result back.
"""

import os

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


def ulysses_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pattern: tilewright.SlidingTile
) -> torch.Tensor:
    q, k, v = (exchange(x, gather_tokens=True) for x in (q, k, v))
    return exchange(tilewright.attention(q, k, v, pattern), gather_tokens=False)


def main() -> None:
    cuda = torch.cuda.is_available()
    distributed.init_process_group("nccl" if cuda else "gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    canvas, heads = (4, 8, 8), 2 * world
    pattern = tilewright.SlidingTile(canvas, windows=(1, 1, 1), tile=(4, 4, 4))
    whole = [torch.randn(1, 4 * 8 * 8, heads, 64, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    q, k, v = (x.to(device, torch.bfloat16) for x in whole)
    out = ulysses_attention(*(x.chunk(world, dim=1)[rank] for x in (q, k, v)), pattern)
    alone = tilewright.attention(q, k, v, pattern).chunk(world, dim=1)[rank]
    if not torch.equal(out, alone):
        raise SystemExit(f"rank {rank}: the parallel result differs from the one of a single process")
    print(f"rank {rank} of {world}: the same bits as a single process")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
