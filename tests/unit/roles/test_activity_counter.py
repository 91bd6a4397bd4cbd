"""Counting executions: what counts as what, and what becomes of counts that cannot be written."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from eventbus.contract.activity_stats import ERROR_LIMIT, FAILURES, Found, Share, Sums
from eventbus.contract.delivery import Ack, Dead, Failure, Outcome, Release, Retry, Snooze
from eventbus.errors import Full, Unavailable
from eventbus.event import Envelope, uuid7
from eventbus.memory import MemoryTransport
from eventbus.roles import activity_counter
from eventbus.roles.activity_counter import Counter
from tests.waiting import eventually, until

DONE = Ack()
NO = Failure("ValueError: no")


class FlakyTallies:
    """`away`: what is sent arrives, and its reply is lost. `gone`: nothing arrives. `full`: it is refused."""

    def __init__(self) -> None:
        self.kept = MemoryTransport().tallies
        self.away = self.gone = self.full = False
        self.sent = 0

    async def add(self, writer: str, number: int, shares: Sequence[Share]) -> None:
        self.sent += 1
        await asyncio.sleep(0)
        if self.full:
            raise Full("no memory")
        if self.gone:
            raise Unavailable("Redis", "no connection")
        await self.kept.add(writer, number, shares)
        if self.away:
            raise Unavailable("Redis", "reply lost")

    async def read(self, organization: str | None, minutes: int) -> Found:
        return await self.kept.read(organization, minutes)


@pytest.fixture
def tallies() -> FlakyTallies:
    return FlakyTallies()


def count(
    counter: Counter, outcome: Outcome = DONE, *, organization: str | None = "acme", seconds: float = 0.5
) -> None:
    counter.count("bakery", outcome, Envelope(uuid7(), "bread.baked", b"{}", organization=organization), seconds)


async def sums(tallies: FlakyTallies, organization: str | None = "acme") -> Sums:
    return (await tallies.read(organization, 5)).sums


async def test_what_ended_and_what_will_be_tried_again_counts_and_what_was_put_off_does_not(
    tallies: FlakyTallies,
) -> None:
    counter = Counter(tallies)
    for outcome in (Ack(), Ack(), Retry(1.0, NO), Dead(NO, 3), Snooze(1.0), Release()):
        count(counter, outcome)
    count(counter, Dead(NO, 0), seconds=0.0)  # its handler did not run
    count(counter, Ack(), organization=None)
    counter.count("bakery", Dead(NO, 0), None, 0.0)  # undecodable
    assert await counter.write()
    assert await sums(tallies) == Sums(done=2, dead=2, retried=1, ran=4, micros=2_000_000)
    assert await sums(tallies, None) == Sums(done=1, dead=1, ran=1, micros=500_000)
    assert len((await tallies.read("acme", 5)).failures) == 2
    assert (await tallies.read(None, 5)).failures == []


async def test_a_failure_is_told_with_bounds() -> None:
    tallies = MemoryTransport().tallies
    counter = Counter(tallies)
    count(counter, Dead(Failure("x\udcff" * 1_000), 3))
    await counter.write()
    [told] = (await tallies.read("acme", 5)).failures
    assert (told.type, told.group, told.attempts) == ("bread.baked", "bakery", 3)
    assert told.error.startswith("x\\udcffx")
    assert len(told.error) <= ERROR_LIMIT * 4


async def test_what_may_have_arrived_is_sent_again_and_counts_once(tallies: FlakyTallies) -> None:
    counter = Counter(tallies)
    for organization in ("acme", "umbrella"):
        count(counter, organization=organization)
    tallies.away = True
    assert not await counter.write()
    count(counter)
    assert not await counter.write()
    tallies.away = False
    assert await counter.write()
    assert (await sums(tallies)).done == 1, "what came later goes later"
    assert await counter.write()
    assert [(await sums(tallies, name)).done for name in ("acme", "umbrella")] == [2, 1]


async def test_what_has_not_arrived_waits_and_what_is_counted_meanwhile_goes_behind_it(
    tallies: FlakyTallies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity_counter, "INTERVAL", 0.02)
    counter = Counter(tallies)
    running = asyncio.create_task(counter.run())
    tallies.gone = True
    count(counter)
    await until(lambda: tallies.sent)
    count(counter, organization="umbrella")  # nothing is counted behind it
    await until(lambda: tallies.sent >= 3)
    tallies.gone = False

    async def both() -> bool:
        return [(await sums(tallies, name)).done for name in ("acme", "umbrella")] == [1, 1]

    await eventually(both)
    running.cancel()


async def test_batches_are_bounded_and_numbered_apart(tallies: FlakyTallies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_counter, "BATCH", 2)
    counter = Counter(tallies)
    for number in range(5):
        count(counter, organization=str(number))
    assert await counter.write()
    for number in range(5):
        count(counter, organization=str(number))
    assert await counter.write()
    assert [(await sums(tallies, str(number))).done for number in range(5)] == [2] * 5
    assert tallies.sent == 6


async def test_what_waits_is_bounded(tallies: FlakyTallies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_counter, "LIMIT", 3)
    monkeypatch.setattr(activity_counter, "FAILURES_LIMIT", 25)
    counter = Counter(tallies)
    with capture_logs() as logs:
        for number in range(100):
            count(counter, organization=str(number))
    assert [line["event"] for line in logs] == ["activity counts are incomplete"]
    for _ in range(100):
        count(counter, Dead(NO, 1), organization="0")
        count(counter, Dead(NO, 1), organization="1")
    await counter.write()
    assert [(await sums(tallies, str(number))).done for number in range(5)] == [1, 1, 1, 0, 0]
    kept = [len((await tallies.read(str(number), 5)).failures) for number in range(3)]
    assert (max(kept) <= FAILURES, 0 < sum(kept) <= 25, (await sums(tallies, "0")).dead) == (True, True, 100)
    count(counter, organization="99")
    await counter.write()
    assert (await sums(tallies, "99")).done == 1


async def test_without_memory_counts_are_let_go(tallies: FlakyTallies) -> None:
    counter = Counter(tallies)
    tallies.full = True
    with capture_logs() as logs:
        for _ in range(3):
            count(counter)
            assert await counter.write()
    assert len(logs) == 1
    tallies.full = False
    count(counter)
    await counter.write()
    assert (await sums(tallies)).done == 1


async def test_an_idle_one_writes_nothing_and_a_busy_one_once_an_interval(
    tallies: FlakyTallies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity_counter, "INTERVAL", 0.05)
    counter = Counter(tallies)
    running = asyncio.create_task(counter.run())
    await asyncio.sleep(0.15)
    assert tallies.sent == 0
    for _ in range(100):
        count(counter)
    await until(lambda: tallies.sent)
    await asyncio.sleep(0.15)
    assert tallies.sent == 1
    tallies.away = True
    count(counter)
    await until(lambda: tallies.sent >= 3)  # it goes on trying
    tallies.away = False
    count(counter)
    await asyncio.sleep(0.2)
    running.cancel()
    assert (await sums(tallies)).done == 102


async def test_the_last_write_and_the_one_under_way_do_not_meet(tallies: FlakyTallies) -> None:
    counter = Counter(tallies)
    count(counter)
    under_way = asyncio.create_task(counter.write())
    await asyncio.sleep(0)
    count(counter, organization="umbrella")
    await asyncio.gather(under_way, counter.close())
    assert [(await sums(tallies, name)).done for name in ("acme", "umbrella")] == [1, 1]


async def test_a_server_that_is_away_does_not_keep_a_worker_from_closing(
    tallies: FlakyTallies, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(tallies)
    count(counter)
    tallies.away = True
    await counter.close()
    monkeypatch.setattr(activity_counter, "CLOSE_GRACE", 0.05)
    async with counter._writing:  # a write that does not end
        with capture_logs() as logs:
            await counter.close()
    assert [line["event"] for line in logs] == ["counts are not written"]
