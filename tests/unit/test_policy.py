"""Whether to try again, and when."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus.errors import ConfigurationError, Reject
from eventbus.policy import Backoff, RetryPolicy


def test_exponential_backoff_doubles() -> None:
    assert [Backoff.exponential(2.0).delay(n) for n in (1, 2, 3, 4)] == [2, 4, 8, 16]
    assert [Backoff.exponential(1.0, factor=3.0).delay(n) for n in (1, 2, 3)] == [1, 3, 9]


def test_fixed_backoff_stays() -> None:
    assert [Backoff.fixed(5.0).delay(n) for n in (1, 2, 50)] == [5, 5, 5]


def test_a_cap_ends_the_growth() -> None:
    assert [Backoff.exponential(1.0, cap=5.0).delay(n) for n in (1, 2, 3, 4, 10_000)] == [1, 2, 4, 5, 5]


@given(st.floats(0, 1e6), st.floats(1, 10), st.integers(1, 10_000), st.booleans())
def test_every_wait_is_a_bounded_number_of_seconds(first: float, factor: float, failures: int, jitter: bool) -> None:
    assert 0 <= Backoff(first, factor, jitter=jitter).delay(failures) <= 86_400
    assert math.isfinite(Backoff(first, factor).delay(failures))


def test_jitter_spreads_over_the_upper_half() -> None:
    backoff = Backoff.exponential(2.0, jitter=True)
    waits = [backoff.delay(2) for _ in range(500)]
    assert 2 <= min(waits) < 2.2
    assert 3.8 < max(waits) <= 4


@pytest.mark.parametrize(
    "fields",
    [
        (-1.0,),
        (1.0, 0.5),
        (1.0, 2.0, -1.0),
        (math.nan,),
        (math.inf,),
        (1.0, math.nan),
        (1e300,),
        (1.0, math.inf),
        (1.0, 2.0, 1e300),
        (1.0, 2.0, math.nan),
    ],
)
def test_a_backoff_that_cannot_work_is_refused(fields: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        Backoff(*fields)


def test_attempts_count_the_first_one() -> None:
    policy = RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0))
    assert [policy.delay_after(failures) for failures in (1, 2, 3, 4)] == [2, 4, None, None]
    assert RetryPolicy(attempts=1).delay_after(1) is None


def test_without_a_number_of_attempts_it_goes_on_for_ever() -> None:
    assert RetryPolicy(attempts=None, backoff=Backoff.fixed(60.0)).delay_after(1_000_000) == 60


def test_no_attempts_at_all_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        RetryPolicy(attempts=0)


def test_the_default_gives_up_after_five() -> None:
    policy = RetryPolicy()
    waits = [policy.delay_after(failures) for failures in range(1, 6)]
    assert waits[4] is None
    assert all(wait is not None and 0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(waits[:4]))


# By kind of error -----------------------------------------------------------------------------------------------------


def tried(error: BaseException, **kinds: Any) -> bool:
    return RetryPolicy(**kinds).delay_after(1, error) is not None


def test_without_kinds_everything_is_tried_again() -> None:
    assert tried(ValueError())
    assert tried(SystemExit())


def test_what_is_dead_lettered_is_never_tried_again_and_neither_are_its_subclasses() -> None:
    assert not tried(LookupError(), dead_letter_on=(LookupError,))
    assert not tried(KeyError(), dead_letter_on=(LookupError,))
    assert tried(ValueError(), dead_letter_on=(LookupError,))


def test_with_kinds_to_retry_only_these_are_tried_again() -> None:
    assert tried(ConnectionResetError(), retry_on=(OSError, KeyError))
    assert tried(KeyError(), retry_on=(OSError, KeyError))
    assert not tried(LookupError(), retry_on=(OSError, KeyError))


@pytest.mark.parametrize(
    ("kinds", "error", "expected"),
    [
        ({"dead_letter_on": (LookupError,), "retry_on": (KeyError,)}, KeyError(), True),
        ({"dead_letter_on": (LookupError,), "retry_on": (KeyError,)}, IndexError(), False),
        ({"dead_letter_on": (KeyError,), "retry_on": (LookupError,)}, KeyError(), False),
        ({"dead_letter_on": (KeyError,), "retry_on": (LookupError,)}, IndexError(), True),
    ],
)
def test_the_nearest_class_decides(kinds: dict[str, Any], error: Exception, expected: bool) -> None:
    assert tried(error, **kinds) is expected


def test_the_nearest_class_has_its_backoff() -> None:
    fixed = Backoff.fixed
    policy = RetryPolicy(
        backoff=fixed(1.0), backoff_on={OSError: fixed(2.0), ConnectionError: fixed(3.0), Exception: fixed(4.0)}
    )
    errors = [ConnectionResetError(), TimeoutError(), ValueError(), SystemExit(), None]
    assert [policy.delay_after(1, error) for error in errors] == [3, 2, 4, 1, 1]
    growing = RetryPolicy(backoff_on={ValueError: Backoff.exponential(2.0)})
    assert [growing.delay_after(failures, ValueError()) for failures in (1, 2, 3)] == [2, 4, 8]


def test_no_kind_is_tried_more_often_than_there_are_attempts() -> None:
    policy = RetryPolicy(attempts=2, retry_on=(ValueError,), backoff_on={ValueError: Backoff.fixed(1.0)})
    assert policy.delay_after(1, ValueError()) == 1
    assert policy.delay_after(2, ValueError()) is None


@pytest.mark.parametrize(
    ("kinds", "fault"),
    [
        (
            {"retry_on": ValueError},
            r"retry_on=<class 'ValueError'> must be a tuple of exception classes: \(ValueError,",
        ),
        ({"retry_on": ("ValueError",)}, "retry_on: 'ValueError' is no exception class"),
        ({"dead_letter_on": (ValueError(),)}, r"dead_letter_on: ValueError\(\) is no exception class"),
        ({"backoff_on": {int: Backoff.fixed(1.0)}}, "backoff_on: <class 'int'> is no exception class"),
        ({"dead_letter_on": (ExceptionGroup,)}, "of ExceptionGroup the exceptions inside are judged"),
        ({"retry_on": (Reject,)}, "retry_on: Reject says itself"),
        ({"retry_on": (ValueError, KeyError), "dead_letter_on": (KeyError,)}, "KeyError in retry_on and in dead_lett"),
        ({"dead_letter_on": (KeyError,), "backoff_on": {KeyError: Backoff.fixed(1.0)}}, "KeyError in backoff_on, but"),
        ({"attempts": 0, "retry_on": (3,)}, "attempts=0 must be at least 1.*; retry_on: 3 is no exception class"),
    ],
)
def test_kinds_that_cannot_work_are_refused(kinds: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        RetryPolicy(**kinds)
