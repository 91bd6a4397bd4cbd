"""Where an event is, told in each state that it can be in."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from eventbus.contract.delivery import Ack, Dead, Retry
from eventbus.contract.inspection import EventStanding, GroupStanding, Standing
from eventbus.contract.outgoing import Outgoing
from eventbus.event import unix_ms, uuid7
from eventbus.redis import RedisTransport
from eventbus.redis.explaining import explain
from eventbus.redis.keys import stream_keys
from eventbus.redis.links import Links
from tests.samples import FAILED, consumer, envelope, receive, reclaim, settle

ANN = consumer("ann")


@pytest.fixture
async def transport(any_redis_url: str) -> AsyncIterator[RedisTransport]:
    transport = RedisTransport(any_redis_url)
    yield transport
    await transport.close()


async def only(raw: Links, event_id: str) -> GroupStanding:
    [standing] = (await explain(raw, "eb", event_id)).groups
    return standing


async def publish(transport: RedisTransport, **attributes: Any) -> str:
    event = envelope(**attributes)
    await transport.append([Outgoing(event)])
    return event.id


async def test_what_nobody_knows_is_nowhere(raw: Links, transport: RedisTransport) -> None:
    await publish(transport)
    unknown = uuid7()
    assert await explain(raw, "eb", unknown) == EventStanding(unknown)


async def test_what_is_scheduled_says_when_it_is_due(raw: Links, transport: RedisTransport) -> None:
    event = envelope()
    await transport.append([Outgoing(event, delay=60)])
    told = await explain(raw, "eb", event.id)
    assert (told.stream, told.groups) == ("order", ())
    assert told.scheduled is not None
    assert 50 < told.scheduled <= 60


async def test_what_waits_knows_how_many_are_before_it(raw: Links, transport: RedisTransport) -> None:
    first, *_, last = [await publish(transport, subject="o-1", priority=2) for _ in range(5)]
    await receive(transport, ANN, 2)
    told = await explain(raw, "eb", last)
    assert (told.stream, told.type, told.subject, told.priority) == ("order", "order.placed", "o-1", 2)
    [waiting] = told.groups
    assert (waiting.group, waiting.standing, waiting.ahead) == ("billing", Standing.WAITING, 2)
    assert (await only(raw, first)).standing is Standing.RUNNING


async def test_what_is_in_hand_names_its_consumer_and_its_crashes(raw: Links, transport: RedisTransport) -> None:
    event_id = await publish(transport)
    for name in ("first", "second"):
        await (receive if name == "first" else reclaim)(transport, consumer(name, lease=0.1))
    held = await only(raw, event_id)
    assert (held.standing, held.consumer, held.crashes, held.suspect) == (Standing.RUNNING, "second", 1, False)
    assert held.seconds is not None
    await reclaim(transport, consumer("third", lease=0.1), suspect=True)
    assert (await only(raw, event_id)).suspect


@pytest.mark.parametrize("priority", [5, 1])
async def test_what_rests_knows_when_and_after_how_many_failures(
    raw: Links, transport: RedisTransport, priority: int
) -> None:
    event_id = await publish(transport, priority=priority)
    await settle(transport, await receive(transport, ANN), Retry(600, FAILED))
    resting = await only(raw, event_id)
    assert (resting.standing, resting.failures, resting.consumer) == (Standing.RESTING, 1, None)
    assert resting.due is not None
    assert 590 < resting.due <= 600
    assert resting.first_failed is not None
    assert 0 <= resting.first_failed < 10


async def test_what_is_done_dead_and_replayed(raw: Links, transport: RedisTransport) -> None:
    event_id = await publish(transport)
    await settle(transport, await receive(transport, ANN), Dead(FAILED, 3))
    await settle(transport, await receive(transport, consumer(group="shipping")), Ack())
    dead, done = (await explain(raw, "eb", event_id)).groups
    [letter] = await transport.dead_letters("order")
    assert (dead.standing, dead.letter, dead.failures) == (Standing.DEAD, f"order/{letter.id}", 3)
    assert dead.error == FAILED.error
    assert (done.group, done.standing) == ("shipping", Standing.DONE)
    await transport.replay(letter)
    told = [(s.group, s.standing) for s in (await explain(raw, "eb", event_id)).groups]
    assert told == [
        ("billing", Standing.REPLAYED),
        ("billing", Standing.WAITING),
        ("shipping", Standing.DONE),
        ("shipping", Standing.PASSED),
    ]


async def test_a_dead_letter_is_found_when_its_entry_is_gone(raw: Links, transport: RedisTransport) -> None:
    event_id = await publish(transport)
    await settle(transport, await receive(transport, ANN), Dead(FAILED, 1))
    await raw.execute("DEL", stream_keys("eb", "order").stream)
    assert (await only(raw, event_id)).standing is Standing.DEAD


async def test_an_event_of_a_publisher_with_a_wrong_clock_is_found(raw: Links, transport: RedisTransport) -> None:
    ms = f"{unix_ms(uuid7()) + 3_600_000:012x}"
    event_id = f"{ms[:8]}-{ms[8:]}{str(uuid7())[13:]}"
    await publish(transport, id=event_id)
    await transport.read(ANN, 0, 0.01)
    await receive(transport, ANN)
    assert (await explain(raw, "eb", event_id)).stream == "order"


async def test_an_event_is_found_behind_thousands(raw: Links, transport: RedisTransport) -> None:
    """More than one look, and in the right one of several streams."""
    first = await publish(transport)
    await transport.append([Outgoing(envelope(n)) for n in range(4_500)])
    last = await publish(transport)
    await transport.append([Outgoing(envelope(stream=f"s{uuid4().hex}"))])
    await receive(transport, ANN)
    assert (await only(raw, first)).standing is Standing.RUNNING
    assert (await only(raw, last)).ahead == 4_500
