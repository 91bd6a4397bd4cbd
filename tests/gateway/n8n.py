"""A stand-in for N8N: a real server that remembers what it was sent, and answers as a test wants it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
from aiohttp import web

Answering = Callable[["Asked"], Awaitable[web.Response]]


class Asked(NamedTuple):
    """One call."""

    workflow: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def payload(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.body)
        return found


def say(text: str, **more: object) -> web.Response:
    return web.json_response({"message": text, **more})


async def echo(asked: Asked) -> web.Response:
    return say(f"You said: {asked.payload['message']}", model="gpt-test", tokensUsed=7, finishReason="stop")


class N8N:
    """`url` is N8N_BASE_URL; `answer` may be replaced at any time; `asked` are the calls, in order."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.answer: Answering = echo

    async def handle(self, request: web.Request) -> web.Response:
        asked = Asked(request.match_info["workflow"], request.headers, await request.read())
        self.asked.append(asked)
        return await self.answer(asked)


@asynccontextmanager
async def serving() -> AsyncIterator[N8N]:
    n8n, app = N8N(), web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_post("/webhook/{workflow:.+}", n8n.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        n8n.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield n8n
    finally:
        await runner.cleanup()
