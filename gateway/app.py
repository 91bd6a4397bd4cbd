"""The gateway, put together."""

from aiohttp import web

from eventbus import EventBus
from gateway import websocket
from gateway.access import access
from gateway.auth import authenticator
from gateway.correlation import correlation, stamp
from gateway.dispatch import AUTHENTICATOR, BUS, MAX_BODY, mount
from gateway.problems import problems
from gateway.routes import ENDPOINTS, events, health, metrics
from gateway.settings import GatewaySettings
from gateway.sockets import Sockets


def create_app(bus: EventBus, settings: GatewaySettings) -> web.Application:
    """`bus` is connected, has a database, and stays its owner's to close.

    Raises ConfigurationError if the settings name no good way to check tokens."""
    # From the outside in: an id for all that happens, a log line for every answer, an answer for every failure.
    app = web.Application(middlewares=[correlation, access, problems], client_max_size=MAX_BODY)
    app[BUS] = bus
    app[AUTHENTICATOR] = authenticator(settings)
    app[websocket.SOCKETS] = Sockets()
    app.on_response_prepare.append(stamp)
    app.on_shutdown.append(websocket.close_sockets)
    app.cleanup_ctx.append(websocket.feed)
    mount(app, ENDPOINTS)
    events.mount(app)
    health.mount(app)
    metrics.mount(app, bus)
    app.router.add_get("/ws/chat", websocket.chat)
    return app
