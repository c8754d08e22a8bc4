#!/usr/bin/env bash
# Installs other people's clients into target/clients, at the versions that the files beside this one pin:
#
#   tests/clients/install.sh node      Node itself, the TypeScript SDKs and the conformance suites
#   tests/clients/install.sh python    one virtual environment for each line of the Python SDK
#
# What is there is not installed again. Node comes as a package, because Debian's may be too old for the suites.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec </dev/null
here=tests/clients
there=target/clients

# Debian's package for what is missing; as scripts/test does it.
need() {
    local sudo=
    [ "$(id -u)" -eq 0 ] || sudo="sudo -n"
    command -v apt-get >/dev/null || { echo "install.sh: please install $1" >&2; exit 1; }
    echo "installing Debian's $1"
    $sudo apt-get -qq update
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$1"
}

# Whether $2 was made of just these files; it names itself once it is complete.
is_current() {
    cmp -s <(cat "${@:2}") "$1/.made-of"
}

complete() {
    cat "${@:2}" >"$1/.made-of"
}

node() {
    if is_current "$there" "$here/package.json" "$here/package-lock.json"; then return; fi
    command -v npm >/dev/null || need npm
    mkdir -p "$there"
    rm -rf "$there/node_modules"
    cp "$here/package.json" "$here/package-lock.json" "$there/"
    # No package needs a script of its own to be installed.
    npm ci --prefix "$there" --ignore-scripts --no-audit --no-fund --loglevel=error
    complete "$there" "$here/package.json" "$here/package-lock.json"
}

python() {
    local line
    for line in 1 2; do
        local venv=$there/python-$line requirements=$here/python-$line.txt
        if is_current "$venv" "$requirements"; then continue; fi
        python3 -c 'import venv, ensurepip' 2>/dev/null || need python3-venv
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r "$requirements"
        complete "$venv" "$requirements"
    done
}

case "${1:-}" in
node | python) "$1" ;;
*) echo "usage: install.sh node|python" >&2; exit 2 ;;
esac
