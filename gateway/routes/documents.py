"""/openapi.json and /asyncapi.json: this contract, for machines. No token."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import orjson
from aiohttp import web

from eventbus.operating import asyncapi
from gateway.endpoints import openapi
from gateway.endpoints.api import JSON, Endpoint, Routes
from handlers import GROUPS

documents = Routes("", tag="documents")

TABLE = web.AppKey("table", Sequence[Endpoint])
_MADE = web.AppKey("documents", dict[str, bytes])


def describe(app: web.Application, endpoints: Sequence[Endpoint]) -> None:
    """Give the documents the endpoints that they describe."""
    app[TABLE] = endpoints
    app[_MADE] = {}


@documents.raw("GET", "/openapi.json", token=False, answers={200: {JSON: dict[str, Any]}})
async def get_openapi(request: web.Request) -> web.Response:
    """What can be asked of this gateway, as OpenAPI 3.1."""
    return _once(request, lambda: openapi.document(request.app[TABLE]))


@documents.raw("GET", "/asyncapi.json", token=False, answers={200: {JSON: dict[str, Any]}})
async def get_asyncapi(request: web.Request) -> web.Response:
    """What travels on the event bus, and which groups receive it, as AsyncAPI 3.0."""
    return _once(request, lambda: asyncapi.document(GROUPS, title="crm", release=version("eventbus")))


def _once(request: web.Request, make: Callable[[], dict[str, Any]]) -> web.Response:
    """Make a document once: nothing in it changes while the process lives."""
    made = request.app[_MADE]
    if request.path not in made:
        made[request.path] = orjson.dumps(make())
    return web.Response(body=made[request.path], content_type=JSON)
