# SPDX-License-Identifier: GPL-3.0-or-later
"""One question to the server, straight and without a client library: what operators and accidents do."""

from __future__ import annotations

import json
import socket
from typing import Any


def ask(port: int, subject: str, request: dict[str, Any] | None = None, seconds: float = 3.0) -> dict[str, Any]:
    """The JSON that is answered on a subject. Raises OSError where nobody answers in time."""
    payload = json.dumps(request).encode() if request else b""
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        connection.settimeout(seconds)
        lines = connection.makefile("rb")
        lines.readline()
        connection.sendall(
            b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n'
            b"SUB answer 1\r\nPUB %s answer %d\r\n%s\r\n" % (subject.encode(), len(payload), payload)
        )
        for line in lines:
            if line.startswith(b"PING"):
                connection.sendall(b"PONG\r\n")
            elif line.startswith(b"HMSG"):
                raise OSError("nobody answers on %s" % subject)
            elif line.startswith(b"MSG"):
                answer = json.loads(lines.read(int(line.split()[-1])))
                assert isinstance(answer, dict)
                return answer
            elif line.startswith(b"-ERR"):
                raise OSError(line.decode())
    raise OSError("the server hung up")
