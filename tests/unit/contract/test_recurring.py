"""When recurring functions fire: the same moments, and the same ids, in every process."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from eventbus.context import Context
from eventbus.contract.recurring import Cron, Every, Recurring, Schedule, Tick
from eventbus.errors import ConfigurationError
from eventbus.event import Event, event_class, unix_ms
from eventbus.group import Group

BERLIN = "Europe/Berlin"
GAP, REPEATED = datetime(2024, 3, 31, 1, tzinfo=UTC), datetime(2024, 10, 27, 1, tzinfo=UTC)  # when clocks are set
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def local(schedule: Schedule, since: datetime, count: int) -> list[str]:
    """The next moments, as a clock on the wall shows them."""
    shown, moment = [], since
    for _ in range(count):
        following = schedule.following(moment)
        assert following is not None
        moment = following
        shown.append(moment.astimezone(ZoneInfo(BERLIN)).strftime("%d. %H:%M %Z"))
    return shown


def test_every_so_often_means_multiples_since_the_epoch() -> None:
    schedule = Every(timedelta(seconds=90))
    assert schedule.latest(datetime(1970, 1, 1, 0, 4, tzinfo=UTC)) == datetime(1970, 1, 1, 0, 3, tzinfo=UTC)
    assert schedule.following(datetime(1970, 1, 1, 0, 3, tzinfo=UTC)) == datetime(1970, 1, 1, 0, 4, 30, tzinfo=UTC)


def test_cron_follows_the_clock_on_the_wall() -> None:
    assert local(Cron.of("0 6 * * *", BERLIN), GAP - timedelta(days=1, hours=1), 3) == [
        "30. 06:00 CET",
        "31. 06:00 CEST",
        "01. 06:00 CEST",
    ]


def test_a_moment_that_clocks_skip_comes_after_the_gap_once() -> None:
    since = GAP - timedelta(hours=12)
    assert local(Cron.of("30 2 * * *", BERLIN), since, 2) == ["31. 03:00 CEST", "01. 02:30 CEST"]
    assert local(Cron.of("15,45 2 * * *", BERLIN), since, 2) == ["31. 03:00 CEST", "01. 02:15 CEST"]
    assert local(Cron.of("*/30 * * * *", BERLIN), GAP - timedelta(hours=1), 3) == [
        "31. 01:30 CET",
        "31. 03:00 CEST",
        "31. 03:30 CEST",
    ]


def test_a_moment_that_comes_twice_counts_the_first_time() -> None:
    since = REPEATED - timedelta(hours=3)
    assert local(Cron.of("30 2 * * *", BERLIN), since, 2) == ["27. 02:30 CEST", "28. 02:30 CET"]
    assert local(Cron.of("30 * * * *", BERLIN), since + timedelta(hours=2), 3) == [
        "27. 02:30 CEST",
        "27. 02:30 CET",
        "27. 03:30 CET",
    ]
    assert local(Cron.of("0 30 2 * * *", BERLIN), since, 2) == ["27. 02:30 CEST", "27. 02:30 CET"]


@pytest.mark.parametrize(
    "schedule",
    [
        Every(timedelta(seconds=7)),
        Every(timedelta(seconds=0.1)),
        *(
            Cron.of(expression, BERLIN)
            for expression in (
                "30 2 * * *",
                "15,45 2 * * *",
                "*/7 1-4 * * *",
                "0 30 2 * * *",
                "0 */2 * * *",
                "0 0 1 * *",
            )
        ),
    ],
    ids=str,
)
def test_before_and_after_meet_wherever_one_stands(schedule: Schedule) -> None:
    for _ in range(60):
        now = random.choice([GAP, REPEATED]) + timedelta(seconds=random.randint(-90_000, 90_000) / 2)
        latest, following = schedule.latest(now), schedule.following(now)
        assert latest is not None, now
        assert following is not None, now
        assert latest <= now < following, now
        assert schedule.latest(following) == following, now
        assert schedule.following(latest) == following, now


@pytest.mark.parametrize("expression", ["", "* * * *", "61 * * * *", "0 0 30 2 *", "a b c d e", "0 0 31 2 mon#6"])
def test_what_is_no_cron_expression_is_refused(expression: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is no cron expression|never fires"):
        Cron.of(expression, "UTC")


def test_other_faults_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no time zone 'Mars/Olympus'"):
        Cron.of("* * * * *", "Mars/Olympus")
    for endless in (1e300, float("inf"), float("nan")):
        with pytest.raises(ConfigurationError, match="period="):
            Group("gardener").every(endless)
    for period in (0.0, 0.05, -1.0, 0.1001, 4e8):
        with pytest.raises(ConfigurationError, match=r"at least 0\.1 seconds, in whole milliseconds"):
            Every(timedelta(seconds=period))
    with pytest.raises(ConfigurationError, match="catch_up=0"):
        Recurring.of("gardener", "water", Every(timedelta(seconds=1)), 0)


# What is owed ---------------------------------------------------------------------------------------------------------


def owed(last: datetime, now: datetime, catch_up: float = 60.0) -> datetime | None:
    return Recurring.of("gardener", "prune", Every(timedelta(seconds=10)), catch_up).owed(last, now)


def test_the_last_missed_firing_is_owed_if_it_is_young_enough() -> None:
    assert owed(NOON, NOON + timedelta(seconds=9.9)) is None
    assert owed(NOON, NOON + timedelta(seconds=10)) == NOON + timedelta(seconds=10)
    assert owed(NOON, NOON + timedelta(hours=5, seconds=3)) == NOON + timedelta(hours=5)
    assert owed(NOON, NOON + timedelta(seconds=19), catch_up=9.0) == NOON + timedelta(seconds=10)
    assert owed(NOON, NOON + timedelta(seconds=19), catch_up=8.0) is None
    assert owed(NOON + timedelta(days=1), NOON) is None, "a clock that was set back fires nothing twice"


def test_a_firing_has_the_same_id_everywhere_and_no_other_has_it() -> None:
    schedule = Every(timedelta(seconds=1))
    ids = [
        Recurring.of(group, name, schedule, 60.0).event_id(due)
        for group, name in (("a", "b"), ("a", "c"), ("b", "c"))
        for due in (NOON, NOON + timedelta(milliseconds=1))
    ]
    assert len(set(ids)) == 6
    assert ids[0] == Recurring.of("a", "b", schedule, 1.0).event_id(NOON) == "018f3406-9e00-7fdf-86d4-4ceec8656b52"
    assert {(UUID(i).version, UUID(i).variant) for i in ids} == {(7, "specified in RFC 4122")}
    assert unix_ms(ids[0]) == NOON.timestamp() * 1000


# In a group -----------------------------------------------------------------------------------------------------------


async def water(tick: Tick, ctx: Context) -> None:
    return


def test_a_group_may_consist_of_what_recurs() -> None:
    group = Group("night-shift")
    assert group.every(2.5)(water) is water
    assert group.cron("0 6 * * *", tz=BERLIN, name="dawn", catch_up=5)(water) is water
    assert [(r.name, r.catch_up, r.schedule) for r in group.recurring] == [
        ("water", 3600.0, Every(timedelta(seconds=2.5))),
        ("dawn", 5, Cron("0 6 * * *", ZoneInfo(BERLIN))),
    ]
    assert {name: registration.handler for name, registration in group.handlers.items()} == {
        "tick_night_shift.water": water,
        "tick_night_shift.dawn": water,
    }
    assert group.streams == ["tick_night_shift"]
    assert issubclass(event_class("tick_night_shift.dawn"), Tick)


def test_what_would_be_taken_for_something_else_is_refused() -> None:
    group = Group("day-shift")
    group.every(1)(water)
    with pytest.raises(ConfigurationError, match=r"day-shift already handles tick_day_shift\.water"):
        group.cron("* * * * *")(water)
    with pytest.raises(ConfigurationError, match=r"type 'tick_day_shift\.Water'"):
        group.every(1, name="Water")(water)
    with pytest.raises(ConfigurationError, match=r"'tick_day_shift\.water' is already taken"):
        Group("day.shift").every(1)(water)
    Group("day-shift").every(1)(water)


def test_a_plain_function_and_a_handler_of_other_events_are_told_apart() -> None:
    def plain(tick: Event, ctx: Context) -> None:
        return

    with pytest.raises(ConfigurationError, match="must be an async function"):
        Group("farm").every(1)(plain)  # type: ignore[arg-type]
