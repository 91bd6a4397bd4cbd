"""/api/connections: accounts at messengers, and the agents behind them."""

from typing import Any

import pytest

from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables, told
from tests.gateway.test_leads import NOWHERE


@pytest.fixture
async def agent(admin: Client) -> str:
    return await new_agent(admin)


async def new_agent(owner: Client) -> str:
    answer = await owner.post("/api/agents", {"name": "Support"})
    assert answer.status == 201, answer
    found: str = answer.body["id"]
    return found


def _whatsapp(agent: str, account: str = "1066") -> dict[str, Any]:
    return {"channel": "whatsapp", "account": account, "agentId": agent}


async def test_a_connection_is_made_seen_and_cut(admin: Client, agent: str, tables: Tables) -> None:
    made = await admin.post("/api/connections", _whatsapp(agent))
    assert made.status == 201, made
    assert made.body == {
        "id": made.body["id"],
        "channel": "whatsapp",
        "account": "1066",
        "agentId": agent,
        "userId": "root",
        "createdAt": made.body["createdAt"],
    }
    assert made.headers["Location"] == f"/api/connections/{made.body['id']}"
    assert (await admin.get(made.headers["Location"])).body == made.body
    assert (await admin.get("/api/connections")).body == {"items": [made.body], "nextCursor": None}
    [event] = await tables.events("whatsapp.connection_established")
    assert told(event) == {"connectionId": made.body["id"], "organizationId": "acme"}

    assert (await admin.delete(made.headers["Location"])).status == 204
    assert (await admin.delete(made.headers["Location"])).status == 404
    assert (await admin.get("/api/connections")).body["items"] == []


async def test_a_bot_has_no_history_to_be_imported(admin: Client, agent: str, tables: Tables) -> None:
    made = await admin.post("/api/connections", {"channel": "telegram", "account": "123456", "agentId": agent})
    assert made.status == 201
    assert await tables.events("whatsapp.connection_established") == []


async def test_an_account_is_connected_once_wherever(
    admin: Client, stranger: Client, agent: str, tables: Tables
) -> None:
    assert (await admin.post("/api/connections", _whatsapp(agent))).status == 201
    theirs = await new_agent(stranger)
    for caller, its in ((admin, agent), (stranger, theirs)):
        again = await caller.post("/api/connections", _whatsapp(its))
        assert (again.status, again.body["detail"]) == (409, "this account is connected already")
    assert (await admin.post("/api/connections", {**_whatsapp(agent), "channel": "telegram"})).status == 201
    assert len(await tables.events("whatsapp.connection_established")) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"channel": "web"},
        {"account": ""},
        {"account": "+49 30"},
        {"account": "1" * 33},
        {"agentId": "x"},
        {"userId": "a"},
    ],
)
async def test_what_is_no_connection(changes: dict[str, Any], admin: Client, agent: str, tables: Tables) -> None:
    assert (await admin.post("/api/connections", _whatsapp(agent) | changes)).status == 422
    assert await tables.count("channel_connections") == 0


async def test_the_agent_must_be_the_callers_own(
    admin: Client, gateway: Gateway, stranger: Client, tables: Tables
) -> None:
    colleagues = await new_agent(gateway.caller("bob", "acme", "admin"))
    for agent in (NOWHERE, colleagues, await new_agent(stranger)):
        refused = await admin.post("/api/connections", _whatsapp(agent))
        assert (refused.status, refused.body["errors"]) == (
            422,
            [{"loc": ["body", "agentId"], "msg": "there is no such agent"}],
        )
    assert await tables.count("channel_connections") == 0


async def test_connections_are_for_admins(ann: Client, admin: Client, agent: str) -> None:
    made = await admin.post("/api/connections", _whatsapp(agent))
    path = f"/api/connections/{made.body['id']}"
    for answer in (
        await ann.post("/api/connections", _whatsapp(agent, "2")),
        await ann.get("/api/connections"),
        await ann.get(path),
        await ann.delete(path),
    ):
        assert answer.status == 403


async def test_a_connection_goes_with_its_agent(admin: Client, agent: str, tables: Tables) -> None:
    await admin.post("/api/connections", _whatsapp(agent))
    assert (await admin.delete(f"/api/agents/{agent}")).status == 204
    assert await tables.count("channel_connections") == 0
