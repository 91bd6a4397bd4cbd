"""What becomes of an event, by what its handler raised."""

import pytest

from eventbus.contract.delivery import Dead, Outcome, Release, Retry, Snooze
from eventbus.errors import Reject, RetryLater, SnoozeFor, Unavailable
from eventbus.handling.verdict import UNAVAILABLE_SNOOZE, GivenBack, failure_of, judge, judge_unforeseen
from eventbus.policy import Backoff, RetryPolicy

POLICY = RetryPolicy(
    attempts=3,
    backoff=Backoff.fixed(2.0),
    dead_letter_on=(LookupError,),
    backoff_on={OSError: Backoff.fixed(30.0)},
)
AWAY = Unavailable("PostgreSQL", "gone")


def told(outcome: Outcome) -> tuple[str, float]:
    """Its kind, and how long it waits."""
    return type(outcome).__name__, getattr(outcome, "delay", 0.0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no"), ("Retry", 2.0)),
        (ConnectionResetError(), ("Retry", 30.0)),
        (KeyError("no"), ("Dead", 0.0)),
        (Reject("no"), ("Dead", 0.0)),
        (RetryLater(7.0), ("Retry", 7.0)),
        (SnoozeFor(9.0), ("Snooze", 9.0)),
        (AWAY, ("Snooze", UNAVAILABLE_SNOOZE)),
        (GivenBack(), ("Release", 0.0)),
    ],
)
def test_each_error_has_its_outcome(error: BaseException, expected: tuple[str, float]) -> None:
    assert told(judge(error, POLICY, 1)) == expected


@pytest.mark.parametrize("error", [ValueError("no"), RetryLater(7.0), ConnectionResetError()])
def test_after_the_last_attempt_a_failure_is_a_dead_letter(error: BaseException) -> None:
    assert judge(error, POLICY, 3) == Dead(failure_of(error), attempts=3)


def test_a_snooze_knows_no_last_attempt() -> None:
    assert judge(SnoozeFor(9.0), POLICY, 100) == Snooze(9.0)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([ValueError(), Reject("no"), SnoozeFor(9.0)], ("Dead", 0.0)),
        ([ValueError(), KeyError()], ("Dead", 0.0)),
        ([SnoozeFor(9.0), ValueError()], ("Retry", 2.0)),
        ([RetryLater(7.0), ValueError(), OSError()], ("Retry", 30.0)),
        ([RetryLater(7.0), RetryLater(1.0)], ("Retry", 7.0)),
        ([AWAY, SnoozeFor(9.0)], ("Snooze", 9.0)),
        ([AWAY, AWAY], ("Snooze", UNAVAILABLE_SNOOZE)),
        ([AWAY, GivenBack()], ("Snooze", UNAVAILABLE_SNOOZE)),
        ([GivenBack()], ("Release", 0.0)),
    ],
)
def test_of_a_group_the_most_severe_outcome_holds(errors: list[BaseException], expected: tuple[str, float]) -> None:
    assert told(judge(BaseExceptionGroup("several", errors), POLICY, 1)) == expected
    deep = BaseExceptionGroup("outer", [BaseExceptionGroup("inner", errors)])
    assert told(judge(deep, POLICY, 1)) == expected


def test_a_dead_letter_of_a_group_names_what_decided_and_shows_all() -> None:
    outcome = judge(ExceptionGroup("two tasks", [ValueError("harmless"), Reject("nobody eats that")]), POLICY, 2)
    assert isinstance(outcome, Dead)
    assert outcome.attempts == 2
    assert outcome.failure.error == "ExceptionGroup: two tasks (2 sub-exceptions): Reject: nobody eats that"
    assert "harmless" in outcome.failure.traceback


def test_outcomes_that_wait_are_what_they_say() -> None:
    assert judge(GivenBack(), POLICY, 1) == Release()
    assert judge(ValueError("no"), POLICY, 1) == Retry(2.0, failure_of(ValueError("no")))


class Unfit(RetryLater):
    """A verdict whose author forgot what its base class wants."""

    def __init__(self) -> None:
        pass


class Odd(SnoozeFor):
    def __init__(self, delay: object) -> None:
        self.delay = delay  # type: ignore[assignment]


@pytest.mark.parametrize("error", [Unfit(), Odd("soon"), Odd(float("nan")), Odd(-1), Odd(None)])
def test_a_verdict_that_cannot_be_judged_is_a_failure_like_any_other(error: Exception) -> None:
    first, last = judge(error, POLICY, 1), judge(error, POLICY, 3)
    assert isinstance(first, Retry)
    assert first.delay == 2.0
    assert type(error).__name__ in first.failure.error
    assert isinstance(last, Dead)


def test_what_broke_outside_of_its_handler_is_tried_with_rests_and_dies_in_the_end() -> None:
    first, last = judge_unforeseen(KeyError("x"), 1), judge_unforeseen(KeyError("x"), 5)
    assert isinstance(first, Retry)
    assert first.delay > 0
    assert isinstance(last, Dead)
