#!/usr/bin/env bash
# What an operation on a guest costs: system calls one by one, in batches and all at once, commands,
# and files. The reference of a command is the same program started by the guest's own shell; that of
# a batch are the same calls one by one.
#
#   benches/ops.sh [ROUNDS]
source "$(dirname "$0")/common.sh"
build
guest
"$(dirname "$pack")/ops" "${1:-500}"
