#!/usr/bin/env bash
# Every loom story of core, under every interleaving of its threads (docs/lifecycle.md, part 6).
#
#   scripts/loom.sh [FILTER] [BOUND]
#
# FILTER narrows the stories by a part of their path, such as history::loom.
# BOUND limits how often threads may be interrupted in one run. Without it all orders are gone through, which takes
# seconds, except in the few stories that set a bound of their own and that a number here makes deeper or shallower.
# A story that deadlocks ends the whole run with an abort; the last lines name it.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${2:-}" ]; then
  export LOOM_MAX_PREEMPTIONS="$2"
else
  unset LOOM_MAX_PREEMPTIONS
fi
export RUSTFLAGS="${RUSTFLAGS:-} --cfg ssh_mcp_loom"
# Optimised, with arithmetic checked and panics traceable; without link-time optimisation, which only costs time here.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=none
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true

exec cargo test -p ssh-mcp-core --lib --release --target-dir target/loom -- "${1:-loom::}"
