"""When to try again."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus.errors import ConfigurationError
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


@pytest.mark.parametrize("fields", [(-1.0,), (1.0, 0.5), (1.0, 2.0, -1.0), (math.nan,), (math.inf,), (1.0, math.nan)])
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
