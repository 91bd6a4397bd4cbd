"""What changed and deleted leads set off, and leave behind."""

from typing import Any

from eventbus import EventBus
from handlers import jobs
from handlers.lead.events import EnrichLead, LeadDeleted, LeadUpdated
from handlers.lead.reactions import lead_automation
from handlers.partners.services import SERVICES, Services
from handlers.task.events import TaskExpired
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables, told
from tests.gateway.test_enrichment import settled
from tests.gateway.test_leads import NOWHERE
from tests.waiting import eventually
from tests.working import working

LEAD = {"name": "Lea", "email": "lea@example.com"}


async def handled(tables: Tables, kind: str, group: str, count: int) -> None:
    """Until so many events of this type have had their effect in the group."""

    async def there() -> bool:
        query = (
            "SELECT count(*) FROM eventbus_inbox JOIN eventbus_outbox USING (event_id) "
            f"WHERE type = '{kind}' AND group_name = '{group}'"
        )
        return await tables.number(query) == count

    await eventually(there)


async def score_of(ann: Client, lead: Any) -> int | None:
    score: int | None = (await ann.get(f"/api/leads/{lead['id']}")).body["score"]
    return score


async def test_a_change_of_what_the_score_depends_on_is_scored_anew(ann: Client, tables: Tables, worker: None) -> None:
    lead = (await ann.post("/api/leads", LEAD)).body
    await eventually(lambda: _is(ann, lead, 55))
    await ann.patch(f"/api/leads/{lead['id']}", {"email": "lea@gmail.com", "source": "REFERRAL"})
    await eventually(lambda: _is(ann, lead, 50))
    await ann.patch(f"/api/leads/{lead['id']}", {"status": "WON"})
    await handled(tables, "lead.updated", "lead-automation", 2)
    assert len(await tables.events("lead.calculate_score")) == 2


async def _is(ann: Client, lead: Any, score: int) -> bool:
    return await score_of(ann, lead) == score


async def test_whoever_is_assigned_now_hears_of_it(ann: Client, gateway: Gateway, tables: Tables, worker: None) -> None:
    lead = (await ann.post("/api/leads", {**LEAD, "assignedTo": "ann"})).body
    await ann.patch(f"/api/leads/{lead['id']}", {"assignedTo": "bob"})
    bob = gateway.caller("bob", "acme")

    async def notified() -> list[Any]:
        return await bob.all_of("/api/notifications")

    [notice] = await eventually(notified)
    assert {"title": "Lead assigned", "message": "Lea was assigned to you", "notificationType": "INFO"}.items() <= (
        notice.items()
    )
    assert notice["actionUrl"] == f"/leads/{lead['id']}"
    await ann.patch(f"/api/leads/{lead['id']}", {"assignedTo": None})
    await handled(tables, "lead.updated", "lead-automation", 2)
    assert len(await tables.events("notification.create")) == 2


async def test_who_has_lost_it_again_meanwhile_is_not_bothered(bus: EventBus, ann: Client, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", LEAD)).body
    for user in ("bob", "cid"):
        await ann.patch(f"/api/leads/{lead['id']}", {"assignedTo": user})
    async with working(bus, lead_automation):
        await handled(tables, "lead.updated", "lead-automation", 2)
    assert [told(event)["userId"] for event in await tables.events("notification.create")] == ["cid"]


async def test_changes_of_what_is_gone_or_makes_no_sense_do_nothing(
    bus: EventBus, ann: Client, tables: Tables, worker: None
) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea"})).body["id"]
    await handled(tables, "lead.created", "lead-automation", 1)
    changes = {"assignedTo": {"old": None, "new": "bob"}, "email": {"old": None, "new": "x"}}
    async with bus.transaction() as tx:
        for lead_id, organization in ((NOWHERE, "acme"), ("lead-1", "acme"), (lead, "umbrella")):
            await tx.publish(LeadUpdated(lead_id=lead_id, organization_id=organization, changes=changes))
            await tx.publish(LeadDeleted(lead_id=lead_id, organization_id=organization))
        await tx.publish(LeadUpdated(lead_id=lead, organization_id="acme", changes={"assignedTo": {}}))
    await handled(tables, "lead.updated", "lead-automation", 3)  # "lead-1" is looked up nowhere
    await handled(tables, "lead.deleted", "lead-automation", 3)
    assert await tables.events("notification.create") == []
    assert len(await tables.events("lead.calculate_score")) == 1  # of its creation
    assert (await ann.get(f"/api/leads/{lead}")).status == 200


# Deleted -------------------------------------------------------------------------------------------------------------


async def scheduled(bus: EventBus, tables: Tables, kind: str) -> set[str]:
    """What the events of this type are about that wait for their time in Redis."""
    stream = kind.partition(".")[0]
    return {
        event["subject"]
        for event in await tables.events(kind)
        if (await bus.events.locate(str(event["event_id"]), [stream])).scheduled is not None
    }


async def test_what_is_scheduled_about_a_deleted_lead_is_taken_back(
    bus: EventBus, ann: Client, stranger: Client, tables: Tables, worker: None
) -> None:
    lead = (await ann.post("/api/leads", LEAD)).body
    other = (await ann.post("/api/leads", LEAD)).body
    for each in (lead, other):
        await ann.post("/api/tasks", {"title": "Call", "leadId": each["id"], "dueAt": "2150-01-01T00:00:00Z"})

    async def waiting() -> bool:
        found = [await scheduled(bus, tables, kind) for kind in ("lead.enrich", "task.expired")]
        return found == [{lead["id"], other["id"]}] * 2

    await eventually(waiting)
    async with bus.transaction() as tx:  # of an organization that has no such lead
        await tx.publish(LeadDeleted(lead_id=other["id"], organization_id="umbrella"))
    await ann.delete(f"/api/leads/{lead['id']}")
    await handled(tables, "lead.deleted", "lead-automation", 2)
    assert await scheduled(bus, tables, "lead.enrich") == {other["id"]}
    assert await scheduled(bus, tables, "task.expired") == {other["id"]}


async def test_what_slips_through_does_nothing(bus: EventBus, ann: Client, tables: Tables, worker: None) -> None:
    """Deleted before the relay came by, or due later than the outbox remembers: these events arrive all the same."""
    bus.resources.provide(SERVICES, Services(enrichment_url="http://127.0.0.1:1/not-to-be-called"))
    lead = (await ann.post("/api/leads", {"name": "Lea", "assignedTo": "ann"})).body
    task = (await ann.post("/api/tasks", {"title": "Call", "leadId": lead["id"]})).body
    await handled(tables, "lead.created", "lead-automation", 1)
    before = len(await tables.events("notification.create"))
    await ann.delete(f"/api/leads/{lead['id']}")
    arrived = [
        await bus.publish(EnrichLead(lead_id=lead["id"], organization_id="acme")),
        await bus.publish(TaskExpired(task_id=task["id"], lead_id=lead["id"], organization_id="acme", title="Call")),
        await jobs.calculate_lead_score(bus, lead=lead["id"], organization="acme"),
    ]
    await ann.post("/api/leads", {"name": "Last"})
    await handled(tables, "lead.calculate_score", "lead", 2)

    await settled(bus, [receipt.id for receipt in arrived])
    assert await tables.count("tasks") == 0
    assert len(await tables.events("notification.create")) == before
    assert [await bus.transport.dead_letters(stream) for stream in ("lead", "task")] == [[], []]
