"""Limits inside one process: the rules of scripts/admit.lua and spend.lua, for the in-process transport."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from eventbus.limits import Limit, RateLimit

START_MARGIN = 0.05  # seconds; a handler starts a little after it was let through, and is counted so much longer
LATE = 10.0  # seconds after which who stood in line is not expected any more


@dataclass(slots=True)
class Turnstile:
    """Lets through what the limit allows. `now` is in seconds, of any clock that never goes back."""

    limit: Limit
    starts: deque[float] = field(default_factory=deque)
    running: dict[str, float] = field(default_factory=dict)  # until when a place is kept
    line: dict[str, float] = field(default_factory=dict)  # when to come again

    def admit(self, members: Sequence[str], lease: float, ask_again: float, now: float) -> list[float]:
        """For each member 0.0 if it may start, else the seconds after which to ask again."""
        if isinstance(self.limit, RateLimit):
            return [self._start(self.limit, member, now) for member in members]
        self.running = {member: until for member, until in self.running.items() if until > now}
        waits = []
        for member in members:
            fits = member in self.running or len(self.running) < self.limit.count
            if fits:
                self.running[member] = now + lease
            waits.append(0.0 if fits else ask_again)
        return waits

    def _start(self, limit: RateLimit, member: str, now: float) -> float:
        span = limit.per + min(START_MARGIN, limit.per / 20)
        while self.starts and self.starts[0] + span <= now:
            self.starts.popleft()
        self.line = {waiting: told for waiting, told in self.line.items() if told > now - span - LATE}
        told = self.line.get(member)
        if len(self.starts) < limit.count and (not self.line or (told is not None and told <= now)):
            self.line.pop(member, None)
            self.starts.append(now)
            return 0.0
        opens = (self.starts[0] if self.starts else now) + span
        if limit.by is None:
            return max(0.001, opens - now)
        if told is None or told <= now:
            one = limit.per / limit.count
            told = self.line[member] = max(max(self.line.values(), default=0.0), opens - one, now) + one
        return told - now

    def stay(self, members: Sequence[str], lease: float, now: float) -> None:
        self.running.update(dict.fromkeys(members, now + lease))

    def leave(self, members: Sequence[str]) -> None:
        for member in members:
            self.running.pop(member, None)


@dataclass(slots=True)
class Window:
    """A quota that comes back as its window slides on. `now` as above."""

    taken: deque[tuple[float, int]] = field(default_factory=deque)

    def spend(self, limit: RateLimit, wanted: int, now: float) -> tuple[int, int, float]:
        """How many were taken, how many are left, seconds until there is more."""
        while self.taken and self.taken[0][0] + limit.per <= now:
            self.taken.popleft()
        free = max(0, limit.count - sum(number for _, number in self.taken))
        granted = min(free, wanted)
        if granted:
            self.taken.append((now, granted))
        opens = self.taken[0][0] + limit.per - now if self.taken else 0.0
        return granted, free - granted, opens
