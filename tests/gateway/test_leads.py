"""POST, GET, PATCH, DELETE of leads."""

import asyncio
import json
from typing import Any

import pytest

from tests.gateway.client import Client
from tests.gateway.conftest import Tables, told

NOWHERE = "01a20176-e951-7000-bf62-337e538f3d95"


@pytest.mark.parametrize("path", ["/api/leads", "/crm/leads"])
async def test_a_lead_is_taken_in_with_its_event(path: str, ann: Client, tables: Tables) -> None:
    created = await ann.post(path, {"email": "lea@example.com"}, X_Correlation_Id="way-1")
    assert created.status == 201
    lead = created.body
    assert set(lead) == {
        *("id", "organizationId", "name", "email", "phone", "company", "source", "status", "funnelId", "stepId"),
        *("assignedTo", "score", "enrichment", "createdAt", "updatedAt"),
    }
    assert (lead["organizationId"], lead["source"], lead["status"]) == ("acme", "WEBSITE", "NEW")
    assert lead["createdAt"].endswith("Z")
    assert created.headers["Location"] == f"/api/leads/{lead['id']}"
    assert (await ann.get(created.headers["Location"])).body == lead

    [event] = await tables.events()
    assert (event["type"], event["subject"], event["organization"]) == ("lead.created", lead["id"], "acme")
    meta = json.loads(event["meta"])
    assert meta["metadata"] == {"userId": "ann", "ipAddress": "127.0.0.1"}
    assert meta["correlationId"] == "way-1"
    assert told(event) == {
        "leadId": lead["id"],
        "organizationId": "acme",
        "email": "lea@example.com",
        "status": "NEW",
        "source": "WEBSITE",
    }


async def test_every_field_is_kept(ann: Client, funnel: Any) -> None:
    step = funnel["steps"][1]
    given = {
        "organizationId": "acme",
        "name": "Léa 李",
        "email": "lea@example.com",
        "phone": "+55 (11) 99999-0000",
        "company": "Example",
        "source": "REFERRAL",
        "status": "QUALIFIED",
        "funnelId": funnel["id"],
        "stepId": step["id"],
        "assignedTo": "bob",
    }
    created = await ann.post("/api/leads", given)
    assert created.status == 201
    assert {field: created.body[field] for field in given} == given


async def test_text_is_cut_of_blanks(ann: Client) -> None:
    assert (await ann.post("/api/leads", {"name": "  Lea "})).body["name"] == "Lea"


async def test_a_funnel_alone_means_its_first_step_and_a_step_alone_its_funnel(ann: Client, funnel: Any) -> None:
    first, second, _ = funnel["steps"]
    by_funnel = await ann.post("/api/leads", {"name": "Lea", "funnelId": funnel["id"]})
    assert by_funnel.body["stepId"] == first["id"]
    by_step = await ann.post("/api/leads", {"name": "Lea", "stepId": second["id"]})
    assert by_step.body["funnelId"] == funnel["id"]


@pytest.mark.parametrize(
    ("content", "loc"),
    [
        ({}, []),
        ({"company": "Example"}, []),
        ({"name": None, "email": None}, []),
        ({"name": ""}, ["name"]),
        ({"name": "   "}, ["name"]),
        ({"name": 5}, ["name"]),
        ({"name": "x" * 201}, ["name"]),
        ({"name": "a\u0000b"}, ["name"]),
        ({"name": "a\r\nBcc: b"}, ["name"]),
        ({"email": "nobody"}, ["email"]),
        ({"email": "a@b"}, ["email"]),
        ({"email": "a@b.example\nBcc: c@d.example"}, ["email"]),
        ({"email": f"{'x' * 250}@b.example"}, ["email"]),
        ({"phone": "call me"}, ["phone"]),
        ({"name": "Lea", "status": None}, ["status"]),
        ({"name": "Lea", "source": ""}, ["source"]),
        ({"name": "Lea", "nickname": "L"}, ["nickname"]),
        ({"name": "Lea", "assigned_to": "bob"}, ["assigned_to"]),
        ({"name": "Lea", "score": 100}, ["score"]),
        ({"name": "Lea", "organizationId": "umbrella"}, ["organizationId"]),
        ({"name": "Lea", "stepId": NOWHERE}, ["stepId"]),
        ({"name": "Lea", "stepId": "first"}, ["stepId"]),
        ({"name": "Lea", "funnelId": NOWHERE}, ["funnelId"]),
        ({"name": "Lea", "funnelId": NOWHERE, "stepId": NOWHERE}, ["stepId"]),
        ([], []),
        ("Lea", []),
        (None, []),
    ],
)
async def test_what_is_not_valid_is_refused_and_not_stored(
    content: object, loc: list[str], ann: Client, tables: Tables
) -> None:
    answer = await ann.send("POST", "/api/leads", json.dumps(content).encode())
    assert answer.status == 422, answer
    assert [error["loc"] for error in answer.body["errors"]] == [["body", *loc]]
    assert all(error["msg"] for error in answer.body["errors"])
    assert await tables.count("leads") == 0
    assert await tables.events() == []


async def test_a_step_must_belong_to_the_funnel_and_the_organization(
    ann: Client, admin: Client, stranger: Client, funnel: Any, tables: Tables
) -> None:
    other = (await admin.post("/api/funnels", {"name": "Other", "steps": [{"name": "One"}]})).body
    answer = await ann.post("/api/leads", {"name": "L", "funnelId": other["id"], "stepId": funnel["steps"][0]["id"]})
    assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["body", "stepId"])
    for place in ({"stepId": funnel["steps"][0]["id"]}, {"funnelId": funnel["id"]}):
        answer = await stranger.post("/api/leads", {"name": "L", **place})
        assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["body", next(iter(place))])
    assert await tables.count("leads") == 0


async def test_leads_are_listed_newest_first_page_by_page(ann: Client) -> None:
    ids = [(await ann.post("/api/leads", {"name": f"Lead {n}"})).body["id"] for n in range(5)]
    first = (await ann.get("/api/leads?limit=2")).body
    assert [lead["id"] for lead in first["items"]] == ids[:2:-1]
    await ann.delete(f"/api/leads/{first['items'][1]['id']}")  # the cursor's own row goes
    await ann.post("/api/leads", {"name": "came meanwhile"})
    rest = await ann.all_of(f"/api/leads?limit=2&cursor={first['nextCursor']}")
    assert [lead["id"] for lead in rest] == ids[2::-1]
    assert (await ann.get("/api/leads?limit=200")).body["nextCursor"] is None


async def test_leads_are_filtered(ann: Client, funnel: Any) -> None:
    step = funnel["steps"][2]["id"]
    won = (await ann.post("/api/leads", {"name": "A", "status": "WON", "assignedTo": "bob"})).body["id"]
    stepped = (await ann.post("/api/leads", {"name": "B", "stepId": step, "assignedTo": "bob"})).body["id"]
    await ann.post("/api/leads", {"name": "C"})

    async def found(query: str) -> list[str]:
        return [lead["id"] for lead in (await ann.get(f"/api/leads?{query}")).body["items"]]

    assert await found("status=WON") == [won]
    assert await found(f"stepId={step}") == [stepped]
    assert await found("assignedTo=bob") == [stepped, won]
    assert await found("assignedTo=bob&status=NEW") == [stepped]
    assert await found("status=LOST") == []


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=201", "limit=many", "limit=", "cursor=%00", "cursor=abc", "cursor=%C3%A9", "cursor="),
        *("stepId=first", "assignedTo=%00", "status=", "status=NEW&status=WON", "limit=1&limit=2"),
    ],
)
async def test_a_bad_query_is_refused(query: str, ann: Client) -> None:
    answer = await ann.get(f"/api/leads?{query}")
    assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["query", query.partition("=")[0]])


async def test_a_change_tells_what_was_and_what_is(ann: Client, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea", "email": "lea@example.com", "company": "Old"})).body
    changed = await ann.patch(
        f"/api/leads/{lead['id']}", {"company": None, "assignedTo": "bob", "status": "WON", "name": "Lea"}
    )
    assert changed.status == 200
    expected = {**lead, "company": None, "assignedTo": "bob", "status": "WON"}
    assert {**changed.body, "updatedAt": None} == {**expected, "updatedAt": None}
    assert changed.body["updatedAt"] > lead["updatedAt"]
    [event] = await tables.events("lead.updated")
    assert told(event) == {
        "leadId": lead["id"],
        "organizationId": "acme",
        "changes": {
            "company": {"old": "Old", "new": None},
            "assignedTo": {"old": None, "new": "bob"},
            "status": {"old": "NEW", "new": "WON"},
        },
    }


@pytest.mark.parametrize("content", [{}, {"name": "Lea"}, {"name": " Lea ", "phone": None}])
async def test_a_change_of_nothing_is_no_event(content: object, ann: Client, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea"})).body
    answer = await ann.patch(f"/api/leads/{lead['id']}", content)
    assert (answer.status, answer.body) == (200, lead)
    assert await tables.events("lead.updated") == []


@pytest.mark.parametrize(
    ("content", "loc"),
    [
        ({"name": None}, []),
        ({"status": None}, ["status"]),
        ({"source": ""}, ["source"]),
        ({"email": "nobody"}, ["email"]),
        ({"stepId": NOWHERE}, ["stepId"]),
        ({"organizationId": "acme"}, ["organizationId"]),
        ({"id": NOWHERE}, ["id"]),
        ({"score": 1}, ["score"]),
        (["name"], []),
    ],
)
async def test_a_bad_change_changes_nothing(content: object, loc: list[str], ann: Client, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea"})).body
    answer = await ann.patch(f"/api/leads/{lead['id']}", content)
    assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["body", *loc])
    assert (await ann.get(f"/api/leads/{lead['id']}")).body == lead
    assert await tables.events("lead.updated") == []


async def test_two_changes_at_once_are_told_one_after_the_other(ann: Client, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea"})).body
    async with tables.contended("leads", lead["id"], waiters=2):
        changes = [asyncio.create_task(ann.patch(f"/api/leads/{lead['id']}", {"name": name})) for name in ("A", "B")]
    await asyncio.gather(*changes)
    first, second = [told(event)["changes"]["name"] for event in await tables.events("lead.updated")]
    assert (first["old"], first["new"]) == ("Lea", second["old"])
    assert (await ann.get(f"/api/leads/{lead['id']}")).body["name"] == second["new"]


async def test_a_deleted_lead_is_gone_with_its_tasks(ann: Client, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea"})).body
    await ann.post("/api/tasks", {"title": "Call", "leadId": lead["id"]})
    await ann.post("/api/tasks", {"title": "Something else"})
    deleted = await ann.delete(f"/api/leads/{lead['id']}")
    assert (deleted.status, deleted.body) == (204, None)
    [event] = await tables.events("lead.deleted")
    assert told(event) == {"leadId": lead["id"], "organizationId": "acme"}
    assert [task["title"] for task in (await ann.get("/api/tasks")).body["items"]] == ["Something else"]
    for answer in (
        await ann.get(f"/api/leads/{lead['id']}"),
        await ann.get(f"/api/leads/{lead['id']}/tasks"),
        await ann.get(f"/api/leads/{lead['id']}/events"),
        await ann.delete(f"/api/leads/{lead['id']}"),
    ):
        assert answer.status == 404
    assert len(await tables.events("lead.deleted")) == 1
