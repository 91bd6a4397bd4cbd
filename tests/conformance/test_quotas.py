"""Quotas that all processes share, as the transports keep them."""

import asyncio
import time

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.limiting import Spent
from eventbus.contract.limits import RateLimit
from eventbus.redis.keys import quota_key
from eventbus.redis.links import Links
from tests.waiting import in_a_span


async def test_so_many_and_no_more(transport: Broker) -> None:
    limit = RateLimit(5, per=60)
    taken = [await transport.spend("ann", limit, wanted) for wanted in (1, 3, 3, 1)]
    assert [(spent.granted, spent.left) for spent in taken] == [(1, 4), (3, 1), (1, 0), (0, 0)]
    assert all(59 < spent.opens <= 60.6 for spent in taken)


async def test_another_quota_is_another(transport: Broker) -> None:
    limit = RateLimit(2, per=60)
    for quota in ("ann", "bob", "ann}", "eb:{lead}:stream", "ann\0bob", ""):
        assert (await transport.spend(quota, limit, 5))[:2] == (2, 0)


async def test_nothing_wanted_is_a_look(transport: Broker) -> None:
    limit = RateLimit(3, per=60)
    assert await transport.spend("ann", limit, 0) == Spent(0, 3, 0.0)
    await transport.spend("ann", limit, 1)
    assert (await transport.spend("ann", limit, 0))[:2] == (0, 2)


async def test_it_comes_back_when_it_was_said_to(transport: Broker) -> None:
    async def back_after(seconds: float) -> None:
        limit, quota = RateLimit(2, per=3 * seconds), f"ann {seconds}"
        await transport.spend(quota, limit, 1)
        await asyncio.sleep(seconds)
        await transport.spend(quota, limit, 1)
        refused = await transport.spend(quota, limit, 1)
        assert refused.granted == 0
        await asyncio.sleep(refused.opens + 0.005)
        spent = await transport.spend(quota, limit, 2)
        assert (spent.granted, spent.left) == (1, 0), "of two, the first is back"

    await in_a_span(back_after)


async def test_it_holds_in_every_span(transport: Broker) -> None:
    """And spends of the same moment add up."""
    spans: list[tuple[list[tuple[float, float]], RateLimit]] = []

    async def spend_for(seconds: float) -> None:
        limit, taken = RateLimit(20, per=2 * seconds), list[tuple[float, float]]()
        spans.append((taken, limit))
        until = time.monotonic() + 10 * seconds
        while (asked := time.monotonic()) < until:
            spent = await transport.spend(f"ann {seconds}", limit, 3)
            taken += [(asked, time.monotonic())] * spent.granted
            await asyncio.sleep(0.002)
        assert 80 <= len(taken) <= 120

    await in_a_span(spend_for)
    for taken, limit in spans:  # of those that were too slow, too
        for (asked, _), (_, answered) in zip(taken, taken[limit.count :], strict=False):
            assert answered - asked > limit.per - 0.001, "what is granted is counted between question and answer"


async def test_of_many_at_once_none_is_given_twice(transport: Broker) -> None:
    limit = RateLimit(100, per=60)
    spent = await asyncio.gather(*(transport.spend("ann", limit, 3) for _ in range(50)))
    assert sum(one.granted for one in spent) == 100


@pytest.mark.parametrize("quota", ["ann", "ann\n}{ \ud7ff"])
async def test_what_is_known_of_it_expires_and_names_nobody(
    quota: str, any_redis_url: str, redis_transport: Broker, raw: Links
) -> None:
    await redis_transport.spend(quota, RateLimit(2, per=60), 1)
    [key] = await raw.execute("KEYS", "*:quota")
    assert b"ann" not in key
    assert key.decode().endswith(quota_key("", quota).removeprefix(":"))
    assert 59_000 < await raw.execute("PTTL", key) <= 61_000
    assert await raw.execute("LLEN", key) == 1


async def test_a_busy_quota_stays_small(any_redis_url: str, redis_transport: Broker, raw: Links) -> None:
    for _ in range(300):
        await redis_transport.spend("ann", RateLimit(10**9, per=2), 1)
    [key] = await raw.execute("KEYS", "*:quota")
    assert await raw.execute("LLEN", key) <= 101
