"""Faults 3 and 4: a worker that is frozen loses its leases, one that is only blocked keeps them."""

import asyncio
import json
import signal
from typing import Any

import pytest

from eventbus import EventBus
from tests.faults.conftest import WARM_UP, Arena
from tests.faults.history import check
from tests.faults.jobs import ATTEMPTS, LEASE, gate
from tests.waiting import eventually


async def test_a_frozen_worker_loses_its_events_and_changes_nothing_when_it_thaws(arena: Arena, bus: EventBus) -> None:
    frozen = arena.fleet.start()
    ids: dict[int, str | None] = {}
    for token, behaviour in enumerate(["gated:heir", "gated:end", "fail-if-frozen:end", "reject-if-frozen:end"]):
        ids[token] = await arena.publish(bus, token, behaviour)
    await arena.runs(4)
    frozen.send_signal(signal.SIGSTOP)
    heir = arena.fleet.start()
    await arena.runs(8)
    gate(arena.history_folder, "heir").touch()
    await arena.effects(1)
    frozen.send_signal(signal.SIGCONT)
    while ids[1] not in [line["event_id"] for line in await said(arena, "lease lost")]:  # the zombie still holds it
        await asyncio.sleep(0.01)
    gate(arena.history_folder, "end").touch()
    observed = await arena.settled(bus, 4)
    check(observed, attempts=1)  # the zombie's failures spend nothing
    runs = [(line["token"], line["pid"]) for line in observed.history if line["what"] == "run"]
    assert sorted(runs) == sorted((token, process.pid) for token in range(4) for process in (frozen, heir))


async def test_a_handler_that_blocks_its_loop_keeps_the_leases_of_all_that_runs_beside_it(
    arena: Arena, bus: EventBus
) -> None:
    workers = [arena.fleet.start(), arena.fleet.start()]
    warm_up = await arena.warmed_up(bus)
    for token in range(4):
        await arena.publish(bus, token, f"sleep:{LEASE / 2}")
    event_id = await arena.publish(bus, 4, f"block:{4 * LEASE}")
    observed = await arena.settled(bus, warm_up + 5)
    check(observed, attempts=1)
    assert {observed.tokens("run")[token] for token in range(5)} == {1}
    [pid] = {line["pid"] for line in observed.history if line["what"] == "run" and line["token"] == 4}
    assert pid in {worker.pid for worker in workers}
    # A busy machine blocks loops as well: only what is said about this event counts.
    [blocked] = [line for line in await said(arena, "event loop blocked") if line.get("event_id") == event_id]
    assert blocked["group"] == "jobs"
    assert "time.sleep(float(argument))" in blocked["stack"]
    over = await said(arena, "event loop runs again")
    assert max(line["seconds"] for line in over) >= 3.5 * LEASE


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds that handlers may take."""
    monkeypatch.setenv("FAULTS_TIMEOUT", str(LEASE))
    return LEASE


async def test_a_handler_that_blocks_for_longer_than_its_time_loses_its_lease_cleanly(
    hasty: float, arena: Arena, bus: EventBus
) -> None:
    workers = [arena.fleet.start(), arena.fleet.start()]
    warm_up = await arena.warmed_up(bus)
    blocked_for = hasty + 6 * LEASE
    await arena.publish(bus, 1, f"block-first:{blocked_for}")
    observed = await arena.settled(bus, warm_up + 1)
    # What warms up has no more time than what is tried, and a busy machine may be too slow for it each time: also by so
    # little that the last attempt is over while its transaction commits.
    check(observed.below(WARM_UP), attempts=ATTEMPTS)
    first, second, *_ = [line for line in arena.history_lines("run") if line["token"] == 1]
    assert {first["pid"], second["pid"]} == {worker.pid for worker in workers}
    waited = float(str(second["at"])) - float(str(first["at"]))
    assert hasty + LEASE < waited < blocked_for, "it did not have to wait for the end of the block"


async def said(arena: Arena, event: str) -> list[dict[str, Any]]:
    """Wait until a worker has logged this, and return all such lines."""

    async def lines() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in arena.fleet.log().splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    return await eventually(lines)
