#!/usr/bin/env bash
# test_nvrtc_versions.sh BUILD: NVRTC 12.9 and 13.x side by side, from their wheels (180 MB): they never share an entry.
# Installed in CI, or where TILEWRIGHT_TEST_NVRTC=1; else SKIP.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(realpath "$1")
venv=$build/nvrtc_versions
if ! ls "$venv"/lib/python3*/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12 >/dev/null 2>&1; then
  if [ -z "${CI:-}" ] && [ -z "${TILEWRIGHT_TEST_NVRTC:-}" ]; then
    echo "SKIP: TILEWRIGHT_TEST_NVRTC=1 installs NVRTC 12.9 and 13 (180 MB) and shows that they share no entry"
    exit 0
  fi
  if ! { python3 -m venv "$venv" &&
    "$venv/bin/pip" install --quiet 'nvidia-cuda-nvrtc-cu12==12.9.*' 'nvidia-cuda-nvrtc>=13.0,<14'; }; then
    echo "SKIP: the wheels of NVRTC 12.9 and 13 could not be installed"
    rm -rf "$venv"
    exit 0
  fi
fi
unset TILEWRIGHT_NVRTC # it would be the only one that is looked at
VIRTUAL_ENV=$venv TILEWRIGHT_EXPECT_NVRTC="12.9 13." "$build/tests/test_tools" --test-case="versions of NVRTC side by side*"
