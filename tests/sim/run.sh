#!/bin/sh
# run.sh BUILD SCRATCH: the simulator's part of tests/run.sh: whole clusters in one process, in virtual time.
#
# First the seeds that found something once (seeds), then lone members and seven of them, the first 300 histories, 60 on thin
# links (links.h), 60 in which only one member is in trouble at a time and the membership changes 1,200 times at least, and new
# ones for the rest of the time: 20 s with --quick, 2 minutes by default. With --full thousands, and the planted bugs
# (planted.md). Variables: QUORATE_TEST_SIZE; QUORATE_TEST_SEED the first of the new seeds.
# The last line is "passed failed".
set -u
cd "$(dirname "$0")/../.."
sim=$1/tests/sim/sim
jobs=2
passed=0
failed=0

# check NAME COMMAND...: one result; what the command says is shown either way, its last lines if it failed.
check() {
    name=$1
    shift
    if "$@" >"$scratch/sim.one" 2>&1; then
        passed=$((passed + 1))
        tail -n 1 "$scratch/sim.one" | sed "s/^/$name: /"
    else
        failed=$((failed + 1))
        echo "$name: FAILED"
        tail -n 60 "$scratch/sim.one"
    fi
}
scratch=$2

case ${QUORATE_TEST_SIZE:-default} in
quick) first=150 seconds=15 ;;
full) first=2000 seconds=1800 ;;
*) first=300 seconds=105 ;;
esac
# No two runs look at the same days, unless asked to.
new=${QUORATE_TEST_SEED:-$(($(date +%s) * 1000))}

check found "$sim" --jobs $jobs --file tests/sim/seeds
check lone "$sim" --jobs $jobs --members 1 --seeds $((first / 5))
check seven "$sim" --jobs $jobs --members 7 --seeds $((first / 5))
check first "$sim" --jobs $jobs --seeds $first
check thin "$sim" --jobs $jobs --thin --seeds $((first / 5))
check changes "$sim" --jobs $jobs --steady --seeds $((first / 5)) # 30 changes of the membership in each, and more
changes=$(sed -n 's/.* changes=\([0-9]*\) .*/\1/p' "$scratch/sim.one" | tail -n 1)
if [ "${changes:-0}" -lt $((first * 4)) ]; then
    failed=$((failed + 1))
    echo "changes: FAILED: there were ${changes:-none}, and at least $((first * 4)) are wanted"
fi
check new "$sim" --jobs $jobs --seconds $seconds --first "$new"
if [ "${QUORATE_TEST_SIZE:-default}" = full ]; then
    check planted /usr/bin/python3 tests/sim/planted.py --jobs $jobs
fi
echo "$passed $failed"
