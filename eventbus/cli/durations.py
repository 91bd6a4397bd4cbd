"""Durations and moments as people type them: 30s, 15m, 1h, 7d."""

import re
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """A duration such as 30s, 15m, 1h or 7d. Raises typer.BadParameter for anything else."""
    match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration such as 30s, 15m, 1h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def moment(text: str) -> datetime:
    """A moment with its time zone, 2026-01-31T12:00:00Z, or how long ago it was: 15m. Raises typer.BadParameter."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) - duration(text)
    if found.utcoffset() is None:
        raise typer.BadParameter(f"{text!r} has no time zone: 2026-01-31T12:00:00Z is one in UTC")
    return found


def spoken(seconds: float) -> str:
    """At most two units: 0.4s, 12s, 3m 20s, 5h 4m, 2d 7h."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s".replace(".0s", "s")
    whole = round(seconds)
    for size, name, smaller, below in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{name}" + (f" {rest}{below}" if rest else "")
    return f"{whole}s"


def ago(moment: datetime, now: datetime) -> str:
    """How long before `now`, as `spoken`."""
    return spoken((now - moment).total_seconds())
