# SPDX-License-Identifier: GPL-3.0-or-later
"""A line between a program and the server that can be cut and stalled: one TCP proxy for each program."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from types import TracebackType

_CHUNK = 64 * 1024
# Below the ephemeral range: no outgoing connection can have taken the port while nobody listened on it.
_PORTS = (20000, 30000)


def free_port() -> int:
    """A port of the loopback on which nobody listens, and which no outgoing connection will get."""
    for _turn in range(1000):
        port = random.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port between %d and %d" % _PORTS)


class Lines:
    """The event loop of all proxies, in a thread of its own; a context manager."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="lines", daemon=True)

    def line(self, upstream: int) -> Line:
        """A new line to this port."""
        line = Line(self.loop, upstream)
        asyncio.run_coroutine_threadsafe(line.open(), self.loop).result(10)
        return line

    def __enter__(self) -> Lines:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Line:
    """Forwards connections from its port to upstream's; the methods without async may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, upstream: int) -> None:
        self.port = 0
        self._loop = loop
        self._upstream = upstream
        self._refusing = False
        self._transports: set[asyncio.WriteTransport] = set()
        # By direction: up is from the program to the server.
        self._open: dict[str, asyncio.Event] = {}

    async def open(self) -> None:
        # Not earlier: before 3.10 an event belongs to the loop of the thread that makes it.
        self._open = {"up": asyncio.Event(), "down": asyncio.Event()}
        for gate in self._open.values():
            gate.set()
        while True:
            # Somebody else may have been quicker.
            with contextlib.suppress(OSError):
                self.port = free_port()
                await asyncio.start_server(self._forward, "127.0.0.1", self.port)
                return

    def cut(self) -> None:
        """End all connections; what is on its way is lost."""
        self._loop.call_soon_threadsafe(self._cut)

    def refuse(self, refusing: bool) -> None:
        """Whether new connections are ended as soon as they are made."""
        self._loop.call_soon_threadsafe(setattr, self, "_refusing", refusing)

    def stall(self, direction: str) -> None:
        """No more bytes up, down, or both; connections stay, and new ones can be made."""
        for name, gate in self._open.items():
            if direction in (name, "both"):
                self._loop.call_soon_threadsafe(gate.clear)

    def go_on(self) -> None:
        """Bytes flow again, first those that were held."""
        for gate in self._open.values():
            self._loop.call_soon_threadsafe(gate.set)

    def _cut(self) -> None:
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._transports.add(writer.transport)
        both = [writer]
        try:
            if self._refusing:
                return
            upper_reader, upper_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            both.append(upper_writer)
            self._transports.add(upper_writer.transport)
            pumps = [
                asyncio.ensure_future(_pump(reader, upper_writer, self._open["up"])),
                asyncio.ensure_future(_pump(upper_reader, writer, self._open["down"])),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            # The server is down.
            return
        except asyncio.CancelledError:
            # The torture ends; Python 3.9's streams would report a cancelled handler as an error.
            return
        finally:
            for each in both:
                self._transports.discard(each.transport)
                # Not aborted: who sent its last words and hung up was not cut off.
                each.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while True:
            data = await reader.read(_CHUNK)
            await gate.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()
