"""The hot path of a publish on real servers: begun as one command, it ends as `append` would."""

import asyncio
from typing import Any

import pytest

from eventbus import Event, EventBus, Status
from eventbus.contract.dedupe import Once
from eventbus.contract.outgoing import NotBegun, Outgoing
from eventbus.redis import RedisTransport
from eventbus.redis.links import Links
from tests.conformance.reach import connected
from tests.proxy import Proxy
from tests.samples import consumer, envelope, numbers, outgoing, receive

STORED, DUPLICATE = Status.STORED, Status.DUPLICATE
STREAM = "eb:{order}:stream"


def keyed(number: int, key: str = "k", **attributes: Any) -> Outgoing:
    return Outgoing(envelope(number, **attributes), once=Once(key))


async def begin(transport: RedisTransport, item: Outgoing) -> Status:
    call = transport.begin(item)
    assert call is not None, "there is a connection that knows the script"
    return transport.begun(await call)


@pytest.fixture
async def transport(redis_transport: RedisTransport) -> RedisTransport:
    """Its connection has carried the script's text."""
    await redis_transport.connect()
    assert await redis_transport.append([keyed(0, "first")]) == [STORED]
    return redis_transport


async def test_what_begins_ends_as_append_does(transport: RedisTransport) -> None:
    first = keyed(1)
    assert await begin(transport, first) == STORED
    assert await begin(transport, first) == STORED, "it is no duplicate of itself"
    assert await begin(transport, keyed(2)) == DUPLICATE
    assert await begin(transport, keyed(3, organization="other")) == STORED
    assert await transport.append([keyed(4)]) == [DUPLICATE]
    call = transport.begin(*outgoing(5))
    assert call is not None
    await call
    assert numbers(await receive(transport, consumer(), 4)) == [0, 1, 3, 5]


async def test_of_many_begun_at_once_one_is_stored(transport: RedisTransport) -> None:
    ended = await asyncio.gather(*(begin(transport, keyed(n)) for n in range(20)))
    assert ended == [STORED] + [DUPLICATE] * 19


async def test_what_is_later_or_needs_the_text_of_the_script_first_does_not_begin(any_redis_url: str) -> None:
    async with connected(any_redis_url) as transport:
        assert transport.begin(keyed(1)) is None, "no connection"
        await transport.connect()
        assert transport.begin(keyed(1)) is None, "the text has not gone over it"
        assert await transport.append([keyed(1)]) == [STORED]
        assert transport.begin(keyed(2)._replace(delay=1.0)) is None
        assert await begin(transport, keyed(2)) == DUPLICATE


async def test_a_forgotten_script_has_done_nothing(transport: RedisTransport, raw: Links) -> None:
    await raw.execute("SCRIPT", "FLUSH")
    call = transport.begin(keyed(1))
    assert call is not None
    with pytest.raises(NotBegun):
        await call
    assert await raw.execute("XLEN", STREAM) == 1, "of the fixture"
    assert await transport.append([keyed(1)]) == [STORED]
    assert await begin(transport, keyed(2)) == DUPLICATE


class Begun(Event, type="order.begun"):
    number: int = 0


async def test_a_bus_does_not_notice_that_scripts_are_forgotten(any_redis_url: str, raw: Links) -> None:
    async with EventBus(any_redis_url) as bus:
        for number in range(3):
            await raw.execute("SCRIPT", "FLUSH")
            receipts = [await bus.publish(Begun(), dedupe_key=f"k{number}") for _ in range(3)]
            assert [receipt.status for receipt in receipts] == [STORED, DUPLICATE, DUPLICATE]
            assert {receipt.id for receipt in receipts} == {receipts[0].id}
        await raw.execute("SCRIPT", "FLUSH")
        many = await asyncio.gather(*(bus.publish(Begun(), dedupe_key=f"m{n // 2}") for n in range(40)))
        assert sorted(receipt.status for receipt in many) == [DUPLICATE] * 20 + [STORED] * 20
    assert await raw.execute("XLEN", STREAM) == 3 + 20


@pytest.mark.one_server
async def test_a_lost_reply_is_asked_for_again_and_stored_once(any_redis_url: str, raw: Links) -> None:
    async with Proxy(any_redis_url) as proxy, EventBus(proxy.url) as bus:
        await bus.publish(Begun(), dedupe_key="first")
        lost = proxy.lose_next_reply()
        receipt = await bus.publish(Begun(), dedupe_key="k")
        assert lost.is_set()
        assert receipt.status == STORED
        other = await bus.publish(Begun(), dedupe_key="k")
        assert other == (receipt.id, DUPLICATE)
    assert await raw.execute("XLEN", STREAM) == 2
