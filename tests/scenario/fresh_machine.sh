#!/bin/sh
# fresh_machine.sh [SCENARIO...]: the README's two commands on a Debian 12 that has nothing but a shell and apt.
#
# Scenarios, all by default (10 to 20 minutes, most of it two runs of tests/run.sh --quick):
#   root         quickstart, the README's tour, stop, second start, a taken port, then the tests, all as root
#   user         the same as a user with sudo
#   denied       as a user without sudo, and as one whom sudo turns down: one line that names the mend
#   offline      as root without a network: one line that names the mend
#
# Makes the machine with mmdebstrap, from the mirror that this machine's apt uses, in a folder of its own under TMPDIR
# (default /var/tmp; a real disk), clones the repository's last commit into it, and removes everything at the end.
# Needs root, mmdebstrap and about 4 GB; skips with a reason (and status 0) where something is missing. Writes a log
# to its standard output: every command typed and what it printed; "ok" or "FAILED" for each claim; the count last.
#
# Nothing stays behind, not even after kill -9: all runs in a mount and a process namespace, whose end unmounts and
# kills what is inside. Members run in a network namespace with only a loopback, so port 2379 of the machine is left
# alone, and a machine where everything is installed is seen to need no network.
# shellcheck disable=SC2016,SC2317
set -eu

skip() {
    echo "skipped: $1"
    exit 0
}

# The first URI of apt's own sources, in either of their formats.
find_mirror() {
    {
        sed -n 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources
        sed -n 's/^deb[[:space:]]\+\(\[[^]]*\][[:space:]]*\)\?\([^[:space:]]*\)[[:space:]].*[[:space:]]main.*/\2/p' \
            /etc/apt/sources.list
        sed -n 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' /etc/apt/sources.list.d/*.sources
    } 2>/dev/null | head -n 1
}

# --- Outside: the folder and the namespaces. ---

if [ "${1:-}" != --inside ]; then
    here=$(cd "$(dirname "$0")/../.." && pwd)
    scenarios=${*:-root user denied offline}
    for scenario in $scenarios; do
        case $scenario in
        root | user | denied | offline) ;;
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '/^set/d'; exit 0 ;;
        *) echo "fresh_machine.sh: unknown scenario '$scenario' (see --help)" >&2; exit 2 ;;
        esac
    done
    [ "$(id -u)" = 0 ] || skip "makes a machine of its own, which takes root"
    for tool in mmdebstrap unshare nsenter chroot ip git; do
        command -v $tool >/dev/null 2>&1 || skip "$tool is not installed"
    done
    git -c safe.directory='*' -C "$here" rev-parse --verify -q HEAD >/dev/null || skip "$here is not a git repository"
    mirror=$(find_mirror)
    [ -n "$mirror" ] || skip "no mirror in this machine's apt sources"
    unshare --mount --pid --net --fork true 2>/dev/null || skip "no namespaces here"

    work=$(mktemp -d "${TMPDIR:-/var/tmp}/quorate-fresh.XXXXXX")
    inside=
    # --kill-child: with unshare's end ends process 1 of its namespace, so everything in it, and then the mounts.
    cleanup() {
        if [ -n "$inside" ]; then
            kill -KILL "$inside" 2>/dev/null || true
            wait "$inside" 2>/dev/null || true
        fi
        rm -rf --one-file-system "$work"
    }
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    cp "$0" "$work/script" # A shell reads its script as it goes, and a checkout may change while this runs.
    # shellcheck disable=SC2086
    unshare --mount --pid --fork --kill-child --mount-proc sh "$work/script" --inside "$here" "$work" "$mirror" $scenarios &
    inside=$!
    status=0
    wait "$inside" || status=$?
    inside=
    exit "$status"
fi

# --- Inside. ---

here=$2 work=$3 mirror=$4
shift 4
passed=0
failed=0

ok() {
    echo "ok      $1"
    passed=$((passed + 1))
}

bad() {
    echo "FAILED  $1"
    failed=$((failed + 1))
}

# claim TEXT COMMAND...: holds when the command succeeds.
claim() {
    text=$1
    shift
    if "$@"; then ok "$text"; else bad "$text"; fi
}

show() {
    sed 's/^/    | /' "$1"
}

now_ms() {
    date +%s%3N
}

# An interface that is up only to itself. $lone is a process that lives in it.
unshare --net sleep infinity &
lone=$!
until [ "$(readlink /proc/$lone/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
nsenter -t $lone -n ip link set lo up

echo "machine: mmdebstrap --variant=apt bookworm"
if ! mmdebstrap --quiet --variant=apt bookworm "$work/base" "$mirror" >"$work/mmdebstrap" 2>&1; then
    show "$work/mmdebstrap"
    skip "mmdebstrap failed"
fi
cp /etc/resolv.conf "$work/base/etc/resolv.conf"
apt-config dump Acquire::http::Proxy >"$work/base/etc/apt/apt.conf.d/90proxy"
mkdir "$work/archives" # What one machine has downloaded the next need not.

# tree NAME: a new machine in $tree, with a clone for the user $who (uid $uid) in $home/quorate.
tree() {
    tree=$work/$1
    cp -a --reflink=auto "$work/base" "$tree"
    mount --bind "$tree" "$tree" # So that the machine's / is a mount of its own in its /proc/mounts.
    mount --bind "$work/archives" "$tree/var/cache/apt/archives"
    mount -t proc proc "$tree/proc"
    mount -t tmpfs -o mode=1777 tmpfs "$tree/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$tree/dev/pts"
    who=root uid=0 home=/root
    if [ "$1" != root ] && [ "$1" != offline ]; then
        who=ada uid=1000 home=/home/ada
        chroot "$tree" useradd --create-home --uid $uid --shell /bin/sh $who
    fi
    git -c safe.directory='*' clone -q --no-hardlinks "$here" "$tree$home/quorate"
    chown -R $uid:$uid "$tree$home/quorate"
}

remove_tree() {
    for entry in /proc/[0-9]*; do
        if [ "$(readlink "$entry/root")" = "$tree" ]; then kill -KILL "${entry#/proc/}" 2>/dev/null || true; fi
    done
    umount -R "$tree" 2>/dev/null || umount -R -l "$tree"
    rm -rf --one-file-system "$tree"
}

# run COMMAND: typed in the clone by $who on the machine in $tree. Leaves its output in $out, errors in $err, both in the
# log, its status in $status and its time in $took_ms. $net is a command prefix that chooses the network, $in_place is
# "exec" where this shell is to become the command.
net=
in_place=
out=$work/out err=$work/err
run() {
    printf '  %s:~/quorate%s %s\n' "$who" "$([ $uid = 0 ] && echo '#' || echo '$')" "$1"
    status=0
    started_ms=$(now_ms)
    launch "$1" >"$out" 2>"$err" </dev/null || status=$?
    took_ms=$(($(now_ms) - started_ms))
    cat "$out" "$err" >"$work/both"
    show "$work/both"
    echo "    (status $status after $took_ms ms)"
}

launch() {
    # shellcheck disable=SC2086
    $in_place $net chroot --userspec=$uid:$uid "$tree" /usr/bin/env -i HOME=$home USER=$who LOGNAME=$who TERM=dumb LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -c "cd $home/quorate && $1"
}

# One line, and the last; before it only etcd's own notes about flags, "no data-dir provided" and the like.
refused_in_one_line_naming() {
    [ "$status" != 0 ] && [ "$(grep -vc ' W | etcdmain: ' "$err")" = 1 ] && tail -n 1 "$err" | grep -q "$1"
}

# The whole of the last line, so that scripts can read it.
ends_with_its_count() {
    tail -n 1 "$out" | grep -qx "[0-9]* passed, [0-9]* failed\(, [0-9]* skipped\)\?"
}

# Processes on the machine in $tree.
processes() {
    for entry in /proc/[0-9]*; do
        if [ "$(readlink "$entry/root")" = "$tree" ]; then echo "${entry#/proc/} $(tr '\0' ' ' <"$entry/cmdline")"; fi
    done
}

listening() {
    nsenter -t $lone -n cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == "0A" { print $2 }'
}

nothing_runs() {
    processes >"$work/left"
    listening >>"$work/left"
    show "$work/left"
    [ ! -s "$work/left" ]
}

nothing_new_lies_about() {
    {
        git -c safe.directory='*' -C "$tree$home/quorate" status --porcelain
        # A killed member's word in /dev/shm goes with the next start, which may need it.
        find "$tree/tmp" "$tree/var/tmp" "$tree/dev/shm" -mindepth 1 ! -path '*/dev/shm/quorate-*.word'
    } >"$work/left"
    show "$work/left"
    [ ! -s "$work/left" ]
}

# What starts by itself, and as whom. A unit that nothing in /etc enables does not.
services_and_users() {
    find "$tree/etc/systemd" "$tree/etc/init.d" "$tree"/etc/rc?.d 2>/dev/null
    cut -d: -f1 "$tree/etc/passwd"
}

no_new_services() {
    services_and_users | sort | comm -13 "$work/services" - >"$work/left"
    show "$work/left"
    [ ! -s "$work/left" ]
}

# To a request that needs all three daemons.
answers() {
    launch "curl -s -f -o /dev/null -m 1 http://127.0.0.1:2379/v2/keys?quorum=true" >/dev/null 2>&1
}

# Something else on port 2379, until stranger_leaves.
stranger_comes() {
    (in_place="exec" && launch "exec python3 -c 'import signal, socket
s = socket.create_server((\"127.0.0.1\", 2379))
signal.pause()'") &
    stranger=$!
    until listening | grep -q ':094B$' || ! kill -0 $stranger; do sleep 0.02; done
}

stranger_leaves() {
    kill $stranger
    wait $stranger 2>/dev/null || true
}

# start_member FLAGS: sets $member to quickstart's process, $ready_ms to when the first request was answered.
start_member() {
    printf '  %s:~/quorate%s sh packaging/quickstart.sh %s &\n' "$who" "$([ $uid = 0 ] && echo '#' || echo '$')" "$1"
    started_ms=$(now_ms)
    (in_place="exec" && launch "exec sh packaging/quickstart.sh $1") >"$work/member" 2>&1 </dev/null &
    member=$!
    until answers; do
        if ! kill -0 $member 2>/dev/null || [ $(($(now_ms) - started_ms)) -gt 60000 ]; then
            return 1
        fi
        sleep 0.02
    done
    ready_ms=$(($(now_ms) - started_ms))
}

stop_member() {
    stopped_ms=$(now_ms)
    kill -TERM $member 2>/dev/null || true
    status=0
    wait $member 2>/dev/null || status=$?
    show "$work/member"
    echo "    (SIGTERM: status $status after $(($(now_ms) - stopped_ms)) ms)"
}

# The README's console block: each line that begins with "$ " is typed, what follows must come back.
type_tour() {
    sed -n '/^```console/,/^```$/{/^```/d;p}' "$tree$home/quorate/README.md" >"$work/tour"
    [ -s "$work/tour" ] || return 1
    while IFS= read -r line; do
        case $line in
        '$ '*) launch "${line#??}" 2>&1 </dev/null || true ;;
        esac
    done <"$work/tour" >"$work/came"
    show "$work/came"
    grep -v '^\$ ' "$work/tour" >"$work/wanted"
    tr -d '\n' <"$work/came" >"$work/came.flat"
    tr -d '\n' <"$work/wanted" | cmp -s - "$work/came.flat"
}

first_curl_works() {
    sed -n 's/^ *\(try it: *\)\?\(curl .*\)/\2/p' "$work/member" >"$work/hints"
    [ "$(wc -l <"$work/hints")" -ge 1 ] || return 1
    while IFS= read -r line; do
        launch "$line" </dev/null 2>&1 || return 1
    done <"$work/hints" >"$work/came"
    show "$work/came"
    grep -q '"value":"hello"' "$work/came"
}

says_all() {
    for word in 'http://localhost:2379\|http://127.0.0.1:2379' 'curl ' 'data: ' 'stop: ' 'wipe: '; do
        grep -q "$word" "$work/member" || return 1
    done
}

install_sudo() {
    if ! chroot "$tree" sh -c 'apt-get -q update && apt-get -q install -y --no-install-recommends sudo' >"$work/sudo" 2>&1
    then
        show "$work/sudo"
        bad "sudo could not be installed"
    fi
    rm -rf "$tree"/var/lib/apt/lists/*
}

both_commands() {
    services_and_users | sort >"$work/services"
    run "sh packaging/quickstart.sh --build-only"
    claim "$who: quickstart.sh --build-only ends with 0" [ "$status" = 0 ]
    claim "$who: and says what it built" grep -q '^built: ' "$out"

    net="nsenter -t $lone -n"
    stranger_comes
    run "sh packaging/quickstart.sh"
    stranger_leaves
    claim "$who: with 2379 taken: one line that names the flag" refused_in_one_line_naming "2379: bind:.*give -listen-client-urls"
    claim "$who: and nothing was made" [ ! -e "$tree$home/quorate/default.etcd" ]
    if start_member ""; then
        ok "$who: a member runs in the foreground, first answer after $ready_ms ms"
        until grep -q 'wipe:' "$work/member" || [ $(($(now_ms) - started_ms)) -gt 10000 ]; do sleep 0.02; done
        claim "$who: it says where clients connect, a first curl, where data lies, how to stop, how to wipe" says_all
        claim "$who: the README's tour answers as printed" type_tour
        claim "$who: the first curl that it names works" first_curl_works
        run "sh packaging/quickstart.sh --data-dir=other.etcd --listen-client-urls=http://127.0.0.1:23790 --advertise-client-urls=http://127.0.0.1:23790"
        claim "$who: with 2380 taken: one line that names the flag" refused_in_one_line_naming "2380: bind:.*give -listen-peer-urls"
        claim "$who: and nothing was made" [ ! -e "$tree$home/quorate/other.etcd" ]
        stop_member
        claim "$who: SIGTERM ends it as etcd ends, of that signal (143)" [ "$status" = 143 ]
        claim "$who: no process and no socket is left" nothing_runs
        claim "$who: no file is left but the build, the data and what was fetched" nothing_new_lies_about
        if start_member ""; then
            ok "$who: a second start, first answer after $ready_ms ms (2,000 are promised)"
            stop_member
        else
            bad "$who: a second start"
        fi
    else
        bad "$who: a member runs in the foreground"
        stop_member
    fi
    net=
    claim "$who: quickstart added no service and no user" no_new_services

    run "sh tests/run.sh --quick"
    claim "$who: tests/run.sh --quick ends with its count" ends_with_its_count
    claim "$who: and no test failed" [ "$status" = 0 ]
    claim "$who: tests/run.sh added no service and no user" no_new_services
    claim "$who: no process is left" nothing_runs
    claim "$who: no file is left but the build, the data and what was fetched" nothing_new_lies_about
    run "sh tests/run.sh --quick unit"
    claim "$who: a second run" [ "$status" = 0 ]
}

refused() {
    run "sh packaging/quickstart.sh --build-only"
    claim "$1: quickstart.sh ends in one line that names the mend" refused_in_one_line_naming "$2"
    run "sh tests/run.sh --quick"
    claim "$1: tests/run.sh ends in one line that names the mend" refused_in_one_line_naming "$2"
    claim "$1: nothing was made" nothing_new_lies_about
}

for scenario in "$@"; do
    echo "== $scenario"
    tree "$scenario"
    case $scenario in
    root)
        both_commands
        ;;
    user)
        install_sudo
        echo "$who ALL=(ALL) NOPASSWD: ALL" >"$tree/etc/sudoers.d/ada"
        both_commands
        ;;
    denied)
        refused "without sudo" "as root, run: apt-get update && apt-get install -y .* curl"
        install_sudo
        refused "turned down by sudo" "as root, run: apt-get update && apt-get install -y .* curl"
        ;;
    offline)
        net="nsenter -t $lone -n"
        refused "without a network" "mend the network"
        net=
        ;;
    esac
    remove_tree
done

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
