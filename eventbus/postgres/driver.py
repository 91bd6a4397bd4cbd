"""The errors that asyncpg raises, whether they mean that the server failed, and one error that asyncpg leaves out."""

import asyncio
from collections.abc import Iterator
from enum import Enum

import asyncpg
from asyncpg.pool import PoolConnectionProxy

PROBE_TIMEOUT = 1.0  # seconds

# asyncpg's errors have no root in common. An InternalClientError comes to a caller who asks in the moment between the
# server's farewell ("terminating connection …") and the end of the connection.
ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
# PostgreSQL is there but going down, or coming up.
_NOT_READY = (asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError)
# It is there and cannot write: no statement and no handler is to blame.
_SPENT = (asyncpg.DiskFullError, asyncpg.OutOfMemoryError, asyncpg.PostgresIOError)
_AWAY_FOR_ALL = (asyncpg.CannotConnectNowError, asyncpg.CrashShutdownError, *_SPENT)
# It may be a standby, or read-only for all. Or the transaction was begun as read-only: see `_refuses_writes`.
_READ_ONLY = {
    *(asyncpg.ReadOnlySQLTransactionError, asyncpg.ObjectNotInPrerequisiteStateError),
    *(asyncpg.InvalidTransactionStateError, asyncpg.FeatureNotSupportedError),
}
# The server ended the session because of what its user did, or failed to do: leave a transaction idle, or open for too
# long.
_OWN_FAULT = (
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.IdleSessionTimeoutError,
)
# What connecting raises when there is nobody to connect to.
AWAY = (
    *(OSError, TimeoutError, asyncpg.InternalClientError),
    *(asyncpg.PostgresConnectionError, asyncpg.TooManyConnectionsError, *_NOT_READY),
)
# The transaction is rolled back because of another at the same time, or of a table that was altered under it; done
# again as a whole it may succeed.
CONFLICTS = (
    *(asyncpg.SerializationError, asyncpg.DeadlockDetectedError),
    *(asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError),
)
# A setting of the session itself was made by whoever uses it.
_REFUSES_WRITES = """
SELECT pg_is_in_recovery() OR EXISTS (
    SELECT FROM pg_settings WHERE name = 'default_transaction_read_only' AND setting = 'on' AND source <> 'session')
"""


class HonestConnection(asyncpg.Connection):
    """Raises InFailedSQLTransactionError when a COMMIT has rolled back: if an error inside a transaction was swallowed,
    PostgreSQL answers COMMIT with ROLLBACK, and asyncpg does not look at the answer."""

    __slots__ = ()

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        status: str = await super().execute(query, *args, timeout=timeout)
        if status == "ROLLBACK" and query == "COMMIT;":
            raise asyncpg.InFailedSQLTransactionError("an error inside was swallowed: nothing has committed")
        return status


class Trouble(Enum):
    """What an error says of the server."""

    NONE = "none"  # the error is the caller's
    LOST = "lost"  # the session is gone, whoever has ended it
    AWAY = "away"  # it goes down, comes up, cannot write, or does not answer


async def trouble(connection: PoolConnectionProxy, error: BaseException) -> Trouble:
    """Whether it was the server that failed. A frozen server leaves the connection open and answers nothing: where the
    error leaves that possible, the connection is probed."""
    if any(isinstance(each, _AWAY_FOR_ALL) for each in _told(error)):
        return Trouble.AWAY
    if is_closed(connection) or isinstance(error, _NOT_READY):
        return Trouble.LOST
    if isinstance(error, asyncpg.OutdatedSchemaCacheError):  # a table was altered; the connection is sound
        return Trouble.NONE
    if type(error) in _READ_ONLY:
        return Trouble.AWAY if await _refuses_writes(connection) else Trouble.NONE
    # Class 08 comes of poolers too, which then hang up.
    if isinstance(error, (TimeoutError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError)):
        return Trouble.NONE if await _answers(connection) else Trouble.AWAY
    return Trouble.NONE


def own_fault(error: BaseException | None) -> asyncpg.PostgresError | None:
    """The error by which the server said that it ended the session for what its user did."""
    return next((each for each in _told(error) if isinstance(each, _OWN_FAULT)), None)


def _told(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what led to it: asyncpg hands on what a server said last as the cause of another error."""
    while error is not None:
        yield error
        error = error.__cause__


async def _answers(connection: PoolConnectionProxy) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            await connection.execute("SELECT 1")
    except ERRORS:
        return False
    return True


async def _refuses_writes(connection: PoolConnectionProxy) -> bool:
    """Whether it is the server that takes no writes, and not this transaction alone. One that does not answer takes
    none either."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            return bool(await connection.fetchval(_REFUSES_WRITES))
    except ERRORS:
        return True


def is_closed(connection: PoolConnectionProxy) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # it broke, and the pool has taken it back already
        return True
