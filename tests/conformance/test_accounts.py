"""What is taken in is counted against what was settled: one event that vanishes is missed, and nothing else is."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from eventbus.contract.dedupe import Once
from eventbus.contract.delivery import Ack, Dead, Delivery, Release, Retry
from eventbus.contract.inspection import SCHEDULE, Account
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.retention import Retention
from eventbus.contract.upkeep import Tidied
from eventbus.event import uuid7
from eventbus.redis import RedisTransport
from eventbus.redis.accounting import accounts
from eventbus.redis.links import Links
from tests.conformance.reach import connected
from tests.proxy import Proxy
from tests.samples import FAILED, consumer, envelope, outgoing, receive, reclaim, settle
from tests.waiting import eventually

ANN, BOB = consumer("ann"), consumer("bob", group="shipping")
LANE, COUNTS = "eb:{order}:stream", "eb:{order}:counts"
DUE, BODIES = "eb:{order}:due", "eb:{order}:scheduled"
KEEP_NOTHING = Retention(settled=0.0, settled_count=0)


async def account(raw: Links, group: str = "billing") -> Account:
    return next(each for each in await accounts(raw, "eb", "order") if each.group == group)


async def missing(raw: Links, group: str = "billing") -> int | None:
    return (await account(raw, group)).missing


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventbus.redis.tidying.KEEP_AT_LEAST", 0)


@pytest.fixture
async def held(redis_transport: RedisTransport) -> list[Delivery]:
    """Of 20 events in three priorities billing has settled 10 and buried one, and holds 9; ten more wait. Shipping has
    read nothing."""
    await redis_transport.read(ANN, 1, 0.01)
    await redis_transport.read(BOB, 1, 0.01)
    await redis_transport.append([Outgoing(envelope(n)._replace(priority=(1, 10, 5)[n % 3])) for n in range(20)])
    deliveries = sorted(await receive(redis_transport, ANN, 20), key=lambda delivery: "@" not in delivery.entry_id)
    await redis_transport.append(outgoing(*range(20, 30)))
    await settle(redis_transport, deliveries[:10], Ack())
    await settle(redis_transport, deliveries[10:11], Dead(FAILED, 1))
    return deliveries[11:]


async def test_whatever_becomes_of_events_nothing_is_missed(
    redis_transport: RedisTransport, raw: Links, held: list[Delivery]
) -> None:
    async def nothing_is_missed() -> None:
        for each in await accounts(raw, "eb", "order"):
            assert (each.missing, each.letters_missing) == (0, 0), each

    await nothing_is_missed()
    await settle(redis_transport, held[:2], Retry(0.0, FAILED))
    await settle(redis_transport, held[2:3], Release())
    await settle(redis_transport, held[3:5], Dead(FAILED, 1))
    await nothing_is_missed()
    again = await reclaim(redis_transport, ANN, 3)
    await settle(redis_transport, [*again, *held[5:]], Ack())
    await settle(redis_transport, [*again, *held[5:]], Ack())
    assert (await account(raw)).acknowledged == 17
    first, second, third = await redis_transport.dead_letters("order")
    assert await redis_transport.replay(first)
    assert await redis_transport.discard(second)
    await nothing_is_missed()
    await settle(redis_transport, await receive(redis_transport, ANN, 11), Ack())
    await settle(redis_transport, await receive(redis_transport, BOB, 31), Ack())
    await nothing_is_missed()
    await asyncio.sleep(0.002)
    tidied = await redis_transport.tidy("order", Retention(settled=0.0, settled_count=0, dead=0.0))
    assert (tidied.entries, tidied.dead_letters, tidied.vanished) == (31, 1, ())
    await nothing_is_missed()
    await redis_transport.read(consumer(group="later"), 10, 0.01)
    await redis_transport.append(outgoing(1, 2))
    await settle(redis_transport, await receive(redis_transport, consumer(group="later"), 2), Ack())
    assert (await account(raw, "later")).acknowledged == 2
    await nothing_is_missed()
    assert await redis_transport.forget_group("order", "later")
    await redis_transport.read(consumer(group="later"), 10, 0.01)
    await nothing_is_missed()
    assert third is not None


Plant = Callable[[Links, list[Delivery]], Awaitable[object]]


async def delete_waiting(raw: Links, _held: list[Delivery]) -> None:
    waiting = await raw.execute("XREVRANGE", LANE, "+", "-", "COUNT", 2)
    await raw.execute("XDEL", LANE, waiting[1][0])


async def delete_last(raw: Links, _held: list[Delivery]) -> None:
    [[entry, _]] = await raw.execute("XREVRANGE", LANE, "+", "-", "COUNT", 1)
    await raw.execute("XDEL", LANE, entry)


async def acknowledge(raw: Links, held: list[Delivery]) -> None:
    entry = next(delivery.entry_id for delivery in held if "@" not in delivery.entry_id)
    assert await raw.execute("XACK", LANE, "billing", entry) == 1


async def skip(raw: Links, _held: list[Delivery]) -> None:
    await raw.execute("XREADGROUP", "GROUP", "billing", "foreign", "COUNT", 1, "STREAMS", LANE, ">")
    assert await raw.execute("XGROUP", "DELCONSUMER", LANE, "billing", "foreign") == 1


@pytest.mark.parametrize("plant", [delete_waiting, delete_last, acknowledge, skip])
async def test_one_event_that_vanishes_is_missed(
    redis_transport: RedisTransport, raw: Links, held: list[Delivery], plant: Plant
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    assert (await redis_transport.tidy("order", KEEP_NOTHING)).vanished == ()
    await plant(raw, held)
    assert await missing(raw) == 1
    # Others settle and read on meanwhile, and housekeeping sees it at its next look, or when the server can tell again.
    await settle(redis_transport, held, Ack())
    rest = 10 if plant is acknowledge else 9
    await settle(redis_transport, await receive(redis_transport, ANN, rest), Ack())
    vanished = dict((await redis_transport.tidy("order", KEEP_NOTHING)).vanished)
    assert vanished["billing"] == 1
    assert dict((await redis_transport.tidy("order", KEEP_NOTHING)).vanished).get("billing") is None, "it is told once"
    found = await account(raw)
    assert found.missing == 1
    [gap] = found.gaps
    assert (gap.entries, before < gap.since <= gap.until < datetime.now(UTC) + timedelta(seconds=2)) == (1, True)
    await redis_transport.append(outgoing(*range(5)))
    await settle(redis_transport, await receive(redis_transport, ANN, 5), Ack())
    assert await missing(raw) == 1


async def test_one_pending_event_that_is_deleted_is_missed_when_it_cannot_be_handed_out(
    redis_transport: RedisTransport, raw: Links, held: list[Delivery]
) -> None:
    entry = next(delivery for delivery in held if "@" not in delivery.entry_id)
    await settle(redis_transport, [entry], Retry(0.0, FAILED))
    await raw.execute("XDEL", LANE, entry.entry_id)
    await redis_transport.reclaim(ANN, 10)
    assert await missing(raw) == 1


async def test_where_the_server_has_lost_count_what_waits_is_counted(
    redis_transport: RedisTransport, raw: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.redis.accounting.LOOK", 500)
    await redis_transport.append(outgoing(*range(2_500)))
    await settle(redis_transport, await receive(redis_transport, ANN, 3), Ack())
    waiting = await raw.execute("XRANGE", LANE, "-", "+", "COUNT", 2_000)
    await raw.execute("XDEL", LANE, waiting[-1][0])
    assert await missing(raw) == 1
    monkeypatch.setattr("eventbus.redis.accounting.MOST_LOOKS", 2)
    assert await missing(raw) is None
    assert (await redis_transport.tidy("order", Retention())).vanished == ()
    while found := await redis_transport.read(ANN, 500, 0.01):
        await settle(redis_transport, found, Ack())
    assert (await redis_transport.tidy("order", Retention())).vanished == (("billing", 1),)


async def later(transport: RedisTransport, *numbers: int, delay: float = 60.0) -> list[Outgoing]:
    """Scheduled, of all priorities; the ids rise."""
    items = [Outgoing(envelope(n, id=uuid7())._replace(priority=n % 10 + 1), delay) for n in numbers]
    await transport.append(items)
    return items


async def come_due(transport: RedisTransport, raw: Links) -> None:
    for event_id in await raw.execute("ZRANGE", DUE, 0, -1):
        await raw.execute("ZADD", DUE, 1, event_id)

    async def none_is_left() -> bool:
        await transport.reclaim(ANN, 1)
        return not await raw.execute("ZCARD", DUE)

    await eventually(none_is_left)


async def test_whatever_becomes_of_what_is_scheduled_nothing_is_missed(
    redis_transport: RedisTransport, raw: Links
) -> None:
    async def schedule() -> tuple[int | None, int, int]:
        found = await account(raw, SCHEDULE)
        return found.missing, found.acknowledged, found.buried

    items = await later(redis_transport, *range(5))
    await redis_transport.append(items, again=True)
    await redis_transport.append(items)
    assert await schedule() == (0, 0, 0)
    assert await redis_transport.cancel(items[0].envelope.id, "order")
    assert not await redis_transport.cancel(items[0].envelope.id, "order")
    assert await schedule() == (0, 1, 0)
    for number in (5, 6):
        once = Once("key", window=60.0, replace=True)
        await redis_transport.append([Outgoing(envelope(number, id=uuid7()), 60.0, None, once)])
    assert await schedule() == (0, 2, 0)
    await redis_transport.append([Outgoing(envelope(7, id=uuid7()), 60.0)], again=True)
    await raw.execute("HSET", BODIES, items[1].envelope.id, "no body at all")
    await come_due(redis_transport, raw)
    assert await schedule() == (0, 7, 1)
    assert (await redis_transport.tidy("order", KEEP_NOTHING)).vanished == ()
    assert all(each.missing == 0 for each in await accounts(raw, "eb", "order"))


async def delete_both(raw: Links, event_id: str) -> None:
    await raw.execute("ZREM", DUE, event_id)
    await raw.execute("HDEL", BODIES, event_id)


async def delete_the_body(raw: Links, event_id: str) -> None:
    await raw.execute("HDEL", BODIES, event_id)


@pytest.mark.parametrize("plant", [delete_both, delete_the_body])
async def test_one_scheduled_event_that_vanishes_is_missed(
    redis_transport: RedisTransport, raw: Links, plant: Callable[[Links, str], Awaitable[None]]
) -> None:
    items = await later(redis_transport, *range(20))
    assert (await redis_transport.tidy("order", KEEP_NOTHING)).vanished == ()
    await plant(raw, items[7].envelope.id)
    await come_due(redis_transport, raw)
    await later(redis_transport, 20, 21)
    assert (await account(raw, SCHEDULE)).missing == 1
    assert (await redis_transport.tidy("order", KEEP_NOTHING)).vanished == ((SCHEDULE, 1),)
    assert (await redis_transport.tidy("order", KEEP_NOTHING)).vanished == (), "it is told once"
    found = await account(raw, SCHEDULE)
    assert (found.missing, [gap.entries for gap in found.gaps]) == (1, [1])


@pytest.mark.parametrize("key", [DUE, BODIES])
async def test_a_schedule_of_another_type_stops_no_housekeeping(
    redis_transport: RedisTransport, raw: Links, held: list[Delivery], key: str
) -> None:
    await raw.execute("SET", key, "somebody else's")
    await raw.execute("HSET", COUNTS, "scheduled", "many", "promoted", "1")
    await settle(redis_transport, held, Ack())
    assert (await redis_transport.tidy("order", KEEP_NOTHING)).vanished == ()
    assert await missing(raw) == 0
    await raw.execute("DEL", key)
    await raw.execute("HSET", COUNTS, "since:", "1")
    assert (await account(raw, SCHEDULE)).missing == -1, "what is no number counts for nothing"


async def test_what_was_scheduled_before_the_counting_is_not_missed(
    redis_transport: RedisTransport, raw: Links
) -> None:
    await later(redis_transport, *range(3))
    await raw.execute("DEL", COUNTS)
    await later(redis_transport, 3)
    assert (await account(raw, SCHEDULE)).missing == 0, "it begins when it is looked at"
    assert (await redis_transport.tidy("order", KEEP_NOTHING)).vanished == ()
    await come_due(redis_transport, raw)
    assert (await account(raw, SCHEDULE)).missing == 0


async def test_a_dead_letter_that_vanishes_is_missed(
    redis_transport: RedisTransport, raw: Links, held: list[Delivery]
) -> None:
    await settle(redis_transport, held[:1], Dead(FAILED, 1))
    [[letter, _]] = await raw.execute("XRANGE", "eb:{order}:dead", "-", "+", "COUNT", 1)
    await raw.execute("XDEL", "eb:{order}:dead", letter)
    assert (await account(raw)).letters_missing == 1


async def test_what_was_settled_before_the_counting_is_not_missed(redis_transport: RedisTransport, raw: Links) -> None:
    """A version that did not count has worked here, with plain XACK, and dead letters are left of it."""
    await redis_transport.append(outgoing(*range(20)))
    deliveries = await receive(redis_transport, ANN, 12)
    await settle(redis_transport, deliveries[:1], Dead(FAILED, 1))
    await raw.execute("XACK", LANE, "billing", *(delivery.entry_id for delivery in deliveries[1:9]))
    await raw.execute("DEL", COUNTS)
    await settle(redis_transport, deliveries[9:10], Ack())
    assert ((await account(raw)).missing, (await account(raw)).letters_missing) == (0, 0), "the first look begins it"
    await settle(redis_transport, deliveries[10:11], Dead(FAILED, 1))
    await settle(redis_transport, await receive(redis_transport, ANN, 8), Ack())
    assert (await account(raw)).letters_missing == 0
    # For an hour what is missing is taken to be the work of those that still run; then it would be told.
    await raw.execute("XACK", LANE, "billing", deliveries[11].entry_id)
    assert await missing(raw) == 1
    assert (await redis_transport.tidy("order", Retention())).vanished == ()
    assert await missing(raw) == 0
    assert await raw.execute("HDEL", COUNTS, "found:billing") == 1


async def test_a_stream_that_is_emptied_begins_anew(
    redis_transport: RedisTransport, raw: Links, held: list[Delivery]
) -> None:
    for command in (("FLUSHALL",), ("DEL", LANE), ("XGROUP", "DESTROY", LANE, "billing")):
        await raw.execute(*command)
        assert all(not each.missing for each in await accounts(raw, "eb", "order"))
        assert (await redis_transport.tidy("order", Retention())).vanished == ()
        await redis_transport.append(outgoing(1))
        found = await receive(redis_transport, ANN, 1)
        await settle(redis_transport, [*held, *found], Ack())
        assert await missing(raw) == 0
        assert (await redis_transport.tidy("order", Retention())).vanished == ()


@pytest.mark.one_server
async def test_an_ack_whose_reply_was_lost_is_counted_once(any_redis_url: str, raw: Links) -> None:
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.append(outgoing(1, 2))
        one, two = await receive(transport, ANN, 2)
        await settle(transport, [one], Ack())
        proxy.lose_next_reply()
        with pytest.raises(Exception, match="unavailable"):
            await settle(transport, [two], Ack())
        await settle(transport, [two], Ack())
        assert ((await account(raw)).acknowledged, await missing(raw)) == (2, 0)


async def test_counts_of_another_type_stop_neither_settling_nor_housekeeping(
    redis_transport: RedisTransport, raw: Links, held: list[Delivery]
) -> None:
    for garbage in (
        ("SET", COUNTS, "x"),
        ("HSET", COUNTS, "acked:5:billing", "many", "since:billing", "?", "looked", ""),
    ):
        await raw.execute("DEL", COUNTS)
        await raw.execute(*garbage)
        settled, held = held[:2], held[2:]
        await settle(redis_transport, settled[:1], Ack())
        await settle(redis_transport, settled[1:], Dead(FAILED, 1))
        assert isinstance(await redis_transport.tidy("order", Retention()), Tidied)
        assert await accounts(raw, "eb", "order")
