"""A deadline for each of many calls that may all take equally long, at next to no cost.

asyncio.timeout sets a timer for every call: a tenth of what a publish costs, or an event whose handler does little.
Calls that may take equally long expire in the order in which they began, so one timer for the oldest is enough.
"""

import asyncio
from typing import Any

Future = asyncio.Future[Any]
Task = asyncio.Task[Any]


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
        """Whether its time was up."""
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
    """Of what a task does between `begin` and `end`: it is cancelled.

    deadlines.begin(task, loop, loop.time())
    try:
        await …
    finally:
        late = deadlines.end(task)   # then a CancelledError means that its time was up, unless task.cancelling() still
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self._expired: set[Task] = set()

    def end(self, call: Future) -> bool:
        """Whether its time was up: it was cancelled for that, which is undone here."""
        if self._due.pop(call, None) is not None:
            return False
        assert isinstance(call, asyncio.Task)
        self._expired.remove(call)
        call.uncancel()
        return True

    def _time_is_up(self, call: Future) -> None:
        assert isinstance(call, asyncio.Task)
        self._expired.add(call)
        call.cancel()
