"""POST /api/leads/{id}/move."""

import asyncio
import json
from typing import Any

import pytest

from tests.gateway.client import Client
from tests.gateway.conftest import Tables, told
from tests.gateway.test_leads import NOWHERE


async def test_a_move_tells_from_where_to_where(ann: Client, funnel: Any, tables: Tables) -> None:
    first, second, _ = (step["id"] for step in funnel["steps"])
    lead = (await ann.post("/api/leads", {"name": "Lea", "funnelId": funnel["id"]})).body
    moved = await ann.post(f"/api/leads/{lead['id']}/move", {"stepId": second})
    assert (moved.status, moved.body["stepId"]) == (200, second)
    [event] = await tables.events("lead.moved_to_step")
    assert told(event) == {
        "leadId": lead["id"],
        "previousStepId": first,
        "newStepId": second,
        "organizationId": "acme",
    }


async def test_a_lead_without_a_funnel_can_be_moved_into_one(ann: Client, funnel: Any, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea"})).body
    moved = await ann.post(f"/crm/leads/{lead['id']}/move", {"stepId": funnel["steps"][0]["id"]})
    assert (moved.status, moved.body["funnelId"]) == (200, funnel["id"])
    [event] = await tables.events("lead.moved_to_step")
    assert "previousStepId" not in told(event)


async def test_to_the_same_step_is_a_conflict(ann: Client, funnel: Any, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea", "funnelId": funnel["id"]})).body
    answer = await ann.post(f"/api/leads/{lead['id']}/move", {"stepId": lead["stepId"]})
    assert answer.status == 409
    assert await tables.events("lead.moved_to_step") == []


@pytest.mark.parametrize(
    "content", [{"stepId": NOWHERE}, {"stepId": "second"}, {"stepId": None}, {}, {"stepId": NOWHERE, "x": 1}, None]
)
async def test_to_nowhere_is_refused(content: object, ann: Client, funnel: Any, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea", "funnelId": funnel["id"]})).body
    answer = await ann.send("POST", f"/api/leads/{lead['id']}/move", json.dumps(content).encode())
    assert answer.status == 422
    assert (await ann.get(f"/api/leads/{lead['id']}")).body == lead
    assert await tables.events("lead.moved_to_step") == []


async def test_to_a_step_of_another_organization_is_refused(stranger: Client, funnel: Any, tables: Tables) -> None:
    lead = (await stranger.post("/api/leads", {"name": "Lea"})).body
    answer = await stranger.post(f"/api/leads/{lead['id']}/move", {"stepId": funnel["steps"][0]["id"]})
    assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["body", "stepId"])
    assert await tables.events("lead.moved_to_step") == []


async def test_of_many_at_once_one_moves(ann: Client, funnel: Any, tables: Tables) -> None:
    lead = (await ann.post("/api/leads", {"name": "Lea", "funnelId": funnel["id"]})).body
    to = {"stepId": funnel["steps"][1]["id"]}
    async with tables.contended("leads", lead["id"], waiters=8):
        moves = [asyncio.create_task(ann.post(f"/api/leads/{lead['id']}/move", to)) for _ in range(8)]
    answers = await asyncio.gather(*moves)
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7
    assert len(await tables.events("lead.moved_to_step")) == 1
