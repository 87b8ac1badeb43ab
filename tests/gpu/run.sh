#!/usr/bin/env bash
# run.sh BUILD: everything that only a GPU can tell, for whoever has one. BUILD is a build folder with the targets
# tilewright_command and test_gpu; with tilewright_benchmark_shim and PyTorch the comparison with cuDNN runs, too.
#   1. random problems against the float64 reference (TILEWRIGHT_GPU_PROBLEMS, default 400 for each kernel family)
#   2. 20 of them under compute-sanitizer's memcheck and racecheck, where that is installed
#   3. tilewright bench, for the default schedule and for the generic family's (sm80)
#   4. benchmarks/compare_gpu.py and compare_backward.py
# Writes run.log, steps.jsonl and bench.jsonl under ${OUT:-benchmarks/results/DATE-GPU}. Uses no network. The exit
# status is 0 where every step that could run succeeded, 1 otherwise, without a GPU too, 2 for wrong usage.
set -uo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${1:-}" 2>/dev/null && [ $# -eq 1 ] && pwd) || {
  echo "usage: $0 BUILD (a folder made with cmake -S $repository -B BUILD)" >&2
  exit 2
}
tilewright=$build/tilewright
tests=$build/tests/test_gpu
shim=$build/benchmarks/hopper/libtilewright_benchmark_shim.so
for program in "$tilewright" "$tests"; do
  [ -x "$program" ] || {
    echo "$program is missing; build it: cmake --build $build --target tilewright_command test_gpu" >&2
    exit 2
  }
done
export TILEWRIGHT_CACHE=${TILEWRIGHT_CACHE:-$build/gpu_cache}

probe=$("$tilewright" bench attention_forward:pattern=dense --tokens 64 --heads 1 --rounds 1 --device cuda --json) || {
  echo "no GPU that tilewright can use (see the message above); nothing was tested" >&2
  exit 1
}
gpu=$(sed -n 's/.*"device":"\([^"]*\)".*/\1/p' <<<"$probe")
out=${OUT:-$repository/benchmarks/results/$(date +%F)-$(tr -cs '[:alnum:]\n' '-' <<<"$gpu")}
mkdir -p "$out" && : >"$out/run.log" && : >"$out/steps.jsonl" && : >"$out/bench.jsonl" || exit 1
failures=0

say() { echo "$*" | tee -a "$out/run.log"; }

# step NAME COMMAND...: runs it, and notes in steps.jsonl how it ended. NAME needs no escape in JSON.
step() {
  local name=$1 begin=$SECONDS status
  shift
  say "== $name: $*"
  "$@" 2>&1 | tee -a "$out/run.log"
  status=${PIPESTATUS[0]}
  [ "$status" -eq 0 ] || failures=$((failures + 1))
  printf '{"step":"%s","exit_status":%d,"seconds":%d}\n' "$name" "$status" $((SECONDS - begin)) >>"$out/steps.jsonl"
}

# bench PROBLEM OPTION...: one line in bench.jsonl, the command with it.
bench() {
  local result
  result=$("$tilewright" bench "$@" --device cuda --json) || return
  printf '{"command":"tilewright bench %s","result":%s}\n' "$*" "$result" | tee -a "$out/bench.jsonl"
}

# bench_both NAME PROBLEM OPTION...: with the default schedule, and with the one that a GPU of sm_80 gets.
bench_both() {
  local name=$1 problem=$2 schedule
  shift 2
  step "$name" bench "$problem" "$@"
  schedule=$("$tilewright" compile "$problem" --arch sm_80 --json | sed -n 's/.*"schedule":"\([^"]*\)".*/\1/p')
  step "$name, family sm80" bench "$problem" "$@" --schedule "${schedule:-none}" # "none" is refused: the step fails where compile did
}

say "== $gpu, $(date -u +%FT%TZ), tilewright $(git -C "$repository" rev-parse --short HEAD 2>/dev/null || echo unknown)"
step "tilewright doctor" "$tilewright" doctor

# Compiling kernels and the reference take the time, not the GPU: several processes share a test's problems.
shared() {
  local filter=$1 problems=$2 processes=8 first failed=0 jobs=()
  local each=$(((problems + processes - 1) / processes))
  for ((first = 0; first < problems; first += each)); do
    TILEWRIGHT_GPU_PROBLEMS=$each TILEWRIGHT_GPU_SEED=$first "$tests" --test-case="$filter" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
  return $failed
}
count=${TILEWRIGHT_GPU_PROBLEMS:-400}
step "graph capture" "$tests" --test-case="*captur*"
# A comma would separate two filters, so a ? stands for it.
step "random problems of the generic family" shared "random problems? generic family" "$count"
step "random problems of the Hopper family" shared "random problems? Hopper family" "$count"
step "random backward problems" shared "random backward problems of*" $((count * 3 / 4))
step "random problems of video sparse gradients" shared "*gradient: random problems*" $((count / 2))
step "random problems of video sparse attention" shared "video sparse attention: random*" $((count * 3 / 4))

sanitizer=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer)
for tool in memcheck racecheck; do
  if [ -n "$sanitizer" ]; then
    step "compute-sanitizer $tool" env TILEWRIGHT_GPU_PROBLEMS=20 \
      "$sanitizer" --tool "$tool" --error-exitcode 1 "$tests" --test-case="random problems*"
    [ $tool = racecheck ] || step "compute-sanitizer $tool, backward" env TILEWRIGHT_GPU_PROBLEMS=4 \
      "$sanitizer" --tool $tool --error-exitcode 1 "$tests" --test-case="random backward problems*"
  else
    say "== compute-sanitizer $tool: SKIP, compute-sanitizer is not installed"
  fi
done

types=dtype=bf16,head_dim=128,layout=raster
bench_both "sliding tile 3x3x3 of 18x48x80" \
  attention_forward:pattern=sliding_tile,tile=6x8x8,window=3x3x3,text=0,edges=full,$types --canvas 18x48x80 --heads 24
bench_both "block list 64x64, 76 of 768 random blocks" \
  attention_forward:pattern=block_list,tile=1x1x64,edges=full,$types --canvas 1x1x49152 --heads 12 --topk 76

if [ -f "$shim" ] && python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  step "comparison with cuDNN and FlexAttention" \
    python3 "$repository/benchmarks/compare_gpu.py" --shim "$shim" --output "$out"
  step "comparison of the backward pass with cuDNN" \
    python3 "$repository/benchmarks/compare_backward.py" --shim "$shim" --output "$out/backward_whole.json"
else
  say "== comparison with cuDNN and FlexAttention: SKIP, it needs python3 with torch, and $shim"
fi

say "== $failures steps failed; results are in $out"
[ "$failures" -eq 0 ]
