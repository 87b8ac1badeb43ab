#!/usr/bin/env python3
"""The same model step with today's way and with ours: a small random Wan-like transformer on raster tokens.

    python benchmarks/compare_model_step.py --json step.json                    # on a GPU
    python benchmarks/compare_model_step.py --device cpu --canvas 4x8x8 --tile 4x4x4 --window 1x1x1 --heads 2 \
        --head-dim 64 --layers 1 --rounds 1 --forward-only                      # does it run at all?

today  query, key and value re-ordered by tiles, FlexAttention over the tiles' block mask (compiled), re-ordered back
ours   tilewright.attention on the tokens as they are
dense  PyTorch's scaled_dot_product_attention over all tokens, for scale

Everything else (projections, norms, rotary embedding, cross attention, feed-forward) is the same code and the same
weights. Times are medians over rounds that alternate between the contestants.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import tilewright
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
TEXT_TOKENS, EXPANSION, ROTARY_BASE = 512, 4, 10000.0


def numbers(text: str) -> tuple[int, int, int]:
    t, h, w = (int(part) for part in text.split("x"))
    return t, h, w


class Block(torch.nn.Module):
    """Self-attention, cross-attention to the prompt, feed-forward: as Wan's, without modulation."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        width = heads * head_dim
        self.heads, self.head_dim = heads, head_dim
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(3))
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.norm_q, self.norm_k = torch.nn.RMSNorm(head_dim), torch.nn.RMSNorm(head_dim)
        self.out = torch.nn.Linear(width, width)
        self.cross_q, self.cross_out = torch.nn.Linear(width, width), torch.nn.Linear(width, width)
        self.cross_kv = torch.nn.Linear(width, 2 * width)
        self.up, self.down = torch.nn.Linear(width, EXPANSION * width), torch.nn.Linear(EXPANSION * width, width)

    def forward(
        self, x: torch.Tensor, prompt: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], attend: Attend
    ) -> torch.Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(2, (3, self.heads, self.head_dim)).unbind(2)
        q, k = (rotate(norm(y), *rotary) for norm, y in ((self.norm_q, q), (self.norm_k, k)))
        x = x + self.out(attend(q, k, v).flatten(2))
        q = self.cross_q(self.norms[1](x)).unflatten(2, (self.heads, self.head_dim))
        k, v = self.cross_kv(prompt).unflatten(2, (2, self.heads, self.head_dim)).unbind(2)
        mixed = F.scaled_dot_product_attention(*(y.transpose(1, 2) for y in (q, k, v))).transpose(1, 2)
        x = x + self.cross_out(mixed.flatten(2))
        return x + self.down(F.gelu(self.up(self.norms[2](x)), approximate="tanh"))


def rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    one, two = x.chunk(2, dim=-1)
    return torch.cat((one * cosine - two * sine, one * sine + two * cosine), dim=-1)


def rotary_of(tokens: int, head_dim: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    steps = ROTARY_BASE ** (-torch.arange(head_dim // 2, device=device) / (head_dim // 2))
    angles = (torch.arange(tokens, device=device)[:, None] * steps)[None, :, None]
    return angles.cos().bfloat16(), angles.sin().bfloat16()


class Tiles:
    """The order of tiles, and who sees whom: docs/semantics.md, "Sliding tile attention"."""

    def __init__(self, canvas: tuple[int, int, int], tile: tuple[int, int, int], device: str) -> None:
        axes = torch.meshgrid(*(torch.arange(extent, device=device) for extent in canvas), indexing="ij")
        self.counts = [extent // size for extent, size in zip(canvas, tile, strict=True)]
        place = [axis // size for axis, size in zip(axes, tile, strict=True)]
        number = (place[0] * self.counts[1] + place[1]) * self.counts[2] + place[2]
        self.order = torch.argsort(number.flatten(), stable=True)
        self.back = torch.argsort(self.order)
        self.volume = math.prod(tile)

    def sees(self, window: tuple[int, int, int]) -> torch.Tensor:
        """bool [tiles, tiles]."""
        device = self.order.device
        axes = []
        for count, extent in zip(self.counts, window, strict=True):
            width = min(extent // 2 * 2 + 1, count)
            start = (torch.arange(count, device=device) - extent // 2).clamp(0, count - width)
            key = torch.arange(count, device=device)
            axes.append((key >= start[:, None]) & (key < start[:, None] + width))
        t, h, w = axes
        tiles = math.prod(self.counts)
        whole = t[:, None, None, :, None, None] & h[None, :, None, None, :, None] & w[None, None, :, None, None, :]
        return whole.reshape(tiles, tiles)


def block_mask(sees: torch.Tensor, volume: int) -> BlockMask:
    """FlexAttention's mask: whole blocks only, since tiles are whole blocks."""
    block = math.gcd(volume, 128)
    blocks = sees.repeat_interleave(volume // block, 0).repeat_interleave(volume // block, 1)
    counts = blocks.sum(-1, dtype=torch.int32)[None, None]
    indices = torch.argsort(~blocks, dim=-1, stable=True).int()[None, None].contiguous()

    def of_tokens(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return sees[query // volume, key // volume]  # for the CPU: in kernels whole blocks need no mask

    return BlockMask.from_kv_blocks(
        torch.zeros_like(counts), torch.zeros_like(indices), counts, indices, block, mask_mod=of_tokens
    )


def contestants(arguments: argparse.Namespace) -> dict[str, Attend]:
    tiles = Tiles(arguments.canvas, arguments.tile, arguments.device)
    mask = block_mask(tiles.sees(arguments.window), tiles.volume)
    pattern = tilewright.SlidingTile(arguments.canvas, arguments.window, arguments.tile)
    flex = flex_attention if arguments.device == "cpu" else torch.compile(flex_attention, dynamic=False)

    def today(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (x[:, tiles.order].transpose(1, 2).contiguous() for x in (q, k, v))
        return flex(q, k, v, block_mask=mask).transpose(1, 2)[:, tiles.back]

    def ours(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return tilewright.attention(q, k, v, pattern)

    def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    return {"today": today, "ours": ours, "dense": dense}


class Step:
    """One step of a model with a contestant's attention."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(1)
        device, heads, head_dim = arguments.device, arguments.heads, arguments.head_dim
        tokens, width = math.prod(arguments.canvas), arguments.heads * arguments.head_dim
        self.blocks = [Block(heads, head_dim).to(device, torch.bfloat16) for _ in range(arguments.layers)]
        self.x = torch.randn(1, tokens, width, device=device, dtype=torch.bfloat16)
        self.prompt = torch.randn(1, TEXT_TOKENS, width, device=device, dtype=torch.bfloat16)
        self.rotary = rotary_of(tokens, head_dim, device)
        self.gradient = torch.randn_like(self.x)

    def forward(self, attend: Attend) -> torch.Tensor:
        x = self.x
        for block in self.blocks:
            x = block(x, self.prompt, self.rotary, attend)
        return x

    def inference(self, attend: Attend) -> torch.Tensor:
        with torch.no_grad():
            return self.forward(attend)

    def training(self, attend: Attend) -> torch.Tensor:
        """The gradient of the first block's projection."""
        for block in self.blocks:
            block.zero_grad()
        self.forward(attend).backward(self.gradient)
        return self.blocks[0].qkv.weight.grad


def attention_alone(arguments: argparse.Namespace, backward: bool) -> Callable[[Attend], torch.Tensor]:
    shape = 1, math.prod(arguments.canvas), arguments.heads, arguments.head_dim
    tensors = [torch.randn(shape, device=arguments.device, dtype=torch.bfloat16) for _ in range(4)]

    def run(attend: Attend) -> torch.Tensor:
        q, k, v = (x.requires_grad_(backward) for x in tensors[:3])
        out = attend(q, k, v)
        return torch.autograd.grad(out, q, tensors[3])[0] if backward else out

    return run


def milliseconds(function: Callable[[], object], device: str) -> float:
    if device == "cpu":
        start = time.perf_counter()
        function()
        return (time.perf_counter() - start) * 1e3
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    function()
    after.record()
    after.synchronize()
    return before.elapsed_time(after)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative, in the Euclidean norm."""
    return float((a.float() - b.float()).norm() / b.float().norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canvas", type=numbers, default=(18, 48, 80))
    parser.add_argument("--tile", type=numbers, default=(6, 8, 8))
    parser.add_argument("--window", type=numbers, default=(3, 3, 3))
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--forward-only", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the table there")
    arguments = parser.parse_args()
    if any(extent % size for extent, size in zip(arguments.canvas, arguments.tile, strict=True)):
        parser.error("the canvas is no multiple of the tile, which today's way cannot do")

    ways = contestants(arguments)
    step = Step(arguments)
    measured = {"attention": attention_alone(arguments, False), "step": step.inference}
    if not arguments.forward_only:
        measured |= {"attention, forward and backward": attention_alone(arguments, True)}
        measured |= {"step, forward and backward": step.training}
    rows = []
    for name, run in measured.items():
        error = difference(run(ways["ours"]), run(ways["today"]))  # compiles, too
        times: dict[str, list[float]] = {way: [] for way in ways}
        for attempt in range(arguments.rounds + 1):
            for way, attend in ways.items():
                spent = milliseconds(lambda run=run, attend=attend: run(attend), arguments.device)
                if attempt > 0 or arguments.rounds == 1:
                    times[way].append(spent)
        medians = {way: statistics.median(values) for way, values in times.items()}
        rows.append({"what": name, "milliseconds": medians, "ours_against_today": error})
    print("| what | today, ms | ours, ms | today / ours | dense, ms | difference of ours and today |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        ms = row["milliseconds"]
        ratio = ms["today"] / ms["ours"]
        print(
            f"| {row['what']} | {ms['today']:.2f} | {ms['ours']:.2f} | {ratio:.2f} | {ms['dense']:.2f} "
            f"| {row['ours_against_today']:.1e} |"
        )
    if arguments.json:
        device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
        settings = {key: value for key, value in vars(arguments).items() if key != "json"}
        arguments.json.write_text(
            json.dumps({"device": device, "torch": torch.__version__, "settings": settings, "rows": rows}, indent=1)
            + "\n"
        )


if __name__ == "__main__":
    main()
