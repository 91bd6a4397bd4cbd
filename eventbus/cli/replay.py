"""`eventbus replay`: send events of the store to one group again; and who has done so before."""

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from eventbus.bus import EventBus
from eventbus.cli import connections, store
from eventbus.cli.actions import audit, confirm
from eventbus.cli.columns import columns
from eventbus.cli.durations import ago, moment
from eventbus.cli.shapes import camel
from eventbus.contract.history import Selection
from eventbus.contract.replays import Replay
from eventbus.operating.replaying import Replayed, Replaying, described
from eventbus.process.loop import run
from eventbus.settings import Settings

app = typer.Typer(help="Send events of the store to one group again, or see who did.", invoke_without_command=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+|[a-z][a-z0-9_]*\.\*")


def event_type(text: str) -> str:
    """Raises typer.BadParameter for what names neither a type nor all of a stream."""
    if not _TYPE.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no event type, such as lead.created, nor all of a stream: 'lead.*'")
    return text


GroupOption = Annotated[str | None, typer.Option("--group", "-g", help="The one that is to have them again.")]
TypesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--type", "-t", parser=event_type, metavar="TYPE", help="Of this type, or stream: 'lead.*'. Repeatable."
    ),
]
SubjectOption = Annotated[str | None, typer.Option("--subject", "-s", help="About this: the key, such as an id.")]
OrganizationOption = Annotated[str | None, typer.Option("--organization", "-o", help="Of this one; else of all.")]
CorrelationOption = Annotated[str | None, typer.Option("--correlation", help="Of the request with this id.")]
EventsOption = Annotated[
    list[str] | None, typer.Option("--event", parser=connections.event_id, metavar="ID", help="This one. Repeatable.")
]
SinceOption = Annotated[
    datetime | None,
    typer.Option("--since", parser=moment, metavar="TIME", help="Made since then: 2026-01-31T12:00:00Z, or 1h."),
]
UntilOption = Annotated[
    datetime | None, typer.Option("--until", parser=moment, metavar="TIME", help="Made before then.")
]
AfterOption = Annotated[
    str | None,
    typer.Option(
        "--after", parser=connections.event_id, metavar="ID", help="Behind this one: goes on where one stopped."
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="All that the group reads.")]
RateOption = Annotated[float | None, typer.Option("--rate", min=0.1, metavar="N", help="At most so many a second.")]
NewIdsOption = Annotated[bool, typer.Option("--new-ids", help="As other events: what they do is done once more.")]
ForgottenOption = Annotated[
    bool, typer.Option("--forgotten", help="Also what is older than the inbox remembers: may be done once more.")
]
WhyOption = Annotated[str, typer.Option("--why", help="For those who come after; without, nothing is sent.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Send nothing; say what would be sent.")]


@app.callback()
def replay(
    ctx: typer.Context,
    *,
    group: GroupOption = None,
    event_types: TypesOption = None,
    subject: SubjectOption = None,
    organization: OrganizationOption = None,
    correlation: CorrelationOption = None,
    event: EventsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    after: AfterOption = None,
    every: AllOption = False,
    rate: RateOption = None,
    new_ids: NewIdsOption = False,
    forgotten: ForgottenOption = False,
    why: WhyOption = "",
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Send events of the store to one group again. They keep their ids, so that nothing is done twice."""
    if ctx.invoked_subcommand is not None:
        return
    wanted = Selection(
        organization=organization,
        ids=event or (),
        types=event_types or (),
        subject=subject,
        correlation_id=correlation,
        since=since,
        until=until,
        after=after,
    )
    if group is None:
        raise typer.BadParameter("which group is to have them? --group NAME")
    _check(wanted, every=every, said=bool(why.strip()) or dry_run)
    asked = _replay(
        group,
        wanted,
        new_ids=new_ids,
        forgotten=forgotten,
        why=why,
        rate=rate,
        yes=yes,
        dry_run=dry_run,
        as_json=as_json,
    )
    run(asked)


def _check(wanted: Selection, *, every: bool, said: bool) -> None:
    if not (described(wanted) or every):
        raise typer.BadParameter("choose events by filters such as --subject, or --all that the group reads")
    if not said:
        raise typer.BadParameter("say why, for those who come after: --why '…'")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="How many to show at the most.")] = 20, as_json: JsonOption = False
) -> None:
    """What was sent again, by whom and why; dead letters, too. The last ones first."""
    found = run(_latest(limit))
    if as_json:
        items = [{**camel(asdict(one) | {"filter": None}), "filter": one.filter} for one in found]
        typer.echo(json.dumps({"items": items}, indent=2))
        return
    typer.echo(_table(found) if found else "nothing was sent again")


async def _replay(
    group: str,
    wanted: Selection,
    *,
    new_ids: bool,
    forgotten: bool,
    why: str,
    rate: float | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    async with store.database() as database, EventBus(Settings().require_redis_url()) as bus:
        replaying = Replaying(bus.transport, database.replays, group, wanted, new_ids=new_ids, forgotten=forgotten)
        planned = await replaying.plan()
        if dry_run:
            _tell(planned, as_json, would=True)
            return
        if not yes and planned.total:
            confirm(f"{_counted(planned)}. Send {planned.total} to {group}{' as new events' if new_ids else ''}?")
        try:
            await replaying.run(why=why, rate=rate)
        except BaseException:
            if planned.last is not None:
                typer.echo(f"cut short: with --after {planned.last} the same command goes on there", err=True)
            raise
        finally:
            told = {"group": group, "count": planned.done, "of": planned.total, "last": planned.last}
            audit("replay", **told, newIds=new_ids, why=why, filter=described(wanted))
    _tell(planned, as_json)


async def _latest(limit: int) -> list[Replay]:
    async with store.database() as database:
        return list(await database.replays.latest(limit))


def _tell(told: Replayed, as_json: bool, *, would: bool = False) -> None:
    if as_json:
        shown = {"group": told.group, "matched": told.matched, "forgotten": told.forgotten, "count": told.total}
        shown |= {"dryRun": True} if would else {"replayed": told.done, "last": told.last}
        typer.echo(json.dumps(shown, indent=2))
        return
    typer.echo(_counted(told))
    typer.echo(f"would send {told.total} to {told.group}" if would else f"sent {told.done} to {told.group}")


def _counted(told: Replayed) -> str:
    kinds = ", ".join(f"{count} {name}" for name, count in told.matched.items()) or "no events"
    if not told.forgotten:
        return kinds
    return (
        f"{kinds}; {told.forgotten} are left out: older than the inbox remembers, they may be done twice (--forgotten)"
    )


def _table(found: list[Replay]) -> str:
    now = datetime.now(UTC)
    rows = [
        (
            f"{ago(one.began_at, now)} ago",
            one.by,
            one.source,
            one.group or "(their own)",
            f"{one.replayed} of {one.matched}" + ("" if one.ended_at else ", not ended"),
            one.why + (" (new ids)" if one.new_ids else ""),
        )
        for one in found
    ]
    return columns(("when", "who", "source", "group", "sent", "why"), rows)
