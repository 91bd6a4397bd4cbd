"""Reading the event store: each condition finds its events, and no others."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from eventbus import EventBus
from eventbus.contract.history import Ending, Selection
from eventbus.event import Envelope, uuid7
from eventbus.postgres.history import made

A_DAY = timedelta(days=1)


def envelope(event_type: str, organization: str, subject: str, correlation_id: str) -> Envelope:
    return Envelope(uuid7(), event_type, b'{"n":1}', subject, organization, correlation_id)


EVENTS = [
    envelope("lead.created", "a", "lead-1", "c-1"),
    envelope("lead.updated", "a", "lead-1", "c-2"),
    envelope("lead.created", "b", "lead-1", "c-3"),
    envelope("task.created", "a", "lead-1", "c-1"),
    envelope("leader.elected", "a", "lead-2", "c-1"),
]
MIDDLE = EVENTS[2]
# What is wanted, and the places of what is found.
CASES = [
    (Selection(), [0, 1, 2, 3, 4]),
    (Selection(organization="a"), [0, 1, 3, 4]),
    (Selection(organization="a", subject="lead-1"), [0, 1, 3]),
    (Selection(correlation_id="c-1"), [0, 3, 4]),
    (Selection(types=["lead.created"]), [0, 2]),
    (Selection(types=["lead.*"]), [0, 1, 2]),
    (Selection(types=["lead.updated", "task.*"]), [1, 3]),
    (Selection(after=MIDDLE.id), [3, 4]),
    (Selection(since=MIDDLE.time + A_DAY), []),
    (Selection(until=MIDDLE.time - A_DAY), []),
    (Selection(since=MIDDLE.time - A_DAY, until=MIDDLE.time + A_DAY), [0, 1, 2, 3, 4]),
    (Selection(organization="c"), []),
]


@pytest.fixture
async def bus(redis_url: str, migrated_url: str) -> AsyncIterator[EventBus]:
    async with EventBus(redis_url, database=migrated_url) as bus:
        async with bus.transaction() as tx:
            for table in ("eventbus_events", "eventbus_executions"):
                await tx.connection.execute(f"CREATE TABLE {table}_all PARTITION OF {table} DEFAULT")
            for event in EVENTS:
                meta = (
                    f'{{"subject":"{event.subject}","organization":"{event.organization}",'
                    f'"correlationId":"{event.correlation}"}}'
                )
                await tx.connection.execute(
                    "INSERT INTO eventbus_events VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                    *(event.id, made(event.id), event.type, event.organization, event.subject),
                    *(event.correlation, None, meta, event.data.decode()),
                )
        yield bus


async def test_what_is_wanted_is_found_oldest_first(bus: EventBus) -> None:
    for wanted, places in CASES:
        found = await bus.history.select(wanted)
        assert [recorded.envelope for recorded in found] == [EVENTS[place] for place in places], wanted
        assert await bus.history.count(wanted) == len(places)


async def test_there_is_an_end_to_it(bus: EventBus) -> None:
    found = await bus.history.select(Selection(), limit=2)
    assert [recorded.envelope.id for recorded in found] == [event.id for event in EVENTS[:2]]


async def test_one_is_found_by_its_id(bus: EventBus) -> None:
    found = await bus.history.find(MIDDLE.id)
    assert found is not None
    assert found.envelope == MIDDLE
    assert await bus.history.find(uuid7()) is None


async def test_what_groups_made_of_an_event_is_told_in_the_order_of_time(bus: EventBus) -> None:
    event, other = EVENTS[0], EVENTS[1]
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    async with bus.transaction() as tx:
        for later, (event_id, outcome) in enumerate(
            [(event.id, "completed"), (event.id, "failed"), (other.id, "dead"), (MIDDLE.id, "completed")]
        ):
            await tx.connection.execute(
                "INSERT INTO eventbus_executions VALUES ($1, $2, $3, 'billing', 1, $4, 0.5, 'why', $5)",
                *(event_id, made(event_id), uuid7(), outcome, begin - timedelta(seconds=later)),
            )
    told = await bus.history.executions([event.id, other.id])
    assert [execution.outcome for execution in told] == [Ending.DEAD, Ending.FAILED, Ending.COMPLETED]
    assert (told[0].event_id, told[0].group, told[0].error) == (other.id, "billing", "why")
    assert await bus.history.executions([]) == []
