"""Where deliveries wait until they may start: how many are asked for next, and that nothing ends the asking."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from eventbus.consuming import limit_queue
from eventbus.consuming.limit_admission import Admission
from eventbus.consuming.limit_queue import LOOK_AHEAD, Gate
from eventbus.context import Context
from eventbus.contract.codec import encode, pairs
from eventbus.contract.delivery import Delivery, Snooze, Subscription
from eventbus.contract.limiting import Answer, Request
from eventbus.contract.limits import RateLimit
from eventbus.event import Envelope, Event, uuid7
from eventbus.group import Group
from eventbus.memory import MemoryTransport
from tests.waiting import until

SLOTS = 10


class Posted(Event, type="card.posted"):
    number: int = 0


class Refusing(MemoryTransport):
    """Raises `trouble` when it is asked for starts, as often as there is some."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.trouble: list[Exception] = []

    async def admit(self, requests: Sequence[Request], most: int) -> list[Answer]:
        if self.trouble:
            raise self.trouble.pop()
        return await super().admit(requests, most)


class Bench:
    """A gate that has `slots`, and what it did with what was put into it. Nothing ends."""

    def __init__(self, limit: RateLimit) -> None:
        group = Group("post", rate_limit=limit)

        @group.on(Posted)
        async def post(event: Posted, ctx: Context) -> None: ...

        self.transport = Refusing()
        self.slots = SLOTS
        self.admitted: list[Delivery] = []
        self.put_off: list[Snooze] = []
        self.failed: list[BaseException] = []
        self.nudged = 0
        self.gate = Gate(
            Admission(self.transport, group),
            admit=self._admit,
            put_off=lambda _, snooze: self.put_off.append(snooze),
            fail=lambda _, error: self.failed.append(error),
            slots=lambda: self.slots,
            nudge=self._nudge,
        )
        self._subscription = Subscription("card", "post", "ann", 10.0, 3)
        self._entries = iter(range(1, 10**6))

    def _admit(self, deliveries: list[Delivery]) -> None:
        self.admitted += deliveries
        self.slots -= len(deliveries)

    def _nudge(self) -> None:
        self.nudged += 1

    async def put(self, count: int, organization: str = "o") -> None:
        """And wait until all of it is decided."""
        before = self.decided
        envelope = Envelope(uuid7(), "card.posted", b"{}", organization=organization)
        fields = pairs([part if isinstance(part, bytes) else part.encode() for part in encode(envelope)])
        self.gate.put([Delivery(self._subscription, f"{next(self._entries)}-0", fields) for _ in range(count)])
        await until(lambda: self.decided == before + count)

    @property
    def decided(self) -> int:
        return len(self.admitted) + len(self.put_off) + len(self.failed)


@asynccontextmanager
async def working(limit: RateLimit) -> AsyncIterator[Bench]:
    bench = Bench(limit)
    running = asyncio.create_task(bench.gate.run())
    yield bench
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def test_while_all_is_put_off_more_and_more_is_read() -> None:
    async with working(RateLimit(2, per=60.0, by="organization")) as bench:
        assert bench.gate.room(3) == 3
        await bench.put(2)
        rooms = []
        for _ in range(8):
            await bench.put(room := bench.gate.room(3))
            rooms.append(room)
        assert rooms == [3, 6, 12, 24, 48, 96, 192, 384]
        assert bench.gate.room(3) == LOOK_AHEAD
        assert bench.gate.room(0) == 0, "without a slot nothing is to be found"
        for number in range(4):
            await bench.put(1, f"other-{number}")
        assert bench.gate.room(3) == 3, "others are there, and need no search"


async def test_a_process_that_has_put_off_very_many_reads_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_queue, "RESTING_LIMIT", 20)
    async with working(RateLimit(1, per=60.0, by="organization")) as bench:
        await bench.put(20)
        assert bench.gate.room(3) > 0
        await bench.put(5)
        assert bench.gate.room(3) == 0


async def test_no_error_ends_the_asking_and_it_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_queue, "RETRY_PAUSE", 0.001)
    async with working(RateLimit(9, per=60.0, by="organization")) as bench:
        with capture_logs() as lines:
            bench.transport.trouble = [RuntimeError("one"), KeyError("two"), MemoryError()]
            await bench.put(3)
        assert len(bench.admitted) == 3
        assert [line["event"] for line in lines] == ["a limit cannot be asked for"]


async def test_what_finds_no_slot_waits_for_one_and_the_surplus_is_given_back() -> None:
    async with working(RateLimit(1_000, per=60.0, by="organization")) as bench:
        bench.slots = 0
        waiting = asyncio.create_task(bench.put(SLOTS + 5))
        await until(lambda: len(bench.put_off) == 5)
        assert bench.put_off == [Snooze(0.0)] * 5
        assert bench.gate.room(SLOTS) == 0
        bench.slots = 3
        bench.gate.look()
        await until(lambda: len(bench.admitted) == 3)
        bench.slots = SLOTS
        bench.gate.look()
        await waiting
        bench.gate.look()
        assert bench.nudged == 1, "now there is room for what was given back"
