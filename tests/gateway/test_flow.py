"""A lead's way through the house, with a worker in this process."""

from collections import Counter
from typing import Any

from eventbus import EventBus
from handlers.lead.events import CalculateScore, LeadCreated, LeadMovedToStep
from handlers.task.events import TaskCompleted, TaskExpired
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.test_leads import NOWHERE
from tests.waiting import eventually


async def _titles(client: Client, lead: dict[str, Any]) -> Counter[str]:
    return Counter(task["title"] for task in await client.all_of(f"/api/leads/{lead['id']}/tasks"))


async def _until_titles(client: Client, lead: dict[str, Any], *expected: str) -> None:
    async def there() -> bool:
        return await _titles(client, lead) == Counter(expected)

    await eventually(there)


async def _until_handled(client: Client, lead: dict[str, Any], *expected: tuple[str, str]) -> list[Any]:
    """Until each (type, group) is on the lead's timeline; then the timeline."""

    async def handled() -> list[Any] | None:
        events = await client.all_of(f"/api/leads/{lead['id']}/events?limit=3")
        done = {(event["type"], entry["group"]) for event in events for entry in event["handledBy"]}
        return events if done.issuperset(expected) else None

    return await eventually(handled) or []


async def _complete(client: Client, title: str) -> None:
    [task] = [task for task in await client.all_of("/api/tasks?status=OPEN") if task["title"] == title]
    assert (await client.post(f"/api/tasks/{task['id']}/complete")).status == 200


async def test_tasks_come_with_the_step_and_after_each_other(ann: Client, funnel: Any, worker: None) -> None:
    given = {"name": "Lea", "funnelId": funnel["id"], "assignedTo": "bob"}
    lead = (await ann.post("/api/leads", given)).body
    await _until_titles(ann, lead, "Call", "Check credit")
    call = next(task for task in await ann.all_of("/api/tasks") if task["title"] == "Call")
    assert (call["description"], call["assignedTo"], call["leadId"]) == ("Within a day", "bob", lead["id"])
    assert call["dueAt"][:13] != call["createdAt"][:13]

    await _complete(ann, "Check credit")  # nothing comes after it
    await _complete(ann, "Call")
    await _until_titles(ann, lead, "Call", "Check credit", "Send offer")
    await _complete(ann, "Send offer")
    await ann.post(f"/api/leads/{lead['id']}/move", {"stepId": funnel["steps"][1]["id"]})
    await _until_titles(ann, lead, "Call", "Check credit", "Send offer", "Send contract")


async def test_the_timeline_shows_every_event_and_who_handled_it(ann: Client, funnel: Any, worker: None) -> None:
    given = {"name": "Lea", "email": "lea@example.com", "funnelId": funnel["id"], "assignedTo": "ann"}
    lead = (await ann.post("/api/leads", given, X_Correlation_Id="way-1")).body
    events = await _until_handled(
        ann,
        lead,
        ("lead.created", "task-automation"),
        ("lead.created", "lead-automation"),
        ("notification.create", "notification"),
        ("lead.calculate_score", "lead"),
    )
    assert Counter(event["type"] for event in events) == {
        "lead.created": 1,
        "task.created": 2,
        "task.expired": 1,  # waits for its time
        "notification.create": 1,
        "lead.enrich": 1,
        "lead.calculate_score": 1,
        "email.send_submission_confirmation": 1,
    }
    first, *rest = events
    assert (first["type"], first["causationId"], first["data"]["email"]) == ("lead.created", None, "lea@example.com")
    assert first["metadata"] == {"userId": "ann", "ipAddress": "127.0.0.1"}
    assert {event["correlationId"] for event in events} == {"way-1"}
    assert {event["causationId"] for event in rest} == {first["id"]}
    assert [event["dueAt"] is not None for event in events if event["type"] == "lead.enrich"] == [True]
    assert (await ann.get(f"/api/leads/{lead['id']}")).body["score"] == 55


async def test_a_lead_with_little_gets_little(ann: Client, worker: None) -> None:
    lead = (await ann.post("/api/leads", {"phone": "+49 30 1234"})).body
    events = await _until_handled(ann, lead, ("lead.calculate_score", "lead"))
    assert [event["type"] for event in events] == ["lead.created", "lead.enrich", "lead.calculate_score"]
    assert (await ann.get(f"/api/leads/{lead['id']}")).body["score"] == 30


async def test_a_task_still_open_at_its_due_time_is_told(
    ann: Client, gateway: Gateway, admin: Client, worker: None
) -> None:
    steps = [{"name": "New", "taskTemplates": [{"title": "Call", "dueInHours": 0.5 / 3600}]}]
    funnel = (await admin.post("/api/funnels", {"name": "Fast", "steps": steps})).body
    lead = (await ann.post("/api/leads", {"name": "Lea", "funnelId": funnel["id"], "assignedTo": "bob"})).body
    await ann.post("/api/tasks", {"title": "By hand", "leadId": lead["id"], "dueAt": "2020-01-01T00:00:00Z"})
    bob = gateway.caller("bob", "acme")

    async def told_of_both() -> list[Any] | None:
        items = await bob.all_of("/api/notifications")
        expired = [item for item in items if item["notificationType"] == "TASK_EXPIRED"]
        return expired if len(expired) == 2 else None

    expired = await eventually(told_of_both) or []
    assert {item["message"] for item in expired} == {"Call is still open", "By hand is still open"}
    assert {task["status"] for task in await ann.all_of("/api/tasks")} == {"OPEN"}


async def test_a_task_done_in_time_does_not_expire(bus: EventBus, ann: Client, tables: Tables, worker: None) -> None:
    task = (await ann.post("/api/tasks", {"title": "Call", "assignedTo": "ann", "dueAt": "2150-01-01T00:00:00Z"})).body
    await ann.post(f"/api/tasks/{task['id']}/complete")
    await bus.publish(TaskExpired(task_id=task["id"], organization_id="acme", title="Call", assigned_to="ann"))

    async def handled() -> bool:
        return await tables.number("SELECT count(*) FROM eventbus_inbox WHERE group_name = 'notification'") == 1

    await eventually(handled)
    assert await tables.events("notification.create") == []


async def test_events_about_what_is_gone_do_nothing(
    bus: EventBus, ann: Client, funnel: Any, tables: Tables, worker: None
) -> None:
    step = funnel["steps"][0]["id"]
    lead = (await ann.post("/api/leads", {"name": "Lea"})).body["id"]
    for lead_id, step_id in ((NOWHERE, step), (lead, NOWHERE), ("lead-1", "step-1")):
        await bus.publish(
            LeadCreated(lead_id=lead_id, organization_id="acme", status="NEW", source="API", step_id=step_id)
        )
        await bus.publish(LeadMovedToStep(lead_id=lead_id, organization_id="acme", new_step_id=step_id))
    # Ids of another organization's, in an event of one that has no such lead.
    await bus.publish(LeadMovedToStep(lead_id=lead, organization_id="umbrella", new_step_id=step))
    for gone in (NOWHERE, "task-1"):
        await bus.publish(CalculateScore(lead_id=gone, organization_id="acme"))
        await bus.publish(TaskCompleted(task_id=gone, organization_id="acme", title="?"))
        await bus.publish(TaskExpired(task_id=gone, organization_id="acme", title="?"))
    last = (await ann.post("/api/leads", {"name": "Last", "stepId": step})).body
    await _until_titles(ann, last, "Call", "Check credit")

    async def settled() -> bool:
        score = (await ann.get(f"/api/leads/{last['id']}")).body["score"]
        return score is not None and await tables.number("SELECT count(*) FROM eventbus_inbox") > 0

    await eventually(settled)
    assert await tables.count("tasks") == 2
    assert [await bus.transport.dead_letters(stream) for stream in ("lead", "task", "notification")] == [[], [], []]


async def test_an_event_delivered_twice_has_its_effect_once(
    ann: Client, funnel: Any, tables: Tables, worker: None
) -> None:
    """The relay may append an event twice, and an operator may replay one: the inbox knows its id."""
    given = {"name": "Lea", "funnelId": funnel["id"], "assignedTo": "ann"}
    lead = (await ann.post("/api/leads", given)).body
    await _until_handled(ann, lead, ("lead.calculate_score", "lead"), ("notification.create", "notification"))
    await _until_titles(ann, lead, "Call", "Check credit")
    before = Counter(event["type"] for event in await tables.events())

    await tables.execute("UPDATE eventbus_outbox SET published_at = NULL WHERE due_at IS NULL")
    # The relay keeps the order of the outbox: what is behind the repeated events is handled behind them.
    last = (await ann.post("/api/leads", given)).body
    await _until_handled(ann, last, ("lead.calculate_score", "lead"), ("notification.create", "notification"))
    await _until_titles(ann, last, "Call", "Check credit")
    assert await _titles(ann, lead) == Counter(["Call", "Check credit"])
    assert await tables.count("notifications") == 2
    after = Counter(event["type"] for event in await tables.events())
    assert after == {kind: count * 2 for kind, count in before.items()}


async def test_a_notification_goes_to_the_organization_of_its_lead(
    ann: Client, stranger: Client, gateway: Gateway, worker: None
) -> None:
    await stranger.post("/api/leads", {"name": "Theirs", "assignedTo": "ann"})
    namesake = gateway.caller("ann", "umbrella")

    async def there() -> bool:
        return len(await namesake.all_of("/api/notifications")) == 1

    await eventually(there)
    assert await ann.all_of("/api/notifications") == []
