"""When limits let a delivery start. The rule, for the transport in memory; scripts/admit.lua is the same for Redis,
number by number, and the property tests hold one against the other. See docs/limits.md.

All limits that concern a delivery are asked together. It starts, and takes from each of them, only if all agree. If one
refuses, nothing is taken from the others.

A limit by key that refuses a delivery gives it a place in that key's line, and tells it when to come. If several
refuse, the one that keeps it for longest does so. Deliveries with a place go before those without. When its time has
come and another limit refuses, a delivery gets a place in that limit's line as well, and keeps the place it has. A
limit over the whole group has no line: a delivery that it refuses waits in its worker's hands, and keeps its places.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from eventbus.contract.limiting import Answer, Bound, Request, Scope
from eventbus.contract.limits import Limit, RateLimit
from eventbus.memory.gauges import Gauge, InFlightGauge, Starts


@dataclass(slots=True)
class Turnstile:
    """All limits of one group."""

    gauges: dict[Scope, Gauge] = field(default_factory=dict)
    limits: dict[Scope, Limit] = field(default_factory=dict)

    def admit(self, requests: Sequence[Request], most: int, now: int) -> list[Answer]:
        """See eventbus.contract.limiting.Limiting.admit; `now` in ms."""
        answers = []
        for request in requests:
            answer = self._ask(request, most, now)
            most -= answer.admitted
            answers.append(answer)
        return answers

    def _ask(self, request: Request, most: int, now: int) -> Answer:
        asked = [(bound, self.gauge(bound)) for bound in request.bounds]
        for _, gauge in asked:
            gauge.look(now)
        member = request.member
        comes = [(bound, gauge, _come(bound, gauge, member, now)) for bound, gauge in asked]
        lines = [
            (come, bound, gauge) for bound, gauge, come in comes if come is not None and bound.limit.by is not None
        ]
        whole = [(come, bound) for bound, _, come in comes if come is not None and bound.limit.by is None]
        if lines:
            come, refused, gauge = max(lines, key=lambda found: found[0])
            gauge.stand(member, come, now)
            _keep_places(asked, member, come)
            return Answer(False, (come - now) / 1000, refused, come)
        if whole:
            come, refused = max(whole, key=lambda found: found[0])
            _keep_places(asked, member, come)
            return Answer(False, (come - now) / 1000, refused, come)
        if most < 1:
            return Answer(False)
        for _, gauge in asked:
            gauge.take(member, now, math.ceil(request.lease * 1000))
            gauge.line.leave(member)
        return Answer(True)

    def gauge(self, bound: Bound) -> Gauge:
        gauge = self.gauges.get(bound.scope)
        if gauge is None:
            limit = bound.limit
            gauge = Starts(limit) if isinstance(limit, RateLimit) else InFlightGauge(limit.count)
            self.gauges[bound.scope], self.limits[bound.scope] = gauge, limit
        return gauge


def _come(bound: Bound, gauge: Gauge, member: str, now: int) -> int | None:
    """When the member is to come (again) if this limit refuses it; None if the limit agrees."""
    if gauge.has(member):
        return None
    due = gauge.line.dues.get(member)
    free = gauge.free() > 0
    if bound.limit.by is None:
        return None if free else max(gauge.opens(now), now + 1)
    if free and due is not None and due <= now:
        return None
    if free and gauge.line.before(now + gauge.near) - (due is not None and due < now + gauge.near) == 0:
        return None
    return due if due is not None and due > now else gauge.turn(member, now)


def _keep_places(asked: Sequence[tuple[Bound, Gauge]], member: str, come: int) -> None:
    """Keep the member's places in lines until it comes again."""
    for _, gauge in asked:
        due = gauge.line.dues.get(member)
        if due is not None and due < come:
            gauge.line.stand(member, come)
