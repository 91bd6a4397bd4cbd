"""What a lead sets in motion, from the request to the last effect, as its trace shows it: gateway, worker, history."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from eventbus import EventBus
from handlers import GROUPS
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables
from tests.waiting import eventually
from tests.working import working

# Its task is due at once, so that what follows from that is seen as well.
FUNNEL = {"name": "Fast", "steps": [{"name": "New", "taskTemplates": [{"title": "Call", "dueInHours": 0.5 / 3600}]}]}

# Type, what caused it, and the groups that handle it. No mail server is configured: that ends as a dead letter.
WAY: list[tuple[str, str | None, dict[str, str]]] = [
    ("lead.created", None, {"task-automation": "completed", "lead-automation": "completed"}),
    ("task.created", "lead.created", {}),
    ("task.expired", "lead.created", {"notification": "completed"}),
    ("notification.create", "task.expired", {"notification": "completed"}),
    ("notification.create", "lead.created", {"notification": "completed"}),
    ("lead.calculate_score", "lead.created", {"lead": "completed"}),
    ("email.send_submission_confirmation", "lead.created", {"email": "dead"}),
    ("lead.enrich", "lead.created", {}),
]
LATER = "lead.enrich"  # in ten seconds: this may be before or after it


@pytest.fixture
async def bus(redis_url: str, database_url: str) -> AsyncIterator[EventBus]:
    async with EventBus(redis_url, database=database_url, history=timedelta(days=365)) as bus:
        yield bus


def shape(trace: dict[str, Any]) -> Counter[tuple[str, str | None, tuple[tuple[str, str], ...]]]:
    types = {event["eventId"]: event["type"] for event in trace["events"]}
    return Counter(
        (
            event["type"],
            types.get(event["causedBy"]),
            tuple(sorted((done["group"], done["outcome"]) for done in event["executions"] if event["type"] != LATER)),
        )
        for event in trace["events"]
    )


async def test_every_event_and_handler_in_the_order_of_causes(
    bus: EventBus, admin: Client, gateway: Gateway, tables: Tables
) -> None:
    expected = Counter((kind, cause, tuple(sorted(groups.items()))) for kind, cause, groups in WAY)
    funnel = (await admin.post("/api/funnels", FUNNEL)).body
    given = {"name": "Lea", "email": "lea@example.com", "funnelId": funnel["id"], "assignedTo": "ann"}
    async with working(bus, *GROUPS):
        lead = (await admin.post("/api/leads", given, X_Correlation_Id="way-1")).body
        await admin.post("/api/leads", given, X_Correlation_Id="way-2")
        [first, *_] = (await admin.get(f"/api/leads/{lead['id']}/events")).body["items"]
        seen: dict[str, Any] = {}

        async def all_there() -> bool:
            nonlocal seen
            seen = (await admin.get(f"/api/events/{first['id']}/trace")).body
            places = {event["place"] for event in seen["events"] if event["type"] != LATER}
            return shape(seen) == expected and places == {"recorded"}

        try:
            await eventually(all_there)
        except TimeoutError:
            pytest.fail(f"missing {expected - shape(seen)}, too much {shape(seen) - expected}: {seen}")
    events = seen["events"]
    assert (seen["correlationId"], seen["complete"], events[0]["eventId"]) == ("way-1", True, first["id"])
    published = await tables.fetch(
        'SELECT event_id FROM eventbus_outbox WHERE position(\'"correlationId":"way-1"\' IN meta) > 0'
    )
    assert sorted(str(row["event_id"]) for row in published) == sorted(event["eventId"] for event in events)
    depths: dict[str, int] = {}
    for event in events:
        assert event["depth"] == (depths[event["causedBy"]] + 1 if event["causedBy"] else 0), "its cause stands before"
        depths[event["eventId"]] = event["depth"]
        assert not event["orphan"]
        assert all(done["offsetMs"] >= event["offsetMs"] for done in event["executions"])
    assert [event["type"] for event in events if event["failed"] and event["type"] != LATER] == [
        "email.send_submission_confirmation"
    ]
    committed = await tables.fetch("SELECT event_id, group_name FROM eventbus_inbox")
    handled = {(event["eventId"], done["group"]) for event in events for done in event["executions"]}
    missed = {(str(row["event_id"]), row["group_name"]) for row in committed if str(row["event_id"]) in depths}
    assert missed <= handled, "whoever had an effect is named"
