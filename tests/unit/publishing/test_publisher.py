"""Publishing within a deadline: what a slow, an absent or a full transport makes of it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from eventbus import Event, EventBus, Full, Status, Unavailable
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import ConfigurationError
from eventbus.memory import MemoryTransport
from tests.stopwatch import Stopwatch
from tests.waiting import eventually, until


class Told(Event, type="rumour.told"):
    number: int = 0


class Moody(MemoryTransport):
    """As `mood` says: it works, is away, full, silent, or loses the next reply."""

    def __init__(self) -> None:
        super().__init__()
        self.mood = "well"
        self.asked = 0

    async def append(self, outgoing: Sequence[Outgoing], *, again: bool = False) -> list[Status]:
        self.asked += 1
        match self.mood:
            case "away":
                raise Unavailable("Redis at home", "connection refused")
            case "full":
                raise Full("Redis at home is full: OOM")
            case "silent":
                await asyncio.sleep(3600)
            case "forgetful":
                self.mood = "well"
                await super().append(outgoing)
                raise Unavailable("Redis at home", "the reply was lost")
        return await super().append(outgoing, again=again)

    async def connect(self) -> None:
        if self.mood == "away":
            raise Unavailable("Redis at home", "connection refused")


def bus_on(transport: Moody, **settings: object) -> EventBus:
    bus = EventBus("memory://", **settings)  # type: ignore[arg-type]
    bus.transport = transport
    return bus


async def publishes(bus: EventBus, count: int) -> list[object]:
    """What each ended with: a status, or its error."""
    ended = await asyncio.gather(*(bus.publish(Told(number=n)) for n in range(count)), return_exceptions=True)
    return [one if isinstance(one, BaseException) else one.status for one in ended]


async def test_a_lost_reply_is_asked_for_again_and_found(tmp_path: Path) -> None:
    transport = Moody()
    async with bus_on(transport, spool=tmp_path / "spool") as bus:
        transport.mood = "forgetful"
        assert (await bus.publish(Told())).status is Status.DUPLICATE
        assert (await bus.publish(Told())).status is Status.STORED


async def test_all_who_wait_for_an_absent_server_share_their_looks() -> None:
    transport = Moody()
    async with bus_on(transport, publish_timeout=1.0) as bus:
        transport.mood = "away"
        ended = await publishes(bus, 500)
        assert {type(error) for error in ended} == {Unavailable}
        assert "connection refused" in str(ended[0])
        assert transport.asked <= 500 + 25, "each once, then one for all"
        before = transport.asked
        await publishes(bus, 500)
        assert transport.asked - before <= 25


async def test_they_all_go_on_when_it_is_back() -> None:
    transport = Moody()
    async with bus_on(transport, publish_timeout=20.0) as bus:
        transport.mood = "away"
        publishing = asyncio.create_task(publishes(bus, 500))
        await asyncio.sleep(0.3)
        transport.mood = "well"
        assert set(await publishing) == {Status.STORED}


async def test_with_a_spool_nobody_waits_for_a_server_that_is_known_to_be_away(tmp_path: Path) -> None:
    transport = Moody()
    async with bus_on(transport, publish_timeout=20.0, spool=tmp_path / "spool") as bus:
        transport.mood = "away"
        began = Stopwatch()
        assert set(await publishes(bus, 200)) == {Status.SPOOLED}
        assert set(await publishes(bus, 200)) == {Status.SPOOLED}
        assert began.seconds < 5.0
        transport.mood = "well"
        assert bus.spool is not None
        spool = bus.spool
        await until(lambda: spool.file.size() == 0)

        async def stored() -> bool:  # the replay knows a moment later that the file is empty
            return (await bus.publish(Told())).status is Status.STORED

        await eventually(stored)


async def test_a_silent_server_has_its_share_of_the_time(tmp_path: Path) -> None:
    transport = Moody()
    async with bus_on(transport, publish_timeout=4.0, spool=tmp_path / "spool") as bus:
        transport.mood = "silent"
        began = Stopwatch()
        assert await publishes(bus, 50) == [Status.SPOOLED] * 50
        assert began.passed >= 2.95
        assert began.seconds <= 4.5
        publishing = [asyncio.create_task(bus.publish(Told())) for _ in range(50)]
        _, late = await asyncio.wait(publishing, timeout=2.0)
        assert len(late) <= 1, "one of them tries, the others know"
        assert {(await task).status for task in publishing} == {Status.SPOOLED}
        transport.mood = "well"


async def test_what_was_left_over_is_replayed_at_the_next_start_with_its_due_times(tmp_path: Path) -> None:
    transport = Moody()
    async with bus_on(transport, publish_timeout=1.0, spool=tmp_path / "spool") as bus:
        transport.mood = "away"
        receipts = [await bus.publish(Told(), delay=60.0), await bus.publish(Told())]
        assert {receipt.status for receipt in receipts} == {Status.SPOOLED}
    transport.mood = "well"
    async with bus_on(transport, spool=tmp_path / "spool") as bus:
        assert bus.spool is not None
        spool = bus.spool
        await until(lambda: spool.file.size() == 0)
    outgoing = transport._log("rumour")
    assert list(outgoing.scheduled) == [receipts[0].id]
    assert outgoing.event_ids == {receipts[1].id}


async def test_a_full_server_is_told_at_once_or_spooled(tmp_path: Path) -> None:
    transport = Moody()
    transport.mood = "full"
    async with bus_on(transport) as bus:
        with pytest.raises(Full):
            await bus.publish(Told())
    async with bus_on(transport, spool=tmp_path / "spool") as bus:
        assert (await bus.publish(Told())).status is Status.SPOOLED


@pytest.mark.parametrize(("mood", "error"), [("full", Full), ("away", Unavailable)])
async def test_when_the_spool_is_full_too_both_reasons_are_told(
    mood: str, error: type[Exception], tmp_path: Path
) -> None:
    transport = Moody()
    async with bus_on(transport, publish_timeout=1.0, spool=tmp_path / "log", spool_bytes=10) as bus:
        transport.mood = mood
        with pytest.raises(error, match=r"(OOM|refused); and spool .*log is full: 0 of 10 bytes"):
            await bus.publish(Told())


async def test_when_the_disk_fails_both_reasons_are_told(tmp_path: Path) -> None:
    transport = Moody()
    async with bus_on(transport, publish_timeout=1.0, spool=tmp_path / "log") as bus:
        (tmp_path / "log").mkdir()
        transport.mood = "full"
        with pytest.raises(Unavailable, match=r"OOM; and spool .*log is unavailable: .*directory"):
            await bus.publish(Told())
        (tmp_path / "log").rmdir()


async def test_more_than_may_be_in_flight_wait_for_room_or_are_told() -> None:
    transport = Moody()
    async with bus_on(transport, max_publishes=2, publish_timeout=0.5) as bus:
        assert await publishes(bus, 50) == [Status.STORED] * 50
        transport.mood = "silent"
        ended = await publishes(bus, 5)
        assert len(bus.in_flight) == 0
    assert [type(error) for error in ended] == [Unavailable] * 5
    assert sum("2 publishes wait" in str(error) for error in ended) >= 1
    assert any("no answer for 0.5 s" in str(error) for error in ended)


async def test_what_waits_is_bounded_in_bytes_and_the_rest_is_refused_at_once(tmp_path: Path) -> None:
    """A process whose Redis is slow must not grow until it is killed."""
    transport, events = Moody(), [Told(number=10**n) for n in range(20)]  # of about 20 bytes each
    async with bus_on(transport, max_publish_bytes=100, publish_timeout=5.0) as bus:
        transport.mood = "silent"
        waiting = [asyncio.create_task(bus.publish(event)) for event in events]
        await until(lambda: sum(task.done() for task in waiting) >= 5)
        refused = [task for task in waiting if task.done()]
        assert len(refused) < 20
        assert all("bytes wait for it already" in str(task.exception()) for task in refused)
        assert 0 < bus.in_flight.size <= 100
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert (len(bus.in_flight), bus.in_flight.size) == (0, 0)
        transport.mood = "well"
        assert await publishes(bus, 20) == [Status.STORED] * 20
        receipts = await bus.publish_many(events)
        assert len(receipts) == 20, "one call that is larger than all of it has its turn"
        assert bus.in_flight.size == 0
    async with bus_on(transport, spool=tmp_path / "log", spool_bytes=1_000, publish_timeout=5.0) as bus:
        transport.mood = "away"
        ended = await publishes(bus, 30)
        assert {Status.SPOOLED, Unavailable} == {one if isinstance(one, Status) else type(one) for one in ended}


async def test_a_cancellation_of_somebody_else_comes_before_the_deadline() -> None:
    transport = Moody()
    async with bus_on(transport, publish_timeout=0.2) as bus:
        transport.mood = "silent"
        task = asyncio.create_task(bus.publish(Told()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Unavailable):
            await bus.publish(Told())
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0
        assert len(bus.in_flight) == 0


def test_settings_that_cannot_work_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"publish_timeout 0 must.*max_publishes 0 must"):
        EventBus("memory://", publish_timeout=0, max_publishes=0)
    with pytest.raises(ConfigurationError, match="EVENTBUS_SPOOL_PATH"):
        EventBus("memory://", spool=tmp_path / "nowhere" / "log")
