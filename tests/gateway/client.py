"""A gateway that listens, and callers that talk to it over HTTP."""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from eventbus import EventBus
from gateway.app import create_app
from gateway.callers.auth import make_token
from gateway.serve import make_runner
from gateway.settings import GatewaySettings
from tests.waiting import PATIENCE

SECRET = "a secret of the tests, of 32 bytes and more"
JSON = "application/json"


class Answer(NamedTuple):
    """`body` is the JSON, or None."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Client:
    """One caller. `token=""` is none."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session = session
        self._url = url
        self.token = token

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.send("GET", path, headers=headers)

    async def post(self, path: str, content: object = None, **headers: str) -> Answer:
        """Header names are given with underscores."""
        body = None if content is None else orjson.dumps(content)
        return await self.send("POST", path, body, headers=headers)

    async def patch(self, path: str, content: object) -> Answer:
        return await self.send("PATCH", path, orjson.dumps(content))

    async def delete(self, path: str) -> Answer:
        return await self.send("DELETE", path)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        content_type: str | None = JSON,
        headers: Mapping[str, str] = {},
    ) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None and content_type is not None:
            sent["Content-Type"] = content_type
        skipped = () if content_type else ("Content-Type",)
        async with self._session.request(
            method,
            self._url + path,
            data=None if body is None else io.BytesIO(body),
            headers=sent,
            skip_auto_headers=skipped,
            allow_redirects=False,
        ) as response:
            raw = await response.read()
            return Answer(response.status, response.headers, orjson.loads(raw) if raw else None)

    async def all_of(self, path: str) -> list[Any]:
        """Every item of a list, page by page."""
        items: list[Any] = []
        url = URL(path)
        for _ in range(1000):
            answer = await self.get(str(url))
            assert answer.status == 200, answer
            items += answer.body["items"]
            if answer.body["nextCursor"] is None:
                return items
            url = url.update_query(cursor=answer.body["nextCursor"])
        raise AssertionError(f"{path} has no end")

    def socket(self, token: str | None = None) -> Any:
        """`async with client.socket() as ws`."""
        return self._session.ws_connect(f"{self._url}/ws/chat?token={self.token if token is None else token}")


class Gateway:
    """A gateway of the test's own, and its callers."""

    def __init__(self, url: str, session: aiohttp.ClientSession, runner: web.AppRunner) -> None:
        self.url = url
        self.session = session
        self._runner = runner

    def connections(self) -> int:
        """How many are open, as the server sees it."""
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    def caller(self, user: str = "ann", organization: str = "acme", *roles: str) -> Client:
        token = make_token(SECRET, user=user, organization=organization, roles=frozenset(roles or ("user",)))
        return Client(self.session, self.url, token)

    def bearer(self, token: str) -> Client:
        return Client(self.session, self.url, token)


@asynccontextmanager
async def running(bus: EventBus, *, rate_limit: str = "off") -> AsyncIterator[Gateway]:
    """As gateway.serve has it. Tests ask more than people do."""
    settings = GatewaySettings(jwt_secret=SECRET, rate_limit=rate_limit)
    runner = make_runner(create_app(bus, settings), shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as session:
            yield Gateway(f"http://{host}:{port}", session, runner)
    finally:
        await runner.cleanup()


async def say(gateway: Gateway, request: str) -> bytes:
    """Whatever the gateway answers to these bytes before it hangs up."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request.encode())
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
