"""Calls under way: how many there may be, and a deadline for each that costs next to nothing.

asyncio.timeout sets a timer for every call, which is a tenth of what a publish costs. All calls here may take equally
long, so they expire in the order in which they began, and one timer for the oldest is enough.
"""

import asyncio
from typing import Any

Call = asyncio.Task[Any]  # a task makes one call at a time


class Calls:
    """At most `limit` calls, each ended after `seconds`:

    call = in_flight.begin(loop, loop.time()) or await in_flight.begin_in_turn()
    try:
        await …
    except CancelledError as cancelled:
        raise in_flight.verdict(call, cancelled)    # TimeoutError if its time was up
    finally:
        in_flight.end(call)
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._calls: dict[Call, tuple[float, int]] = {}  # due, and cancellations before; the oldest first
        self._expired: dict[Call, int] = {}  # cancelled by us; cancellations before
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._kept = 0  # places for those who have been let in and have not run since
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._calls) + len(self._expired)

    def begin(self, loop: asyncio.AbstractEventLoop, now: float) -> Call | None:
        """None if there is no room, or others wait for it. `now`: the loop's time."""
        if self._waiting or len(self._calls) + len(self._expired) + self._kept >= self._limit:
            return None
        return self._begin(loop, now)

    async def begin_in_turn(self) -> Call:
        """When there is room, first come, first served."""
        loop = asyncio.get_running_loop()
        if (call := self.begin(loop, loop.time())) is not None:
            return call
        place = loop.create_future()
        self._waiting[place] = None
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was kept for us
                self._kept -= 1
                self._let_in()
            raise
        finally:
            self._waiting.pop(place, None)
        self._kept -= 1
        return self._begin(loop, loop.time())

    def _begin(self, loop: asyncio.AbstractEventLoop, now: float) -> Call:
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
        if self._waiting:
            self._let_in()

    def verdict(self, call: Call, cancelled: asyncio.CancelledError) -> BaseException:
        """What a cancellation inside the call means. Somebody else's comes before ours."""
        before = self._expired.get(call)
        ours = before is not None and call.cancelling() <= before + 1
        return TimeoutError() if ours else cancelled

    def _let_in(self) -> None:
        while self._waiting and len(self) + self._kept < self._limit:
            place = next(iter(self._waiting))
            del self._waiting[place]
            if not place.done():
                place.set_result(None)
                self._kept += 1

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
