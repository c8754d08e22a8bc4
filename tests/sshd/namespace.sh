#!/bin/sh
# Runs an SSH server that shares nothing with the machine but its programs.
#
#   namespace.sh DIR PROGRAM ARGUMENT...    (as root; DIR is laid out by tests/sshd/layout.rs)
#
# The server lives in a mount namespace with users, run directory and logs of its own, and in a PID
# namespace, so that whatever it or its commands started (daemons included) ends with it. It ends when
# standard input ends: when the starter closes the pipe, and when the starter is killed.
# The first line on standard output is the process id of `unshare`, parent of the server.
set -eu

if [ "$1" = inside ]; then
    dir=$2
    shift 2
    for file in passwd shadow group; do
        mount --bind "$dir/etc/$file" "/etc/$file"
    done
    # Covers the machine's utmp and wtmp, name service sockets and, where it is missing, sshd's own directory.
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/sshd
    mount -t tmpfs -o mode=755 tmpfs /var/log
    # sshd writes the time of a login on a terminal into it, and complains on that terminal where it is missing.
    : >/var/log/lastlog
    if [ -f "$dir/etc/pam" ]; then
        mount -t tmpfs -o mode=755 tmpfs /etc/pam.d
        cp "$dir/etc/pam" /etc/pam.d/sshd
    fi
    exec "$@"
fi

# The parent-death signal covers a killed supervisor, the end of input everything else.
setpriv --pdeathsig KILL \
    unshare --mount --pid --fork --kill-child --mount-proc sh "$0" inside "$@" </dev/null &
outer=$!
echo "$outer"
# Standard error belongs to the server alone: its end is the end of the server.
exec 1>/dev/null 2>/dev/null
read -r _ || :
# Killing the first process of the PID namespace kills all of it, and `wait` returns after the last one is gone.
inner=$(cat "/proc/$outer/task/$outer/children" || :)
kill -KILL ${inner:-$outer} || :
wait "$outer" || :
