"""Where the clocks of a time zone are changed.

Moments are in UTC, to the second; local times have no zone. Changes between two moments are looked for in steps of a
day: no zone has ever changed its clocks twice in one day.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_STEP, _SECOND = timedelta(days=1), timedelta(seconds=1)


def offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    found = moment.astimezone(zone).utcoffset()
    assert found is not None, "a zone knows its offset"
    return found


def first(zone: ZoneInfo, local: datetime) -> datetime:
    """The moment of a local time: the first, if clocks show it twice; right behind the gap, if they never show it."""
    before = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if before.astimezone(zone).replace(tzinfo=None, fold=0) == local:
        return before
    after = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    change = next_change(zone, min(before, after), max(before, after))
    return before if change is None else change


def furthest(zone: ZoneInfo, now: datetime) -> datetime:
    """A local time, without a zone, that clocks have not passed until now. In a repeated hour it is ahead of them."""
    shown = now.astimezone(zone)
    local = shown.replace(tzinfo=None, fold=0)
    if not shown.fold:
        return local
    earlier, later = shown.replace(fold=0).utcoffset(), shown.utcoffset()
    assert earlier is not None
    assert later is not None
    return local + (earlier - later)


def next_change(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """The first moment behind `start`, up to `end`, with another offset than `start`; None if there is none."""
    known, low = offset(zone, start), start
    while low < end:
        high = min(low + _STEP, end)
        if offset(zone, high) != known:
            return _boundary(zone, low, high)
        low = high
    return None


def last_change(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """The last moment behind `start`, up to `end`, from which on the offset is that of `end`; None if it always was."""
    known, high = offset(zone, end), end
    while high > start:
        low = max(high - _STEP, start)
        if offset(zone, low) != known:
            return _boundary(zone, low, high)
        high = low
    return None


def _boundary(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The first moment between these two, in whole seconds, that has the offset of the later one."""
    known = offset(zone, high)
    low, high = low.replace(microsecond=0), _ceil(high)
    while high - low > _SECOND:
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if offset(zone, middle) == known:
            high = middle
        else:
            low = middle
    return high


def _ceil(moment: datetime) -> datetime:
    return moment if not moment.microsecond else moment.replace(microsecond=0) + _SECOND
