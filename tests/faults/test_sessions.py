"""Sessions when the gateway is killed anywhere in a commit, and when Redis is away while they are filled and committed.

FAULTS_SESSION_TRIALS  how many gateways die (200 take a few minutes)      FAULTS_SESSION_OUTAGE  seconds without Redis
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from redis.asyncio import Redis

from eventbus import EventBus
from eventbus.contract.session_store import SessionId, SessionStatus
from eventbus.embedded import EmbeddedRedis
from eventbus.sessions import Recovery
from gateway.callers.auth import make_token
from tests.faults.crm import ORGANIZATION, SECRET, Crm
from tests.servers import OwnRedis
from tests.waiting import PATIENCE, eventually

TRIALS = int(os.environ.get("FAULTS_SESSION_TRIALS", "8"))
OUTAGE = float(os.environ.get("FAULTS_SESSION_OUTAGE", "3"))
COUNT = 1_000  # events of a session
STREAMS = {"lead": "lead.calculate_score", "task": "task.created", "notification": "notification.send_sms"}
BATCHES = 12  # of a session: four times 250 events, of three streams

pytestmark = pytest.mark.timeout(300 + 20 * TRIALS + 4 * int(OUTAGE))


@pytest.fixture
def redis(own_redis: OwnRedis) -> EmbeddedRedis:
    """What it has confirmed is on the disk: what it may lose otherwise when it is killed is not ours to promise."""
    return own_redis(options={"appendfsync": "always"})


@pytest.fixture
async def crm(tmp_path: Path, redis: EmbeddedRedis, database_url: str) -> AsyncIterator[Crm]:
    crm = Crm(tmp_path, redis.url, database_url)
    token = make_token(SECRET, user="importer", organization=ORGANIZATION, roles=frozenset({"system"}))
    crm.headers = {"Authorization": f"Bearer {token}"}
    await crm.migrate()
    yield crm
    await crm.end()


def event(session: str, number: int) -> dict[str, Any]:
    """Known again wherever it is found."""
    kind = list(STREAMS.values())[number % 3]
    data: dict[str, dict[str, str]] = {
        "lead.calculate_score": {"leadId": "lead-1"},
        "task.created": {"taskId": "t", "title": "Call"},
        "notification.send_sms": {"userId": "u", "message": "m"},
    }
    return {"type": kind, "data": data[kind], "key": f"{session}/{number}"}


async def published(url: str) -> Mapping[str, list[int]]:
    """By session, the numbers of its events; those of a stream must be in their order."""
    found: dict[str, list[int]] = {}
    async with Redis.from_url(url, socket_timeout=PATIENCE) as client:
        for stream in STREAMS:
            entries: Any = await client.xrange(f"eb:{{{stream}}}:stream")
            last: dict[str, int] = {}
            for _, fields in entries:
                session, _, number = orjson.loads(fields[b"meta"])["subject"].partition("/")
                assert last.get(session, -1) <= int(number), "the order of adding"
                last[session] = int(number)
                found.setdefault(session, []).append(int(number))
    return found


# (a) The gateway is killed ------------------------------------------------------------------------------------------


def boundaries() -> Iterator[str]:
    """Where gateways die: in turn at each boundary of a commit, and behind any of its batches."""
    draw = random.Random(20261122)
    while True:
        yield from ("session.registered", "session.committing", "session.appended", "session.published")
        yield f"session.appended:{draw.randint(2, BATCHES)}"
        # The session's start and each addition pass this one as well: the fourth time it is the commit.
        yield from ("session.committed", f"session.appended:{BATCHES}", "gateway.committed:4")


async def fill(client: aiohttp.ClientSession) -> str:
    async with client.post("/api/sessions", json={}) as answer:
        assert answer.status == 201
        session: str = (await answer.json())["sessionId"]
    for start in range(0, COUNT, COUNT // 2):
        events = [event(session, number) for number in range(start, start + COUNT // 2)]
        async with client.post(f"/api/sessions/{session}/events", json=events) as answer:
            assert answer.status == 202, await answer.text()
    return session


async def dies_in_a_commit(crm: Crm, point: str) -> str:
    """The session that a gateway was committing when it died at this boundary."""
    fleet, session = crm.gateway, None
    process = fleet.start(crash=point)
    async with crm.client() as client:

        async def answers() -> bool:
            with suppress(aiohttp.ClientError):
                async with client.get("/livez"):
                    return True
            return process.poll() is not None

        await eventually(answers)
        with suppress(aiohttp.ClientError):
            session = await fill(client)
            await client.post(f"/api/sessions/{session}/commit")
            raise AssertionError(f"it has outlived {point}")
    assert await asyncio.to_thread(process.wait, PATIENCE) == -9, fleet.log()
    assert session is not None, f"it has died before anything was committed: {fleet.log()}"
    fleet.processes.remove(process)
    return session


async def ended_by(recovery: Recovery, bus: EventBus, session: str) -> bool:
    """Whether nobody has to end this one's commit any more."""
    await recovery.look()
    state = await bus.transport.sessions.find(SessionId(ORGANIZATION, session))
    return state is not None and state.status is not SessionStatus.COMMITTING


async def states(crm: Crm, sessions: Sequence[str]) -> dict[str, dict[str, Any]]:
    async with crm.client() as client:
        found = {}
        for session in sessions:
            async with client.get(f"/api/sessions/{session}") as answer:
                assert answer.status == 200
                found[session] = await answer.json()
        return found


async def test_a_gateway_killed_anywhere_in_a_commit_leaves_it_whole_or_untouched(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.sessions.recovery.GRACE", 0.0)  # of this process; gateways leave us the time
    monkeypatch.setattr("eventbus.sessions.recovery.INTERVAL", 0.02)
    points = dict[str, str]()
    async with EventBus(crm.redis_url) as bus:
        for _, point in zip(range(TRIALS), boundaries(), strict=False):
            session = await dies_in_a_commit(crm, point)
            points[session] = point
            if len(points) < TRIALS:  # what it has left is ended here, lest the next one dies of that
                await eventually(partial(ended_by, Recovery(bus.transport, bus.metrics.count_collected), bus, session))
    await crm.start_gateway()

    async def nobody_commits() -> bool:
        return all(told["status"] != "COMMITTING" for told in (await states(crm, list(points))).values())

    await eventually(nobody_commits)
    ended, found = await states(crm, list(points)), await published(crm.redis_url)
    untouched = {session for session, told in ended.items() if told["status"] == "ACTIVE"}
    for session, told in ended.items():
        if session in untouched:
            assert told["eventCount"] == COUNT
            assert session not in found, points[session]
        else:
            assert (told["status"], told["published"], told["batches"]) == ("COMMITTED", COUNT, BATCHES)
            assert sorted(found[session]) == list(range(COUNT)), points[session]
    assert untouched <= {session for session, point in points.items() if point == "session.registered"}
    async with crm.client() as client:
        for session, told in ended.items():
            async with client.post(f"/api/sessions/{session}/commit") as answer:
                again = await answer.json()
            assert (answer.status, again["published"], again["batches"]) == (200, COUNT, BATCHES), told
    found = await published(crm.redis_url)
    assert {session: sorted(numbers) for session, numbers in found.items()} == {
        session: list(range(COUNT)) for session in points
    }
    print(f"{len(points)} sessions: {len(untouched)} untouched; by boundary:", dict(Counter(points.values())))


# (b) Redis is away --------------------------------------------------------------------------------------------------


class Client:
    """Fills and commits sessions, one after the other, for as long as it is told to; notes what was acknowledged."""

    def __init__(self, crm: Crm) -> None:
        self._crm = crm
        self.stopped = False
        self.acknowledged: dict[str, list[int]] = {}
        self.ended: dict[str, str] = {}
        self.contingencies = 0

    async def run(self) -> None:
        async with self._crm.client() as client:
            while not self.stopped:
                with suppress(aiohttp.ClientError):
                    await self._fill(client)

    async def _fill(self, client: aiohttp.ClientSession) -> None:
        session = (await self._post(client, "", {}, 201))["sessionId"]
        self.acknowledged[session] = []
        for start in range(0, 20, 4):
            numbers = list(range(start, start + 4))
            await self._post(client, f"/{session}/events", [event(session, number) for number in numbers], 202)
            self.acknowledged[session] += numbers
            await asyncio.sleep(0.01)
        end = "rollback" if random.random() < 0.2 else "commit"
        await self._post(client, f"/{session}/{end}", None, 200)
        self.ended[session] = end

    async def _post(self, client: aiohttp.ClientSession, path: str, content: object, status: int) -> Any:
        async with client.post(f"/api/sessions{path}", json=content) as answer:
            told = await answer.json()
            assert answer.status == status, told
            self.contingencies += told["contingency"]
            return told


async def test_redis_away_while_sessions_are_filled_and_committed(crm: Crm, redis: EmbeddedRedis) -> None:
    spool = Path(os.environ["EVENTBUS_SPOOL_PATH"])
    await crm.start_gateway()
    clients = [Client(crm) for _ in range(4)]
    running = [asyncio.create_task(client.run()) for client in clients]
    await asyncio.sleep(1)
    await asyncio.to_thread(redis.kill)
    await asyncio.sleep(OUTAGE * 0.6)
    tear(spool)
    await asyncio.sleep(OUTAGE * 0.4)
    await asyncio.to_thread(redis.start)
    await asyncio.sleep(1)
    for client in clients:
        client.stopped = True
    await asyncio.gather(*running)

    async def empty() -> bool:
        return await asyncio.to_thread(lambda: spool.stat().st_size == 0)

    await eventually(empty)
    acknowledged = {session: numbers for client in clients for session, numbers in client.acknowledged.items()}
    ended = {session: end for client in clients for session, end in client.ended.items()}
    assert acknowledged.keys() == ended.keys(), "nothing was aborted"
    assert min(client.contingencies for client in clients) > 0
    found = await published(crm.redis_url)
    wanted = {session: acknowledged[session] for session, end in ended.items() if end == "commit"}
    assert {session: sorted(numbers) for session, numbers in found.items()} == wanted
    assert set(await statuses(crm, ended)) == {("commit", "COMMITTED"), ("rollback", "ROLLED_BACK")}
    aside = spool.with_name(spool.name + ".rejected").read_bytes()
    assert aside == TORN + b"\n", "the torn line, and nothing that was acknowledged"
    print(f"{len(ended)} sessions, {sum(client.contingencies for client in clients)} answers from the spool")


TORN = b'{"operation":"session.add","organization":"acme","id":"01a2'


def tear(spool: Path) -> None:
    """As a writer leaves it that was killed in the middle of a line; what was acknowledged stands before it."""
    with spool.open("ab") as file:
        file.write(TORN)


async def statuses(crm: Crm, ended: Mapping[str, str]) -> list[tuple[str, str]]:
    found = await states(crm, list(ended))
    return [(end, found[session]["status"]) for session, end in ended.items()]
