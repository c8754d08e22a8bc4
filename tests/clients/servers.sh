# The servers that scripts/clients and scripts/conformance.sh start on loopback; sourced by both.
#
# `with_servers` builds and starts them and leaves SSHD (a JSON object, see tests/examples/sshd.rs), `address` (of ssh-mcp)
# and `work` (a directory with its log, and HOME of everything). `start_http` starts one more ssh-mcp, in another
# environment. All end with the script.

with_servers() {
    cargo build --locked --quiet --package ssh-mcp-server --bins
    cargo build --locked --quiet --package ssh-mcp-tests --example sshd
    work=$(mktemp -d)
    trap 'stop_servers; rm -rf "$work"' EXIT
    export HOME=$work
    start_sshd
    start_http http
}

start_sshd() {
    coproc SSHD_PROCESS { exec target/debug/examples/sshd; }
    sshd=$SSHD_PROCESS_PID
    read -r SSHD <&"${SSHD_PROCESS[0]}"
    export SSHD
}

# Starts ssh-mcp, which logs to $1.log, with the variables that follow; `address` is where it listens.
start_http() {
    local name=$1 line log
    mkfifo "$work/$name"
    env "${@:2}" target/debug/ssh-mcp --bind 127.0.0.1:0 >"$work/$name" &
    http+=($!)
    exec {log}<"$work/$name"
    while read -r line <&"$log"; do
        case "$line" in *" listening addr="*) break ;; esac
    done
    address=${line#* listening addr=}
    address=${address%% *}
    [ -n "$address" ] || { echo "ssh-mcp did not start"; exit 1; }
    cat <&"$log" >"$work/$name.log" &
}

# Ends every ssh-mcp as its supervisor would; fails if one does not leave in order.
stop_http() {
    local one status=0
    for one in ${http[@]+"${http[@]}"}; do
        kill "$one"
        wait "$one" || status=$?
    done
    http=()
    return "$status"
}

stop_servers() {
    stop_http || true
    # Its standard input ends, and so does it.
    [ -z "${sshd:-}" ] || { eval "exec ${SSHD_PROCESS[1]}>&-"; wait "$sshd" || true; }
}
