"""What may be lost on the way from Redis: it is found again, and handed out once."""

import asyncio
from contextlib import suppress

import pytest

from eventbus.contract.delivery import Ack, Delivery, Release, Retry, Subscription
from eventbus.errors import Unavailable
from eventbus.event import Status
from eventbus.redis import RedisTransport, scripts
from eventbus.redis import transport as module
from eventbus.redis.keys import stream_keys
from eventbus.redis.links import Links
from tests.conformance.reach import answered, blocked, connected
from tests.proxy import Proxy
from tests.samples import FAILED, STREAM, consumer, nothing_left, numbers, outgoing, receive, reclaim, settle
from tests.waiting import eventually

KEYS = stream_keys("eb", STREAM)
ANN, BOB = consumer("ann"), consumer("bob")


@pytest.fixture
def transport(redis_transport: RedisTransport) -> RedisTransport:
    return redis_transport


@pytest.mark.one_server
async def test_a_publish_whose_reply_was_lost_is_stored_once(any_redis_url: str) -> None:
    """redis-py#3554: a publish that the client retries is stored twice."""
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.append(outgoing(0, delay=60.0))  # the server knows the script from now on
        for items in (outgoing(1), outgoing(2, 3), outgoing(4, delay=60.0)):
            await transport.connect()
            lost = proxy.lose_next_reply()
            with pytest.raises(Unavailable):
                await transport.append(items)
            assert lost.is_set()
            assert await transport.append(items, again=True) == [Status.DUPLICATE] * len(items)
        assert numbers(await receive(transport, ANN, 3)) == [1, 2, 3]


async def test_a_killed_connection_under_a_read_loses_nothing(transport: RedisTransport, raw: Links) -> None:
    await transport.read(ANN, 1, 0.01)
    seen: list[int] = []

    async def consume() -> bool:
        try:
            deliveries = await transport.read(ANN, 3, 0.2)
        except Unavailable:
            return False
        seen.extend(numbers(deliveries))
        await eventually(lambda: answered(lambda: settle(transport, deliveries, Ack())))
        return len(seen) >= 200

    consuming = asyncio.create_task(eventually(consume))
    for start in range(0, 200, 10):
        await append_somehow(transport, start)
        await raw.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await consuming
    assert sorted(seen) == list(range(200))
    await eventually(lambda: nothing_left(transport, BOB))


@pytest.mark.one_server
async def test_deliveries_whose_reply_was_lost_are_handed_out_again_once(any_redis_url: str) -> None:
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport, connected(any_redis_url) as publisher:
        await publisher.append(outgoing(1))
        in_hand = await receive(transport, ANN)
        lost = proxy.lose_next_reply()
        reading = asyncio.create_task(transport.read(ANN, 10, 2.0))
        await publisher.append(outgoing(2, 3))
        with pytest.raises(Unavailable):
            await reading
        assert lost.is_set()
        again = await receive(transport, ANN, 2)
        assert sorted(numbers(again)) == [2, 3], "and not 1, which is in hand"
        await settle(transport, [*in_hand, *again], Ack())
        assert await nothing_left(transport, ANN)


@pytest.mark.one_server
async def test_more_than_the_credit_was_lost_and_comes_in_portions(any_redis_url: str) -> None:
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.append(outgoing(*range(7)))
        await transport.read(ANN, 1, 0.01)
        proxy.lose_next_reply()
        with pytest.raises(Unavailable):
            await transport.read(ANN, 7, 1.0)
        found: list[Delivery] = []
        while len(found) < 7:
            portion = await transport.read(ANN, 3, 0.05)
            assert len(portion) <= 3
            found += portion
        assert sorted(numbers(found)) == list(range(7))


@pytest.mark.one_server
async def test_an_outcome_whose_reply_was_lost_does_not_meet_the_next_delivery(any_redis_url: str) -> None:
    """It is repeated, and by then the event may be due again: until the repeat is confirmed, it stays in hand."""
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.append(outgoing(1))
        await settle(transport, await receive(transport, ANN), Release())  # the server knows the script from now on
        deliveries = await reclaim(transport, ANN)
        proxy.lose_next_reply()
        with pytest.raises(Unavailable):
            await settle(transport, deliveries, Retry(0.0, FAILED))
        assert await transport.renew(deliveries) == deliveries
        assert (await transport.reclaim(ANN, 10)).deliveries == []
        await settle(transport, deliveries, Retry(0.0, FAILED))
        again = await reclaim(transport, ANN)
        assert again[0].failures == 1
        await settle(transport, again, Ack())
        assert await nothing_left(transport, ANN)


@pytest.mark.one_server
async def test_a_lost_reclaim_comes_back_with_its_failures(any_redis_url: str) -> None:
    """To the same consumer, for there may be no other, and without a crash to its name: nobody died."""
    ann = consumer("ann", lease=0.3)
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.append(outgoing(1))
        await settle(transport, await receive(transport, ann), Retry(0.0, FAILED))
        proxy.lose_next_reply()
        with pytest.raises(Unavailable):
            await transport.reclaim(ann, 10)
        [delivery] = await reclaim(transport, ann)
        assert (delivery.failures, delivery.crashes) == (1, 0)


@pytest.mark.one_server
async def test_a_lost_reclaim_is_found_by_the_next_read_if_both_connections_broke(
    any_redis_url: str, raw: Links
) -> None:
    ann = consumer("ann", lease=0.1)
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.read(ann, 1, 0.01)
        await transport.reclaim(ann, 1)  # the server knows the script from now on
        await transport.append(outgoing(1))
        await receive(transport, consumer("died", lease=0.1))

        async def taken() -> bool:
            lost = proxy.lose_reply_to(scripts.RECLAIM.digest.encode())
            with suppress(Unavailable):
                await transport.reclaim(ann, 10)
            [[_, owner, *_]] = await raw.execute("XPENDING", KEYS.stream, ann.group, "-", "+", 1)
            return lost.is_set() and owner == b"ann"

        await eventually(taken)
        proxy.cut()
        [delivery] = await receive_patiently(transport, ann)
        assert (delivery.failures, delivery.crashes) == (0, 1)


async def test_an_abandoned_read_costs_a_lease_and_no_event(transport: RedisTransport, raw: Links) -> None:
    ann = consumer("ann", lease=0.3)
    await transport.read(ann, 1, 0.01)
    reading = asyncio.create_task(transport.read(ann, 10, 5.0))
    await eventually(lambda: blocked(raw))
    reading.cancel()
    await transport.append(outgoing(1))
    [delivery] = await reclaim(transport, ann)
    assert (numbers([delivery]), delivery.crashes) == ([1], 0)


async def append_somehow(transport: RedisTransport, start: int) -> None:
    items = outgoing(*range(start, start + 10))
    if not await answered(lambda: transport.append(items)):
        await eventually(lambda: answered(lambda: transport.append(items, again=True)))


async def receive_patiently(transport: RedisTransport, subscription: Subscription) -> list[Delivery]:
    async def one() -> list[Delivery]:
        try:
            return await transport.read(subscription, 1, 0.1)
        except Unavailable:
            return []

    return await eventually(one)


@pytest.mark.one_server
async def test_a_read_may_wait_longer_than_a_command_may_take(
    any_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docket#425: the client's socket timeout cut every blocked read that waited longer."""
    monkeypatch.setattr(module, "COMMAND_TIMEOUT", 0.3)
    async with Proxy(any_redis_url) as proxy:
        transport = RedisTransport(proxy.url, timeout=0.3)
        await transport.read(ANN, 10, 1.5)
        connections = proxy.connections
        assert await transport.read(ANN, 10, 1.5) == []
        assert proxy.connections == connections, "nothing was cut"
        await transport.close()


async def test_how_long_a_read_is_waited_for_is_up_to_the_read(transport: RedisTransport) -> None:
    """A consumer that starts paused reclaims first, and does not say what its reads will wait."""
    await transport.reclaim(ANN, 1)
    assert await transport.read(ANN, 1, 0.02) == []
    assert transport._readers[ANN].link.timeout == module.COMMAND_TIMEOUT + 0.02
    assert await transport.read(ANN, 1, 0.01) == []
    assert transport._readers[ANN].link.timeout == module.COMMAND_TIMEOUT + 0.01
