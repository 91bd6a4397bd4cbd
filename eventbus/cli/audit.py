"""`eventbus audit`: is everything accounted for? accepted = done + pending + waiting + dead + missing."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated, NamedTuple

import typer

from eventbus.cli import connections
from eventbus.cli.accounts import as_told, in_both, since_when, uncounted
from eventbus.cli.columns import columns
from eventbus.cli.screen import FAILED
from eventbus.cli.shapes import camel
from eventbus.contract.inspection import Account, Balance, Schedule
from eventbus.process.loop import run
from eventbus.redis.accounting import accounts
from eventbus.redis.auditing import audit as audit_in_redis
from eventbus.redis.links import Links

PAUSE = 1.0  # seconds between two looks: an entry on its way from one place to another is missing in one of them only
NAMED = 10  # ids that are shown of each kind

_Looked = tuple[list[Balance], list[Schedule]]


class Found(NamedTuple):
    """One look."""

    balances: list[Balance]
    schedules: list[Schedule]
    accounts: list[Account]


def audit(
    *,
    stream: Annotated[list[str] | None, typer.Option("--stream", "-s", help="Only this one; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Account for everything that was accepted, by stream and group. Exit code 1 if something is missing."""
    found = run(_audit(stream))
    missing = _missing(found.balances, found.schedules) + uncounted(found.accounts)
    if as_json:
        told = {
            "balances": [camel(asdict(balance)) for balance in found.balances],
            "schedules": [camel(asdict(schedule)) for schedule in found.schedules],
            "accounts": [as_told(account) for account in found.accounts],
            "missing": missing,
        }
        typer.echo(json.dumps(told, indent=2))
    else:
        typer.echo(_screen(found, missing))
    if missing:
        raise typer.Exit(FAILED)


async def _audit(streams: Sequence[str] | None) -> Found:
    async with connections.redis() as links:
        first = await _look(links, streams)
        if not _missing(first.balances, first.schedules) and not uncounted(first.accounts):
            return first
        await asyncio.sleep(PAUSE)
        second = await _look(links, streams)
        balances, schedules = _both((first.balances, first.schedules), (second.balances, second.schedules))
        return Found(balances, schedules, in_both(first.accounts, second.accounts))


async def _look(links: Links, streams: Sequence[str] | None) -> Found:
    balances, schedules = await audit_in_redis(links, connections.NAMESPACE, streams)
    counted = [await accounts(links, connections.NAMESPACE, schedule.stream) for schedule in schedules]
    return Found(balances, schedules, [account for each in counted for account in each])


def _both(first: _Looked, second: _Looked) -> _Looked:
    """The second look, without whatever was not missing in the first."""
    before = {(balance.stream, balance.group): balance for balance in first[0]}
    schedules = {schedule.stream: schedule for schedule in first[1]}
    balances = []
    for balance in second[0]:
        known = before.get((balance.stream, balance.group))
        lost = tuple(entry for entry in balance.lost if known is not None and entry in known.lost)
        skipped = min(balance.skipped or 0, (known and known.skipped) or 0) if balance.skipped is not None else None
        balances.append(replace(balance, lost=lost, skipped=skipped))
    return balances, [
        replace(
            schedule,
            stuck=tuple(sorted({*schedule.stuck} & {*schedules.get(schedule.stream, schedule).stuck})),
            empty=tuple(sorted({*schedule.empty} & {*schedules.get(schedule.stream, schedule).empty})),
        )
        for schedule in second[1]
    ]


def _missing(balances: Sequence[Balance], schedules: Sequence[Schedule]) -> list[str]:
    """A line for each kind of what is missing, naming it as far as it is known."""
    told = []
    for one in balances:
        where = f"{one.group} on {one.stream}"
        if one.skipped:
            told.append(f"{where}: {one.skipped} entries vanished before they were delivered (trimmed from outside?)")
        if one.lost:
            told.append(f"{where}: {len(one.lost)} pending entries have no event any more: {_some(one.lost)}")
    for schedule in schedules:
        if schedule.stuck:
            told.append(f"{schedule.stream}: scheduled without a due time: {_some(schedule.stuck)}")
        if schedule.empty:
            told.append(f"{schedule.stream}: due, but their content is gone: {_some(schedule.empty)}")
    return told


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _screen(found: Found, missing: Sequence[str]) -> str:
    balances = found.balances
    scheduled = {schedule.stream: schedule.scheduled for schedule in found.schedules}
    numbers = ("accepted", "done", "pending", "waiting", "dead", "missing")
    rows = [
        (
            one.stream,
            one.group,
            one.accepted,
            _known(one.done),
            one.pending,
            _known(one.waiting),
            one.dead,
            _known(one.skipped if one.skipped is None else one.skipped + len(one.lost)),
            "",
        )
        for one in balances
    ]
    table = columns(("stream", "group", *numbers, ""), rows, right=numbers) if rows else "no group reads anything"
    delayed = ", ".join(f"{count} on {name}" for name, count in scheduled.items() if count) or "none"
    verdict = [f"MISSING  {line}" for line in missing] or ["nothing is missing"]
    return "\n".join(
        [connections.redis_name(), "", table, "", f"scheduled: {delayed}", *since_when(found.accounts), *verdict]
    )


def _known(count: int | None) -> str:
    return "unknown" if count is None else str(count)
