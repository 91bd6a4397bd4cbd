"""Limits and quotas inside one process."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from eventbus.contract.inspection import InLine
from eventbus.contract.limiting import Answer, Request, Spent
from eventbus.contract.limits import RateLimit, in_words
from eventbus.memory.gauges import InFlightGauge
from eventbus.memory.limits import Turnstile


class MemoryLimits:
    """See eventbus.contract.limiting.Limiting. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._turnstiles: dict[str, Turnstile] = {}  # by group
        self._windows: dict[str, Window] = {}

    def admit(self, requests: Sequence[Request], most: int) -> list[Answer]:
        return self._turnstile(requests[0]).admit(requests, most, self._ms()) if requests else []

    def stay(self, requests: Sequence[Request]) -> None:
        for request, places in self._places(requests):
            places.running[request.member] = self._ms() + math.ceil(request.lease * 1000)

    def leave(self, requests: Sequence[Request]) -> None:
        for request, places in self._places(requests):
            places.running.pop(request.member, None)

    def spend(self, quota: str, limit: RateLimit, wanted: int) -> Spent:
        return Spent(*self._windows.setdefault(quota, Window()).spend(limit, wanted, self._clock()))

    def in_lines(self, group: str, member: str) -> tuple[InLine, ...]:
        """The lines in which a delivery waits."""
        known = self._turnstiles.get(group, Turnstile())
        return tuple(
            InLine(in_words(known.limits[scope]), scope.key, gauge.line.before(gauge.line.dues[member]))
            for scope, gauge in known.gauges.items()
            if member in gauge.line.dues
        )

    def _places(self, requests: Sequence[Request]) -> Iterator[tuple[Request, InFlightGauge]]:
        for request in requests:
            for bound in request.bounds:
                gauge = self._turnstile(request).gauge(bound)
                if isinstance(gauge, InFlightGauge):
                    yield request, gauge

    def _turnstile(self, request: Request) -> Turnstile:
        return self._turnstiles.setdefault(request.bounds[0].scope.group, Turnstile())

    def _ms(self) -> int:
        """The time in whole ms. It is rounded first, so that one that was a float meanwhile is not the ms before."""
        return round(self._clock() * 1_000_000) // 1000


@dataclass(slots=True)
class Window:
    """A quota that comes back as its window slides on; the rule of scripts/spend.lua. `now` in seconds, of any clock
    that never goes back."""

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
