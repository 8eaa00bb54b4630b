#!/bin/sh
# quickstart.sh [--build-only] [FLAGS]: builds Quorate into build/ and runs a member in the foreground.
#
# Installs what is missing from Debian's packages (as root, or with sudo). FLAGS are etcd's: see build/quorate --help and
# docs/configuration.md. Without any, clients are served on http://localhost:2379 and the data lies in ./default.etcd.
# What fails ends in one line that says what to do.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
build=$here/build

build_only=
if [ "${1:-}" = --build-only ]; then
    build_only=1
    shift
fi
case ${1:-} in
-h | --help)
    if [ ! -x "$build/quorate" ]; then
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '/^set/d'
        exit 0
    fi
    ;;
esac

sh "$here/packaging/deps.sh" build

# A step whose output only matters when it fails.
quietly() {
    mkdir -p "$build"
    log=$build/quickstart.log
    if ! "$@" >"$log" 2>&1; then
        grep -E 'error|ERROR|FAILED' "$log" | head -n 20 >&2 || true
        echo "the build failed: see $log; a clean try is: rm -r $build && sh packaging/quickstart.sh" >&2
        exit 1
    fi
    rm -f "$log"
}

if [ ! -f "$build/build.ninja" ]; then
    echo "building into $build (a minute, the first time)"
    quietly meson setup "$build" "$here"
fi
# Only these: ninja's "all" has the tests too, which need more packages and most of the time.
quietly ninja -C "$build" daemons/raftd/raftd daemons/stored/stored daemons/gatewayd/gatewayd daemons/quorate/quorate

if [ -n "$build_only" ]; then
    echo "built: $build/quorate"
    exit 0
fi
QUORATE_HINTS=1
export QUORATE_HINTS
exec "$build/quorate" "$@"
