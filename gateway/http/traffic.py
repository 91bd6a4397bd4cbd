"""What is asked of this gateway, counted: by method, route and status. Bounded, whatever clients send: a route is a
pattern of the table, and a method that no route has is one of the others."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import web

from eventbus.telemetry.metrics import Histogram

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE"})
NOWHERE, OTHER = "none", "other"  # the labels of what has no route, and of methods that no route has


@dataclass(slots=True)
class Requests:
    """To one route by one method. `seconds` is without WebSockets: theirs are how long people talked."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: Histogram = field(default_factory=lambda: Histogram(BOUNDS))


class Traffic:
    """Since this gateway was started."""

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
        """By method and route."""
        return iter(sorted(self._requests.items()))


TRAFFIC = web.AppKey("traffic", Traffic)
