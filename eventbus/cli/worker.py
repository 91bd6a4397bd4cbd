"""`eventbus worker`: run the handlers of an application, in one process or in several."""

import functools
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from eventbus.cli.app_option import AppOption, find_apps, find_groups, open_bus
from eventbus.errors import ConfigurationError
from eventbus.group import Group
from eventbus.operating.apps import App
from eventbus.process import logs, loop
from eventbus.process.supervisor import Supervisor, follow
from eventbus.settings import Settings
from eventbus.telemetry import serving
from eventbus.worker import Worker

GRACE = 30.0  # seconds
RELOAD_GRACE = 2.0  # seconds: somebody is waiting for it


def worker(  # noqa: PLR0917 - the options of a command
    app: AppOption = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="Run this group only; may be given more than once.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many processes; one that dies is started again.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Restart when a source file changes.")] = False,
    grace: Annotated[
        float | None,
        typer.Option(
            min=0, help=f"Seconds that handlers have to finish [default: {GRACE:g}; {RELOAD_GRACE:g} with --reload]."
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Serve Prometheus metrics on this port, 0 for any; else EVENTBUS_METRICS_PORT. "
            "Of several processes each takes the next one."
        ),
    ] = None,
) -> None:
    """Handle events, until SIGTERM."""
    settings = Settings() if metrics_port is None else Settings(metrics_port=metrics_port)
    logs.configure(settings.log_format)
    seconds = grace if grace is not None else RELOAD_GRACE if reload else GRACE
    follow(seconds)
    ports = functools.partial(_metrics_port, settings.metrics_port)
    apps = find_apps(app)
    groups = find_groups(apps, group)
    if processes == 1 and not reload:
        loop.run(_work(settings, apps, groups, seconds))
        return
    command = [sys.executable, "-m", "eventbus.cli", "worker", f"--grace={seconds:g}"]
    command += [f"--app={path}" for path in app or ()] + [f"--group={name}" for name in group or ()]
    changes = _changes(apps) if reload else None
    supervisor = Supervisor(command, processes, grace=seconds, changes=changes, environment=ports)
    sys.exit(loop.run(_supervise(settings, apps, supervisor)))


def _metrics_port(first: int | None, number: int) -> dict[str, str]:
    """Each process has a port of its own, from the first on."""
    return {"EVENTBUS_METRICS_PORT": str(first + number - 1)} if first else {}


async def _work(settings: Settings, apps: Sequence[App], groups: Sequence[Group], grace: float) -> None:
    async with open_bus(settings, apps) as bus:
        with serving(bus.metrics, settings):
            await Worker(bus, groups, grace=grace).run()


async def _supervise(settings: Settings, apps: Sequence[App], supervisor: Supervisor) -> int:
    async with open_bus(settings, apps):
        pass  # what cannot work is told once, by this process, and not by each
    return await supervisor.run()


def _changes(apps: Sequence[App]) -> AsyncIterator[object]:
    try:
        from watchfiles import PythonFilter, awatch  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError("--reload needs watchfiles: pip install 'eventbus[cli]'") from None

    async def changes() -> AsyncIterator[object]:
        async for found in awatch(*_sources(apps), watch_filter=PythonFilter()):
            yield sorted(path for _, path in found)[:5]

    return changes()


def _sources(apps: Sequence[App]) -> list[Path]:
    """The working directory, and the sources of those applications that live elsewhere."""
    here = Path.cwd()
    return [here, *{app.source for app in apps if here not in app.source.parents and here != app.source}]
