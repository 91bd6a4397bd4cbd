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
    metrics_port: Annotated[
        int | None,
        typer.Option(help="Serve Prometheus metrics on this port, 0 for any; else EVENTBUS_METRICS_PORT."),
    ] = None,
) -> None:
    """Handle events, until SIGTERM."""
    settings = Settings() if metrics_port is None else Settings(metrics_port=metrics_port)
    logs.configure(settings.log_format)
    loop.run(runtime.run(settings, group or ()))
