"""Tests of the operators need PyTorch; those with numpy do not."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_torch*.py"]
