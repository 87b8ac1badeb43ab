#!/usr/bin/env bash
# test_sanitized.sh FOLDER [PART...]: builds library, tools, emulator and tests in FOLDER under sanitizers, and runs what
# these can judge. Emulated kernels are compiled with the same sanitizers. Without a part, the first three, which CI runs:
#   tools         the tilewright command, with the library in it, and the cache        address, undefined behaviour
#   kernels       every kernel x pattern x type x head size x layout, the emulator     likewise
#   threads       what threads share                                     thread sanitizer
#   library       the library's units                                    address, undefined behaviour
#   long          what library and tools leave out                       address, undefined behaviour
#   long-kernels  all emulated kernels' tests                            address, undefined behaviour
#   judge         the mutation judge's cases, without a mutant           address, undefined behaviour
#   long-threads  all of the emulator's tests                            thread sanitizer
# "whole": all of them. Without optimization, and each folder of sources as one: compiling costs more here than running.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "$1"
folder=$(realpath "$1")
shift
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(tools kernels threads)
[ "${parts[*]}" != whole ] || parts=(tools kernels threads library long long-kernels judge long-threads)
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
export TILEWRIGHT_SOURCE_DIR=$PWD
# Emulated threads find themselves by the address of their frame. Commands that end with 1 or 2 are what tests expect.
export ASAN_OPTIONS=detect_stack_use_after_return=0:exitcode=86
export TSAN_OPTIONS=die_after_fork=0:history_size=4
# Here each kernel runs once: the orders of threads, and more problems, are for the other tests.
export TILEWRIGHT_EMULATOR_SEEDS=1 TILEWRIGHT_VIDEO_SPARSE_PROBLEMS=8

build() { # name sanitizers tools target...
  local name=$1 sanitizers=$2 tools=$3 log=$folder/$1.log
  shift 3
  cmake -S . -B "$folder/$name" "${generator[@]}" -DTILEWRIGHT_SANITIZE="$sanitizers" -DCMAKE_BUILD_TYPE=Sanitized \
    -DCMAKE_CXX_FLAGS=-g1 -DTILEWRIGHT_TOOLS="$tools" -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=0 >"$log" &&
    cmake --build "$folder/$name" --parallel "${JOBS:-2}" --target "$@" >>"$log" ||
    (tail -60 "$log"; echo "ERROR: no build under $sanitizers: $*"; exit 1)
}
build_address() { build address address,undefined ON "$@"; }
build_thread() { build thread thread OFF "$@"; }

run() { # name program argument...
  local name=$1 program=$2
  shift 2
  TILEWRIGHT_CACHE=$folder/$name/cache "$folder/$name/$program" "$@" >"$folder/$name.run.log" 2>&1 ||
    (tail -120 "$folder/$name.run.log"; echo "ERROR: failed under the $name sanitizer: $program $*"; exit 1)
  echo "$name: $program $* $(grep -E '^\[doctest\] test cases' "$folder/$name.run.log" | sed 's/.*cases: *//')"
}

# Not under any of them: planted bugs, which a sanitizer ends the program for.
planted="*are found"
# In the long parts only. Compilers at work: NVRTC is not ours to judge. A thousand processes killed at random: whatever a
# sanitizer saw in them, nobody hears of it. The float64 reference at length.
compiles="*without spills*,the benchmark's load-only*,NVRTC 13?0 compiles*"
long_reference="*finite differences*,a planted failure is shrunk*,random problems: the reference passes*,*every feature is drawn"
killed="SIGKILL at random*"
warmups="*warmup*"
# Not at all: the real container's root folder has no /proc, which the sanitizers read.
container="*for real*"

for part in "${parts[@]}"; do
  case $part in
  library)
    build_address test_support test_problem test_schedule test_compiler test_driver test_reference test_operators test_tuner
    for program in support problem schedule driver operators tuner; do
      run address tests/test_$program
    done
    run address tests/test_compiler --test-case-exclude="$compiles"
    run address tests/test_reference --test-case-exclude="$long_reference"
    ;;
  tools)
    build_address test_cache test_tools
    run address tests/test_cache --test-case-exclude="$killed"
    run address tests/test_tools --test-case-exclude="$warmups,$container"
    ;;
  kernels)
    build_address test_emulator test_kernels
    run address tests/test_kernels --test-case='*under eight seeds*'
    run address tests/test_emulator --test-case-exclude="$planted"
    ;;
  threads)
    build_thread test_cache test_driver test_operators test_emulator
    run thread tests/test_cache --test-case="64 threads*,a failure reaches every waiter*,pruning and publishing*"
    run thread tests/test_driver --test-case="threads that miss together*"
    run thread tests/test_operators --test-case="eight threads*"
    run thread tests/test_emulator --test-case="*host threads*"
    ;;
  long)
    build_address test_compiler test_reference test_cache test_tools
    run address tests/test_compiler --test-case="$compiles"
    run address tests/test_reference --test-case="$long_reference"
    run address tests/test_cache --test-case="$killed"
    run address tests/test_tools --test-case="$warmups"
    ;;
  long-kernels)
    build_address test_kernels
    run address tests/test_kernels --test-case-exclude='*compile: sm_*'
    ;;
  judge)
    build_address mutation_judge
    mkdir -p -m 700 "$folder/address/kernels"
    run address tests/mutation/mutation_judge "$folder/address/kernels" "${JOBS:-2}" --seeds 1
    ;;
  long-threads)
    build_thread test_emulator
    run thread tests/test_emulator --test-case-exclude="$planted"
    ;;
  *)
    echo "ERROR: there is no part '$part': tools, kernels, threads, library, long, long-kernels, judge, long-threads, whole"
    exit 1
    ;;
  esac
done
echo "no sanitizer complained: ${parts[*]}"
