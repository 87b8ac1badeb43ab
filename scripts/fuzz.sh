#!/usr/bin/env bash
# fuzz.sh FOLDER SECONDS: builds the fuzz targets (tests/fuzz) in FOLDER and runs each for so many seconds, from the kept
# corpora on. Says SKIP where clang or its libFuzzer is missing. New inputs go to FOLDER/corpus; what fails, to FOLDER.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
seconds=$2
mkdir -p "$folder"
if ! echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
  clang++ -x c++ -fsanitize=fuzzer,address - -o "$folder/probe" 2>/dev/null; then
  echo "SKIP: no clang++ with libFuzzer on this machine (Debian: apt-get install clang libclang-rt-dev)"
  exit 0
fi
cmake -S tests/fuzz -B "$folder" -DCMAKE_CXX_COMPILER=clang++ >"$folder/configure.log"
cmake --build "$folder" --parallel 1 >"$folder/build.log" || (cat "$folder/build.log"; exit 1)
for target in problem safetensors cache_entry block_lists; do
  mkdir -p "$folder/corpus/$target"
  dictionary=()
  case $target in
  problem) dictionary=(-dict=tests/fuzz/problem.dict) ;;
  safetensors | block_lists) dictionary=(-dict=tests/fuzz/safetensors.dict) ;;
  esac
  log=$folder/$target.log
  "$folder/fuzz_$target" -max_total_time="$seconds" -max_len=1024 -timeout=10 -malloc_limit_mb=1024 \
    -artifact_prefix="$folder/$target-" "${dictionary[@]}" "$folder/corpus/$target" "tests/fuzz/corpus/$target" \
    >"$log" 2>&1 || (tail -60 "$log"; exit 1)
  echo "$target: $(grep -E '^Done' "$log")"
done
