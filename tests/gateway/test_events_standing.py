"""GET /api/events/{id} of events that are in their stream: what every group has made of them."""

from typing import Any

from eventbus import Backoff, Context, EventBus, Group, Reject, RetryPolicy
from handlers.lead.events import EnrichLead
from tests.gateway.client import Client, Gateway
from tests.gateway.test_events import EVENT
from tests.gateway.test_events_followed import published
from tests.waiting import eventually
from tests.working import working


def failing(name: str, error: Exception, **policy: Any) -> Group:
    group = Group(name, **policy)

    @group.on(EnrichLead)
    async def fail(event: EnrichLead, ctx: Context) -> None:
        raise error

    return group


def content(name: str, **policy: Any) -> Group:
    group = Group(name, **policy)

    @group.on(EnrichLead)
    async def work(event: EnrichLead, ctx: Context) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute("SELECT 1")

    return group


async def groups(caller: Client, event_id: str) -> dict[str, dict[str, Any]]:
    answer = await caller.get(f"/api/events/{event_id}")
    assert answer.status == 200, answer
    return {told["group"]: told for told in answer.body["groups"]}


async def test_an_event_that_nobody_has_taken_yet(admin: Client) -> None:
    event_id = await published(admin, correlationid="order-7")
    told = (await admin.get(f"/api/events/{event_id}")).body
    assert (told["eventId"], told["status"], told["groups"], told["dueAt"]) == (event_id, "stored", [], None)
    assert (told["causedBy"], told["causes"]) == (None, [])
    envelope = told["envelope"]
    assert envelope["metadata"]["cloudEventId"] == EVENT["id"]
    assert envelope["data"]["organizationId"] == "acme"
    expected = {"id": event_id, "type": EVENT["type"], "source": EVENT["source"], "subject": "lead-1", "priority": 5}
    assert expected.items() <= envelope.items()
    assert (envelope["correlationId"], envelope["organizationId"]) == ("order-7", "acme")


async def test_each_group_has_a_state_of_its_own(admin: Client, bus: EventBus) -> None:
    event_id = await published(admin)
    slow = failing("slow", RuntimeError("not today"), retry=RetryPolicy(attempts=3, backoff=Backoff.fixed(60.0)))
    strict, good = failing("strict", Reject("never")), content("good")
    noted = failing(
        "noted", RuntimeError("told"), track=True, retry=RetryPolicy(attempts=2, backoff=Backoff.fixed(60.0))
    )
    async with working(bus, slow, strict, good, noted):

        async def settled() -> bool:
            found = await groups(admin, event_id)
            states = [found.get(name, {}).get("state") for name in ("slow", "strict", "good", "noted")]
            return states == ["delayed", "failed", "completed", "delayed"] and found["noted"]["error"] is not None

        await eventually(settled)
    found = await groups(admin, event_id)
    assert (found["slow"]["attempts"], found["slow"]["error"]) == (1, None)
    assert found["slow"]["retryAt"] is not None
    assert (found["noted"]["attempts"], found["noted"]["error"]) == (1, "RuntimeError: told")
    assert (found["strict"]["attempts"], found["strict"]["error"]) == (1, "Reject: never")
    assert found["strict"]["deadLetter"].startswith("lead/")
    assert (found["good"]["attempts"], found["good"]["committedAt"] is None) == (None, False)
    unknown = (await admin.get(f"/api/events/{event_id}")).body["notKnown"]
    assert [text.partition(":")[0] for text in unknown] == ["attempts", "error", "causes"]


async def test_a_replay_tells_the_last_of_it(admin: Client, bus: EventBus) -> None:
    event_id = await published(admin)
    async with working(bus, failing("strict", Reject("never"))):

        async def dead() -> bool:
            return (await groups(admin, event_id)).get("strict", {}).get("state") == "failed"

        await eventually(dead)
    [letter] = await bus.transport.dead_letters("lead")
    await bus.transport.replay(letter)
    assert (await groups(admin, event_id))["strict"]["state"] == "waiting"
    async with working(bus, content("strict")):

        async def done() -> bool:
            state: str = (await groups(admin, event_id))["strict"]["state"]
            return state == "completed"

        await eventually(done)


async def test_what_is_for_one_user_is_not_found_by_another(admin: Client, ann: Client, gateway: Gateway) -> None:
    data = {"userId": "ann", "title": "t", "message": "m", "notificationType": "INFO"}
    event_id = await published(admin, type="notification.create", data=data)
    lead = await published(admin)
    bob = gateway.caller("bob", "acme")
    statuses = [(await caller.get(f"/api/events/{event_id}")).status for caller in (admin, ann, bob)]
    assert statuses == [200, 200, 404]
    assert (await bob.get(f"/api/events/{lead}")).status == 200
