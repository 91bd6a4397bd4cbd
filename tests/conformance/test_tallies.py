"""What workers have counted: added up by organization and minute, each addition once, the last failures kept."""

import asyncio
import time

import orjson
import pytest

from eventbus.contract.activity_stats import (
    FAILURES,
    FIVE_MINUTES,
    HOUR,
    KEPT,
    MINUTES,
    DeadEvent,
    Share,
    Sums,
    activity,
)
from eventbus.contract.broker import Broker
from eventbus.memory import MemoryTransport
from eventbus.redis import RedisTransport
from eventbus.redis.keys import tally_keys
from eventbus.redis.links import Links

DONE = Sums(done=3, ran=3, micros=6_000)
MIXED = Sums(done=1, dead=2, retried=4, ran=7, micros=2**40)


def failure(number: int) -> bytes:
    told = {"eventId": str(number), "type": "a.b", "group": "g", "error": "ValueError: ä", "attempts": number}
    return orjson.dumps(told)


async def sums(transport: Broker, organization: str | None = "acme", minutes: int = 5) -> Sums:
    return (await transport.tallies.read(organization, minutes)).sums


async def test_all_writers_are_added_up_and_organizations_are_not(transport: Broker) -> None:
    await transport.tallies.add("one", 1, [Share("acme", DONE), Share("umbrella", MIXED), Share(None, MIXED)])
    await asyncio.gather(*(transport.tallies.add(writer, 1, [Share("acme", MIXED)]) for writer in ("two", "three")))
    await transport.tallies.add("one", 2, [Share("acme", DONE)])
    assert await sums(transport) == DONE.plus(DONE).plus(MIXED).plus(MIXED)
    assert await sums(transport, "umbrella") == await sums(transport, None) == MIXED
    assert await sums(transport, "nobody") == Sums()
    assert await sums(transport, "acme", 60) == await sums(transport)


async def test_an_addition_whose_reply_was_lost_counts_once(transport: Broker) -> None:
    share = Share("acme", MIXED, [failure(1)])
    for _ in range(3):
        await transport.tallies.add("one", 7, [share])
    found = await transport.tallies.read("acme", 5)
    assert (found.sums, len(found.failures)) == (MIXED, 1)


async def test_the_last_failures_are_kept_and_their_times_are_the_server_s(transport: Broker) -> None:
    await transport.tallies.add("one", 1, [Share("acme", Sums(dead=2), [failure(1), failure(2)])])
    await transport.tallies.add("two", 1, [Share("acme", Sums(dead=30), [failure(n) for n in range(3, 33)])])
    await transport.tallies.add("one", 2, [Share("umbrella", Sums(dead=1), [failure(99)])])
    now, _, failures = await transport.tallies.read("acme", 5)
    assert [one.event_id for one in failures] == [str(number) for number in range(32, 32 - FAILURES, -1)]
    assert failures[0] == DeadEvent("32", "a.b", "g", "ValueError: ä", 32, failures[0].at)
    assert abs((now - failures[0].at).total_seconds()) < 5
    assert abs(now.timestamp() - time.time()) < 5


async def test_a_name_may_be_anything(transport: Broker) -> None:
    names = ["\ud800", "{a}:b", "a b\r\n", "ü" * 5_000, "acme:activity", "acme"]
    await transport.tallies.add("one", 1, [Share(name, Sums(done=i)) for i, name in enumerate(names)])
    assert [(await sums(transport, name)).done for name in names] == list(range(len(names)))


@pytest.mark.parametrize(
    ("minutes_ago", "in_five", "in_hour"), [(0, 3, 3), (5, 3, 3), (6, 0, 3), (60, 0, 3), (61, 0, 0)]
)
async def test_a_window_is_its_minutes_and_the_running_one(minutes_ago: int, in_five: int, in_hour: int) -> None:
    now = 0.0
    transport = MemoryTransport(lambda: now)
    await transport.tallies.add("one", 1, [Share("acme", DONE)])
    now = minutes_ago * 60.0
    assert [(await sums(transport, "acme", minutes)).done for minutes in (5, 60)] == [in_five, in_hour]


@pytest.mark.parametrize(
    ("minutes_ago", "in_five", "in_hour"), [(0, 3, 3), (5, 3, 3), (6, 0, 3), (60, 0, 3), (61, 0, 0)]
)
async def test_so_it_is_in_redis(
    redis_transport: RedisTransport, raw: Links, minutes_ago: int, in_five: int, in_hour: int
) -> None:
    await _begin_of_a_minute(raw)
    key = tally_keys("eb", "acme").minutes
    await _note(raw, minutes_ago)
    assert [(await sums(redis_transport, "acme", minutes)).done for minutes in (5, 60)] == [in_five, in_hour]
    await redis_transport.tallies.add("one", 1, [Share("acme", DONE)])
    expected = 6 if minutes_ago <= 60 else 3
    assert (await sums(redis_transport, "acme", 60)).done == expected
    assert await raw.execute("HLEN", key) == (1 if minutes_ago in {0, MINUTES} else 2), "a ring"


async def test_in_redis_it_is_small_and_not_for_ever(redis_transport: RedisTransport, raw: Links) -> None:
    for minute in range(MINUTES):
        await _note(raw, minute, b"999999999 99999999 99999999 999999999 999999999999")
    await redis_transport.tallies.add("one", 1, [Share("acme", MIXED, [failure(n) for n in range(30)])])
    keys = tally_keys("eb", "acme")
    assert await raw.execute("LLEN", keys.failures) == FAILURES
    assert await raw.execute("OBJECT", "ENCODING", keys.minutes) == b"listpack"
    for key in (*keys, keys.prefix + "one"):
        assert 0 < await raw.execute("PTTL", key) <= KEPT * 1000


async def test_rates_are_none_of_nothing_and_those_of_what_was_counted_else(transport: Broker) -> None:
    nothing = await activity(transport.tallies, "acme", FIVE_MINUTES)
    assert (nothing.processed, nothing.success_rate, nothing.average_seconds, nothing.per_minute) == (0, None, None, 0)
    await transport.tallies.add("one", 1, [Share("acme", Sums(done=9, dead=3, retried=4, ran=16, micros=8_000_000))])
    for window, minutes in ((FIVE_MINUTES, 5), (HOUR, 60)):
        told = await activity(transport.tallies, "acme", window)
        assert (told.processed, told.success_rate, told.average_seconds, told.retries) == (12, 0.75, 0.5, 4)
        assert (told.window, told.since.second, told.since.microsecond) == (window, 0, 0)
        assert 12 / (minutes + 1) <= told.per_minute <= 12 / minutes
    with pytest.raises(ValueError, match="0:10:00"):
        await activity(transport.tallies, "acme", 2 * FIVE_MINUTES)


async def _begin_of_a_minute(raw: Links) -> None:
    """So that no minute ends while the test counts them."""
    seconds = int((await raw.execute("TIME"))[0]) % 60
    if seconds >= 57:
        await asyncio.sleep(60.1 - seconds)


async def _note(raw: Links, minutes_ago: int, counts: bytes = b"3 0 0 3 6000") -> None:
    """As if it had been counted then."""
    minute = int((await raw.execute("TIME"))[0]) // 60 - minutes_ago
    await raw.execute("HSET", tally_keys("eb", "acme").minutes, minute % MINUTES, b"%d " % minute + counts)


async def test_what_is_no_count_counts_nothing(redis_transport: RedisTransport, raw: Links) -> None:
    keys = tally_keys("eb", "acme")
    minute = int(time.time() // 60)
    for garbage in ("x", "", str(minute), f"{minute} 1 2", f"{minute} 1 2 3 4 x"):
        await raw.execute("DEL", *keys, keys.prefix + "one")
        for place in range(MINUTES):
            await raw.execute("HSET", keys.minutes, place, garbage)
        await raw.execute("LPUSH", keys.failures, garbage, "1 {}", "x {", "1 1")
        await redis_transport.tallies.add("one", 1, [Share("acme", DONE, [failure(1)])])
        found = await redis_transport.tallies.read("acme", 5)
        assert (found.sums, len(found.failures)) == (DONE, 1), garbage
