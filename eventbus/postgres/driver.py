"""The errors that asyncpg raises, whether they mean that the server failed, and one error that asyncpg leaves out."""

import asyncio

import asyncpg
from asyncpg.pool import PoolConnectionProxy

PROBE_TIMEOUT = 1.0  # seconds

# asyncpg's errors have no root in common. An InternalClientError comes to a caller who asks in the moment between the
# server's farewell ("terminating connection …") and the end of the connection.
ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
# PostgreSQL is there but going down, coming up, or has no connection left.
_NOT_READY = (asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError)
# What connecting raises when there is nobody to connect to.
AWAY = (
    *(OSError, TimeoutError, asyncpg.InternalClientError),
    *(asyncpg.PostgresConnectionError, asyncpg.TooManyConnectionsError, *_NOT_READY),
)
# The transaction is rolled back because of another at the same time; done again as a whole it may succeed.
CONFLICTS = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


class HonestConnection(asyncpg.Connection):
    """Raises InFailedSQLTransactionError when a COMMIT has rolled back: if an error inside a transaction was swallowed,
    PostgreSQL answers COMMIT with ROLLBACK, and asyncpg does not look at the answer."""

    __slots__ = ()

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        status: str = await super().execute(query, *args, timeout=timeout)
        if status == "ROLLBACK" and query == "COMMIT;":
            raise asyncpg.InFailedSQLTransactionError("an error inside was swallowed: nothing has committed")
        return status


async def broken(connection: PoolConnectionProxy, error: Exception) -> bool:
    """Whether it was the server that failed. A frozen server leaves the connection open and answers nothing: where the
    error leaves that possible, the connection is probed, and cut if no answer comes."""
    if is_closed(connection) or isinstance(error, _NOT_READY):
        return True
    if isinstance(error, asyncpg.OutdatedSchemaCacheError):  # a table was altered; the connection is sound
        return False
    if not isinstance(error, (TimeoutError, asyncpg.InternalClientError)):
        return False
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            await connection.execute("SELECT 1")
    except ERRORS:
        connection.terminate()
        return True
    return False


def is_closed(connection: PoolConnectionProxy) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # it broke, and the pool has taken it back already
        return True
