"""A deadline for each call of a kind that may all take equally long, at next to no cost.

asyncio.timeout sets a timer for every call: a tenth of what a publish costs, or an event whose handler does little.
Calls that may take equally long expire in the order in which they began, so one timer for the oldest is enough.
"""

import asyncio
from typing import Any

Call = asyncio.Task[Any]  # a task makes one call of a kind at a time


class Deadlines:
    """Each call is ended after `seconds`, by cancelling its task:

    call = deadlines.begin(loop, loop.time())
    try:
        await …
    except CancelledError as cancelled:
        raise deadlines.verdict(call, cancelled)    # TimeoutError if its time was up
    finally:
        deadlines.end(call)
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls: dict[Call, tuple[float, int]] = {}  # due, and cancellations before; the oldest first
        self._expired: dict[Call, int] = {}  # cancelled by us; cancellations before
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._calls) + len(self._expired)

    def begin(self, loop: asyncio.AbstractEventLoop, now: float) -> Call:
        """A call of the task that runs now. `now`: the loop's time."""
        task = asyncio.current_task(loop)
        assert task is not None, "only a task can be told that its time is up"
        self._calls[task] = (now + self._seconds, task.cancelling())
        if self._timer is None:
            self._timer = loop.call_at(now + self._seconds, self._expire)
        return task

    def end(self, call: Call) -> None:
        if self._calls.pop(call, None) is None:
            del self._expired[call]
            call.uncancel()

    def verdict(self, call: Call, cancelled: asyncio.CancelledError) -> BaseException:
        """What a cancellation inside the call means. Somebody else's comes before ours."""
        before = self._expired.get(call)
        ours = before is not None and call.cancelling() <= before + 1
        return TimeoutError() if ours else cancelled

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time() + 0.001  # timers may come a little early
        self._timer = None
        while self._calls:
            call, (due, before) = next(iter(self._calls.items()))
            if due > now:
                self._timer = loop.call_at(due, self._expire)
                return
            del self._calls[call]
            self._expired[call] = before
            call.cancel()
