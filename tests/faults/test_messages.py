"""A message whose worker dies is answered once, however often its workflow is asked."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.faults.crm import Crm
from tests.gateway import n8n as peer
from tests.gateway.n8n import N8N, Asked, echo
from tests.servers import OwnRedis
from tests.waiting import PATIENCE, until

_RESPONSES = """
SELECT message_id, count(*) FILTER (WHERE role = 'assistant') AS responses,
       count(*) FILTER (WHERE role = 'user') AS questions
FROM messages GROUP BY message_id
"""
_EVENTS = "SELECT data::jsonb ->> 'messageId' AS message_id FROM eventbus_outbox WHERE type = 'message.responded'"


@pytest.fixture
async def n8n(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[N8N]:
    async with peer.serving() as n8n:
        monkeypatch.setenv("N8N_BASE_URL", n8n.url)
        yield n8n


@pytest.fixture
async def crm(tmp_path: Path, own_redis: OwnRedis, database_url: str, n8n: N8N) -> AsyncIterator[Crm]:
    crm = Crm(tmp_path, own_redis().url, database_url)
    await crm.migrate()
    await crm.start_gateway()
    yield crm
    await crm.end()


async def agent(client: aiohttp.ClientSession) -> str:
    async with client.post("/api/agents", json={"name": "Weather"}) as response:
        found: str = (await response.json())["id"]
        return found


async def ask(client: aiohttp.ClientSession, agent_id: str, text: str) -> str:
    body = {"agentId": agent_id, "message": text, "channel": "web"}
    async with client.post("/api/messages", json=body) as response:
        answer = await response.json()
        assert response.status == 202, answer
        message_id: str = answer["data"]["messageId"]
        return message_id


async def ended(client: aiohttp.ClientSession, message_ids: list[str]) -> list[Any]:
    """What the status of each says when it has ended. In time, or it is told how far those are that have not."""
    ended: dict[str, Any] = {}
    waiting: dict[str, Any] = dict.fromkeys(message_ids)

    async def look(message_id: str) -> None:
        async with client.get(f"/api/messages/{message_id}/status") as response:
            waiting[message_id] = told = (response.status, await response.json())
        if response.status == 200 and told[1]["data"]["state"] in {"completed", "failed"}:
            del waiting[message_id]
            ended[message_id] = told[1]["data"]

    try:
        async with asyncio.timeout(PATIENCE):
            while waiting:
                for message_id in list(waiting):
                    await look(message_id)
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"{len(waiting)} have not ended, such as {list(waiting.items())[:3]}") from None
    return [ended[message_id] for message_id in message_ids]


async def check_answered_once(crm: Crm, message_ids: list[str], *, refused: Collection[str] = ()) -> None:
    """These, and the `refused` not at all; of each there is the question."""
    rows = await crm.sql(_RESPONSES)
    assert {row["message_id"] for row in rows} == {*message_ids, *refused}
    wrong = [
        dict(row)
        for row in rows
        if (row["responses"], row["questions"]) != (0 if row["message_id"] in refused else 1, 1)
    ]
    assert not wrong, f"{len(wrong)} of {len(rows)}: {wrong[:5]}"
    events = Counter(row["message_id"] for row in await crm.sql(_EVENTS))
    assert events == Counter(message_ids), "one message.responded each"


@pytest.mark.parametrize(("dies", "calls"), [("in the call", 2), ("inbox.commit", 2), ("inbox.committed", 1)])
async def test_a_worker_dies_and_there_is_one_response(dies: str, calls: int, crm: Crm, n8n: N8N) -> None:
    in_call = dies == "in the call"
    process = crm.workers.start(crash="" if in_call else dies)

    async def hang_at_first(asked: Asked) -> web.Response:
        if in_call and len(n8n.asked) == 1:
            await asyncio.sleep(30)
        return await echo(asked)

    n8n.answer = hang_at_first
    async with crm.client() as client:
        message_id = await ask(client, await agent(client), "Rain?")
        await until(lambda: n8n.asked)
        if in_call:
            process.kill()
        await asyncio.to_thread(process.wait, PATIENCE)
        crm.workers.start()
        [told] = await ended(client, [message_id])
    assert (told["state"], told["attempts"]) == ("completed", 1), "a crash spends no attempt"
    await check_answered_once(crm, [message_id])
    assert len(n8n.asked) == calls
    assert {asked.headers["webhook-id"] for asked in n8n.asked} == {message_id}
    assert await crm.dead() == []
