#!/usr/bin/env bash
# The runner alone: what an empty test and an empty file cost, one at a time and in parallel, with
# and without the outputs that CI wants. Nothing is booted. The reference is the shell starting as
# many empty processes.
#
#   benches/runner.sh [FILES] [TESTS]
#
# PROVIUM names a program that is built already; without it the release build is made.
source "$(dirname "$0")/common.sh"
files=${1:-500}
tests=${2:-3000}
if [ -z "${PROVIUM:-}" ]; then
    (cd "$bench_root" && cargo build --release -q -p provium)
    PROVIUM=${CARGO_TARGET_DIR:-$bench_root/target}/release/provium
fi
provium=$(realpath "$PROVIUM")
export PROVIUM_VMM=soft PROVIUM_PSI_THRESHOLD=off HOME=$bench_tmp/home

mkdir -p "$bench_tmp"/{none,files,tests}
echo "test('only', function() end)" >"$bench_tmp/none/one.test.lua"
for ((i = 0; i < files; i++)); do
    echo "test('only', function() end)" >"$bench_tmp/files/f$i.test.lua"
done
echo "for i = 1, $tests do test('t' .. i, function() end) end" >"$bench_tmp/tests/all.test.lua"
cd "$bench_tmp"

# The median of five runs, in seconds.
timed() {
    local from
    for _ in 1 2 3 4 5; do
        from=$(now)
        "$@" >/dev/null 2>&1
        awk -v a="$from" -v b="$(now)" 'BEGIN { print b - a }'
    done | median
}

# A time less that of a run of nothing much, per piece: each NAME SECONDS PIECES
each() {
    awk -v name="$1" -v t="$2" -v s="$start" -v n="$3" \
        'BEGIN { printf "%-32s %9.1f us\n", name, (t - s) / n * 1e6 }'
}

processes() { for ((i = 0; i < files; i++)); do /bin/true; done; }

start=$(timed "$provium" run none)
awk -v s="$start" 'BEGIN { printf "%-32s %9.1f ms\n", "run-of-one-empty-file", s * 1e3 }'
outputs=(--save-events events --junit junit.xml --report report.html --json)
one=$(timed "$provium" run -j 1 files)
each "empty-test" "$(timed "$provium" run tests)" "$tests"
each "empty-test-all-outputs" "$(timed "$provium" run "${outputs[@]}" tests)" "$tests"
each "empty-file-j1" "$one" "$files"
each "empty-file-j$(nproc)" "$(timed "$provium" run -j "$(nproc)" files)" "$files"
each "empty-file-j1-all-outputs" "$(timed "$provium" run -j 1 "${outputs[@]}" files)" "$files"
reference=$(timed processes)
awk -v t="$reference" -v n="$files" 'BEGIN { printf "%-32s %9.1f us\n", "reference-empty-process", t / n * 1e6 }'
awk -v t="$one" -v s="$start" -v r="$reference" 'BEGIN { printf "ratio empty-file-j1 %.2f\n", (t - s) / r }'
