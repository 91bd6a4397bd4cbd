"""/api/agents: created, seen and deleted by their user alone."""

from typing import Any

import pytest

from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.test_leads import NOWHERE

FULL = {"name": "Weather", "model": "gpt-4", "systemPrompt": "Be brief.\nBe kind.", "workflow": "weather/v2"}


async def test_an_agent_comes_and_goes(ann: Client) -> None:
    created = await ann.post("/api/agents", FULL)
    agent = created.body
    assert created.status == 201
    assert created.headers["Location"] == f"/api/agents/{agent['id']}"
    assert agent == {
        **FULL,
        "id": agent["id"],
        "organizationId": "acme",
        "userId": "ann",
        "createdAt": agent["createdAt"],
    }
    assert (await ann.get(created.headers["Location"])).body == agent
    assert await ann.all_of("/api/agents") == [agent]
    assert (await ann.delete(created.headers["Location"])).status == 204
    assert (await ann.get(created.headers["Location"])).status == 404
    assert (await ann.delete(created.headers["Location"])).status == 404
    assert await ann.all_of("/api/agents") == []


async def test_a_name_is_enough(ann: Client) -> None:
    agent = (await ann.post("/api/agents", {"name": "  Bare "})).body
    assert (agent["name"], agent["model"], agent["systemPrompt"], agent["workflow"]) == ("Bare", None, None, None)


async def test_lists_are_paged_newest_first(ann: Client) -> None:
    for name in "abc":
        await ann.post("/api/agents", {"name": name})
    assert [one["name"] for one in await ann.all_of("/api/agents?limit=2")] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\u0000b"}, "name"),
        ({"name": "a", "model": "x" * 65}, "model"),
        ({"name": "a", "systemPrompt": "\u0007"}, "systemPrompt"),
        ({"name": "a", "workflow": "../admin"}, "workflow"),
        ({"name": "a", "workflow": "a//b"}, "workflow"),
        ({"name": "a", "workflow": "a?b=c"}, "workflow"),
        ({"name": "a", "workflow": "a/../b"}, "workflow"),
        ({"name": "a", "workflow": "https://elsewhere.example"}, "workflow"),
        ({"name": "a", "workflow": "a\nb"}, "workflow"),
        ({"name": "a", "userId": "eve"}, "userId"),
    ],
)
async def test_what_is_no_agent_is_refused(wrong: dict[str, Any], field: str, ann: Client, tables: Tables) -> None:
    answer = await ann.post("/api/agents", wrong)
    assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["body", field]), answer
    assert await tables.count("agents") == 0


async def test_nobody_sees_or_deletes_anothers(ann: Client, gateway: Gateway, stranger: Client) -> None:
    path = f"/api/agents/{(await ann.post('/api/agents', FULL)).body['id']}"
    for other in (gateway.caller("bob", "acme", "admin"), gateway.caller("ann", "umbrella", "admin"), stranger):
        assert (await other.get(path)).status == 404
        assert (await other.delete(path)).status == 404
        assert await other.all_of("/api/agents") == []
    assert (await ann.get(path)).status == 200


@pytest.mark.parametrize("agent", [NOWHERE, "first"])
async def test_what_is_no_agent_is_not_found(agent: str, ann: Client) -> None:
    assert (await ann.get(f"/api/agents/{agent}")).status == 404
