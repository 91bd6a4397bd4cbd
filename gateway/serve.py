"""The gateway as a process: listen until a signal, then leave in good order."""

import asyncio
import signal

import structlog
from aiohttp import web

from consumers.runtime import open_bus
from eventbus import ConfigurationError, loop
from gateway.app import create_app
from gateway.complaints import server_logger
from gateway.settings import GatewaySettings

SHUTDOWN_TIMEOUT = 10.0  # seconds for requests that are running

log = structlog.get_logger("gateway")


async def serve(settings: GatewaySettings) -> None:
    """Until SIGTERM or SIGINT.

    The end: stop listening, close the sockets (1001), let requests finish, close the connections to the servers."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with open_bus(settings) as bus:
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
    """With logs of our own in place of aiohttp's, which hold query strings."""
    return web.AppRunner(app, access_log=None, logger=server_logger(), shutdown_timeout=shutdown_timeout)


async def _listen(runner: web.AppRunner, settings: GatewaySettings) -> None:
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
    for address in runner.addresses:
        log.info("listening", host=address[0], port=address[1])
