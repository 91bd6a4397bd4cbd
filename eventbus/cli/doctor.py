"""`eventbus doctor`: what is wrong, or will be, and what to do about it."""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated

import typer

from eventbus.cli import checks, connections
from eventbus.cli.columns import hanging
from eventbus.cli.screen import AWAY, FAILED
from eventbus.contract.inspection import Finding, Severity
from eventbus.process.loop import run
from eventbus.redis import dated_ahead, health, partitions
from eventbus.redis.inspection import find_logs, read_streams
from eventbus.redis.links import Links
from eventbus.settings import Settings

_ORDER = (Severity.ERROR, Severity.WARNING)


def doctor(
    *,
    watch: Annotated[float, typer.Option(min=0.0, metavar="SECONDS", help="Between two looks at what grows.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at Redis, groups, PostgreSQL and the spool. Exit code 1 if something is wrong, 3 if a server is away."""
    findings = run(_examine(watch))
    if as_json:
        typer.echo(json.dumps({"findings": [finding._asdict() for finding in findings]}, indent=2))
    else:
        typer.echo(_screen(findings))
    if any(finding.check in {checks.AWAY, health.AWAY} for finding in findings):
        raise typer.Exit(AWAY)
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise typer.Exit(FAILED)


async def _examine(watch: float) -> list[Finding]:
    async with connections.redis() as links:
        found = await links.examine()
        found += await health.examine(links, connections.NAMESPACE)
        if not any(finding.check == health.AWAY for finding in found):
            found += await _examine_streams(links, watch)
    settings = Settings()
    return [*found, *checks.examine_spool(settings), *await checks.examine_database(settings)]


async def _examine_streams(links: Links, watch: float) -> list[Finding]:
    before = await read_streams(links, connections.NAMESPACE)
    await asyncio.sleep(watch)
    now, pauses = await read_streams(links, connections.NAMESPACE), await connections.paused(links)
    streams = [(stream.name, [group.name for group in stream.groups]) for stream in now]
    dated = await dated_ahead.examine(links, connections.NAMESPACE, streams)
    divided = await partitions.examine(links, connections.NAMESPACE, await find_logs(links, connections.NAMESPACE))
    return [*checks.examine(before, now, pauses), *divided, *dated]


def _screen(findings: Sequence[Finding]) -> str:
    """The worst first, each with what to do; what is in order on one line."""
    lines, width = [connections.redis_name()], max(map(len, Severity))
    for severity in _ORDER:
        for finding in findings:
            if finding.severity is severity:
                name = severity.upper().ljust(width)
                lines += hanging(
                    [(name, f"{finding.check}: {finding.message}"), (" " * width, f"do: {finding.remedy}")]
                )
    good = dict.fromkeys(finding.check for finding in findings if finding.severity is Severity.OK)
    return "\n".join([*lines, *hanging([("OK".ljust(width), ", ".join(good))])])
