"""The server's clock is set while workers live, and while they die."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from eventbus.contract.delivery import Delivery
from eventbus.redis import RedisTransport
from tests.conformance.reach import connected, steady
from tests.samples import consumer, numbers, outgoing, receive, reclaim
from tests.servers import OwnRedis, redis_binaries
from tests.waiting import eventually
from tests.wrong_time import WrongTime

LEASE = 0.6
ANN, BOB, CID = (consumer(name, lease=LEASE) for name in ("ann", "bob", "cid"))

Setting = tuple[str, Callable[[int], None]]


@pytest.fixture(params=sorted(redis_binaries().values()), ids=lambda binary: binary.name)
def server(request: pytest.FixtureRequest, own_redis: OwnRedis, tmp_path: Path) -> Setting:
    """Its URL, and how to set its clock."""
    wrong = WrongTime(tmp_path, request.param)
    return own_redis(binary=wrong.binary).url, wrong.set


async def renewing(transport: RedisTransport, deliveries: list[Delivery]) -> None:
    while True:
        assert await transport.renew(deliveries) == [], "all are still ann's"
        await asyncio.sleep(LEASE / 4)


async def test_the_living_keep_their_leases_when_the_clock_is_set_ahead_or_back(server: Setting) -> None:
    url, set_clock = server
    async with connected(url) as ann, steady(url, BOB) as bob:
        await ann.append(outgoing(1, 2, 3))
        deliveries = await receive(ann, ANN, 3)
        lives = asyncio.create_task(renewing(ann, deliveries))
        for now in (60, 120, -600, 3000):
            await asyncio.sleep(LEASE / 5)
            with capture_logs() as logs:
                set_clock(now)
                while not [line for line in logs if "clock was set" in line["event"]]:
                    assert (await bob.reclaim(BOB, 10)).deliveries == []
                while bob._pulses.of("").age_needed(LEASE) is None:
                    assert (await bob.reclaim(BOB, 10)).deliveries == []
        assert (await bob.reclaim(BOB, 10)).deliveries == []
        assert not lives.done()
        lives.cancel()
        assert sorted(numbers(await reclaim(bob, BOB, 3))) == [1, 2, 3], "and when ann is dead, they are taken over"


async def test_what_the_dead_held_does_not_wait_for_a_clock_that_was_set_back(server: Setting) -> None:
    url, set_clock = server
    async with connected(url) as ann, steady(url, BOB) as bob:
        await ann.append(outgoing(1))
        await receive(ann, ANN)
        set_clock(-600)
        assert numbers(await reclaim(bob, BOB)) == [1]


async def idle(transport: RedisTransport) -> int:
    """ms for which the server takes the entry that ann holds to have been left alone."""
    [[_, _, ms, _]] = await transport._router.execute("XPENDING", "eb:{order}:stream", "billing", "-", "+", 1)
    return int(ms)


async def test_who_begins_when_the_clock_was_set_back_finds_what_the_dead_held(server: Setting) -> None:
    """A server keeps the time for a moment: what it does just then may still be of the time before."""
    url, set_clock = server

    async def a_while() -> bool:
        return await idle(cid) > 20

    async def of_times_to_come() -> bool:
        return await idle(cid) == 0

    async with connected(url) as ann:
        await ann.append(outgoing(1))
        await receive(ann, ANN)
    async with connected(url) as cid:
        await eventually(a_while)
        set_clock(-600)
        await eventually(of_times_to_come)
        assert numbers(await reclaim(cid, CID)) == [1]
