"""GET /api/events/{id}: where an event is, what caused it and what it caused, and who may know."""

import pytest

from eventbus.event import Envelope, uuid7
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.test_events import EVENT, send
from tests.gateway.test_problems import assert_problem
from tests.stored import partition, record
from tests.waiting import eventually


async def published(caller: Client, **changes: object) -> str:
    answer = await send(caller, EVENT | changes)
    assert answer.status == 202, answer
    event_id: str = answer.body["eventId"]
    return event_id


async def test_the_chain_of_a_lead(ann: Client, admin: Client, gateway: Gateway, worker: None) -> None:
    created = await ann.post("/api/leads", {"name": "Lea", "email": "lea@example.com", "assignedTo": "ann"})
    [event] = (await ann.get(f"{created.headers['Location']}/events")).body["items"][:1]

    async def all_caused() -> bool:
        return len((await ann.get(f"/api/events/{event['id']}")).body["causes"]) == 4

    await eventually(all_caused)
    told = (await ann.get(f"/api/events/{event['id']}")).body
    kinds = {}
    for caused in told["causes"]:
        effect = (await ann.get(f"/api/events/{caused}")).body
        assert effect["causedBy"] == event["id"]
        kinds[effect["envelope"]["type"]] = effect
    assert {"lead.enrich", "lead.calculate_score", "notification.create"} < kinds.keys()
    assert kinds["lead.enrich"]["status"] in {"outbox", "scheduled"}

    async def relayed() -> bool:
        enrich = (await ann.get(f"/api/events/{kinds['lead.enrich']['eventId']}")).body
        return bool(enrich["status"] == "scheduled" and enrich["dueAt"] > event["time"])

    await eventually(relayed)
    note, bob = kinds["notification.create"]["eventId"], gateway.caller("bob", "acme")
    statuses = [(await caller.get(f"/api/events/{note}")).status for caller in (admin, ann, bob)]
    assert statuses == [200, 200, 404], "it is told to ann alone"
    assert (await bob.get(f"/api/events/{event['id']}")).status == 200


async def test_before_the_relay_and_after_the_trimming(ann: Client, tables: Tables) -> None:
    created = await ann.post("/api/leads", {"name": "Lea"})
    [event] = (await ann.get(f"{created.headers['Location']}/events")).body["items"]
    told = (await ann.get(f"/api/events/{event['id']}")).body
    assert (told["status"], told["groups"], told["envelope"]["data"]["name"]) == ("outbox", [], "Lea")
    await tables.execute("UPDATE eventbus_outbox SET published_at = now()")
    await tables.execute(
        "INSERT INTO eventbus_inbox (event_id, group_name) VALUES ($1, 'task-automation')", event["id"]
    )
    told = (await ann.get(f"/api/events/{event['id']}")).body
    assert (told["status"], told["groups"][0]["state"]) == ("gone", "completed")
    assert told["notKnown"][0].startswith("groups:")


async def test_what_is_recorded_is_told_of_when_nobody_else_knows_it_any_more(
    admin: Client, stranger: Client, tables: Tables
) -> None:
    recorded = Envelope(uuid7(), "lead.created", b'{"leadId":"lead-1"}', "lead-1", "acme", "way-1")
    await partition(tables)
    await record(tables, [recorded])
    told = (await admin.get(f"/api/events/{recorded.id}")).body
    assert (told["status"], told["envelope"]["data"], told["groups"]) == ("gone", {"leadId": "lead-1"}, [])
    path = f"/api/events/{recorded.id}"
    assert_problem(await stranger.get(path), 404, path)


async def test_an_event_of_another_organization_is_not_found(
    ann: Client, admin: Client, stranger: Client, gateway: Gateway
) -> None:
    mine = await published(admin)
    created = await ann.post("/api/leads", {"name": "Lea"})
    [event] = (await ann.get(f"{created.headers['Location']}/events")).body["items"]
    system = gateway.caller("importer", "umbrella", "system")
    for caller in (stranger, system):
        for event_id in (mine, event["id"]):
            path = f"/api/events/{event_id}"
            assert_problem(await caller.get(path), 404, path)


@pytest.mark.parametrize(
    "event_id", ["x", "A-1", "01a20176-0000-4000-8000-000000000001", "01a20176-0000-7000-8000-00000000000g"]
)
async def test_what_is_no_id_of_an_event_is_not_found(event_id: str, admin: Client) -> None:
    assert_problem(await admin.get(f"/api/events/{event_id}"), 404, f"/api/events/{event_id}")


async def test_what_was_never_there(admin: Client, gateway: Gateway) -> None:
    path = "/api/events/01a20176-0000-7000-8000-000000000001"
    assert_problem(await admin.get(path), 404, path)
    assert_problem(await gateway.bearer("").get(path), 401, path)
