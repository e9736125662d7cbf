#!/usr/bin/env bash
# Going back in time: cold boot to the first answered operation, restore to the first answered
# operation (opened and checked as a new process would), reset in place, clones; and QEMU's own
# migration to a file and back under TCG, same kernel, initramfs and RAM, as the reference. There the
# first operation is a command typed at the guest's shell. QEMU comes from Debian, for this alone.
#
#   benches/restore.sh [CYCLES] [CLONES]
source "$(dirname "$0")/common.sh"
cycles=${1:-100} clones=${2:-50}
need_qemu
build
guest
restore=$(dirname "$pack")/restore
cmdline="console=ttyS0 panic=-1 tsc=reliable 8250.nr_uarts=2 cryptomgr.notests"

"$restore" "$cycles" "$clones" "$bench_tmp/ours.snap"

port=$((20000 + $$ % 20000))
# Starts QEMU; its serial port and monitor are connections that the caller opens.
start() {
    qemu "$machine" -initrd "$initrd" \
        -append "$cmdline" \
        -serial "tcp:127.0.0.1:$port,server=on,wait=off" \
        -monitor "tcp:127.0.0.1:$((port + 1)),server=on,wait=off" "$@" &
    qemu_pid=$!
}

# Opens a port as soon as somebody listens there: open FD PORT
open() {
    for ((t = 0; t < 1000; t++)); do
        if eval "exec $1<>/dev/tcp/127.0.0.1/$2" 2>/dev/null; then return; fi
        sleep 0.005
    done
    echo "restore.sh: QEMU does not listen on port $2" >&2
    return 1
}

# Types a sum at the shell on fd 3, again and again, until its result comes back: answer [SECONDS]
answer() {
    local sum=$((RANDOM + 100000)) line end=$((SECONDS + ${1:-60}))
    while ((SECONDS < end)); do
        printf 'echo $((%d + 1))\n' "$sum" >&3
        while IFS= read -r -t 0.2 line <&3; do
            [[ $line == *"$((sum + 1))"* ]] && return
        done
    done
    echo "restore.sh: the guest under QEMU does not answer" >&2
    return 1
}

stop() {
    kill "$qemu_pid" 2>/dev/null || true
    wait "$qemu_pid" 2>/dev/null || true
    exec 3<&- 4<&- || true
}

choose_machine -initrd "$initrd" -append "$cmdline"
for try in 1 2 3 4 5; do
    port=$((port + 2))
    start
    open 3 "$port"
    open 4 "$((port + 1))"
    if answer 30; then
        running=yes
        break
    fi
    stop
    if ((try == 2)) && [[ $machine != acpi=off ]]; then
        # It boots now and then only: on a busy host its timer calibration may never end.
        machine=acpi=off
        echo "reference: QEMU's microvm with $machine" >&2
    fi
done
if [[ -z ${running:-} ]]; then
    echo "restore.sh: no shell under QEMU in five tries; there is no reference to compare with" >&2
    exit 1
fi
# Not stopped before: what is saved while stopped stays so when it is loaded.
printf 'migrate "exec:cat > %s"\n' "$bench_tmp/qemu.image" >&4
state=
for ((t = 0; t < 600; t++)); do
    printf 'info migrate\n' >&4
    IFS= read -r -d '' -t 0.3 state <&4 || true
    [[ $state == *"completed"* ]] && break
done
stop

# Alternately, so that whatever else the host does meets both.
for ((i = 0; i < 7; i++)); do
    "$restore" first "$bench_tmp/ours.snap" >>"$bench_tmp/ours"
    port=$((port + 2))
    from=$(now)
    start -incoming "exec:cat $bench_tmp/qemu.image"
    open 3 "$port"
    open 4 "$((port + 1))"
    answer
    awk -v a="$from" -v b="$(now)" 'BEGIN { print (b - a) * 1000 }' >>"$bench_tmp/qemu"
    stop
done
echo "restore-beside-qemu $(median <"$bench_tmp/ours") ms"
echo "restore-qemu-tcg $(median <"$bench_tmp/qemu") ms"
echo "ratio restore-vs-qemu $(paste "$bench_tmp/ours" "$bench_tmp/qemu" | awk '{ print $1 / $2 }' | median)"
