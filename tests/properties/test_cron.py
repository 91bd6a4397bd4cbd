"""Cron around changes of clocks, against a walk through the minutes that really pass."""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from eventbus.contract.recurring import Cron
from tests.properties import few

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
# Gaps by night, at midnight and by day, changes of half an hour, whole days left out, and none at all.
ZONES = [
    *("Europe/Berlin", "America/New_York", "Africa/Cairo", "America/Havana", "Asia/Beirut", "America/Santiago"),
    *(
        "Australia/Lord_Howe",
        "Atlantic/Azores",
        "America/Sao_Paulo",
        "Africa/Casablanca",
        "Pacific/Apia",
        "Asia/Kathmandu",
    ),
    *("Antarctica/Troll", "America/St_Johns", "Asia/Pyongyang", "UTC"),
]


@cache
def changes(name: str) -> list[datetime]:
    """Days within which the offset changes, of some years."""
    zone = ZoneInfo(name)
    starts = [(datetime(2011, 1, 1, tzinfo=UTC), 5), (datetime(2024, 1, 1, tzinfo=UTC), 3)]
    days = [start + n * DAY for start, years in starts for n in range(366 * years)]
    offsets = [day.astimezone(zone).utcoffset() for day in days]
    found = [day for (one, two), day in zip(pairwise(offsets), days, strict=False) if one != two]
    return found or [datetime(2026, 3, 29, tzinfo=UTC)]


def numbers(field: str, least: int, most: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        low, high = (least, most) if span == "*" else (int(first), int(last or first))
        found.update(range(low, high + 1, int(step or 1)))
    return found


class Oracle:
    """The five fields, and what a walk through the minutes makes of them."""

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        minute, hour, day, month, weekday = expression.split()
        self.minutes, self.hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
        self.days, self.months = numbers(day, 1, 31), numbers(month, 1, 12)
        self.weekdays = {number % 7 for number in numbers(weekday, 0, 7)}
        self.any_day = day.startswith("*") or weekday.startswith("*")
        self.by_the_clock = not minute.startswith("*") and not hour.startswith("*")
        self.zone = zone

    def matches(self, local: datetime) -> bool:
        day, weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        if local.minute not in self.minutes or local.hour not in self.hours or local.month not in self.months:
            return False
        return (day and weekday) if self.any_day else (day or weekday)

    def firings(self, start: datetime, end: datetime) -> list[datetime]:
        """Behind `start`, up to `end`."""
        found: list[datetime] = []
        furthest = self.local(start - DAY)  # the latest local time that clocks have shown
        moment = start - DAY
        while moment < end:
            moment += MINUTE
            local = self.local(moment)
            if not self.by_the_clock:
                fires = self.matches(local)
            else:
                passed = (furthest + n * MINUTE for n in range(1, (local - furthest) // MINUTE + 1))
                fires = any(self.matches(each) for each in passed)
                furthest = max(furthest, local)
            if fires and moment > start:
                found.append(moment)
        return found

    def local(self, moment: datetime) -> datetime:
        return moment.astimezone(self.zone).replace(tzinfo=None, fold=0)


minutes = st.sampled_from(["*", "*/15", "*/7", "0", "30", "5,35", "0-10/5", "15", "59"])
hours = st.sampled_from(["*", "*/2", "*/3", "0", "1", "2", "3", "23", "0,2", "1-3", "0-23/2"])
days = st.sampled_from(["*", "*", "*", "1", "4", "24-31", "*/2"])
weekdays = st.sampled_from(["*", "*", "*", "0", "5", "0,6"])
expressions = st.builds(lambda *fields: " ".join(fields), minutes, hours, days, st.just("*"), weekdays)


@few(40)
@given(st.sampled_from(ZONES), st.integers(0, 60), expressions, st.integers(0, 59))
@example("Africa/Cairo", 0, "0 */2 * * 5", 0)
@example("America/Havana", 0, "* 0 * * 0", 0)
@example("Australia/Lord_Howe", 1, "15 */3 * * 0", 0)
@example("Australia/Lord_Howe", 0, "30 * * * *", 0)
@example("Australia/Lord_Howe", 1, "0 */2 * * *", 0)
def test_a_cron_fires_when_a_walk_through_the_minutes_says_so(
    name: str, which: int, expression: str, second: int
) -> None:
    zone, known = ZoneInfo(name), changes(name)
    change = known[which % len(known)]
    start, end = change - timedelta(hours=12), change + timedelta(hours=48)
    cron = Cron(expression, zone)
    expected = Oracle(expression, zone).firings(start, end)
    told, now = [], start
    while (following := cron.following(now)) is not None and following <= end:
        told.append(following)
        now = following
    assert told == expected
    for one, two in pairwise(expected):  # wherever one stands
        between = min(one + timedelta(seconds=second), two - timedelta(seconds=1))
        assert (cron.latest(between), cron.latest(one), cron.following(between)) == (one, one, two)
