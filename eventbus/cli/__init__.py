"""The `eventbus` command: the framework's own commands, and those that installed applications bring along.

An application registers its consumer groups as an entry point of the group `eventbus.apps`, its commands in the group
`eventbus.commands`, and its SQL files in the group `eventbus.migrations`. So this package serves any service, and
imports none.

The packages that a command line needs are an extra: this module imports none of them before it is known to be there.
"""

import logging
import sys
from typing import TYPE_CHECKING

from eventbus.cli import output
from eventbus.cli.extras import told_extra
from eventbus.errors import EventBusError
from eventbus.process.logs import configure

if TYPE_CHECKING:
    from typer import Typer

FAILED, INTERRUPTED = 1, 130


def build(wanted: str | None = None) -> "Typer":
    """The whole command line: see eventbus.cli.program. Raises ImportError if the extra `cli` is not installed."""
    from eventbus.cli import program  # noqa: PLC0415 - see above

    return program.build(wanted)


def main(*command: str) -> None:
    """Runs `eventbus COMMAND …` with the arguments of this process.

    Exit codes: 0 done, 1 failed, 2 usage, 3 a server is away."""
    output.prepare()
    # Logs go to stderr, errors only: a command's answer is on stdout. Long-running commands configure their own logs.
    configure("console", level=logging.ERROR)
    arguments = [*command, *sys.argv[1:]]
    code = 0
    try:
        try:
            build(arguments[0] if arguments else None)(arguments)
        finally:
            output.finish()
    except EventBusError as error:
        from eventbus.cli.screen import report  # noqa: PLC0415 - as above

        code = report(error)
    except ImportError as error:
        if (told := told_extra(error)) is None:
            raise
        output.complain(told)
        code = FAILED
    except BrokenPipeError:
        code = FAILED
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)
