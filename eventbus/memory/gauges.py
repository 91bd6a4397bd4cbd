"""What a limit has let start, and who waits for it: a gauge for each limit and key. Times are whole milliseconds of any
clock that does not go back, slots of a line whole microseconds. See eventbus.memory.limits for the rule."""

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Protocol

from eventbus.contract.limiting import ASK_AGAIN
from eventbus.contract.limits import RateLimit

LATE = 10_000  # ms after its time until a delivery that did not come is not expected any more
FARTHEST = 3_653 * 86_400_000  # ms; nobody is told to come later than in ten years
NEAR = 1_000  # ms; a delivery that is to come for a place this soon keeps newcomers from taking it
SHORTEST, LONGEST = 20, 1_000  # ms between two looks of the first in a line for places


class Line:
    """Who waits, and when each was told to come."""

    def __init__(self) -> None:
        self.dues: dict[str, int] = {}
        self._order: list[tuple[int, str]] = []

    def stand(self, member: str, due: int) -> None:
        self.leave(member)
        self.dues[member] = due
        insort(self._order, (due, member))

    def leave(self, member: str) -> None:
        due = self.dues.pop(member, None)
        if due is not None:
            del self._order[bisect_left(self._order, (due, member))]

    def before(self, due: int) -> int:
        """How many come before that time."""
        return bisect_left(self._order, (due, ""))

    def forget(self, before: int) -> None:
        late = self._order[: self.before(before)]
        for _, member in late:
            del self.dues[member]
        del self._order[: len(late)]


class Gauge(Protocol):
    """What one limit has let start under one key. `near`: who is to come within so many ms goes before newcomers."""

    line: Line
    near: int

    def look(self, now: int) -> None:
        """Forget what is over."""

    def has(self, member: str, /) -> bool:
        """Whether the member has started and still counts, so that asking again changes nothing."""

    def free(self) -> int:
        """How many more may start."""

    def opens(self, now: int) -> int:
        """When more may start, for a limit without a line."""

    def turn(self, member: str, now: int) -> int:
        """When a member is to come (again) that has no place in the line, or whose time has come."""

    def stand(self, member: str, due: int, now: int, /) -> None:
        """Keep the member's place in the line: it was told to come at `due`."""

    def take(self, member: str, now: int, lease: int, /) -> None:
        """Count the member: it starts. `lease`: ms for which its place in flight is kept without being renewed."""


class Starts:
    """The gauge of a rate: how many started when. Starts are summed up by hundredths of the span, with times rounded
    up, so that no span sees more than the limit. A handler starts a little after it was let through: its start is
    counted so much longer."""

    def __init__(self, limit: RateLimit) -> None:
        span = math.ceil(limit.per * 1000)
        self._count = limit.count
        self._span = span + min(50, span // 40)
        self._step = max(1, self._span // 100)
        self._one = math.ceil((self._span + self._step) * 1000 / limit.count)
        self._log: deque[tuple[int, int]] = deque()
        self._slot = 0  # the last one that was given away, in microseconds
        self.line = Line()
        self.near = self._span

    def look(self, now: int) -> None:
        while self._log and self._log[0][0] + self._span <= now:
            self._log.popleft()
        self.line.forget(now - self._span - LATE + 1)

    def has(self, _member: str, /) -> bool:
        return False

    def free(self) -> int:
        return self._count - sum(number for _, number in self._log)

    def opens(self, now: int) -> int:
        return now if self.free() > 0 else self._log[0][0] + self._span

    def turn(self, member: str, now: int) -> int:
        if member in self.line.dues:
            return max(self.opens(now), now + 1)
        return math.ceil(self._next_slot(now) / 1000)

    def _next_slot(self, now: int) -> int:
        slot = max(self._slot, self.opens(now) * 1000 - self._one, now * 1000) + self._one
        return min(slot, (now + FARTHEST) * 1000)

    def stand(self, member: str, due: int, now: int, /) -> None:
        if member not in self.line.dues:
            self._slot = self._next_slot(now)
        self.line.stand(member, due)

    def take(self, _member: str, now: int, _lease: int, /) -> None:
        stamp = math.ceil(now / self._step) * self._step
        if self._log and self._log[-1][0] == stamp:
            self._log[-1] = (stamp, self._log[-1][1] + 1)
        else:
            self._log.append((stamp, 1))


class InFlightGauge:
    """The gauge of a bound in flight: what runs, and until when its place is kept without being renewed. Nobody knows
    when a place comes free: the more recently somebody started, the sooner the first in the line look again."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._last: int | None = None  # when somebody started
        self.running: dict[str, int] = {}
        self.line = Line()
        self.near = NEAR

    def look(self, now: int) -> None:
        if any(until <= now for until in self.running.values()):
            self.running = {member: until for member, until in self.running.items() if until > now}
        self.line.forget(now - NEAR - LATE + 1)

    def has(self, member: str, /) -> bool:
        return member in self.running

    def free(self) -> int:
        return self._count - len(self.running)

    def opens(self, now: int) -> int:
        return now + math.ceil(ASK_AGAIN * 1000)

    def turn(self, member: str, now: int) -> int:
        due = self.line.dues.get(member)
        rank = len(self.line.dues) if due is None else self.line.before(due)
        pause = LONGEST if self._last is None else max(SHORTEST, min(LONGEST, (now - self._last) // 4))
        return min(now + (rank // self._count + 1) * pause, now + FARTHEST)

    def stand(self, member: str, due: int, _now: int, /) -> None:
        self.line.stand(member, due)

    def take(self, member: str, now: int, lease: int, /) -> None:
        self.running[member] = now + lease
        self._last = now
