#!/bin/sh
# deps.sh WHAT: installs, from Debian's packages, what is missing for WHAT: build | test | bench.
# As root, or with sudo. Says in one line what to do when neither works. Prints nothing when all is there.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
build="build-essential meson ninja-build pkg-config libuv1-dev libnng-dev libmsgpack-dev libsodium-dev liblmdb-dev libjansson-dev libcurl4-openssl-dev libssl-dev libc-ares-dev"
tests="$build libcmocka-dev python3 python3-pytest curl strace"
peers="etcd-server etcd-client python3-etcd wrk"

case ${1:-build} in
build) packages=$build ;;
test) packages="$tests $peers" ;;
*) echo "deps.sh: unknown '$1'; use build or test" >&2; exit 2 ;;
esac

fail() {
    echo "$1" >&2
    exit 1
}

missing=
for package in $packages; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing="$missing $package"
done

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@" 2>/dev/null || sudo "$@"
    fi
}

if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null 2>&1; then
        fail "packages are missing and there is no sudo: as root, run: apt-get install -y$missing"
    fi
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    echo "installing:$missing"
    # Debian starts a service it installs; ours are started by whoever wants them.
    if ! { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y \
            --no-install-recommends $missing; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        fail "packages could not be installed (network or apt sources?): mend that, or as root run: apt-get install -y$missing"
    fi
fi

# The HTTP parser: a library where the distribution has one, else the C source inside the package node-llhttp.
if [ ! -f "$here/deps/llhttp/llhttp.h" ]; then
    if ! pkg-config --exists libllhttp 2>/dev/null; then
        scratch=$(mktemp -d)
        trap 'rm -rf "$scratch"' EXIT
        (cd "$scratch" && apt-get download node-llhttp >log 2>&1) ||
            fail "the package node-llhttp could not be fetched (network or apt sources?): mend that, then run this again"
        dpkg -x "$scratch"/node-llhttp_*.deb "$scratch/x"
        mkdir -p "$here/deps/llhttp.new"
        cp "$scratch"/x/usr/share/llhttp/*.c "$scratch"/x/usr/share/include/llhttp/llhttp.h \
            "$scratch"/x/usr/share/doc/node-llhttp/copyright "$here/deps/llhttp.new/"
        mv "$here/deps/llhttp.new" "$here/deps/llhttp"
    fi
fi
