"""What is written down of an event when its worker dies in the moment between settling it and writing that down."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from eventbus import EventBus, Group, Phase, State
from eventbus.operating import state_queries
from tests.faults import jobs
from tests.faults.conftest import KEY, Arena, ArenaFactory
from tests.waiting import PATIENCE, eventually

GROUP = "jobs"
STALE = 0.5  # seconds


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_queries, "STALE", STALE)


@pytest.fixture
def arena(arena_on: ArenaFactory, any_redis_url: str) -> Arena:
    return arena_on(any_redis_url, environment={"FAULTS_TRACK": "1"})


@pytest.fixture
def group(arena: Arena) -> Group:
    return jobs.group(arena.history)


@pytest.fixture
async def bus(arena: Arena) -> AsyncIterator[EventBus]:
    async with EventBus(arena.redis_url) as bus:
        yield bus


async def recorded(bus: EventBus, event_id: str) -> Phase | None:
    """What is written down, right or wrong."""
    state = await bus.groups.recorded(GROUP, event_id)
    return None if state is None else state.phase


async def left_behind(arena: Arena, bus: EventBus, behaviour: str, attempts: int = 1) -> str:
    """The id of an event whose worker died when so many attempts were settled, and left a record that says `active`."""
    # Alone: else what its handler published is acknowledged as well, and perhaps before.
    doomed = arena.fleet.start("--alone", crash=f"consumer.settled:{attempts}")
    event_id = await arena.publish(bus, 1, behaviour)
    assert event_id is not None
    await asyncio.to_thread(doomed.wait, PATIENCE)
    assert await recorded(bus, event_id) is Phase.ACTIVE, "or there is nothing to be seen here"
    return event_id


async def ends_as(bus: EventBus, group: Group, event_id: str, phase: Phase) -> State:
    async def there() -> State | None:
        state = await bus.groups.state(group, event_id)
        return state if state.phase is phase else None

    found = await eventually(there)
    assert found is not None
    return found


@pytest.mark.parametrize("trimmed", [False, True])
async def test_what_was_acknowledged_is_completed(arena: Arena, bus: EventBus, group: Group, trimmed: bool) -> None:
    event_id = await left_behind(arena, bus, "sleep:0.4")
    if trimmed:
        async with Redis.from_url(arena.redis_url, socket_timeout=PATIENCE) as client:
            await client.xtrim(KEY, maxlen=0, approximate=False)  # as housekeeping would, a while later
        assert (await bus.events.locate(event_id)).stream is None
    done = await ends_as(bus, group, event_id, Phase.COMPLETED)
    assert (done.attempts, done.error) == (1, None)
    assert done.started is not None
    assert done.finished is not None
    assert done.finished >= done.started
    assert await recorded(bus, event_id) is Phase.COMPLETED, "it was written down"
    for _ in range(3):
        assert await bus.groups.state(group, event_id) == done
    assert (await bus.groups.counts(group)).completed == 1, "and counted once"


async def test_asked_for_by_its_name_alone_it_is_completed_too(arena: Arena, bus: EventBus) -> None:
    event_id = await left_behind(arena, bus, "sleep:0.4")

    async def completed() -> bool:
        return (await bus.groups.state(GROUP, event_id)).phase is Phase.COMPLETED

    await eventually(completed)


async def test_what_became_a_dead_letter_has_failed(arena: Arena, bus: EventBus, group: Group) -> None:
    event_id = await left_behind(arena, bus, "fail-after:0.4", jobs.ATTEMPTS)
    failed = await ends_as(bus, group, event_id, Phase.FAILED)
    assert (failed.attempts, failed.error) == (jobs.ATTEMPTS, "ValueError: on purpose, and late")
    counts = await bus.groups.counts(group)
    assert (counts.completed, counts.failed) == (0, 1)


async def test_what_is_to_be_tried_again_waits_and_is_completed_by_whoever_comes(
    arena: Arena, bus: EventBus, group: Group
) -> None:
    event_id = await left_behind(arena, bus, "fail-after:0.4")
    await ends_as(bus, group, event_id, Phase.WAITING)
    arena.fleet.start()
    failed = await ends_as(bus, group, event_id, Phase.FAILED)
    assert failed.attempts == jobs.ATTEMPTS


async def test_what_a_dead_worker_has_in_hand_waits_when_its_lease_has_run_out(
    arena: Arena, bus: EventBus, group: Group
) -> None:
    worker = arena.fleet.start()
    event_id = await arena.publish(bus, 1, "sleep:1.5")
    assert event_id is not None

    async def written() -> bool:
        return await recorded(bus, event_id) is Phase.ACTIVE

    await eventually(written)
    arena.fleet.kill(worker)
    await ends_as(bus, group, event_id, Phase.WAITING)
    assert (await bus.groups.counts(group)).completed == 0
    arena.fleet.start()
    await ends_as(bus, group, event_id, Phase.ACTIVE)
    await ends_as(bus, group, event_id, Phase.COMPLETED)
    assert (await bus.groups.counts(group)).completed == 1


async def test_a_long_handler_that_says_nothing_is_active_until_it_ends(
    arena: Arena, bus: EventBus, group: Group
) -> None:
    arena.fleet.start()
    event_id = await arena.publish(bus, 1, f"sleep:{6 * STALE}")
    assert event_id is not None
    await ends_as(bus, group, event_id, Phase.ACTIVE)
    seen = []
    while (state := await bus.groups.state(group, event_id)).phase is not Phase.COMPLETED:
        seen.append(state.phase)
        await asyncio.sleep(0.02)
    assert set(seen) == {Phase.ACTIVE}
    assert state.attempts == 1
    assert (await bus.groups.counts(group)).completed == 1
