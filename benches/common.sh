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

# Median of the numbers on standard input.
median() {
    sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# Seconds since the epoch, to the nanosecond.
now() {
    date +%s.%N
}
