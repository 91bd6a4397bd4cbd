"""One lead, all the way, thousands of times, while its workers are being killed. FAULTS_LEADS=10000 asks for more."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.faults.crm import USER, Crm
from tests.servers import OwnRedis
from tests.waiting import PATIENCE

LEADS = int(os.environ.get("FAULTS_LEADS", "2000"))
POSTERS = 40
FUNNEL = {
    "name": "Sales",
    "steps": [
        {"name": "New", "taskTemplates": [{"title": "Call"}, {"title": "Write"}, {"title": "Offer", "after": "Call"}]}
    ],
}
TASKS_OF_A_LEAD = ["Call", "Write"]  # "Offer" comes when "Call" is completed

_BY_LEAD = """
SELECT leads.id, count(DISTINCT notifications.id) AS notifications,
       (SELECT array_agg(title ORDER BY title) FROM tasks WHERE tasks.lead_id = leads.id) AS tasks
FROM leads LEFT JOIN notifications ON notifications.action_url = '/leads/' || leads.id
GROUP BY leads.id
"""


@pytest.fixture
async def crm(tmp_path: Path, own_redis: OwnRedis, database_url: str) -> AsyncIterator[Crm]:
    crm = Crm(tmp_path, own_redis().url, database_url)
    yield crm
    await crm.end()


@pytest.mark.timeout(600)
async def test_each_of_thousands_of_leads_has_its_tasks_and_one_notification_though_workers_are_killed(
    crm: Crm,
) -> None:
    await crm.migrate()
    await crm.start_gateway()
    for _ in range(2):
        crm.workers.start()
    async with crm.client() as client:
        funnel = await _post(client, "/api/funnels", FUNNEL)
        began = time.monotonic()
        posting = asyncio.create_task(_post_leads(client, funnel["id"]))
        kills = 0
        while not posting.done():
            await asyncio.wait([posting], timeout=1.0)
            crm.workers.kill(crm.workers.processes[0])
            crm.workers.start()
            kills += 1
        posted = await posting
    posted_at = time.monotonic()
    await _settled(crm)
    posted_in, settled_in = posted_at - began, time.monotonic() - posted_at
    rows = await crm.sql(_BY_LEAD)
    wrong = [dict(row) for row in rows if row["notifications"] != 1 or row["tasks"] != TASKS_OF_A_LEAD]
    assert not wrong, f"{len(wrong)} of {len(rows)}: {wrong[:5]}"
    assert {str(row["id"]) for row in rows} == set(posted), "every lead that was answered 201, and no other"
    assert len(posted) == LEADS
    assert await crm.dead() == []
    assert await crm.unsettled() == 0
    assert kills >= 5, "too few to prove anything"
    print(f"{LEADS} leads posted in {posted_in:.0f} s, {kills} workers killed, all settled {settled_in:.0f} s later")


async def _post_leads(client: aiohttp.ClientSession, funnel_id: str) -> list[str]:
    numbers = iter(range(LEADS))

    async def poster() -> list[str]:
        return [
            (await _post(client, "/api/leads", {"name": f"Lead {n}", "funnelId": funnel_id, "assignedTo": USER}))["id"]
            for n in numbers
        ]

    return [lead_id for found in await asyncio.gather(*(poster() for _ in range(POSTERS))) for lead_id in found]


async def _post(client: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """As clients do: again, with the same key, as long as a server is away or too slow."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    async with asyncio.timeout(PATIENCE):
        while True:
            async with client.post(path, json=body, headers=key) as response:
                answer: dict[str, Any] = await response.json()
                if response.status == 201:
                    return answer
                assert response.status == 503, answer
            await asyncio.sleep(0.1)


async def _settled(crm: Crm) -> None:
    """Until the outbox is empty, all effects are there and nothing is scheduled, undelivered or pending."""
    async with asyncio.timeout(400):
        while True:
            [row] = await crm.sql(
                "SELECT (SELECT count(*) FROM notifications) AS notifications, (SELECT count(*) FROM tasks) AS tasks"
            )
            done = row["notifications"] >= LEADS and row["tasks"] >= LEADS * len(TASKS_OF_A_LEAD)
            if done and await crm.at_rest():
                return
            await asyncio.sleep(0.5)
