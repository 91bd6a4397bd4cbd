"""The gateway, put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web

from eventbus import ConfigurationError, EventBus
from eventbus.process.supervision import supervise
from eventbus.sessions import Recovery
from gateway.callers import quota
from gateway.callers.auth import Authenticator, PublishedKeys, SharedSecret
from gateway.callers.quota import Quotas
from gateway.callers.rates import parse
from gateway.endpoints.dispatch import AUTHENTICATOR, BUS, MAX_BODY, QUOTAS, mount
from gateway.http import correlation, draining
from gateway.http.draining import DRAIN, Drain
from gateway.http.middleware import surroundings
from gateway.http.traffic import TRAFFIC, Traffic
from gateway.routes import ENDPOINTS
from gateway.routes.documents import describe
from gateway.settings import GatewaySettings
from gateway.socket import websocket


def create_app(bus: EventBus, settings: GatewaySettings) -> web.Application:
    """The application on this bus, which is connected and has a database. Its owner closes it, not the application.

    Raises ConfigurationError if the settings name no good way to check tokens."""
    app = web.Application(middlewares=[surroundings], client_max_size=MAX_BODY)
    app[BUS] = bus
    app[AUTHENTICATOR] = authenticator(settings)
    app[TRAFFIC] = Traffic()
    app[DRAIN] = Drain()
    app[QUOTAS] = Quotas(bus, parse(settings.rate_limit))
    app.on_response_prepare.extend((correlation.stamp, quota.stamp, draining.stamp))
    mount(app, ENDPOINTS)
    describe(app, ENDPOINTS)
    websocket.mount(app, bus)
    app.cleanup_ctx.append(recovering)
    return app


def authenticator(settings: GatewaySettings) -> Authenticator:
    """The check of tokens. Raises ConfigurationError unless exactly one kind of key is configured, and good enough."""
    if settings.jwt_jwks_url and settings.jwt_secret:
        raise ConfigurationError("set EVENTBUS_JWT_SECRET or EVENTBUS_JWT_JWKS_URL, not both: one kind of key decides")
    if settings.jwt_jwks_url:
        return Authenticator(PublishedKeys(settings.jwt_jwks_url))
    return Authenticator(SharedSecret(settings.require_secret()))


async def recovering(app: web.Application) -> AsyncIterator[None]:
    """While the gateway runs, it ends the session commits of processes that have died, also where no worker runs."""
    name = "eventbus-session-recovery"
    recovery = Recovery(app[BUS].transport, app[BUS].metrics.count_collected)
    role = asyncio.create_task(supervise(name, recovery.run), name=name)
    yield
    role.cancel()
    with suppress(asyncio.CancelledError):
        await role
