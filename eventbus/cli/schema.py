"""`eventbus schema`: which versions of its events an application knows, and whether it can open what is there."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from eventbus.cli import connections
from eventbus.cli.app_option import AppOption, find_apps
from eventbus.cli.columns import columns, cut, hanging, printable, screen_width
from eventbus.cli.examining import Looked, look
from eventbus.cli.screen import FAILED
from eventbus.contract.upcasting import find_gaps, opens_from
from eventbus.event import event_class, event_types
from eventbus.group import Group
from eventbus.operating.schemas import Examined, Fault, Storage
from eventbus.process.loop import run

LIMIT = 1_000
LEAST = 16  # characters of a type
ROWS, FAULTS = 6, 3  # rows, and faults, that are shown: all of it is one screen

app = typer.Typer(help="Versions of events: what an application knows, and what it can open.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(app: AppOption = None, *, as_json: JsonOption = False) -> None:
    """The types that an application defines: the versions that it opens, its own the last, and who handles them."""
    groups = [group for found in find_apps(app) for group in found.groups]
    gaps = _gaps()
    if as_json:
        typer.echo(json.dumps({"types": [_described(name, groups) for name in event_types()], "gaps": gaps}, indent=2))
        return
    rows = [
        (name, _span(told["opensFrom"], told["version"]), ", ".join(told["groups"]) or "none")
        for name in event_types()
        for told in [_described(name, groups)]
    ]
    typer.echo(columns(("type", "opens", "handled by"), rows))
    for gap in gaps:
        typer.echo(f"GAP: {gap}")


@app.command()
def check(
    app: AppOption = None,
    *,
    places: Annotated[
        list[Storage] | None, typer.Option("--in", help="Look there alone; may be repeated. Default: everywhere.")
    ] = None,
    stream: Annotated[list[str] | None, typer.Option("--stream", "-s", help="Only this one; may be repeated.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Events of each place and stream, or stored ones of each type, at the most.")
    ] = LIMIT,
    as_json: JsonOption = False,
) -> None:
    """Can this code open what is in flight, delayed, dead and stored? Ask before a deploy. Exit code 1 if not."""
    find_apps(app)
    gaps, looked = _gaps(), run(look(places or list(Storage), stream, limit))
    found = looked.examination.found
    typer.echo(json.dumps(_told(found, gaps, looked), indent=2) if as_json else _screen(found, gaps, looked))
    if gaps or any(one.faults for one in found):
        raise typer.Exit(FAILED)


def _span(oldest: int, version: int) -> str:
    return str(version) if oldest == version else f"{oldest} to {version}"


def _gaps() -> list[str]:
    return find_gaps(event_class(name) for name in event_types())


def _described(name: str, groups: Sequence[Group]) -> dict[str, Any]:
    cls, handling = event_class(name), sorted({group.name for group in groups if name in group.handlers})
    return {"type": name, "version": cls.event_version, "opensFrom": opens_from(cls), "groups": handling}


# What is shown --------------------------------------------------------------------------------------------------------


def _told(found: Sequence[Examined], gaps: Sequence[str], looked: Looked) -> dict[str, Any]:
    return {
        "types": [
            {
                "type": one.type,
                "version": one.version,
                "knownVersion": one.known,
                "lookedAt": dict(one.looked_at),
                "failing": one.failing,
                "faults": [
                    {"in": fault.place, "reason": fault.reason, "count": fault.count, "ids": fault.ids}
                    for fault in one.faults.values()
                ],
            }
            for one in found
        ],
        "gaps": list(gaps),
        "partly": looked.partly,
        "notLookedAt": looked.not_at,
        "failing": sum(one.failing for one in found),
    }


def _screen(found: Sequence[Examined], gaps: Sequence[str], looked: Looked) -> str:
    faults = [(one, fault) for one in found for fault in one.faults.values()]
    lines = [
        connections.redis_name(),
        *(_table(found) if found else []),
        *(line for one, fault in faults[:FAULTS] for line in _fault(one, fault)),
        *_more(len(faults) - FAULTS, "reasons (--json tells)"),
        *_note("GAP", gaps),
        *_note("not all", looked.partly),
        *_note("not looked at", looked.not_at),
        _verdict(found),
    ]
    return "\n".join(lines)


def _table(found: Sequence[Examined]) -> list[str]:
    """The table of types, with a column for each place where there was something."""
    places = [place for place in Storage if any(place in one.looked_at for one in found)]
    room = screen_width() - sum(len(f"  {name}") for name in ("version", *places))
    rows = [
        (cut(one.type, max(room, LEAST)), _versions(one), *(one.looked_at.get(place, "-") for place in places), "")
        for one in found[:ROWS]
    ]
    return [
        columns(("type", "version", *places, ""), rows, right=places),
        *_more(len(found) - ROWS, "types and versions"),
        "",
    ]


def _versions(one: Examined) -> str:
    """The version of the events, and the one that this code has where that is another."""
    if one.known is None or one.version == one.known:
        return str(one.version or "-")
    return _span(one.version, one.known) if one.version < one.known else f"{one.version}, here {one.known}"


def _fault(one: Examined, fault: Fault) -> list[str]:
    """Three lines at the most."""
    ids = ", ".join(fault.ids) + (", …" if fault.count > len(fault.ids) else "")
    head = f"FAIL  {one.type} {one.version or ''}, {fault.count} in {fault.place}: {ids}"
    return [cut(printable(head), screen_width()), *hanging([("    ", fault.reason)])[:2]]


def _note(label: str, notes: Sequence[str]) -> list[str]:
    if not notes:
        return []
    more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
    return [cut(f"{label}{more}: {notes[0]}", screen_width())]


def _more(count: int, what: str) -> list[str]:
    return [f"… and {count} more {what}"] if count > 0 else []


def _verdict(found: Sequence[Examined]) -> str:
    total, failing = sum(sum(one.looked_at.values()) for one in found), sum(one.failing for one in found)
    if not total:
        return "there are no events"
    verdict = f"{failing:,} do not open" if failing else "all open"
    return f"{total:,} events of {len({one.type for one in found})} types: {verdict}"
