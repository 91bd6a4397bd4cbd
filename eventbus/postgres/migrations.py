"""Plain SQL files, applied once, in order, by one process at a time.

A migration is known by `source/file name` and the checksum of its text. A file that changed after it was applied is an
error, not a surprise: whatever is new goes into a new file.
"""

import hashlib
from collections.abc import Sequence
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from asyncpg import Connection
from asyncpg.pool import PoolConnectionProxy

from eventbus.errors import ConfigurationError
from eventbus.postgres.database import Database

_LOCK = 0x6576_6275_7301  # any number that nobody else uses: 'evbus' and a serial
_TABLE = """
CREATE TABLE IF NOT EXISTS eventbus_migrations (
    name       text PRIMARY KEY,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""

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


async def apply(connection: AnyConnection, migrations: Sequence[Migration]) -> list[Migration]:
    """Apply what is pending, each in a transaction of its own, and return it. Others who try wait until we are done."""
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute(_TABLE)
        todo = await pending(connection, migrations)
        for migration in todo:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO eventbus_migrations (name, checksum) VALUES ($1, $2)",
                    migration.name,
                    migration.checksum,
                )
        return todo
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
