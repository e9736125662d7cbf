#!/usr/bin/env bash
# Speed of the software CPU: million guest instructions a second over five kinds of work.
#
#   benches/mips.sh [RUNS]
source "$(dirname "$0")/common.sh"
runs=${1:-3}
build
guest

guest_program mips.c "$bench_tmp/bench"
"$pack" "$bench_tmp/archive" "/bench=$bench_tmp/bench"

for ((i = 0; i < runs; i++)); do
    "$marks" "$kernel" "$initrd" --initrd "$bench_tmp/archive" \
        --cmdline "console=ttyS0 panic=-1 quiet cryptomgr.notests rdinit=/bench" >>"$bench_tmp/runs"
done
for name in boot integer memory sha256 forkexec; do
    awk -v n="$name" '$1 == n { print $2 / $3 / 1e6 }' "$bench_tmp/runs" | median | sed "s/.*/$name & Minstr\/s/"
    awk -v n="$name" '$1 == n { print $2 / 1e6 }' "$bench_tmp/runs" | median | sed "s/.*/$name-instructions & Minstr/"
done
