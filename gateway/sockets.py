"""The open WebSockets of this process, and how a frame gets to all that a user has.

A socket has a bounded queue and a task that writes from it. Who sends never waits: a reader that does not keep up
loses its own socket and slows down nobody else.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import structlog
from aiohttp import WSCloseCode, web

from eventbus.event import uuid7

QUEUE_FRAMES = 256
CLOSE_TIMEOUT = 2.0  # seconds for the close frame to get through; then the connection is cut

TOKEN_REFUSED = 4401
TOO_SLOW = 4408

Owner = tuple[str, str]  # organization and user

log = structlog.get_logger("gateway")


class Socket:
    """One connection of one user."""

    def __init__(self, owner: Owner, response: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        self.id = uuid7()
        self.owner = owner
        self._response = response
        self._transport = transport
        self._frames: asyncio.Queue[str] = asyncio.Queue(QUEUE_FRAMES)
        self._writing = asyncio.create_task(self._write(), name=f"socket:{self.id}")
        self._closing: asyncio.Task[None] | None = None

    def send(self, frame: str) -> None:
        """Put into the queue; if that is full, this socket is given up."""
        if self._closing is not None:
            return
        try:
            self._frames.put_nowait(frame)
        except asyncio.QueueFull:
            log.warning("socket closed", socket_id=self.id, reason="too slow a reader")
            self._close_soon(TOO_SLOW, b"too slow a reader")

    async def close(self, code: int, reason: bytes = b"") -> None:
        """Returns when the connection is gone, within CLOSE_TIMEOUT whatever the client does."""
        await self._close_soon(code, reason)

    def _close_soon(self, code: int, reason: bytes) -> "asyncio.Task[None]":
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(code, reason), name=f"close:{self.id}")
        return self._closing

    async def _close(self, code: int, reason: bytes) -> None:
        self._writing.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._response.close(code=code, message=reason)
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # waiting for a reader that does not read would keep it open for ever
        else:
            self._transport.close()

    async def _write(self) -> None:
        with suppress(ConnectionError):  # it is gone: the reading side notices as well
            while True:
                await self._response.send_str(await self._frames.get())


class Sockets:
    """Those that are open, by owner."""

    def __init__(self) -> None:
        self._open: dict[Owner, set[Socket]] = {}

    def add(self, socket: Socket) -> None:
        self._open.setdefault(socket.owner, set()).add(socket)

    def remove(self, socket: Socket) -> None:
        found = self._open.get(socket.owner, set())
        found.discard(socket)
        if not found:
            self._open.pop(socket.owner, None)

    def send(self, owner: Owner, frame: str) -> None:
        """To all sockets that the user has here."""
        for socket in tuple(self._open.get(owner, ())):
            socket.send(frame)

    async def close_all(self) -> None:
        """When the gateway stops: clients are told to come back."""
        everyone: Iterable[Socket] = [socket for sockets in self._open.values() for socket in sockets]
        await asyncio.gather(*(socket.close(WSCloseCode.GOING_AWAY, b"the gateway stops") for socket in everyone))
