# Shared by the benchmarks: sourced, never run.
#
# Each benchmark prints lines `NAME VALUE UNIT`, and `ratio NAME VALUE` (ours / reference, the
# median of interleaved runs). Machines are noisy: the ratios mean something, the rest is colour.
set -euo pipefail

bench_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bench_tmp=$(mktemp -d)
trap 'rm -rf "$bench_tmp"' EXIT

# Builds the programs that the benchmarks drive, and names their paths.
build() {
    (cd "$bench_root" && cargo build --release -q -p provium-vmm -p provium-lab --examples)
    local examples=${CARGO_TARGET_DIR:-$bench_root/target}/release/examples
    marks=$examples/marks
    pack=$examples/pack
    guest_paths=$examples/guest_paths
}

# Prepares the default guest, and names its kernel and initramfs.
guest() {
    local paths
    paths=$("$guest_paths")
    kernel=$(sed -n 's/^kernel //p' <<<"$paths")
    initrd=$(sed -n 's/^initrd //p' <<<"$paths")
}

# Compiles a static guest program: guest_program SOURCE OUT
guest_program() {
    cc -O2 -static -o "$2" "$bench_root/benches/guest/$1"
}

# QEMU comes from Debian, for the comparisons alone.
need_qemu() {
    command -v qemu-system-x86_64 >/dev/null && return
    echo "installing Debian's qemu-system-x86 for the comparison" >&2
    apt-get install -y --no-install-recommends qemu-system-x86 >/dev/null
}

# Runs QEMU's microvm under TCG without any default device: qemu MACHINE-OPTIONS ARGUMENTS...
qemu() {
    local options=$1
    shift
    exec qemu-system-x86_64 -accel tcg -M "microvm,$options,pit=on,pic=on" -m 512 -nodefaults -no-user-config \
        -display none -no-reboot -kernel "$kernel" "$@" </dev/null 2>/dev/null
}

# Sets `machine` to options under which QEMU boots the kernel with these arguments here. With ACPI,
# which our machine has too, the guest may find no timer (its calibration against the PIT depends on
# the host's timing) and then waits for ever; so that one is tried first, and the one without next.
choose_machine() {
    local out=$bench_tmp/qemu.probe pid t try
    for machine in acpi=on acpi=off; do
        for try in 1 2; do
            : >"$out"
            qemu "$machine" -serial "file:$out" "$@" &
            pid=$!
            for ((t = 0; t < 200; t++)); do
                if grep -q "Run /init as init process" "$out"; then break; fi
                sleep 0.1
            done
            kill "$pid" 2>/dev/null || true
            wait "$pid" 2>/dev/null || true
            if ((t < 200)); then
                echo "reference: QEMU's microvm with $machine" >&2
                return
            fi
            echo "QEMU's microvm with $machine did not boot in 20 s (try $try)" >&2
        done
    done
    return 1
}

# Median of the numbers on standard input.
median() {
    sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# Seconds since the epoch, to the nanosecond.
now() {
    date +%s.%N
}
