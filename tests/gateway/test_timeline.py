"""A lead's first ten seconds, by the clock: what is promised of a machine that has nothing else to do, so several leads
are measured and the middle one counts."""

import asyncio
import time
from datetime import datetime
from statistics import median
from typing import Any

import pytest

from eventbus import EventBus
from eventbus.postgres.relay import LONGEST_PAUSE
from handlers.lead.automation import ENRICHMENT_DELAY
from handlers.services import SERVICES, Services
from tests.gateway.client import Client
from tests.mailserver import mail_server
from tests.waiting import eventually

pytestmark = pytest.mark.serial

LEAD = {"name": "Lea", "email": "lea@example.com", "phone": "+49 30 1234567", "assignedTo": "ann"}
PAUSE = 0.2  # seconds between leads, for the house to come to rest
NOTIFIED, ENRICHED = 0.05, 0.2  # seconds
EXPECTED = {
    "lead.created": {"lead-automation"},  # without a step, task-automation has nothing to do and leaves no trace
    "notification.create": {"notification"},
    "lead.calculate_score": {"lead"},
    "lead.enrich": {"lead"},
    "email.send_submission_confirmation": {"email"},
}


def _when(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


async def _events(ann: Client, lead: Any) -> dict[str, Any]:
    """By type; there is one of each."""
    items = await ann.all_of(f"/api/leads/{lead['id']}/events")
    assert len({item["type"] for item in items}) == len(items)
    return {item["type"]: item for item in items}


async def _whole(ann: Client, lead: Any) -> dict[str, Any]:
    """Its events, when all have come and been handled."""

    async def there() -> dict[str, Any] | None:
        events = await _events(ann, lead)
        done = {kind: {one["group"] for one in event["handledBy"]} for kind, event in events.items()}
        return events if done == EXPECTED else None

    return await eventually(there) or {}


async def test_a_lead_is_notified_scored_mailed_and_enriched_in_time(ann: Client, bus: EventBus, worker: None) -> None:
    leads, notified = [], []
    async with mail_server() as server, ann.socket() as socket:
        bus.provide(SERVICES, Services(smtp_url=server.url, email_from="sales@acme.example", enrichment_url=None))
        await socket.receive_json(timeout=5)
        for _ in range(9):
            await asyncio.sleep(PAUSE)
            leads.append((await ann.post("/api/leads", LEAD)).body)
            frame = await socket.receive_json(timeout=5)
            notified.append(time.time())
            assert frame["data"]["actionUrl"] == f"/leads/{leads[-1]['id']}"
        told = [await _whole(ann, lead) for lead in leads]
    ordered = [at - _when(events["notification.create"]["time"]) for at, events in zip(notified, told, strict=True)]
    assert median(ordered) <= NOTIFIED, ordered
    created = [at - _when(events["lead.created"]["time"]) for at, events in zip(notified, told, strict=True)]
    assert median(created) <= NOTIFIED + LONGEST_PAUSE, created  # the relay of a house at rest looks so often

    enriched = []
    for lead, events in zip(leads, told, strict=True):
        state = (await ann.get(f"/api/leads/{lead['id']}")).body
        assert state["score"] == 75
        assert (state["enrichment"]["source"], state["enrichment"]["phone"]["country"]) == ("derived", "DE")
        at = _when(state["enrichment"]["enrichedAt"])
        assert at >= _when(events["lead.enrich"]["dueAt"]), "never early"
        enriched.append(at - _when(events["lead.created"]["time"]) - ENRICHMENT_DELAY)
    assert min(enriched) >= 0
    assert median(enriched) <= ENRICHED, enriched
    assert {mail.to for mail in server.received} == {LEAD["email"]}
    assert len(server.received) == len(leads)
    print(*(f"{name} {max(found):.3f} s" for name, found in (("notified", ordered), ("enriched", enriched))))
