"""publish(delay=…), publish(at=…) and cancel, as a program sees them."""

import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from eventbus import Event, EventBus
from eventbus.event import Status
from tests.samples import consumer

READER = consumer(group="readers", stream="reminder")


class Reminded(Event, type="reminder.sent"):
    number: int = 0


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-9))], ids=str)
async def test_a_moment_is_the_same_in_every_time_zone(bus: EventBus, zone: timezone) -> None:
    now = datetime.now(zone)
    receipts = [
        await bus.publish(Reminded(), at=now + timedelta(minutes=1)),
        await bus.publish(Reminded(), at=now - timedelta(minutes=1)),
        *await bus.publish_many([Reminded(), Reminded()], at=now + timedelta(minutes=1)),
        *await bus.publish_many([Reminded()], delay=60.0),
    ]
    assert [receipt.status for receipt in receipts] == [
        Status.SCHEDULED,
        Status.STORED,
        *[Status.SCHEDULED] * 3,
    ]


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"at": datetime(2030, 1, 1)}, "which time zone"),  # noqa: DTZ001 - that is the mistake
        ({"at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 1.0}, "give one of them"),
        ({"delay": math.nan}, "delay=nan"),
        ({"delay": math.inf}, "delay=inf"),
        ({"delay": 3e11}, "delay=3"),
        ({"delay": 1e300}, "delay=1e"),
        ({"delay": -1e306}, "delay=-1e"),
        ({"delay": 10**400}, "delay=1000"),
        ({"at": datetime.max.replace(tzinfo=UTC)}, "longer than until 9999-12-31"),
    ],
    ids=["naive", "both", "nan", "inf", "very far", "far", "past", "farther", "never"],
)
async def test_what_is_no_point_in_time_is_refused(bus: EventBus, when: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        await bus.publish(Reminded(), **when)
    with pytest.raises(ValueError, match=said):
        await bus.publish_many([Reminded()], **when)
    assert await bus.transport.read(READER, 10, 0.01) == []


@pytest.mark.parametrize("event_type", [None, Reminded, "reminder.sent", "reminder"], ids=str)
async def test_what_is_scheduled_is_cancelled_by_its_id(bus: EventBus, event_type: type[Event] | str | None) -> None:
    receipt = await bus.publish(Reminded(), delay=60.0)
    assert await bus.cancel(receipt.id, event_type)
    assert not await bus.cancel(receipt.id, event_type)


async def test_what_has_come_due_is_not_cancelled(bus: EventBus) -> None:
    receipt = await bus.publish(Reminded())
    assert not await bus.cancel(receipt.id, Reminded)
