#!/bin/sh
# fuzz/run.sh BUILD SCRATCH [SECONDS [TARGET...]]: builds the fuzz targets with ASan and UBSan and runs each for SECONDS
# (60); ends with a line "passed failed". BUILD is a directory of its own. An input that fails is kept in BUILD/found.
set -eu
build=$1 scratch=$2 seconds=${3:-60}
shift "$(($# < 3 ? $# : 3))"
targets=${*:-http form proto wal snapshot seal}
cd "$(dirname "$0")/../.."

end() {
    echo "$1 $2"
    if [ "$2" -gt 0 ]; then exit 1; fi
    exit 0
}

if [ ! -f "$build/build.ninja" ]; then
    CC=clang meson setup "$build" -Dfuzz=true -Dbuildtype=debugoptimized -Dwerror=true >"$scratch/fuzz-build" 2>&1 ||
        { tail -n 30 "$scratch/fuzz-build"; end 0 1; }
fi
names=
for target in $targets; do names="$names tests/fuzz/fuzz_$target"; done
# shellcheck disable=SC2086
ninja -C "$build" $names >"$scratch/fuzz-build" 2>&1 ||
    { grep -v '^\[' "$scratch/fuzz-build" | tail -n 60; echo "fuzz: the build failed"; end 0 1; }

mkdir -p "$build/found"
passed=0
failed=0
for target in $targets; do
    mkdir -p "$scratch/corpus_$target"
    # A target that ends by itself before its time, whatever its status, has not done its work.
    began=$(date +%s)
    if "$build/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -max_len=16384 \
            -artifact_prefix="$build/found/$target-" "$scratch/corpus_$target" >"$scratch/fuzz_$target" 2>&1 &&
            [ $(($(date +%s) - began)) -ge $((seconds - 1)) ]; then
        echo "fuzz_$target: $(sed -n 's/^Done \([0-9]* runs in [0-9]* second.*\)/\1/p' "$scratch/fuzz_$target")"
        passed=$((passed + 1))
    else
        tail -n 60 "$scratch/fuzz_$target"
        echo "fuzz_$target: failed"
        failed=$((failed + 1))
    fi
done
end "$passed" "$failed"
