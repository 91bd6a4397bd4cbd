"""Deadlines of many calls, by one timer."""

import asyncio

import pytest

from eventbus.process.task_deadlines import Deadlines, TaskDeadlines
from tests.virtual import in_virtual_time, loop


async def call(deadlines: TaskDeadlines, seconds: float) -> str:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    late = False
    deadlines.begin(task, loop, loop.time())
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if deadlines.end(task) and not task.cancelling():
            return "late"
        raise
    late = deadlines.end(task)
    return "late, and done all the same" if late else "done"


@in_virtual_time
async def test_each_task_ends_in_its_own_time() -> None:
    deadlines = TaskDeadlines(0.3)
    first = asyncio.create_task(call(deadlines, 9))
    await asyncio.sleep(0.15)
    second = asyncio.create_task(call(deadlines, 9))
    assert await first == "late"
    assert loop().time() == pytest.approx(0.3)
    assert await second == "late"
    assert loop().time() == pytest.approx(0.45)


@in_virtual_time
async def test_who_is_in_time_is_left_alone() -> None:
    deadlines = TaskDeadlines(0.05)
    for _ in range(3):  # the timer of the first goes on for the others
        assert await asyncio.gather(*(call(deadlines, 0.03) for _ in range(5))) == ["done"] * 5


@in_virtual_time
async def test_a_cancellation_from_outside_goes_first() -> None:
    deadlines = TaskDeadlines(0.05)
    task = asyncio.create_task(call(deadlines, 9))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.0501, task.cancel)
    loop().pass_time(0.06)  # both come due at once
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1, "ours was taken back"


@in_virtual_time
async def test_a_future_that_is_late_gets_an_error_and_one_that_is_done_does_not() -> None:
    deadlines, loop = Deadlines(0.05), asyncio.get_running_loop()
    prompt, late = loop.create_future(), loop.create_future()
    for future in (prompt, late):
        deadlines.begin(future, loop, loop.time())
    prompt.set_result("prompt")
    with pytest.raises(TimeoutError):
        await late
    assert await prompt == "prompt"
    assert deadlines.end(late)
    assert deadlines.end(prompt), "it was not ended in time, though it was done"


@in_virtual_time
async def test_one_timer_is_set_however_many_calls_there_are() -> None:
    deadlines, loop = Deadlines(60), asyncio.get_running_loop()
    timers: list[float] = []

    class Loop:
        def call_at(self, due: float, *_: object) -> asyncio.TimerHandle:
            timers.append(due)
            return loop.call_at(due, lambda: None)

    for _ in range(100):
        future = loop.create_future()
        deadlines.begin(future, Loop(), loop.time())  # type: ignore[arg-type]  # all that it asks of a loop
        deadlines.end(future)
    assert len(timers) == 1
