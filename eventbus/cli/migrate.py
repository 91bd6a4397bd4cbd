"""`eventbus migrate`: bring the database up to date."""

from importlib.metadata import entry_points
from importlib.resources import files
from typing import Annotated

import typer

from eventbus.loop import run
from eventbus.postgres import Database, Migration, apply, load, pending
from eventbus.settings import Settings


def migrate(
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL of what is pending, apply nothing.")] = False,
) -> None:
    """Apply the pending migrations of the bus and of every installed application."""
    run(_migrate(Settings().require_database_url(), sql))


async def _migrate(dsn: str, sql: bool) -> None:
    database = Database(dsn)
    await database.connect()
    try:
        async with database.connection() as connection:
            if sql:
                for migration in await pending(connection, migrations()):
                    typer.echo(f"-- {migration.name}\n{migration.sql}")
                return
            applied = await apply(connection, migrations())
    finally:
        await database.close()
    for migration in applied:
        typer.echo(f"applied {migration.name}")
    typer.echo(f"{len(applied)} applied, the database is up to date")


def migrations() -> list[Migration]:
    """The bus' own first: what applications add may refer to it."""
    found = load("eventbus", files("eventbus.postgres") / "migrations")
    for entry in sorted(entry_points(group="eventbus.migrations"), key=lambda entry: entry.name):
        found += load(entry.name, entry.load())
    return found
