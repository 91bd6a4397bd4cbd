"""Which request caused what: the correlation id comes with the request or is made here, goes back with the response,
and travels with every event that the request causes."""

import re

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from eventbus import Origin
from eventbus.event import uuid7

HEADER = "X-Correlation-Id"

_KEY = web.RequestKey("correlation_id", str)
# What is safe in a header, a log line and a URL. Anything else is not carried on: the request gets an id of ours.
_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
# W3C Trace Context: version, trace id, parent id, flags; all zeros are invalid ids.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@web.middleware
async def correlation(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware: what happens inside knows the id, and so does every log line."""
    given = request.headers.get(HEADER, "")
    request[_KEY] = given if _SANE.fullmatch(given) else uuid7()
    before = structlog.contextvars.bind_contextvars(correlation_id=request[_KEY])
    try:
        return await handler(request)
    finally:
        structlog.contextvars.reset_contextvars(**before)


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: responses of every kind, WebSocket handshakes as well."""
    response.headers[HEADER] = request.get(_KEY) or uuid7()  # aiohttp refuses a few requests before any middleware


def correlation_id(request: web.Request) -> str:
    """Raises KeyError outside of the middleware."""
    return request[_KEY]


def origin(request: web.Request, organization: str, user: str) -> Origin:
    """What the events of this request descend from."""
    traceparent = request.headers.get("traceparent", "")
    metadata = {"userId": user}
    if request.remote:
        metadata["ipAddress"] = request.remote
    return Origin(
        correlation_id=correlation_id(request),
        organization=organization,
        traceparent=traceparent if is_traceparent(traceparent) else None,
        metadata=metadata,
    )


def is_traceparent(text: str) -> bool:
    """What is none is dropped, as W3C wants it: no request fails because of its tracing."""
    return _TRACEPARENT.fullmatch(text) is not None
