"""The gateway as a process: listen until a signal, then leave in good order."""

import asyncio
import resource
from contextlib import suppress

from aiohttp import web

from consumers.bus import open_bus
from eventbus import ConfigurationError
from eventbus.process import loop
from eventbus.process.safe_logging import get_logger
from eventbus.process.signals import told
from gateway.app import create_app
from gateway.http.server_log import server_logger
from gateway.settings import GatewaySettings

SHUTDOWN_TIMEOUT = 10.0  # seconds for requests that are running
BACKLOG = 1_024  # connections that wait to be accepted: after an outage all clients come back at once
OPEN_FILES = 65_536  # enough for all sockets: each is an open file, and a shell may allow only 256

log = get_logger("gateway")


async def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Then: stop listening, close the sockets (1001), let requests finish, close the connections to the servers."""
    stopping = asyncio.Event()
    with told(lambda _number: stopping.set()):
        await _serve(settings, stopping)


async def _serve(settings: GatewaySettings, stopping: asyncio.Event) -> None:
    async with open_bus(settings) as bus:
        _allow_files()
        runner = make_runner(create_app(bus, settings))
        await runner.setup()
        try:
            await _listen(runner, settings)
            loop.collect_seldom()
            await stopping.wait()
            log.info("stopping")
        finally:
            await runner.cleanup()


def make_runner(app: web.Application, shutdown_timeout: float = SHUTDOWN_TIMEOUT) -> web.AppRunner:
    """A runner that writes our own logs. Those of aiohttp hold query strings, which may be tokens."""
    return web.AppRunner(app, access_log=None, logger=server_logger(), shutdown_timeout=shutdown_timeout)


async def _listen(runner: web.AppRunner, settings: GatewaySettings) -> None:
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG).start()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
    for address in runner.addresses:
        log.info("listening", host=address[0], port=address[1])


def _allow_files() -> None:
    """Raise the limit of open files to OPEN_FILES, or as near to it as this process may without privileges."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems allow less than the limit that they report
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
