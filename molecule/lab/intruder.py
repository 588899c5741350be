# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody tries who has got hold of a host that ships, with this host's own settings, certificate or password.

    intruder.py ENV_FILE VICTIM         on a host of the lab, as root

Exits with 1 if anything was permitted but what the host needs. The client is that of the program installed there.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

sys.path.insert(0, "/opt/shipper/current")
sys.modules.setdefault("aiohttp", None)  # type: ignore[arg-type]  # what import takes for "not there"

import nats  # noqa: E402  # on the path just now

from shipper_runtime import envfile  # noqa: E402
from shipper_runtime.partition import partition  # noqa: E402

SECONDS = 2.0


async def attempt(env: dict[str, str], victim: str) -> list[str]:
    """What went otherwise than it should, one sentence each."""
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error))

    host, partitions, stream = env["HOSTNAME"], int(env["SHIPPER_PARTITIONS"]), env["SHIPPER_STREAM"]
    subject = "%s.p%d." % (env["SHIPPER_SUBJECT"], partition(victim, partitions)) + victim
    own = "%s.p%d." % (env["SHIPPER_SUBJECT"], partition(host, partitions)) + host
    tls = ssl.create_default_context(cafile=env["NATS_CA"])
    if env.get("NATS_CERTIFICATE"):
        tls.load_cert_chain(env["NATS_CERTIFICATE"], env["NATS_KEY"])
    inbox = "_INBOX.producer=" + host.replace(".", "=")
    client = await nats.connect(
        env["NATS_URL"].split(","), tls=tls, inbox_prefix=inbox.encode(), error_cb=on_error, allow_reconnect=False
    )
    problems = []
    # What it may: otherwise the refusals would prove nothing.
    last = await client.request(
        "$JS.API.DIRECT.GET.%s-p%d.%s" % (stream, partition(host, partitions), own), b"", SECONDS
    )
    if not last.headers or last.headers.get("Nats-Subject") != own:
        problems.append("the last message of %s could not be read: %s" % (own, last.headers))
    publish = (
        subject,
        "%s.p0.nobody" % env["SHIPPER_SUBJECT"],
        "$JS.API.STREAM.DELETE.%s-p0" % stream,
        "$JS.API.STREAM.PURGE.%s-p0" % stream,
        "$JS.API.DIRECT.GET.%s-p%d.%s" % (stream, partition(victim, partitions), subject),
        "_INBOX.producer=%s.x" % victim.replace(".", "="),
    )
    subscribe = (subject, env["SHIPPER_SUBJECT"] + ".>", "_INBOX.>", ">", "$JS.>")
    for each in publish:
        refused.clear()
        await client.publish(each, b"forged\n")
        await client.flush(SECONDS)
        await asyncio.sleep(0.1)
        if not any("permissions violation" in error.lower() for error in refused):
            problems.append("%s may publish to %s: %s" % (host, each, refused))
    for each in subscribe:
        refused.clear()
        await client.subscribe(each)
        await client.flush(SECONDS)
        await asyncio.sleep(0.1)
        if not any("permissions violation" in error.lower() for error in refused):
            problems.append("%s may subscribe to %s: %s" % (host, each, refused))
    await client.close()
    return problems


def main(env_file: str, victim: str) -> int:
    problems = asyncio.run(attempt(envfile.parse(Path(env_file).read_text()), victim))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
