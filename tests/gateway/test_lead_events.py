"""A lead's timeline: from its own facts, the event store and the outbox, each event once."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from eventbus import EventBus
from eventbus.contract.codec import encode
from eventbus.event import Envelope, unix_ms, uuid7
from eventbus.postgres.history import made
from handlers.lead.facts import LeadFacts
from handlers.lead.timeline_cursor import LATE
from tests.gateway.client import Client
from tests.gateway.conftest import Tables

LEAD = {"name": "Lea", "email": "lea@example.com"}
COLUMNS = "event_id, made_at, type, organization, subject, correlation_id, causation_id, meta, data"
A_SECOND = timedelta(seconds=1)

Told = tuple[str, int, float, str | None]  # of an execution: outcome, attempt, seconds ago, error
FAILED: Told = ("failed", 1, 3.0, "SMTP said no")
DONE: Told = ("completed", 2, 1.0, None)


class Store:
    """What the group `history` does, by hand."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def record(self, envelope: Envelope) -> None:
        event_id, kind, meta, data = [
            part if isinstance(part, str) else part.decode() for part in encode(envelope)[1::2]
        ]
        await self._tables.execute(
            f"INSERT INTO eventbus_events ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            *(event_id, made(event_id), kind, envelope.organization, envelope.subject),
            *(envelope.correlation, envelope.causation_id, meta, data),
        )

    async def record_outbox(self) -> None:
        for row in await self._tables.events():
            await self._tables.execute(
                f"INSERT INTO eventbus_events ({COLUMNS}) "
                "VALUES ($1, $2, $3, $4, $5, $6, null, $7, $8) ON CONFLICT DO NOTHING",
                *(row["event_id"], made(str(row["event_id"])), row["type"], row["organization"], row["subject"]),
                *(str(row["event_id"]), row["meta"], row["data"]),
            )

    async def execution(self, event_id: str, told: Told) -> None:
        outcome, attempt, ago, error = told
        await self._tables.execute(
            "INSERT INTO eventbus_executions (event_id, made_at, execution_id, group_name, attempt, outcome, seconds, "
            "error, finished_at) VALUES ($1, $2, $3, 'email', $4, $5, 0.1, $6, $7)",
            *(event_id, made(event_id), uuid7(), attempt, outcome, error, datetime.now(UTC) - ago * A_SECOND),
        )

    async def commit(self, event_id: str, ago: float) -> None:
        processed_at = datetime.now(UTC) - ago * A_SECOND
        await self._tables.execute("INSERT INTO eventbus_inbox VALUES ($1, 'email', $2)", event_id, processed_at)

    async def prune(self) -> None:
        """What the relay does with what is a week old."""
        await self._tables.execute("DELETE FROM eventbus_outbox")
        await self._tables.execute("DELETE FROM eventbus_inbox")


@pytest.fixture
async def store(tables: Tables) -> Store:
    for table in ("eventbus_events", "eventbus_executions"):
        await tables.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    return Store(tables)


def about(lead: Any, kind: str = "call.made", *, organization: str = "acme", ago: float = 0.0) -> Envelope:
    """An event about a lead that somebody published straight to Redis, so long ago."""
    event_id = uuid7()
    ms = f"{unix_ms(event_id) - int(ago * 1000):012x}"
    return Envelope(f"{ms[:8]}-{ms[8:]}{event_id[13:]}", kind, b'{"by": "phone"}', lead["id"], organization)


async def timeline(client: Client, lead: Any, limit: int = 50) -> list[Any]:
    items = await client.all_of(f"/api/leads/{lead['id']}/events?limit={limit}")
    ids = [item["id"] for item in items]
    assert len(set(ids)) == len(ids), "twice"
    return items


def kinds(items: list[Any]) -> list[str]:
    return [item["type"].removeprefix("lead.") for item in items]


async def changed_twice(ann: Client) -> Any:
    lead = (await ann.post("/api/leads", LEAD)).body
    for name in ("A", "B"):
        assert (await ann.patch(f"/api/leads/{lead['id']}", {"name": name})).status == 200
    return lead


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("pruned", [True, False])
async def test_every_event_is_shown_once_wherever_it_is_kept(
    recorded: bool, pruned: bool, ann: Client, store: Store
) -> None:
    lead = await changed_twice(ann)
    if recorded:
        await store.record_outbox()
    if pruned:
        await store.prune()
    for limit in (1, 2, 50):
        items = await timeline(ann, lead, limit)
        assert kinds(items) == ["created", "updated", "updated"]
        assert [item["version"] for item in items] == [1, 2, 3]
    [created, _, renamed] = await timeline(ann, lead)
    assert renamed["data"]["changes"] == {"name": {"old": "A", "new": "B"}}
    assert created["metadata"] == {"userId": "ann", "ipAddress": "127.0.0.1"}


async def test_what_is_older_than_the_outbox_is_shown_with_what_handled_it(
    ann: Client, tables: Tables, store: Store
) -> None:
    lead = (await ann.post("/api/leads", LEAD)).body
    task = (await ann.post("/api/tasks", {"title": "Call", "leadId": lead["id"]})).body
    await store.record_outbox()
    [created, *_] = before = await timeline(ann, lead)
    await store.execution(created["id"], DONE)
    await store.prune()
    after = await timeline(ann, lead)
    assert kinds(after) == kinds(before) == ["created", "task.created"]
    assert after[1]["data"]["taskId"] == task["id"]
    assert [(one["group"], one["outcome"], one["attempts"], one["error"]) for one in after[0]["handledBy"]] == [
        ("email", "completed", 2, None)
    ]


async def test_what_never_was_in_the_outbox_is_shown(ann: Client, store: Store) -> None:
    lead = await changed_twice(ann)
    await store.record(about(lead))
    items = await timeline(ann, lead, limit=1)
    assert kinds(items) == ["created", "updated", "updated", "call.made"]
    assert (items[3]["data"], items[3]["version"], items[3]["dueAt"]) == ({"by": "phone"}, None, None)


async def test_another_organizations_events_about_the_same_id_are_not_shown(
    ann: Client, stranger: Client, tables: Tables, store: Store
) -> None:
    lead = (await ann.post("/api/leads", LEAD)).body
    await store.record(about(lead, organization="umbrella"))
    columns = "event_id, id, organization, name, version, type, meta, data"
    for table, values in (
        ("outbox (event_id, subject, organization, type, meta, data)", "'umbrella', 'call.made', '', '{}'"),
        (f"aggregate_events ({columns})", "'umbrella', 'lead', 1, 'call.made', '', '{}'"),
        (f"aggregate_events ({columns})", "'acme', 'call', 1, 'call.made', '', '{}'"),
    ):
        await tables.execute(f"INSERT INTO eventbus_{table} VALUES ($1, $2, {values})", uuid7(), lead["id"])
    assert kinds(await timeline(ann, lead)) == ["created"]
    assert (await stranger.get(f"/api/leads/{lead['id']}/events")).status == 404


# Pages ----------------------------------------------------------------------------------------------------------------


async def test_what_arrives_between_two_pages_is_not_passed_over(ann: Client, store: Store) -> None:
    """Made before the page ended, and seen after it: recorded late, or committed late."""
    lead = (await ann.post("/api/leads", LEAD)).body
    for _ in range(5):
        await store.record(about(lead))
    first = (await ann.get(f"/api/leads/{lead['id']}/events?limit=3")).body
    late = [about(lead, "call.missed", ago=ago) for ago in (LATE - 10, 1.0)]
    for envelope in late:
        await store.record(envelope)
    rest = await ann.all_of(f"/api/leads/{lead['id']}/events?limit=2&cursor={first['nextCursor']}")
    assert {envelope.id for envelope in late} <= {item["id"] for item in rest}
    ids = [item["id"] for item in (*first["items"], *rest)]
    assert len(ids) == len(set(ids)) == 8
    assert sorted(ids) == [item["id"] for item in await timeline(ann, lead)]


@pytest.mark.parametrize("cursor", ["Nw", "A" * 3000, "%00", "8" * 22])
async def test_a_cursor_of_another_list_is_refused(cursor: str, ann: Client) -> None:
    lead = (await ann.post("/api/leads", LEAD)).body
    answer = await ann.get(f"/api/leads/{lead['id']}/events?cursor={cursor}")
    assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["query", "cursor"])


# What handled it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executed", "committed", "told"),
    [
        ([], None, []),
        ([], 1.0, [("completed", 1, None)]),
        ([DONE], None, [("completed", 2, None)]),
        ([DONE], 1.1, [("completed", 2, None)]),
        ([FAILED], None, [("failed", 1, "SMTP said no")]),
        ([FAILED, DONE], None, [("completed", 2, None)]),
        ([DONE, FAILED], None, [("completed", 2, None)]),  # written down in whatever order
        ([FAILED], 1.0, [("completed", 2, None)]),  # the second execution is not on record yet
        ([FAILED], 4.0, [("failed", 1, "SMTP said no")]),  # behind its transaction, and will be tried again
        ([("dead", 3, 1.0, "no")], None, [("dead", 3, "no")]),
        ([("snoozed", 1, 1.0, None)], None, [("snoozed", 1, None)]),
    ],
)
async def test_what_came_of_an_event_in_a_group_is_told(
    executed: list[Told], committed: float | None, told: list[Any], ann: Client, store: Store
) -> None:
    lead = (await ann.post("/api/leads", LEAD)).body
    [event] = await timeline(ann, lead)
    for execution in executed:
        await store.execution(event["id"], execution)
    if committed is not None:
        await store.commit(event["id"], committed)
    [event] = await timeline(ann, lead)
    assert [(one["outcome"], one["attempts"], one["error"]) for one in event["handledBy"]] == told


# The lead's own facts -------------------------------------------------------------------------------------------------


async def test_changes_at_once_wait_for_each_other_and_none_is_refused(ann: Client, funnel: Any, bus: EventBus) -> None:
    lead = (await ann.post("/api/leads", {**LEAD, "funnelId": funnel["id"]})).body
    changes = [ann.patch(f"/api/leads/{lead['id']}", {"name": f"Lea {n}"}) for n in range(12)]
    moves = [ann.post(f"/api/leads/{lead['id']}/move", {"stepId": funnel["steps"][n % 3]["id"]}) for n in range(6)]
    answers = await asyncio.gather(*changes, *moves)
    assert {answer.status for answer in answers[:12]} == {200}
    assert {answer.status for answer in answers[12:]} <= {200, 409}, "to the step in which it is: as ever"
    events = await timeline(ann, lead)
    assert sorted(event["version"] for event in events) == list(range(1, len(events) + 1))
    assert len(events) == 1 + sum(answer.status == 200 for answer in answers)


async def test_a_lead_is_what_its_facts_say(ann: Client, funnel: Any, bus: EventBus, tables: Tables) -> None:
    """Whatever was done to it."""
    chance = random.Random(7)
    steps = [step["id"] for step in funnel["steps"]]
    for _ in range(5):
        given = {"name": "Lea", "phone": chance.choice([None, "123"]), "stepId": chance.choice([None, *steps])}
        lead = (await ann.post("/api/leads", given)).body
        for _ in range(chance.randrange(8)):
            await ann.post(f"/api/leads/{lead['id']}/move", {"stepId": chance.choice(steps)})
            field = chance.choice(["email", "phone", "company", "assignedTo"])
            value = chance.choice([None, {"email": "l@example.org", "phone": "456"}.get(field, "x")])
            await ann.patch(f"/api/leads/{lead['id']}", {field: value, "status": chance.choice(["NEW", "WON"])})
        row = (await ann.get(f"/api/leads/{lead['id']}")).body
        async with bus.transaction() as tx:
            facts = await tx.load(LeadFacts, "acme", lead["id"])
        known = orjson.loads(facts.model_dump_json(exclude={"is_deleted"}))
        assert known == {
            "name": row["name"],
            "email": row["email"],
            "phone": row["phone"],
            "status": row["status"],
            "source": row["source"],
            "step_id": row["stepId"],
            "assigned_to": row["assignedTo"],
        }
        await ann.delete(f"/api/leads/{lead['id']}")
        async with bus.transaction() as tx:
            assert (await tx.load(LeadFacts, "acme", lead["id"])).is_deleted


async def test_a_lead_from_before_its_facts_were_kept_goes_on(ann: Client, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", LEAD)).body
    for table in ("eventbus_aggregates", "eventbus_aggregate_events"):
        await tables.execute(f"DELETE FROM {table}")
    assert (await ann.patch(f"/api/leads/{lead['id']}", {"name": "A"})).status == 200
    assert [(event["type"], event["version"]) for event in await timeline(ann, lead)] == [
        ("lead.created", None),
        ("lead.updated", 1),
    ]


async def test_a_refused_change_leaves_no_fact(ann: Client, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", LEAD)).body
    for content in ({"name": None, "email": None}, {"name": "Lea"}, {"status": ""}):
        await ann.patch(f"/api/leads/{lead['id']}", content)
    assert await tables.count("eventbus_aggregate_events") == 1
