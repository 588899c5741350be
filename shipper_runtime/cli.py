# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: ``shipper COMMAND``. What a command does is in the module of its name."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import gc
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Callable, NoReturn

from . import __version__, envfile, signals, terminal
from .errors import EXIT_FAULT, EXIT_USAGE, NotShipped, OutputError, SettingError, ShipperError, UsageError, printable
from .partition import host_subject, is_host, partition
from .settings import (
    VARIABLES,
    consumer_settings,
    fleet_settings,
    group_name,
    host_name,
    partition_count,
    producer_settings,
    stream_limits,
    subject_prefix,
)
from .terminal import put

EXIT_LOST_READER = 1
# nats-py imports the one where it is installed, for WebSockets, which are not spoken here, and the other to ask for its
# own version: 20 MB and 3 MB for nothing.
_NOT_NEEDED = ("aiohttp", "importlib.metadata")
# New objects between two looks of the collector, which asks for 700 by itself: a read of small messages makes as many.
_COLLECT_AFTER = 10_000
_SECRET = re.compile(r"\S+@")
_WAIT = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?\Z")
# Others are ASCII, or paths; these are UTF-8 whatever the locale is.
_ON_THE_WIRE = {"NATS_URL", "SHIPPER_SUBJECT"}
# Of blocks: a producer has one or two at a time, a consumer all that one request brings. See _settle_memory().
_PRODUCER_CHUNK, _CONSUMER_CHUNK = 768 * 1024, 8 * 1024 * 1024


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 with one line on stderr where the input cannot work."""
    for name in _NOT_NEEDED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # what import takes for "not there"
    try:
        options = _parser().parse_args(arguments)
        if options.run not in (_producer, _consumer) or options.check:
            signals.let()
        env = _environment(options, os.environ if environment is None else environment)
        command: Callable[[argparse.Namespace, Mapping[str, str]], None] = options.run
        command(options, env)
    except (NotShipped, OutputError) as error:
        terminal.put_error(str(error))
        return EXIT_FAULT
    except ShipperError as error:
        terminal.put_error(str(error))
        return EXIT_USAGE
    except BrokenPipeError:
        # Whoever read our output has gone, as head does.
        return EXIT_LOST_READER
    except KeyboardInterrupt:
        return 130
    finally:
        terminal.give_up()
    return 0


def _producer(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    from . import producer

    settings = producer_settings(env, socket.gethostname(), options.fresh)
    producer.check(settings)
    if options.check:
        put("producer: %s publishes to %s" % (settings.host, settings.subject))
    else:
        _serve(lambda service: producer.run(settings, service), env, _PRODUCER_CHUNK)


def _consumer(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    from . import consumer

    settings = consumer_settings(env, socket.gethostname(), options.take_over)
    consumer.check(settings)
    if options.check:
        numbers = ",".join(str(number) for number in settings.partitions) or "none"
        put("consumer: partitions %s of %s go to %s" % (numbers, settings.prefix, printable(settings.directory)))
    else:
        _serve(lambda service: consumer.run(settings, service), env, _CONSUMER_CHUNK)


def _partition(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    count = partition_count(env)
    prefix = subject_prefix(env) if env.get("SHIPPER_SUBJECT") else None
    rows = []
    for host in options.hosts or [host_name(env, socket.gethostname())]:
        if not is_host(host):
            raise SettingError("HOST", host, "use 1 to 253 ASCII letters, digits, - _ and ., without empty labels")
        number = partition(host, count)
        rows.append((host, number, None if prefix is None else host_subject(prefix, number, host)))
    if options.json:
        put(json.dumps([{"host": host, "partition": number, "subject": subject} for host, number, subject in rows]))
    else:
        put("".join("\t".join(str(cell) for cell in row if cell is not None) + "\n" for row in rows))


def _streams(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    from . import streams

    settings, limits = fleet_settings(env), stream_limits(env)
    if options.check:
        streams.check(settings)
        put("streams: %d of %s on %s" % (len(settings.numbers), settings.stream, settings.prefix))
        return
    _run_once(streams.run(settings, limits, force=options.force, dry_run=options.dry_run, as_json=options.json))


def _status(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    from . import status

    _run_once(status.run(fleet_settings(env), hosts=options.hosts, as_json=options.json))


def _logs(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    from . import logs

    settings = fleet_settings(env)
    if not is_host(options.host):
        raise SettingError("HOST", options.host, "use 1 to 253 ASCII letters, digits, - _ and ., without empty labels")
    begin = logs.since(options.since)
    _run_once(logs.run(settings, options.host, begin, follow=options.follow, as_json=options.json))


def _forget(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    from . import streams

    if not options.group:
        raise SettingError("GROUP", options.group, "name the group that nobody runs any more")
    group = group_name({"SHIPPER_GROUP": options.group})
    _run_once(streams.forget(fleet_settings(env), group, force=options.force, as_json=options.json))


def _verify(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    from . import verify

    settings = producer_settings(env, socket.gethostname())
    if _WAIT.match(options.wait) is None:
        raise SettingError("--wait", options.wait, "use a number of seconds, such as 30")
    _run_once(verify.run(settings, patience=float(options.wait), as_json=options.json))


def _ledger(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    from . import history

    directory = env.get("SHIPPER_DIRECTORY")
    if not directory:
        raise SettingError("SHIPPER_DIRECTORY", None, "name the root folder of the archive")
    history.run(directory, as_json=options.json)


def _run_once(command: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end. What services would log is no business of who reads its output."""
    logging.disable(logging.CRITICAL)
    asyncio.run(command)


def _serve(run: Callable[..., object], env: Mapping[str, str], chunk: int) -> None:
    from . import service

    service.start_logging()
    service.raise_descriptor_limit()
    _warn_of_typos(env)
    _settle_memory(chunk)

    async def serve() -> None:
        the_service = service.Service()
        the_service.catch_signals()
        try:
            await run(the_service)  # type: ignore[misc]  # a coroutine function of one of two modules
        finally:
            # The loop is about to drop its handlers.
            signals.hold()

    asyncio.run(serve())


def _settle_memory(chunk: int) -> None:
    """What is loaded stays, and blocks come and go: of freed memory twice chunk (bytes) is kept for them."""
    # To look at all that is loaded again and again costs a busy consumer a tenth of its time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    # glibc gives freed memory back above twice the largest chunk that was ever mapped and freed (mallopt(3)), and would
    # take and give back each block's: half of a producer's time.
    bytes(chunk)


def _warn_of_typos(env: Mapping[str, str]) -> None:
    known = [variable.name for variable in VARIABLES]
    for name in sorted(env):
        if name.startswith("SHIPPER_") and name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.85)
            if near:
                logging.getLogger(__name__).warning("%s is not a setting; did you mean %s?", name, near[0])


def _environment(options: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, str]:
    """The settings' variables: a flag wins over the environment file, which wins over the environment."""
    env = {name: value for name, value in environment.items() if name.startswith(("SHIPPER_", "NATS_", "HOSTNAME"))}
    if options.env_file is not None:
        env.update(_read_env_file(options.env_file))
    for variable in VARIABLES:
        value = getattr(options, variable.name, None)
        if value is not None:
            env[variable.name] = value
    for name in env.keys() & _ON_THE_WIRE:
        env[name] = os.fsencode(env[name]).decode("utf-8", "surrogateescape")
    return env


def _read_env_file(path: str) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            # As what stands in the environment: a path's bytes stay what they are.
            return envfile.parse(os.fsdecode(file.read()))
    except OSError as error:
        raise SettingError("--env-file", path, "it cannot be read: %s" % error.strerror) from None
    except envfile.EnvFileError as error:
        raise SettingError("--env-file", path, str(error)) from None


class _Parser(argparse.ArgumentParser):
    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        # Behind what --help and --version have printed.
        put()
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        # What stands before an @ may be a password: of a URL whose flag was mistyped, say.
        raise UsageError("%s (see %s --help)" % (printable(_SECRET.sub("***@", message)), self.prog))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="shipper", description="Ship log lines over NATS into plain files, host by host, in order.")
    parser.add_argument("--version", action="version", version="shipper %s" % __version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, (run, text, add_own) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        command.set_defaults(run=run)
        command.add_argument("--env-file", metavar="FILE", help="read variables from FILE, as systemd does")
        for variable in VARIABLES:
            if name in variable.commands:
                command.add_argument(
                    variable.flag,
                    dest=variable.name,
                    metavar=variable.metavar,
                    help="%s (%s)" % (variable.help, variable.name),
                )
        add_own(command)
    return parser


def _producer_arguments(command: argparse.ArgumentParser) -> None:
    _check_argument(command)
    command.add_argument(
        "--fresh", action="store_true", help="the positions are gone or old: begin all files that they do not know"
    )


def _consumer_arguments(command: argparse.ArgumentParser) -> None:
    _check_argument(command)
    command.add_argument(
        "--take-over", action="store_true", help="take partitions of another archive host that will not come back"
    )


def _streams_arguments(command: argparse.ArgumentParser) -> None:
    _check_argument(command)
    _json_argument(command)
    command.add_argument("--dry-run", action="store_true", help="print what would be changed, and change nothing")
    command.add_argument("--force", action="store_true", help="do what may lose data too")


def _partition_arguments(command: argparse.ArgumentParser) -> None:
    _json_argument(command)
    command.add_argument("hosts", metavar="HOST", nargs="*", help="a host's name; this host's when there is none")


def _status_arguments(command: argparse.ArgumentParser) -> None:
    _json_argument(command)
    command.add_argument("--hosts", action="store_true", help="hosts instead of partitions")


def _logs_arguments(command: argparse.ArgumentParser) -> None:
    _json_argument(command)
    command.add_argument("--follow", "-f", action="store_true", help="go on with what comes")
    command.add_argument("--since", metavar="WHEN", help="begin so long ago (10m, 2h, 1d), or at 2026-01-31T10:00:00Z")
    command.add_argument("host", metavar="HOST", help="the host whose lines are printed")


def _forget_arguments(command: argparse.ArgumentParser) -> None:
    _json_argument(command)
    command.add_argument("--force", action="store_true", help="also where no stream shows the group")
    command.add_argument("group", metavar="GROUP", help="the group that nobody runs any more")


def _verify_arguments(command: argparse.ArgumentParser) -> None:
    _json_argument(command)
    command.add_argument("--wait", metavar="SECONDS", default="30", help="how long it may take at most (30)")


def _check_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--check", action="store_true", help="validate the settings and exit")


def _json_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


_Run = Callable[[argparse.Namespace, Mapping[str, str]], None]
_AddOwn = Callable[[argparse.ArgumentParser], None]
# What runs, what it is for, and the arguments that are no settings.
_COMMANDS: dict[str, tuple[_Run, str, _AddOwn]] = {
    "producer": (_producer, "tail files and publish their lines to this host's partition", _producer_arguments),
    "consumer": (_consumer, "write the lines of some partitions to files, a folder a host", _consumer_arguments),
    "streams": (_streams, "make or change the partitions' streams, and say what was changed", _streams_arguments),
    "partition": (_partition, "print a host's partition and subject", _partition_arguments),
    "status": (_status, "show how far each partition or host is archived", _status_arguments),
    "logs": (_logs, "print what the stream holds of a host's lines", _logs_arguments),
    "verify": (_verify, "check that what this host's files held a moment ago has arrived", _verify_arguments),
    "ledger": (_ledger, "show what an archive remembers of its hosts, and what never came", _json_argument),
    "forget": (_forget, "let the streams go on without a group that nobody runs any more", _forget_arguments),
}
