#!/usr/bin/env bash
# run_tests.sh BUILD JOBS: runs all tests and ends with "N passed, N failed", counted in test cases.
set -uo pipefail
build=$1
jobs=$2
log=$build/test.log
ctest --test-dir "$build" --parallel "$jobs" --verbose --timeout 1500 >"$log" 2>&1
status=$?
# Everything that a reader wants to know: skips, failures and their context, each program's result.
grep -E 'SKIP|ERROR|FATAL|logged:|Passed|\*\*\*' "$log" || true
[ $status -eq 0 ] || sed -n '/TEST CASE/,/^=====/p' "$log" | head -400
awk '
  /\[doctest\] test cases:/ { sub(/.*test cases:/, ""); split($0, part, "|"); passed += part[2]; failed += part[3]; programs++ }
  /% tests passed,/         { run = $NF; broken = $4 }
  /Test +#[0-9]+:.*Passed/  { whole++ }
  END {
    # Programs without a doctest summary are one test case each; one that failed without a summary crashed.
    passed += whole - programs > 0 ? whole - programs : 0
    if (broken > 0 && failed == 0) failed = broken
    if (passed + failed == 0) failed = 1
    printf "%d passed, %d failed\n", passed, failed
    exit failed > 0
  }' "$log"
summary=$?
exit $((status || summary))
