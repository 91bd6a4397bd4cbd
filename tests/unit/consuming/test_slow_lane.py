"""Handlers that take long step aside: others have their places, and never more than there are."""

import asyncio

import pytest

from eventbus import ConfigurationError, Group, SlowLane
from eventbus.context import Context
from tests.unit.consuming.test_consumer import Bench, Rung
from tests.waiting import until


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("eventbus.consuming.consumer.READ_WAIT", 0.1)  # a stop waits for reads to end
    return Bench()


class Floor:
    """A group whose handlers run until they are let go, one by one or all."""

    def __init__(self, **settings: object) -> None:
        self.group = Group("ears", **settings)  # type: ignore[arg-type]
        self.running: set[int] = set()
        self.began: list[int] = []
        self.doors: dict[int, asyncio.Event] = {}
        self.group.on(Rung)(self._ring)

    async def _ring(self, event: Rung, _ctx: Context) -> None:
        self.began.append(event.number)
        self.running.add(event.number)
        try:
            await self.doors.setdefault(event.number, asyncio.Event()).wait()
        finally:
            self.running.discard(event.number)

    def let_go(self, *numbers: int) -> None:
        for number in numbers:
            self.doors.setdefault(number, asyncio.Event()).set()


async def test_others_start_in_the_places_of_those_that_take_long(bench: Bench) -> None:
    floor = Floor(concurrency=2, slow_lane=SlowLane(3, after=0.2))
    await bench.ring(10)
    async with bench.consuming(floor.group):
        await until(lambda: len(floor.began) == 2)
        await asyncio.sleep(0.1)
        assert len(floor.began) == 2, "it is too early"
        await until(lambda: len(floor.began) == 5)  # three have stepped aside, and two run in their places
        await asyncio.sleep(0.6)
        assert len(floor.began) == 5, "the lane is full"
        floor.let_go(*range(10))


async def test_a_place_is_given_back_when_a_slow_one_ends(bench: Bench) -> None:
    """Else there were too many as soon as a service that hung answers them all."""
    floor = Floor(concurrency=2, slow_lane=SlowLane(4, after=0.2))
    await bench.ring(30)
    async with bench.consuming(floor.group):
        await until(lambda: len(floor.began) == 6)
        floor.let_go(0, 1, 2, 3)
        await until(lambda: len(floor.running) == 2)
        await asyncio.sleep(0.1)
        assert floor.running == {4, 5}, "these two have the places that there are"
        floor.let_go(*range(30))


async def test_a_stop_ends_what_has_stepped_aside(bench: Bench) -> None:
    floor = Floor(concurrency=1, slow_lane=SlowLane(1, after=0.05))
    await bench.ring(2)
    async with bench.consuming(floor.group, grace=0.1):
        await until(lambda: len(floor.began) == 2)
    assert not floor.running
    assert len(await bench.left()) == 2, "they are others' again"


async def test_without_a_lane_nobody_steps_aside(bench: Bench) -> None:
    floor = Floor(concurrency=1)
    await bench.ring(2)
    async with bench.consuming(floor.group):
        await until(lambda: floor.began)
        await asyncio.sleep(0.3)
        assert floor.began == [0]
        floor.let_go(0, 1)


@pytest.mark.parametrize(
    ("places", "after", "fault"), [(0, 1.0, "places=0"), (1, 0.0, r"after=0\.0"), (1, float("inf"), "after=inf")]
)
def test_a_lane_that_cannot_work_is_refused(places: int, after: float, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"SlowLane: {fault} must be"):
        SlowLane(places, after)


def test_what_handles_many_at_a_time_has_no_lane() -> None:
    group = Group("many", slow_lane=SlowLane(1))
    with pytest.raises(ConfigurationError, match="no batches on a group with a slow lane"):

        @group.on_batch(Rung)
        async def all_of_them(_batch: object) -> None: ...

    with pytest.raises(ConfigurationError, match="no slow lane on a tap"):

        @group.tap()
        async def passing(_events: object, _bus: object) -> None: ...
