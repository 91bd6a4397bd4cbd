"""What is written down of events in tracked groups: the last word holds, and no more is kept than is asked for."""

import asyncio

import orjson
import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.delivery import Ack, Dead, Retry
from eventbus.contract.inspection import Standing
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.retention import Retention
from eventbus.contract.states import Keep, Phase, Update
from eventbus.event import uuid7
from tests.samples import FAILED, consumer, envelope, receive, settle
from tests.waiting import eventually

KEEP = Keep(completed=10, failed=10)
GROUP = "billing"


def update(event_id: str, version: str, phase: Phase, *notices: bytes, **record: bytes) -> Update:
    return Update(event_id, version, phase, {"type": b"order.placed", **record}, notices)


async def phase(transport: Broker, event_id: str) -> str:
    return (await transport.records.find(GROUP, event_id)).get("phase", b"").decode()


async def test_a_record_says_what_was_said_last(transport: Broker) -> None:
    event_id = uuid7()
    await transport.records.track(GROUP, KEEP, [update(event_id, "1", Phase.ACTIVE, attempts=b"1", progress=b"10")])
    await transport.records.track(GROUP, KEEP, [update(event_id, "1", Phase.DELAYED, error=b"no")])
    record = await transport.records.find(GROUP, event_id)
    assert (record["phase"], record["attempts"], record["progress"], record["error"]) == (
        b"delayed",
        b"1",
        b"10",
        b"no",
    )
    assert await transport.records.find("shipping", event_id) == {}


async def test_a_late_word_of_a_lost_lease_is_no_news(transport: Broker) -> None:
    event_id = uuid7()
    await transport.records.track(GROUP, KEEP, [update(event_id, "2", Phase.COMPLETED)])
    await transport.records.track(GROUP, KEEP, [update(event_id, "1", Phase.FAILED)])
    assert await phase(transport, event_id) == "completed"
    assert await transport.records.totals(GROUP) == (1, 0)
    await transport.records.track(GROUP, KEEP, [update(event_id, "3", Phase.ACTIVE)])
    assert await phase(transport, event_id) == "active", "a replay goes on"


async def test_a_correction_undoes_no_later_word(transport: Broker) -> None:
    event_id = uuid7()
    await transport.records.track(GROUP, KEEP, [update(event_id, "1", Phase.ACTIVE)])
    before = (await transport.records.find(GROUP, event_id))["written"]
    correction = update(event_id, "1", Phase.WAITING)._replace(replaces=before)
    await asyncio.sleep(0.002)  # the clock counts in ms
    await transport.records.track(GROUP, KEEP, [update(event_id, "1", Phase.COMPLETED)])
    await transport.records.track(GROUP, KEEP, [correction])
    record = await transport.records.find(GROUP, event_id)
    assert record["phase"] == b"completed", "somebody wrote since it was read"
    assert int(before) < int(record["written"]) <= int(record["now"])
    await transport.records.track(GROUP, KEEP, [correction._replace(replaces=record["written"])])
    assert await phase(transport, event_id) == "waiting"


async def test_a_correction_of_what_is_not_there_any_more_makes_no_record(transport: Broker) -> None:
    event_id = uuid7()
    await transport.records.track(GROUP, KEEP, [update(event_id, "1", Phase.ACTIVE)._replace(replaces=b"1")])
    assert await transport.records.find(GROUP, event_id) == {}


async def test_the_same_word_twice_counts_once(transport: Broker) -> None:
    done = update(uuid7(), "1", Phase.COMPLETED)
    for _ in range(3):
        await transport.records.track(GROUP, KEEP, [done])
    assert await transport.records.totals(GROUP) == (1, 0)


async def test_the_last_of_each_kind_are_kept_and_all_are_counted(transport: Broker) -> None:
    events = [uuid7() for _ in range(8)]
    keep = Keep(completed=2, failed=3)
    for event_id in events[:4]:
        await transport.records.track(GROUP, keep, [update(event_id, "1", Phase.COMPLETED)])
    for event_id in events[4:]:
        await transport.records.track(GROUP, keep, [update(event_id, "1", Phase.FAILED)])
    kept = [await phase(transport, event_id) for event_id in events]
    assert kept == ["", "", "completed", "completed", "", "failed", "failed", "failed"]
    assert await transport.records.totals(GROUP) == (4, 4)


async def test_many_are_written_at_once(transport: Broker) -> None:
    events = [uuid7() for _ in range(1_200)]
    await transport.records.track(GROUP, Keep(2_000, 0), [update(e, "1", Phase.COMPLETED) for e in events])
    assert await transport.records.totals(GROUP) == (1_200, 0)
    assert await phase(transport, events[600]) == "completed"


async def test_notices_reach_who_listens_in_order(transport: Broker) -> None:
    heard: list[int] = []

    async def listen() -> None:
        async for notice in transport.records.watch(GROUP):
            heard.append(orjson.loads(notice))  # noqa: PERF401 - it never ends

    async def listening() -> bool:
        heard.clear()
        await transport.records.track(GROUP, KEEP, [update(uuid7(), "1", Phase.ACTIVE, b"0")])
        await asyncio.sleep(0.01)
        return bool(heard)

    watching = asyncio.create_task(listen())
    await eventually(listening)
    await transport.records.track("shipping", KEEP, [update(uuid7(), "1", Phase.ACTIVE, b"9")])
    await transport.records.track(GROUP, KEEP, [update(uuid7(), "1", Phase.ACTIVE, b"1", b"2")])

    async def all_heard() -> bool:
        return heard[-2:] == [1, 2]

    await eventually(all_heard)
    assert 9 not in heard
    watching.cancel()
    await asyncio.wait([watching])


@pytest.mark.parametrize("outcome", [Ack(), Retry(600, FAILED), Dead(FAILED, 1), None])
async def test_an_event_is_located(transport: Broker, outcome: Ack | Retry | Dead | None) -> None:
    item = Outgoing(envelope(1))
    await transport.append([Outgoing(envelope(0)), item, Outgoing(envelope(2))])
    deliveries = await receive(transport, consumer(), 2)
    await receive(transport, consumer(group="shipping"), 1)
    if outcome is not None:
        await settle(transport, deliveries, outcome)
    located = await transport.locate(item.envelope.id)
    told = {standing.group: standing.standing for standing in located.groups}
    expected = {Ack: Standing.DONE, Retry: Standing.RESTING, Dead: Standing.DEAD, type(None): Standing.RUNNING}
    assert (located.stream, located.type) == ("order", "order.placed")
    assert told == {"billing": expected[type(outcome)], "shipping": Standing.WAITING}


@pytest.mark.parametrize("priority", [5, 1])
async def test_an_entry_that_is_pending_is_found_at_once(transport: Broker, priority: int) -> None:
    await transport.append([Outgoing(envelope(1, priority=priority))])
    assert await transport.pending("order", GROUP, "1-0") is None, "there is no such group yet"
    [delivery] = await receive(transport, consumer(), 1)
    running = await transport.pending("order", GROUP, delivery.entry_id)
    assert running is not None
    assert (running.standing, running.consumer, running.entry) == (Standing.RUNNING, "ann", delivery.entry_id)
    assert running.seconds is not None
    assert 0 <= running.seconds < 20
    await settle(transport, [delivery], Retry(60, FAILED))
    resting = await transport.pending("order", GROUP, delivery.entry_id)
    assert resting is not None
    assert (resting.standing, resting.failures) == (Standing.RESTING, 1)
    assert resting.due is not None
    assert 40 < resting.due <= 60
    assert await transport.pending("order", "shipping", delivery.entry_id) is None
    await settle(transport, [delivery], Ack())
    assert await transport.pending("order", GROUP, delivery.entry_id) is None


async def test_a_dead_letter_is_located_when_its_entry_is_gone(transport: Broker) -> None:
    item = Outgoing(envelope(1))
    await transport.append([item])
    await settle(transport, await receive(transport, consumer(), 1), Dead(FAILED, 1))
    await transport.tidy("order", Retention(settled=0))
    [standing] = (await transport.locate(item.envelope.id)).groups
    assert (standing.group, standing.standing, standing.error) == (GROUP, Standing.DEAD, FAILED.error)


async def test_what_is_scheduled_or_unknown_is_located(transport: Broker) -> None:
    later, unknown = Outgoing(envelope(), delay=60), uuid7()
    await transport.append([later])
    located = await transport.locate(later.envelope.id)
    assert located.scheduled is not None
    assert 50 < located.scheduled <= 60
    assert (await transport.locate(unknown)).stream is None
    assert (await transport.locate(later.envelope.id, ["invoice"])).stream is None
