"""Fault 12: the gateway dies between its commit and its answer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.faults.crm import USER, Crm
from tests.servers import OwnRedis
from tests.waiting import PATIENCE

LEAD = {"name": "Grace Hopper", "assignedTo": USER}
KEY = {"Idempotency-Key": "the-one-and-only"}


@pytest.fixture
async def crm(tmp_path: Path, own_redis: OwnRedis, database_url: str) -> AsyncIterator[Crm]:
    crm = Crm(tmp_path, own_redis().url, database_url)
    await crm.migrate()
    yield crm
    await crm.end()


async def test_a_lead_that_was_committed_is_answered_and_published_once(crm: Crm) -> None:
    await crm.start_gateway(crash="gateway.committed")
    async with crm.client() as client:
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.post("/api/leads", json=LEAD, headers=KEY)
        await asyncio.to_thread(crm.gateway.processes[0].wait, PATIENCE)
        await crm.start_gateway()
        answers = []
        for _ in range(2):
            async with client.post("/api/leads", json=LEAD, headers=KEY) as response:
                answers.append((response.status, await response.json()))
    assert answers[0] == answers[1]
    assert answers[0][0] == 201
    leads = await crm.sql("SELECT id FROM leads")
    assert [str(row["id"]) for row in leads] == [answers[0][1]["id"]], "the first attempt's lead, and no other"

    crm.workers.start()
    async with asyncio.timeout(PATIENCE):
        while not await crm.sql("SELECT 1 FROM notifications"):
            await asyncio.sleep(0.1)
    created = await crm.sql("SELECT published_at FROM eventbus_outbox WHERE type = 'lead.created'")
    assert len(created) == 1, "one lead, one event"
    assert created[0]["published_at"] is not None
