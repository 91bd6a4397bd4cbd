"""The open WebSockets of this process, and how a frame gets to all that a user has.

A socket has a bounded queue and a task that writes from it. Sending never waits: a client that does not keep up loses
its own socket and slows down nobody else.

Each response is followed by a ping with a number. The client's pong proves that everything before it has arrived. That
a frame could be written proves nothing: the kernel also takes frames for a peer that is gone.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from aiohttp import WSCloseCode, web

from eventbus.event import uuid7
from eventbus.process.safe_logging import get_logger

QUEUE_FRAMES = 256
QUEUE_SIZE = 16 * 1024 * 1024  # characters; larger than a page of waiting answers can be: see waiting_answers
REMEMBERED = 256  # responses that a socket remembers, so that it sends none of them twice
CLOSE_TIMEOUT = 2.0  # seconds for the client's close frame, and as many to read what is buffered; then it is cut off

TOKEN_REFUSED = 4401
TOO_SLOW = 4408
TOO_MANY = 4429

Owner = tuple[str, str]  # organization and user

log = get_logger("gateway")


class _Frame(NamedTuple):
    text: str
    response: str | None  # the id of the message that it answers; None for a frame that need not be confirmed


class Socket:
    """One connection of one user."""

    def __init__(self, owner: Owner, response: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        self.id = uuid7()
        self.owner = owner
        self._response = response
        self._transport = transport
        self._frames: asyncio.Queue[_Frame] = asyncio.Queue()
        self._size = 0
        self._held: list[_Frame] | None = None
        self._known: dict[str, None] = {}  # responses that it was given, sent or not, oldest first
        self._unconfirmed: deque[tuple[int, str]] = deque()
        self._pings = 0
        self._writing = asyncio.create_task(self._write_on(), name=f"socket:{self.id}")
        self._closing: asyncio.Task[None] | None = None

    # Sending ----------------------------------------------------------------------------------------------------------

    def send(self, frame: str) -> None:
        """Put a frame into the queue; if that is full, this socket is closed."""
        self._enqueue(_Frame(frame, None))

    def deliver(self, message_id: str, frame: str) -> None:
        """As `send`, for a response; one that this socket was given before is left out. See `confirmed`."""
        if message_id in self._known:
            return
        self._known[message_id] = None
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        self._enqueue(_Frame(frame, message_id))

    def answer(self, *frames: str) -> None:
        """As `send`, but not held back inside of `holding`."""
        for frame in frames:
            self._put(_Frame(frame, None))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Frames that are sent while this block runs go out when it ends, after those of `answer`. So a client is
        answered first, even if a worker is faster with what follows from his frame."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            for frame in held:
                self._put(frame)

    def _enqueue(self, frame: _Frame) -> None:
        if self._held is None:
            self._put(frame)
        elif len(self._held) < QUEUE_FRAMES:
            self._held.append(frame)
        else:
            self._give_up()

    def _put(self, frame: _Frame) -> None:
        if self._closing is not None:
            return
        if self._frames.qsize() >= QUEUE_FRAMES or self._size + len(frame.text) > QUEUE_SIZE:
            self._give_up()
            return
        self._size += len(frame.text)
        self._frames.put_nowait(frame)

    def _give_up(self) -> None:
        self.refuse(TOO_SLOW, "too slow a reader")

    async def _write_on(self) -> None:
        try:
            await self._write()
        except Exception:  # nothing would be sent any more, and nobody would know
            log.exception("a socket cannot be written to", socket_id=self.id)
            self.refuse(WSCloseCode.INTERNAL_ERROR, "what was to be sent cannot be written")

    async def _write(self) -> None:
        with suppress(ConnectionError):  # the client is gone: the reading side notices as well
            while True:
                frame = await self._frames.get()
                await self._response.send_str(frame.text)
                self._size -= len(frame.text)
                if frame.response is not None:
                    self._pings += 1
                    self._unconfirmed.append((self._pings, frame.response))
                    await self._response.ping(str(self._pings).encode())

    def confirmed(self, pong: bytes) -> list[str]:
        """The ids of the messages whose responses have arrived. A pong of the client stands for all pings before it."""
        number = int(pong) if pong.isdigit() and len(pong) < 20 else 0  # those of the heartbeat are empty
        arrived: list[str] = []
        while self._unconfirmed and self._unconfirmed[0][0] <= number:
            arrived.append(self._unconfirmed.popleft()[1])
        return arrived

    # Closing ----------------------------------------------------------------------------------------------------------

    def refuse(self, code: int, reason: str) -> None:
        """Begin to close the socket, and log why. Returns at once."""
        if self._closing is None:
            log.warning("socket closed", socket_id=self.id, code=code, reason=reason)
            self._close_soon(code, reason.encode())

    async def close(self, code: int, reason: bytes = b"") -> None:
        """Close the socket. Returns when the client has closed it too, or after CLOSE_TIMEOUT."""
        await self._close_soon(code, reason)

    def _close_soon(self, code: int, reason: bytes) -> "asyncio.Task[None]":
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(code, reason), name=f"close:{self.id}")
        return self._closing

    async def _close(self, code: int, reason: bytes) -> None:
        # First the writer: it and close() may wait for the same buffer to drain, and in aiohttp a waiter that is
        # cancelled there cancels the other.
        self._writing.cancel()
        await asyncio.wait({self._writing})
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._response.close(code=code, message=reason)
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        """Buffered frames still go out. A client that does not read them is cut off after CLOSE_TIMEOUT."""
        if self._transport is not None:
            self._transport.close()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._transport.abort)


class Sockets:
    """The open sockets, by owner."""

    def __init__(self) -> None:
        self._open: dict[Owner, set[Socket]] = {}

    def add(self, socket: Socket) -> None:
        self._open.setdefault(socket.owner, set()).add(socket)

    def remove(self, socket: Socket) -> None:
        found = self._open.get(socket.owner, set())
        found.discard(socket)
        if not found:
            self._open.pop(socket.owner, None)

    def of(self, owner: Owner) -> Collection[Socket]:
        """The sockets of one user. A copy: to send frames may close some of them."""
        return tuple(self._open.get(owner, ()))

    def owners(self) -> set[Owner]:
        """Everybody who has a socket here."""
        return set(self._open)

    async def close_all(self) -> None:
        """For a gateway that stops. Close code 1001 tells clients to come back."""
        everyone: Iterable[Socket] = [socket for sockets in self._open.values() for socket in sockets]
        await asyncio.gather(*(socket.close(WSCloseCode.GOING_AWAY, b"the gateway stops") for socket in everyone))
