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
CLOSE_TIMEOUT = 2.0  # seconds for the client's goodbye, and as much again to read what is buffered; then it is cut

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
        """Returns when the client has said goodbye too, or after CLOSE_TIMEOUT."""
        await self._close_soon(code, reason)

    def _close_soon(self, code: int, reason: bytes) -> "asyncio.Task[None]":
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(code, reason), name=f"close:{self.id}")
        return self._closing

    async def _close(self, code: int, reason: bytes) -> None:
        # Both may wait for the same drained buffer, and in aiohttp who is cancelled there cancels the other.
        self._writing.cancel()
        await asyncio.wait({self._writing})
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._response.close(code=code, message=reason)
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        """What is buffered still goes out; a reader that does not read must not keep it open for ever."""
        if self._transport is not None:
            self._transport.close()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._transport.abort)

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
