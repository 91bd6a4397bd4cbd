"""`eventbus worker`."""

from typing import Annotated

import typer

from consumers import runtime
from eventbus import logs, loop
from eventbus.settings import Settings


def worker(
    group: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="Run this group only; may be given more than once.")
    ] = None,
) -> None:
    """Handle events, until SIGTERM."""
    settings = Settings()
    logs.configure(settings.log_format)
    loop.run(runtime.run(settings, group or ()))
