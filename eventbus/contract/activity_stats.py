"""What the groups have made of an organization's events lately: counted by every worker, added up by minutes.

Executions are counted, by their outcome: done, dead, or to be tried again. An event that three groups handle counts
three times. The minutes are those of the server's clock when a worker's counts reach it, a second later at the most.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

FIVE_MINUTES, HOUR = timedelta(minutes=5), timedelta(hours=1)
WINDOWS = (FIVE_MINUTES, HOUR)
MINUTES = 61  # that are kept: an hour, and the minute that is running
FAILURES = 20  # that are kept
KEPT = 7_200.0  # seconds that counts of an organization are kept after the last of them
ERROR_LIMIT, TYPE_LIMIT = 500, 200  # characters that are kept of a failure


class Sums(NamedTuple):
    """`done`, `dead`, `retried`: executions by their outcome. `ran`: how many of them had a handler run, which took
    `micros` microseconds in all."""

    done: int = 0
    dead: int = 0
    retried: int = 0
    ran: int = 0
    micros: int = 0

    def plus(self, other: "Sums") -> "Sums":
        return Sums(*(one + another for one, another in zip(self, other, strict=True)))


class DeadEvent(NamedTuple):
    """An event that has become a dead letter of a group; `at` by the server's clock. The type may be unknown here."""

    event_id: str
    type: str
    group: str
    error: str
    attempts: int
    at: datetime


class Share(NamedTuple):
    """What a worker has counted of one organization's events; None: of those without one. `failures`: JSON, the oldest
    first, and without the time."""

    organization: str | None
    sums: Sums
    failures: Sequence[bytes] = ()


class Tallies(Protocol):
    """Where all workers' counts are added up. Losing it loses no event."""

    async def add(self, writer: str, number: int, shares: Sequence[Share]) -> None:
        """Add to the minute that it is now. Each writer's numbers rise from call to call; shares that are sent again
        under the same number are not counted twice. Raises Unavailable (added or not: unknown), Full."""

    async def read(self, organization: str | None, minutes: int) -> "Found":
        """The running minute, and so many before it. Raises Unavailable."""


class Found(NamedTuple):
    """`now`: the server's time. `failures`: the last ones, the latest first."""

    now: datetime
    sums: Sums
    failures: Sequence[DeadEvent]


class Activity(NamedTuple):
    """What became of one organization's events within a window.

    since      where the window begins: at a full minute, so that it is up to a minute longer than `window`
    processed  executions that ended for good: done or dead
    success_rate     the share of them that were done; None if there was none
    average_seconds  that a handler ran, those that failed included; None if none did
    per_minute       of `processed`, from `since` to now
    retries          executions that failed and will be tried again
    failures         the last dead letters, the latest first, whenever in the last two hours they died
    """

    window: timedelta
    since: datetime
    processed: int
    success_rate: float | None
    average_seconds: float | None
    per_minute: float
    retries: int
    failures: Sequence[DeadEvent]


async def activity(tallies: Tallies, organization: str | None, window: timedelta) -> Activity:
    """Raises ValueError for another window than WINDOWS."""
    if window not in WINDOWS:
        raise ValueError(f"activity of {window}: counts are kept for {' and '.join(map(str, WINDOWS))}")
    now, sums, failures = await tallies.read(organization, window // timedelta(minutes=1))
    since = now.replace(second=0, microsecond=0) - window
    processed = sums.done + sums.dead
    return Activity(
        window,
        since,
        processed,
        success_rate=sums.done / processed if processed else None,
        average_seconds=sums.micros / sums.ran / 1e6 if sums.ran else None,
        per_minute=processed / ((now - since) / timedelta(minutes=1)),
        retries=sums.retried,
        failures=failures,
    )


def minute_of(moment: datetime) -> int:
    """Minutes since 1970: the server's script counts them so."""
    return int(moment.timestamp()) // 60


def moment_of(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1000, UTC)
