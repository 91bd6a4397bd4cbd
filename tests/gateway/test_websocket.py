"""/ws/chat: handshake, frames, pushes, slow readers, the end."""

import asyncio
import json
import logging
import time
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import WSMsgType

from eventbus import EventBus, Unavailable
from gateway.callers import tickets
from gateway.callers.auth import Authenticator
from gateway.endpoints.dispatch import MAX_BODY
from gateway.socket import sockets, websocket
from handlers.common.pushing import PUSH_CHANNEL
from tests.gateway.client import SECRET, Client, Gateway, running, say
from tests.gateway.test_auth import claims, sign
from tests.gateway.test_leads import NOWHERE
from tests.proxy import Proxy
from tests.waiting import eventually

PUSHED = {
    "id": NOWHERE,
    "userId": "ann",
    "title": "t",
    "message": "m",
    "actionUrl": None,
    "notificationType": "INFO",
    "readAt": None,
    "createdAt": "2026-01-01T00:00:00Z",
}


async def receive(socket: Any) -> Any:
    return json.loads(await asyncio.wait_for(socket.receive_str(), 10))


async def closed(socket: Any, within: float = 10) -> int:
    """The code that the server closes with, whatever came before."""
    async with asyncio.timeout(within):
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            continue
    assert message.type in {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED}, message
    code: int = socket.close_code
    return code


async def push(bus: EventBus, user: str = "ann", organization: str = "acme", **changes: Any) -> None:
    content: dict[str, Any] = {"organizationId": organization, "userId": user, "type": "notification"}
    content["data"] = {**PUSHED, **changes}
    await bus.shared.broadcast(PUSH_CHANNEL, json.dumps(content).encode())


@pytest.fixture
async def listening(bus: EventBus, gateway: Gateway) -> None:
    """The gateway has subscribed: before that a push would be lost."""
    async with gateway.caller("probe", "probe").socket() as socket:
        await receive(socket)
        waiting = asyncio.create_task(receive(socket))
        while not waiting.done():
            await push(bus, "probe", "probe")
            await asyncio.wait({waiting}, timeout=0.05)


async def test_a_socket_is_greeted_and_answers_pings(ann: Client) -> None:
    ids = set()
    for _ in range(2):
        async with ann.socket() as socket:
            greeting = await receive(socket)
            assert (greeting["type"], list(greeting["data"])) == ("connected", ["socketId"])
            ids.add(greeting["data"]["socketId"])
            await socket.send_str('{"type": "ping"}')
            assert await receive(socket) == {"type": "pong"}
    assert len(ids) == 2


FRAMES = {
    "{": "BAD_FRAME",
    "": "BAD_FRAME",
    "[]": "BAD_FRAME",
    '"ping"': "BAD_FRAME",
    "{}": "BAD_FRAME",
    '{"type": 5}': "BAD_FRAME",
    '{"type": "ping"} {}': "BAD_FRAME",
    "[" * 60_000: "BAD_FRAME",
    '{"type": NaN}': "BAD_FRAME",
    '{"type": "dance"}': "UNKNOWN_TYPE",
    '{"type": "Ping"}': "UNKNOWN_TYPE",
    '{"type": "ping", "id": 5}': "INVALID",
    '{"type": "ping", "data": {"a": 1}}': "INVALID",
}


@pytest.mark.parametrize(("frame", "code"), FRAMES.items(), ids=range(len(FRAMES)))
async def test_a_bad_frame_is_an_error_and_the_socket_stays(frame: str, code: str, ann: Client) -> None:
    async with ann.socket() as socket:
        await receive(socket)
        await socket.send_str(frame)
        answer = await receive(socket)
        assert (answer["type"], answer["data"]["code"]) == ("error", code)
        assert answer["data"]["message"]
        await socket.send_str('{"type": "ping"}')
        assert await receive(socket) == {"type": "pong"}


async def test_a_binary_frame_is_an_error_as_well(ann: Client) -> None:
    async with ann.socket() as socket:
        await receive(socket)
        await socket.send_bytes(b'{"type": "ping"}')
        assert (await receive(socket))["data"]["code"] == "BAD_FRAME"


async def test_a_frame_that_is_too_large_ends_the_socket(ann: Client) -> None:
    async with ann.socket() as socket:
        await receive(socket)
        await socket.send_str(" " * (MAX_BODY + 1))
        assert await closed(socket) == 1009


@pytest.mark.parametrize(
    "token", ["", "nonsense", sign(claims(exp=1)), sign(claims(), "x" * 32)], ids=["none", "odd", "expired", "forged"]
)
async def test_a_bad_token_is_told_by_the_close_code(token: str, ann: Client) -> None:
    async with ann.socket(token) as socket:
        assert await closed(socket) == 4401


async def test_a_browser_sees_why_it_was_refused(gateway: Gateway) -> None:
    """It can set no header, and reads nothing of a handshake that fails: status 101, then the code and its reason."""
    for query in ("", "?token=x", "?ticket=x", "?token=x&ticket=x"):
        async with gateway.session.ws_connect(f"{gateway.url}/ws/chat{query}", origin="https://app.example") as socket:
            message = await socket.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 4401)
            assert message.extra
            assert len(message.extra) <= 123


@pytest.mark.parametrize("query", ["token", "ticket"])
async def test_while_a_server_is_away_nobody_is_told_that_his_token_is_bad(
    query: str, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> Any:
        raise Unavailable("a server", "no answer")

    monkeypatch.setattr(Authenticator, "caller", away)
    monkeypatch.setattr(tickets, "redeem", away)
    async with gateway.session.ws_connect(f"{gateway.url}/ws/chat", params={query: "x"}) as socket:
        assert await closed(socket) == 1013


async def test_what_is_no_handshake_is_a_problem(ann: Client) -> None:
    answer = await ann.get(f"/ws/chat?token={ann.token}")
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert ann.token not in str(answer.body)


@pytest.mark.usefixtures("listening")
async def test_a_push_reaches_every_socket_of_its_user_and_no_other(bus: EventBus, gateway: Gateway) -> None:
    own = [gateway.caller("ann", "acme"), gateway.caller("ann", "acme", "admin")]
    others = [gateway.caller("bob", "acme"), gateway.caller("ann", "umbrella")]
    async with own[0].socket() as a, own[1].socket() as b, others[0].socket() as c, others[1].socket() as d:
        for socket in (a, b, c, d):
            await receive(socket)
        await bus.shared.broadcast(PUSH_CHANNEL, b"no push at all")
        await push(bus)
        for socket in (a, b):
            assert await receive(socket) == {"type": "notification", "data": PUSHED}
        await push(bus, "bob")
        await push(bus, "ann", "umbrella", title="theirs")
        assert (await receive(c))["data"]["title"] == "t"
        assert (await receive(d))["data"]["title"] == "theirs"


@pytest.mark.usefixtures("listening", "worker")
async def test_a_leads_assignee_sees_it_at_once(ann: Client) -> None:
    async with ann.socket() as socket:
        await receive(socket)
        await ann.post("/api/leads", {"name": "Lea", "assignedTo": "ann"})
        frame = await receive(socket)
    assert frame["type"] == "notification"
    assert frame["data"] == (await ann.get("/api/notifications")).body["items"][0]


async def _flood(bus: EventBus, quick: Any, given_up: int = 1) -> None:
    """Push to ann until so many sockets are given up; bob gets his in between."""
    with structlog.testing.capture_logs() as logs:
        for number in range(5000):
            await push(bus, message="x" * 10_000)
            if number % 100 == 0:
                await push(bus, "bob")
                await receive(quick)
            closed = [line["code"] for line in logs if line["event"] == "socket closed"]
            if len(closed) >= given_up:
                assert closed == [4408] * given_up
                return
    raise AssertionError("nobody was too slow")


@pytest.mark.usefixtures("listening")
async def test_who_reads_too_slowly_is_told_and_holds_up_nobody(bus: EventBus, ann: Client, gateway: Gateway) -> None:
    async with ann.socket() as slow, gateway.caller("bob", "acme").socket() as quick:
        await receive(quick)
        await _flood(bus, quick)
        assert await closed(slow) == 4408
        await push(bus, "bob")
        assert (await receive(quick))["type"] == "notification"


@pytest.mark.usefixtures("listening")
async def test_few_frames_are_too_many_if_they_are_large(bus: EventBus, ann: Client, gateway: Gateway) -> None:
    """What waits for a slow reader is bounded in size as well."""
    async with ann.socket() as slow, gateway.caller("bob", "acme").socket() as quick:
        await receive(quick)
        with structlog.testing.capture_logs() as logs:
            for number in range(60):
                await push(bus, message="x" * 1_000_000)
                await push(bus, "bob", title=str(number), message="x" * 1_000_000)
                assert (await receive(quick))["data"]["title"] == str(number)
        assert [line["code"] for line in logs if line["event"] == "socket closed"] == [4408]
        await slow.close()


@pytest.mark.usefixtures("listening")
async def test_those_who_never_read_are_cut_off(
    bus: EventBus, ann: Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.3)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(ann.socket())
        quick = await stack.enter_async_context(gateway.caller("bob", "acme").socket())
        await receive(quick)
        await _flood(bus, quick, given_up=4)

        async def gone() -> bool:
            return gateway.connections() == 1

        await eventually(gone)
        assert len(_writers()) == 1


@pytest.mark.usefixtures("listening")
async def test_those_who_vanish_are_noticed_and_hold_up_nobody(
    bus: EventBus, ann: Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No FIN, no RST: a phone in a tunnel. What was written to them is in the kernel's buffers for ever."""
    monkeypatch.setattr(sockets, "CLOSE_TIMEOUT", 0.3)
    monkeypatch.setattr(websocket, "HEARTBEAT", 1.0)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(gateway.url))
        lost = [
            await stack.enter_async_context(gateway.session.ws_connect(f"{proxy.url}/ws/chat?token={ann.token}"))
            for _ in range(5)
        ]
        here = await stack.enter_async_context(ann.socket())
        for socket in (*lost, here):
            await receive(socket)
        proxy.blackhole()
        waits = []
        for number in range(100):
            began = time.perf_counter()
            await push(bus, title=str(number), message="x" * 10_000)
            assert (await receive(here))["data"]["title"] == str(number)
            waits.append(time.perf_counter() - began)

        reading = asyncio.create_task(closed(here, 20))  # who does not read is no better than who has vanished

        async def gone() -> bool:
            return gateway.connections() == 1

        await eventually(gone)
        assert len(_writers()) == 1
        assert not reading.done()
        reading.cancel()
    assert sorted(waits)[50] < 0.1


async def test_when_the_gateway_stops_its_sockets_are_told(bus: EventBus) -> None:
    async with aiohttp.ClientSession() as session:
        async with running(bus) as gateway:
            reading, silent = [
                await session.ws_connect(f"{gateway.url}/ws/chat?token={gateway.caller().token}") for _ in range(2)
            ]
            await receive(reading)
            code = asyncio.create_task(closed(reading))
        assert await code == 1001
        await silent.close()


async def test_a_client_that_vanishes_leaves_nothing_behind(ann: Client) -> None:
    async with ann.socket() as socket:
        await receive(socket)
        assert _writers()
        socket._response.connection.transport.abort()

        async def gone() -> bool:
            return not _writers()

        await eventually(gone)


def _writers() -> list[asyncio.Task[Any]]:
    """The tasks of open sockets, in this process."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("socket:")]


async def test_no_token_reaches_a_log(ann: Client, gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    refused = sign(claims(exp=1))
    with structlog.testing.capture_logs() as logs:
        async with ann.socket() as socket:
            await receive(socket)
        async with ann.socket(refused) as socket:
            await closed(socket)
        await ann.get(f"/ws/chat?token={ann.token}")
        await ann.get(f"/nowhere?token={ann.token}")
        await ann.get(f"/api/leads?token={ann.token}&limit=x")
        await ann.get(f"/nowhere%0a?token={ann.token}")
        malformed = await say(gateway, f"GET /ws/chat?token={ann.token} HTTP/9.9\r\nHost: x\r\n\r\n")
        assert b" 400 " in malformed
    assert [line["reason"] for line in logs if line["event"] == "invalid HTTP request"] == ["BadStatusLine"]
    paths = [line["path"] for line in logs if line["event"] == "request"]
    assert paths == ["/ws/chat", "/ws/chat", "/ws/chat", "/nowhere", "/api/leads", "/nowhere%0A"]
    written = str(logs) + caplog.text
    for secret in (ann.token, refused, SECRET, ann.token.split(".")[2]):
        assert secret not in written
