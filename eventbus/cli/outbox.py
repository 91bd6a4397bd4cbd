"""`eventbus outbox`: rows that the relay has set aside; let it try them again, or let them go."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from eventbus.cli import store
from eventbus.cli.actions import audit, confirm
from eventbus.cli.columns import columns
from eventbus.cli.durations import ago, spoken
from eventbus.contract.inspection import OutboxStanding, RowAside
from eventbus.postgres import discard, retry, standing
from eventbus.process.loop import run

app = typer.Typer(
    help="See rows of the outbox that were set aside; try them again, or let them go.", no_args_is_help=True
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AllOption = Annotated[bool, typer.Option("--all", help="All that were set aside.")]
Names = Annotated[list[str] | None, typer.Argument(help="Positions or event ids, as `outbox list` prints them.")]


@app.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many to show at the most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """What waits, and what was set aside and why."""
    found = run(_look(limit))
    if as_json:
        waiting = [one._asdict() for one in found.waiting]
        told = {"relayAtWork": found.relay_at_work, "waiting": waiting, "aside": found.aside}
        typer.echo(json.dumps({**told, "items": [_summary(row) for row in found.first]}, indent=2))
        return
    relay = "a relay is at work" if found.relay_at_work else "no relay is at work"
    typer.echo(f"{found.rows} rows wait, the oldest for {spoken(found.seconds)}; {relay}")
    for one in found.waiting:
        if one.error:
            typer.echo(f"stream {one.stream} refuses {one.rows} of them: {one.error}")
    if not found.first:
        typer.echo("no row was set aside")
        return
    typer.echo(_table(found.first))
    if found.aside > len(found.first):
        typer.echo(f"{found.aside - len(found.first)} more: --limit {found.aside} shows all")


@app.command("retry")
def retry_(*, names: Names = None, every: AllOption = False, as_json: JsonOption = False) -> None:
    """Let the relay try rows again that were set aside, when they or what refused them have been mended."""
    _tell("retried", run(_change("retry", _chosen(names, every))), as_json)


@app.command("discard")
def discard_(
    *,
    names: Names = None,
    every: AllOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete rows for good that were set aside: their events are lost. Asks first, unless they are named one by one."""
    chosen = _chosen(names, every)
    if chosen is None and not yes:
        confirm("discard all rows that were set aside, and their events, for good?")
    _tell("discarded", run(_change("discard", chosen)), as_json)


def _chosen(names: Sequence[str] | None, every: bool) -> list[str] | None:
    """The names that were given; None for --all. Raises typer.BadParameter for both, and for neither."""
    if bool(names) == every:
        raise typer.BadParameter("name rows by their positions or event ids, or choose --all")
    return None if every else list(names or ())


async def _look(limit: int) -> OutboxStanding:
    async with store.database() as database, database.connection() as connection:
        return await standing(connection, limit)


async def _change(verb: str, names: list[str] | None) -> int:
    async with store.database() as database, database.connection() as connection:
        count = await (retry if verb == "retry" else discard)(connection, names)
    audit(f"outbox.{verb}", rows="all" if names is None else names, count=count)
    return count


def _tell(verb: str, count: int, as_json: bool) -> None:
    typer.echo(json.dumps({verb: count}) if as_json else f"{verb} {count}")


def _summary(row: RowAside) -> dict[str, object]:
    return {
        "position": row.position,
        "eventId": row.event_id,
        "type": row.type,
        "subject": row.subject,
        "organization": row.organization,
        "error": row.error,
        "createdAt": row.created_at.isoformat(),
        "failedAt": row.failed_at.isoformat(),
    }


def _table(rows: Sequence[RowAside]) -> str:
    now = datetime.now(UTC)
    cells = [
        (row.position, row.event_id, row.type, row.subject or "", f"{ago(row.failed_at, now)} ago", row.error)
        for row in rows
    ]
    return columns(("position", "event", "type", "about", "set aside", "error"), cells, right=("position",))
