"""History holds exactly what was published, whoever is killed meanwhile."""

import asyncio
import os
import random
from collections import Counter

import asyncpg
import pytest

from eventbus import EventBus
from eventbus.contract.codec import envelop
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Envelope
from tests.faults.conftest import STREAM, Arena, ArenaFactory
from tests.faults.jobs import Noted
from tests.servers import OwnPostgres
from tests.waiting import PATIENCE

EVENTS = int(os.environ.get("FAULTS_HISTORY_EVENTS", "5000"))
CHUNK = 200
RECORDING = "--history"


@pytest.fixture
def arena(arena_on: ArenaFactory, redis_url: str) -> Arena:
    """On one server: history is written to another."""
    return arena_on(redis_url)


def some(count: int) -> list[Envelope]:
    return [envelop(Noted(token=token), key=str(token), organization="acme") for token in range(count)]


async def publish(bus: EventBus, events: list[Envelope], *, twice: float = 0.0, pause: float = 0.0) -> None:
    """In chunks; of each some are stored a second time, as by a publisher that repeats itself and is not noticed."""
    for start in range(0, len(events), CHUNK):
        chunk = events[start : start + CHUNK]
        await bus.forward([Outgoing(event) for event in chunk])
        again = random.sample(chunk, int(len(chunk) * twice))
        if again:
            await bus.transport.append([Outgoing(event) for event in again])
        await asyncio.sleep(pause)


async def stored(url: str) -> Counter[str]:
    """Ids of what is recorded; nothing while PostgreSQL is away."""
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return Counter()
    try:
        return Counter(row[0] for row in await connection.fetch("SELECT event_id::text FROM eventbus_events"))
    finally:
        await connection.close()


async def at_rest(arena: Arena, bus: EventBus) -> None:
    """Until the group has dealt with everything."""
    deadline = asyncio.get_running_loop().time() + PATIENCE + EVENTS / 500
    while True:
        [state] = await bus.transport.inspect([STREAM])
        mine = [group for group in state.groups if group.name == "history"]
        if mine and not any(group.lag or group.pending for group in mine):
            return
        assert asyncio.get_running_loop().time() < deadline, f"{mine}\n{arena.fleet.log()[-4000:]}"
        await asyncio.sleep(0.1)


async def check(arena: Arena, bus: EventBus, events: list[Envelope]) -> None:
    found, published = await stored(arena.database_url), {event.id for event in events}
    assert not {event_id for event_id, count in found.items() if count > 1}, "recorded twice"
    assert not published - {*found}, "published, and not recorded"
    assert not {*found} - published, "recorded, though nobody published it"
    assert [letter.error for letter in await bus.transport.dead_letters(STREAM)] == []


@pytest.mark.parametrize("boundary", ["consumer.read", "history.record", "history.recorded", "consumer.settled"])
async def test_whoever_dies_at_any_boundary_of_a_batch_leaves_each_event_recorded_once(
    boundary: str, arena: Arena, bus: EventBus
) -> None:
    events = some(600)
    doomed = arena.fleet.start(RECORDING, crash=boundary)
    publishing = asyncio.create_task(publish(bus, events, twice=0.1, pause=0.3))
    await asyncio.to_thread(doomed.wait, PATIENCE)
    arena.fleet.processes.remove(doomed)
    arena.fleet.start(RECORDING)
    await publishing
    await at_rest(arena, bus)
    await check(arena, bus, events)


@pytest.mark.timeout(120 + EVENTS // 100)
async def test_history_holds_exactly_what_was_published(
    own_postgres: OwnPostgres, arena_on: ArenaFactory, redis_url: str
) -> None:
    """Workers are killed all the time, PostgreSQL once, and of the events some are delivered twice."""
    postgres = own_postgres()
    arena = arena_on(redis_url, postgres.url)
    events = some(EVENTS)
    killed = 0
    async with EventBus(redis_url) as bus:
        for _ in range(2):
            arena.fleet.start(RECORDING)
        publishing = asyncio.create_task(publish(bus, events, twice=0.05, pause=8 * CHUNK / max(EVENTS, 5_000)))
        while not publishing.done():
            before = sum((await stored(arena.database_url)).values())
            while not publishing.done() and sum((await stored(arena.database_url)).values()) <= before:
                await asyncio.sleep(0.05)
            arena.fleet.kill(random.choice(arena.fleet.processes))
            arena.fleet.start(RECORDING)
            killed += 1
            if killed == 2:
                await asyncio.to_thread(postgres.kill)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(postgres.start)
        await publishing
        await at_rest(arena, bus)
        await check(arena, bus, events)
    assert killed >= 3
    print(f"{EVENTS:,} events, {killed} workers killed")
