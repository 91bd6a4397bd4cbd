"""Faults 1 and 2: a worker or a publisher dies at any boundary, or is told to stop, under load."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from eventbus import EventBus
from tests.faults.conftest import KEY, Arena
from tests.faults.history import check
from tests.faults.jobs import ATTEMPTS, LEASE
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE

BOUNDARIES = [
    "consumer.read",
    "consumer.read:5",  # two groups read in turns: one of these three is the one that counts
    "consumer.read:6",
    "consumer.read:7",
    "consumer.settle",
    "consumer.settle:5",
    "consumer.settled",
    "inbox.commit:3",
    "inbox.committed:3",
    "relay.appended",
    "relay.appended:2",
]


@pytest.mark.parametrize("boundary", BOUNDARIES)
async def test_nothing_is_lost_or_done_twice_when_a_worker_dies_at(boundary: str, arena: Arena, bus: EventBus) -> None:
    doomed = arena.fleet.start(crash=boundary)
    await arena.publish_all(bus, range(1, 101), per_second=200)
    more = await arena.publish_until_dead(bus, doomed, 101)
    arena.fleet.start()
    observed = await arena.settled(bus, 100 + more)
    check(observed, attempts=ATTEMPTS)


async def test_what_a_publisher_stored_before_it_died_is_done_once(arena: Arena, bus: EventBus) -> None:
    """It has the event's receipt no more than a caller whose reply was lost: the event may be there or not."""
    arena.fleet.start()
    doomed = arena.publishers.start("1", "50", crash="publish.stored:20")
    await asyncio.to_thread(doomed.wait, PATIENCE)
    arena.publishers.start("101", "120")
    observed = await arena.settled(bus, 40)
    check(observed, attempts=ATTEMPTS)
    assert set(observed.effects) == {*range(1, 21), *range(101, 121)}, "19 with a receipt, one without"


async def test_nothing_is_lost_when_the_worker_that_took_over_dies_too(arena: Arena, bus: EventBus) -> None:
    """taskiq-redis#131: a dead process left a lock without TTL behind, and nobody ever reclaimed again."""
    first = arena.fleet.start()
    await arena.publish(bus, 0, "sleep:0.5")
    await arena.runs(1)
    arena.fleet.kill(first)
    second = arena.fleet.start(crash="consumer.reclaimed")
    await arena.publish_all(bus, range(1, 51), per_second=200)
    await asyncio.to_thread(second.wait, PATIENCE)
    arena.fleet.start()
    check(await arena.settled(bus, 51), attempts=ATTEMPTS)


async def test_the_events_of_a_killed_worker_run_elsewhere_within_a_lease_and_a_second(
    arena: Arena, bus: EventBus
) -> None:
    first = arena.fleet.start()
    await arena.publish(bus, 1, "sleep:3")
    await arena.runs(1)
    arena.fleet.start()
    await asyncio.sleep(LEASE)  # the first has renewed by now: what counts is the lease that runs when it dies
    arena.fleet.kill(first)
    with Stopwatch() as killed:
        await arena.runs(2)
    assert killed.seconds <= LEASE + 1.0
    check(await arena.settled(bus, 1), attempts=ATTEMPTS)


async def test_a_handler_of_ten_leases_runs_once(arena: Arena, bus: EventBus) -> None:
    """taskiq-redis#101: a long task whose worker was alive was run twice."""
    for _ in range(2):
        arena.fleet.start()
    # Several, begun at different times: a worker that looks for lost leases just after its own must not hide a fault.
    for token in range(8):
        await arena.publish(bus, token, f"sleep:{10 * LEASE}")
        await arena.runs(token + 1)
        await asyncio.sleep(LEASE / 4)
    observed = await arena.settled(bus, 8)
    check(observed, attempts=ATTEMPTS)
    assert set(observed.tokens("run").values()) == {1}


async def test_sigterm_drains_and_burns_no_attempt(arena: Arena, bus: EventBus) -> None:
    workers = [arena.fleet.start(), arena.fleet.start()]
    warm_up = await arena.at_work(bus)
    publishing = asyncio.create_task(arena.publish_all(bus, range(1, 401), per_second=200))
    for token in range(401, 411):
        await arena.publish(bus, token, "sleep:0.5")
    await arena.runs(warm_up + 100)
    assert await asyncio.to_thread(arena.fleet.terminate, workers[0]) == 0
    await publishing
    observed = await arena.settled(bus, warm_up + 410)
    check(observed, attempts=1)
    runs = observed.tokens("run")
    assert set(runs.values()) == {1}, "a drained worker finishes what it has begun, and gives back the rest unseen"
    assert "unsettled" not in arena.fleet.log(), "what is given back must not wait for its lease to end"


async def test_a_handler_that_swallows_its_cancellation_does_not_keep_its_worker(arena: Arena, bus: EventBus) -> None:
    stopped = arena.fleet.start("--hasty")
    await arena.publish(bus, 1, "stay")
    await arena.publish(bus, 2)
    await arena.runs(2)
    assert await asyncio.to_thread(arena.fleet.terminate, stopped) == 0
    assert "tests.faults.jobs.group.<locals>.run" in arena.fleet.log(), "who kept it"
    assert "unsettled" not in arena.fleet.log()
    [group] = [group for group in await _groups(arena) if group["name"] == b"jobs"]
    assert group["pending"] == 1
    arena.fleet.start()
    await arena.runs(3)
    assert [line["attempt"] for line in arena.history_lines("run") if line["token"] == 1] == [1, 1]


async def _groups(arena: Arena) -> list[Any]:
    async with Redis.from_url(arena.redis_url, socket_timeout=PATIENCE) as client:
        return list(await client.xinfo_groups(KEY))
