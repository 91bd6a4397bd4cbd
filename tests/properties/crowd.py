"""Deliveries that come when they are told to, and what must hold of their starts."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from eventbus.contract.limiting import Request, Scope
from eventbus.contract.limits import InFlight, Limit, RateLimit
from tests.properties.turnstiles import Asked

BEGIN = 1_800_000_000_000  # ms; some time in 2027


@dataclass
class Crowd:
    """Who has asked and waits comes again exactly when it was told to, in the order in which it first asked."""

    asked: Asked
    now: int = BEGIN
    starts: list[tuple[int, Request]] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    _waiting: list[tuple[int, int, Request]] = field(default_factory=list)
    _arrivals: int = 0

    async def ask(self, requests: Sequence[Request], most: int = 1_000_000) -> list[Request]:
        """Those that start."""
        first = self._arrivals
        self._arrivals += len(requests)
        return await self._ask([(first + n, request) for n, request in enumerate(requests)], most)

    async def _ask(self, numbered: Sequence[tuple[int, Request]], most: int = 1_000_000) -> list[Request]:
        if not numbered:
            return []
        answers = await self.asked.admit([request for _, request in numbered], most, self.now)
        started = []
        for (number, request), answer in zip(numbered, answers, strict=True):
            assert answer.error is None
            if answer.admitted:
                started.append(request)
            else:  # who lacks nothing but a slot asks again at once
                heapq.heappush(self._waiting, (self.now + max(1, round(answer.wait * 1000)), number, request))
        self.starts += [(self.now, request) for request in started]
        self.running += [request for request in started if any(isinstance(b.limit, InFlight) for b in request.bounds)]
        return started

    @property
    def next(self) -> int | None:
        """When the next comes; None if nobody waits."""
        return self._waiting[0][0] if self._waiting else None

    async def until(self, end: int) -> None:
        """Let time go on, and all come that were told to until then."""
        while self._waiting and self._waiting[0][0] <= end:
            self.now = max(self.now, self._waiting[0][0])
            due = []
            while self._waiting and self._waiting[0][0] <= self.now:
                _, number, request = heapq.heappop(self._waiting)
                due.append((number, request))
            await self._ask(due)
        self.now = max(self.now, end)

    async def leave(self, requests: Sequence[Request]) -> None:
        await self.asked.leave(requests)
        for request in requests:
            self.running.remove(request)


def check_rates(starts: Sequence[tuple[int, Request]]) -> None:
    """No span of any limit and key has seen more starts than it allows. Plain counting, without regard to the rule."""
    times: dict[tuple[Scope, Limit], list[int]] = {}
    for at, request in starts:
        for bound in request.bounds:
            times.setdefault((bound.scope, bound.limit), []).append(at)
    for (scope, limit), when in times.items():
        if isinstance(limit, RateLimit):
            span = limit.per * 1000
            for first, beyond in zip(when, when[limit.count :], strict=False):
                assert beyond - first >= span, (
                    f"{limit} of {scope.key!r}: {limit.count + 1} starts in {beyond - first} ms"
                )


def check_places(running: Sequence[Request]) -> None:
    """No more run than there are places."""
    counts: dict[tuple[Scope, Limit], int] = {}
    for request in running:
        for bound in request.bounds:
            if isinstance(bound.limit, InFlight):
                counts[bound] = counts.get(bound, 0) + 1
                assert counts[bound] <= bound.limit.count, f"{counts[bound]} of {bound}"
