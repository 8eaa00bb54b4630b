#!/bin/sh
# quickstart.sh [--build-only] [--cluster N] [FLAGS]: builds Quorate into build/ and runs a member in the foreground.
#
# With --cluster N (3, 5 or 7) it runs N members infra1..infraN on this machine, clients on ports 2379, 22379, 32379 ...,
# peers on the ports after them, each member's data in ./infra<i>.etcd, its log in ./infra<i>.log. Ctrl-C stops them all.
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
members=
if [ "${1:-}" = --cluster ]; then
    members=${2:-}
    case $members in
    [1-7]) shift 2 ;;
    *) echo "quickstart.sh: --cluster wants a number from 1 to 7, better an odd one: quickstart.sh --cluster 3" >&2; exit 2 ;;
    esac
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
if [ -z "$members" ]; then
    QUORATE_HINTS=1
    export QUORATE_HINTS
    exec "$build/quorate" "$@"
fi

# 2379, 22379, 32379 ... as etcd's own example has it.
port() {
    case $1 in
    1) echo "$2" ;;
    7) echo "1$2" ;; # 72379 is no port
    *) echo "$1$2" ;;
    esac
}
cluster=
endpoints=
folders=
i=1
while [ "$i" -le "$members" ]; do
    cluster=$cluster${cluster:+,}infra$i=http://127.0.0.1:$(port "$i" 2380)
    endpoints=$endpoints${endpoints:+ }http://127.0.0.1:$(port "$i" 2379)
    folders=$folders${folders:+ }infra$i.etcd
    i=$((i + 1))
done

# Becomes the member of this number.
member() {
    number=$1
    shift
    client=http://127.0.0.1:$(port "$number" 2379)
    peer=http://127.0.0.1:$(port "$number" 2380)
    exec "$build/quorate" --name "infra$number" --data-dir "infra$number.etcd" \
        --listen-client-urls "$client" --advertise-client-urls "$client" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
        --initial-cluster "$cluster" --initial-cluster-token quickstart --initial-cluster-state new "$@"
}

# What would end one of them is said before any is started: ports, flags, folders.
i=1
while [ "$i" -le "$members" ]; do
    if ! said=$(member "$i" "$@" --check 2>&1 >/dev/null); then
        echo "infra$i cannot start: $(printf '%s\n' "$said" | tail -n 1)" >&2
        exit 1
    fi
    i=$((i + 1))
done

pids=
stop() {
    trap '' INT TERM
    # shellcheck disable=SC2086
    kill -TERM $pids 2>/dev/null || true
    wait
}
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM
i=1
while [ "$i" -le "$members" ]; do
    (member "$i" "$@") >>"infra$i.log" 2>&1 &
    pids="$pids $!"
    i=$((i + 1))
done

# Until each of them serves, or one of them has given up.
deadline=$(($(date +%s) + 60))
for endpoint in $endpoints; do
    until curl -fs -m 2 -o /dev/null "$endpoint/health" 2>/dev/null; do
        i=1
        for pid in $pids; do
            if ! kill -0 "$pid" 2>/dev/null; then
                echo "infra$i ended: $(tail -n 1 "infra$i.log")" >&2
                stop
                exit 1
            fi
            i=$((i + 1))
        done
        if [ "$(date +%s)" -ge "$deadline" ]; then
            echo "$endpoint does not serve after 60 s: see infra*.log" >&2
            stop
            exit 1
        fi
        sleep 0.1
    done
done
echo
echo "$members members serve clients at: $endpoints"
echo "  try it:  curl http://127.0.0.1:2379/v2/keys/greeting -XPUT -d value=hello"
echo "           curl http://127.0.0.1:$(port "$members" 2379)/v2/keys/greeting"
echo "  data:    $folders (logs beside them: infra*.log), in $PWD"
echo "  stop:    Ctrl-C, or kill $$; one member alone: kill one of$pids"
echo "  wipe:    stop them, then cd '$PWD' && rm -r $folders"
echo
# shellcheck disable=SC2086
wait $pids
