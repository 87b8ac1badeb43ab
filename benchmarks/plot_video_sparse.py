#!/usr/bin/env python3
"""Tables and a plot out of what `tilewright bench video_sparse_attention:... --json` printed.

    plot_video_sparse.py bench.jsonl --svg crossover.svg > tables.md

bench.jsonl alternates {"command": "..."} and the result of that command. The plot shows, for each canvas, how many
times as fast as dense attention the whole operator is, over the share of tiles that is left out.
"""
import argparse
import json
import re

STAGES = ("whole", "pool and select", "select", "fine, blended", "fine alone", "dense")
COLOURS = ("#28589f", "#d7502a", "#3f8f4f", "#8a5fb0", "#7a7a7a")


def read_runs(path):
    runs, command = [], ""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if "command" in entry:
                command = entry["command"]
            else:
                runs.append((command, entry))
    return runs


def option(command, name):
    found = re.search(rf"--{name} (\S+)", command)
    return found.group(1) if found else None


def stage_table(runs):
    rows = ["| canvas, heads, kept, tokens | " + " | ".join(STAGES) + " | fine TFLOP/s |", "| --- " * (len(STAGES) + 2) + "|"]
    for command, run in runs:
        kept = f"top-k {option(command, 'topk')}" if option(command, "topk") else f"sparsity {option(command, 'sparsity')}"
        tokens = "real" if option(command, "input") else "random"
        cells = [f"{run['stages'][s]['milliseconds']:.3f}" if s in run["stages"] else "" for s in STAGES]
        rows.append(f"| {option(command, 'canvas')}, {option(command, 'heads')}, {kept}, {tokens} | " + " | ".join(cells)
                    + f" | {run['fine_tflops']:.0f} |")
    return "\n".join(rows)


def crossover(runs):
    """canvas -> [(sparsity, dense / whole)], ascending."""
    curves = {}
    for command, run in runs:
        if option(command, "sparsity") and "dense" in run["stages"]:
            ratio = run["stages"]["dense"]["milliseconds"] / run["stages"]["whole"]["milliseconds"]
            curves.setdefault(option(command, "canvas"), []).append((float(option(command, "sparsity")), ratio))
    return {canvas: sorted(points) for canvas, points in curves.items()}


def svg(curves, width=640, height=400, left=60, bottom=50):
    top = max(ratio for points in curves.values() for _, ratio in points) * 1.05
    x = lambda sparsity: left + sparsity * (width - left - 20)
    y = lambda ratio: height - bottom - ratio / top * (height - bottom - 20)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for step in range(int(top) + 1):
        bold = 2 if step == 1 else 0.5
        out.append(f'<line x1="{left}" x2="{width - 20}" y1="{y(step):.1f}" y2="{y(step):.1f}" stroke="#999" stroke-width="{bold}"/>'
                   f'<text x="{left - 8}" y="{y(step) + 4:.1f}" text-anchor="end">{step}</text>')
    for step in range(0, 11, 2):
        out.append(f'<text x="{x(step / 10):.1f}" y="{height - bottom + 18}" text-anchor="middle">{step / 10:.1f}</text>')
    for colour, (canvas, points) in zip(COLOURS, curves.items()):
        path = " ".join(f"{x(s):.1f},{y(r):.1f}" for s, r in points)
        t, h, w = map(int, canvas.split("x"))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x(s):.1f}" cy="{y(r):.1f}" r="3" fill="{colour}"/>' for s, r in points]
        row = 30 + 18 * list(curves).index(canvas)
        out.append(f'<text x="{left + 16}" y="{row}" fill="{colour}">{canvas}: {t * h * w} tokens</text>')
    out.append(f'<text x="{(left + width) / 2}" y="{height - 12}" text-anchor="middle">sparsity: share of the tiles left out</text>')
    out.append(f'<text transform="translate(16 {height / 2}) rotate(-90)" text-anchor="middle">speed over dense attention</text></svg>')
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("--svg")
    arguments = parser.parse_args()
    runs = read_runs(arguments.results)
    print(stage_table(runs))
    curves = crossover(runs)
    for canvas, points in curves.items():
        crossed = next((p for p in zip(points, points[1:]) if p[0][1] < 1 <= p[1][1]), None)
        if crossed:
            (s0, r0), (s1, r1) = crossed
            print(f"\n{canvas}: dense is as fast at a sparsity of {s0 + (1 - r0) / (r1 - r0) * (s1 - s0):.2f}", end="")
        else:
            side = "faster" if points[0][1] >= 1 else "slower"
            print(f"\n{canvas}: {side} than dense at every sparsity measured, {points[0][0]} to {points[-1][0]}", end="")
    print()
    if arguments.svg and curves:
        with open(arguments.svg, "w", encoding="utf-8") as file:
            file.write(svg(curves))


if __name__ == "__main__":
    main()
