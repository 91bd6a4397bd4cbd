"""Leases renewed from a thread, by a keeper that has a connection of its own."""

import asyncio
import time

import pytest

from eventbus.contract.outgoing import Outgoing
from eventbus.errors import Unavailable
from eventbus.redis import RedisTransport
from eventbus.redis.links import Links
from tests.conformance.reach import connected
from tests.samples import consumer, envelope, receive, reclaim
from tests.servers import OwnRedis
from tests.stopwatch import Stopwatch

LEASE = 0.3
ANN, BOB = consumer("ann", lease=LEASE), consumer("bob", lease=LEASE)


async def test_what_is_renewed_from_a_thread_is_kept_in_every_lane(redis_transport: RedisTransport) -> None:
    await redis_transport.append([Outgoing(envelope(priority, priority=priority)) for priority in (1, 5, 10)])
    deliveries = await receive(redis_transport, ANN, 3)
    keeper = redis_transport.keeper()
    end = time.monotonic() + 2 * LEASE
    while time.monotonic() < end:
        keeper.renew(deliveries)  # here, on the loop: it needs none
        time.sleep(LEASE / 5)  # noqa: ASYNC251 - nobody else renews
    assert (await redis_transport.reclaim(BOB, 10)).deliveries == []
    keeper.close()


async def test_nothing_is_taken_back_from_a_new_owner(redis_transport: RedisTransport) -> None:
    await redis_transport.append([Outgoing(envelope(1))])
    deliveries = await receive(redis_transport, ANN)
    owned = await reclaim(redis_transport, BOB)
    keeper = redis_transport.keeper()
    keeper.renew(deliveries)
    assert await redis_transport.renew(owned) == []
    keeper.close()


async def test_a_server_that_has_forgotten_the_script_is_told_it(redis_transport: RedisTransport, raw: Links) -> None:
    await redis_transport.append([Outgoing(envelope(1)), Outgoing(envelope(2, priority=1))])
    deliveries = await receive(redis_transport, ANN, 2)
    await asyncio.sleep(LEASE / 2)
    await raw.execute("SCRIPT", "FLUSH")
    keeper = redis_transport.keeper()
    keeper.renew(deliveries)
    keeper.close()
    await asyncio.sleep(LEASE * 0.7)
    assert (await redis_transport.reclaim(BOB, 10)).deliveries == []


async def test_a_server_that_is_away_is_told_as_such_and_found_again(own_redis: OwnRedis) -> None:
    server = own_redis()
    async with connected(server.url) as transport:
        await transport.append([Outgoing(envelope(1))])
        deliveries = await receive(transport, ANN)
        keeper = transport.keeper()
        keeper.renew(deliveries)
        server.kill()
        for _ in range(2):
            with pytest.raises(Unavailable):
                keeper.renew(deliveries)
        server.start()
        keeper.renew(deliveries)
        keeper.close()


async def test_a_frozen_server_keeps_nobody_for_long(own_redis: OwnRedis) -> None:
    server = own_redis()
    async with connected(server.url) as transport:
        await transport.append([Outgoing(envelope(1))])
        deliveries = await receive(transport, ANN)
        keeper = transport.keeper()
        server.pause()
        with Stopwatch() as watch, pytest.raises(Unavailable):
            keeper.renew(deliveries)
        assert watch.seconds < 3
        server.resume()
        keeper.renew(deliveries)
        keeper.close()
