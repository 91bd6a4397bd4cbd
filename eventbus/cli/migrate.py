"""`eventbus migrate`: bring the database up to date."""

from typing import Annotated

import typer

from eventbus.postgres import Database, apply, installed, pending
from eventbus.process.loop import run
from eventbus.settings import Settings


def migrate(
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL of what is pending, apply nothing.")] = False,
) -> None:
    """Apply the pending migrations of the bus and of every installed application."""
    run(_migrate(Settings().require_database_url(), sql))


async def _migrate(dsn: str, sql: bool) -> None:
    database = Database(dsn, command_timeout=None)
    await database.connect()
    try:
        if not sql:
            await database.provide_schema()
        async with database.connection() as connection:
            if sql:
                for migration in await pending(connection, installed()):
                    typer.echo(f"-- {migration.name}\n{migration.sql}")
                return
            applied = await apply(connection, installed(), waits=_tell)
        await database.recorder.prepare()  # workers may lack the right to
    finally:
        await database.close()
    for migration in applied:
        typer.echo(f"applied {migration.name}")
    typer.echo(f"{len(applied)} applied, the database is up to date")


def _tell() -> None:
    typer.echo("another `eventbus migrate` is at work on this database: waiting until it has ended", err=True)
