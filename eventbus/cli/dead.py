"""`eventbus dead`: see what died and why; run it again, or let it go."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from eventbus.bus import EventBus
from eventbus.cli import connections
from eventbus.cli.actions import audit, confirm
from eventbus.cli.columns import columns, printable
from eventbus.cli.durations import ago, duration
from eventbus.contract.dead_letters import DeadLetter
from eventbus.contract.replays import Replay, Source
from eventbus.event import uuid7
from eventbus.operating.control import whoami
from eventbus.operating.dead_letters import Filter, Reference, Swept
from eventbus.process.loop import run

app = typer.Typer(help="See dead letters; run them again, or let them go.", no_args_is_help=True)

GroupOption = Annotated[str | None, typer.Option("--group", "-g", help="Of this group.")]
TypeOption = Annotated[str | None, typer.Option("--type", "-t", help="Of this event type, or a pattern: 'lead.*'.")]
ErrorOption = Annotated[str | None, typer.Option("--error", "-e", help="With this in the error, in any case.")]
OlderOption = Annotated[
    timedelta | None,
    typer.Option("--older-than", parser=duration, metavar="TIME", help="Died longer ago than: 30s, 15m, 1h, 7d."),
]
NewerOption = Annotated[
    timedelta | None, typer.Option("--newer-than", parser=duration, metavar="TIME", help="Died within the last: 1h.")
]
SubjectOption = Annotated[str | None, typer.Option("--subject", "-s", help="About this: the key of its event.")]
OrganizationOption = Annotated[str | None, typer.Option("--organization", "-o", help="Of this organization.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AllOption = Annotated[bool, typer.Option("--all", help="All dead letters (that the filters mean).")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")]
RateOption = Annotated[float | None, typer.Option("--rate", min=0.1, metavar="N", help="At most so many a second.")]
References = Annotated[list[str] | None, typer.Argument(help="STREAM/ID …, as `dead list` prints them.")]


@app.command("list")
def list_(
    *,
    group: GroupOption = None,
    event_type: TypeOption = None,
    error: ErrorOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    subject: SubjectOption = None,
    organization: OrganizationOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show at the most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Dead letters of all streams, oldest first within each."""
    found, total = run(_collect(Filter(group, event_type, error, older_than, newer_than, subject, organization), limit))
    more = total - len(found)
    told = f"{more} more: --limit {total} shows all, filters show fewer"
    if as_json:
        items = [summary(letter) for letter in found]
        typer.echo(json.dumps({"items": items, "total": total} | ({"more": more} if more else {}), indent=2))
        if more:
            typer.echo(told, err=True)
        return
    if not found:
        typer.echo("no dead letters")
        return
    typer.echo(_table(found))
    if more:
        typer.echo(told)


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(help="STREAM/ID, as `dead list` prints it.")], as_json: JsonOption = False
) -> None:
    """One dead letter whole: envelope, attempts, error, traceback, times."""
    letter = run(_one(Reference.parse(letter_id)))
    whole = {**summary(letter), "traceback": letter.traceback, "fields": _readable(letter)}
    if as_json:
        typer.echo(json.dumps(whole, indent=2))
        return
    for name, value in whole.items():
        text = (
            json.dumps(value, indent=2)
            if isinstance(value, dict)
            else "\n".join(map(printable, str(value).split("\n")))
        )
        typer.echo(f"{name + ':':<16}{text}" if "\n" not in text else f"{name}:\n{text}")


@app.command()
def replay(
    *,
    letter_ids: References = None,
    group: GroupOption = None,
    event_type: TypeOption = None,
    error: ErrorOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    subject: SubjectOption = None,
    organization: OrganizationOption = None,
    every: AllOption = False,
    rate: RateOption = None,
    why: Annotated[str, typer.Option("--why", help="For those who come after; see `eventbus replay list`.")] = "",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put dead letters back into their stream, for the group where they died. Attempts start again at one."""
    wanted = Filter(group, event_type, error, older_than, newer_than, subject, organization)
    names = _chosen(letter_ids, wanted, every)
    if dry_run:
        _tell_dry("replay", run(_meant(names, wanted)), as_json)
        return
    swept = run(_sweep("replay", names, wanted, rate, why))
    _tell("replayed", swept, as_json)


@app.command()
def discard(
    *,
    letter_ids: References = None,
    group: GroupOption = None,
    event_type: TypeOption = None,
    error: ErrorOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    subject: SubjectOption = None,
    organization: OrganizationOption = None,
    every: AllOption = False,
    rate: RateOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Forget dead letters for good. Asks first, unless they are named one by one."""
    wanted = Filter(group, event_type, error, older_than, newer_than, subject, organization)
    names = _chosen(letter_ids, wanted, every)
    if dry_run or not (names or yes):
        meant = run(_meant(names, wanted))
        if dry_run:
            _tell_dry("discard", meant, as_json)
            return
        names = [Reference.of(letter) for letter in meant]  # those that were asked about, and none that died meanwhile
        if names:
            confirm(f"discard {len(names)} dead letters for good?")
        else:
            _tell("discarded", Swept(), as_json)
            return
    swept = run(_sweep("discard", names, wanted, rate))
    _tell("discarded", swept, as_json)


def summary(letter: DeadLetter) -> dict[str, object]:
    """One dead letter as JSON, without traceback and payload."""
    envelope = letter.envelope
    return {
        "id": str(Reference.of(letter)),
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


def _chosen(letter_ids: Sequence[str] | None, wanted: Filter, every: bool) -> list[Reference]:
    """The names that were given; none if filters or --all choose. Raises BadParameter for both, and for neither."""
    if letter_ids and (wanted or every):
        raise typer.BadParameter("name dead letters by STREAM/ID, or choose them by filters or --all: not both")
    if not (letter_ids or wanted or every):
        raise typer.BadParameter("name dead letters by STREAM/ID, or choose them by filters such as --group, or --all")
    return [Reference.parse(letter_id) for letter_id in letter_ids or ()]


def _table(found: Sequence[DeadLetter]) -> str:
    now = datetime.now(UTC)
    rows = []
    for letter in found:
        kind, about = (letter.envelope.type, letter.envelope.subject) if letter.envelope else ("(undecodable)", None)
        tries = str(letter.attempts) + (f"+{letter.crashes} crashed" if letter.crashes else "")
        died = f"{ago(letter.died_at, now)} ago"
        rows.append((Reference.of(letter), letter.group, kind, about or "", tries, died, letter.error))
    return columns(("id", "group", "type", "about", "tries", "died", "error"), rows)


def _tell(verb: str, swept: Swept, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({verb: swept.done, "gone": swept.gone, "left": swept.left}))
        return
    notes = f", {swept.gone} were gone already" if swept.gone else ""
    notes += f", left {swept.left} that are no envelopes" if swept.left else ""
    typer.echo(f"{verb} {swept.done}{notes}")


def _tell_dry(verb: str, meant: Sequence[DeadLetter], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"dryRun": True, "count": len(meant), "items": [summary(m) for m in meant]}, indent=2))
        return
    if meant:
        typer.echo(_table(meant[:20]))
    typer.echo(f"would {verb} {len(meant)}" + (", of which 20 are shown" if len(meant) > 20 else ""))


def _readable(letter: DeadLetter) -> dict[str, str]:
    """The entry as it came; bytes that are no UTF-8 are shown escaped."""
    return {
        name.decode(errors="backslashreplace"): value.decode(errors="backslashreplace")
        for name, value in letter.fields.items()
    }


async def _collect(wanted: Filter, limit: int) -> tuple[list[DeadLetter], int]:
    """(the first `limit` dead letters that the filter means, how many it means in all)."""
    found: list[DeadLetter] = []
    total = 0
    async with EventBus() as bus:
        async for letter in bus.dead_letters.select(wanted):
            total += 1
            if total <= limit:
                found.append(letter)
    return found, total


async def _one(reference: Reference) -> DeadLetter:
    async with EventBus() as bus:
        return await bus.dead_letters.find(reference)


async def _meant(names: Sequence[Reference], wanted: Filter) -> list[DeadLetter]:
    """The dead letters that a command would change. Those that the filter means come without traceback and fields."""
    async with EventBus() as bus:
        if names:
            return [await bus.dead_letters.find(name) for name in names]
        return [letter._replace(traceback="", fields={}) async for letter in bus.dead_letters.select(wanted)]


async def _sweep(verb: str, names: Sequence[Reference], wanted: Filter, rate: float | None, why: str = "") -> Swept:
    swept, began_at = Swept(), datetime.now(UTC)
    async with EventBus() as bus:
        for name in names:
            await bus.dead_letters.find(name)  # a name that does not exist is told before anything is done
        # All are known before the first runs again: one that dies anew is not replayed in a circle.
        references = names or [Reference.of(letter) async for letter in bus.dead_letters.select(wanted)]
        act = bus.dead_letters.replay if verb == "replay" else bus.dead_letters.discard
        chosen: dict[str, object] = {"ids": [str(name) for name in names]} if names else {"filter": wanted.described()}
        ended_at = None
        try:
            await act(references, rate=rate, swept=swept)
            ended_at = datetime.now(UTC)
        finally:
            audit(f"dead.{verb}", count=swept.done, of=len(references), **chosen, **({"why": why} if why else {}))
            if verb == "replay":
                replay = Replay(
                    id=uuid7(),
                    began_at=began_at,
                    by=whoami(),
                    why=why,
                    source=Source.DEAD_LETTERS,
                    group=wanted.group,
                    filter=chosen if names else wanted.described(),
                    new_ids=False,
                    matched=len(references),
                    replayed=swept.done,
                    ended_at=ended_at,
                )
                await connections.keep(replay)
    return swept
