#!/usr/bin/env bash
# test_sanitized.sh FOLDER [whole]: builds library, emulator and tests in FOLDER under the address and
# undefined-behaviour sanitizers, then under the thread sanitizer, and runs what each of them can judge. Emulated kernels
# are compiled with the same sanitizers. Without "whole": every kernel, pattern, type, head size and layout, the
# emulator, and what threads share; with it also the tools, and all other tests that can run.
# Without optimization: compiling costs more here than running does.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "$1"
folder=$(realpath "$1")
extent=${2:-short}
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
tools=OFF
[ "$extent" = whole ] && tools=ON
export TILEWRIGHT_SOURCE_DIR=$PWD
export ASAN_OPTIONS=detect_stack_use_after_return=0 # emulated threads find themselves by the address of their frame
export TSAN_OPTIONS=die_after_fork=0:history_size=4
# Here each kernel runs once: the orders of threads, and more problems, are for the other tests.
export TILEWRIGHT_EMULATOR_SEEDS=1 TILEWRIGHT_VIDEO_SPARSE_PROBLEMS=8

build() { # name sanitizers target...
  local name=$1 sanitizers=$2
  shift 2
  cmake -S . -B "$folder/$name" "${generator[@]}" -DTILEWRIGHT_SANITIZE="$sanitizers" -DCMAKE_BUILD_TYPE=Sanitized \
    -DCMAKE_CXX_FLAGS=-g1 -DTILEWRIGHT_TOOLS=$tools >"$folder/$name.log"
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

# Not under any of them: planted bugs, which a sanitizer ends the program for.
planted="*are found"

if [ "$extent" = whole ]; then
  build address address,undefined all
  for program in support problem schedule compiler driver reference operators tuner; do
    run address tests/test_$program
  done
  # Not: what traces its children (no leak check under ptrace), what runs Python or other builds of the library.
  ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 run address tests/test_cache
  # The real container's root folder has no /proc, which the sanitizers read.
  ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 run address tests/test_tools --test-case-exclude='*for real*'
  run address tests/test_kernels --test-case-exclude='*compile: sm_*'
  mkdir -p -m 700 "$folder/address/kernels"
  run address tests/mutation/mutation_judge "$folder/address/kernels" "${JOBS:-2}" --seeds 1 # without a mutant
else
  build address address,undefined test_emulator test_kernels
  run address tests/test_kernels --test-case='*under eight seeds*'
fi
run address tests/test_emulator --test-case-exclude="$planted"

build thread thread test_cache test_driver test_operators test_emulator
run thread tests/test_cache --test-case="64 threads*,a failure reaches every waiter*,pruning and publishing*"
run thread tests/test_driver --test-case="threads that miss together*"
run thread tests/test_operators --test-case="eight threads*"
if [ "$extent" = whole ]; then
  run thread tests/test_emulator --test-case-exclude="$planted"
else
  run thread tests/test_emulator --test-case="*host threads*"
fi
