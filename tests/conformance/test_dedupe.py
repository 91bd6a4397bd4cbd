"""Of several publishes with one dedupe key the first is stored, and one that is repeated is no duplicate of itself."""

import asyncio
from typing import Any

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.dedupe import Once
from eventbus.contract.delivery import Ack
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Status
from eventbus.redis import RedisTransport
from eventbus.redis.links import Links
from tests.samples import consumer, envelope, nothing_left, numbers, outgoing, receive, settle
from tests.waiting import eventually

STORED, SCHEDULED, DUPLICATE = Status.STORED, Status.SCHEDULED, Status.DUPLICATE


def keyed(
    number: int = 0, *, delay: float = 0.0, window: float = 60.0, replace: bool = False, **attributes: Any
) -> Outgoing:
    return Outgoing(envelope(number, **attributes), delay, once=Once("k", window, replace))


async def test_the_first_is_stored_and_the_others_know_it(transport: Broker) -> None:
    first, second = keyed(1), keyed(2)
    assert await transport.append([first]) == [STORED]
    assert await transport.append([second]) == [DUPLICATE]
    assert second.once is not None
    assert await transport.holder(second.envelope, second.once) == first.envelope.id
    assert numbers(await receive(transport, consumer())) == [1]
    assert not await transport.read(consumer(), 10, 0.01)


async def test_of_many_in_one_write_the_first_of_each_key_is_stored(transport: Broker) -> None:
    items = [keyed(1), *outgoing(2), keyed(3), keyed(4)._replace(once=Once("other"))]
    assert await transport.append(items) == [STORED, STORED, DUPLICATE, STORED]
    assert numbers(await receive(transport, consumer(), 3)) == [1, 2, 4]


async def test_of_many_at_the_same_time_one_is_stored(transport: Broker) -> None:
    replies = await asyncio.gather(*(transport.append([keyed(n, priority=n % 10 + 1)]) for n in range(20)))
    assert sorted(status for [status] in replies) == [DUPLICATE] * 19 + [STORED]


@pytest.mark.parametrize(
    "other",
    [
        {"type": "order.paid"},
        {"organization": "b"},
        {"stream": "invoice"},
    ],
)
async def test_a_key_counts_within_a_type_and_an_organization(transport: Broker, other: dict[str, Any]) -> None:
    assert (
        await transport.append([keyed(1, organization="a"), keyed(2, **{"organization": "a", **other})]) == [STORED] * 2
    )


async def test_no_two_scopes_share_a_name(transport: Broker) -> None:
    tricky = [("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c"), ("", "a:b:c")]
    items = [Outgoing(envelope(organization=owner), once=Once(key)) for owner, key in tricky]
    assert await transport.append(items) == [STORED] * 4


async def test_after_its_window_a_key_is_free_again(transport: Broker) -> None:
    assert await transport.append([keyed(1, window=0.05)]) == [STORED]

    async def free() -> bool:
        return await transport.append([keyed(2)]) == [STORED]

    await eventually(free)
    await settle(transport, await receive(transport, consumer(), 2), Ack())
    assert await nothing_left(transport, consumer())


async def test_the_window_of_what_is_delayed_begins_when_it_is_due(transport: Broker) -> None:
    assert await transport.append([keyed(1, delay=60.0, window=0.02)]) == [SCHEDULED]
    await asyncio.sleep(0.05)
    assert await transport.append([keyed(2)]) == [DUPLICATE]


@pytest.mark.parametrize(("delay", "status"), [(0.0, STORED), (60.0, SCHEDULED)])
async def test_a_publish_that_is_repeated_is_no_duplicate_of_itself(
    transport: Broker, delay: float, status: Status
) -> None:
    item = keyed(1, delay=delay)
    assert await transport.append([item]) == [status]
    assert await transport.append([item], again=True) == [status]
    assert await transport.append([item], again=True) == [status]
    later = keyed(2, delay=delay)
    assert await transport.append([later], again=True) == [DUPLICATE]
    if not delay:
        assert numbers(await receive(transport, consumer())) == [1]
        assert not await transport.read(consumer(), 10, 0.01)


async def test_a_repeat_after_the_window_is_not_stored_twice(transport: Broker) -> None:
    item = keyed(1, window=0.02)
    await transport.append([item])
    await asyncio.sleep(0.05)
    assert item.once is not None
    assert await transport.holder(item.envelope, item.once) is None
    assert await transport.append([item], again=True) == [STORED]
    await settle(transport, await receive(transport, consumer()), Ack())
    assert await nothing_left(transport, consumer())


async def test_a_repeat_of_many_keeps_their_places(transport: Broker) -> None:
    items = [keyed(1), *outgoing(2, 3), keyed(4), Outgoing(envelope(5), once=Once("other"))]
    await transport.append(items[:2])
    assert await transport.append(items, again=True) == [STORED, DUPLICATE, STORED, DUPLICATE, STORED]
    assert sorted(numbers(await receive(transport, consumer(), 4))) == [1, 2, 3, 5]


async def test_a_later_one_replaces_what_is_still_scheduled(transport: Broker) -> None:
    """A debounce: the last of a burst is handled, once, after the calm."""
    for number in range(3):
        assert await transport.append([keyed(number, delay=0.1, replace=True)]) == [SCHEDULED]
    await asyncio.sleep(0.11)
    assert (await transport.reclaim(consumer(), 10)).deliveries == []
    await eventually(lambda: _promoted(transport))
    assert numbers(await receive(transport, consumer())) == [2]
    assert await transport.append([keyed(3, delay=0.1, replace=True)]) == [DUPLICATE], "it is no longer scheduled"


@pytest.mark.parametrize("again", [False, True], ids=["from an outbox", "repeated"])
async def test_an_older_publish_does_not_replace_a_newer_one(transport: Broker, again: bool) -> None:
    """Its reply was lost, or it waited in a spool or an outbox, while a newer one took its place."""
    older, newer = keyed(1, delay=60, replace=True), keyed(2, delay=60, replace=True)
    assert newer.once is not None
    assert await transport.append([older]) == [SCHEDULED]
    assert await transport.append([newer]) == [SCHEDULED]
    assert await transport.append([older], again=again) == [DUPLICATE]
    assert await transport.holder(newer.envelope, newer.once) == newer.envelope.id
    assert await transport.cancel(newer.envelope.id), "it is still scheduled"
    assert not await transport.cancel(older.envelope.id)


async def test_to_keep_is_not_to_replace(transport: Broker) -> None:
    assert await transport.append([keyed(1, delay=60)]) == [SCHEDULED]
    assert await transport.append([keyed(2, delay=60)]) == [DUPLICATE]
    assert await transport.append([keyed(3, replace=True)]) == [STORED], "at once, and the scheduled one is gone"
    await eventually(lambda: _promoted(transport))


async def _promoted(transport: Broker) -> bool:
    return (await transport.reclaim(consumer(group="looking-on"), 1)).next_due is None


async def test_a_key_knows_its_own_event_when_the_stream_does_not_any_more(
    redis_transport: RedisTransport, raw: Links
) -> None:
    item = keyed(1)
    await redis_transport.append([item])
    await raw.execute("XTRIM", "eb:{order}:stream", "MAXLEN", 0)
    assert await redis_transport.append([item], again=True) == [STORED]
    assert await raw.execute("XLEN", "eb:{order}:stream") == 0, "it was there, and every group is done with it"
