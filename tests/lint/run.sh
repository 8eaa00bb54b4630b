#!/bin/sh
# lint/run.sh BUILD SCRATCH: the tree's static checks; ends with a line "passed failed". BUILD is a directory of its own,
# configured for clang; only its list of commands is used.
#
#   clang-tidy   with .clang-tidy, over what is installed: common proto daemons
#   cppcheck     the same files
#
# A finding is mended, or answered with a NOLINT or cppcheck-suppress that says why on its line.
set -eu
build=$1 scratch=$2
cd "$(dirname "$0")/../.."

if [ ! -f "$build/build.ninja" ]; then
    CC=clang meson setup "$build" >"$scratch/lint-setup" 2>&1 || { tail -n 30 "$scratch/lint-setup"; exit 1; }
fi
passed=0
failed=0
verdict() {
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
    else
        echo "lint: findings of $1"
        failed=$((failed + 1))
    fi
}

# clang-tidy FILE: what the analyzer is told of others' functions cannot be told to the files that define them.
tidy() {
    case $1 in
    common/err.c | common/state/schema.c) promises= ;;
    *) promises="--extra-arg=-include --extra-arg=$PWD/tests/lint/promises.h" ;;
    esac
    # shellcheck disable=SC2086
    clang-tidy --quiet -p "$build" $promises "$1" 2>"$scratch/tidy-errors" || {
        grep -v 'warnings generated' "$scratch/tidy-errors" || true
        return 1
    }
}
findings=0
for file in $(find common proto daemons -name '*.c' | sort); do
    tidy "$file" || findings=1
done
verdict clang-tidy "$findings"

findings=0
cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --inline-suppr --std=c11 \
    -I . -I "$build" common proto daemons || findings=1
verdict cppcheck "$findings"

echo "$passed $failed"
