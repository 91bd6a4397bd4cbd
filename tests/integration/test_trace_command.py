"""`eventbus trace`: the tree on one screen, and as JSON."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from eventbus import Event, EventBus
from eventbus.contract.history import Ending
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Envelope, Origin, uuid7
from eventbus.postgres import gather
from tests.integration.commands import Run, assert_fits
from tests.integration.commands import eventbus_here as eventbus
from tests.stored import execution, partition, record, record_executions


class Placed(Event, type="purchase.placed"):
    number: int = 0


def event(name: str, cause: Envelope | None = None, correlation: str = "c-1") -> Envelope:
    return Envelope(uuid7(), name, b"{}", "order-1", "acme", correlation, cause.id if cause else None)


ROOT = event("purchase.placed")
PAID = event("invoice.paid", ROOT)
SENT = event("mail.sent", PAID)
SHIPPED = event("parcel.shipped", ROOT)
THEIRS = event("purchase.placed", correlation="c-2")
DONE = [
    execution(ROOT, "billing", Ending.FAILED, 1, "OSError: bank away"),
    execution(ROOT, "billing", Ending.COMPLETED, 2),
    execution(PAID, "mail"),
    execution(SENT, "mail", Ending.DEAD, 1, "no\x1b[31m address"),
]


@pytest.fixture
async def bus(redis_url: str, migrated_url: str) -> AsyncIterator[EventBus]:
    async with EventBus(redis_url, database=migrated_url) as bus:
        async with bus.transaction() as tx:
            await partition(tx.connection)
            await record(tx.connection, [SHIPPED, SENT, PAID, THEIRS, ROOT])
            await record_executions(tx.connection, DONE)
        yield bus


@pytest.fixture
def here(redis_url: str, migrated_url: str) -> dict[str, str]:
    return {"EVENTBUS_REDIS_URL": redis_url, "EVENTBUS_DATABASE_URL": migrated_url}


def traced(event_id: str, here: dict[str, str]) -> list[Any]:
    run = eventbus("trace", event_id, "--json", **here)
    assert run.returncode == 0, run.stderr
    nodes: list[Any] = json.loads(run.stdout)["events"]
    return nodes


def test_a_tree_from_whichever_of_its_events_is_asked_for(bus: EventBus, here: dict[str, str]) -> None:
    told = traced(SENT.id, here)
    assert [(node["eventId"], node["depth"]) for node in told] == [
        (ROOT.id, 0),
        (PAID.id, 1),
        (SENT.id, 2),
        (SHIPPED.id, 1),
    ]
    assert traced(ROOT.id, here) == traced(SHIPPED.id, here) == told
    root, paid, sent, shipped = told
    assert [(done["group"], done["attempt"], done["outcome"]) for done in root["executions"]] == [
        ("billing", 1, "failed"),
        ("billing", 2, "completed"),
    ]
    assert [node["failed"] for node in (root, paid, sent, shipped)] == [False, False, True, False]
    assert (root["offset"], root["subject"], root["organization"]) == (0.0, "order-1", "acme")


def test_a_person_sees_what_failed_on_one_screen(bus: EventBus, here: dict[str, str]) -> None:
    run = eventbus("trace", SENT.id, **here | {"COLUMNS": "120"})
    assert run.returncode == 0, run.stderr
    assert_fits(run, width=120)
    lines = run.stdout.splitlines()
    assert lines[0].startswith("request c-1, ")
    assert lines[1].startswith(f"└─ +0.000s purchase.placed {ROOT.id} order-1 of acme")
    assert "!! billing failed, attempt 1, 250 ms, until +1.000s: OSError: bank away" in lines[2]
    assert [line[:6] for line in lines if SHIPPED.id in line] == ["   └─ "]
    [dead] = [line for line in lines if "dead, attempt" in line]
    assert dead.startswith("   │        !! mail dead")
    assert "\x1b" not in run.stdout, "what somebody else wrote moves no cursor"
    assert lines[-1] == "4 events, 4 executions, 1 failed, 1 dead"


async def test_what_waits_is_in_the_tree_too(bus: EventBus, here: dict[str, str]) -> None:
    async with bus.transaction(Origin("c-1", ROOT.id, "acme")) as tx:
        waiting = await tx.publish(Placed())
        later = await tx.publish(Placed(), delay=600)
    async with bus.transaction() as tx:
        await tx.connection.execute("UPDATE eventbus_outbox SET published_at = now() WHERE event_id = $1", later)
    places = {node["eventId"]: (node["place"], node["depth"]) for node in traced(ROOT.id, here)}
    assert (places[waiting], places[later]) == (("outbox", 1), ("scheduled", 1))
    told = eventbus("trace", waiting, **here | {"COLUMNS": "200"}).stdout
    assert "(waits in the outbox)" in told
    assert "(scheduled, due in 10m" in told or "(scheduled, due in 9m" in told


async def test_the_first_event_may_not_be_recorded_and_name_no_correlation(bus: EventBus, here: dict[str, str]) -> None:
    async with bus.transaction() as tx:
        first = await tx.publish(Placed())
    effect = event("purchase.placed", correlation=first)._replace(causation_id=first)
    async with bus.transaction() as tx:
        await record(tx.connection, [effect])
    assert [(node["eventId"], node["place"]) for node in traced(effect.id, here)] == [
        (first, "outbox"),
        (effect.id, "recorded"),
    ]


async def test_one_that_is_in_redis_alone_is_found(bus: EventBus, here: dict[str, str]) -> None:
    alone = event("purchase.placed", ROOT)
    await bus.transport.append([Outgoing(alone)])
    told = {node["eventId"]: node["place"] for node in traced(alone.id, here)}
    assert told == {ROOT.id: "recorded", PAID.id: "recorded", SENT.id: "recorded", SHIPPED.id: "recorded"} | {
        alone.id: "stream"
    }


def refused(run: Run, code: int, words: str) -> None:
    assert run.returncode == code, run.stdout + run.stderr
    assert words in " ".join(run.stderr.replace("│", " ").split()), run.stderr


def test_what_nobody_knows(bus: EventBus, here: dict[str, str], database_url: str) -> None:
    refused(eventbus("trace", uuid7(), **here), 1, "nobody knows")
    refused(eventbus("trace", "x", **here), 2, "is no event id")
    refused(eventbus("trace", ROOT.id, EVENTBUS_REDIS_URL=here["EVENTBUS_REDIS_URL"]), 1, "no PostgreSQL is configured")
    away = here | {"EVENTBUS_DATABASE_URL": "postgresql://app:sesame@127.0.0.1:1/app"}
    refused(eventbus("trace", ROOT.id, **away), 3, "no connection to PostgreSQL")


def test_a_database_without_our_tables_is_told_to_migrate(redis_url: str, database_url: str) -> None:
    here = {"EVENTBUS_REDIS_URL": redis_url, "EVENTBUS_DATABASE_URL": database_url}
    refused(eventbus("trace", ROOT.id, **here), 1, "run `eventbus migrate` first")


async def test_what_is_gathered_is_of_one_organization_and_has_an_end(bus: EventBus) -> None:
    async with bus.transaction(Origin("c-1", ROOT.id, "umbrella")) as tx:
        theirs = await tx.publish(Placed())
        await record(tx.connection, [stored := ROOT._replace(id=uuid7(), organization="umbrella")])
    ours = [one.id for one in (ROOT, PAID, SENT, SHIPPED)]
    for organization, limit, expected, complete in (
        ("acme", 4, ours, True),
        ("acme", 3, ours[:3], False),
        ("umbrella", 9, [stored.id, theirs], True),
        ("umbrella", 1, [stored.id], False),
        ("nobody", 9, [], True),
        (None, 9, [*ours, stored.id, theirs], True),
    ):
        async with bus.transaction() as tx:
            found, whole = await gather(tx.connection, ROOT, organization, limit)
        assert ([one.envelope.id for one in found], whole) == (expected, complete), (organization, limit)


async def test_what_was_published_without_the_outbox_is_seen_before_it_is_recorded(
    bus: EventBus, here: dict[str, str]
) -> None:
    origin = Origin("c-1", PAID.id, "acme")
    now, later = await bus.publish(Placed(), origin=origin), await bus.publish(Placed(), origin=origin, delay=600)
    told = {node["eventId"]: node for node in traced(ROOT.id, here)}
    assert [(told[one.id]["place"], told[one.id]["depth"]) for one in (now, later)] == [("stream", 2), ("scheduled", 2)]
    assert told[later.id]["dueAt"] > told[later.id]["time"]
    away = here | {"EVENTBUS_REDIS_URL": "redis://:sesame@127.0.0.1:1"}
    run = eventbus("trace", ROOT.id, **away)
    assert (run.returncode, run.stdout.splitlines()[-1]) == (0, "4 events, 4 executions, 1 failed, 1 dead")
    assert "what is in Redis alone is not looked at" in run.stderr
    assert "sesame" not in run.stderr


async def test_what_only_looks_like_the_correlation_id_is_none(bus: EventBus) -> None:
    other, long = Origin("c-2", metadata={"correlationId": "c-1"}), "c" * 300
    twins = [event("order.placed", correlation=long + end) for end in "ab"]
    async with bus.transaction(other) as tx:
        await tx.publish(Placed())
        await record(tx.connection, twins)
        await tx.connection.execute("UPDATE eventbus_events SET correlation_id = left(correlation_id, 300)")
    async with bus.transaction() as tx:
        for first, expected in ((ROOT, [ROOT, PAID, SENT, SHIPPED]), (twins[0], twins[:1])):
            found, _ = await gather(tx.connection, first, None, 9)
            assert [one.envelope.id for one in found] == [one.id for one in expected]
