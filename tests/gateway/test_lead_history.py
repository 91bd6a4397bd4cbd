"""A lead's timeline with the event store at work: nothing of it goes when outbox and inbox forget."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from eventbus import EventBus
from eventbus.roles import stream_discovery
from tests.gateway.client import Client
from tests.gateway.conftest import Tables
from tests.gateway.test_lead_events import timeline
from tests.waiting import eventually

A_YEAR = timedelta(days=365)
HANDLED = {
    "lead.created": {"lead-automation", "task-automation"},
    "notification.create": {"notification"},
    "lead.calculate_score": {"lead"},
}
RECORDED = "DELETE FROM eventbus_outbox WHERE event_id IN (SELECT event_id FROM eventbus_events)"


@pytest.fixture
async def bus(redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EventBus]:
    monkeypatch.setattr(stream_discovery, "INTERVAL", 0.2)
    monkeypatch.setattr(stream_discovery, "REST", 1)
    async with EventBus(redis_url, database=database_url, history=A_YEAR) as bus:
        yield bus


async def test_what_outbox_and_inbox_forget_stays_on_the_timeline(ann: Client, tables: Tables, worker: None) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea", "assignedTo": "ann"})).body

    async def handled() -> list[Any] | None:
        items = await timeline(ann, lead)
        done = {item["type"]: {one["group"] for one in item["handledBy"]} for item in items}
        told = [one for item in items for one in item["handledBy"]]
        written = await tables.number("SELECT count(*) FROM eventbus_executions") >= sum(map(len, HANDLED.values()))
        recorded = await tables.number("SELECT count(*) FROM eventbus_events") >= len(HANDLED)
        assert all((one["outcome"], one["attempts"], one["error"]) == ("completed", 1, None) for one in told)
        return items if written and recorded and HANDLED.items() <= done.items() else None

    before = await eventually(handled) or []
    await tables.execute(RECORDED)
    await tables.execute("DELETE FROM eventbus_inbox")
    assert {event["type"] for event in await tables.events()} == {"lead.enrich"}, "it is not due, so nobody has seen it"
    after = await timeline(ann, lead)
    assert [(item["id"], item["data"], {one["group"] for one in item["handledBy"]}) for item in after] == [
        (item["id"], item["data"], {one["group"] for one in item["handledBy"]}) for item in before
    ]
