"""How far ahead of free slots a group may read.

A handler of a millisecond is over before the next event has been read, and the slots would stand empty half of the
time. Behind a handler of a second, no events must wait that another process could run at once. So a group reads ahead
as many events as it lately finished within HORIZON, and no more than it runs at a time: they start about that soon.
"""

HORIZON = 0.01  # seconds
_MEMORY = 0.05  # seconds; the pace of longer ago counts less and less


class Pace:
    """Add to `ended` what ends; `measure` tells how many events may be in hand beyond those that run."""

    def __init__(self, limit: int) -> None:
        self.ended = 0
        self._limit = limit
        self._since: float | None = None
        self._per_second = 0.0

    def measure(self, now: float) -> int:
        """`now`: a monotonic clock, in seconds."""
        if self._since is None:
            self._since = now
        passed = now - self._since
        if passed >= HORIZON:
            weight = min(1.0, passed / _MEMORY)
            self._per_second += weight * (self.ended / passed - self._per_second)
            self.ended, self._since = 0, now
        return min(self._limit, int(self._per_second * HORIZON))
