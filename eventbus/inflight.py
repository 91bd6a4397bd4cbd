"""Calls under way: how many there may be, served in turn, each with a deadline."""

import asyncio

from eventbus.deadlines import Call, Deadlines


class Calls:
    """At most `limit` calls, each ended after `seconds`. As Deadlines, but that there may be no room:

    call = in_flight.begin(loop, loop.time()) or await in_flight.begin_in_turn()
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._deadlines = Deadlines(seconds)
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._kept = 0  # places for those who have been let in and have not run since
        self.verdict = self._deadlines.verdict

    def __len__(self) -> int:
        return len(self._deadlines)

    def begin(self, loop: asyncio.AbstractEventLoop, now: float) -> Call | None:
        """None if there is no room, or others wait for it. `now`: the loop's time."""
        if self._waiting or len(self._deadlines) + self._kept >= self._limit:
            return None
        return self._deadlines.begin(loop, now)

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
        return self._deadlines.begin(loop, loop.time())

    def end(self, call: Call) -> None:
        self._deadlines.end(call)
        if self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and len(self) + self._kept < self._limit:
            place = next(iter(self._waiting))
            del self._waiting[place]
            if not place.done():
                place.set_result(None)
                self._kept += 1
