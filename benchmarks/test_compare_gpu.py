#!/usr/bin/env python3
"""The parts of compare_gpu.py that need no GPU: FLOP counts, ratios and targets, JSON and plots."""

import itertools
import json
import math
import pathlib
import tempfile
import unittest
import xml.dom.minidom

import compare_gpu
from cases import CASES, Case, flops_of


def brute_force_pairs(case):
    """Query-key pairs of one sliding tile case, asked pair by pair."""
    tokens = list(itertools.product(*map(range, case.canvas)))
    tiles = [math.ceil(c / s) for c, s in zip(case.canvas, case.tile)]
    pairs = 0
    for head in range(case.heads):
        windows = case.windows[head % len(case.windows)]

        def seen(query, key):
            for q, k, window, size, count in zip(query, key, windows, case.tile, tiles):
                width = min(window // 2 * 2 + 1, count)
                start = max(0, min(q // size - window // 2, count - width))
                if not start <= k // size < start + width:
                    return False
            return True

        pairs += sum(seen(q, k) for q in tokens for k in tokens)
        text = max(case.text, 0)
        pairs += len(tokens) * text + text * (len(tokens) + text)
    return pairs


def fake(tflops, milliseconds=1.0):
    return {"milliseconds": milliseconds, "tflops": tflops, "rounds": [milliseconds]}


class CompareGpu(unittest.TestCase):
    def test_flops_count_valid_pairs(self):
        for canvas, text in (((5, 7, 9), 4), ((4, 6, 8), -1), ((1, 3, 5), 0)):
            case = Case("x", "sliding_tile", 2, canvas, tile=(2, 3, 4), windows=((3, 1, 1), (2, 2, 3)), text=text)
            self.assertEqual(flops_of(case), 4 * 128 * brute_force_pairs(case))
        self.assertAlmostEqual(flops_of(CASES[0]) * 1e-9, 8806, delta=0.5)

    def test_targets_are_judged_by_ratios_of_the_same_run(self):
        case = CASES[0]  # 1.05 G and 1.12 cuDNN
        results = {case.name: {"ours": fake(704), "G": fake(670), "cudnn": fake(630), "flex": fake(440)}}
        self.assertEqual([kept for *_, kept in compare_gpu.verdicts(case, results)], [True, False])
        row = compare_gpu.row_of(case, results)
        self.assertIn("1.05", row)
        self.assertIn("MISSED", row)
        self.assertIn("1.60", row)  # against FlexAttention
        self.assertEqual(compare_gpu.row_of(case, {case.name: {"error": "no"}}).split(), ["sta", "3x3x3", "no"])

    def test_ragged_canvas_is_judged_by_time_per_tile(self):
        ragged = next(case for case in CASES if "ragged" in case.name)
        results = {"sta 24x48x80": {"ours": fake(700, 10.0)}, ragged.name: {"ours": fake(600, 10.4)}}
        self.assertEqual([kept for *_, kept in compare_gpu.verdicts(ragged, results)], [True])  # both have 240 tiles
        results[ragged.name] = {"ours": fake(600, 10.6)}
        self.assertEqual([kept for *_, kept in compare_gpu.verdicts(ragged, results)], [False])

    def test_report_is_json_and_svg(self):
        results = {case.name: {"ours": fake(700), "G": fake(670), "cudnn": fake(620)} for case in CASES}
        with tempfile.TemporaryDirectory() as folder:
            compare_gpu.write_report(pathlib.Path(folder), results, {"gpu": "none"})
            written = sorted(path.name for path in pathlib.Path(folder).iterdir())
            self.assertEqual(written, ["compare_gpu.json", "dense_by_length.svg", "sliding_tile_by_share.svg"])
            self.assertEqual(json.loads((pathlib.Path(folder) / written[0]).read_text())["cases"], results)
            for name in written[1:]:
                picture = xml.dom.minidom.parse(str(pathlib.Path(folder) / name))
                self.assertGreaterEqual(len(picture.getElementsByTagName("polyline")), 2)


if __name__ == "__main__":
    unittest.main()
