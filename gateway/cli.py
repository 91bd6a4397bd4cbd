"""`eventbus gateway`, `eventbus token` and `eventbus openapi`."""

from typing import Annotated

import orjson
import typer

from eventbus.cli.durations import duration
from eventbus.process import logs, loop
from gateway.callers.auth import make_token
from gateway.endpoints.openapi import document
from gateway.routes import ENDPOINTS
from gateway.serve import serve
from gateway.settings import GatewaySettings


def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on; else EVENTBUS_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for any; else EVENTBUS_PORT.")] = None,
) -> None:
    """Serve REST and WebSocket, until SIGTERM."""
    settings = GatewaySettings.read(host=host, port=port)
    logs.configure(settings.log_format)
    loop.run(serve(settings))


def token(
    user: Annotated[str, typer.Option(help="User id.")],
    org: Annotated[str, typer.Option(help="Organization id.")],
    role: Annotated[list[str] | None, typer.Option(help="user, admin or system; may be given more than once.")] = None,
    tier: Annotated[str, typer.Option(help="standard or premium.")] = "standard",
    ttl: Annotated[str, typer.Option(help="How long it is good for: 30s, 15m, 1h, 7d.")] = "1h",
) -> None:
    """Print a token for the gateway, signed with EVENTBUS_JWT_SECRET."""
    secret = GatewaySettings.read().require_secret()
    roles = frozenset(role or ["user"])
    typer.echo(make_token(secret, user=user, organization=org, roles=roles, tier=tier, ttl=duration(ttl)))


def openapi() -> None:
    """Print the gateway's OpenAPI 3.1 document, as JSON. No server is needed."""
    typer.echo(orjson.dumps(document(ENDPOINTS), option=orjson.OPT_INDENT_2).decode())
