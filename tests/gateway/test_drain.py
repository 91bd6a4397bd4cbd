"""SIGTERM, then a while in which everything is served and /readyz says that this gateway is about to leave."""

import asyncio
import os
import signal
import time
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from eventbus.embedded.ports import free_port
from gateway.callers.auth import make_token
from gateway.serve import Stopping, serve_until
from gateway.settings import GatewaySettings
from tests.gateway.client import SECRET, Client
from tests.gateway.test_process import CLEAN, started
from tests.gateway.test_websocket import closed, receive
from tests.waiting import PATIENCE


@pytest.fixture
def environment(redis_url: str, database_url: str, tmp_path: Path) -> dict[str, str]:
    """It drains until the second signal."""
    return CLEAN | {
        "EVENTBUS_REDIS_URL": redis_url,
        "EVENTBUS_DATABASE_URL": database_url,
        "EVENTBUS_JWT_SECRET": SECRET,
        "EVENTBUS_LOG_FORMAT": "json",
        "EVENTBUS_PORT": "0",
        "EVENTBUS_DRAIN_SECONDS": str(10 * PATIENCE),
    }


async def test_in_the_drain_everything_is_served_and_nobody_is_kept(environment: dict[str, str]) -> None:
    async with started("gateway", environment) as process, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{(await process.line('listening'))['port']}"
        ann = Client(session, url, make_token(SECRET, user="ann", organization="acme"))
        before = await ann.post("/api/leads", {"name": "Lea"})
        assert (before.status, before.headers.get("Connection")) == (201, None)
        async with ann.socket() as old:
            assert (await receive(old))["type"] == "connected"
            os.kill(process.pid, signal.SIGTERM)
            await process.line("draining")
            for method, path, status in (
                ("GET", "/readyz", 503),
                ("GET", "/livez", 200),
                ("GET", "/api/leads", 200),
                ("GET", "/api/nothing", 404),
                ("POST", "/api/leads", 201),
            ):
                answer = await ann.send(method, path, b'{"name": "Leo"}' if method == "POST" else None)
                assert (answer.status, answer.headers.get("Connection")) == (status, "close"), answer
                if path == "/readyz":
                    assert answer.body == {"status": "draining", "checks": {"redis": "ok", "postgres": "ok"}}
            assert await all_of_a_connection(url) == b"HTTP/1.1 200 OK"
            async with ann.socket() as new:
                assert (await receive(new))["type"] == "connected"
                for socket in (old, new):
                    await socket.send_str('{"type": "ping"}')
                    assert await receive(socket) == {"type": "pong"}
                codes = asyncio.gather(*(closed(socket, PATIENCE) for socket in (old, new)))
                assert await process.end() == 0, "the second signal"
                assert await codes == [1001, 1001]
    assert [line["event"] for line in process.lines if line["event"] in {"draining", "stopping"}] == [
        "draining",
        "stopping",
    ]


async def all_of_a_connection(url: str) -> bytes:
    """The first line of what comes until the gateway hangs up, which a client does not have to do."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(url).port)
    try:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            return (await reader.read()).partition(b"\r\n")[0]
    finally:
        writer.close()
        await writer.wait_closed()


async def test_the_drain_ends_by_itself(environment: dict[str, str]) -> None:
    async with started("gateway", environment | {"EVENTBUS_DRAIN_SECONDS": "0.5"}) as process:
        await process.line("listening")
        began = time.monotonic()
        assert await process.end() == 0
        assert time.monotonic() - began >= 0.5
    assert [line["event"] for line in process.lines] == ["listening", "draining", "stopping"]


async def test_who_is_told_to_stop_before_anybody_knows_him_drains_nothing(redis_url: str, database_url: str) -> None:
    stopping = Stopping()
    stopping.on_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await serve_until(
            stopping,
            GatewaySettings(
                redis_url=redis_url,
                database_url=database_url,
                jwt_secret=SECRET,
                port=free_port(),
                drain_seconds=10 * PATIENCE,
            ),
        )


@pytest.mark.parametrize(("seconds", "number"), [("0", signal.SIGTERM), (None, signal.SIGINT)])
async def test_nobody_waits_for_balancers_where_there_are_none(
    seconds: str | None, number: signal.Signals, environment: dict[str, str]
) -> None:
    """With 0, and for Ctrl-C at a terminal."""
    changes = {} if seconds is None else {"EVENTBUS_DRAIN_SECONDS": seconds}
    async with started("gateway", environment | changes) as process:
        await process.line("listening")
        assert await process.end(number) == 0
    assert [line["event"] for line in process.lines] == ["listening", "stopping"]
