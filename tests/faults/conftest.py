"""A bus, workers in processes of their own, and a history of what they do."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pytest
from redis.asyncio import Redis

from eventbus import EventBus, EventBusError, Status, Unavailable
from eventbus.contract.codec import open_event
from eventbus.errors import CodecError
from eventbus.postgres import apply, installed
from eventbus.redis.keys import stream_keys
from tests.databases import Looking, Prepare, blocking
from tests.faults import jobs
from tests.faults.fleet import Fleet, Running
from tests.faults.history import History, Observed, Reader
from tests.waiting import PATIENCE

STREAM = "job"
WARM_UP = 1_000_000  # tokens above this one are published until all workers are up
KEY = stream_keys("eb", STREAM).stream


class Arena:
    """One run: servers, workers, publishers, history."""

    def __init__(
        self, folder: Path, redis_url: str, database_url: str, *, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment`: what the worker processes are to have beside or instead of the usual."""
        self.history_folder = folder / "history"
        self.spool = folder / "spool.jsonl"
        self.history_folder.mkdir()
        self.redis_url, self.database_url = redis_url, database_url
        self._database = Looking(database_url)
        self._redis = Redis.from_url(redis_url, socket_timeout=PATIENCE)
        self.history = History(self.history_folder)
        self.written = Reader(self.history_folder)
        environment = {
            "FAULTS_REDIS": redis_url,
            "FAULTS_DATABASE": database_url,
            "FAULTS_HISTORY": str(self.history_folder),
            **(environment or {}),
        }
        self.fleet = Fleet(folder, "tests.faults.process", environment)
        (folder / "publishers").mkdir()
        self.publishers = Fleet(folder / "publishers", "tests.faults.publisher", environment)

    async def publish(
        self,
        bus: EventBus,
        token: int,
        behaviour: str = "ok",
        *,
        delay: float | None = None,
        at: datetime | None = None,
    ) -> str | None:
        """Publish, and write down what the publisher knows about it, and how long that took; the event's id, if it was
        accepted."""
        self.history.record("publish invoked", token=token)
        began, accepted = time.monotonic(), None
        try:
            job = jobs.Job(token=token, behaviour=behaviour)
            receipt = await bus.publish(job, key=str(token), delay=delay, at=at)
        except Unavailable:
            what = "publish unknown"
        except EventBusError:
            what = "publish failed"
        else:
            what, accepted = "publish spooled" if receipt.status == Status.SPOOLED else "publish ok", receipt.id
        self.history.record(what, token=token, seconds=time.monotonic() - began)
        return accepted

    async def publish_all(self, bus: EventBus, tokens: Sequence[int], *, per_second: float) -> None:
        """At a steady rate, each publish a task of its own: a slow one delays no other."""
        loop = asyncio.get_running_loop()
        began, tasks = loop.time(), []
        for place, token in enumerate(tokens):
            await asyncio.sleep(max(0.0, began + place / per_second - loop.time()))
            tasks.append(asyncio.create_task(self.publish(bus, token)))
        await asyncio.gather(*tasks)

    async def publish_until_dead(self, bus: EventBus, doomed: Running, first: int) -> int:
        """As many as it takes, from this token on: who dies at its second batch must be given one. Returns how many."""
        async with asyncio.timeout(PATIENCE):
            for number in count(first):
                if doomed.poll() is not None:
                    return number - first
                await self.publish(bus, number)
                await asyncio.sleep(0.02)
        raise AssertionError("it counts for ever")

    async def observe(self, bus: EventBus) -> Observed:
        """What is there now."""
        dead, undecodable = await self._dead(bus)
        stored_twice, pending = await self._stream()
        return Observed(await self._effects(), dead, undecodable, stored_twice, pending, self.written.lines())

    async def effects(self, count: int) -> None:
        """Wait until so many events have had their effect, for as long as there are more and more. Costs less than to
        look at everything."""
        loop, most, deadline = asyncio.get_running_loop(), -1, 0.0
        while (found := (await self._effects()).total()) < count:
            if found > most:
                most, deadline = found, loop.time() + PATIENCE
            assert loop.time() < deadline, f"{found} of {count}, and no more for {PATIENCE} s\n{self.fleet.log()}"
            await asyncio.sleep(0.1)

    def history_of_publishers(self) -> Observed:
        """The history alone, without a look at the servers."""
        return Observed(Counter(), Counter(), 0, set(), 0, self.written.lines())

    async def settled(self, bus: EventBus, count: int) -> Observed:
        """Wait until so many are done or dead, their events are out and nothing is pending, for as long as there are
        more and more; then what is there."""
        loop, most, deadline = asyncio.get_running_loop(), -1, 0.0
        while True:
            began = loop.time()
            observed = await self.observe(bus)
            noted = len(observed.tokens("noted"))
            finished = len(observed.effects) + len(observed.dead) + observed.undecodable
            if finished >= count and noted >= len(observed.effects) and not observed.pending:
                return observed
            if finished + noted > most:
                most, deadline = finished + noted, loop.time() + PATIENCE
            if loop.time() > deadline:
                return observed
            await asyncio.sleep(max(0.1, 3 * (loop.time() - began)))  # those who are looked at are to get on, too

    async def runs(self, count: int) -> None:
        """Wait until handlers have begun so often."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while self.written.count("run") < count:
            assert asyncio.get_running_loop().time() < deadline, f"not {count} runs in {PATIENCE} s\n{self.fleet.log()}"
            await asyncio.sleep(0.01)

    def history_lines(self, what: str) -> list[dict[str, object]]:
        """What was written down until now of this kind."""
        return [line for line in self.written.lines() if line["what"] == what]

    async def at_work(self, bus: EventBus) -> int:
        """Publish until each process of the fleet has begun a handler: before that, a signal meets a Python that starts
        up. Returns how many events that took."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        wanted, published = {process.pid for process in self.fleet.processes}, 0
        while not wanted <= {line["pid"] for line in self.history_lines("run")}:
            assert asyncio.get_running_loop().time() < deadline, (
                f"not all began within {PATIENCE} s\n{self.fleet.log()}"
            )
            # In bursts: the blocked readers are served in turns, and one might get all the notes and never a job.
            await asyncio.gather(*(self.publish(bus, WARM_UP + published + i) for i in range(20)))
            published += 20
            await asyncio.sleep(0.05)
        return published

    async def warmed_up(self, bus: EventBus) -> int:
        """As `at_work`, and all that this took is out of the way: what comes next is on time, if anything is."""
        published = await self.at_work(bus)
        await self.settled(bus, published)
        return published

    async def end(self) -> None:
        self.fleet.end()
        self.publishers.end()
        await self._database.close()
        await self._redis.aclose()

    async def _effects(self) -> Counter[int]:
        return Counter(row["token"] for row in await self._database.fetch("SELECT token FROM effects"))

    async def ticks(self) -> Counter[datetime]:
        """Effects of what recurs, by the moment that they were due at."""
        return Counter(row["due"] for row in await self._database.fetch("SELECT due FROM ticks"))

    async def _dead(self, bus: EventBus) -> tuple[Counter[int], int]:
        """Tokens of dead letters, and how many hold no readable event."""
        found, undecodable = Counter[int](), 0
        for letter in await bus.transport.dead_letters(STREAM, limit=10_000):
            try:
                event = open_event(letter.envelope) if letter.envelope else None
            except CodecError:
                event = None
            if isinstance(event, jobs.Job):
                found[event.token] += 1
            else:
                undecodable += 1
        return found, undecodable

    async def _stream(self) -> tuple[set[str], int]:
        """Event ids that are stored twice, and how many entries are pending in all groups."""
        if not await self._redis.exists(KEY):
            return set(), 0
        entries: Any = await self._redis.xrange(KEY)
        ids = Counter(fields[b"id"].decode() for _, fields in entries if _is_text(fields.get(b"id")))
        groups = await self._redis.xinfo_groups(KEY)
        twice = {event_id for event_id, count in ids.items() if count > 1}
        return twice, sum(int(group["pending"]) for group in groups)


def _is_text(value: bytes | None) -> bool:
    return value is not None and value.isascii()


class ArenaFactory(Protocol):
    def __call__(
        self, redis_url: str, database_url: str | None = None, *, environment: Mapping[str, str] | None = None
    ) -> Arena:
        """An arena on these servers; the database is the test's own if none is given."""


@pytest.fixture
async def arena_on(tmp_path: Path, database_url: str) -> AsyncIterator[ArenaFactory]:
    """An arena on servers of the test's choosing."""
    arenas: list[Arena] = []
    default = database_url

    def make(redis_url: str, database_url: str | None = None, *, environment: Mapping[str, str] | None = None) -> Arena:
        if database_url is not None:
            blocking(_prepare(database_url))
        arenas.append(Arena(tmp_path, redis_url, database_url or default, environment=environment))
        return arenas[-1]

    yield make
    for arena in arenas:
        await arena.end()


@pytest.fixture
def arena(arena_on: ArenaFactory, any_redis_url: str) -> Arena:
    """An arena on the session's Redis, once for each of the matrix."""
    return arena_on(any_redis_url)


@pytest.fixture
async def bus(arena: Arena) -> AsyncIterator[EventBus]:
    async with EventBus(arena.redis_url) as bus:
        yield bus


async def _migrate(connection: asyncpg.Connection) -> None:
    await apply(connection, installed())
    await connection.execute(jobs.TABLES)


@pytest.fixture(scope="session")
def prepare_database() -> Prepare:
    return _migrate


async def _prepare(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await _migrate(connection)
    finally:
        await connection.close()
