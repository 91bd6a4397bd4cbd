"""A service outside: an HTTP server of the test's own that writes down what it is sent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
from aiohttp import web


class Received(NamedTuple):
    """`path` with the query, as it was sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


Answering = Callable[[Received], Awaitable[web.Response | None]]  # None: hang up without a word


class Peer:
    """Answers 200 and `{}` unless told otherwise: `answers` are given one after the other, then `otherwise` always."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[web.Response | Answering] = []
        self.otherwise: Answering = _fine
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        received = Received(request.method, request.raw_path, request.headers, await request.read())
        self.received.append(received)
        answer = self.answers.pop(0) if self.answers else self.otherwise
        response = answer if isinstance(answer, web.StreamResponse) else await answer(received)
        if response is None:
            assert request.transport is not None
            request.transport.close()
        return response or web.Response()

    async def until_received(self, count: int, timeout: float = 20.0) -> list[Received]:
        async with asyncio.timeout(timeout):
            while len(self.received) < count:
                await asyncio.sleep(0.005)
        return self.received


async def _fine(_received: Received) -> web.Response:
    return answer(200, {})


def answer(status: int, content: object = None, **headers: str) -> web.Response:
    """Header names are given with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = b"" if content is None else orjson.dumps(content)
    return web.Response(status=status, body=body, content_type="application/json", headers=named)


@asynccontextmanager
async def peer() -> AsyncIterator[Peer]:
    """Listens on loopback inside the block."""
    listening = Peer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", listening.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        listening.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield listening
    finally:
        await runner.cleanup()
