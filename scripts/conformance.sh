#!/usr/bin/env bash
# The official MCP conformance suites against ssh-mcp on loopback: the stable one, and the coming one for each revision
# that the product speaks:
#
#   scripts/conformance.sh             all of them
#   scripts/conformance.sh SUITE...    only these (0.1.16, 2025-06-18, 2025-11-25, 2026-07-28)
#
# What does not apply to a server with tools of its own is listed, with its reason, in tests/conformance/SUITE.yml; see the
# README there. A listed scenario that passes fails the run, and so does a failure that is not listed.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
started=$SECONDS
. tests/clients/servers.sh
suites=("$@")
[ $# -gt 0 ] || suites=(0.1.16 2025-06-18 2025-11-25 2026-07-28)
modules=target/clients/node_modules
node=$modules/.bin/node

main() {
    tests/clients/install.sh node
    with_servers
    local url=http://$address/mcp suite failed=()
    "$node" tests/conformance/furnish.mjs "$url"
    for suite in "${suites[@]}"; do
        judge "$suite" "$url" || failed+=("$suite")
    done
    stop_http || failed+=("orderly stop")
    if [ ${#failed[@]} -gt 0 ]; then
        echo "scripts/conformance.sh: FAILED: ${failed[*]}, after $((SECONDS - started)) s"
        exit 1
    fi
    echo "scripts/conformance.sh: all as expected, in $((SECONDS - started)) s"
}

judge() {
    local suite=$1 results=$work/$1 baseline=tests/conformance/$1.yml arguments version
    [ -f "$baseline" ] || { echo "scripts/conformance.sh: no suite $suite" >&2; exit 2; }
    case "$suite" in
    0.1.16) version=$suite arguments=() ;;
    *) version=0.2.0-alpha.12 arguments=(--spec-version "$suite") ;;
    esac
    mkdir "$results"
    local status=0
    timeout 120 "$node" "$modules/conformance-$version/dist/index.js" server --url "$2" --suite all "${arguments[@]}" \
        --expected-failures "$baseline" --output-dir "$results" >"$work/$suite.log" 2>&1 || status=$?
    if [ $status -ne 0 ]; then
        # What the suite thinks of the baseline, or what it died of.
        sed -n '/^Total:/,$p' "$work/$suite.log" | grep . || tail -n 20 "$work/$suite.log"
    fi
    local judgement
    judgement=$("$node" tests/conformance/judge.mjs "$results" "$baseline") || status=1
    echo "$suite: $judgement"
    return $status
}

main
