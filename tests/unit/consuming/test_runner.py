"""Running deliveries: side by side up to a limit, in order, each in a context of its own, in few tasks."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import pytest

from eventbus.consuming import runner as module
from eventbus.consuming.runner import Runners
from eventbus.contract.delivery import Ack, Delivery, Outcome, Release, Subscription
from tests.waiting import until

SUBSCRIPTION = Subscription("s", "g", "c", 10.0, 3)
MARK: ContextVar[str] = ContextVar("mark", default="none")

Handler = Callable[[str], Awaitable[None]]


class Floor:
    """Runners, and what became of what they ran."""

    def __init__(self, handler: Handler, limit: int = 3, stretch: float | None = None) -> None:
        self.begun: list[str] = []
        self.ended: list[tuple[str, type[Outcome]]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.turns = 0
        self.most = self.most_tasks = 0
        self._handler = handler
        self.runners = Runners(limit, self._execute, self._end, self._turn, stretch=stretch)

    def put(self, *names: str) -> None:
        self.runners.ready.extend(Delivery(SUBSCRIPTION, name, {}) for name in names)
        self.runners.start()

    def task_of(self, name: str) -> asyncio.Task[None]:
        return next(task for delivery, task in self.runners.running.items() if delivery.entry_id == name)

    def names(self) -> list[str]:
        return [name for name, _ in self.ended]

    async def begins(self, name: str) -> None:
        await until(lambda: name in self.begun)

    async def all_ended(self, count: int) -> None:
        await until(lambda: len(self.ended) == count)

    async def _execute(self, delivery: Delivery) -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling(), "it was cancelled for another"
        self.begun.append(delivery.entry_id)
        self.tasks.add(task)
        self.most = max(self.most, len(self.runners.running))
        self.most_tasks = max(self.most_tasks, len(self.runners.running) + len(self.runners.launched))
        try:
            await self._handler(delivery.entry_id)
        except asyncio.CancelledError:
            return Release()
        return Ack()

    def _end(self, delivery: Delivery, outcome: Outcome) -> None:
        self.ended.append((delivery.entry_id, type(outcome)))

    def _turn(self) -> None:
        self.turns += 1


async def at_once(_name: str) -> None:
    return


async def test_what_never_waits_runs_in_order_and_in_one_task() -> None:
    floor = Floor(at_once)
    names = [f"{number:03}" for number in range(200)]
    floor.put(*names)
    await floor.all_ended(200)
    assert floor.names() == names
    assert floor.most == 1
    assert len(floor.tasks) < 20
    assert floor.turns


async def test_what_waits_runs_side_by_side_up_to_the_limit_and_begins_in_order() -> None:
    gate = asyncio.Event()

    async def wait(_name: str) -> None:
        await gate.wait()

    floor = Floor(wait)
    floor.put(*"abcdefg")
    await until(lambda: len(floor.begun) == 3)
    for _ in range(5):
        await asyncio.sleep(0)
    assert floor.begun == ["a", "b", "c"]
    gate.set()
    await floor.all_ended(7)
    assert floor.begun == list("abcdefg")
    assert (floor.most, floor.most_tasks) == (3, 3)


async def test_one_that_waits_holds_up_no_other() -> None:
    gate = asyncio.Event()

    async def first_waits(name: str) -> None:
        if name == "a":
            await gate.wait()

    floor = Floor(first_waits)
    floor.put(*"abcdefgh")
    await floor.all_ended(7)
    assert floor.names() == list("bcdefgh")
    floor.put("i")
    await floor.all_ended(8)
    gate.set()
    await floor.all_ended(9)


async def test_a_free_slot_is_taken_by_what_is_ready() -> None:
    gates = {name: asyncio.Event() for name in "abc"}

    async def wait(name: str) -> None:
        await gates[name].wait()

    floor = Floor(wait, limit=1)
    floor.put(*"abc")
    for name in "abc":
        await floor.begins(name)
        gates[name].set()
    await floor.all_ended(3)


async def test_each_delivery_has_a_context_of_its_own() -> None:
    seen: list[str] = []

    async def leave_a_mark(name: str) -> None:
        seen.append(MARK.get())
        MARK.set(name)
        if name in "bd":
            await asyncio.sleep(0)
            seen.append(f"{name}:{MARK.get()}")

    MARK.set("outside")
    floor = Floor(leave_a_mark, limit=2)
    MARK.set("later")
    floor.put(*"abcde")
    await floor.all_ended(5)
    assert sorted(seen) == ["b:b", "d:d", *["outside"] * 5]
    assert MARK.get() == "later"


async def test_a_task_for_each_where_that_is_asked_for() -> None:
    floor = Floor(at_once, stretch=-1.0)
    floor.put(*"abcdef")
    await floor.all_ended(6)
    assert floor.names() == list("abcdef")
    assert len(floor.tasks) == 6


async def test_the_loop_has_a_turn_between_handlers_that_block_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRETCH", 0.01)
    between: list[int] = []

    async def block(_name: str) -> None:
        time.sleep(0.006)  # noqa: ASYNC251 - as a handler that computes

    floor = Floor(block)
    floor.put(*"abcdefgh")
    while len(floor.ended) < 8:
        between.append(len(floor.ended))
        await asyncio.sleep(0)
    turns = [*between, 8]
    assert all(behind - before <= 2 for before, behind in itertools.pairwise(turns)), between


async def test_to_cancel_a_task_is_to_cancel_that_delivery_alone() -> None:
    gate = asyncio.Event()

    async def wait(_name: str) -> None:
        await gate.wait()

    floor = Floor(wait, limit=2)
    floor.put(*"abcd")
    await until(lambda: len(floor.begun) == 2)
    floor.task_of("a").cancel()
    await floor.all_ended(1)
    await until(lambda: floor.begun == ["a", "b", "c"])
    gate.set()
    await floor.all_ended(4)
    assert dict(floor.ended) == {"a": Release, "b": Ack, "c": Ack, "d": Ack}


async def test_a_cancellation_that_is_swallowed_reaches_no_other_delivery() -> None:
    gate = asyncio.Event()

    async def stubborn(name: str) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            if name != "a":
                raise

    floor = Floor(stubborn, limit=1)
    floor.put(*"ab")
    await until(lambda: floor.begun == ["a"])
    floor.task_of("a").cancel()
    await until(lambda: floor.begun == ["a", "b"])
    gate.set()
    await floor.all_ended(2)
    assert floor.ended == [("a", Ack), ("b", Ack)]


async def test_whoever_takes_one_out_answers_for_it() -> None:
    gate = asyncio.Event()

    async def wait(_name: str) -> None:
        await gate.wait()

    floor = Floor(wait, limit=1)
    floor.put("a", "b")
    await until(lambda: floor.begun == ["a"])
    task = floor.task_of("a")
    floor.runners.running.clear()
    gate.set()
    await asyncio.wait({task})
    await floor.all_ended(1)
    assert floor.names() == ["b"]


async def test_nothing_begins_while_it_is_closed() -> None:
    floor = Floor(at_once)
    floor.runners.open = False
    floor.put("a")
    await asyncio.sleep(0)
    assert (floor.begun, floor.runners.launched) == ([], set())
    floor.runners.open = True
    floor.runners.start()
    await floor.all_ended(1)


async def test_closed_between_a_launch_and_its_turn() -> None:
    floor = Floor(at_once)
    floor.put("a")
    floor.runners.open = False
    await until(lambda: not floor.runners.launched)
    assert floor.begun == []
    floor.runners.open = True
    floor.put("b")
    await floor.all_ended(2)
    assert floor.names() == ["a", "b"]
