"""Flags and variables as an operator sees them: what is printed where, and the exit status (docs/configuration.md).

Each daemon reads the same table, so what holds for quorate is asked of the others too where they are built. What a
flag means is in tests/unit/common/test_conf.c; here it is the process that counts.
"""

import os
import re
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness.places import scratch_dir  # noqa: E402
from harness.server import build_dir, clean_environment  # noqa: E402

TIMEOUT_S = 20


@pytest.fixture
def quorate():
    path = os.path.join(build_dir(), "quorate")
    if not os.path.exists(path):
        pytest.fail("quorate is not built in " + build_dir())
    with scratch_dir("flags") as folder:
        def run(*flags, program=path, **variables):
            return subprocess.run([program, *flags], cwd=folder, env=clean_environment(variables),
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)

        run.folder = folder
        yield run
        assert os.listdir(folder) == [], "something was written"


def message(result):
    """The one line that is no log line."""
    lines = [line for line in result.stderr.splitlines() if not re.match(r"\d{4}-\d\d-\d\d \d\d:", line)]
    assert len(lines) == 1, result.stderr
    return lines[0]


# 1.1 parsing rules

@pytest.mark.parametrize("flags", [["-name", "x"], ["--name", "x"], ["-name=x"], ["--name=x"],
                                   ["--name=y", "-name", "x"]])
def test_dashes_and_equals_signs_are_one(quorate, flags):
    result = quorate("--check", *flags)
    assert "\ninitial-cluster-state" in result.stdout
    assert result.stdout.startswith("name = x  (flag)\n")


def test_positional_argument_is_refused(quorate):
    result = quorate("extra")
    assert result.returncode == 2
    assert message(result) == "error verifying flags, 'extra' is not a valid flag. See 'quorate --help'."


def test_boolean_does_not_eat_the_next_word(quorate):
    result = quorate("-debug", "false")
    assert result.returncode == 2
    assert "'false' is not a valid flag" in message(result)


def test_ignored_flag_does_not_eat_the_next_word(quorate):
    result = quorate("-snapshot", "foo")
    assert result.returncode == 2
    assert "'foo' is not a valid flag" in message(result)


def test_unknown_flag_prints_usage_on_stdout_and_the_flag_on_stderr(quorate):
    result = quorate("-nosuch")
    assert result.returncode == 2
    assert message(result).startswith("flag provided but not defined: -nosuch")
    assert result.stdout.startswith("usage: quorate")


@pytest.mark.parametrize("flag", ["quota-backend-bytes=1", "max-request-bytes=1", "max-txn-ops=1",
                                  "auto-compaction-retention=1", "grpc-keepalive-timeout=1", "experimental-v3demo",
                                  "experimental-enable-v2v3=x", "unsafe-no-fsync"])
def test_flags_of_the_v3_store_are_unknown(quorate, flag):
    result = quorate("--" + flag)
    assert result.returncode == 2
    assert message(result).startswith("flag provided but not defined: -" + flag.partition("=")[0])


@pytest.mark.parametrize("value", ["abc", "-5", "1.5", "", "0x10", "99999999999999999999"])
def test_bad_number_is_refused(quorate, value):
    result = quorate("--heartbeat-interval=" + value)
    assert result.returncode == 2
    assert message(result).startswith(
        'invalid value "%s" for flag -heartbeat-interval: parse error' % value)


def test_missing_value_is_refused(quorate):
    result = quorate("--name")
    assert result.returncode == 2
    assert message(result) == "flag needs an argument: -name"


def test_bad_variable_is_refused_and_named(quorate):
    result = quorate(ETCD_HEARTBEAT_INTERVAL="abc")
    assert result.returncode == 2
    assert message(result).startswith('invalid value "abc" for ETCD_HEARTBEAT_INTERVAL: parse error')


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help_is_on_stdout(quorate, flag):
    result = quorate(flag)
    assert result.returncode == 0 and result.stderr == ""
    assert "--listen-client-urls 'http://localhost:2379,http://localhost:4001'" in result.stdout
    assert "ETCD_LISTEN_CLIENT_URLS" in result.stdout


def test_version_has_four_lines_and_the_first_is_etcds(quorate):
    result = quorate("--version", ETCD_HEARTBEAT_INTERVAL="abc")  # the version comes before the environment
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and result.stderr == ""
    assert re.fullmatch(r"etcd Version: \d+\.\d+\.\d+", lines[0])
    assert re.fullmatch(r"Quorate Version: \d+\.\d+\.\d+", lines[1])
    assert len(lines) == 4


# The environment. What is told is seen on the way to a refusal that comes last: a data folder that is a file.

@pytest.fixture
def told(quorate):
    def run(*flags, **variables):
        result = quorate("--data-dir=/dev/null", *flags, **variables)
        assert result.returncode == 2
        assert message(result).startswith("error listing data dir: /dev/null is not a folder; ")
        return result.stderr

    return run


def test_used_variable_is_told(told):
    assert " I | flags: recognized and used environment variable ETCD_MAX_WALS=7\n" in told(ETCD_MAX_WALS="7")


def test_shadowed_variable_is_told_and_the_flag_wins(told):
    log = told("--max-wals=8", ETCD_MAX_WALS="7")
    assert " I | flags: recognized environment variable ETCD_MAX_WALS, but unused: shadowed by corresponding flag\n" in log


def test_unknown_variable_is_a_warning(told):
    assert " W | flags: unrecognized environment variable ETCD_FOO=bar\n" in told(ETCD_FOO="bar")


def test_empty_variable_counts_as_not_set(told, quorate):
    assert "unrecognized environment variable ETCD_NAME=\n" in told(ETCD_NAME="")
    assert quorate("--check", ETCD_NAME="").stdout.startswith("name = default  (default)\n")


@pytest.mark.parametrize("name", ["ETCD_VERSION", "ETCD_UNSUPPORTED_ARCH"])
def test_variables_that_are_no_flags_are_not_warned_of(told, name):
    assert "unrecognized" not in told(**{name: "1"})


def test_variable_of_a_rejected_flag_is_refused(quorate):
    result = quorate(ETCD_PEERS="x")
    assert result.returncode == 2
    assert "ETCD_PEERS" in message(result)


def test_discovery_token_is_in_no_line(quorate):
    result = quorate("--initial-cluster-state=existing", ETCD_DISCOVERY="https://discovery.example/verysecret")
    assert result.returncode == 2
    assert "discovery URL should not be set when joining existing initial cluster; " in message(result)
    assert "verysecret" not in result.stdout + result.stderr
    assert "ETCD_DISCOVERY=https://discovery.example/***" in result.stderr
    assert "verysecret" not in quorate("--discovery=http://a/verysecret", "--initial-cluster=x").stderr


# 1.2 URL values

@pytest.mark.parametrize("flag", ["listen-client-urls", "listen-peer-urls", "advertise-client-urls",
                                  "initial-advertise-peer-urls"])
@pytest.mark.parametrize("url, reason", [
    ("ftp://localhost:1", "URL scheme must be http or https: ftp://localhost:1"),
    ("localhost:1", "URL scheme must be http or https: localhost:1"),
    ("http://localhost", 'URL address does not have the form "host:port": http://localhost'),
    ("http://localhost:1/", "URL must not contain a path: http://localhost:1/"),
    (",", "URL scheme must be http or https: "),
])
def test_bad_url_is_refused_with_its_reason(quorate, flag, url, reason):
    result = quorate("--%s=%s" % (flag, url))
    assert result.returncode == 2
    assert message(result) == 'invalid value "%s" for flag -%s: %s' % (url, flag, reason)


def test_url_list_is_trimmed_and_sorted(quorate):
    result = quorate("--check", "--advertise-client-urls= http://b:1 , http://a:1")
    assert result.returncode in (0, 1)  # a port may be taken by another server of this host
    assert "advertise-client-urls = " in result.stdout


def test_https_without_certificate_is_refused(quorate):
    result = quorate("--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://127.0.0.1:1")
    assert result.returncode == 2
    assert "cannot listen on TLS for https://127.0.0.1:1: KeyFile and CertFile are not presented" in message(result)


def test_certificate_on_http_is_a_warning(told):
    log = told("--cert-file=/c", "--key-file=/k")
    assert " W | etcdmain: The scheme of http://localhost:2379 is http while key/cert files are presented." in log


# 1.3: flags of old

@pytest.mark.parametrize("flag", ["cluster-active-size", "snapshot", "v", "vv", "force"])
def test_ignored_flag_is_a_warning(told, flag):
    assert ' W | etcdmain: flag "-%s" is no longer supported - ignoring.\n' % flag in told("-" + flag)


@pytest.mark.parametrize("flag", ["peers", "peers-file"])
def test_rejected_flag_is_refused(quorate, flag):
    result = quorate("-%s=x" % flag)
    assert result.returncode == 2
    assert message(result) == 'flag "-%s" is no longer supported.' % flag


def test_default_data_dir_is_a_warning(quorate):
    result = quorate("--wal-dir=/dev/null")
    assert " W | etcdmain: no data-dir provided, using default data-dir ./default.etcd\n" in result.stderr


def test_known_flags_of_later_versions_are_taken(told):
    told("--enable-v2", "--enable-v2=true", "--pre-vote", "--logger=zap", "--initial-election-tick-advance")


# 1.4 cross-flag checks, with their words

@pytest.mark.parametrize("flags, reason", [
    (["--initial-cluster=a=http://b:1", "--discovery=http://c/d"],
     'multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery" or "discovery-srv"'),
    (["--listen-client-urls=http://127.0.0.1:1"],
     "-advertise-client-urls is required when -listen-client-urls is set explicitly"),
    (["--heartbeat-interval=300"],
     "-election-timeout[1000ms] should be at least as 5 times as -heartbeat-interval[300ms]"),
    (["--election-timeout=50001"],
     "-election-timeout[50001ms] is too long, and should be set less than 50000ms"),
    (["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
    (["--addr=1.2.3.4:1", "--advertise-client-urls=http://1.2.3.4:1"],
     "Set only one of flags -advertise-client-urls and -addr"),
    (["--cert-file=/c"], "KeyFile and CertFile must both be present[key: , cert: /c]"),
    (["--client-cert-auth"], "-client-cert-auth cannot be kept on http://localhost:2379"),
])
def test_contradiction_is_refused(quorate, flags, reason):
    result = quorate(*flags)
    assert result.returncode == 2
    line = message(result)
    assert line.startswith("error verifying flags, " + reason + "; ")  # and the mend behind it
    assert line.endswith(". See 'quorate --help'.")
    assert len(line) > len("error verifying flags, " + reason + "; . See 'quorate --help'.") + 10


def test_who_may_become_a_proxy_need_not_advertise(quorate):
    """Discovery with its fallback, the default: then the listen URLs may be a proxy's."""
    flags = ["--listen-client-urls=http://127.0.0.1:1", "--discovery=http://127.0.0.1:1/x", "--data-dir=/dev/null"]
    assert message(quorate(*flags)).startswith("error listing data dir: ")
    assert "-advertise-client-urls is required" in message(quorate(*flags, "--discovery-fallback=exit"))


def test_a_name_of_its_own_stands_in_the_initial_cluster(quorate):
    result = quorate("--check", "--name=x", "--data-dir=/dev/null", "--initial-advertise-peer-urls=http://1.2.3.4:5,http://1.2.3.4:6")
    assert "\ninitial-cluster = x=http://1.2.3.4:5,x=http://1.2.3.4:6  (derived)\n" in result.stdout
    # With the default name it is the default cluster's.
    result = quorate("--check", "--data-dir=/dev/null", "--initial-advertise-peer-urls=http://1.2.3.4:5")
    assert "\ninitial-cluster = default=http://localhost:2380,default=http://localhost:7001  (derived)\n" in result.stdout


def test_bare_word_in_the_initial_cluster_is_refused(quorate):
    result = quorate("--initial-cluster=word")
    assert result.returncode == 2
    assert message(result).endswith("error setting up initial cluster: URL scheme must be http or https: ; "
                                    "write each member as NAME=http://HOST:PORT")


@pytest.mark.parametrize("flags", [["--proxy=on"], ["--proxy=readonly"], ["--enable-v2=false"]])
def test_what_is_not_served_is_said(quorate, flags):
    result = quorate(*flags)
    assert result.returncode == 2
    assert "is not served by this version; " in message(result)


# The daemons themselves.

@pytest.mark.parametrize("name", ["raftd", "stored", "gatewayd"])
def test_each_daemon_reads_the_same_table(quorate, name):
    program = os.path.join(build_dir(), name)
    if not os.path.exists(program):
        pytest.fail("%s is not built in %s" % (name, build_dir()))
    assert quorate("--version", program=program).stdout == quorate("--version").stdout
    helped = quorate("--help", program=program)
    assert helped.returncode == 0
    assert helped.stdout.startswith("usage: %s " % name)
    assert helped.stdout.split("\n", 1)[1] == quorate("--help").stdout.split("\n", 1)[1]
    refused = quorate("--heartbeat-interval=abc", program=program)
    assert refused.returncode == 2
    assert message(refused) == message(quorate("--heartbeat-interval=abc"))
