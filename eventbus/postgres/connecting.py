"""Opening sessions, straight or through a pooler such as PgBouncer.

A pooler in transaction mode gives each transaction to another session of the server. What outlives a transaction does
not work there: prepared statements with names, locks and settings of the session, LISTEN. So behind a pooler statements
have no names, each that stands alone is a transaction, and settings are made inside of it. That works in every mode.

Whether there is a pooler is seen from the process id: a server tells its own at login, and a pooler makes one up.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from eventbus.checks.addresses import show_url, url_fault
from eventbus.errors import ConfigurationError
from eventbus.postgres.driver import HonestConnection

SCHEMES = ("postgresql", "postgres")
CACHE = 100  # statements that are kept prepared in a session, where that works
PROBE_TIMEOUT = 5.0  # seconds


class PooledConnection(HonestConnection):
    """Behind a pooler. A statement alone takes two messages, which must reach the same session: it gets a transaction
    of its own. One without arguments that is executed is a single message, and needs none."""

    __slots__ = ("begin_with",)

    begin_with: str
    """Statements with which each transaction begins."""

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        if query.startswith("BEGIN") and not args:
            query += getattr(self, "begin_with", "")
        elif args and not self.is_in_transaction():
            async with self.transaction():
                return await super().execute(query, *args, timeout=timeout)
        return await super().execute(query, *args, timeout=timeout)

    async def executemany(self, command: str, args: Iterable[Sequence[Any]], **options: Any) -> None:
        if self.is_in_transaction():
            return await super().executemany(command, args, **options)
        async with self.transaction():
            return await super().executemany(command, args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> list[Any]:
        if self.is_in_transaction():
            return list(await super().fetch(query, *args, **options))
        async with self.transaction():
            return list(await super().fetch(query, *args, **options))

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        if self.is_in_transaction():
            return await super().fetchrow(query, *args, **options)
        async with self.transaction():
            return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        if self.is_in_transaction():
            return await super().fetchval(query, *args, **options)
        async with self.transaction():
            return await super().fetchval(query, *args, **options)

    async def copy_records_to_table(self, table_name: str, **options: Any) -> str:
        if self.is_in_transaction():
            return str(await super().copy_records_to_table(table_name, **options))
        async with self.transaction():
            return str(await super().copy_records_to_table(table_name, **options))


class Connector:
    """Opens sessions with one server. It remembers whether a pooler was in between: usually that stays so.

    cache   statements that a session keeps prepared; None: CACHE, and none behind a pooler
    schema  the only one in which tables are looked for; None leaves the server's search_path
    """

    def __init__(self, dsn: str, *, cache: int | None = None, schema: str | None = None) -> None:
        self._dsn = dsn
        self._cache = cache
        self._path = None if schema is None else f"SET {{}} search_path = {quoted(schema)};"
        self.pooled = False

    def check(self) -> None:
        """Raises ConfigurationError for what is no URL, in words of our own: asyncpg's quote passwords."""
        if (fault := url_fault(self._dsn, SCHEMES, hosts=True)) is not None:
            raise ConfigurationError(f"{show_url(self._dsn)!r} is not a PostgreSQL URL: {fault}")

    async def __call__(self, *_args: object, **options: Any) -> HonestConnection:
        """As asyncpg.connect, for a pool as well. Raises ConfigurationError for a URL that asks for what the server
        does not have."""
        connection = await self._open(options)
        try:
            pooled = await _behind_pooler(connection)
            if pooled is not self.pooled:
                self.pooled = pooled
                await connection.close(timeout=PROBE_TIMEOUT)
                connection = await self._open(options)
            # Any connection is an instance of any class of them, to asyncpg.
            if self._path is not None and type(connection) is PooledConnection:
                connection.begin_with = self._path.format("LOCAL")
            elif self._path is not None:
                await connection.execute(self._path.format("SESSION"), timeout=PROBE_TIMEOUT)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _open(self, options: dict[str, Any]) -> HonestConnection:
        cache = self._cache if self._cache is not None else 0 if self.pooled else CACHE
        kind = PooledConnection if self.pooled else HonestConnection
        fixed = {"dsn": self._dsn, "statement_cache_size": cache, "connection_class": kind}
        try:
            connection: HonestConnection = await asyncpg.connect(**{**options, **fixed})
        except (asyncpg.UndefinedObjectError, asyncpg.CantChangeRuntimeParamError) as error:
            raise _unknown_parameter(error) from error
        except asyncpg.ProtocolViolationError as error:  # all that a pooler has to say
            if "startup parameter" in str(error):
                raise _unknown_parameter(error) from error
            raise
        return connection


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


async def _behind_pooler(connection: asyncpg.Connection) -> bool:
    """One message, because a pooler may send the next one elsewhere."""
    mine = f"SELECT WHERE pg_backend_pid() = {connection.get_server_pid()}"
    return bool(await connection.execute(mine, timeout=PROBE_TIMEOUT) != "SELECT 1")


def _unknown_parameter(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"the database's URL has a parameter that the server does not take: {error}. Sizes of the pool and of the "
        "statement cache are set by EVENTBUS_DATABASE_POOL and EVENTBUS_DATABASE_STATEMENT_CACHE"
    )
