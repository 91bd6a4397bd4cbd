"""The gateway as a process: listen until a signal, then leave in good order."""

import asyncio
import signal
from contextlib import suppress

from aiohttp import web

from consumers.bus import open_bus
from eventbus import ConfigurationError
from eventbus.process import loop
from eventbus.process.open_files import allow_files
from eventbus.process.safe_logging import get_logger
from eventbus.process.signals import told
from gateway.app import create_app
from gateway.http.draining import DRAIN
from gateway.http.server_log import server_logger
from gateway.settings import GatewaySettings

SHUTDOWN_TIMEOUT = 10.0  # seconds for requests that are running
BACKLOG = 1_024  # connections that wait to be accepted: after an outage all clients come back at once

log = get_logger("gateway")


class Stopping:
    """What signals have said: to stop (`told`), and not to wait for balancers (`hurried`). SIGTERM comes from whoever
    runs the process behind a balancer, SIGINT from a terminal; a second signal is from somebody who cannot wait."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.hurried = asyncio.Event()

    def on_signal(self, number: int) -> None:
        if self.told.is_set() or number == signal.SIGINT:
            self.hurried.set()
        self.told.set()


async def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Then, in this order: the drain, in which /readyz is 503 and everything is served, so that balancers look elsewhere
    before anybody is refused; stop listening, close the sockets (1001), let requests finish, close the connections to
    the servers."""
    stopping = Stopping()
    with told(stopping.on_signal):
        await serve_until(stopping, settings)


async def serve_until(stopping: Stopping, settings: GatewaySettings) -> None:
    """As `serve`; `stopping` tells when."""
    where = settings.host, settings.port  # before anything is opened: the port may be a service link
    async with open_bus(settings) as bus:
        if stopping.told.is_set():  # while it waited for the servers: nobody knows this process yet
            return
        allow_files()
        runner = make_runner(create_app(bus, settings))
        await runner.setup()
        try:
            await _listen(runner, *where)
            loop.collect_seldom()
            await stopping.told.wait()
            await _drain(runner.app, settings.drain_seconds, stopping.hurried)
            log.info("stopping")
        finally:
            await runner.cleanup()


def make_runner(app: web.Application, shutdown_timeout: float = SHUTDOWN_TIMEOUT) -> web.AppRunner:
    """A runner that writes our own logs. Those of aiohttp hold query strings, which may be tokens. Bodies that are
    compressed are refused, and not inflated: a small one, of anybody, could be as much work as a thousand others."""
    return web.AppRunner(
        app, access_log=None, logger=server_logger(), shutdown_timeout=shutdown_timeout, auto_decompress=False
    )


async def _drain(app: web.Application, seconds: float, hurried: asyncio.Event) -> None:
    """Returns when balancers have had their time to notice, or nobody waits for that."""
    app[DRAIN].begin()
    if not seconds or hurried.is_set():
        return
    log.info("draining", seconds=seconds)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hurried.wait()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    for address in runner.addresses:
        log.info("listening", host=address[0], port=address[1])
