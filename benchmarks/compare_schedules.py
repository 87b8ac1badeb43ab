#!/usr/bin/env python3
"""Several schedules of one case of compare_gpu.py, in rounds that alternate between them and cuBLAS's 8192^3 product ("G").

    python3 benchmarks/compare_schedules.py --shim build/benchmarks/hopper/libtilewright_benchmark_shim.so PLAN.json

PLAN.json is a list of {"case": name, "schedules": ["" for the default, "family=...", ...], "against": ["cudnn", "loads"]}
(against: optional). A schedule that is refused, or whose result is wrong, is reported and left out."""

import argparse
import dataclasses
import json
import pathlib
import random

from cases import CASES
from contestants import Contestant, contestants_of
from shim import Tilewright


def schedules_of(torch, shim, case, schedules, against):
    case = dataclasses.replace(case, targets=tuple((name, 0) for name in against))
    found = []
    for schedule in schedules:
        try:
            ours, facts = contestants_of(torch, shim, dataclasses.replace(case, schedule=schedule), False)
        except RuntimeError as problem:
            print(f"  {schedule or 'default'}: {str(problem)[:400]}", flush=True)
            continue
        ours[0].name = schedule or "default " + facts["spec"].split("/", 1)[1]
        found += ours if not found else ours[:1]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=pathlib.Path)
    parser.add_argument("--shim", type=pathlib.Path, required=True, help="libtilewright_benchmark_shim.so")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--rest", type=float, default=0.0, help="seconds before each turn: the clock then starts high")
    parser.add_argument("--turn", type=float, default=0.1, help="seconds that a turn lasts, about")
    options = parser.parse_args()
    import torch

    shim = Tilewright(options.shim)
    a, b = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    cases = {case.name: case for case in CASES}
    for entry in json.loads(options.plan.read_text()):
        contestants = schedules_of(torch, shim, cases[entry["case"]], entry["schedules"], entry.get("against", []))
        contestants.append(Contestant(torch, "G", lambda: torch.matmul(a, b), 2 * 8192**3))
        for contestant in contestants:
            contestant.warm_up(turn=options.turn)
        order, shuffled = random.Random(0), list(contestants)
        for _ in range(options.rounds):
            order.shuffle(shuffled)
            for contestant in shuffled:
                contestant.round(options.rest)
        print(f"== {entry['case']}")
        for contestant in contestants:
            result = contestant.result()
            print(f"  {result['milliseconds']:8.3f} ms {result['tflops']:6.0f} TFLOP/s  {contestant.name}", flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
