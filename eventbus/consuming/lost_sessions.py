"""Handlers that end their own session with PostgreSQL, each time that they run.

Whoever meets a server that is away has not failed, and is run again. A statement that crashes the server's process, or
ends it, looks the same from here. The difference shows when it happens to one event again and again: then it counts as
the event's failure.
"""

from eventbus.errors import SessionEnded, Unavailable
from eventbus.handling.verdict import leaves

LIMIT = 8  # times in a row that it is taken for somebody else's doing
MOST = 10_000  # events that are remembered


class LostSessions:
    """Counts for the events of one group, in this process. `times`: of those that have met it, by id."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}

    def forget(self, event_id: str) -> None:
        """It has ended in another way."""
        self.times.pop(event_id, None)

    def meant(self, event_id: str, error: BaseException) -> BaseException:
        """What the error of a handler counts as."""
        lost = [each for each in leaves(error) if isinstance(each, Unavailable)]
        if not any(each.lost for each in lost):
            if not lost:  # else the server is away, which says nothing of this event
                self.forget(event_id)
            return error
        times = self.times.pop(event_id, 0) + 1
        self.times[event_id] = times
        if len(self.times) > MOST:
            del self.times[next(iter(self.times))]
        if times <= LIMIT:
            return error
        reason = next(each.detail for each in lost if each.lost)
        ended = SessionEnded(f"the session with PostgreSQL ended {times} times in a row while this ran: {reason}")
        ended.__cause__ = error
        return ended
