#!/bin/sh
# deps.sh WHAT: installs, from Debian's packages, what is missing for WHAT: build | test | bench | full (besides test).
# As root, or with sudo. Says in one line what to do when neither works. Prints nothing when all is there.
#
# Only libraries and tools are installed: nothing that brings a user, or a service that starts by itself.
# That is why etcd-server, which the tests compare with, is not: its package starts a service on port 2379 and enables
# it for every boot to come. Keeping it from starting (policy-rc.d, masking the unit) would leave the second part, or
# leave traces of our own in /etc. So its program is taken out of the package into deps/etcd/, unless the package is
# installed already; removing the checkout removes it. dnsmasq, which answers the tests' DNS questions, is taken out of
# dnsmasq-base likewise, since that package brings a user. And so is the HTTP parser out of node-llhttp, into deps/llhttp/,
# where the distribution has no libllhttp: installing that package would bring in Node.js.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
# curl is for the first request that quickstart.sh and the README name.
build="build-essential meson ninja-build pkg-config libuv1-dev libnng-dev libmsgpack-dev libsodium-dev liblmdb-dev libjansson-dev libcurl4-openssl-dev libssl-dev libc-ares-dev curl"
tests="$build libcmocka-dev openssl python3 python3-pytest strace iproute2 nftables libdbus-1-3 libidn2-0 libnetfilter-conntrack3"
peers="etcd-client python3-etcd wrk"
checkers="clang clang-tidy libclang-rt-dev cppcheck"

case ${1:-build} in
build) packages=$build ;;
test | bench) packages="$tests $peers" ;;
full) packages="$build $checkers" ;;
*) echo "deps.sh: unknown '$1'; use build, test, bench or full" >&2; exit 2 ;;
esac

scratch=
staged=$here/deps/.new.$$
cleanup() {
    if [ -n "$scratch" ]; then rm -rf "$scratch" "$staged"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
    echo "$1" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Old lists may do, so a failure is told only if what comes next fails too.
update_lists() {
    as_root apt-get -o DPkg::Lock::Timeout=120 update >"$scratch/update" 2>&1 || true
}

# The first thing that went wrong, as apt says it, short enough for our one line.
reason() {
    sed -n 's/^[EW]: \(Failed to fetch\|The repository\|Some index\|Unable\|Could not\)/\1/p; s/^E: //p' \
        "$scratch/update" "$scratch/log" 2>/dev/null | head -n 1 | cut -c 1-200
}

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    fail "this needs Debian's apt: elsewhere install what '$0' names under build, then: meson setup build && ninja -C build"
fi

# One call for all of them: this is most of the time that a second start takes.
# shellcheck disable=SC2086
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages 2>/dev/null || true)
missing=
for package in $packages; do
    case "
$installed
" in
    *"
installed $package
"*) ;;
    *) missing="$missing $package" ;;
    esac
done

need_llhttp=
if [ ! -f "$here/deps/llhttp/llhttp.h" ] && ! pkg-config --exists libllhttp 2>/dev/null; then
    need_llhttp=1
fi
need_etcd=
if [ "${1:-build}" != build ] && [ ! -x /usr/bin/etcd ] && [ ! -x "$here/deps/etcd/etcd" ]; then
    need_etcd=1
fi
need_dnsmasq=
if [ "${1:-build}" = test ] && [ ! -x /usr/sbin/dnsmasq ] && [ ! -x "$here/deps/dnsmasq/dnsmasq" ]; then
    need_dnsmasq=1
fi
if [ -z "$missing$need_llhttp$need_etcd$need_dnsmasq" ]; then
    exit 0
fi
scratch=$(mktemp -d)
chmod 755 "$scratch" # apt fetches as a user of its own

if [ -n "$missing" ]; then
    mend="as root, run: apt-get update && apt-get install -y --no-install-recommends$missing"
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null 2>&1; then
        fail "packages are missing and there is no sudo: $mend"
    fi
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null && ! { [ -t 0 ] && sudo -v; }; then
        fail "packages are missing and sudo is not granted: $mend"
    fi
    echo "installing:$missing"
    update_lists
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y \
        --no-install-recommends $missing >"$scratch/log" 2>&1 ||
        fail "packages could not be installed ($(reason)): mend the network or apt's sources, then run this again, or $mend"
fi

# take_out PACKAGE FOLDER FILE...: the package's FILEs into deps/FOLDER, without installing it. All of them or nothing.
take_out() {
    package=$1 folder=$2
    shift 2
    fetch() {
        (cd "$scratch" && apt-get download "$package" >log 2>&1)
    }
    if ! fetch; then
        if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then update_lists; fi
        fetch || fail "the package $package could not be fetched ($(reason)): mend the network or apt's sources (as root: apt-get update), then run this again"
    fi
    dpkg -x "$scratch/$package"_*.deb "$scratch/$package"
    mkdir -p "$staged"
    for file in "$@"; do
        # shellcheck disable=SC2086
        cp "$scratch/$package"/usr/$file "$staged/"
    done
    rm -rf "$here/deps/$folder"
    mv "$staged" "$here/deps/$folder"
}

if [ -n "$need_llhttp" ] && ! pkg-config --exists libllhttp 2>/dev/null; then
    take_out node-llhttp llhttp 'share/llhttp/*.c' share/include/llhttp/llhttp.h share/doc/node-llhttp/copyright
fi
if [ -n "$need_etcd" ]; then
    take_out etcd-server etcd bin/etcd share/doc/etcd-server/copyright
fi
if [ -n "$need_dnsmasq" ]; then
    take_out dnsmasq-base dnsmasq sbin/dnsmasq share/doc/dnsmasq-base/copyright
fi
