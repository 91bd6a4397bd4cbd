"""An ordered group: of the events of one key only the first that is not settled is handed out, whoever asks."""

import asyncio
from typing import Any

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.delivery import Ack, Dead, Delivery, Outcome, Release, Retry, Settlement, Subscription
from eventbus.contract.outgoing import Outgoing
from eventbus.redis import RedisTransport
from eventbus.redis.inspection import read_streams
from eventbus.redis.keys import QUEUED, group_keys, order_key, stream_keys
from eventbus.redis.links import Links
from tests.conformance.reach import blocked
from tests.conformance.test_redis_leases import calls_of_evalsha
from tests.samples import FAILED, STREAM, consumer, envelope, nothing_left, numbers, reclaim
from tests.waiting import eventually

LEASE = 0.3
KEYS = stream_keys("eb", STREAM)
DONE = Ack()
ORDER = order_key("eb", STREAM, "billing")


def ordered(name: str = "ann", lease: float = 30.0) -> Subscription:
    return consumer(name, lease=lease)._replace(ordered=True)


ANN, BOB = ordered("ann"), ordered("bob")


def said(key: str | None, *which: int, **attributes: Any) -> list[Outgoing]:
    return [Outgoing(envelope(number, subject=key, **attributes)) for number in which]


async def begun(transport: Broker, subscription: Subscription) -> list[Delivery]:
    """What may begin, when all that there is has been read."""
    return await eventually(lambda: transport.read(subscription, 100, 0.5))


async def settled(transport: Broker, deliveries: list[Delivery], outcome: Outcome = DONE) -> list[Delivery]:
    """What settling frees."""
    assert await transport.settle([Settlement(delivery, outcome) for delivery in deliveries]) == []
    return transport.freed(deliveries[0].subscription)


async def everything(transport: Broker, subscription: Subscription) -> list[int]:
    """All that there is, handled one after the other."""
    order: list[int] = []
    await transport.reclaim(subscription, 0)  # now there is the group
    while waiting := [
        *await transport.read(subscription, 100, 0.02),
        *(await transport.reclaim(subscription, 100)).deliveries,
    ]:
        while waiting:
            delivery = waiting.pop(0)
            order += numbers([delivery])
            waiting += await settled(transport, [delivery])
    return order


async def test_one_at_a_time_and_in_order(transport: Broker) -> None:
    await transport.append(said("a", 1, 2, 3))
    [first] = await begun(transport, ANN)
    assert await transport.read(BOB, 10, 0.02) == []
    assert (await transport.reclaim(BOB, 10)).deliveries == []
    [second] = await settled(transport, [first])
    assert await transport.read(BOB, 10, 0.02) == []
    [third] = await settled(transport, [second])
    assert numbers([first, second, third]) == [1, 2, 3]
    assert await settled(transport, [third]) == []
    assert await nothing_left(transport, ANN)


async def test_other_keys_go_on(transport: Broker) -> None:
    await transport.append([*said("a", 1, 2), *said("b", 3, 4), *said(None, 5, 6), *said("a", 7), *said("c", 8)])
    found = await begun(transport, ANN)
    assert numbers(found) == [1, 3, 5, 6, 8]
    assert numbers(await settled(transport, found)) == [2, 4]


async def test_keys_of_two_organizations_are_two(transport: Broker) -> None:
    await transport.append([*said("a", 1, organization="acme"), *said("a", 2, organization="umbrella"), *said("a", 3)])
    assert numbers(await begun(transport, ANN)) == [1, 2, 3]


async def test_one_that_fails_holds_back_its_own_key_alone(transport: Broker) -> None:
    await transport.append([*said("a", 1, 2), *said("b", 3, 4)])
    one, three = await begun(transport, ANN)
    assert await settled(transport, [one], Retry(0.05, FAILED)) == []
    assert numbers(await settled(transport, [three])) == [4]
    [again] = await reclaim(transport, BOB)
    assert (numbers([again]), again.failures) == ([1], 1)
    assert numbers(await settled(transport, [again])) == [2]


async def test_who_dies_makes_room(transport: Broker) -> None:
    await transport.append(said("a", 1, 2))
    [first] = await begun(transport, ANN)
    assert numbers(await settled(transport, [first], Dead(FAILED, 1))) == [2]
    assert len(await transport.dead_letters(STREAM)) == 1


async def test_what_is_given_back_keeps_its_place(transport: Broker) -> None:
    await transport.append(said("a", 1, 2))
    [first] = await begun(transport, ANN)
    assert await settled(transport, [first], Release()) == []
    assert numbers(await reclaim(transport, BOB)) == [1]
    assert await transport.read(ANN, 10, 0.02) == []


async def test_who_has_lost_an_event_frees_nothing(transport: Broker) -> None:
    """Else he began what comes behind it while its new owner is at it."""
    late, heir = ordered("late", LEASE), ordered("heir", LEASE)
    await transport.append(said("a", 1, 2, 3))
    [first] = await begun(transport, late)
    [again] = await reclaim(transport, heir)
    assert numbers([again]) == [1]
    for outcome in (Ack(), Dead(FAILED, 1), Retry(0.0, FAILED)):
        assert await settled(transport, [first], outcome) == []
    assert (await transport.reclaim(late, 10)).deliveries == []
    assert numbers(await settled(transport, [again])) == [2]


async def test_the_next_of_a_key_is_handed_on_when_its_owner_dies(transport: Broker) -> None:
    dying, heir = ordered("dying", LEASE), ordered("heir", LEASE)
    await transport.append(said("a", 1, 2, 3))
    [second] = await settled(transport, await begun(transport, dying))
    assert numbers([second]) == [2]
    found = await reclaim(transport, heir)
    assert numbers(found) == [2]
    assert numbers(await settled(transport, found)) == [3]


async def test_what_is_settled_twice_frees_once(transport: Broker) -> None:
    await transport.append(said("a", 1, 2, 3))
    [first] = await begun(transport, ANN)
    assert numbers(await settled(transport, [first])) == [2]
    assert await settled(transport, [first]) == []


async def test_across_priorities_one_at_a_time(transport: Broker) -> None:
    await transport.append([*said("a", 5, 6), *said("a", 1, priority=1)])
    assert numbers(await begun(transport, ANN)) == [1]
    assert await everything(transport, BOB) == []


async def test_all_of_many_keys_come_in_order(transport: Broker) -> None:
    await transport.append([item for number in range(300) for item in said(f"key-{number % 7}", number)])
    order = await everything(transport, ANN)
    assert sorted(order) == list(range(300))
    for key in range(7):
        mine = [number for number in order if number % 7 == key]
        assert mine == sorted(mine)


async def test_a_read_that_waits_is_woken(transport: Broker) -> None:
    await transport.read(ANN, 1, 0.02)
    reading = asyncio.create_task(transport.read(ANN, 10, 30.0))
    await asyncio.sleep(0.05)
    await transport.append(said("a", 1, 2))
    assert numbers(await reading) == [1]


async def test_what_waits_is_told_as_waiting(transport: Broker) -> None:
    first, second = said("a", 1, 2)
    await transport.append([first, second])
    await begun(transport, ANN)
    told = [await transport.locate(item.envelope.id, [STREAM]) for item in (first, second)]
    assert [one.groups[0].standing.value for one in told] == ["running", "waiting"]


# Redis alone ----------------------------------------------------------------------------------------------------------


async def test_what_waits_is_nobody_s_and_is_told_as_waiting(redis_transport: RedisTransport, raw: Links) -> None:
    await redis_transport.append(said("a", 1, 2, 3))
    await begun(redis_transport, ANN)
    [state] = await read_streams(raw, "eb", [STREAM])
    [group] = state.groups
    assert [(one.name, one.pending) for one in group.consumers] == [("ann", 1)]
    assert group.pending == 3
    [[entry, holder, *_], *_] = await raw.execute("XPENDING", KEYS.stream, "billing", "-", "+", 1, QUEUED)
    standing = await redis_transport.pending(STREAM, "billing", entry.decode())
    assert (holder, standing and standing.standing.value) == (QUEUED.encode(), "waiting")


async def test_a_read_that_is_interrupted_takes_nothing(redis_transport: RedisTransport, raw: Links) -> None:
    for _ in range(2):  # the first makes the group
        await redis_transport.read(ANN, 1, 0.02)
    reading = asyncio.create_task(redis_transport.read(ANN, 10, 60.0))
    await eventually(lambda: blocked(raw))
    before = await calls_of_evalsha(raw)
    await redis_transport.interrupt([ANN])
    assert await reading == []
    assert await calls_of_evalsha(raw) == before


async def test_nothing_is_left_of_what_is_settled(redis_transport: RedisTransport, raw: Links) -> None:
    await redis_transport.append([*said("a", 1, 2), *said("b", 3)])
    assert sorted(await everything(redis_transport, ANN)) == [1, 2, 3]
    assert await raw.execute("EXISTS", ORDER, *group_keys("eb", STREAM, "billing")) == 0


async def remove(raw: Links, entry: str) -> None:
    await raw.execute("XDEL", KEYS.stream, entry)
    await raw.execute("XACK", KEYS.stream, "billing", entry)


async def acknowledge(raw: Links, entry: str) -> None:
    await raw.execute("XACK", KEYS.stream, "billing", entry)


@pytest.mark.parametrize("meddle", [remove, acknowledge])
async def test_what_waits_for_an_event_that_somebody_took_away_goes_on(
    redis_transport: RedisTransport, raw: Links, meddle: object
) -> None:
    await redis_transport.append(said("a", 1, 2, 3))
    [first] = await begun(redis_transport, ANN)
    assert callable(meddle)
    await meddle(raw, first.entry_id)
    [second] = await reclaim(redis_transport, BOB)
    assert numbers([second]) == [2]
    assert numbers(await settled(redis_transport, [second])) == [3]


async def test_what_is_removed_while_it_waits_is_passed_over(redis_transport: RedisTransport, raw: Links) -> None:
    await redis_transport.append(said("a", 1, 2, 3))
    [first] = await begun(redis_transport, ANN)
    [[entry, *_], *_] = await raw.execute("XPENDING", KEYS.stream, "billing", "-", "+", 1, QUEUED)
    await raw.execute("XDEL", KEYS.stream, entry)
    assert numbers(await settled(redis_transport, [first])) == [3]


async def test_a_line_that_is_lost_is_made_anew(redis_transport: RedisTransport, raw: Links) -> None:
    await redis_transport.append([*said("a", 1, 2, 3), *said("b", 4, 5)])
    heads = await begun(redis_transport, ANN)
    await raw.execute("DEL", ORDER)
    await settled(redis_transport, heads)
    found = await reclaim(redis_transport, BOB, 2)
    assert numbers(found) == [2, 5]
    assert numbers(await settled(redis_transport, found)) == [3]


async def test_what_was_freed_by_a_reply_that_was_lost_is_found(
    redis_transport: RedisTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    await redis_transport.append(said("a", 1, 2))
    [first] = await begun(redis_transport, ANN)
    router = redis_transport._router
    settling = asyncio.create_task(redis_transport.settle([Settlement(first, Ack())]))
    await asyncio.sleep(0)  # it is sent at the end of this turn, and its reply is not waited for
    await asyncio.sleep(0)
    settling.cancel()
    await asyncio.wait([settling])

    async def freed() -> bool:
        return not await router.execute("XPENDING", KEYS.stream, "billing", "-", "+", 1, QUEUED)

    await eventually(freed)
    assert numbers(await begun(redis_transport, ANN)) == [2]


async def test_a_group_that_is_dropped_forgets_its_lines(redis_transport: RedisTransport, raw: Links) -> None:
    await redis_transport.append(said("a", 1, 2))
    await begun(redis_transport, ANN)
    assert await redis_transport.forget_group(STREAM, "billing")
    assert await raw.execute("EXISTS", ORDER) == 0
