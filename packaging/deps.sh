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
test | bench) packages="$tests $peers" ;;
*) echo "deps.sh: unknown '$1'; use build, test or bench" >&2; exit 2 ;;
esac

scratch=
cleanup() {
    if [ -n "$scratch" ]; then rm -rf "$scratch"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
    echo "$1" >&2
    exit 1
}

# The reason apt gives, short enough for our one line.
reason() {
    sed -n 's/^E: //p' "$scratch/log" | head -n 1 | cut -c 1-200
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

command -v dpkg-query >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 ||
    fail "this needs Debian's apt: elsewhere install what '$0' names under build, then: meson setup build && ninja -C build"

# One call for all of them: this is most of the time that a second start takes.
# shellcheck disable=SC2086
installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $packages 2>/dev/null || true)
missing=
for package in $packages; do
    case "
$installed
" in
    *"
ii  $package
"*) ;;
    *) missing="$missing $package" ;;
    esac
done

need_llhttp=
if [ ! -f "$here/deps/llhttp/llhttp.h" ] && ! pkg-config --exists libllhttp 2>/dev/null; then
    need_llhttp=1
fi
if [ -z "$missing$need_llhttp" ]; then
    exit 0
fi
scratch=$(mktemp -d)
chmod 755 "$scratch" # apt fetches as a user of its own

if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null 2>&1; then
        fail "packages are missing and there is no sudo: as root, run: apt-get install -y --no-install-recommends$missing"
    fi
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null && ! { [ -t 0 ] && sudo -v; }; then
        fail "packages are missing and sudo is not granted: as root, run: apt-get install -y --no-install-recommends$missing"
    fi
    echo "installing:$missing"
    as_root apt-get -o DPkg::Lock::Timeout=120 update >"$scratch/log" 2>&1 || true # old lists may do
    # Debian starts a service that it installs; ours are started by whoever wants them.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o DPkg::Lock::Timeout=120 install -y \
        --no-install-recommends $missing >"$scratch/log" 2>&1 ||
        fail "packages could not be installed ($(reason)): mend the network or apt's sources, or as root run: apt-get install -y --no-install-recommends$missing"
fi

# The HTTP parser: a library where the distribution has one, else the C source inside the package node-llhttp, taken out
# without installing it, since that would pull in Node.js.
if [ -n "$need_llhttp" ] && ! pkg-config --exists libllhttp 2>/dev/null; then
    fetch() {
        (cd "$scratch" && apt-get download node-llhttp >log 2>&1)
    }
    if ! fetch; then
        if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then
            as_root apt-get -o DPkg::Lock::Timeout=120 update >"$scratch/log" 2>&1 || true
        fi
        fetch || fail "the package node-llhttp could not be fetched ($(reason)): mend the network or apt's sources, then run this again"
    fi
    dpkg -x "$scratch"/node-llhttp_*.deb "$scratch/x"
    rm -rf "$here/deps/llhttp.new"
    mkdir -p "$here/deps/llhttp.new"
    cp "$scratch"/x/usr/share/llhttp/*.c "$scratch"/x/usr/share/include/llhttp/llhttp.h \
        "$scratch"/x/usr/share/doc/node-llhttp/copyright "$here/deps/llhttp.new/"
    mv "$here/deps/llhttp.new" "$here/deps/llhttp"
fi
