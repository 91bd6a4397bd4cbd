"""GET /api/events/{id}/trace: what a request has led to, and who may know."""

from typing import Any

from eventbus import EventBus
from eventbus.contract.history import Ending
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Envelope, uuid7
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.test_problems import assert_problem
from tests.stored import execution, partition, record, record_executions


def event(name: str, cause: Envelope | None = None, *, organization: str = "acme", data: bytes = b"{}") -> Envelope:
    return Envelope(uuid7(), name, data, "lead-1", organization, "way-1", cause.id if cause else None)


ROOT = event("lead.created")
NOTE = event("notification.create", ROOT, data=b'{"userId":"ann"}')
PUSHED = event("notification.send_push", NOTE)
# The same correlation id, which anybody may send.
THEIRS = event("lead.created", organization="umbrella")
THEIR_EFFECT = event("lead.enrich", ROOT, organization="umbrella")


async def fill(tables: Tables) -> None:
    await partition(tables)
    await record(tables, [PUSHED, NOTE, ROOT, THEIRS, THEIR_EFFECT])
    done = [
        execution(ROOT, "lead-automation", Ending.FAILED, 1, "OSError: away"),
        execution(ROOT, "lead-automation", Ending.COMPLETED, 2),
        execution(PUSHED, "notification", Ending.DEAD, 2, "gone"),
        execution(THEIRS, "lead-automation"),
    ]
    await record_executions(tables, done)


def shape(told: dict[str, Any]) -> list[tuple[str, int, bool]]:
    return [(found["eventId"], found["depth"], found["orphan"]) for found in told["events"]]


async def test_events_and_handlers_in_the_order_of_causes(admin: Client, tables: Tables) -> None:
    await fill(tables)
    told = (await admin.get(f"/api/events/{ROOT.id}/trace")).body
    assert (await admin.get(f"/api/events/{PUSHED.id}/trace")).body == told
    assert shape(told) == [(ROOT.id, 0, False), (NOTE.id, 1, False), (PUSHED.id, 2, False)]
    assert (told["correlationId"], told["complete"]) == ("way-1", True)
    root, note, pushed = told["events"]
    assert [(done["group"], done["attempt"], done["outcome"], done["error"]) for done in root["executions"]] == [
        ("lead-automation", 1, "failed", "OSError: away"),
        ("lead-automation", 2, "completed", None),
    ]
    assert (root["executions"][1]["durationMs"], root["executions"][1]["offsetMs"]) == (250.0, 2000.0)
    assert [found["failed"] for found in (root, note, pushed)] == [False, False, True]
    assert (root["type"], root["subject"], root["place"], note["causedBy"]) == (
        "lead.created",
        "lead-1",
        "recorded",
        ROOT.id,
    )


async def test_nothing_of_another_organization_is_seen_though_it_has_the_same_correlation(
    admin: Client, stranger: Client, tables: Tables
) -> None:
    await fill(tables)
    told = (await stranger.get(f"/api/events/{THEIRS.id}/trace")).body
    assert shape(told) == [(THEIRS.id, 0, False), (THEIR_EFFECT.id, 0, True)]
    for caller, asked in ((stranger, ROOT), (stranger, PUSHED), (admin, THEIRS), (admin, THEIR_EFFECT)):
        path = f"/api/events/{asked.id}/trace"
        assert_problem(await caller.get(path), 404, path)


async def test_what_is_meant_for_one_user_is_left_out_for_the_others(
    ann: Client, gateway: Gateway, tables: Tables
) -> None:
    await fill(tables)
    told = (await ann.get(f"/api/events/{ROOT.id}/trace")).body
    assert shape(told) == [(ROOT.id, 0, False), (NOTE.id, 1, False), (PUSHED.id, 2, False)]
    bob = gateway.caller("bob", "acme")
    told = (await bob.get(f"/api/events/{ROOT.id}/trace")).body
    assert shape(told) == [(ROOT.id, 0, False), (PUSHED.id, 0, True)]
    path = f"/api/events/{NOTE.id}/trace"
    assert_problem(await bob.get(path), 404, path)


async def test_before_anything_is_recorded(ann: Client, stranger: Client, gateway: Gateway) -> None:
    created = await ann.post("/api/leads", {"name": "Lea"})
    [event] = (await ann.get(f"{created.headers['Location']}/events")).body["items"]
    path = f"/api/events/{event['id']}/trace"
    [told] = (await ann.get(path)).body["events"]
    assert (told["eventId"], told["place"], told["executions"]) == (event["id"], "outbox", [])
    assert_problem(await stranger.get(path), 404, path)
    assert_problem(await gateway.bearer("").get(path), 401, path)


async def test_what_is_no_event(admin: Client) -> None:
    for event_id in ("x", "01a20176-0000-4000-8000-000000000001", "01a20176-0000-7000-8000-000000000001"):
        path = f"/api/events/{event_id}/trace"
        assert_problem(await admin.get(path), 404, path)


async def test_what_is_in_redis_alone(admin: Client, stranger: Client, bus: EventBus, tables: Tables) -> None:
    await fill(tables)
    ours, theirs = event("lead.enrich", ROOT), event("lead.enrich", ROOT, organization="umbrella")
    await bus.transport.append([Outgoing(one, 60.0) for one in (ours, theirs)])
    told = (await admin.get(f"/api/events/{ROOT.id}/trace")).body
    assert [(found["eventId"], found["place"]) for found in told["events"] if found["dueAt"]] == [
        (ours.id, "scheduled")
    ]
    seen = (await stranger.get(f"/api/events/{THEIRS.id}/trace")).body["events"]
    assert {found["eventId"] for found in seen} == {THEIRS.id, THEIR_EFFECT.id, theirs.id}


async def test_large_events_are_judged_by_all_that_they_say(
    ann: Client, admin: Client, gateway: Gateway, bus: EventBus, tables: Tables
) -> None:
    """Their data is not read with the others': it would fill the memory."""
    await fill(tables)
    large = b'{"x":"%s","userId":"ann"}' % (b"x" * 20_000)
    note, open_to_all = (
        event("notification.create", ROOT, data=large),
        event("lead.enrich", ROOT, data=b'{"x":"%s"}' % (b"x" * 20_000)),
    )
    await record(tables, [note, open_to_all])
    carried = event("notification.create", ROOT, data=large)
    await bus.transport.append([Outgoing(carried)])

    async def seen_by(caller: Client) -> set[str]:
        told = (await caller.get(f"/api/events/{ROOT.id}/trace")).body["events"]
        return {found["eventId"] for found in told} & {note.id, open_to_all.id, carried.id}

    assert await seen_by(admin) == {note.id, open_to_all.id, carried.id}
    assert await seen_by(ann) == {note.id, open_to_all.id}, "of what is in Redis alone nobody can tell for whom it is"
    assert await seen_by(gateway.caller("bob", "acme")) == {open_to_all.id}


async def test_what_is_no_json_is_for_the_eyes_of_those_who_mend(ann: Client, admin: Client, tables: Tables) -> None:
    await fill(tables)
    poison = event("lead.enrich", ROOT, data=b"{no")
    await record(tables, [poison])
    seen = {caller: (await caller.get(f"/api/events/{ROOT.id}/trace")).body["events"] for caller in (ann, admin)}
    assert [poison.id in {found["eventId"] for found in events} for events in seen.values()] == [False, True]
    assert (await admin.get(f"/api/events/{poison.id}")).body["envelope"]["data"] == "{no"
    path = f"/api/events/{poison.id}"
    assert_problem(await ann.get(path), 404, path)
