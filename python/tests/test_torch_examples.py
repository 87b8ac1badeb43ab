"""The examples run as they stand."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


def run(*command):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_quick_start(capsys):
    runpy.run_path(str(EXAMPLES / "quick_start.py"))
    assert "torch.Size([1, 272, 2, 64])" in capsys.readouterr().out


def test_train_step(capsys):
    runpy.run_path(str(EXAMPLES / "train_step.py"))
    assert "gradient of the projection" in capsys.readouterr().out


def test_model_step_runs_on_a_cpu():
    """The last column is the difference of today's way and ours."""
    pytest.importorskip("torch.nn.attention.flex_attention", reason="SKIP: PyTorch before 2.5")
    small = "--canvas 4x8x8 --tile 4x4x4 --window 1x3x1 --heads 2 --head-dim 64 --layers 1 --rounds 1"
    said = run(str(BENCHMARKS / "compare_model_step.py"), "--device", "cpu", "--forward-only", *small.split())
    rows = [line.split("|") for line in said.splitlines() if line.startswith(("| attention", "| step"))]
    assert len(rows) == 2 and all(float(row[-2]) < 1e-2 for row in rows), said


def test_ulysses_on_two_processes():
    said = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(EXAMPLES / "ulysses.py"))
    for operator in ("sliding tile", "video sparse"):
        assert said.count(f"{operator}: the same bits as a single process, forward and backward") == 2
