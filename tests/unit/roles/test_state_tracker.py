"""What the tracker makes of a server that is away or full: nothing is waited for, and the last word is not lost."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from eventbus import Group
from eventbus.contract.delivery import Ack, Delivery, Outcome, Retry, Snooze
from eventbus.contract.states import Keep, Update
from eventbus.errors import Full, Unavailable
from eventbus.event import Envelope, uuid7
from eventbus.handling.listeners import Finished
from eventbus.memory.records import MemoryRecords
from eventbus.roles.state_tracker import LIMIT, Tracker
from tests.samples import FAILED, consumer, envelope


class Shaky(MemoryRecords):
    """Fails as it is told to."""

    trouble: Exception | None = None
    meanwhile: Callable[[], None] = staticmethod(lambda: None)
    writes = 0

    async def track(self, group: str, keep: Keep, updates: Sequence[Update]) -> None:
        self.writes += 1
        self.meanwhile()
        if self.trouble is not None:
            raise self.trouble
        await super().track(group, keep, updates)


@pytest.fixture
def records() -> Shaky:
    return Shaky()


@pytest.fixture
def tracker(records: Shaky) -> Tracker:
    return Tracker(records, [Group("billing", track=True, keep_completed=2_000)])


def tell(tracker: Tracker, event: Envelope, outcome: Outcome, entry: str = "1-0", failures: int = 0) -> None:
    delivery = Delivery(consumer(), entry, {}, failures)
    tracker.ended(Finished("billing", delivery, outcome, event, 0.0, None))


async def phase(records: Shaky, event: Envelope) -> bytes:
    return (await records.find("billing", event.id)).get("phase", b"")


async def test_many_changes_are_one_write(tracker: Tracker, records: Shaky) -> None:
    events = [envelope() for _ in range(1_200)]
    for event in events:
        tell(tracker, event, Snooze(1))
        tell(tracker, event, Ack(), failures=1)
    assert await tracker.write()
    assert records.writes == 3, "500 at a time"
    assert {await phase(records, event) for event in events} == {b"completed"}
    assert await tracker.write()
    assert records.writes == 3, "nothing new, nothing written"


async def test_what_a_server_that_is_away_did_not_take_is_kept_under_what_came_since(
    tracker: Tracker, records: Shaky
) -> None:
    first, second = envelope(), envelope()
    tell(tracker, first, Retry(1, FAILED))
    tell(tracker, second, Retry(1, FAILED))
    records.trouble = Unavailable("Redis", "gone")
    assert not await tracker.write()
    tell(tracker, first, Ack(), failures=1)
    records.trouble = None
    assert await tracker.write()
    assert (await phase(records, first), await phase(records, second)) == (b"completed", b"delayed")


async def test_what_comes_while_a_write_fails_is_the_last_word(tracker: Tracker, records: Shaky) -> None:
    event = envelope()
    tell(tracker, event, Retry(1, FAILED))
    records.trouble = Unavailable("Redis", "gone")
    records.meanwhile = lambda: tell(tracker, event, Ack(), failures=1)
    assert not await tracker.write()
    records.trouble, records.meanwhile = None, lambda: None
    assert await tracker.write()
    record = await records.find("billing", event.id)
    assert (record["phase"], record["error"]) == (b"completed", b"")


async def test_a_write_that_is_cancelled_is_made_by_the_next(tracker: Tracker, records: Shaky) -> None:
    event = envelope()
    tell(tracker, event, Ack())
    records.trouble = asyncio.CancelledError()  # type: ignore[assignment]
    with pytest.raises(asyncio.CancelledError):
        await tracker.write()
    records.trouble = None
    await tracker.close()
    assert await phase(records, event) == b"completed"


async def test_without_memory_states_are_let_go(tracker: Tracker, records: Shaky) -> None:
    tell(tracker, envelope(), Ack())
    records.trouble = Full("full")
    assert await tracker.write(), "goes on"
    records.trouble = None
    later = envelope()
    tell(tracker, later, Ack())
    await tracker.write()
    assert await phase(records, later) == b"completed"


async def test_what_waits_is_bounded(tracker: Tracker, records: Shaky) -> None:
    for _ in range(LIMIT + 100):
        tell(tracker, envelope(id=uuid7()), Ack())
    await tracker.write()
    assert await records.totals("billing") == (LIMIT, 0)


async def test_a_word_about_an_earlier_delivery_is_no_news(tracker: Tracker, records: Shaky) -> None:
    event = envelope()
    tell(tracker, event, Ack(), entry="10-0")
    tell(tracker, event, Retry(1, FAILED), entry="9-5")
    await tracker.write()
    assert await phase(records, event) == b"completed"
