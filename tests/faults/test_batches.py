"""Workers that die in the middle of batches: one effect per event, failures of their own, innocent batch-mates."""

import asyncio

import pytest

from eventbus import EventBus
from tests.faults.conftest import Arena, ArenaFactory
from tests.faults.history import Observed, check
from tests.faults.jobs import ATTEMPTS
from tests.waiting import PATIENCE

ALONE = (
    2  # runs, at least, that a killer has had alone when it is buried: who is left of those that died is charged, too
)

BATCHES = "--batches"


@pytest.fixture
def arena(arena_on: ArenaFactory, redis_url: str) -> Arena:
    """On one server: transports know nothing of batches."""
    return arena_on(redis_url)


@pytest.mark.parametrize("boundary", ["inbox.commit:2", "inbox.committed:2"])
async def test_a_batch_that_dies_at_any_boundary_has_its_effects_once(
    boundary: str, arena: Arena, bus: EventBus
) -> None:
    doomed = arena.fleet.start(BATCHES, crash=boundary)
    await arena.publish_all(bus, range(1, 101), per_second=200)
    await asyncio.to_thread(doomed.wait, PATIENCE)
    arena.fleet.start(BATCHES)
    observed = await arena.settled(bus, 100)
    check(observed, attempts=1)
    assert largest(observed) > 1


async def test_batches_under_a_killer_are_done_once_and_fail_singly(arena: Arena, bus: EventBus) -> None:
    for _ in range(2):
        arena.fleet.start(BATCHES)
    await arena.runs(await arena.at_work(bus))
    failing = list(range(1, 301, 40))

    async def publish() -> None:
        for token in range(1, 301):
            await arena.publish(bus, token, "fail" if token in failing else "sleep:0.005")

    publishing = asyncio.create_task(publish())
    for _ in range(3):
        begun = len(arena.history_lines("run"))
        await arena.runs(begun + 15)
        arena.fleet.kill(arena.fleet.processes[0])
        arena.fleet.start(BATCHES)
    await publishing
    observed = await arena.settled(bus, len(arena.history_lines("publish ok")))
    check(observed, attempts=ATTEMPTS, poison=failing)
    spent = {int(str(line["token"])) for line in observed.history if line["what"] == "run" and line["attempt"] != 1}
    assert spent == set(failing), "no other has spent more than one attempt"
    assert largest(observed) > 1


async def test_what_kills_its_worker_takes_no_batch_mates_along(arena: Arena, bus: EventBus) -> None:
    for token in range(1, 31):
        await arena.publish(bus, token, "exit" if token == 15 else "ok")
    for _ in range(2):
        arena.fleet.start(BATCHES)
    crashes = 0
    for _ in range(600):
        crashes += arena.fleet.replace_dead(BATCHES)
        observed = await arena.observe(bus)
        if len(observed.effects) + len(observed.dead) == 30 and not observed.pending:
            break
        await asyncio.sleep(0.1)
    observed = await arena.settled(bus, 30)
    check(observed, attempts=1, poison=[15])
    assert largest(observed) > 1
    ran_in = [int(str(line["batch"])) for line in observed.history if line["what"] == "run" and line["token"] == 15]
    assert crashes == len(ran_in)
    assert ran_in[0] > 1
    assert ran_in == sorted(ran_in, reverse=True), "after two crashes its batches are halved, until it runs alone"
    assert ran_in[-ALONE:] == [1] * ALONE, ran_in


def largest(observed: Observed) -> int:
    """The size of the largest batch that began."""
    return max(int(str(line["batch"])) for line in observed.history if line["what"] == "run")
