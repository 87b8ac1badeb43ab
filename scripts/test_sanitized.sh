#!/usr/bin/env bash
# test_sanitized.sh FOLDER [whole]: builds library, tools, emulator and tests in FOLDER under the address and
# undefined-behaviour sanitizers, then under the thread sanitizer, and runs what each of them can judge. Emulated kernels
# are compiled with the same sanitizers. Without "whole": a selection that CI has the time for.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "$1"
folder=$(realpath "$1")
extent=${2:-short}
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
export TILEWRIGHT_SOURCE_DIR=$PWD
export ASAN_OPTIONS=detect_stack_use_after_return=0 # emulated threads find themselves by the address of their frame
export TSAN_OPTIONS=die_after_fork=0:history_size=4

tools=OFF # they take as long to build as all that is tested of the rest
[ "$extent" = whole ] && tools=ON

build() { # name sanitizers target...
  local name=$1 sanitizers=$2
  shift 2
  cmake -S . -B "$folder/$name" "${generator[@]}" -DTILEWRIGHT_SANITIZE="$sanitizers" -DCMAKE_BUILD_TYPE= \
    -DCMAKE_CXX_FLAGS="-O1 -g1" -DTILEWRIGHT_TOOLS=$tools >"$folder/$name.log"
  cmake --build "$folder/$name" --parallel "${JOBS:-2}" --target "$@" >>"$folder/$name.log" ||
    (tail -60 "$folder/$name.log"; exit 1)
}

run() { # name program argument...
  local name=$1 program=$2
  shift 2
  TILEWRIGHT_CACHE=$folder/$name/cache "$folder/$name/$program" "$@" >"$folder/run.log" 2>&1 ||
    (tail -120 "$folder/run.log"; echo "failed under $name: $program $*"; exit 1)
  echo "$name: $program $* $(grep -E '^\[doctest\] test cases' "$folder/run.log" | sed 's/.*cases: *//')"
}

judge() { # name argument...: kernels on their problems, without a mutant
  mkdir -p -m 700 "$folder/$1/kernels"
  run "$1" tests/mutation/mutation_judge "$folder/$1/kernels" "${JOBS:-2}" "${@:2}"
}

if [ "$extent" = whole ]; then
  build address address,undefined all
  for program in support problem schedule compiler driver reference operators tuner emulator; do
    run address tests/test_$program
  done
  # Not: what traces its children (no leak check under ptrace), what runs Python or other builds of the library.
  ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 run address tests/test_cache
  ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 run address tests/test_tools
  judge address
else
  build address address,undefined test_emulator mutation_judge
  run address tests/test_emulator --test-case-exclude="*ten classic*"
  for case in "sm80 lists tiled" "sm90 merged tiled" "sm90 sliding tiled" "sm80 backward lists tiled" \
    "sm90 backward lists tiled" "select 129" "lists 70 x 33" "video sparse gate from seed 0, sm_90a"; do
    judge address --seeds 1 --case "$case"
  done
fi

build thread thread test_cache test_operators test_emulator
run thread tests/test_cache --test-case="64 threads*,a failure reaches every waiter*,pruning and publishing*"
run thread tests/test_operators --test-case="eight threads*"
run thread tests/test_emulator --test-case="*host threads*"
