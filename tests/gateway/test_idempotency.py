"""Idempotency-Key on every POST."""

import asyncio

import pytest

from handlers.lead import service
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables

LEAD = {"name": "Lea", "email": "lea@example.com"}


async def test_the_same_again_answers_what_the_first_did(ann: Client, tables: Tables) -> None:
    first = await ann.post("/api/leads", LEAD, Idempotency_Key="key-1")
    again = await ann.post("/api/leads", dict(reversed(LEAD.items())), Idempotency_Key="key-1")
    alias = await ann.post("/crm/leads", LEAD, Idempotency_Key="key-1")
    for answer in (again, alias):
        assert (answer.status, answer.body) == (201, first.body)
        assert answer.headers["Location"] == first.headers["Location"]
        assert answer.headers["Idempotency-Replayed"] == "true"
        assert answer.headers["X-Correlation-Id"] != first.headers["X-Correlation-Id"]
    assert "Idempotency-Replayed" not in first.headers
    assert await tables.count("leads") == 1
    assert len(await tables.events()) == 1


async def test_it_answers_what_was_and_not_what_is(ann: Client) -> None:
    first = await ann.post("/api/leads", LEAD, Idempotency_Key="key-1")
    await ann.delete(first.headers["Location"])
    assert (await ann.post("/api/leads", LEAD, Idempotency_Key="key-1")).body == first.body


async def test_another_body_is_refused(ann: Client, tables: Tables) -> None:
    await ann.post("/api/leads", LEAD, Idempotency_Key="key-1")
    answer = await ann.post("/api/leads", {**LEAD, "name": "Leo"}, Idempotency_Key="key-1")
    assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["header", "Idempotency-Key"])
    assert await tables.count("leads") == 1


async def test_without_a_key_each_is_another(ann: Client, tables: Tables) -> None:
    await ann.post("/api/leads", LEAD)
    await ann.post("/api/leads", LEAD)
    await ann.post("/api/leads", LEAD, Idempotency_Key="key-1")
    await ann.post("/api/leads", LEAD, Idempotency_Key="key-2")
    assert await tables.count("leads") == 4


async def test_a_key_is_its_callers_and_its_paths(ann: Client, gateway: Gateway, tables: Tables) -> None:
    callers = (ann, gateway.caller("bob", "acme"), gateway.caller("ann", "umbrella"))
    ids = {(await caller.post("/api/leads", LEAD, Idempotency_Key="key-1")).body["id"] for caller in callers}
    assert len(ids) == 3
    assert (await ann.post("/api/tasks", {"title": "Call"}, Idempotency_Key="key-1")).status == 201


async def test_while_the_first_runs_the_second_waits_for_nothing(
    ann: Client, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, begun, go_on = service.create, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: object) -> object:
        begun.set()
        await go_on.wait()
        return await create(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(service, "create", slow)
    first = asyncio.create_task(ann.post("/api/leads", LEAD, Idempotency_Key="key-1"))
    await begun.wait()
    second = await ann.post("/api/leads", LEAD, Idempotency_Key="key-1")
    assert second.status == 409
    assert int(second.headers["Retry-After"]) > 0
    go_on.set()
    assert (await first).status == 201
    assert (await ann.post("/api/leads", LEAD, Idempotency_Key="key-1")).body == (await first).body
    assert await tables.count("leads") == 1


async def test_of_many_at_once_one_acts(ann: Client, tables: Tables) -> None:
    answers = await asyncio.gather(*(ann.post("/api/leads", LEAD, Idempotency_Key="key-1") for _ in range(12)))
    assert {answer.status for answer in answers} <= {201, 409}
    assert len({answer.body["id"] for answer in answers if answer.status == 201}) == 1
    assert await tables.count("leads") == 1


async def test_what_was_refused_may_be_mended(ann: Client, tables: Tables) -> None:
    assert (await ann.post("/api/leads", {"email": "x"}, Idempotency_Key="key-1")).status == 422
    assert await tables.count("idempotency_keys") == 0
    assert (await ann.post("/api/leads", LEAD, Idempotency_Key="key-1")).status == 201


async def test_it_holds_on_posts_without_a_body(ann: Client, tables: Tables) -> None:
    task = (await ann.post("/api/tasks", {"title": "Call"})).body
    first = await ann.post(f"/api/tasks/{task['id']}/complete", Idempotency_Key="key-1")
    again = await ann.post(f"/crm/tasks/{task['id']}/complete", Idempotency_Key="key-1")
    assert (again.status, again.body, again.headers["Idempotency-Replayed"]) == (200, first.body, "true")


async def test_a_key_is_forgotten_after_a_day(ann: Client, tables: Tables) -> None:
    for number in range(30):
        await ann.post("/api/tasks", {"title": "Call"}, Idempotency_Key=f"old-{number}")
    await ann.post("/api/leads", LEAD, Idempotency_Key="key-1")
    lifetimes = "SELECT count(*) FROM idempotency_keys WHERE expires_at - now() BETWEEN '23 hours' AND '24 hours'"
    assert await tables.number(lifetimes) == 31
    await tables.execute("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
    assert (await ann.post("/api/leads", {"name": "Leo"}, Idempotency_Key="key-1")).status == 201
    assert await tables.count("leads") == 2
    await ann.post("/api/leads", {"name": "Leo"}, Idempotency_Key="key-2")
    assert await tables.count("idempotency_keys") == 2


@pytest.mark.parametrize("key", ["", "a b", "é", "k" * 256])
async def test_an_odd_key_is_refused(key: str, ann: Client, tables: Tables) -> None:
    answer = await ann.post("/api/leads", LEAD, Idempotency_Key=key)
    assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["header", "Idempotency-Key"])
    assert await tables.count("leads") == 0
