"""A deadline for each of many calls that may all take equally long, at next to no cost.

asyncio.timeout sets a timer for every call: a tenth of the cost of a publish, or of an event whose handler does little.
Calls that may take equally long expire in the order in which they began, so one timer for the oldest is enough.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

Future = asyncio.Future[Any]
Task = asyncio.Task[Any]

PATIENCE = 5.0  # seconds that a task has to end when its time is up
AGAIN, TIMES = 1.0, 5  # seconds between its further cancellations, and how many there are


class Deadlines:
    """Of futures: one that is not done `seconds` after its `begin` gets a TimeoutError. Each `begin` needs an `end`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[Future, float] = {}  # by the loop's time; the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, call: Future, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """`now`: the loop's time."""
        self._due[call] = due = now + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._expire)

    def end(self, call: Future) -> bool:
        """Returns whether its time was up."""
        return self._due.pop(call, None) is None

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time() + 0.001  # timers may come a little early
        self._timer = None
        while self._due:
            call, due = next(iter(self._due.items()))
            if due > now:
                self._timer = loop.call_at(due, self._expire)
                return
            del self._due[call]
            self._time_is_up(call)

    def _time_is_up(self, call: Future) -> None:
        if not call.done():
            call.set_exception(TimeoutError())


class TaskDeadlines(Deadlines):
    """For what a task does between `begin` and `end`: the task is cancelled when its time is up.

    deadlines.begin(task, loop, loop.time())
    try:
        await …
    finally:
        late = deadlines.end(task)   # then a CancelledError means that its time was up, unless task.cancelling() still

    If it goes on all the same, `outlived(task, seconds, last)` is called PATIENCE seconds later. Then it is cancelled
    again, TIMES times, each AGAIN seconds, and at last `outlived` is called with `last`. `seconds`: since its time was
    up. Without `outlived` it is cancelled once.
    """

    def __init__(self, seconds: float, outlived: Callable[[Task, float, bool], None] | None = None) -> None:
        super().__init__(seconds)
        self._outlived = outlived
        self._expired: dict[Future, _Late] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """As `async with asyncio.timeout(seconds)`, around what the current task does."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None, "only a task can be told that its time is up"
        self.begin(task, loop, loop.time())
        try:
            yield
        except BaseException as error:
            if self.end(task) and isinstance(error, asyncio.CancelledError) and not task.cancelling():
                raise TimeoutError from error
            raise
        else:
            self.end(task)

    def end(self, call: Future) -> bool:
        """Returns whether its time was up. If so, the task was cancelled for that, which is undone here."""
        if self._due.pop(call, None) is not None:
            return False
        late = self._expired.pop(call)
        for _ in range(late.cancelled):
            cast(Task, call).uncancel()
        return True

    def _time_is_up(self, call: Future) -> None:
        loop = asyncio.get_running_loop()
        late = self._expired[call] = _Late(loop.time(), 1)
        cast(Task, call).cancel()
        if self._outlived is not None:
            loop.call_later(PATIENCE, self._look, call, late)

    def _look(self, call: Future, late: "_Late") -> None:
        if self._expired.get(call) is not late or self._outlived is None:
            return  # it has ended; the task may be at something else by now
        loop, task = asyncio.get_running_loop(), cast(Task, call)
        last = late.cancelled > TIMES
        if last or late.cancelled == 1:
            self._outlived(task, loop.time() - late.since, last)
        if not last:
            late.cancelled += 1
            task.cancel()
            loop.call_later(AGAIN, self._look, call, late)


@dataclass(slots=True, eq=False)
class _Late:
    since: float  # the loop's time at which its time was up
    cancelled: int  # how often


def limit(deadlines: TaskDeadlines | None) -> AbstractContextManager[None]:
    """Around what the current task does: its time is bounded, if there are deadlines."""
    return nullcontext() if deadlines is None else deadlines.running()
