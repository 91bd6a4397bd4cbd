"""The lock of the one relay that is at work, and that of a relay that sleeps.

They are held in an open transaction, not by a session: so they work through a pooler in any mode, which keeps a session
of the server for a transaction that is open. It reads nothing and writes nothing, and holds no vacuum back.

The server ends it if it is not kept alive: a host that vanishes says no goodbye, and would hold the lock for hours.
"""

import time

import asyncpg

from eventbus.postgres.outbox import ASLEEP

KEEP = 5.0  # seconds after which it is kept alive
LEASE = 60.0  # seconds for which the server waits for that; more than a statement of the relay may take

# The high half of the lock's number; the low half is the oid of the outbox' table. So it is with ASLEEP.
RELAY = 0x6576_0002_0000_0000
# What relays of former builds hold, for all outboxes of a database. Those of this build share it, so that one of the
# former builds and one of this do not work at the same time.
_FORMER = 0x6576_6275_7302

# READ COMMITTED, whatever the login's default is: another level would keep a snapshot, and vacuum would wait for it.
_BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;"
    f" SET LOCAL idle_in_transaction_session_timeout = '{LEASE:.0f}s';"
    " SET LOCAL tcp_keepalives_idle = 5; SET LOCAL tcp_keepalives_interval = 2; SET LOCAL tcp_keepalives_count = 3;"
)
_NO_END = " SET LOCAL transaction_timeout = 0;"  # PostgreSQL 17
_TRY = "SELECT pg_try_advisory_xact_lock_shared($1) AND pg_try_advisory_xact_lock($2)"


class RelayLock:
    """On a connection that is used for nothing else. `outbox`: the oid of its table."""

    def __init__(self, connection: asyncpg.Connection, outbox: int) -> None:
        self._connection = connection
        self._outbox = outbox
        self._spoke = time.monotonic()

    async def acquire(self) -> bool:
        """Whether it is ours now: nobody else held it."""
        no_end = _NO_END if self._connection.get_server_version().major >= 17 else ""
        await self._connection.execute(_BEGIN + no_end)
        self._spoke = time.monotonic()
        if await self._connection.fetchval(_TRY, _FORMER, RELAY + self._outbox):
            return True
        await self._connection.execute("ROLLBACK")
        return False

    async def keep(self) -> None:
        """To be called again and again while it is held. Raises if it is lost."""
        if time.monotonic() - self._spoke > KEEP:
            await self.prove()

    async def prove(self) -> None:
        """Raises if it is not held any more: another relay may be at work by now."""
        self._spoke = time.monotonic()
        await self._connection.execute("SELECT 1")

    async def fall_asleep(self) -> bool:
        """Whether those who commit will notify from now on. If not, one who does not is at it."""
        await self._connection.execute("SAVEPOINT asleep")
        if await self._connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", ASLEEP + self._outbox):
            return True
        await self.awake()
        return False

    async def awake(self) -> None:
        """Nobody need notify any more."""
        await self._connection.execute("ROLLBACK TO SAVEPOINT asleep; RELEASE SAVEPOINT asleep")
