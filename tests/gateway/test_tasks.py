"""/api/tasks."""

import asyncio
from typing import Any

import pytest

from tests.gateway.client import Client
from tests.gateway.conftest import Tables, told
from tests.gateway.test_leads import NOWHERE


async def test_a_task_is_created_with_its_event(ann: Client, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea"})).body
    given = {"title": "Call", "leadId": lead["id"], "dueAt": "2150-05-01T10:00:00+02:00", "assignedTo": "bob"}
    created = await ann.post("/api/tasks", given)
    assert created.status == 201
    task = created.body
    assert {**given, "dueAt": "2150-05-01T08:00:00Z", "status": "OPEN", "completedAt": None}.items() <= task.items()
    assert (await ann.get(created.headers["Location"])).body == task
    assert (await ann.get(f"/api/leads/{lead['id']}/tasks")).body["items"] == [task]
    [event] = await tables.events("task.created")
    assert event["subject"] == lead["id"]
    expected = {
        "taskId": task["id"],
        "leadId": lead["id"],
        "organizationId": "acme",
        "title": "Call",
        "assignedTo": "bob",
    }
    assert told(event) == expected


async def test_a_due_time_schedules_its_event(ann: Client, tables: Tables) -> None:
    await ann.post("/api/tasks", {"title": "No hurry"})
    assert await tables.events("task.expired") == []
    task = (await ann.post("/api/tasks", {"title": "Call", "dueAt": "2150-05-01T10:00:00Z"})).body
    [event] = await tables.events("task.expired")
    assert event["subject"] == task["id"]


@pytest.mark.parametrize(
    ("content", "loc"),
    [
        ({}, "title"),
        ({"title": " "}, "title"),
        ({"title": "Call", "status": "COMPLETED"}, "status"),
        ({"title": "Call", "leadId": NOWHERE}, "leadId"),
        ({"title": "Call", "leadId": "lea"}, "leadId"),
        ({"title": "Call", "dueAt": "tomorrow"}, "dueAt"),
        ({"title": "Call", "dueAt": "2150-05-01T10:00:00"}, "dueAt"),
        ({"title": "Call", "dueAt": 4102444800}, "dueAt"),
        ({"title": "Call", "dueAt": "0001-01-01T00:00:00+10:00"}, "dueAt"),
        ({"title": "Call", "dueAt": "9999-12-31T23:59:59-10:00"}, "dueAt"),
        ({"title": "Call", "assignedTo": ""}, "assignedTo"),
    ],
)
async def test_a_bad_task_is_refused_and_not_stored(content: object, loc: str, ann: Client, tables: Tables) -> None:
    answer = await ann.post("/api/tasks", content)
    assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["body", loc])
    assert await tables.count("tasks") == 0
    assert await tables.events() == []


async def test_a_lead_of_another_organization_is_no_lead(ann: Client, stranger: Client, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea"})).body
    answer = await stranger.post("/api/tasks", {"title": "Call", "leadId": lead["id"]})
    assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["body", "leadId"])
    assert await tables.count("tasks") == 0


async def test_tasks_are_filtered_and_paged(ann: Client) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea"})).body["id"]
    a = (await ann.post("/api/tasks", {"title": "A", "leadId": lead})).body["id"]
    b = (await ann.post("/api/tasks", {"title": "B", "assignedTo": "bob"})).body["id"]
    c = (await ann.post("/api/tasks", {"title": "C", "assignedTo": "bob"})).body["id"]
    await ann.post(f"/api/tasks/{c}/complete")

    async def found(query: str) -> list[str]:
        return [task["id"] for task in await ann.all_of(f"/api/tasks?limit=1&{query}")]

    assert await found("") == [c, b, a]
    assert await found(f"leadId={lead}") == [a]
    assert await found("status=OPEN") == [b, a]
    assert await found("status=COMPLETED") == [c]
    assert await found("assignedTo=bob&status=OPEN") == [b]
    for bad in ("status=DONE", "leadId=lea", "limit=-1", "cursor=x"):
        assert (await ann.get(f"/api/tasks?{bad}")).status == 422


@pytest.mark.parametrize("path", ["/api/tasks/{}/complete", "/crm/tasks/{}/complete"])
async def test_completed_twice_is_one_event(path: str, ann: Client, gateway: Any, tables: Tables) -> None:
    task = (await ann.post("/api/tasks", {"title": "Call", "assignedTo": "bob"})).body
    first = await ann.post(path.format(task["id"]))
    assert (first.status, first.body["status"], first.body["completedBy"]) == (200, "COMPLETED", "ann")
    again = await gateway.caller("bob", "acme").post(path.format(task["id"]))
    assert (again.status, again.body) == (200, first.body)
    [event] = await tables.events("task.completed")
    assert told(event)["taskId"] == task["id"]


async def test_completed_by_many_at_once_is_one_event(ann: Client, tables: Tables) -> None:
    task = (await ann.post("/api/tasks", {"title": "Call"})).body
    async with tables.contended("tasks", task["id"], waiters=8):
        calls = [asyncio.create_task(ann.post(f"/api/tasks/{task['id']}/complete")) for _ in range(8)]
    answers = await asyncio.gather(*calls)
    assert [answer.status for answer in answers] == [200] * 8
    assert len({answer.body["completedAt"] for answer in answers}) == 1
    assert len(await tables.events("task.completed")) == 1


@pytest.mark.parametrize("task", [NOWHERE, "call", "%00"])
async def test_what_is_no_task_cannot_be_completed(task: str, ann: Client) -> None:
    for path in (f"/api/tasks/{task}/complete", f"/crm/tasks/{task}/complete"):
        assert (await ann.post(path)).status == 404
    assert (await ann.get(f"/api/tasks/{task}")).status == 404
