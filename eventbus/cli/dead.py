"""`eventbus dead`: see what died and why, and run it again."""

import json
from collections.abc import AsyncIterator
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from eventbus.bus import EventBus
from eventbus.errors import EventBusError
from eventbus.loop import run
from eventbus.transport import DeadLetter

PAGE = 200

app = typer.Typer(help="See dead letters, and run them again.", no_args_is_help=True)

GroupOption = Annotated[str | None, typer.Option("--group", help="Only dead letters of this group.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Reference = Annotated[str, typer.Argument(help="STREAM/ID, as `dead list` prints it.")]


class NotFound(EventBusError):
    """There is no such dead letter."""


@app.command("list")
def list_(
    group: GroupOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at the most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Dead letters of all streams, oldest first within each."""
    letters = run(_collect(group, limit))
    if as_json:
        typer.echo(json.dumps({"items": [summary(letter) for letter in letters]}, indent=2))
        return
    table = Table("id", "group", "type", "about", "attempts", "died", "error")
    for letter in letters:
        kind, about = (letter.envelope.type, letter.envelope.subject) if letter.envelope else ("(undecodable)", None)
        died = letter.died_at.isoformat(timespec="seconds")
        table.add_row(reference(letter), letter.group, kind, about or "", str(letter.attempts), died, letter.error)
    Console().print(table if letters else "no dead letters")


@app.command()
def show(letter_id: Reference, as_json: JsonOption = False) -> None:
    """One dead letter whole: envelope, attempts, error, traceback, times."""
    letter = run(_one(letter_id))
    whole = {**summary(letter), "traceback": letter.traceback, "fields": _readable(letter)}
    if as_json:
        typer.echo(json.dumps(whole, indent=2))
        return
    for name, value in whole.items():
        text = json.dumps(value, indent=2) if isinstance(value, dict) else str(value)
        typer.echo(f"{name + ':':<16}{text}" if "\n" not in text else f"{name}:\n{text}")


@app.command()
def replay(
    letter_ids: Annotated[list[str] | None, typer.Argument(help="STREAM/ID …, as `dead list` prints them.")] = None,
    group: GroupOption = None,
    every: Annotated[bool, typer.Option("--all", help="All dead letters (of --group, if given).")] = False,
) -> None:
    """Put dead letters back into their stream, for the group where they died. Attempts start again at one."""
    if every == bool(letter_ids):
        raise typer.BadParameter("name dead letters by STREAM/ID, or take --all")
    replayed, left = run(_replay(letter_ids or [], group))
    typer.echo(f"replayed {replayed}" + (f", left {left} that are no envelopes" if left else ""))


def reference(letter: DeadLetter) -> str:
    """How a person names a dead letter: its stream and its id."""
    return f"{letter.stream}/{letter.id}"


def summary(letter: DeadLetter) -> dict[str, object]:
    """One dead letter as JSON, without traceback and payload."""
    envelope = letter.envelope
    return {
        "id": reference(letter),
        "group": letter.group,
        "eventId": envelope.id if envelope else None,
        "type": envelope.type if envelope else None,
        "subject": envelope.subject if envelope else None,
        "organization": envelope.organization if envelope else None,
        "correlationId": envelope.correlation if envelope else None,
        "attempts": letter.attempts,
        "crashes": letter.crashes,
        "error": letter.error,
        "firstFailedAt": letter.first_failed_at.isoformat(),
        "diedAt": letter.died_at.isoformat(),
    }


def _readable(letter: DeadLetter) -> dict[str, str]:
    """The entry as it came; bytes that are no UTF-8 are shown escaped."""
    return {
        name.decode(errors="backslashreplace"): value.decode(errors="backslashreplace")
        for name, value in letter.fields.items()
    }


async def _letters(bus: EventBus, group: str | None) -> AsyncIterator[DeadLetter]:
    for stream in await bus.transport.streams():
        after = ""
        while page := await bus.transport.dead_letters(stream, after=after, limit=PAGE):
            for letter in page:
                if group is None or letter.group == group:
                    yield letter
            after = page[-1].id


async def _collect(group: str | None, limit: int) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    async with EventBus() as bus:
        async for letter in _letters(bus, group):
            found.append(letter)
            if len(found) == limit:
                break
    return found


async def _one(letter_id: str) -> DeadLetter:
    async with EventBus() as bus:
        return await _find(bus, letter_id)


async def _find(bus: EventBus, letter_id: str) -> DeadLetter:
    stream, _, entry_id = letter_id.partition("/")
    async for letter in _letters(bus, None):
        if letter.stream == stream and letter.id == entry_id:
            return letter
    raise NotFound(f"there is no dead letter {letter_id!r}: `eventbus dead list` shows those that there are")


async def _replay(letter_ids: list[str], group: str | None) -> tuple[int, int]:
    """How many were replayed, and how many cannot be."""
    async with EventBus() as bus:
        if letter_ids:
            letters = [await _find(bus, letter_id) for letter_id in letter_ids]
        else:
            # All of them are known before the first runs again: one that dies anew is not replayed in a circle.
            letters = [letter async for letter in _letters(bus, group)]
        readable = [letter for letter in letters if letter.envelope is not None]
        return sum([await bus.transport.replay(letter) for letter in readable]), len(letters) - len(readable)
