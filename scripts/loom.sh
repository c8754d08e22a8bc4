#!/usr/bin/env bash
# Every loom story of core, under every interleaving within a bound (docs/lifecycle.md, part 6).
#
#   scripts/loom.sh [BOUND] [FILTER]
#
# BOUND is how often a thread may be interrupted in one run: 3 by default, which takes seconds; 5 takes minutes.
# FILTER narrows the stories by a part of their path, such as history::loom.
# A story that deadlocks ends the whole run with an abort; the last lines name it.
set -euo pipefail
cd "$(dirname "$0")/.."

export LOOM_MAX_PREEMPTIONS="${1:-3}"
export RUSTFLAGS="${RUSTFLAGS:-} --cfg ssh_mcp_loom"
# Optimised, with arithmetic checked and panics traceable; without link-time optimisation, which only costs time here.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=none
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true

exec cargo test -p ssh-mcp-core --lib --release --target-dir target/loom -- "${2:-loom::}"
