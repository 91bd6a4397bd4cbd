"""Another organization's objects are not there: every endpoint with an id, and every list."""

from typing import Any

import orjson
import pytest

from gateway.api import Endpoint
from gateway.routes import ENDPOINTS
from handlers.lead.models import LeadChanges, Move
from tests.gateway.browsers import browser
from tests.gateway.client import Client
from tests.gateway.conftest import Tables

AGENT = {"name": "Weather"}
WITH_ID = [(endpoint, path) for endpoint in ENDPOINTS for path in endpoint.paths if endpoint.path_ids]
LISTS = [
    endpoint.paths[0]
    for endpoint in ENDPOINTS
    if endpoint.method == "GET" and "items" in getattr(endpoint.answer, "model_fields", {}) and not endpoint.path_ids
]


@pytest.fixture
async def owned(ann: Client, admin: Client, funnel: Any, tables: Tables) -> dict[str, Any]:
    """One object of each kind, by the name of its path parameter."""
    lead = (await ann.post("/api/leads", {"name": "Lea", "funnelId": funnel["id"], "assignedTo": "eve"})).body
    task = (await ann.post("/api/tasks", {"title": "Call", "leadId": lead["id"], "assignedTo": "eve"})).body
    notification = "01a20176-0000-7000-8000-000000000001"
    await tables.execute(
        "INSERT INTO notifications (organization, id, user_id, title, message, notification_type) "
        "VALUES ('acme', $1, 'eve', 't', 'm', 'INFO')",
        notification,
    )
    agent = (await ann.post("/api/agents", AGENT)).body
    message = (await ann.post("/api/messages", {"agentId": agent["id"], "message": "m", "channel": "web"})).body["data"]
    connection = {"channel": "telegram", "account": "1", "agentId": (await admin.post("/api/agents", AGENT)).body["id"]}
    subscription = browser("https://push.example.com/1").subscription
    return {
        "connection_id": (await admin.post("/api/connections", connection)).body,
        "subscription_id": (await ann.post("/api/push-subscriptions", subscription)).body,
        "lead_id": lead,
        "task_id": task,
        "funnel_id": funnel,
        "notification_id": {"id": notification},
        "agent_id": agent,
        "message_id": {"id": message["messageId"]},
        "conversation_id": {"id": message["conversationId"]},
    }


@pytest.mark.parametrize(("endpoint", "path"), WITH_ID, ids=lambda value: value if isinstance(value, str) else "")
async def test_an_id_of_another_organization_is_not_found(
    endpoint: Endpoint, path: str, owned: dict[str, Any], stranger: Client, tables: Tables
) -> None:
    url = path.format_map({name: thing["id"] for name, thing in owned.items()})
    body = await _body(endpoint, stranger)
    before = await tables.everything()
    answer = await stranger.send(endpoint.method, url, body)
    assert answer.status == 404, answer
    assert await tables.everything() == before


async def _body(endpoint: Endpoint, caller: Client) -> bytes | None:
    """One that would do, with ids of the caller's own."""
    if endpoint.body is LeadChanges:
        return orjson.dumps({"name": "Eve"})
    if endpoint.body is Move:
        own = (await caller.post("/api/funnels", {"name": "F", "steps": [{"name": "S"}]})).body
        return orjson.dumps({"stepId": own["steps"][0]["id"]})
    assert endpoint.body is None, "a new endpoint: give it a body here"
    return None


@pytest.mark.parametrize("path", LISTS)
async def test_a_list_shows_nothing_of_another_organization(path: str, owned: dict[str, Any], stranger: Client) -> None:
    lead, step = owned["lead_id"]["id"], owned["funnel_id"]["steps"][0]["id"]
    for query in ("", f"?leadId={lead}", f"?stepId={step}", "?assignedTo=eve", "?status=NEW" if "lead" in path else ""):
        answer = await stranger.get(path + query)
        assert (answer.status, answer.body) == (200, {"items": [], "nextCursor": None})
