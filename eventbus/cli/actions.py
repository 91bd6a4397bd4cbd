"""What commands that change something share: a question before it, and afterwards the audit line, JSON on stderr."""

import sys
from datetime import UTC, datetime

import orjson
import typer

from eventbus.operating.control import whoami


def audit(action: str, **details: object) -> None:
    """Say it on stderr, so that stdout stays the answer."""
    line = {"audit": action, "by": whoami(), "at": datetime.now(UTC).isoformat(timespec="seconds"), **details}
    typer.echo(orjson.dumps(line).decode(), err=True)


def confirm(question: str) -> None:
    """Ask on stderr, so that stdout stays the answer. Raises typer.Abort for anything but yes, and for nobody there."""
    typer.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        typer.echo("nothing was done", err=True)
        raise typer.Abort
