"""A TCP proxy with the faults of a network, to be put in front of a real server."""

import asyncio
import time
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """`async with Proxy(url) as proxy:` and connect to `proxy.url`. Its switches may be turned at any time.

    slice_size   bytes that pass at a time, None for as they come
    latency      seconds that everything is late, in either direction
    linger       seconds until a client learns that the server has hung up
    frozen       nothing passes, and nobody is told: `freeze()`, `thaw()`
    memory       seconds of silence after which a connection is forgotten: what comes on it is swallowed; None for never
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._pipes: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._swallowed: set[asyncio.StreamWriter] = set()
        self._held: set[asyncio.StreamWriter] = set()
        self._shut_out: set[str] = set()
        self._let_go = asyncio.Event()
        self._losing: asyncio.Event | None = None
        self._wanted: bytes | None = None
        self._lost = asyncio.Event()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._server: asyncio.Server | None = None
        self.slice_size: int | None = None
        self.latency = 0.0
        self.linger = 0.0
        self.memory: float | None = None
        self.connections = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        login, at, _ = self._target.netloc.rpartition("@")
        port = self._server.sockets[0].getsockname()[1]
        return self._target._replace(netloc=f"{login}{at}127.0.0.1:{port}").geturl()

    def freeze(self) -> None:
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    def lead_to(self, url: str) -> None:
        """New connections go to another server; those of now stay where they are."""
        self._target = urlsplit(url)

    def blackhole(self) -> None:
        """Swallow whatever comes on the connections of now, and tell nobody; new ones are as good as ever."""
        self._swallowed |= self._ends

    def hold(self) -> None:
        """What is sent on the connections of now stays on the way until `let_go`; new ones are as good as ever."""
        self._held |= self._ends

    async def let_go(self) -> None:
        """It arrives, however long ago the other end has hung up. Returns when the connections have ended."""
        self._let_go.set()
        while self._held & self._ends:
            await asyncio.sleep(0.01)

    def shut_out(self, host: str) -> None:
        """Nothing passes to or from clients at this address, on connections of now and later, and nobody is told."""
        self._shut_out.add(host)

    def let_in(self) -> None:
        """Who was shut out has to connect anew, and gets through."""
        for end in self._ends:
            if _peer(end) in self._shut_out:
                end.transport.abort()
        self._shut_out.clear()

    def lose_next_reply(self) -> asyncio.Event:
        """Throw away the next bytes that the server sends, and their connection with them; set when that was done."""
        self._losing = asyncio.Event()
        return self._losing

    def lose_reply_to(self, request: bytes) -> asyncio.Event:
        """As `lose_next_reply`, from the next request on that holds these bytes."""
        self._wanted, self._lost = request, asyncio.Event()
        return self._lost

    def lose_no_more(self) -> None:
        """Take `lose_next_reply` back if nothing was lost since."""
        self._losing = None

    def cut(self) -> None:
        """Reset every connection."""
        for end in self._ends:
            end.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.thaw()
        self.cut()
        pipes = list(self._pipes)
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        self._ends |= {writer, back}
        client = _peer(writer)
        for pump in (
            self._pump(reader, back, writer, client, replies=False),
            self._pump(there, writer, back, client, replies=True),
        ):
            pipe = asyncio.create_task(pump)
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        origin: asyncio.StreamWriter,
        client: str,
        *,
        replies: bool,
    ) -> None:
        silent = time.monotonic()
        with suppress(OSError):
            while passing := await source.read(65536):
                if self.memory is not None and time.monotonic() - silent > self.memory:
                    self._swallowed |= {sink, origin}
                silent = time.monotonic()
                await self._thawed.wait()
                if sink in self._held:
                    await self._let_go.wait()
                if not replies and self._wanted is not None and self._wanted in passing:
                    self._wanted, self._losing = None, self._lost
                if replies and self._losing is not None:
                    self._losing.set()
                    self._losing = None
                    break
                if self.latency:
                    await asyncio.sleep(self.latency)
                if sink not in self._swallowed and client not in self._shut_out:
                    await self._pass_on(passing, sink)
            if replies and self.linger:
                await asyncio.sleep(self.linger)
        for end in (sink, origin):
            end.transport.abort()
        self._ends -= {sink, origin}
        self._swallowed -= {sink, origin}

    async def _pass_on(self, passing: bytes, sink: asyncio.StreamWriter) -> None:
        step = self.slice_size or len(passing)
        for start in range(0, len(passing), step):
            sink.write(passing[start : start + step])
            await sink.drain()
            if self.slice_size:
                await asyncio.sleep(0)


def _peer(end: asyncio.StreamWriter) -> str:
    """The address at the other end."""
    peer: tuple[str, int] | None = end.get_extra_info("peername")
    return peer[0] if peer else ""
