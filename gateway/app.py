"""The gateway, put together."""

from aiohttp import web

from eventbus import EventBus
from gateway import websocket
from gateway.auth import authenticator
from gateway.correlation import stamp
from gateway.dispatch import AUTHENTICATOR, BUS, MAX_BODY, mount
from gateway.routes import ENDPOINTS, events, health, metrics, webhooks
from gateway.settings import GatewaySettings
from gateway.surroundings import surroundings


def create_app(bus: EventBus, settings: GatewaySettings) -> web.Application:
    """`bus` is connected, has a database, and stays its owner's to close.

    Raises ConfigurationError if the settings name no good way to check tokens."""
    app = web.Application(middlewares=[surroundings], client_max_size=MAX_BODY)
    app[BUS] = bus
    app[AUTHENTICATOR] = authenticator(settings)
    app.on_response_prepare.append(stamp)
    mount(app, ENDPOINTS)
    events.mount(app)
    health.mount(app)
    metrics.mount(app, bus)
    webhooks.mount(app)
    websocket.mount(app, bus)
    return app
