"""/livez and /readyz: for whoever decides whether this process gets traffic, or is restarted. No token."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from eventbus import EventBus, EventBusError
from gateway.deadline import within
from gateway.dispatch import BUS

CHECK_TIMEOUT = 2.0  # seconds
READY_CHANNEL = "pubsub:ready"


async def livez(_request: web.Request) -> web.Response:
    """The loop runs. Servers that are away are no reason to restart us: see /readyz."""
    return web.json_response({"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    """200 if every dependency answers, else 503; which does not is told by name."""
    bus = request.app[BUS]
    names = ("redis", "postgres")
    states = await asyncio.gather(_check(_ask_redis(bus)), _check(_ask_postgres(bus)))
    ready = all(state == "ok" for state in states)
    return web.json_response(
        {"status": "ready" if ready else "not ready", "checks": dict(zip(names, states, strict=True))},
        status=200 if ready else 503,
    )


async def _ask_redis(bus: EventBus) -> None:
    await bus.broadcast(READY_CHANNEL, b"")


async def _ask_postgres(bus: EventBus) -> None:
    async with bus.transaction() as tx:
        await tx.connection.fetchval("SELECT 1")


async def _check(asking: Coroutine[Any, Any, None]) -> str:
    try:
        await within(CHECK_TIMEOUT, asking)
    except TimeoutError:
        return "no answer"
    except EventBusError:
        return "away"
    return "ok"


def mount(app: web.Application) -> None:
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
