#!/bin/sh
# sanitize/run.sh BUILD SCRATCH: the tests on builds with sanitizers; ends with a line "passed failed". BUILD-address (ASan and UBSan) runs
# the unit tests and the contract with its daemons, BUILD-thread (TSan) the unit tests. A report of any process counts as a failed test.
set -eu
build=$1 scratch=$2
cd "$(dirname "$0")/../.."
passed=0
failed=0

# NAME SANITIZERS: true when it is built. gcc 12 warns of what is not there in such a build: no -Dwerror.
build_with() {
    if [ ! -f "$build-$1/build.ninja" ]; then
        meson setup "$build-$1" -Db_sanitize="$2" -Db_lundef=false -Dbuildtype=debugoptimized >"$scratch/sanitize-build" 2>&1 ||
            { tail -n 30 "$scratch/sanitize-build"; return 1; }
    fi
    ninja -C "$build-$1" all meson-test-prereq >"$scratch/sanitize-build" 2>&1 ||
        { grep -v '^\[' "$scratch/sanitize-build" | tail -n 60; return 1; }
}

# NAME: the counts of meson's tests are added.
run_unit() {
    said="$scratch/sanitize-unit-$1"
    meson test -C "$build-$1" --no-rebuild --suite unit -t 4 --print-errorlogs >"$said" 2>&1 || tail -n 150 "$said"
    ok=$(sed -n 's/^Ok: *\([0-9]*\).*/\1/p' "$said" | tail -n 1)
    bad=$(sed -n 's/^\(Fail\|Timeout\|Unexpected Pass\): *\([0-9]*\).*/\2/p' "$said" | awk '{ sum += $1 } END { print sum + 0 }')
    if [ -z "$ok" ]; then bad=$((bad + 1)); fi
    echo "unit, $1: ${ok:-0} passed, $bad failed"
    passed=$((passed + ${ok:-0}))
    failed=$((failed + bad))
}

# NAME SUITE: black-box tests with the daemons of that build. Not in our TMPDIR: some drop their rights, and could not enter it.
run_suite() {
    ok=0 bad=1
    env -u TMPDIR QUORATE_BUILD="$build-$1" QUORATE_TEST_SIZE=quick QUORATE_TEST_COUNTS="$scratch/sanitize-counts" \
        /usr/bin/python3 -m pytest -q -p no:cacheprovider --tb=short "tests/$2" >"$scratch/sanitize-$2" 2>&1 ||
        tail -n 60 "$scratch/sanitize-$2"
    if [ -f "$scratch/sanitize-counts" ]; then read -r ok bad _ <"$scratch/sanitize-counts"; fi
    echo "$2, $1: $ok passed, $bad failed"
    passed=$((passed + ok))
    failed=$((failed + bad))
}

# What is reported goes to files: the end of a daemon may be what a test wants, and then nobody looks at its status.
mkdir -p "$scratch/reports"
export ASAN_OPTIONS="log_path=$scratch/reports/asan" UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:log_path=$scratch/reports/ubsan"
case $build in /*) ;; *) build=$PWD/$build ;; esac

if build_with address address,undefined; then
    run_unit address
    run_suite address contract
else
    failed=$((failed + 1))
fi
if build_with thread thread; then run_unit thread; else failed=$((failed + 1)); fi
for report in "$scratch/reports"/*; do
    [ -f "$report" ] || continue
    head -n 60 "$report"
    failed=$((failed + 1))
done
echo "$passed $failed"
if [ "$failed" -gt 0 ]; then exit 1; fi
