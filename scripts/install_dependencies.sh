#!/usr/bin/env bash
# Installs what tilewright needs and this machine lacks: Debian packages, and NVRTC from PyPI where no CUDA toolkit is
# installed. Says what is missing where it may not install.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(g++ cmake make libfmt-dev nlohmann-json3-dev libxxhash-dev libboost-context-dev libpng-dev libcli11-dev
          libarchive-dev libssl-dev libcurl4-openssl-dev nginx-light openssl
          doctest-dev libbenchmark-dev python3-venv python3-dev)
missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then
    as_root=()
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; }; then
    as_root=(sudo)
  else
    echo "missing packages: ${missing[*]}; root or sudo may install them; ask for: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

has_nvrtc() {
  [ -n "${TILEWRIGHT_NVRTC:-}" ] || ldconfig -p | grep -q 'libnvrtc\.so\.1[23]' ||
    ls "${CUDA_HOME:-/usr/local/cuda}"/lib64/libnvrtc.so.1[23] >/dev/null 2>&1 ||
    ls .venv/lib/python3*/site-packages/nvidia/cu13/lib/libnvrtc.so.13 >/dev/null 2>&1
}
if ! has_nvrtc; then
  if ! { python3 -m venv .venv && .venv/bin/python -m pip install --quiet 'nvidia-cuda-nvrtc>=13.0,<14'; }; then
    echo "no NVRTC: the wheel nvidia-cuda-nvrtc could not be installed; kernels still run in the emulator; to compile for" \
         "GPUs install the CUDA toolkit, or the wheel into .venv, or set TILEWRIGHT_NVRTC" >&2
  fi
fi
