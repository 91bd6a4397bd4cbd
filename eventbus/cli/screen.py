"""What a person sees when a command cannot go on: what failed, where, why, what to do. One screen."""

import sys
from contextlib import suppress

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from eventbus.errors import ConfigurationError, EventBusError, Unavailable

FAILED, AWAY = 1, 3
_LIMIT = 1_000  # characters of one part: with the others, less than twenty lines

_CAUSES = {
    "Redis": (
        "the server is not running, listens elsewhere, or a firewall is in between",
        'check EVENTBUS_REDIS_URL, then: redis-cli -u "$EVENTBUS_REDIS_URL" ping',
    ),
    "PostgreSQL": (
        "the server is not running, is starting or stopping, or listens elsewhere",
        "check EVENTBUS_DATABASE_URL, then: psql \"$EVENTBUS_DATABASE_URL\" -c 'select 1'",
    ),
}


def report(error: EventBusError) -> int:
    """Print the error to stderr and return the exit code that goes with it."""
    match error:
        case Unavailable():
            cause, command = _CAUSES.get(error.server.partition(" ")[0], ("it does not answer", "try again later"))
            lines = {
                "Failed": f"no connection to {error.server}",
                "Reason": error.detail,
                "Likely": cause,
                "Next": command,
            }
            code = AWAY
        case ConfigurationError():
            lines, code = {"Failed": "the settings do not work", "Reason": str(error)}, FAILED
        case _:
            lines, code = {"Failed": type(error).__name__, "Reason": str(error)}, FAILED
    body = Text()
    for name, value in lines.items():
        body.append(f"{name:<8}", style="bold").append(f"{value[:_LIMIT]}\n")
    with suppress(OSError, ValueError, AttributeError):  # nobody can be told but by the code
        Console(file=sys.stderr, width=None if sys.stderr.isatty() else 100).print(
            Panel(body, title="eventbus", expand=False)
        )
    return code
