"""Requests to this gateway, counted by method, route and status. The counts are bounded, whatever clients send: a
route is a pattern of the table, and all methods that no route has are counted as one."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import web

from eventbus.telemetry.metrics import Histogram

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE"})
NOWHERE, OTHER = "none", "other"  # labels: of requests without a route, and of methods that no route has


@dataclass(slots=True)
class Requests:
    """Requests to one route by one method. `seconds` leaves WebSockets out: theirs tell how long people talked."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: Histogram = field(default_factory=lambda: Histogram(BOUNDS))


class Traffic:
    """All requests since this gateway was started."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str], Requests] = {}

    def count(self, request: web.Request, status: int, seconds: float) -> None:
        resource = request.match_info.route.resource
        method = request.method if request.method in METHODS else OTHER
        key = (method, NOWHERE if resource is None else resource.canonical)
        found = self._requests.get(key)
        if found is None:
            found = self._requests[key] = Requests()
        found.statuses[status] += 1
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            found.seconds.counts[bisect_left(BOUNDS, seconds)] += 1
            found.seconds.total += seconds

    def __iter__(self) -> Iterator[tuple[tuple[str, str], Requests]]:
        """((method, route), requests), sorted."""
        return iter(sorted(self._requests.items()))


TRAFFIC = web.AppKey("traffic", Traffic)
