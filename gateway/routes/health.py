"""/livez and /readyz: for whoever decides whether this process gets traffic, or is restarted. No token."""

from typing import Any, Literal

from aiohttp import web

from gateway.endpoints.api import JSON, Routes
from gateway.endpoints.dispatch import BUS
from gateway.http.draining import DRAIN
from gateway.readiness import Found, assess
from handlers.common.fields import Answer, Query

health = Routes("", tag="health")

FIT = frozenset({"ready", "degraded"})


class Alive(Answer):
    status: str


class Readiness(Answer):
    """`checks`: by name, `ok`, `away`, `no answer` or `full`, of what decides; of the spool while Redis is not `ok`.
    `details` with `?verbose` only."""

    status: Literal["ready", "degraded", "not ready", "draining"]
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
    """Whether this process can take what clients send: 200 if `ready`, or `degraded`, which means that Redis takes
    nothing and the spool does; 503 if `not ready`, or `draining`, which means that it is about to stop."""
    verbose = query.verbose is not None
    assessment = await assess(request.app[BUS], all_of_them=verbose)
    status = "draining" if request.app[DRAIN].under_way else assessment.status
    told: dict[str, object] = {"status": status, "checks": assessment.states}
    if verbose:
        told["details"] = {one.name: _details(one) for one in assessment.found}
    return web.json_response(told, status=200 if status in FIT else 503)


def _details(found: Found) -> dict[str, object]:
    return {"state": found.state, "ms": round(found.seconds * 1000, 1), **found.details}
