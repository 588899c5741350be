# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line as its users see it: exit codes, one line of error, what wins over what."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, UNPRIVILEGED, clean_environment, run_shipper

PRODUCER = {"NATS_URL": "localhost", "SHIPPER_SUBJECT": "shipper", "HOSTNAME": "web1.example.net"}


def test_partition_prints_host_partition_and_subject() -> None:
    result = run_shipper(
        "partition", "foo", "web1.example.net", env={"SHIPPER_PARTITIONS": "10", "SHIPPER_SUBJECT": "s"}
    )
    assert result.stdout == "foo\t3\ts.p3.foo\nweb1.example.net\t5\ts.p5.web1.example.net\n"
    assert result.returncode == 0


def test_partition_prints_json() -> None:
    result = run_shipper("partition", "--json", "--partitions", "10", "--subject", "shipper", "foo")
    assert json.loads(result.stdout) == [{"host": "foo", "partition": 3, "subject": "shipper.p3.foo"}]


def test_without_a_host_it_is_this_one() -> None:
    assert run_shipper("partition", env={"HOSTNAME": "foo", "SHIPPER_PARTITIONS": "10"}).stdout == "foo\t3\n"


def test_a_flag_wins_over_the_file_and_the_file_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text('HOSTNAME="foo"\nSHIPPER_PARTITIONS=10\n')
    env = {"HOSTNAME": "bar", "SHIPPER_PARTITIONS": "3"}
    assert run_shipper("partition", "--env-file", str(file), env=env).stdout == "foo\t3\n"
    assert run_shipper("partition", "--env-file", str(file), "--hostname", "qux", env=env).stdout == "qux\t9\n"


def test_carriage_returns_of_the_file_are_what_systemd_takes_them_for(tmp_path: Path) -> None:
    """A line's end, and no white space behind a backslash."""
    file = tmp_path / "env"
    file.write_bytes(b"HOSTNAME=foo\\\r\nSHIPPER_PARTITIONS=10\r\n")
    assert run_shipper("partition", "--env-file", str(file)).stdout == "foo\t3\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "COMMAND"),
        (("nonsense",), "nonsense"),
        (("producer", "--nonsense"), "--nonsense"),
        (("producer", "--file"), "--file"),
        (("producer", "--env-file", "/missing/env"), "--env-file=/missing/env"),
        (("producer",), "SHIPPER_FILE is not set"),
        (("producer", "--check", "--file", "/dev/null"), "SHIPPER_FILE=/dev/null"),
        (("producer", "--check", "--file", "/etc"), "SHIPPER_FILE=/etc"),
        (("producer", "--check", "--file", "/x", "--nats-url", "nats://user:s3cret@:x"), "NATS_URL="),
        (("producer", "--check", "--file", "/x", "--nats-ca", "/missing.pem"), "NATS_CA=/missing.pem"),
        (("producer", "--check", "--file", "/x", "--partitions", "10", "--partition", "4"), "SHIPPER_PARTITION=4"),
        (("consumer", "--check", "--output", "x"), "SHIPPER_DIRECTORY is not set"),
        (("consumer", "--check", "--output", "x", "--directory", "/dev/null"), "SHIPPER_DIRECTORY=/dev/null"),
        (("partition", "a b"), "HOST=a b"),
        (("streams",), "SHIPPER_STREAM is not set"),
        (("status",), "SHIPPER_STREAM is not set"),
        (("logs", "web1"), "SHIPPER_STREAM is not set"),
        (("forget", "archive"), "SHIPPER_STREAM is not set"),
        (("forget",), "GROUP"),
        (("forget", ""), "GROUP"),
        (("forget", "a.b", "--stream", "logs"), "GROUP=a.b"),
        (("logs",), "HOST"),
        (("logs", "a b", "--stream", "logs"), "HOST=a b"),
        (("streams", "--stream", "a.b"), "SHIPPER_STREAM=a.b"),
        (("streams", "--stream", "logs", "--stream-max-bytes", "1"), "SHIPPER_STREAM_MAX_BYTES=1"),
        (("streams", "--stream", "logs", "--stream-replicas", "9"), "SHIPPER_STREAM_REPLICAS=9"),
        (("streams", "--stream", "logs", "--stream-max-age", "1"), "SHIPPER_STREAM_MAX_AGE=1"),
        (("streams", "--stream", "logs", "--stream-duplicates", "1"), "SHIPPER_STREAM_DUPLICATES=1"),
        (("streams", "--stream", "logs", "--check", "--nats-ca", "/missing.pem"), "NATS_CA=/missing.pem"),
        (("streams", "--file", "/x"), "--file"),
        (("producer", "--nats_url", "nats://user:s3cret@host:4222"), "--nats_url ***@host:4222"),
        (
            ("producer", "--check", "--file", "/x", "--state", "/dev/null"),
            "SHIPPER_STATE=/dev/null: it is not",
        ),
        (("producer", "--check", "--file", "/x", "--state", "/dev/null/x"), "SHIPPER_STATE=/dev/null/x"),
        (("producer", "--check", "--file", "/x", "--state", "/x" * 3000), "SHIPPER_STATE=/x/x"),
        (("consumer", "--check", "--output", "x", "--directory", "/" + "x" * 256), "SHIPPER_DIRECTORY=/xxx"),
        (
            ("consumer", "--check", "--output", "x", "--directory", "/x", "--subject", "a\udcff"),
            "SHIPPER_SUBJECT=a\\udcff",
        ),
        *((("verify", "--file", "/x", "--wait=" + wait), "--wait=") for wait in ("nan", "inf", "-1", "1e999", "x", "")),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(arguments: tuple[str, ...], says: str) -> None:
    result = run_shipper(*arguments, env=PRODUCER)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert "s3cret" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("producer", "--file", "log", "--state", "/tmp"), "SHIPPER_FILE=log"),
        (("producer", "--check", "--file", "/x", "--state", "state"), "SHIPPER_STATE=state"),
        (("verify", "--file", "log"), "SHIPPER_FILE=log"),
        (("consumer", "--output", "x", "--directory", "archive"), "SHIPPER_DIRECTORY=archive"),
        (("ledger", "--directory", "archive"), "SHIPPER_DIRECTORY=archive"),
    ],
)
def test_a_folder_that_is_gone_under_our_feet_is_said(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    command = shlex.join([sys.executable, "-m", "shipper_runtime", *arguments])
    result = subprocess.run(
        ["bash", "-c", "rmdir $PWD; exec " + command],
        env={**clean_environment(), **PRODUCER, "PYTHONPATH": str(ROOT)},
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.stderr == "shipper: %s: the folder that this is run in is gone; write the whole path\n" % says
    assert result.returncode == 2


def test_check_accepts_what_can_work_and_changes_nothing(tmp_path: Path) -> None:
    env = {**PRODUCER, "SHIPPER_FILE": str(tmp_path / "later"), "SHIPPER_STATE": str(tmp_path / "state")}
    result = run_shipper("producer", "--check", env={**env, "SHIPPER_PARTITIONS": "10"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "shipper.p5.web1.example.net" in result.stdout
    env = {
        **PRODUCER,
        "SHIPPER_DIRECTORY": str(tmp_path / "archive"),
        "SHIPPER_OUTPUT": "x",
        "SHIPPER_READ_PARTITIONS": "0-3",
    }
    assert run_shipper("consumer", "--check", env=env).returncode == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("in_file", [True, False])
def test_the_locale_changes_no_path_and_no_subject(tmp_path: Path, in_file: bool) -> None:
    """Bytes of paths stay what they are, and subjects are UTF-8."""
    os.mkfifo(tmp_path / "caf\u00e9")
    told = {**PRODUCER, "SHIPPER_SUBJECT": "\u65e5\u5fd7", "SHIPPER_FILE": str(tmp_path / "caf\u00e9")}
    (tmp_path / "env").write_text("".join("%s=%s\n" % item for item in told.items()), encoding="utf-8")
    arguments = ("--env-file", str(tmp_path / "env")) if in_file else ()
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **({} if in_file else told)}
    assert "it is a FIFO" in run_shipper("producer", "--check", *arguments, env=env).stderr
    result = run_shipper("partition", "--json", *arguments, env=env)
    assert json.loads(result.stdout)[0]["subject"] == "\u65e5\u5fd7.p0.web1.example.net"


def test_a_check_is_one_line_whatever_a_name_holds(tmp_path: Path) -> None:
    env = {**PRODUCER, "SHIPPER_OUTPUT": "x", "SHIPPER_DIRECTORY": str(tmp_path / "two\nlines\x1b[1m")}
    result = run_shipper("consumer", "--check", env=env)
    assert result.stdout.endswith("/two\\nlines\\x1b[1m\n") and result.stdout.count("\n") == 1
    (tmp_path / "two\nlines").write_bytes(b"")
    env["SHIPPER_DIRECTORY"] = str(tmp_path / "two\nlines" / "archive")
    result = run_shipper("consumer", "--check", env=env)
    assert result.returncode == 2 and result.stderr.count("\n") == 1


def test_an_error_is_one_line_whatever_a_name_holds(tmp_path: Path) -> None:
    key = str(tmp_path / "two\nlines.key")
    result = run_shipper(
        "producer", "--check", "--file", "/x", "--nats-certificate", "/x", "--nats-key", key, env=PRODUCER
    )
    assert "two\\nlines.key" in result.stderr and result.stderr.count("\n") == 1


def test_an_archive_that_may_not_be_looked_into_is_not_said_to_be_empty(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "archive" / ".shipper").mkdir(parents=True)
    closed.chmod(0)
    command = [*UNPRIVILEGED, sys.executable, "-m", "shipper_runtime", "ledger", "--directory", str(closed / "archive")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    closed.chmod(0o700)
    assert (result.returncode, result.stdout) == (2, "")
    assert "it cannot be read: Permission denied; run this as root or as the consumer's user" in result.stderr


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_passphrase(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-passout", "pass:secret",
         "-days", "2", "-subj", "/CN=x", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    arguments = ("--nats-certificate", str(certificate), "--nats-key", str(key))
    result = run_shipper("streams", "--check", "--stream", "logs", *arguments, env=PRODUCER)
    assert result.returncode == 2
    assert result.stderr == (
        "shipper: NATS_KEY=%s: it is encrypted, and nobody is there to be asked; use one that is not, which only the "
        "program's user may read\n" % key
    )


def test_check_of_the_streams_says_how_many_and_asks_no_broker() -> None:
    env = {**PRODUCER, "SHIPPER_STREAM": "logs", "SHIPPER_PARTITIONS": "3", "NATS_URL": "127.0.0.1:1"}
    result = run_shipper("streams", "--check", env=env)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "streams: 3 of logs on shipper\n"


@pytest.mark.parametrize("command", ["streams", "status", "logs", "forget", "partition"])
def test_each_command_explains_itself_and_its_settings(command: str) -> None:
    result = run_shipper(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "SHIPPER_SUBJECT" in result.stdout


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("producer", "--help"), ("consumer", "--help")])
def test_help_and_version_need_no_settings(arguments: tuple[str, ...]) -> None:
    result = run_shipper(*arguments)
    assert result.returncode == 0
    assert "shipper" in result.stdout


def test_more_partitions_than_may_be_held_open_are_refused(tmp_path: Path) -> None:
    """Each has a lock: with all descriptors taken there would not even be a connection."""
    arguments = ["--stream", "logs", "--output", "x", "--directory", str(tmp_path), "--read-partitions", "0-199"]
    command = shlex.join([sys.executable, "-m", "shipper_runtime", "consumer", *arguments])
    result = subprocess.run(
        ["bash", "-c", "ulimit -n 200; exec " + command],
        env={**clean_environment(), **PRODUCER}, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.startswith("shipper: SHIPPER_READ_PARTITIONS=0 to 199: ") and result.stderr.count("\n") == 1
    assert "200 open files" in result.stderr


PRINTING = [
    ("--version",),
    ("--help",),
    ("ledger", "--help"),
    ("partition", "web1"),
    ("ledger", "--directory", "/nonexistent"),
    ("producer", "--check", "--file", "/x", "--state", "/tmp"),
    ("consumer", "--check", "--output", "x", "--directory", "/tmp"),
    ("streams", "--check", "--stream", "logs"),
]


def in_shell(arguments: tuple[str, ...], redirected: str, **more: str) -> subprocess.CompletedProcess[str]:
    """As somebody types it; the interpreter gathers what is printed, as it does on hosts."""
    env = {**clean_environment(), **PRODUCER, "PYTHONUNBUFFERED": "", **more}
    line = "%s -m shipper_runtime %s %s" % (sys.executable, shlex.join(arguments), redirected)
    bash = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(bash, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("arguments", PRINTING)
def test_an_output_that_cannot_be_written_is_one_line_and_exit_code_1(arguments: tuple[str, ...]) -> None:
    result = in_shell(arguments, ">/dev/full")
    assert result.stderr == "shipper: the output cannot be written: No space left on device\n"
    assert result.returncode == 1


@pytest.mark.parametrize("arguments", PRINTING)
def test_an_output_that_is_closed_is_said(arguments: tuple[str, ...]) -> None:
    result = in_shell(arguments, ">&-")
    # Of help and version argparse makes the best.
    assert result.stderr.endswith("shipper: the output cannot be written: it is closed\n")
    assert result.returncode == 1


@pytest.mark.parametrize("arguments", PRINTING)
def test_who_reads_no_further_is_left_in_peace(arguments: tuple[str, ...]) -> None:
    result = in_shell(arguments, "| :")
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_the_terminal_cannot_show_is_escaped(tmp_path: Path, encoding: str) -> None:
    shown = {"ascii": b"/caf\\xe9-\\u2026", "latin-1": b"/caf\xe9-\\u2026", "utf-8": "/café-…".encode()}[encoding]
    for arguments in (("consumer", "--check", "--output", "x"), ("ledger",)):
        command = [sys.executable, "-m", "shipper_runtime", *arguments, "--directory", "%s/café-…" % tmp_path]
        env = {**clean_environment(), **PRODUCER, "PYTHONIOENCODING": encoding}
        result = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, timeout=60, check=True)
        assert shown in result.stdout


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-"])
def test_what_stderr_does_not_take_changes_neither_output_nor_exit_code(stderr: str) -> None:
    result = in_shell(("partition", "a b"), stderr)
    assert (result.returncode, result.stdout) == (2, "")


def test_all_that_is_printed_goes_where_a_failure_is_told() -> None:
    for path in (ROOT / "shipper_runtime").glob("*.py"):
        if path.name not in ("terminal.py", "bundle.py"):
            assert not re.search(r"\bprint\(", path.read_text(encoding="utf-8")), path
