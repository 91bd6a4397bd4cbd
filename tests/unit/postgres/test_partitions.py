"""Which errors of partitions mean that others are in the way."""

import asyncpg
import pytest

from eventbus.postgres.partitions import is_busy


@pytest.mark.parametrize(
    ("error", "busy"),
    [
        (asyncpg.LockNotAvailableError("x"), True),
        (asyncpg.DeadlockDetectedError("x"), True),
        (asyncpg.SerializationError("x"), True),
        (asyncpg.InsufficientPrivilegeError("x"), False),
        (ValueError("x"), False),
    ],
)
def test_others_are_in_the_way(error: Exception, busy: bool) -> None:
    assert is_busy(error) is busy
