"""A lead's first ten seconds, by the clock: nobody waits for what polls or sleeps, however busy the machine is."""

import asyncio
import time
from datetime import datetime
from statistics import median
from typing import Any

from aiohttp import ClientWebSocketResponse

from eventbus import EventBus
from handlers.lead.reactions import ENRICHMENT_DELAY
from handlers.partners.services import SERVICES, Services
from tests.gateway.client import Client
from tests.mailserver import mail_server
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE, eventually

LEAD = {"name": "Lea", "email": "lea@example.com", "phone": "+49 30 1234567", "assignedTo": "ann"}
PAUSE = 0.2  # seconds between leads, for the house to come to rest
LEADS = 9
NOTIFIED, ENRICHED = 0.25, 0.2  # seconds; who waits for a relay that sleeps, or for a look at a schedule, waits for one
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


async def _notified(ann: Client, socket: ClientWebSocketResponse) -> tuple[Any, float]:
    """A lead, and the seconds from its event to the notification on the socket."""
    await asyncio.sleep(PAUSE)
    with Stopwatch() as watch:
        answer = await ann.post("/api/leads", LEAD)
        assert answer.status == 201, answer.body
        lead = answer.body
        frame = await socket.receive_json(timeout=PATIENCE)
        at = time.time()
    assert frame["data"]["actionUrl"] == f"/leads/{lead['id']}"
    created = _when((await _events(ann, lead))["lead.created"]["time"])
    return lead, at - created - watch.kept_waiting


async def test_a_lead_is_notified_scored_mailed_and_enriched_in_time(ann: Client, bus: EventBus, worker: None) -> None:
    async with mail_server() as server, ann.socket() as socket:
        bus.resources.provide(
            SERVICES, Services(smtp_url=server.url, email_from="sales@acme.example", enrichment_url=None)
        )
        await socket.receive_json(timeout=PATIENCE)
        with Stopwatch() as watch:
            found = [await _notified(ann, socket) for _ in range(LEADS)]
            told = [await _whole(ann, lead) for lead, _ in found]
    assert median(notified for _, notified in found) <= NOTIFIED, found

    late = []
    for (lead, _), events in zip(found, told, strict=True):
        state = (await ann.get(f"/api/leads/{lead['id']}")).body
        assert state["score"] == 75
        assert (state["enrichment"]["source"], state["enrichment"]["phone"]["country"]) == ("derived", "DE")
        at = _when(state["enrichment"]["enrichedAt"])
        assert at >= _when(events["lead.enrich"]["dueAt"]), "never early"
        late.append(at - _when(events["lead.created"]["time"]) - ENRICHMENT_DELAY)
    assert min(late) >= 0
    assert median(late) <= ENRICHED + watch.kept_waiting, late
    assert {mail.to for mail in server.received} == {LEAD["email"]}
    assert len(server.received) == LEADS
