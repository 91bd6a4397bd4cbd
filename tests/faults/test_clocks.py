"""Fault 18: the clock of a worker is off by an hour. Due times follow the server's."""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from eventbus import EventBus
from eventbus.event import unix_ms
from tests.faults.conftest import Arena
from tests.faults.history import check
from tests.faults.jobs import ATTEMPTS, Job
from tests.stopwatch import Stopwatch

HOUR = 3600.0
LATE = 3.0  # seconds


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULTS_TICKS", "1")


@pytest.mark.parametrize("skew", [HOUR, -HOUR], ids=["fast", "slow"])
async def test_due_times_follow_the_server_s_clock(ticks: None, skew: float, arena: Arena, bus: EventBus) -> None:
    begun = time.time()
    arena.fleet.start(skew=skew)
    warm_up = await arena.warmed_up(bus)
    with Stopwatch() as watch:
        before_publishing = time.time()
        await arena.publish(bus, 1, "fail")
        await arena.publish(bus, 2, delay=1.5)
        moment = datetime.now(UTC) + timedelta(seconds=1.5)
        arena.history.record("publish invoked", token=3)
        await bus.publish(Job(token=3), at=moment)
        arena.history.record("publish ok", token=3)
        began = time.time()
        observed = await arena.settled(bus, warm_up + 3)
    late = LATE + watch.kept_waiting
    began_again = [float(str(line["at"])) for line in observed.history if line["what"] == "run" and line["token"] == 1]
    check(observed, attempts=ATTEMPTS, poison=[1])
    assert len(began_again) == ATTEMPTS
    for wait, (before, after) in zip((0.1, 0.2), pairwise(began_again), strict=True):
        assert wait <= after - before < wait + late
    for token in (2, 3):
        [run] = [
            float(str(line["at"])) for line in observed.history if line["what"] == "run" and line["token"] == token
        ]
        assert before_publishing + 1.5 - 0.002 <= run < began + 1.5 + late, token
    made = [unix_ms(str(line["event_id"])) / 1000 for line in observed.history if line["what"] == "noted"]
    span = begun + skew - 1, time.time() + skew + 1
    assert all(span[0] <= at <= span[1] for at in made), "its own ids show the time that it believes in"
    fired = [line for line in observed.history if line["what"] == "tick"]
    assert fired
    assert all(0 <= float(str(line["at"])) - float(str(line["due"])) < late for line in fired)
    assert set((await arena.ticks()).values()) == {1}


async def test_workers_whose_clocks_differ_by_two_hours_share_everything(
    ticks: None, arena: Arena, bus: EventBus
) -> None:
    """Each repeats what the other has left behind halfway."""
    published = 0
    for skew, crash in ((HOUR, "relay.appended"), (-HOUR, "relay.appended:2"), (0.0, "relay.appended:2"), (-HOUR, "")):
        doomed = arena.fleet.start(skew=skew, crash=crash)
        await arena.publish_all(bus, range(published, published + 20), per_second=200)
        published += 20
        if crash:
            published += await arena.publish_until_dead(bus, doomed, published)
    observed = await arena.settled(bus, published)
    check(observed, attempts=ATTEMPTS)
    assert set((await arena.ticks()).values()) == {1}
