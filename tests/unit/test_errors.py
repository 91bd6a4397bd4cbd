"""The tree of errors, and what their texts must not show."""

import pytest

from eventbus import errors
from eventbus.errors import LONGEST_DELAY, EventBusError, RetryLater, SnoozeFor, Unavailable, hide_password


def test_all_errors_have_one_root() -> None:
    found = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert all(issubclass(error, EventBusError) for error in found)
    drawn = errors.__doc__ or ""
    assert all(error.__name__ in drawn for error in found)


def test_unavailable_says_who_and_why() -> None:
    error = Unavailable("Redis at redis://localhost", "connection refused")
    assert str(error) == "Redis at redis://localhost is unavailable: connection refused"
    assert (error.server, error.detail) == ("Redis at redis://localhost", "connection refused")


def test_retry_later_says_when() -> None:
    assert str(RetryLater(2.5)) == "the handler asked to be tried again in 2.5 s"
    assert (str(RetryLater(2.5, "closed")), RetryLater(2.5).delay) == ("closed", 2.5)


@pytest.mark.parametrize("verdict", [RetryLater, SnoozeFor])
@pytest.mark.parametrize("delay", [-0.1, float("inf"), float("nan"), LONGEST_DELAY + 1, 1e306, 1.7e308, 10**400])
def test_a_verdict_refuses_what_is_no_time_or_too_long(verdict: type[RetryLater | SnoozeFor], delay: float) -> None:
    with pytest.raises(ValueError, match="seconds from now"):
        verdict(delay)
    assert verdict(LONGEST_DELAY).delay == LONGEST_DELAY


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user@localhost", "redis://user@localhost"),
        ("redis://:pw@localhost", "redis://:***@localhost"),
        ("redis://user:p:w@localhost:1/2", "redis://user:***@localhost:1/2"),
        ("redis://user:p@w@localhost", "redis://user:***@localhost"),
        ("redis://:pw@[::1", "redis://:***@[::1"),
        ("unix:///run/redis.sock?db=1&password=pw", "unix:///run/redis.sock?db=1&password=***"),
        ("rediss://h?ssl_password=pw&password=pw", "rediss://h?ssl_password=***&password=***"),
        ("postgresql://me:pw@h/db and redis://:pw@h/0", "postgresql://me:***@h/db and redis://:***@h/0"),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert hide_password(url) == shown
