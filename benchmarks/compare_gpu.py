#!/usr/bin/env python3
"""Measures, in one run on one GPU and in rounds that alternate between them: cuBLAS's 8192^3 bf16 product ("G"), cuDNN's
dense attention, FlexAttention with the same mask, and tilewright. Prints a table with ratios, writes JSON and SVG plots.

    cmake --build build --target tilewright_benchmark_shim
    python3 benchmarks/compare_gpu.py --shim build/benchmarks/hopper/libtilewright_benchmark_shim.so

FLOPs are 4 * head_dim * (valid query-key pairs). Times are medians over the rounds; every contestant is warmed up first
and data are random. Every case's result is compared with float32 attention on sampled rows before anything is timed."""
import argparse
import json
import math
import pathlib
import random
import sys

from cases import CASES, SMALL, window_tiles
from contestants import Contestant, contestants_of
from shim import Tilewright

HERE = pathlib.Path(__file__).resolve().parent


def measure(torch, shim, cases, rounds, with_flex, report):
    """Returns what was measured, by case; report(that) after every case: who stops the program keeps the rest."""
    device = torch.device("cuda")
    a, b = (torch.randn(8192, 8192, device=device).bfloat16() for _ in range(2))
    results = {}
    for case in cases:
        try:
            contestants, facts = contestants_of(torch, shim, case, with_flex)
            contestants.append(Contestant(torch, "G", lambda: torch.matmul(a, b), 2 * 8192**3))
            for contestant in contestants:
                contestant.warm_up()
            order = random.Random(0)
            for _ in range(rounds):
                order.shuffle(contestants)
                for contestant in contestants:
                    contestant.round()
            results[case.name] = {**facts, **{c.name: c.result() for c in contestants}}
        except Exception as problem:  # one case must not take the others along
            results[case.name] = {"error": f"{type(problem).__name__}: {problem}"}
        torch.cuda.empty_cache()
        print(row_of(case, results), flush=True)
        report(results)
    return results


HEADER = f"{'case':28} {'ms':>9} {'TFLOP/s':>8} {'/ G':>6} {'/ cuDNN':>8} {'/ flex':>7}  targets"


def verdicts(case, results):
    """(target, reached, kept) for each target of a case."""
    result = results[case.name]
    for against, at_least in case.targets:
        if against == "tflops":
            reached = result["ours"]["tflops"]
        elif against.startswith("time of "):
            # Time per tile against that of another case: at most so much.
            other = results.get(against.removeprefix("time of "), {})
            if "ours" not in other:
                continue
            tiles = [math.prod(math.ceil(c / s) for c, s in zip(of.canvas, of.tile))
                     for of in (case, next(c for c in CASES if c.name == against.removeprefix("time of ")))]
            reached = result["ours"]["milliseconds"] / tiles[0] / (other["ours"]["milliseconds"] / tiles[1])
            yield against, at_least, reached, reached <= at_least
            continue
        else:
            reached = result["ours"]["tflops"] / result[against]["tflops"]
        yield against, at_least, reached, reached >= at_least


def row_of(case, results):
    result = results[case.name]
    if "error" in result:
        return f"{case.name:28} {result['error']}"
    ours = result["ours"]

    def ratio(name, width):
        return f"{ours['tflops'] / result[name]['tflops']:{width}.2f}" if name in result else " " * (width - 1) + "-"

    targets = "  ".join(f"{against} {reached:.2f} {'>=' if not against.startswith('time') else '<='} {wanted:g}"
                        f" {'ok' if kept else 'MISSED'}" for against, wanted, reached, kept in verdicts(case, results))
    return (f"{case.name:28} {ours['milliseconds']:9.3f} {ours['tflops']:8.0f} {ratio('G', 6)} {ratio('cudnn', 8)} "
            f"{ratio('flex', 7)}  {targets}").rstrip()


def svg_plot(title, x_label, series):
    """series: name -> [(x, y)]. One line each, axes from 0."""
    width, height, left, bottom = 640, 400, 60, 50
    points = [point for line in series.values() for point in line]
    x_max, y_max = max(x for x, _ in points) * 1.05, max(y for _, y in points) * 1.1

    def place(x, y):
        return left + x / x_max * (width - left - 20), height - bottom - y / y_max * (height - bottom - 40)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
             f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>',
             f'<text x="{width / 2}" y="20" text-anchor="middle">{title}</text>',
             f'<text x="{width / 2}" y="{height - 10}" text-anchor="middle">{x_label}</text>']
    for i in range(6):
        x, y = place(0, y_max * i / 5)
        parts.append(f'<line x1="{x}" y1="{y:.1f}" x2="{width - 20}" y2="{y:.1f}" stroke="#ddd"/>'
                     f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">{y_max * i / 5:.0f}</text>')
        x, y = place(x_max * i / 5, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 16}" text-anchor="middle">{x_max * i / 5:.3g}</text>')
    for i, (name, line) in enumerate(sorted(series.items())):
        color = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad")[i % 4]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in sorted(line)))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
                     f'<text x="{left + 10}" y="{height - bottom - 10 - 16 * i}" fill="{color}">{name}</text>')
    return "\n".join(parts + ["</svg>\n"])


def plots(results):
    """file name -> SVG: TFLOP/s against sequence length, and against the share of the key tiles that is kept."""
    by_length, by_share = {}, {}
    for case in CASES:
        result = results.get(case.name, {})
        if "ours" not in result or case.schedule:
            continue
        for name in ("ours", "cudnn", "G"):
            if name not in result:
                continue
            if case.pattern == "dense":
                by_length.setdefault(name, []).append((case.tokens / 1024, result[name]["tflops"]))
            elif (case.canvas, case.head_dim, case.query_scale, len(case.windows)) == (SMALL, 128, 1.0, 1) and name != "cudnn":
                share = math.prod(window_tiles(case, case.windows[0])) / math.prod(
                    math.ceil(c / s) for c, s in zip(case.canvas, case.tile))
                by_share.setdefault(name, []).append((share, result[name]["tflops"]))
    pictures = {}
    if by_length:
        pictures["dense_by_length.svg"] = svg_plot("Dense attention, 12 heads of 128, bf16: TFLOP/s", "1024 tokens", by_length)
    if by_share:
        pictures["sliding_tile_by_share.svg"] = svg_plot(
            "Sliding tile attention, canvas 18x48x80, 24 heads of 128, bf16: TFLOP/s", "share of key tiles kept", by_share)
    return pictures


def write_report(folder, results, about):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare_gpu.json").write_text(json.dumps({"about": about, "cases": results}, indent=1) + "\n")
    for name, text in plots(results).items():
        (folder / name).write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shim", type=pathlib.Path, required=True, help="libtilewright_benchmark_shim.so")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "results" / "h100", help="folder for JSON and SVG")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", default="", help="part of the cases' names")
    parser.add_argument("--no-flex", action="store_true", help="leave FlexAttention out: it takes seconds a case to compile")
    options = parser.parse_args()
    import torch

    cases = [case for case in CASES if options.only in case.name]
    about = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
             "rounds": options.rounds, "command": " ".join(sys.argv)}
    print(HEADER)
    results = measure(torch, Tilewright(options.shim), cases, options.rounds, not options.no_flex,
                      lambda measured: write_report(options.output, measured, about))
    failed = [case.name for case in cases
              if "error" in results[case.name] or not all(kept for *_, kept in verdicts(case, results))]
    print(f"{len(cases) - len(failed)} of {len(cases)} cases reach their targets" + (f"; not: {failed}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
