"""`eventbus doctor`: what is wrong, or will be, and what to do about it."""

import asyncio
import json
from collections.abc import Sequence
from textwrap import wrap
from typing import Annotated

import typer

from eventbus.cli import checks, reach
from eventbus.cli.columns import printable, screen_width
from eventbus.cli.screen import AWAY, FAILED
from eventbus.inspection import Finding, Severity
from eventbus.loop import run
from eventbus.redis import health
from eventbus.redis.inspection import read_streams
from eventbus.settings import Settings

_ORDER = (Severity.ERROR, Severity.WARNING)


def doctor(
    *,
    watch: Annotated[float, typer.Option(min=0.0, metavar="SECONDS", help="Between two looks at what grows.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at Redis, streams, groups and PostgreSQL. Exit code 1 if something is wrong, 3 if a server is away."""
    findings = run(_examine(watch))
    if as_json:
        typer.echo(json.dumps({"findings": [finding._asdict() for finding in findings]}, indent=2))
    else:
        typer.echo(_screen(findings))
    if any(finding.check == checks.AWAY for finding in findings):
        raise typer.Exit(AWAY)
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise typer.Exit(FAILED)


async def _examine(watch: float) -> list[Finding]:
    async with reach.redis() as link:
        found = await health.examine(link, reach.NAMESPACE)
        before = await read_streams(link, reach.NAMESPACE)
        await asyncio.sleep(watch)
        found += checks.examine(before, await read_streams(link, reach.NAMESPACE))
    return found + await checks.examine_database(Settings())


def _screen(findings: Sequence[Finding]) -> str:
    """The worst first, each with what to do; what is in order on one line."""
    lines = [reach.redis_name()]
    for severity in _ORDER:
        for finding in findings:
            if finding.severity is severity:
                lines += _wrapped(f"{severity.upper():<9}{finding.check}: {finding.message}")
                lines += _wrapped(f"{'':<9}do: {finding.remedy}")
    good = dict.fromkeys(finding.check for finding in findings if finding.severity is Severity.OK)
    return "\n".join([*lines, *_wrapped(f"{'OK':<9}{', '.join(good)}")])


def _wrapped(text: str) -> list[str]:
    return wrap(printable(text), screen_width(), subsequent_indent=" " * 9, drop_whitespace=True)
