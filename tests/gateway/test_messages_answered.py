"""From a message to its response: the workflow's answers of every kind, and what is told on the way."""

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from eventbus import EventBus
from handlers.message import workflow
from handlers.message.handlers import message as group
from handlers.services import SERVICES, Services
from tests.gateway import n8n as peer
from tests.gateway.client import Client
from tests.gateway.conftest import Tables
from tests.gateway.n8n import N8N
from tests.waiting import eventually
from tests.working import working

SECRET = "whsec_" + b64encode(b"a key of the tests").decode()


@pytest.fixture
async def n8n(bus: EventBus) -> AsyncIterator[N8N]:
    async with peer.serving() as n8n:
        bus.provide(SERVICES, Services(n8n_base_url=n8n.url, n8n_signing_secret=SECRET, n8n_timeout=0.5))
        yield n8n


@pytest.fixture
async def answering(bus: EventBus, n8n: N8N, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[N8N]:
    """N8N, and a worker that asks it."""
    monkeypatch.setattr(workflow, "PAUSE", 0.3)
    monkeypatch.setattr(group, "retry", group.retry)
    async with working(bus, group):
        yield n8n


@pytest.fixture
async def agent(ann: Client) -> str:
    new = {"name": "Weather", "model": "gpt-4", "systemPrompt": "Be brief.", "workflow": "weather"}
    answer = await ann.post("/api/agents", new)
    assert answer.status == 201, answer
    found: str = answer.body["id"]
    return found


async def ask(client: Client, agent: str, text: str = "Rain?", **more: Any) -> dict[str, Any]:
    answer = await client.post("/api/messages", {"agentId": agent, "message": text, "channel": "web", **more})
    assert answer.status == 202, answer
    told: dict[str, Any] = answer.body["data"]
    return told


async def standing(client: Client, message_id: str) -> dict[str, Any]:
    answer = await client.get(f"/api/messages/{message_id}/status")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.body["data"]
    return found


async def ended(client: Client, message_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        found = await standing(client, message_id)
        return found if found["state"] in {"completed", "failed"} else {}

    return await eventually(look)


async def test_a_message_is_answered(ann: Client, agent: str, answering: N8N, tables: Tables) -> None:
    told = await ask(ann, agent)
    found = await ended(ann, told["messageId"])
    assert found == {
        "messageId": told["messageId"],
        "state": "completed",
        "progress": 100,
        "attempts": 1,
        "finishedOn": found["finishedOn"],
    }
    [asked] = answering.asked
    assert asked.workflow == "weather"
    assert asked.payload == {
        "messageId": told["messageId"],
        "conversationId": told["conversationId"],
        "organizationId": "acme",
        "userId": "ann",
        "channel": "web",
        "message": "Rain?",
        "agent": {"id": agent, "name": "Weather", "model": "gpt-4", "systemPrompt": "Be brief."},
        "history": [],
    }
    [event] = await tables.events("message.responded")
    data = orjson.loads(event["data"])
    assert data["metadata"].pop("processingTime") >= 0
    assert data == {
        "messageId": told["messageId"],
        "conversationId": told["conversationId"],
        "agentId": agent,
        "userId": "ann",
        "channel": "web",
        "channelMetadata": {},
        "message": "You said: Rain?",
        "metadata": {"model": "gpt-test", "tokensUsed": 7, "finishReason": "stop"},
    }
    said = await ann.all_of(f"/api/conversations/{told['conversationId']}/messages")
    assert [(one["role"], one["message"], one["messageId"]) for one in said] == [
        ("user", "Rain?", told["messageId"]),
        ("assistant", "You said: Rain?", told["messageId"]),
    ]
