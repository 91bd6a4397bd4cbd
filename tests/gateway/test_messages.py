"""/api/messages: what is taken, what is refused, and once for an id."""

from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from tests.gateway.client import Client

WEB = {"message": "What is the weather?", "channel": "web"}


@pytest.fixture
async def agent(ann: Client) -> str:
    answer = await ann.post("/api/agents", {"name": "Weather"})
    assert answer.status == 201, answer
    found: str = answer.body["id"]
    return found


async def stored(redis_url: str) -> list[dict[str, Any]]:
    """The data of all events in the stream of messages, whatever their priority."""
    async with Redis.from_url(redis_url) as client:
        lanes = [key async for key in client.scan_iter("eb:{message}:stream*")]
        found: Any = [entry for lane in lanes for _, entry in await client.xrange(lane) or []]
    return [orjson.loads(entry[b"data"]) for entry in found]


async def test_a_message_is_accepted(ann: Client, agent: str, redis_url: str) -> None:
    answer = await ann.post("/api/messages", {"agentId": agent, **WEB})
    assert answer.status == 202, answer
    told = answer.body["data"]
    assert answer.body == {
        "success": True,
        "message": "The message is being processed",
        "data": {
            "messageId": told["messageId"],
            "conversationId": told["conversationId"],
            "jobId": told["messageId"],
            "status": "processing",
            "estimatedTime": 5,
        },
    }
    assert answer.headers["Location"] == f"/api/messages/{told['messageId']}/status"
    [event] = await stored(redis_url)
    assert event == {
        "messageId": told["messageId"],
        "conversationId": told["conversationId"],
        "agentId": agent,
        "userId": "ann",
        "channel": "web",
        "channelMetadata": {},
        "message": "What is the weather?",
        "metadata": None,
    }
