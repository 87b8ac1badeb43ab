#!/usr/bin/env bash
# Every source stands as clang-format wants it. --fix: make it so.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=(--dry-run --Werror)
[ "${1:-}" = --fix ] && mode=(-i)
git ls-files '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs clang-format "${mode[@]}"
