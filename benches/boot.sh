#!/usr/bin/env bash
# Boot: from the start of the process to the first line printed by a user program, against QEMU's
# TCG with the same kernel, initramfs and command line. QEMU comes from Debian, for this alone.
#
#   benches/boot.sh [RUNS]
source "$(dirname "$0")/common.sh"
runs=${1:-5}
need_qemu
build
guest

line="first line of a user program"
cmdline="console=ttyS0 panic=-1 tsc=reliable 8250.nr_uarts=2 cryptomgr.notests"
guest_program hello.c "$bench_tmp/init"
"$pack" "$bench_tmp/initrd" "/init=$bench_tmp/init"

ours() {
    local from
    from=$(now)
    "$marks" "$kernel" "$bench_tmp/initrd" --cmdline "$cmdline" --until "$line" >/dev/null
    awk -v a="$from" -v b="$(now)" 'BEGIN { print b - a }'
}

reference() {
    local from out=$bench_tmp/qemu.out pid t
    for try in 1 2 3; do
        : >"$out"
        from=$(now)
        qemu "$machine" -serial "file:$out" -initrd "$bench_tmp/initrd" -append "$cmdline" &
        pid=$!
        for ((t = 0; t < 3000; t++)); do
            if grep -q "$line" "$out"; then
                awk -v a="$from" -v b="$(now)" 'BEGIN { print b - a }'
                kill "$pid" 2>/dev/null || true
                wait "$pid" 2>/dev/null || true
                return
            fi
            sleep 0.01
        done
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        echo "boot.sh: QEMU printed nothing for half a minute (try $try)" >&2
    done
    return 1
}

choose_machine -initrd "$bench_tmp/initrd" -append "$cmdline"
for ((i = 0; i < runs; i++)); do
    a=$(ours)
    b=$(reference)
    echo "$a" >>"$bench_tmp/ours"
    echo "$b" >>"$bench_tmp/qemu"
    awk -v a="$a" -v b="$b" 'BEGIN { print a / b }' >>"$bench_tmp/ratios"
done
echo "boot-provium $(median <"$bench_tmp/ours") s"
echo "boot-qemu-tcg $(median <"$bench_tmp/qemu") s"
echo "ratio boot $(median <"$bench_tmp/ratios")"
