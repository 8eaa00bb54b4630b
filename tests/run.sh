#!/bin/sh
# run.sh [--quick|--full] [SUITE...]: builds Quorate and runs its tests; ends with "N passed, N failed".
#
# Suites, all by default:
#   unit         one module each, in milliseconds (meson, cmocka)
#   sim          whole clusters in one process, in virtual time; with --full the bugs planted to see that it bites, too
#   contract     the HTTP API, flags and files, to the byte; etcd's own clients; 20,000 random requests against etcd
#   cluster, scenario   real processes: what operators do
#   fault        kill -9, power cuts, full disks, lost messages
#   bench-smoke  the benchmark's rows, each for a moment: that they work, not how fast they are
# With --full, or when named:
#   lint         clang-tidy and cppcheck
#   fuzz         each decoder of what comes from outside, under ASan and UBSan, for 60 s
#   sanitize     unit tests under ASan, UBSan and TSan, the contract with daemons under ASan and UBSan
#
# --quick ends in under 3 minutes, the default in under 15, --full has the long runs (hours).
# Needs no root; what needs it (a disk to cut the power of) is skipped without, and counted so.
# Variables: QUORATE_BUILD the build directory (default build-test/), QUORATE_TEST_TMP where servers keep their data
# (default /var/tmp; a real disk), QUORATE_TEST_SEED, QUORATE_TEST_TARGET=etcd to run the contract against Debian's etcd,
# CI=1 to make warnings errors.
set -eu
cd "$(dirname "$0")/.."

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '/^set/d'
}

size=default
suites=
for argument in "$@"; do
    case $argument in
    --quick) size=quick ;;
    --full) size=full ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "run.sh: unknown option $argument (see --help)" >&2; exit 2 ;;
    unit | sim | contract | cluster | scenario | fault | bench-smoke | lint | fuzz | sanitize) suites="$suites $argument" ;;
    *) echo "run.sh: unknown suite '$argument'; there are unit sim contract cluster scenario fault bench-smoke lint fuzz sanitize" >&2; exit 2 ;;
    esac
done
if [ -z "$suites" ]; then
    suites="unit sim contract cluster scenario fault bench-smoke"
    if [ "$size" = full ]; then suites="$suites lint fuzz sanitize"; fi
fi
case $size in
quick) limit_s=170 ;;
default) limit_s=880 ;;
full) limit_s=36000 ;;
esac
# A machine of the continuous integration may be slow and shared; an end by the limit would say nothing about the tests.
if [ -n "${CI:-}" ]; then limit_s=$((limit_s * 3)); fi

build=${QUORATE_BUILD:-build-test}
export QUORATE_BUILD="$build" QUORATE_TEST_SIZE="$size" PYTHONDONTWRITEBYTECODE=1
python=/usr/bin/python3
# Named and locked as the black-box suites' folders are (tests/harness/places.py): if this run is killed, a later one of
# theirs removes it.
scratch=$(mktemp -d "${QUORATE_TEST_TMP:-${TMPDIR:-/var/tmp}}/quorate-test-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
exec 9>"$scratch/in-use"
flock 9
export PYTEST_DEBUG_TEMPROOT="$scratch" # Where tmp_path lies: pytest would keep the last three runs' in /tmp.

# Ctrl-C, or an end asked for, ends what runs, which then removes what it made: servers, folders, network namespaces.
# A shell sees to a trap only after what runs in its foreground, so what takes long is in the background and waited for. The
# signal has to be passed on: timeout gives what it runs a process group of its own, and jobs of a script ignore SIGINT.
# shellcheck disable=SC2317
pass_on() {
    trap '' INT TERM HUP
    jobs -p >"$scratch/jobs.$1" # Not in a $(), which is a shell without jobs.
    # shellcheck disable=SC2046
    kill $(cat "$scratch/jobs.$1") 2>/dev/null || true
    wait
    exit 130
}
trap 'pass_on main' INT TERM HUP

# Runs a command for no longer than is left. KILL after 15 s more: what makes servers has to end them.
in_time() {
    timeout -k 15 "$(left_s)" "$@" &
    wait $!
}
began=$(date +%s)
passed=0
failed=0
skipped=0

left_s() {
    left=$((limit_s - ($(date +%s) - began)))
    if [ "$left" -lt 5 ]; then left=5; fi
    echo "$left"
}

has() {
    case " $suites " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

finish() {
    if [ "$skipped" -gt 0 ]; then
        echo "$passed passed, $failed failed, $skipped skipped"
    else
        echo "$passed passed, $failed failed"
    fi
    if [ "$failed" -gt 0 ] || [ "$passed" -eq 0 ]; then exit 1; fi
    exit 0
}

# What is needed, and the build. A build that fails is a failed test.
sh packaging/deps.sh test
if has lint || has fuzz; then sh packaging/deps.sh full; fi

werror=false
if [ -n "${CI:-}" ]; then werror=true; fi
if [ ! -f "$build/build.ninja" ]; then
    if ! meson setup "$build" -Dwerror="$werror" >"$scratch/setup" 2>&1; then
        tail -n 30 "$scratch/setup"
        failed=1
        finish
    fi
fi
targets=all
if has unit || has sim; then
    targets="all meson-test-prereq" # Whether all has what the tests need depends on meson's version.
fi
echo "building in $build/"
# shellcheck disable=SC2086
if ! ninja -C "$build" $targets >"$scratch/build" 2>&1; then
    grep -v '^\[' "$scratch/build" | tail -n 60
    echo "the build failed"
    failed=1
    finish
fi

began=$(date +%s) # The limit is for the tests; a build takes what it takes.

# Suites of the build: one executable is one test.
meson_suite() {
    if ! meson introspect "$build" --tests | grep -q "\"[a-z]*:*$1\""; then
        return
    fi
    echo "== $1"
    in_time env TMPDIR="$scratch" meson test -C "$build" --no-rebuild --suite "$1" --print-errorlogs >"$scratch/$1" 2>&1 || true
    count() {
        sed -n "s/^$2: *\([0-9]*\).*/\1/p" "$scratch/$1" | tail -n 1
    }
    ok=$(count "$1" Ok)
    bad=0
    for kind in Fail "Unexpected Pass" Timeout; do
        n=$(count "$1" "$kind")
        bad=$((bad + ${n:-0}))
    done
    skips=$(count "$1" Skipped)
    if [ -z "$ok" ]; then bad=$((bad + 1)); fi
    if [ "$bad" -gt 0 ]; then tail -n 150 "$scratch/$1"; fi
    echo "$1: ${ok:-0} passed, $bad failed"
    passed=$((passed + ${ok:-0}))
    failed=$((failed + bad))
    skipped=$((skipped + ${skips:-0}))
}

# Suites of real processes: what one says goes to a file, its counts to another, so that two can run side by side and
# a run cut short by the limit counts as failed. SUITE-1 and SUITE-2 are every other file of a suite that takes long.
pytest_suite() {
    part=${1##*-}
    # shellcheck disable=SC2012
    case $part in
    1 | 2) what=$(ls "tests/${1%-*}"/test_*.py 2>/dev/null | awk -v part="$part" 'NR % 2 == part % 2') ;;
    *) what=$(ls -d "tests/$1" 2>/dev/null) ;;
    esac
    if ! ls tests/"${1%-[12]}"/test_*.py >/dev/null 2>&1; then return; fi
    rm -f "$scratch/$1.counts"
    if [ "$(left_s)" -le 5 ]; then
        echo "$1: no time is left of the $limit_s s of this size of run" >"$scratch/$1.said"
        return
    fi
    status=0
    # shellcheck disable=SC2086
    in_time env QUORATE_TEST_COUNTS="$scratch/$1.counts" \
        "$python" -m pytest -q -p no:cacheprovider --tb=short $what >"$scratch/$1.said" 2>&1 || status=$?
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ] || [ ! -f "$scratch/$1.counts" ]; then
        echo "$1: ended early, status $status (124 and 137: out of time)" >>"$scratch/$1.said"
        touch "$scratch/$1.early"
    fi
}

# Shows what a suite said, and adds its counts to the sums.
tell() {
    if [ ! -f "$scratch/$1.said" ]; then return; fi
    echo "== $1"
    cat "$scratch/$1.said"
    ok=0 bad=1 skips=0
    if [ -f "$scratch/$1.counts" ]; then
        read -r ok bad skips <"$scratch/$1.counts"
        if [ -f "$scratch/$1.early" ]; then bad=$((bad + 1)); fi
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    skipped=$((skipped + skips))
}

# Suites that are scripts, given a build directory: SUITE BUILD. The last line is the counts, "passed failed"; a script
# that ends without it has failed.
script_suite() {
    echo "== $1"
    in_time env TMPDIR="$scratch" sh "tests/$1/run.sh" "$2" "$scratch" >"$scratch/$1.said" 2>&1 || true
    ok=0 bad=1
    if tail -n 1 "$scratch/$1.said" | grep -qx '[0-9][0-9]* [0-9][0-9]*'; then
        # shellcheck disable=SC2046
        set -- "$1" $(tail -n 1 "$scratch/$1.said")
        ok=$2 bad=$3
        sed '$d' "$scratch/$1.said"
    else
        tail -n 60 "$scratch/$1.said"
        echo "$1: ended early"
    fi
    echo "$1: $ok passed, $bad failed"
    passed=$((passed + ok))
    failed=$((failed + bad))
}

if has unit; then meson_suite unit; fi
if has sim; then script_suite sim "$build"; fi
# Most of these wait most of the time, so they run beside one another.
if has contract || has cluster || has scenario || has fault; then
    echo "black-box suites run side by side: what they say comes when all have ended"
fi
lane() {
    in_lane=$1
    trap 'pass_on "$in_lane"' INT TERM HUP
    for suite in "$@"; do
        if has "${suite%-[12]}"; then pytest_suite "$suite"; fi
    done
}
beside=
for suites_of_lane in contract cluster-1 "cluster-2 scenario" fault; do
    # shellcheck disable=SC2086
    lane $suites_of_lane &
    beside="$beside $!"
done
# shellcheck disable=SC2086
for job in $beside; do wait "$job"; done
for suite in contract cluster-1 cluster-2 scenario fault; do
    if has "${suite%-[12]}"; then tell "$suite"; fi
done
if has bench-smoke; then
    pytest_suite bench
    tell bench
fi
for suite in lint fuzz sanitize; do
    if has $suite; then script_suite $suite "$build-$suite"; fi
done
finish
