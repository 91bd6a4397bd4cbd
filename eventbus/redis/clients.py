"""redis-py's client, for what is on no hot path. It is closed when it is left, whoever is cancelled meanwhile."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError


@asynccontextmanager
async def client_of(url: str, *, retries: int, **options: Any) -> AsyncIterator[Redis]:
    """`retries`: how often a lost connection is tried again at once. `options` are those of redis-py's connections.
    What is asked raises RedisError or OSError."""
    # What redis-py would tell of itself, it looks up on disk, for each connection.
    pool: _Pool = _Pool.from_url(url, protocol=2, driver_info=None, retry=Retry(NoBackoff(), retries), **options)
    try:
        with _lost_connections():
            yield Redis(connection_pool=pool)
    finally:
        await pool.cut()


@contextmanager
def _lost_connections() -> Iterator[None]:
    """uvloop says with a RuntimeError that the other side has hung up meanwhile; here that is an OSError."""
    try:
        yield
    except RuntimeError as error:
        if "handler is closed" not in str(error):
            raise
        raise ConnectionError(str(error)) from error


class _Pool(ConnectionPool):
    """redis-py closes the connections of a pool in tasks of their own. If all tasks are cancelled, as at the end of a
    loop, these never begin, and the sockets stay open: uvloop warns of each, and if warnings are errors waits for it
    for ever."""

    def __init__(self, **options: Any) -> None:
        self._made: list[AbstractConnection] = []
        super().__init__(**options)

    def make_connection(self) -> AbstractConnection:
        connection: AbstractConnection = super().make_connection()  # type: ignore[no-untyped-call]
        self._made.append(connection)
        return connection

    async def cut(self) -> None:
        """Nothing is waited for: neither a server that is away, nor a turn of the loop. That one which broke cannot be
        closed must neither keep the others open, nor stand in the place of what is on its way through here."""
        for connection in self._made:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
