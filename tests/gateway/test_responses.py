"""Responses on the web: on every socket of their user, at whichever gateway; waiting where there is none."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from eventbus import EventBus, Unavailable
from eventbus.event import uuid7
from eventbus.redis import notices
from gateway.socket import waiting_answers, websocket
from handlers.common.pushing import PUSH_CHANNEL
from handlers.delivery import web
from handlers.delivery.handlers import delivery
from handlers.message.events import Channel, MessageResponded
from tests.gateway.client import Client, Gateway, running
from tests.gateway.conftest import Tables
from tests.gateway.test_leads import NOWHERE
from tests.gateway.test_websocket import receive
from tests.proxy import Proxy
from tests.waiting import PATIENCE, eventually
from tests.working import working

METADATA = {"model": "gpt", "tokensUsed": 7, "processingTime": 21, "finishReason": "stop"}


@pytest.fixture
async def delivering(bus: EventBus) -> AsyncIterator[None]:
    async with working(bus, delivery):
        yield


async def respond(
    bus: EventBus, user: str | None = "ann", organization: str = "acme", message_id: str = "", text: str = "Sunny"
) -> str:
    """The id of the message that is answered."""
    event = MessageResponded(
        message_id=message_id or uuid7(),
        conversation_id=NOWHERE,
        user_id=user,
        channel=Channel.WEB,
        message=text,
        metadata={**METADATA, "secret": "of ours"},
    )
    await bus.publish(event, organization=organization)
    return event.message_id


async def heard(socket: Any) -> list[str]:
    """The ids of the responses that a socket gets before a pong."""
    await socket.send_str('{"type": "ping"}')
    found: list[str] = []
    while (frame := await receive(socket))["type"] != "pong":
        if frame["type"] == "message":
            found.append(frame["data"]["messageId"])
    return found


async def waiting(tables: Tables) -> list[str]:
    return [
        row["message_id"]
        for row in await tables.fetch("SELECT * FROM responses_waiting ORDER BY 1, 2, 3")
        if row["taken_at"] is None
    ]


async def all_taken(tables: Tables) -> None:
    async def none() -> bool:
        return not await waiting(tables)

    await eventually(none)


async def written(tables: Tables, count: int) -> None:
    async def there() -> bool:
        return len(await waiting(tables)) == count

    await eventually(there)


@pytest.mark.usefixtures("delivering")
async def test_a_response_is_a_frame_as_the_contract_has_it(bus: EventBus, ann: Client, tables: Tables) -> None:
    async with ann.socket() as socket:
        await receive(socket)
        message_id = await respond(bus, text="Sunny\n\0 \U0001f31e")
        frame = await receive(socket)
        timestamp = frame["data"].pop("timestamp")
        assert timestamp.endswith("Z")
        assert frame == {
            "type": "message",
            "data": {
                "messageId": message_id,
                "conversationId": NOWHERE,
                "message": "Sunny\n\0 \U0001f31e",
                "metadata": METADATA,
            },
        }
        await reading_until(socket, all_taken(tables))
    async with ann.socket() as socket:
        assert await heard(socket) == [], "it was taken"


async def reading(socket: Any, seconds: float = 0.5, *, least: int = 0) -> list[Any]:
    """So many frames at the least, and what comes within some seconds then. A client that reads answers pings."""
    found = [await receive(socket) for _ in range(least)]
    try:
        async with asyncio.timeout(seconds):
            while True:
                found.append(await socket.receive_json())
    except TimeoutError:
        return found


async def reading_until(socket: Any, reached: Coroutine[Any, Any, object]) -> None:
    reader = asyncio.create_task(reading(socket, PATIENCE))
    try:
        await reached
    finally:
        reader.cancel()
        await asyncio.wait([reader])


@pytest.mark.usefixtures("delivering")
async def test_a_response_that_found_no_socket_is_sent_on_the_next_connect(
    bus: EventBus, ann: Client, gateway: Gateway, tables: Tables
) -> None:
    ids = [await respond(bus, message_id=f"m-{number}") for number in range(3)]
    await respond(bus, "bob", message_id="bobs")
    await respond(bus, "ann", "umbrella", message_id="theirs")
    await written(tables, 5)
    async with ann.socket() as socket:
        await receive(socket)
        assert sorted([(await receive(socket))["data"]["messageId"] for _ in ids]) == ids
        await reading_until(socket, written(tables, 2))
    async with gateway.caller("bob", "acme").socket() as bob, gateway.caller("ann", "umbrella").socket() as namesake:
        for socket, expected in ((bob, "bobs"), (namesake, "theirs")):
            await receive(socket)
            assert (await receive(socket))["data"]["messageId"] == expected
            assert await reading(socket, 0.2) == []


@pytest.mark.usefixtures("delivering")
async def test_what_the_client_has_not_confirmed_waits_for_his_next_socket(
    bus: EventBus, ann: Client, gateway: Gateway, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He vanished without a word: what was written to his socket has gone nowhere."""
    monkeypatch.setattr(websocket, "HEARTBEAT", 0.4)
    async with Proxy(gateway.url) as proxy:
        lost = await gateway.session.ws_connect(f"{proxy.url}/ws/chat?token={ann.token}")
        await receive(lost)
        proxy.blackhole()
        message_id = await respond(bus)
        await written(tables, 1)
        async with ann.socket() as socket:
            await receive(socket)
            assert (await receive(socket))["data"]["messageId"] == message_id
            await reading_until(socket, all_taken(tables))

            async def gone() -> bool:
                return gateway.connections() == 1

            await reading_until(socket, eventually(gone))
            await respond(bus, message_id="later")
            assert (await receive(socket))["data"]["messageId"] == "later"
        await lost.close()


@pytest.mark.usefixtures("delivering")
async def test_all_sockets_of_a_user_get_it_at_every_gateway(bus: EventBus, tables: Tables) -> None:
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(running(bus)) for _ in range(2)]
        sockets = [await stack.enter_async_context(gateway.caller().socket()) for gateway in gateways for _ in range(2)]
        foreign = await stack.enter_async_context(gateways[0].caller("bob").socket())
        for socket in (*sockets, foreign):
            await receive(socket)
        ids = [await respond(bus) for _ in range(20)]
        for found in await asyncio.gather(*(reading(socket, least=len(ids)) for socket in sockets)):
            assert sorted(frame["data"]["messageId"] for frame in found) == sorted(ids)
        assert await heard(foreign) == []
        await all_taken(tables)


@pytest.mark.usefixtures("delivering")
async def test_none_falls_between_a_push_and_a_socket_that_opens(bus: EventBus, ann: Client, tables: Tables) -> None:
    """Sockets come and go while responses are written: each response is on one of them, and nothing is on one twice."""
    ids: list[str] = []

    async def answer() -> None:
        for number in range(150):
            ids.append(await respond(bus, message_id=f"m-{number:03}"))
            await asyncio.sleep(0.005)

    answering = asyncio.create_task(answer())
    seen: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while not answering.done() or set(seen) != set(ids):
            async with ann.socket() as socket:
                found = [f["data"]["messageId"] for f in await reading(socket, 0.06) if f["type"] == "message"]
            assert len(found) == len(set(found))
            seen += found
    assert set(seen) == set(ids)
    await all_taken(tables)


@pytest.mark.usefixtures("delivering")
async def test_a_push_that_comes_twice_is_told_once(bus: EventBus, ann: Client, redis_url: str) -> None:
    async with (
        Redis.from_url(redis_url, socket_timeout=PATIENCE) as client,
        client.pubsub(ignore_subscribe_messages=True) as pubsub,
    ):
        await pubsub.subscribe(PUSH_CHANNEL)
        async with ann.socket() as socket:
            await receive(socket)
            message_id = await respond(bus)
            assert (await receive(socket))["data"]["messageId"] == message_id

            async def pushed() -> Any:
                return await pubsub.get_message(timeout=0.1)

            push = (await eventually(pushed))["data"]
            for _ in range(3):
                await bus.shared.broadcast(PUSH_CHANNEL, push)
            assert await reading(socket, 0.3) == []


async def test_what_was_pushed_while_a_gateway_was_deaf_is_looked_for(
    redis_url: str, database_url: str, bus: EventBus, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway whose connection for pushes broke, beside one that heard it all and brought it to the same user."""
    monkeypatch.setattr(notices, "SILENCE", 0.5)
    async with (
        Proxy(redis_url) as proxy,
        EventBus(proxy.url, database=database_url) as cut_off,
        running(cut_off) as deaf,
        running(bus) as hearing,
        working(bus, delivery),
        deaf.caller().socket() as first,
        deaf.caller("bob").socket() as bob,
        hearing.caller().socket() as second,
    ):
        for socket in (first, bob, second):
            await receive(socket)
        await respond(bus, message_id="before")
        for socket in (first, second):
            assert (await receive(socket))["data"]["messageId"] == "before"
        proxy.freeze()
        await respond(bus, message_id="meanwhile")
        await respond(bus, "bob", message_id="bobs")
        assert (await receive(second))["data"]["messageId"] == "meanwhile"
        await reading_until(second, written(tables, 1))
        proxy.blackhole()
        proxy.thaw()
        found = await asyncio.gather(reading(first, least=1), reading(bob, least=1))
        told = [[frame["data"]["messageId"] for frame in frames] for frames in found]
        assert told == [["meanwhile"], ["bobs"]]
        await all_taken(tables)


async def test_many_wait_and_come_page_by_page(
    bus: EventBus, ann: Client, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_answers, "PAGE", 3)
    monkeypatch.setattr(web, "WAITING", 20)
    ids = [f"m-{number:02}" for number in range(25)]
    async with working(bus, delivery):  # drained at its end: no push is under way when the socket opens
        for number, message_id in enumerate(ids, 1):
            await respond(bus, message_id=message_id)

            async def there(number: int = number) -> bool:
                return await waiting(tables) == ids[max(0, number - 20) : number]

            await eventually(there)
    async with ann.socket() as socket:
        found = [f["data"]["messageId"] for f in await reading(socket, least=21) if f["type"] == "message"]
    assert found == ids[5:], "the oldest are in the history alone"
    await all_taken(tables)


async def test_what_is_too_old_is_not_sent_and_cleared_away(bus: EventBus, ann: Client, tables: Tables) -> None:
    async with working(bus, delivery):  # drained at its end: no push is under way when the socket opens
        await respond(bus, message_id="old")
        await written(tables, 1)
    await tables.execute("UPDATE responses_waiting SET expires_at = now() - interval '1 second'")
    async with ann.socket() as socket:
        assert [frame["type"] for frame in await reading(socket)] == ["connected"]

    async def cleared() -> bool:
        return await waiting(tables) == ["new"]

    async with working(bus, delivery):
        await respond(bus, "bob", message_id="new")
        await eventually(cleared)


@pytest.mark.usefixtures("delivering")
async def test_a_push_that_failed_is_tried_again(
    bus: EventBus, ann: Client, monkeypatch: pytest.MonkeyPatch, tables: Tables
) -> None:
    """The row alone would wait for a socket that is open already."""
    broadcast, failures = bus.shared.broadcast, iter(range(2))

    async def unsteady(channel: str, message: bytes) -> None:
        if next(failures, None) is not None:
            raise Unavailable("Redis", "no answer")
        await broadcast(channel, message)

    async with ann.socket() as socket:
        await receive(socket)
        monkeypatch.setattr(bus.shared, "broadcast", unsteady)
        message_id = await respond(bus)
        assert (await receive(socket))["data"]["messageId"] == message_id
        await reading_until(socket, all_taken(tables))
    assert next(failures, None) is None, "it has failed twice"
    assert len(await tables.fetch("SELECT * FROM responses_waiting ORDER BY 1, 2, 3")) == 1


@pytest.mark.usefixtures("delivering")
async def test_a_socket_that_opens_while_postgresql_is_away_is_served_later(
    bus: EventBus, ann: Client, monkeypatch: pytest.MonkeyPatch, tables: Tables
) -> None:
    message_id = await respond(bus)
    await written(tables, 1)
    transaction, failures = bus.transaction, iter(range(2))

    def unsteady(*arguments: Any) -> Any:
        if next(failures, None) is not None:
            raise Unavailable("PostgreSQL", "no answer")
        return transaction(*arguments)

    monkeypatch.setattr(waiting_answers, "RETRY_PAUSE", 0.1)
    monkeypatch.setattr(bus, "transaction", unsteady)
    async with ann.socket() as socket:
        await receive(socket)
        assert (await receive(socket))["data"]["messageId"] == message_id
        await reading_until(socket, all_taken(tables))


async def test_a_response_to_nobody_is_a_dead_letter(bus: EventBus, delivering: None, tables: Tables) -> None:
    await respond(bus, None)

    async def dead() -> Any:
        return await bus.transport.dead_letters("message")

    [letter] = await eventually(dead)
    assert "userId" in letter.error
    assert await tables.count("responses_waiting") == 0
