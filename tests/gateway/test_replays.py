"""The events of one lead sent to a group again, through the whole house: nothing is done twice."""

import asyncio
from collections import Counter
from typing import Any

from eventbus import EventBus
from eventbus.history import Selection
from eventbus.postgres.outbox import envelope_of
from handlers import GROUPS
from tests.gateway.client import Client
from tests.gateway.conftest import Tables
from tests.stored import partition, record
from tests.waiting import eventually
from tests.working import working

TASKS = Counter({"Call": 1, "Check credit": 1, "Send offer": 1, "Send contract": 1})


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


async def _remember(tables: Tables) -> None:
    """All that was published, in the event store."""
    await partition(tables)
    await record(tables, [envelope_of(event) for event in await tables.events()])


async def _settled(bus: EventBus, group: str) -> bool:
    states = await bus.transport.inspect(await bus.transport.find_streams())
    mine = [found for state in states for found in state.groups if found.name == group]
    return all(not found.backlog and not found.pending for found in mine)


async def test_no_second_task_comes_of_it(ann: Client, bus: EventBus, funnel: Any, tables: Tables) -> None:
    async with working(bus, *GROUPS):
        lead = await _lead_with_a_past(ann, funnel)
        other = await _lead_with_a_past(ann, funnel)
        await _remember(tables)
        before = await tables.count("eventbus_outbox")
        wanted = Selection(organization="acme", subject=lead)
        # Twice at once, while the group works and other leads come in.
        replays = [bus.replay("task-automation", wanted, why="test", by="ann") for _ in range(2)]
        first, second = await asyncio.gather(*replays)
        assert (first.done, second.done) == (first.total, second.total)
        assert first.matched.keys() >= {"lead.created", "lead.moved_to_step", "task.completed"}, first.matched
        await eventually(lambda: _settled(bus, "task-automation"))
    # And while it does not: what waits is handled when it comes back.
    await bus.replay("task-automation", wanted, why="test", by="ann")
    async with working(bus, *GROUPS):
        await eventually(lambda: _settled(bus, "task-automation"))
    assert await _titles(ann, lead) == await _titles(ann, other) == TASKS
    assert await tables.count("eventbus_outbox") == before, "nor did anything else follow from it"
    assert await tables.number("SELECT count(*) FROM eventbus_replays WHERE by_whom = 'ann'") == 3


async def test_with_new_ids_it_is_done_once_more(
    ann: Client, bus: EventBus, funnel: Any, tables: Tables, worker: None
) -> None:
    lead = await _lead_with_a_past(ann, funnel)
    await _remember(tables)
    wanted = Selection(organization="acme", subject=lead, types=["lead.created"])
    await bus.replay("task-automation", wanted, why="test", new_ids=True)
    await _until(ann, lead, TASKS + Counter({"Call": 1, "Check credit": 1}))


async def test_an_organization_is_left_out_of_anothers_replay(
    ann: Client, bus: EventBus, funnel: Any, tables: Tables, worker: None
) -> None:
    """New ids, so that whatever is sent shows."""
    lead = await _lead_with_a_past(ann, funnel)
    await _remember(tables)
    done = await bus.replay("task-automation", Selection(organization="umbrella"), why="test", new_ids=True)
    assert done.done == 0
    done = await bus.replay(
        "task-automation", Selection(organization="umbrella", subject=lead), why="test", new_ids=True
    )
    assert done.done == 0
    assert await _titles(ann, lead) == TASKS
