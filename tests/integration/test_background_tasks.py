"""Every task in a worker's background ends by an exception that nobody expected: that is told, each is begun again, and
events flow afterwards. One worker is enough for all of them."""

import functools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from eventbus import Backoff, Context, Event, EventBus, Group, RateLimit, RetryPolicy, SlowLane, Tick, Worker
from eventbus.consuming.consumer import Consumer
from eventbus.consuming.heartbeat import Lifeline
from eventbus.consuming.lease_renewal import Renewal
from eventbus.consuming.limit_queue import Gate
from eventbus.consuming.settler import Settler
from eventbus.consuming.slow_lane import Slow
from eventbus.operating.control import Watch
from eventbus.postgres.relay import Relay
from eventbus.process import supervision
from eventbus.publishing.spool.replay import Replayer
from eventbus.redis.pulse import Pulse
from eventbus.roles.activity_counter import Counter
from eventbus.roles.execution_log import Executions
from eventbus.roles.history_group import Expiry, recorder
from eventbus.roles.housekeeping import Housekeeping
from eventbus.roles.recurrence import Recurrence
from eventbus.roles.state_tracker import Tracker
from eventbus.roles.stream_discovery import Seeking
from eventbus.sessions import Recovery
from eventbus.telemetry import Survey
from tests.waiting import until
from tests.working import working

TIMES = 2  # that each is ended
# Where that is planted: all that a task does goes through it.
PLACES: list[tuple[type, str]] = [
    (Consumer, "_repeat"),  # read and reclaim
    (Settler, "run"),
    (Renewal, "run"),
    (Gate, "run"),
    (Slow, "_look"),
    (Watch, "run"),
    (Tracker, "write"),
    (Counter, "write"),
    (Executions, "write"),
    (Housekeeping, "_run"),
    (Survey, "run"),
    (Recovery, "run"),
    (Seeking, "_tell"),
    (Expiry, "run"),
    (Lifeline, "_watch"),  # of its thread
    (Recurrence, "_recur"),
    (Relay, "run"),
    (Replayer, "run"),
    (Pulse, "_look_on"),
]

Plant = Callable[[type, str], str]


class Happened(Event, type="errand.happened"):
    number: int


class Failing(Event, type="errand.failing"):
    """Fails whenever it is tried."""


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Lets a method raise, TIMES times. Returns what it raises with."""

    def planted(owner: type, name: str) -> str:
        left, method, place = TIMES, getattr(owner, name), f"planted in {owner.__name__}.{name}"

        @functools.wraps(method)
        def raising(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left > 0:
                left -= 1
                raise LookupError(place)
            return method(*args, **kwargs)

        monkeypatch.setattr(owner, name, raising)
        return place

    return planted


def group_of(handled: list[int]) -> Group:
    """With all that a group can have run beside it."""
    retry = RetryPolicy(attempts=2, backoff=Backoff.fixed(0.05))
    group = Group("errands", retry=retry, rate_limit=RateLimit(10_000), slow_lane=SlowLane(2, after=0.5), track=True)

    @group.on(Happened)
    async def handle(event: Happened, ctx: Context) -> None:
        handled.append(event.number)

    @group.on(Failing)
    async def fail(event: Failing, ctx: Context) -> None:
        raise ValueError("as ever")

    @group.every(0.2)
    async def recur(tick: Tick, ctx: Context) -> None:
        handled.append(-1)

    return group


async def test_each_is_told_and_begun_again(
    plant: Plant, any_redis_url: str, migrated_url: str, tmp_path: Path
) -> None:
    places = [plant(owner, name) for owner, name in PLACES]
    handled: list[int] = []
    bus = EventBus(any_redis_url, database=migrated_url, spool=tmp_path / "spool", history=timedelta(days=1))
    bus.metrics.exposed = True  # or nothing is surveyed
    before = supervision.deaths()
    with capture_logs() as lines:

        def untold() -> list[str]:
            errors = [str(line) for line in lines if line["log_level"] == "error"]
            return [place for place in places if sum(place in line for line in errors) < TIMES]

        async with bus, working(bus, group_of(handled), recorder()):
            published = 0
            while untold():
                published += 1
                await bus.publish(Happened(number=published))
                await until(functools.partial(handled.count, published))
            handled.clear()
            await bus.publish(Happened(number=-2))
            await bus.publish(Failing())
            async with bus.transaction() as tx:
                await tx.publish(Happened(number=-3))
            await until(lambda: {-1, -2, -3} <= set(handled))
            await until(lambda: any(line["event"] == "dead letter" for line in lines))
    assert supervision.deaths() - before >= TIMES * len({owner for owner, _ in PLACES})


async def test_a_loop_that_ends_again_and_again_ends_the_worker_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    async def run(self: Settler) -> None:
        raise LookupError("planted for good")

    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(Settler, "run", run)
    group = Group("errands")

    @group.on(Happened)
    async def handle(event: Happened, ctx: Context) -> None:
        return

    async with EventBus(redis_url) as bus:
        with pytest.raises(LookupError, match="planted for good") as raised:
            await Worker(bus, [group]).run(signals=False)
    [note] = raised.value.__notes__
    assert note.startswith("settle:errands ended 5 times in a row")
