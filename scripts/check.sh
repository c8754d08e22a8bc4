#!/usr/bin/env bash
# All of CI, locally: every step of CI.md in its order, each with its time, all of them even if one fails.
#
#   scripts/check.sh            all steps
#   scripts/check.sh STEP...    only these
set -uo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

step_format() {
    cargo fmt --all --check &&
        cargo fmt --all --check --manifest-path tests/fuzz/Cargo.toml
}

# Alone, because a build of the whole workspace merges features and hides a tokio feature that core must not use.
step_core() {
    cargo check --locked --package ssh-mcp-core
}

step_clippy() {
    cargo clippy --locked --workspace --all-targets -- -D warnings
}

step_clippy_ring() {
    cargo clippy --locked --package ssh-mcp-server --no-default-features --features ring --all-targets -- -D warnings
}

# A build without forwards says so instead of having them; the step above builds the binaries that way too.
step_without() {
    crates=(--package ssh-mcp-core --package ssh-mcp-engine --package ssh-mcp-handler)
    cargo clippy --locked "${crates[@]}" --no-default-features --all-targets -- -D warnings &&
        cargo test --locked --quiet --package ssh-mcp-handler --no-default-features --lib without_forwards
}

step_docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
}

step_tests() {
    scripts/test
}

step_loom() {
    scripts/loom.sh
}

step_clients() {
    scripts/clients
}

step_conformance() {
    scripts/conformance.sh
}

steps=(format core clippy clippy_ring without docs tests loom clients conformance)
if [ $# -gt 0 ]; then steps=("$@"); fi

lines=()
failed=0
for step in "${steps[@]}"; do
    declare -F "step_$step" >/dev/null || { echo "check.sh: no step $step" >&2; exit 2; }
    echo "==== $step"
    begin=$SECONDS
    if "step_$step"; then result=ok; else result=FAILED; failed=1; fi
    line=$(printf '%-12s %6d s  %s' "$step" $((SECONDS - begin)) "$result")
    echo "---- $line"
    lines+=("$line")
done

echo
printf '%s\n' "${lines[@]}"
printf '%-12s %6d s\n' "in all" "$SECONDS"
exit $failed
