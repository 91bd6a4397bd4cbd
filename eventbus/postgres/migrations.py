"""Plain SQL files, applied once, in order, by one process at a time.

A migration is known by `source/file name` and the checksum of its text. A file that changed after it was applied is an
error, not a surprise: whatever is new goes into a new file.
"""

import asyncio
import functools
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple, TypeVar

from asyncpg import Connection
from asyncpg.pool import PoolConnectionProxy

from eventbus.errors import ConfigurationError
from eventbus.postgres.database import Database

# The high half of the lock's number; the low half is the oid of the schema.
_LOCK = 0x6576_0001_0000_0000
# What former builds hold, for all schemas of a database. Those of this build share it.
_FORMER = 0x6576_6275_7301
_TRY = """
SELECT pg_try_advisory_xact_lock_shared($1)
   AND pg_try_advisory_xact_lock($2 + to_regnamespace(quote_ident(current_schema()))::oid::bigint)
"""
_NO_SCHEMA = "SELECT current_schema() IS NULL"
_APPLIED = "SELECT EXISTS (SELECT FROM eventbus_migrations WHERE name = $1 AND checksum = $2)"
_PAUSE = 0.2  # seconds between looks whether another one has ended
_TABLE = """
CREATE TABLE IF NOT EXISTS eventbus_migrations (
    name       text PRIMARY KEY,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""

T = TypeVar("T")

AnyConnection = Connection | PoolConnectionProxy


class Migration(NamedTuple):
    name: str
    sql: str

    @property
    def source(self) -> str:
        """`eventbus`, or the name of the entry point."""
        return self.name.partition("/")[0]

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load(source: str, folder: Traversable) -> list[Migration]:
    """The migrations of one package, in the order of their file names."""
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Migration(f"{source}/{file.name}", file.read_text(encoding="utf-8")) for file in files]


def installed() -> list[Migration]:
    """The bus' own first, since what applications add may refer to it; then those that applications have registered as
    entry points of the group `eventbus.migrations`, by name."""
    found = load("eventbus", files(__package__) / "migrations")
    for entry in sorted(entry_points(group="eventbus.migrations"), key=lambda entry: entry.name):
        found += load(entry.name, entry.load())
    return found


async def pending(connection: AnyConnection, migrations: Sequence[Migration]) -> list[Migration]:
    """Those that are not applied yet. Raises ConfigurationError if one was changed after it was applied."""
    if await connection.fetchval("SELECT to_regclass('eventbus_migrations')") is None:
        return list(migrations)
    rows = await connection.fetch("SELECT name, checksum FROM eventbus_migrations")
    applied = {row["name"]: row["checksum"] for row in rows}
    changed = [m.name for m in migrations if applied.get(m.name, m.checksum) != m.checksum]
    if changed:
        raise ConfigurationError(
            f"changed after they were applied: {', '.join(changed)}. Restore them; a change goes into a new file"
        )
    return [migration for migration in migrations if migration.name not in applied]


async def require(database: Database, migrations: Sequence[Migration]) -> None:
    """Raises ConfigurationError naming those that are not applied, and what to run."""
    async with database.connection() as connection:
        missing = await pending(connection, migrations)
    if missing:
        names = ", ".join(migration.name for migration in missing)
        raise ConfigurationError(f"the database lacks migrations ({names}): run `eventbus migrate` first")


async def apply(
    connection: AnyConnection, migrations: Sequence[Migration], *, waits: Callable[[], object] = lambda: None
) -> list[Migration]:
    """Apply what is pending, each in a transaction of its own, and return what this call has applied. The transaction
    holds a lock: of several who try at once, each takes the next one that is pending, and waits until there is none
    under way. `waits` is called once if this has to wait.

    The connection must not bound the time of a statement: a migration takes as long as it takes. Raises
    ConfigurationError if there is no schema to put tables into."""
    if await connection.fetchval(_NO_SCHEMA):
        raise ConfigurationError(
            "there is no schema for the tables: the search_path of this login names none that exists. "
            "Create it, or set EVENTBUS_DATABASE_SCHEMA"
        )
    waits = functools.cache(waits)  # once

    async def find() -> list[Migration]:
        await connection.execute(_TABLE)
        return await pending(connection, migrations)

    todo = await _alone(connection, find, waits)
    return [
        migration
        for migration in todo
        if await _alone(connection, functools.partial(_apply_one, connection, migration), waits)
    ]


async def _alone(connection: AnyConnection, work: Callable[[], Awaitable[T]], waits: Callable[[], object]) -> T:
    """Do it in a transaction, while nobody else migrates this schema. The lock is asked for and not waited for: how
    long a statement may wait is for the server's settings to say."""
    while True:
        async with connection.transaction():
            if await connection.fetchval(_TRY, _FORMER, _LOCK):
                return await work()
        waits()
        await asyncio.sleep(_PAUSE)


async def _apply_one(connection: AnyConnection, migration: Migration) -> bool:
    """False if somebody else has applied it meanwhile."""
    if await connection.fetchval(_APPLIED, migration.name, migration.checksum):
        return False
    await connection.execute(migration.sql)
    await connection.execute(
        "INSERT INTO eventbus_migrations (name, checksum) VALUES ($1, $2)", migration.name, migration.checksum
    )
    return True
