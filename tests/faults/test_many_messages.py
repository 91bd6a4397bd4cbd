"""Messages on their way to a channel outside, while gateways and workers are killed, the workflow is out of order for a
while, and refuses some of them: each ends, and what arrived twice is on record. FAULTS_MESSAGES: how many."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.faults.crm import Crm
from tests.faults.test_messages import agent, check_answered_once, ended
from tests.gateway import n8n as workflow
from tests.gateway.n8n import N8N, Asked, echo
from tests.gateway.peer import Peer, Received, answer, peer
from tests.servers import OwnRedis
from tests.waiting import eventually, until

MESSAGES = int(os.environ.get("FAULTS_MESSAGES", "200"))
POSTERS = 20
REFUSED = 25  # one in so many is refused by the workflow
OUTAGE = 3.0  # seconds
UNDER_WAY = 5  # sends that a worker may have under way
WITHIN = 60 + MESSAGES / 5  # seconds until all have ended

_DELIVERIES = """
SELECT question.message_id, delivery.state, delivery.unanswered, delivery.sent_at
FROM deliveries AS delivery JOIN eventbus_outbox AS responded USING (event_id)
JOIN messages AS question ON question.message_id = responded.data::jsonb ->> 'messageId' AND question.role = 'user'
"""


@pytest.fixture
async def n8n() -> AsyncIterator[N8N]:
    async with workflow.serving() as n8n:
        yield n8n


@pytest.fixture
async def telegram() -> AsyncIterator[Peer]:
    async with peer() as listening:
        yield listening


@pytest.fixture
def environment(n8n: N8N, telegram: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N8N_BASE_URL", n8n.url)
    monkeypatch.setenv("TELEGRAM_BASE_URL", telegram.url)
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "1:token")


@pytest.fixture
async def crm(tmp_path: Path, own_redis: OwnRedis, database_url: str, environment: None) -> AsyncIterator[Crm]:
    crm = Crm(tmp_path, own_redis().url, database_url)
    await crm.migrate()
    await crm.start_gateway()
    yield crm
    await crm.end()


class Workflow:
    """Slow, busy now and then, and `broken` while it is said to be; some messages it refuses."""

    def __init__(self) -> None:
        self.broken = False
        self._known = set[str]()

    async def __call__(self, asked: Asked) -> web.Response:
        await asyncio.sleep(random.uniform(0, 0.05))
        message_id = asked.payload["messageId"]
        busy = message_id not in self._known and random.random() < 0.05
        self._known.add(message_id)
        if self.broken or busy:
            return web.Response(status=500)
        return web.Response(status=400, text="not this one") if is_refused(message_id) else await echo(asked)


async def slowly(_received: Received) -> web.Response:
    await asyncio.sleep(random.uniform(0, 0.05))
    return answer(200, {"result": {"message_id": 1}})


def is_refused(message_id: str) -> bool:
    return int(message_id.removeprefix("m-")) % REFUSED == 0


async def post(client: aiohttp.ClientSession, agent_id: str, number: int) -> str:
    """Until it is taken, by the id that makes it the same message however often it is posted."""
    body = {
        "agentId": agent_id,
        "message": f"Message {number}",
        "channel": "telegram",
        "channelMetadata": {"chatId": number},
        "id": f"m-{number}",
    }

    async def taken() -> bool:
        try:
            async with client.post("/api/messages", json=body) as response:
                told = await response.json()
        except (aiohttp.ClientError, TimeoutError):
            return False
        assert response.status in {202, 503}, told
        return response.status == 202

    await eventually(taken, timeout=WITHIN)
    return f"m-{number}"


async def kill_now_and_then(crm: Crm, telegram: Peer, flow: Workflow) -> int:
    """Workers and gateways in turns, as so many arrive; between them the workflow is out of order. How many workers."""
    kills = 0
    for share in (0.1, 0.3, 0.5, 0.7):
        await until(arrived(telegram, MESSAGES * share), timeout=WITHIN)
        crm.workers.kill(crm.workers.processes[0])
        crm.workers.start()
        kills += 1
        if share in {0.1, 0.5}:
            crm.gateway.kill(crm.gateway.processes[0])
            await crm.start_gateway()
        if share == 0.3:
            flow.broken = True
            await asyncio.sleep(OUTAGE)
            flow.broken = False
    return kills


def arrived(telegram: Peer, count: float) -> Callable[[], bool]:
    return lambda: len(telegram.received) >= count


@pytest.mark.timeout(2 * WITHIN)
async def test_each_message_ends_and_what_arrives_twice_is_on_record(crm: Crm, n8n: N8N, telegram: Peer) -> None:
    flow = n8n.answer = Workflow()
    telegram.otherwise = slowly
    for _ in range(2):
        crm.workers.start()
    async with crm.client() as client:
        agent_id, numbers = await agent(client), iter(range(MESSAGES))

        async def poster() -> list[str]:
            found = []
            for number in numbers:
                found.append(await post(client, agent_id, number))
                await asyncio.sleep(0.2)  # so that gateways are killed with some of them in their hands
            return found

        killing = asyncio.create_task(kill_now_and_then(crm, telegram, flow))
        posted = [one for found in await asyncio.gather(*(poster() for _ in range(POSTERS))) for one in found]
        kills = await killing
        told = {one["messageId"]: one for one in await ended(client, posted)}
    await eventually(crm.at_rest, timeout=WITHIN)
    done = [message_id for message_id in posted if not is_refused(message_id)]
    await check_answered_once(crm, done, refused={one for one in posted if is_refused(one)})
    check_ends(told, await crm.dead())
    counts = await check_arrivals(crm, done, telegram)
    print(
        f"{MESSAGES} messages, {kills} workers and 2 gateways killed: {len(done)} completed, "
        f"{MESSAGES - len(done)} refused; the workflow was asked {len(n8n.asked)} times; {counts}"
    )


def check_ends(told: dict[str, Any], dead: list[str]) -> None:
    """Completed, or failed with the reason, and then there is a dead letter."""
    expected = {f"m-{number}": "failed" if is_refused(f"m-{number}") else "completed" for number in range(MESSAGES)}
    assert {message_id: one["state"] for message_id, one in told.items()} == expected
    failed = [one for one in told.values() if one["state"] == "failed"]
    assert all("not this one" in one["error"] for one in failed), failed
    assert len(dead) == len(failed)
    assert all(letter.startswith("message: ") and "not this one" in letter for letter in dead), dead


async def check_arrivals(crm: Crm, done: list[str], telegram: Peer) -> str:
    """Each once for its success on record; more often only as its record says."""
    rows = {row["message_id"]: row for row in await crm.sql(_DELIVERIES)}
    counts = Counter(f"m-{sent.json['chat_id']}" for sent in telegram.received)
    assert set(rows) == set(done) == set(counts)
    assert all(row["sent_at"] for row in rows.values())
    wrong = {
        message_id: (counts[message_id], dict(row))
        for message_id, row in rows.items()
        if not 1 <= counts[message_id] <= 1 + row["unanswered"]
        or row["state"] != ("ambiguous" if row["unanswered"] else "sent")
    }
    assert not wrong, wrong
    twice = sum(count - 1 for count in counts.values())
    return f"{twice} arrived again, {sum(row['unanswered'] for row in rows.values())} unanswered on record"
