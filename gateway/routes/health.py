"""/livez and /readyz: for whoever decides whether this process gets traffic, or is restarted. No token."""

from typing import Any

from aiohttp import web

from gateway.endpoints.api import JSON, Routes
from gateway.endpoints.dispatch import BUS
from gateway.readiness import CHECKS, Found, look
from handlers.common.fields import Answer, Query

health = Routes("", tag="health")


class Alive(Answer):
    status: str


class Readiness(Answer):
    """`checks`: by name, `ok`, `away` or `no answer`. `details` with `?verbose` only."""

    status: str
    checks: dict[str, str]
    details: dict[str, dict[str, Any]] | None = None


class ReadinessQuery(Query):
    """Given at all, `verbose` asks for details."""

    verbose: str | None = None


@health.raw("GET", "/livez", token=False, answers={200: {JSON: Alive}})
async def livez(_request: web.Request) -> web.Response:
    """Whether the loop runs.

    Servers that are away are no reason to restart this process: see /readyz."""
    return web.json_response({"status": "alive"})


@health.raw("GET", "/readyz", token=False, answers={200: {JSON: Readiness}, 503: {JSON: Readiness}})
async def readyz(request: web.Request, query: ReadinessQuery) -> web.Response:
    """Whether every dependency answers; which does not is told by name."""
    verbose = query.verbose is not None
    found = await look(request.app[BUS], [name for name, check in CHECKS.items() if check.decides or verbose])
    deciding = [one for one in found if one.decides]
    ready = all(one.state == "ok" for one in deciding)
    told: dict[str, object] = {
        "status": "ready" if ready else "not ready",
        "checks": {one.name: one.state for one in deciding},
    }
    if verbose:
        told["details"] = {one.name: _details(one) for one in found}
    return web.json_response(told, status=200 if ready else 503)


def _details(found: Found) -> dict[str, object]:
    return {"state": found.state, "ms": round(found.seconds * 1000, 1), **found.details}
