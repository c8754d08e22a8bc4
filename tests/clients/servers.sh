# The servers that scripts/clients and scripts/conformance.sh start on loopback; sourced by both.
#
# `with_servers` builds and starts them and leaves SSHD (a JSON object, see tests/examples/sshd.rs), `address` (of ssh-mcp),
# `http` (its process) and `work` (a directory with its log, and HOME of everything). All end with the script.

with_servers() {
    cargo build --locked --quiet --package ssh-mcp-server --bins
    cargo build --locked --quiet --package ssh-mcp-tests --example sshd
    work=$(mktemp -d)
    trap 'stop_servers; rm -rf "$work"' EXIT
    export HOME=$work
    start_sshd
    start_http
}

start_sshd() {
    coproc SSHD_PROCESS { exec target/debug/examples/sshd; }
    sshd=$SSHD_PROCESS_PID
    read -r SSHD <&"${SSHD_PROCESS[0]}"
    export SSHD
}

start_http() {
    local line log
    mkfifo "$work/log"
    target/debug/ssh-mcp --bind 127.0.0.1:0 >"$work/log" &
    http=$!
    exec {log}<"$work/log"
    while read -r line <&"$log"; do
        case "$line" in *" listening addr="*) break ;; esac
    done
    address=${line#* listening addr=}
    address=${address%% *}
    [ -n "$address" ] || { echo "ssh-mcp did not start"; exit 1; }
    cat <&"$log" >"$work/http.log" &
}

# Ends ssh-mcp as its supervisor would; fails if it does not leave in order.
stop_http() {
    local ending=$http
    http=
    kill "$ending"
    wait "$ending"
}

stop_servers() {
    [ -z "${http:-}" ] || stop_http || true
    # Its standard input ends, and so does it.
    [ -z "${sshd:-}" ] || { eval "exec ${SSHD_PROCESS[1]}>&-"; wait "$sshd" || true; }
}
