"""When recurring functions run: every so many seconds, or by a cron expression in a time zone.

Both are sets of moments that every process computes alike, from nothing but the declaration: that is what lets many
workers agree on a firing and on its event id.
"""

import hashlib
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import new_class
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from eventbus.checks.numbers import LONGEST
from eventbus.contract import clocks
from eventbus.errors import ConfigurationError
from eventbus.event import Event, stream_of

SHORTEST_PERIOD, LONGEST_PERIOD = timedelta(seconds=0.1), timedelta(seconds=LONGEST)
CATCH_UP = 3600.0  # seconds

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


class Tick(Event):
    """What a recurring function is handed. `due`: the moment that it was to fire at, in UTC."""

    due: datetime


class Schedule(Protocol):
    """Moments, in UTC. None: there is no such moment within 50 years."""

    def latest(self, now: datetime) -> datetime | None:
        """The last moment that is not after `now`."""

    def following(self, now: datetime) -> datetime | None:
        """The first moment after `now`."""


@dataclass(frozen=True, slots=True)
class Every:
    """Multiples of a period, counted from 1970-01-01 00:00 UTC: a restart does not shift them."""

    period: timedelta

    def __post_init__(self) -> None:
        if not SHORTEST_PERIOD <= self.period <= LONGEST_PERIOD or self.period % timedelta(milliseconds=1):
            raise ConfigurationError(
                f"every({self.period.total_seconds():g}): the period must be at least "
                f"{SHORTEST_PERIOD.total_seconds():g} seconds, in whole milliseconds, and ten years at most"
            )

    def latest(self, now: datetime) -> datetime:
        return now - (now - _EPOCH) % self.period

    def following(self, now: datetime) -> datetime:
        return self.latest(now) + self.period


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression as Debian's cron reads it, of five fields, or six with the seconds first.

    Where clocks are put forward, a moment inside the gap comes right after it. Where they are put back, a moment that
    occurs twice comes the first time only. Expressions whose minute or hour begins with `*`, and those with seconds,
    follow the time that really passes instead: they leave out the gap, and count the repeated hour twice.
    """

    expression: str
    zone: ZoneInfo

    @classmethod
    def of(cls, expression: str, tz: str) -> "Cron":
        """Raises ConfigurationError if there is no such time zone, or if the expression is not valid or never fires."""
        try:
            zone = ZoneInfo(tz)
        except (LookupError, ValueError, OSError):
            raise ConfigurationError(
                f"cron({expression!r}): no time zone {tz!r} is known here (the system may lack the package tzdata)"
            ) from None
        cron = cls(expression, zone)
        try:
            first = cron.following(datetime.now(UTC))
        except CronSimError as error:
            raise ConfigurationError(f"{expression!r} is no cron expression: {error}") from None
        if first is None:
            raise ConfigurationError(f"cron({expression!r}) never fires")
        return cron

    def latest(self, now: datetime) -> datetime | None:
        now = now.astimezone(UTC)
        return self._latest_of_clock(now) if self._by_the_clock else self._latest_of_time(now)

    def following(self, now: datetime) -> datetime | None:
        now = now.astimezone(UTC)
        return self._following_of_clock(now) if self._by_the_clock else self._following_of_time(now)

    @property
    def _by_the_clock(self) -> bool:
        """Whether the expression names times of day; otherwise it follows the time that really passes."""
        fields = self.expression.split()
        return len(fields) == 5 and not any(field.startswith("*") for field in fields[:2])

    # cronsim says only which local times match, as if no clock was ever changed. What a change of the offset means is
    # decided here.

    def _matches(self, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        """Local times, without a zone, that match: those after `start`, or with `reverse` those before it."""
        return CronSim(self.expression, start.replace(tzinfo=None, microsecond=0, fold=0), reverse=reverse)

    def _following_of_clock(self, now: datetime) -> datetime | None:
        moments = (clocks.first(self.zone, local) for local in self._matches(now.astimezone(self.zone)))
        return next((moment for moment in moments if moment > now), None)

    def _latest_of_clock(self, now: datetime) -> datetime | None:
        start = clocks.furthest(self.zone, now) + _SECOND
        moments = (clocks.first(self.zone, local) for local in self._matches(start, reverse=True))
        return next((moment for moment in moments if moment <= now), None)

    def _following_of_time(self, now: datetime) -> datetime | None:
        """Search from one change of the offset to the next: in between, local time and UTC run alike."""
        start = now
        while True:
            offset = clocks.offset(self.zone, start)
            local = next(self._matches(start + offset), None)
            if local is None:
                return None
            moment = local.replace(tzinfo=UTC) - offset
            change = clocks.next_change(self.zone, start, moment)
            if change is None:
                return moment
            if self._is_match(change + clocks.offset(self.zone, change)):
                return change
            start = change

    def _latest_of_time(self, now: datetime) -> datetime | None:
        end = now
        while True:
            offset = clocks.offset(self.zone, end)
            local = next(self._matches(end + offset + _SECOND, reverse=True), None)
            if local is None:
                return None
            moment = local.replace(tzinfo=UTC) - offset
            change = clocks.last_change(self.zone, moment, end)
            if change is None:
                return moment
            end = change - _SECOND

    def _is_match(self, local: datetime) -> bool:
        return next(self._matches(local - _SECOND), None) == local.replace(tzinfo=None)


@dataclass(frozen=True, slots=True)
class Recurring:
    """A function that recurs. Its firings are events of a type of its own, in a stream of its group's own."""

    name: str
    group: str
    schedule: Schedule
    catch_up: float
    tick: type[Tick]

    @classmethod
    def of(cls, group: str, name: str, schedule: Schedule, catch_up: float) -> "Recurring":
        """Raises ConfigurationError if the name does not fit into an event type, or `catch_up` is too short."""
        if not 1 <= catch_up < math.inf:
            raise ConfigurationError(f"{group}: {name}: catch_up={catch_up:g} must be at least 1 second")
        owner = group.replace("-", "_").replace(".", "_")
        # Named after group and function, so that two groups whose firings would have the same type are refused.
        label = f"Tick[{group}, {name}]"
        marks = {"__module__": __name__, "__qualname__": label, "__doc__": Tick.__doc__}
        tick = new_class(label, (Tick,), {"type": f"tick_{owner}.{name}"}, lambda body: body.update(marks))
        return cls(name, group, schedule, catch_up, tick)

    @property
    def stream(self) -> str:
        return stream_of(self.tick.event_type)

    def owed(self, last: datetime, now: datetime) -> datetime | None:
        """The moment to fire now, if the last firing was that of `last`. None: there is none, or it is too long ago."""
        latest = self.schedule.latest(now)
        if latest is None or latest <= last or (now - latest).total_seconds() > self.catch_up:
            return None
        return latest

    def event_id(self, due: datetime) -> str:
        """The id of a firing, the same in every process: a UUIDv7 of its moment and a hash of who fires."""
        ms = round((due - _EPOCH) / timedelta(milliseconds=1))
        digest = hashlib.sha256(f"{self.group}/{self.name}/{ms}".encode()).digest()
        tail = int.from_bytes(digest[:8], "big") & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
        return str(uuid.UUID(f"{ms:012x}7{digest[8:10].hex()[:3]}{tail:016x}"))
