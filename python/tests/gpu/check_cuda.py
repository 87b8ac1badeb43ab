"""check_cuda.py [NAME...]: the operators on CUDA tensors. Prints a line a check; exit status 1 if one fails."""

from __future__ import annotations

import sys
import time
import traceback

import device_checks
import forward_checks
import host_checks
import torch
import training_checks
from checks import CHECKS

FILES = forward_checks, training_checks, device_checks, host_checks  # they fill the list


def main():
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    failed = 0
    wanted = [function for function in CHECKS if not sys.argv[1:] or function.__name__ in sys.argv[1:]]
    for function in wanted:
        start = time.perf_counter()
        try:
            said = function() or ""
            torch.cuda.synchronize()
            print(f"ok     {function.__name__} ({time.perf_counter() - start:.1f} s) {said}", flush=True)
        except Exception:
            failed += 1
            last = traceback.format_exc().strip().splitlines()
            print(f"FAILED {function.__name__}: {' | '.join(last[-3:])[:600]}", flush=True)
    print(f"{len(wanted) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
