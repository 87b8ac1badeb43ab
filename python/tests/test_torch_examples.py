"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*command):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_quick_start():
    assert "torch.Size([1, 272, 2, 64])" in run(str(EXAMPLES / "quick_start.py"))


def test_train_step():
    assert "gradient of the projection" in run(str(EXAMPLES / "train_step.py"))


def test_ulysses_on_two_processes():
    said = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(EXAMPLES / "ulysses.py"))
    assert said.count("the same bits as a single process, forward and backward") == 2
