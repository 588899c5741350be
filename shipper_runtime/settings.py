# SPDX-License-Identifier: GPL-3.0-or-later
"""Every setting of the runtime: what it is called, what it may hold, what it means. Parsed from a mapping; no I/O.

The names are those of fshipper where it has them. A variable that is empty counts as unset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import SettingError
from .output import OutputPattern, parse_output
from .packing import LEVEL
from .partition import PARTITIONS_MAX, PREFIX_MAX_BYTES, host_subject, is_host, is_subject_prefix, partition
from .servers import Server, parse_servers

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Variable:
    """A setting's name in the environment, who reads it, and one line of help."""

    name: str
    commands: tuple[str, ...]
    metavar: str
    help: str

    @property
    def flag(self) -> str:
        """SHIPPER_FILE is --file, NATS_URL is --nats-url."""
        name = self.name[len("SHIPPER_") :] if self.name.startswith("SHIPPER_") else self.name
        return "--" + name.lower().replace("_", "-")


_SERVICES = ("producer", "consumer")
_PRODUCER = ("producer", "verify")
_STREAMS = ("streams", "status", "logs", "forget")
_ALL = (*_SERVICES, "verify", *_STREAMS)
VARIABLES = (
    Variable("NATS_URL", _ALL, "URL", "servers, separated by commas"),
    Variable("NATS_CREDS", _ALL, "FILE", "credentials: a JWT and its seed; needs the Python module nacl"),
    Variable("NATS_CERTIFICATE", _ALL, "FILE", "client certificate, PEM; the connection must be TLS then"),
    Variable("NATS_KEY", _ALL, "FILE", "the client certificate's key, PEM"),
    Variable("NATS_CA", _ALL, "FILE", "certificates that may sign the servers'; the connection must be TLS then"),
    Variable("SHIPPER_SUBJECT", (*_ALL, "partition"), "PREFIX", "what all subjects begin with"),
    Variable("SHIPPER_FILE", _PRODUCER, "PATHS", "files and globs to ship, separated by colons"),
    Variable(
        "SHIPPER_START", ("producer",), "WHERE", "beginning or end: where files are begun at the very first start"
    ),
    Variable("SHIPPER_PARTITIONS", (*_PRODUCER, "partition", *_STREAMS), "N", "partitions of the fleet, 0 for none"),
    Variable("SHIPPER_PARTITION", _PRODUCER, "N", "the partition that was computed at deploy time"),
    Variable(
        "HOSTNAME", (*_PRODUCER, "consumer", "partition"), "HOST", "this host's name, instead of the operating system's"
    ),
    Variable("SHIPPER_RATE", ("producer",), "SIZE", "bytes of log files to ship a second at most, such as 10MB"),
    Variable("SHIPPER_COMPRESS", _SERVICES, "HOW", "none, gzip, or a level 1 to 9: for blocks, and archive files"),
    Variable("SHIPPER_JITTER", _SERVICES, "TIME", "connect after a random time up to this, such as 30s"),
    Variable("SHIPPER_STATE", _PRODUCER, "FOLDER", "where the positions are kept"),
    Variable("SHIPPER_READ_PARTITIONS", ("consumer",), "LIST", "partitions to read, such as 0-4,9, or none"),
    Variable("SHIPPER_DIRECTORY", ("consumer", "ledger"), "FOLDER", "root of the archive"),
    Variable("SHIPPER_OUTPUT", ("consumer",), "PATTERN", "file name below a host's folder: strftime, {source}"),
    Variable("SHIPPER_ROTATE", ("consumer",), "TIME", "period of a file, such as 1d"),
    Variable("SHIPPER_MAX_AGE", ("consumer",), "TIME", "how long a file is kept after its period, such as 7d"),
    Variable("SHIPPER_PLAIN", ("consumer",), "WHAT", "accept or reject messages without headers"),
    Variable("SHIPPER_STREAM", _ALL, "NAME", "what the names of the partitions' streams begin with: durable mode"),
    Variable("SHIPPER_GROUP", ("consumer",), "NAME", "name of this set of archive hosts"),
    Variable("SHIPPER_STREAM_MAX_BYTES", ("streams",), "SIZE", "what a stream may hold, such as 1GiB"),
    Variable("SHIPPER_STREAM_REPLICAS", ("streams",), "N", "on how many servers a stream is kept, 1 to 5"),
    Variable("SHIPPER_STREAM_MAX_AGE", ("streams",), "TIME", "how long a message is kept at most, 0 for no limit"),
    Variable("SHIPPER_STREAM_DUPLICATES", ("streams",), "TIME", "for how long repeats are known, such as 2m"),
    Variable("SHIPPER_METRICS", _SERVICES, "HOST:PORT", "where Prometheus' metrics are served"),
)

_LEVEL = re.compile(r"[1-9]\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?\Z")
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_GROUP = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
# No dots, which separate tokens, and no path separators: a stream's name is a folder of the broker's.
_STREAM = re.compile(r"[A-Za-z0-9_-]{1,200}\Z")
_SIZE = re.compile(r"([1-9][0-9]{0,17})\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB|)\Z")
_UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS.update({"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40})
_STREAM_BYTES_LEAST = 1024 * 1024
# The server counts bytes and ns in 64 bits.
_STREAM_BYTES_MOST = 2**63 - 1
_STREAM_SECONDS_MOST = 100 * 365 * 86400
_REPLICAS_MOST = 5


@dataclass(frozen=True)
class Listen:
    """Where to listen: a host or address, and a TCP port."""

    host: str
    port: int


@dataclass(frozen=True)
class BrokerSettings:
    """How to reach NATS. Paths are not opened here; TLS is required where certificate, ca or a tls:// URL says so.
    Before it connects a service waits for up to jitter seconds."""

    servers: tuple[Server, ...]
    creds: str | None = None
    certificate: str | None = None
    key: str | None = None
    ca: str | None = None
    jitter: int = 0

    def tls_required(self, server: Server) -> bool:
        """Whether nothing secret may be sent to this server before the connection is encrypted."""
        return server.tls or self.certificate is not None or self.ca is not None


@dataclass(frozen=True)
class ProducerSettings:
    """What one host ships, and as whom: files are paths and globs as written; partition is the computed one; stream is
    the name of the partition's stream, or None for core NATS; fresh says that positions may be missing; rate is in
    bytes of log files a second, or None for no limit; compress is zlib's level, or None for blocks as they are."""

    broker: BrokerSettings
    host: str
    subject: str
    partition: int
    files: tuple[str, ...]
    start: str
    state: str
    stream: str | None = None
    fresh: bool = False
    rate: int | None = None
    compress: int | None = None
    metrics: Listen | None = None


@dataclass(frozen=True)
class ConsumerSettings:
    """What one worker of a host reads and where it writes: rotate and max_age in seconds. stream is what the names of
    the partitions' streams begin with, or None for core NATS; take_over says that another host's partitions are
    taken; compress is zlib's level for files, or None for files as they are."""

    broker: BrokerSettings
    host: str
    prefix: str
    partitions: tuple[int, ...]
    directory: str
    output: OutputPattern
    rotate: int
    max_age: int
    accept_plain: bool
    group: str
    stream: str | None = None
    take_over: bool = False
    compress: int | None = None
    metrics: Listen | None = None


@dataclass(frozen=True)
class FleetSettings:
    """Where the streams of a fleet are: prefix is what subjects begin with, stream what the streams' names do."""

    broker: BrokerSettings
    prefix: str
    stream: str
    partitions: int

    @property
    def numbers(self) -> range:
        """All partitions; without any there is one, 0."""
        return range(max(self.partitions, 1))


@dataclass(frozen=True)
class StreamLimits:
    """What a partition's stream may hold: max_bytes, max_age in seconds (0: no limit), on how many servers, and for how
    many seconds the broker drops a message that it has already."""

    max_bytes: int
    replicas: int
    max_age: int
    duplicates: int


def broker_settings(env: Environment) -> BrokerSettings:
    """Raises SettingError."""
    servers = parse_servers(_required(env, "NATS_URL", "name the servers, such as nats://localhost:4222"))
    certificate, key = env.get("NATS_CERTIFICATE") or None, env.get("NATS_KEY") or None
    if (certificate is None) != (key is None):
        missing = "NATS_KEY" if key is None else "NATS_CERTIFICATE"
        raise SettingError(missing, None, "a client certificate and its key go together; set both or neither")
    return BrokerSettings(
        servers,
        env.get("NATS_CREDS") or None,
        certificate,
        key,
        env.get("NATS_CA") or None,
        _duration(env, "SHIPPER_JITTER", "", 0),
    )


def producer_settings(env: Environment, os_host: str, fresh: bool = False) -> ProducerSettings:
    """The producer's settings; os_host is the operating system's name for this host. Raises SettingError."""
    broker = broker_settings(env)
    prefix = subject_prefix(env)
    stream = stream_prefix(env)
    host = host_name(env, os_host)
    count = _partition_count(env)
    number = partition(host, count)
    told = env.get("SHIPPER_PARTITION")
    if told and _number(env, "SHIPPER_PARTITION") != number:
        raise SettingError(
            "SHIPPER_PARTITION",
            told,
            "%s is in partition %d of SHIPPER_PARTITIONS=%d; deploy again with the fleet's count, or unset it"
            % (host, number, count),
        )
    files = _required(env, "SHIPPER_FILE", "name the files to ship, separated by colons")
    if "" in files.split(":"):
        raise SettingError("SHIPPER_FILE", files, "a path between the colons is empty; take the colon out")
    if "\0" in files or "\n" in files:
        raise SettingError("SHIPPER_FILE", files, "a path cannot hold a NUL or a newline")
    return ProducerSettings(
        broker=broker,
        host=host,
        subject=host_subject(prefix, number, host),
        partition=number,
        files=tuple(files.split(":")),
        start=_choice(env, "SHIPPER_START", ("beginning", "end")),
        state=env.get("SHIPPER_STATE") or "/var/lib/shipper",
        stream=partition_stream(stream, number) if stream is not None else None,
        fresh=fresh,
        rate=parse_size("SHIPPER_RATE", env["SHIPPER_RATE"], "10MB") if env.get("SHIPPER_RATE") else None,
        compress=_compress(env, stream),
        metrics=_listen(env, "SHIPPER_METRICS"),
    )


def consumer_settings(env: Environment, os_host: str, take_over: bool = False) -> ConsumerSettings:
    """The consumer's settings; os_host is the operating system's name for this host. Raises SettingError."""
    broker = broker_settings(env)
    prefix = subject_prefix(env)
    rotate = _duration(env, "SHIPPER_ROTATE", "1d")
    group = group_name(env)
    output = _required(env, "SHIPPER_OUTPUT", "name the file below a host's folder, such as messages-%Y%m%d")
    stream = stream_prefix(env)
    compress = _compress(env, stream)
    return ConsumerSettings(
        broker=broker,
        host=host_name(env, os_host),
        prefix=prefix,
        partitions=_partitions(env.get("SHIPPER_READ_PARTITIONS") or "0"),
        directory=_required(env, "SHIPPER_DIRECTORY", "name the root folder of the archive"),
        output=parse_output(output, rotate, compress is not None),
        rotate=rotate,
        max_age=_duration(env, "SHIPPER_MAX_AGE", "7d"),
        accept_plain=_choice(env, "SHIPPER_PLAIN", ("accept", "reject")) == "accept",
        group=group,
        stream=stream,
        take_over=take_over,
        compress=compress,
        metrics=_listen(env, "SHIPPER_METRICS"),
    )


def subject_prefix(env: Environment) -> str:
    """SHIPPER_SUBJECT. Raises SettingError."""
    prefix = _required(env, "SHIPPER_SUBJECT", "name what all subjects begin with, such as shipper")
    if not is_subject_prefix(prefix):
        remedy = "use tokens joined by dots, without *, > and white space, of %d bytes at most" % PREFIX_MAX_BYTES
        raise SettingError("SHIPPER_SUBJECT", prefix, remedy)
    return prefix


def host_name(env: Environment, os_host: str) -> str:
    """HOSTNAME, or else os_host. Raises SettingError where that cannot be part of a subject."""
    host = env.get("HOSTNAME") or os_host
    if not is_host(host):
        raise SettingError("HOSTNAME", host, "use 1 to 253 ASCII letters, digits, - _ and ., without empty labels")
    return host


def partition_count(env: Environment) -> int:
    """SHIPPER_PARTITIONS, however many. Raises SettingError."""
    return _number(env, "SHIPPER_PARTITIONS") if env.get("SHIPPER_PARTITIONS") else 0


def _partition_count(env: Environment) -> int:
    """No more than a fleet can have."""
    count = partition_count(env)
    if count > PARTITIONS_MAX:
        raise SettingError("SHIPPER_PARTITIONS", env["SHIPPER_PARTITIONS"], "use %d or fewer" % PARTITIONS_MAX)
    return count


def stream_prefix(env: Environment) -> str | None:
    """SHIPPER_STREAM, or None for core NATS. Raises SettingError."""
    value = env.get("SHIPPER_STREAM") or None
    if value is not None and _STREAM.match(value) is None:
        raise SettingError("SHIPPER_STREAM", value, "use 1 to 200 letters, digits, - and _")
    return value


def partition_stream(stream: str, number: int) -> str:
    """The name of a partition's stream: ``logs-p5``."""
    return "%s-p%d" % (stream, number)


def group_name(env: Environment) -> str:
    """SHIPPER_GROUP. Raises SettingError."""
    group = env.get("SHIPPER_GROUP") or "archive"
    if _GROUP.match(group) is None:
        raise SettingError("SHIPPER_GROUP", group, "use 1 to 64 letters, digits, - and _")
    return group


def fleet_settings(env: Environment) -> FleetSettings:
    """Raises SettingError."""
    broker = broker_settings(env)
    prefix = subject_prefix(env)
    stream = stream_prefix(env)
    if stream is None:
        raise SettingError("SHIPPER_STREAM", None, "name what the streams' names begin with, such as logs")
    return FleetSettings(broker, prefix, stream, _partition_count(env))


def stream_limits(env: Environment) -> StreamLimits:
    """Raises SettingError."""
    name = "SHIPPER_STREAM_MAX_BYTES"
    size = env.get(name) or "1GiB"
    max_bytes = parse_size(name, size)
    if max_bytes < _STREAM_BYTES_LEAST:
        raise SettingError(name, size, "no stream can work with so little; use 1MiB or more")
    if max_bytes > _STREAM_BYTES_MOST:
        raise SettingError(name, size, "no broker can hold so much; use what its disks have room for")
    name = "SHIPPER_STREAM_REPLICAS"
    replicas = _number(env, name) if env.get(name) else 1
    if not 1 <= replicas <= _REPLICAS_MOST:
        raise SettingError(name, env[name], "use 1 to %d" % _REPLICAS_MOST)
    max_age = 0 if env.get("SHIPPER_STREAM_MAX_AGE", "") == "0" else _duration(env, "SHIPPER_STREAM_MAX_AGE", "", 0)
    duplicates = _duration(env, "SHIPPER_STREAM_DUPLICATES", "2m")
    for name, seconds in (("SHIPPER_STREAM_MAX_AGE", max_age), ("SHIPPER_STREAM_DUPLICATES", duplicates)):
        if seconds > _STREAM_SECONDS_MOST:
            raise SettingError(name, env.get(name), "no broker counts so far; use 36500d or less")
    if max_age and duplicates > max_age:
        remedy = "the broker cannot know a message for longer than it is kept; use SHIPPER_STREAM_MAX_AGE or less"
        raise SettingError("SHIPPER_STREAM_DUPLICATES", env.get("SHIPPER_STREAM_DUPLICATES") or "2m", remedy)
    return StreamLimits(max_bytes, replicas, max_age, duplicates)


def parse_size(name: str, value: str, example: str = "1GiB") -> int:
    """The bytes of a size such as 1GiB. Raises SettingError, with the variable's name."""
    match = _SIZE.match(value)
    if match is None:
        raise SettingError(
            name, value, "use a whole number above 0 and one of KiB, MiB, GiB, TiB, such as %s" % example
        )
    return int(match.group(1)) * _UNITS[match.group(2)]


def _required(env: Environment, name: str, remedy: str) -> str:
    value = env.get(name)
    if not value:
        raise SettingError(name, None, remedy)
    return value


def _number(env: Environment, name: str) -> int:
    value = env[name]
    if _NUMBER.match(value) is None:
        raise SettingError(name, value, "use a whole number, 0 or more")
    return int(value)


def _compress(env: Environment, stream: str | None) -> int | None:
    value = env.get("SHIPPER_COMPRESS") or "none"
    if value == "none":
        return None
    if value != "gzip" and _LEVEL.match(value) is None:
        raise SettingError("SHIPPER_COMPRESS", value, "use none, gzip, or a level from 1 (fast) to 9 (small)")
    if stream is None:
        remedy = "fshipper and core NATS know only lines as they are; set SHIPPER_STREAM too, or none here"
        raise SettingError("SHIPPER_COMPRESS", value, remedy)
    return LEVEL if value == "gzip" else int(value)


def _choice(env: Environment, name: str, choices: tuple[str, str]) -> str:
    value = env.get(name) or choices[0]
    if value not in choices:
        raise SettingError(name, value, "use %s or %s" % choices)
    return value


def _listen(env: Environment, name: str) -> Listen | None:
    return parse_listen(name, env[name]) if env.get(name) else None


def parse_listen(name: str, value: str) -> Listen:
    """An address such as 127.0.0.1:9464. Raises SettingError, with the variable's name."""
    host, _colon, port = value.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not re.match(r"[0-9]{1,5}\Z", port) or not 0 < int(port) < 65536:
        raise SettingError(name, value, "use host:port, such as 127.0.0.1:9464")
    return Listen(host, int(port))


def _duration(env: Environment, name: str, default: str, unset: int | None = None) -> int:
    """Seconds; unset is what holds where nothing is said and there is no default to write down."""
    value = env.get(name) or default
    if not value and unset is not None:
        return unset
    return parse_duration(name, value, default or "7d")


def parse_duration(name: str, value: str, example: str = "7d") -> int:
    """The seconds of a time such as 7d. Raises SettingError, with the variable's name."""
    match = _DURATION.match(value)
    if match is None:
        raise SettingError(name, value, "use a whole number above 0 and one of s, m, h, d, w, such as %s" % example)
    return int(match.group(1)) * _SECONDS[match.group(2)]


def _partitions(value: str) -> tuple[int, ...]:
    if value == "none":
        return ()
    numbers: set[int] = set()
    for part in value.split(","):
        match = _RANGE.match(part.strip())
        first, last = (int(match.group(1)), int(match.group(2) or match.group(1))) if match else (1, 0)
        if last < first:
            raise SettingError("SHIPPER_READ_PARTITIONS", value, "use numbers and ranges, such as 0-4,9, or none")
        if last >= PARTITIONS_MAX:
            raise SettingError("SHIPPER_READ_PARTITIONS", value, "the last there can be is %d" % (PARTITIONS_MAX - 1))
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))
