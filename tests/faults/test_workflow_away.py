"""The workflow service is out of order or hangs, as the application meets it in production: its own processes, its own
pauses. FAULTS_OUTAGE and FAULTS_HANG: for how many seconds; a call that hangs is given up after at most 120.
FAULTS_HANGING: how many messages hang."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from handlers.message.handlers import message
from handlers.message.workflow import PAUSE, STEPS_ASIDE_AFTER
from tests.faults.crm import Crm
from tests.faults.test_messages import agent, ask, check_answered_once, ended
from tests.gateway import n8n as workflow
from tests.gateway.n8n import N8N, Asked, echo
from tests.servers import OwnRedis
from tests.stopwatch import Stopwatch
from tests.waiting import eventually, until

OUTAGE = float(os.environ.get("FAULTS_OUTAGE", "3"))
HANG = float(os.environ.get("FAULTS_HANG", "4"))
MESSAGES = 40
HANGING = int(os.environ.get("FAULTS_HANGING", "3"))
PLACES = min(HANGING, message.concurrency)  # that they take
HEALED = 30.0  # seconds from the end of an outage in which all are answered: a pause, and the retries behind it
PROMPT = 10.0  # seconds that others may take; and where no place is left to them, until one is
PROMPT += 1.25 * STEPS_ASIDE_AFTER if message.concurrency == PLACES else 0.0


@pytest.fixture
async def n8n(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[N8N]:
    async with workflow.serving() as n8n:
        monkeypatch.setenv("N8N_BASE_URL", n8n.url)
        monkeypatch.setenv("N8N_TIMEOUT", str(HANG))
        yield n8n


@pytest.fixture
async def crm(tmp_path: Path, own_redis: OwnRedis, database_url: str, n8n: N8N) -> AsyncIterator[Crm]:
    crm = Crm(tmp_path, own_redis().url, database_url)
    await crm.migrate()
    await crm.start_gateway()
    crm.workers.start()
    yield crm
    await crm.end()


async def new_agent(client: aiohttp.ClientSession, flow: str) -> str:
    async with client.post("/api/agents", json={"name": flow.title(), "workflow": flow}) as response:
        found: str = (await response.json())["id"]
        return found


async def open_circuits(client: aiohttp.ClientSession) -> int:
    async with client.get("/readyz?verbose") as response:
        found: int = (await response.json())["details"]["circuits"]["open"]
        return found


@pytest.mark.timeout(OUTAGE + 300)
async def test_an_outage_opens_the_circuit_and_all_messages_complete(crm: Crm, n8n: N8N) -> None:
    """4xx is no outage: it is final, with its reason."""
    down = True

    async def answer(asked: Asked) -> web.Response:
        if asked.workflow == "strict":
            return web.Response(status=422, text="no such tool")
        return web.Response(status=500) if down else await echo(asked)

    n8n.answer = answer
    async with crm.client() as client:
        broken, strict = await new_agent(client, "broken"), await new_agent(client, "strict")
        began = Stopwatch()
        posted = [await ask(client, broken, f"Message {number}") for number in range(MESSAGES)]

        async def is_open() -> bool:
            return await open_circuits(client) == 1

        await eventually(is_open)
        refused = await ask(client, strict, "Rain?")
        with Stopwatch() as ending:
            [told] = await ended(client, [refused])
        assert ending.seconds < PROMPT
        assert (told["state"], told["attempts"]) == ("failed", 1)
        assert "422" in told["error"]
        assert "no such tool" in told["error"]
        await asyncio.sleep(max(0.0, OUTAGE - began.passed))
        assert await is_open()
        calls = len(n8n.asked)
        assert calls <= 3 + 5 + began.passed / PAUSE + 2, "those under way when it opened, one a pause, and the refused"
        down = False
        with Stopwatch() as healed:
            ends = await ended(client, posted)
        assert Counter(one["state"] for one in ends) == {"completed": MESSAGES}
        assert healed.seconds < HEALED
        assert await open_circuits(client) == 0
    await check_answered_once(crm, posted, refused={refused})
    [letter] = await crm.dead()
    assert letter.startswith("message: ")
    assert "no such tool" in letter
    print(f"{OUTAGE:.0f} s of 500: {calls} calls meanwhile; all {MESSAGES} completed {healed.passed:.1f} s behind it")


@pytest.mark.timeout(4 * HANG + 300)
async def test_a_workflow_that_hangs_is_given_up_in_time_and_others_are_answered(crm: Crm, n8n: N8N) -> None:
    healthy = False

    async def answer(asked: Asked) -> web.Response:
        if asked.workflow == "slow" and not healthy:
            await asyncio.sleep(4 * HANG)
        return await echo(asked)

    n8n.answer = answer
    async with crm.client() as client:
        slow, quick = await new_agent(client, "slow"), await agent(client)
        asked_at = Stopwatch()
        hanging = [await ask(client, slow, f"Slow {number}") for number in range(HANGING)]
        await until(lambda: len(n8n.asked) == PLACES)
        asking = asked_at.passed  # the first of them may have hung for as long as that
        began = Stopwatch()
        others = [await ask(client, quick, f"Quick {number}") for number in range(MESSAGES)]
        ends = await ended(client, others)
        assert Counter(one["state"] for one in ends) == {"completed": MESSAGES}
        prompt = began.seconds
        assert prompt < min(HANG, PROMPT), "they did not wait for it"
        calls = len(n8n.asked) - MESSAGES
        assert calls < 2 * PLACES, "more of them would only hang as well"

        async def given_up() -> dict[str, Any]:
            """One of them. The last one to fail opens the circuit, and is put off without an error."""
            for hung in hanging:
                async with client.get(f"/api/messages/{hung}/status") as response:
                    told: dict[str, Any] = (await response.json())["data"]
                if told.get("error"):
                    return told
            return {}

        told = await eventually(given_up)
        bound = began.passed
        assert f"has not answered within {HANG:g} s" in told["error"]
        assert bound + asking >= HANG - 1
        assert began.seconds <= HANG + 5
        healthy = True
        ends = await ended(client, hanging)
        assert Counter(one["state"] for one in ends) == {"completed": HANGING}
    await check_answered_once(crm, [*hanging, *others])
    assert await crm.dead() == []
    print(f"{HANGING} calls hung and were given up after {bound:.1f} s; {MESSAGES} others took {prompt:.1f} s")
