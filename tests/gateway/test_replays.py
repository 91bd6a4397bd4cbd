"""The events of one lead sent to a group again, through the whole house: nothing is done twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from eventbus import EventBus
from eventbus.contract.history import Selection
from handlers import GROUPS
from tests.gateway.client import Client
from tests.gateway.conftest import Tables
from tests.waiting import eventually
from tests.working import working

A_YEAR = timedelta(days=365)
FOLLOWED = "SELECT count(*) FROM eventbus_outbox WHERE type LIKE 'task.%'"
TASKS = Counter({"Call": 1, "Check credit": 1, "Send offer": 1, "Send contract": 1})


@pytest.fixture
async def bus(redis_url: str, database_url: str) -> AsyncIterator[EventBus]:
    """What happens is recorded."""
    async with EventBus(redis_url, database=database_url, history=A_YEAR) as bus:
        yield bus


async def _titles(client: Client, lead: str) -> Counter[str]:
    return Counter(task["title"] for task in await client.all_of(f"/api/leads/{lead}/tasks"))


async def _until(client: Client, lead: str, titles: Counter[str]) -> None:
    async def there() -> bool:
        return await _titles(client, lead) == titles

    await eventually(there)


async def _lead_with_a_past(ann: Client, funnel: Any) -> str:
    """Two tasks came with its first step, one behind another, one with its second step."""
    lead: str = (await ann.post("/api/leads", {"name": "Lea", "funnelId": funnel["id"]})).body["id"]
    await _until(ann, lead, Counter({"Call": 1, "Check credit": 1}))
    [call] = [task for task in await ann.all_of("/api/tasks") if task["title"] == "Call" and task["leadId"] == lead]
    await ann.post(f"/api/tasks/{call['id']}/complete")
    await ann.post(f"/api/leads/{lead}/move", {"stepId": funnel["steps"][1]["id"]})
    await _until(ann, lead, TASKS)
    return lead


async def _remembered(bus: EventBus, tables: Tables, lead: str) -> None:
    """Until everything about this lead that is due is in the event store."""
    there = (
        "SELECT count(*) FROM eventbus_outbox AS sent WHERE subject = $1 AND (due_at IS NULL OR due_at < now()) "
        "AND NOT EXISTS (SELECT FROM eventbus_events AS kept WHERE kept.event_id = sent.event_id)"
    )

    async def all_there() -> bool:
        [row] = await tables.fetch(there, lead)
        return row[0] == 0 and await bus.history.count(Selection(subject=lead)) > 0

    await eventually(all_there)


async def _settled(bus: EventBus, group: str) -> bool:
    states = await bus.transport.inspect(await bus.transport.find_streams())
    mine = [found for state in states for found in state.groups if found.name == group]
    return all(not found.backlog and not found.pending for found in mine)


async def test_no_second_task_comes_of_it(ann: Client, bus: EventBus, funnel: Any, tables: Tables) -> None:
    async with working(bus, *GROUPS):
        lead = await _lead_with_a_past(ann, funnel)
        other = await _lead_with_a_past(ann, funnel)
        await _remembered(bus, tables, lead)
        before = await tables.number(FOLLOWED)
        wanted = Selection(organization="acme", subject=lead)
        # Twice at once, while the group works and other leads come in.
        replays = [bus.events.replay("task-automation", wanted, why="test", by="ann") for _ in range(2)]
        first, second = await asyncio.gather(*replays)
        assert (first.done, second.done) == (first.total, second.total)
        assert first.matched.keys() >= {"lead.created", "lead.moved_to_step", "task.completed"}, first.matched
        await eventually(lambda: _settled(bus, "task-automation"))
    # And while it does not: what waits is handled when it comes back.
    await bus.events.replay("task-automation", wanted, why="test", by="ann")
    async with working(bus, *GROUPS):
        await eventually(lambda: _settled(bus, "task-automation"))
    assert await _titles(ann, lead) == await _titles(ann, other) == TASKS
    assert await tables.number(FOLLOWED) == before, "nor did anything else follow from it"
    assert await tables.number("SELECT count(*) FROM eventbus_replays WHERE by_whom = 'ann'") == 3


async def test_with_new_ids_it_is_done_once_more(
    ann: Client, bus: EventBus, funnel: Any, tables: Tables, worker: None
) -> None:
    lead = await _lead_with_a_past(ann, funnel)
    await _remembered(bus, tables, lead)
    wanted = Selection(organization="acme", subject=lead, types=["lead.created"])
    await bus.events.replay("task-automation", wanted, why="test", new_ids=True)
    await _until(ann, lead, TASKS + Counter({"Call": 1, "Check credit": 1}))


async def test_an_organization_is_left_out_of_anothers_replay(
    ann: Client, bus: EventBus, funnel: Any, tables: Tables, worker: None
) -> None:
    """New ids, so that whatever is sent shows."""
    lead = await _lead_with_a_past(ann, funnel)
    await _remembered(bus, tables, lead)
    done = await bus.events.replay("task-automation", Selection(organization="umbrella"), why="test", new_ids=True)
    assert done.done == 0
    done = await bus.events.replay(
        "task-automation", Selection(organization="umbrella", subject=lead), why="test", new_ids=True
    )
    assert done.done == 0
    assert await _titles(ann, lead) == TASKS
