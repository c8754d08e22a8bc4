#!/bin/sh
# Searches for inputs that break a parser: scripts/fuzz.sh [target] [seconds], default every target for 60 s each.
# Works with the pinned stable toolchain and a C++ compiler (libFuzzer is built from source). No sanitizer: what is looked
# for are panics, overflows, endless loops and broken promises. New inputs go below tests/fuzz/target, crashes to
# tests/fuzz/artifacts; one worth keeping is copied to tests/fuzz/corpus/TARGET under a name that says what it shows.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
seconds=${2:-60}
cd "$root/tests/fuzz"
targets=${1:-$(sed -n 's|^path = "targets/\(.*\)\.rs"$|\1|p' Cargo.toml)}

# A target triple keeps the instrumentation out of build scripts.
triple=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
export CARGO_TARGET_DIR="$root/tests/fuzz/target"

for target in $targets; do
    cargo build --quiet --locked --release --target "$triple" --bin "$target"
    found="$CARGO_TARGET_DIR/corpus/$target"
    mkdir -p "$found" "artifacts/$target" "corpus/$target"
    set -- -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target/"
    if [ -f "dictionaries/$target" ]; then set -- "$@" -dict="dictionaries/$target"; fi
    # The first folder takes new inputs, the second is only read.
    "$CARGO_TARGET_DIR/$triple/release/$target" "$@" "$found" "corpus/$target"
done
