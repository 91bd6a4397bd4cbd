"""The payload, and what a handler does with it."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from .protocol import Done, unheard

Payload = dict[str, str]

WARM_UP = 200  # events that go ahead of an open loop: connections are opened, scripts loaded, code compiled


def payload(number: int) -> Payload:
    """About 100 bytes of JSON."""
    return {"leadId": f"lead-{number:08}", "organizationId": "org-1", "note": "x" * 36}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds, by nearest rank."""
    ordered = sorted(seconds)
    ranks = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[math.ceil(rank * len(ordered)) - 1] * 1000, 3) for name, rank in ranks.items()}


class Work:
    """What a handler does, and what is known of it. An event counts once, however often it is delivered."""

    def __init__(self, wait: float, done: Done) -> None:
        """`wait`: seconds that each handler takes."""
        self.ended = 0.0
        self.latencies: list[float] = []
        self._wait, self._report = wait, done
        self.expect(0, lambda: None)

    def expect(self, count: int, finished: Callable[[], None], due: Callable[[int], float] | None = None) -> None:
        """Call `finished` after the last of so many events. `due`: when the handler of each should start."""
        self._count, self._finished, self._due, self._done = count, finished, due, self._report
        self._seen: set[str] = set()

    def warm_up(self, finished: Callable[[], None]) -> None:
        """The same for WARM_UP events that are neither measured nor reported."""
        self.expect(WARM_UP, finished)
        self._done = unheard

    async def run(self, lead_id: str) -> None:
        self.begin(lead_id)
        if self._wait:
            await asyncio.sleep(self._wait)
        self.end(lead_id)

    def run_blocking(self, lead_id: str) -> None:
        self.begin(lead_id)
        if self._wait:
            time.sleep(self._wait)
        self.end(lead_id)

    def begin(self, lead_id: str) -> None:
        if self._due is not None:
            self.latencies.append(time.perf_counter() - self._due(int(lead_id.removeprefix("lead-"))))

    def end(self, lead_id: str) -> None:
        self._seen.add(lead_id)
        seen = len(self._seen)
        self._done(seen)
        if seen == self._count:
            self._count = -1
            self.ended = time.perf_counter()
            self._finished()
