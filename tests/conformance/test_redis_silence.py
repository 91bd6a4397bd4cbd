"""Leases of the living outlast a server that stands still: whatever lay in its sockets, whoever comes
first afterwards."""

import asyncio
from pathlib import Path

import pytest

from eventbus.contract.delivery import Delivery, Retry
from eventbus.embedded import EmbeddedRedis
from eventbus.redis import RedisTransport
from tests.conformance.reach import connected, steady
from tests.samples import FAILED, consumer, numbers, outgoing, receive, reclaim, settle
from tests.servers import OwnRedis, redis_binaries

LEASE = 0.6
ANN, BOB, CID = (consumer(name, lease=LEASE) for name in ("ann", "bob", "cid"))


@pytest.fixture(params=sorted(redis_binaries().values()), ids=lambda binary: binary.name)
def server(request: pytest.FixtureRequest, own_redis: OwnRedis) -> EmbeddedRedis:
    binary: Path = request.param
    return own_redis(binary=binary)


async def renewed(transport: RedisTransport, *deliveries: Delivery) -> None:
    assert await transport.renew(deliveries) == [], "all are still ann's"


async def test_a_reclaim_that_lay_in_the_socket_of_a_frozen_server_takes_nothing_of_the_living(
    server: EmbeddedRedis,
) -> None:
    async with connected(server.url) as ann, steady(server.url, BOB) as bob:
        await ann.append(outgoing(1, 2, 3))
        deliveries = await receive(ann, ANN, 3)
        await settle(ann, deliveries[:1], Retry(0.0, FAILED))
        await renewed(ann, *deliveries[1:])
        server.pause()
        sent = asyncio.create_task(bob.reclaim(BOB, 10))
        await asyncio.sleep(LEASE * 1.3)
        server.resume()
        found = await sent
        assert numbers(found.deliveries) == [1], "what rests until it is due is nobody's"
        assert (await bob.reclaim(BOB, 10)).deliveries == [], "nor does the next one, which is on time"
        await renewed(ann, *deliveries[1:])
        assert sorted(numbers(await reclaim(bob, BOB, 2))) == [2, 3], "then ann is dead"


async def test_who_comes_when_the_silence_is_over_lets_those_renew_who_were_there(server: EmbeddedRedis) -> None:
    async with connected(server.url) as ann:
        await ann.append(outgoing(1))
        deliveries = await receive(ann, ANN)
        server.pause()
        await asyncio.sleep(LEASE * 1.3)
        server.resume()
        async with connected(server.url) as cid:
            assert (await cid.reclaim(CID, 10)).deliveries == []
            await renewed(ann, *deliveries)
            assert numbers(await reclaim(cid, CID)) == [1]


async def test_what_nobody_waits_for_any_more_takes_nothing_at_all(server: EmbeddedRedis) -> None:
    """A retry that it took would come back a lease later, when it is seen that nobody has it."""
    async with connected(server.url) as ann, steady(server.url, BOB) as bob:
        bob._reclaiming._timeout = LEASE
        await ann.append(outgoing(1))
        await settle(ann, await receive(ann, ANN), Retry(0.0, FAILED))
        server.pause()
        sent = asyncio.create_task(bob.reclaim(BOB, 10))
        await asyncio.sleep(LEASE * 1.3)
        server.resume()
        assert (await sent).deliveries == []
        assert numbers(await reclaim(bob, BOB)) == [1]


async def test_ages_that_a_clock_made_up_are_no_reason_to_take_over(server: EmbeddedRedis) -> None:
    """The server's clock was set ahead by a minute: all that is pending looks a minute old."""
    async with connected(server.url) as ann, steady(server.url, BOB) as bob:
        await ann.append(outgoing(1))
        deliveries = await receive(ann, ANN)
        await ann._router.execute(
            *(
                "XCLAIM",
                "eb:{order}:stream",
                ANN.group,
                ANN.consumer,
                0,
                deliveries[0].entry_id,
                "IDLE",
                60_000,
                "JUSTID",
            )
        )
        server_ms = bob._pulses.of("").server_ms()
        assert server_ms is not None
        now = bob._pulses.of("")._clock()
        bob._pulses.of("").note(server_ms / 1000 + 60, now, now)
        assert (await bob.reclaim(BOB, 10)).deliveries == []
        await renewed(ann, *deliveries)
