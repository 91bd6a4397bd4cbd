"""How far a group reads ahead."""

from eventbus.consuming.prefetch import HORIZON, Pace


def ended(pace: Pace, per_second: float, seconds: float, *, start: float = 0.0) -> int:
    """What it says after events have ended at this rate."""
    step, now, carried, ahead = HORIZON, start, 0.0, pace.measure(start)
    while now < start + seconds:
        now += step
        carried += per_second * step
        pace.ended += int(carried)
        carried -= int(carried)
        ahead = pace.measure(now)
    return ahead


def test_nothing_is_read_ahead_before_anything_has_ended() -> None:
    pace = Pace(100)
    assert pace.measure(0.0) == 0
    assert pace.measure(10.0) == 0


def test_a_group_reads_ahead_what_it_gets_through_within_the_horizon() -> None:
    assert 45 <= ended(Pace(100), 5_000, 1.0) <= 50
    assert ended(Pace(100), 50, 2.0) == 0, "handlers of a second have nobody waiting behind them"


def test_it_reads_ahead_no_more_than_it_runs_at_a_time() -> None:
    assert ended(Pace(20), 50_000, 1.0) == 20


def test_a_pace_of_long_ago_counts_no_more() -> None:
    pace = Pace(100)
    assert ended(pace, 20_000, 1.0) == 100
    assert pace.measure(60.0) == 0, "nothing has ended for a minute"
