"""A group that taps streams: what it is handed, and what becomes of it. On the memory transport."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from eventbus import Backoff, ConfigurationError, Context, Event, EventBus, Group, Reject, RetryPolicy, Worker
from eventbus.consuming import tap_executor
from eventbus.context import HandlerBus
from eventbus.contract.delivery import Ack, Dead, Release
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.tap import Passing
from eventbus.errors import Unavailable
from eventbus.event import Envelope, uuid7
from eventbus.handling.listeners import Finished
from eventbus.roles import stream_discovery
from tests.waiting import PATIENCE, until
from tests.working import working

FAST = RetryPolicy(attempts=3, backoff=Backoff.fixed(0.01))


class Poured(Event, type="tank.poured"):
    number: int


class Drained(Event, type="sink.drained"):
    number: int


class Tapped:
    """A group whose tap notes what it is handed; `answer` is what else it does."""

    def __init__(self, *streams: str, answer: Callable[[Sequence[Passing]], Awaitable[None]] | None = None, **how: Any):
        self.batches: list[list[str]] = []
        self.group = Group("tapped", retry=FAST, concurrency=how.pop("concurrency", 1), crash_budget=None)

        @self.group.tap(*streams, **how)
        async def note(events: Sequence[Passing], bus: HandlerBus) -> None:
            self.batches.append([event.envelope.id for event in events])
            if answer is not None:
                await answer(events)

    @property
    def seen(self) -> list[str]:
        return [event_id for batch in self.batches for event_id in batch]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_discovery, "INTERVAL", 0.02)
    monkeypatch.setattr(stream_discovery, "REST", 1)


@pytest.fixture
def finished() -> list[Finished]:
    return []


@pytest.fixture
def bus(finished: list[Finished]) -> EventBus:
    return EventBus("memory://", listeners=[finished.append])


async def pour(bus: EventBus, count: int) -> list[str]:
    return [(await bus.publish(Poured(number=n))).id for n in range(count)]


async def settled(bus: EventBus) -> None:
    async def rest() -> bool:
        [state] = await bus.transport.inspect(["tank"])
        return bool(state.groups) and not any(group.lag or group.pending for group in state.groups)

    async with asyncio.timeout(PATIENCE):
        while not await rest():
            await asyncio.sleep(0.005)


async def test_all_streams_are_tapped_whatever_is_in_them(bus: EventBus) -> None:
    tapped = Tapped(max_wait=0.01)
    strange = Envelope(uuid7(), "nobody.knows", b"not even JSON")
    addressed = Envelope(uuid7(), "tank.poured", b"{}", only="somebody-else")
    async with working(bus, tapped.group):
        ids = await pour(bus, 3)
        await until(lambda: len(tapped.seen) == 3)
        await bus.forward([Outgoing(strange), Outgoing(addressed)])
        await until(lambda: len(tapped.seen) == 5)
    assert {*tapped.seen} == {*ids, strange.id, addressed.id}


async def test_streams_that_are_named_are_all_that_is_tapped(bus: EventBus) -> None:
    tapped = Tapped("sink", max_wait=0.01)
    assert tapped.group.streams == ["sink"]
    async with working(bus, tapped.group):
        await pour(bus, 3)
        receipt = await bus.publish(Drained(number=1))
        await until(lambda: tapped.seen)
        await asyncio.sleep(0.05)
    assert tapped.seen == [receipt.id]


async def test_it_is_handed_many_at_a_time_one_batch_after_the_other(bus: EventBus) -> None:
    running: list[int] = []

    async def slowly(events: Sequence[Passing]) -> None:
        running.append(1)
        assert len(running) == 1
        await asyncio.sleep(0.02)
        running.pop()

    tapped = Tapped(answer=slowly, max_size=10, max_wait=0.05)
    ids = await pour(bus, 45)
    async with working(bus, tapped.group):
        await until(lambda: len(tapped.seen) == 45)
        await settled(bus)
    assert sorted(tapped.seen) == sorted(ids)
    assert max(map(len, tapped.batches)) == 10
    assert len(tapped.batches) <= 8


async def test_several_batches_run_where_the_group_allows_it(bus: EventBus) -> None:
    started, release = asyncio.Semaphore(0), asyncio.Event()

    async def hold(events: Sequence[Passing]) -> None:
        started.release()
        await release.wait()

    tapped = Tapped(answer=hold, max_size=5, max_wait=0.01, concurrency=2)
    async with working(bus, tapped.group):
        await pour(bus, 10)
        async with asyncio.timeout(PATIENCE):
            await started.acquire()
            await started.acquire()
        release.set()
        await settled(bus)


async def test_what_fails_by_itself_does_so_alone(bus: EventBus, finished: list[Finished]) -> None:
    async def refuse(events: Sequence[Passing]) -> None:
        events[0].fail(Reject("this one"))

    tapped = Tapped(answer=refuse, max_size=10, max_wait=0.05)
    ids = await pour(bus, 10)
    async with working(bus, tapped.group):
        await settled(bus)
    assert tapped.batches == [ids]
    assert [letter.error for letter in await bus.transport.dead_letters("tank")] == ["Reject: this one"]
    assert [type(each.outcome) for each in finished] == [Dead] + [Ack] * 9


async def test_what_fails_as_a_whole_is_handed_over_again_as_often_as_the_policy_says(
    bus: EventBus, finished: list[Finished]
) -> None:
    async def fail(events: Sequence[Passing]) -> None:
        raise ValueError("all of it")

    tapped = Tapped(answer=fail, max_size=10, max_wait=0.05)
    ids = await pour(bus, 10)
    with capture_logs() as logs:
        async with working(bus, tapped.group):
            await settled(bus)
    assert tapped.batches == [ids] * 3
    assert [each.outcome.attempts for each in finished if isinstance(each.outcome, Dead)] == [3] * 10
    assert len([line for line in logs if line["event"] == "failed, will retry"]) == 2, "once for all of them"


async def test_a_server_that_is_away_is_waited_for_and_costs_no_attempt(
    bus: EventBus, finished: list[Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap_executor, "UNAVAILABLE_PAUSE", 0.01)
    away = iter([True] * 20)

    async def reach(events: Sequence[Passing]) -> None:
        if next(away, False):
            raise Unavailable("PostgreSQL", "no answer")

    tapped = Tapped(answer=reach, max_size=10, max_wait=0.05)
    await pour(bus, 200)  # more than it takes in hand
    async with working(bus, tapped.group):
        await until(lambda: len(tapped.batches) > 15)
        assert len({*tapped.seen}) == 10, "nothing new is begun with meanwhile"
        await settled(bus)
    assert {type(each.outcome) for each in finished} == {Ack}
    assert len(finished) == 200


@pytest.mark.parametrize("paused", [False, True])
async def test_what_waits_is_given_back_at_a_stop_and_at_a_pause(
    paused: bool, bus: EventBus, finished: list[Finished]
) -> None:
    async def away(events: Sequence[Passing]) -> None:
        raise Unavailable("PostgreSQL", "no answer")

    tapped = Tapped(answer=away, max_size=10, max_wait=0.01)
    await pour(bus, 10)
    async with working(bus, tapped.group):
        await until(lambda: tapped.batches)
        if paused:
            await bus.groups.pause("tapped")
            await until(lambda: len(finished) == 10)
    assert [type(each.outcome) for each in finished] == [Release] * 10


async def test_a_handler_that_outlives_the_grace_is_cancelled_and_its_events_are_given_back(
    bus: EventBus, finished: list[Finished]
) -> None:
    began = asyncio.Event()

    async def stay(events: Sequence[Passing]) -> None:
        began.set()
        await asyncio.sleep(3600)

    tapped = Tapped(answer=stay, max_size=10, max_wait=0.01)
    await pour(bus, 10)
    worker = Worker(bus, [tapped.group], grace=0.05)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(began.wait(), PATIENCE)
    await worker.stop()
    await asyncio.wait_for(running, PATIENCE)
    assert [type(each.outcome) for each in finished] == [Release] * 10


async def test_an_abort_of_one_event_does_not_reach_a_whole_batch(bus: EventBus, finished: list[Finished]) -> None:
    go_on = asyncio.Event()

    async def wait(events: Sequence[Passing]) -> None:
        await go_on.wait()

    tapped = Tapped(answer=wait, max_size=10, max_wait=0.01)
    ids = await pour(bus, 10)
    async with working(bus, tapped.group):
        await until(lambda: tapped.batches)
        await bus.events.abort(ids[3])
        await asyncio.sleep(1.3)  # more than workers take to see it
        go_on.set()
        await settled(bus)
    assert [type(each.outcome) for each in finished] == [Ack] * 10
    assert len(tapped.batches) == 1


def test_a_tap_is_all_that_a_group_has() -> None:
    async def note(events: Sequence[Passing], bus: HandlerBus) -> None:
        return

    async def work(event: Event, ctx: Context) -> None:
        return

    group = Group("full")
    group.on(Poured)(work)
    with pytest.raises(ConfigurationError, match="has a handler already"):
        group.tap()(note)
    group = Group("tapped")
    assert group.tap()(note) is note
    with pytest.raises(ConfigurationError, match="is a tap and has no other handlers"):
        group.on(Poured)(work)
    with pytest.raises(ConfigurationError, match="has a handler already"):
        group.tap()(note)
    with pytest.raises(ConfigurationError, match="no middleware, limits or track"):
        Group("tracked", track=True).tap()(note)
    with pytest.raises(ConfigurationError, match="max_size=0"):
        Group("small").tap(max_size=0)(note)
    with pytest.raises(ConfigurationError, match="timeout=0"):
        Group("short").tap(timeout=0)(note)
    with pytest.raises(ConfigurationError, match="must be an async function"):
        Group("plain").tap()(lambda events, bus: None)  # type: ignore[arg-type,return-value]
    assert group.label_of(b"any.type").endswith("note")
