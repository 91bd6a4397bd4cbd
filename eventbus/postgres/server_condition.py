"""Whether PostgreSQL is away, told once; and why it ended a session."""

import time

import asyncpg

from eventbus.errors import Unavailable
from eventbus.postgres import driver
from eventbus.process.safe_logging import get_logger

QUIET = 3.0  # seconds without trouble after which a server that had trouble with writes is back
_ASK_TIMEOUT = 2.0  # seconds

# A session that this limit has ended was told so while nobody asked it anything, and asyncpg does not hand that on.
_LIMITS = """
SELECT name, setting::float8 / 1000 AS seconds FROM pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'idle_session_timeout')
  AND setting::bigint > 0 AND setting::float8 / 1000 <= $1
  AND now() - pg_postmaster_start_time() > make_interval(secs => $1)
ORDER BY name LIMIT 1
"""

log = get_logger("eventbus.postgres")


class ServerCondition:
    """One line when PostgreSQL goes away and one when it is back, however many callers try meanwhile."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._back_at: float | None = None  # while it is away: when a connection without trouble says that it is back

    def away(self, detail: str, *, lost: bool = False, writes: bool = False) -> Unavailable:
        """`writes`: it is there, and takes no writes. A connection that is used for reading does not say that it is
        back, as long as there was trouble a moment ago."""
        if self._back_at is None:
            log.warning("postgresql is away", server=self._server, reason=detail)
        self._back_at = time.monotonic() + (QUIET if writes else 0.0)
        return Unavailable(self._server, detail, lost=lost)

    def well(self) -> None:
        """A connection was used and had no trouble."""
        if self._back_at is not None and time.monotonic() >= self._back_at:
            log.info("postgresql is back", server=self._server)
            self._back_at = None


async def why_ended(pool: asyncpg.Pool, error: BaseException, seconds: float) -> str | None:
    """Why the server ended a session that was used for so long, if that is the doing of its user; None if it is not,
    or nobody knows."""
    if told := driver.own_fault(error):
        return f"{told} ({told.sqlstate})"
    if not isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError)):
        return None  # a statement was under way: the session did not stand idle
    try:
        async with pool.acquire(timeout=_ASK_TIMEOUT) as connection:
            limit = await connection.fetchrow(_LIMITS, seconds, timeout=_ASK_TIMEOUT)
    except driver.ERRORS:
        return None
    if limit is None:
        return None
    return f"its transaction was open for {seconds:.1f} s and stood idle, and {limit['name']} is {limit['seconds']:g} s"
