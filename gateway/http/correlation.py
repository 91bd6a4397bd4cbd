"""Which request caused what: the correlation id comes with the request or is made here, goes back with the response,
and travels with every event that the request causes."""

import re
from contextvars import ContextVar, Token

import structlog
from aiohttp import web

from eventbus import Origin
from eventbus.event import uuid7

HEADER = "X-Correlation-Id"

_KEY = web.RequestKey("correlation_id", str)
# What is safe in a header, a log line and a URL. Anything else is not carried on: the request gets an id of ours.
_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
# W3C Trace Context: version, trace id, parent id, flags; all zeros are invalid ids.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def _logged() -> ContextVar[str]:
    """The variable behind structlog's `correlation_id`: to look it up by name takes as long as half a log line."""
    bound = structlog.contextvars.bind_contextvars(correlation_id="")
    structlog.contextvars.reset_contextvars(**bound)
    return bound["correlation_id"].var


_LOGGED = _logged()


def begin(request: web.Request) -> Token[str]:
    """Give the request its id, the one that it brings or a new one. Until `end`, every log line carries it."""
    given = request.headers.get(HEADER)
    request[_KEY] = correlation_id = given if given and _SANE.fullmatch(given) else uuid7()
    return _LOGGED.set(correlation_id)


def end(bound: Token[str]) -> None:
    _LOGGED.reset(bound)


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: the id goes back with every response, also with that of a WebSocket handshake."""
    response.headers[HEADER] = request.get(_KEY) or uuid7()  # aiohttp refuses a few requests before any middleware


def correlation_id(request: web.Request) -> str:
    """Raises KeyError before `begin`."""
    return request[_KEY]


def origin(request: web.Request, organization: str, user: str) -> Origin:
    """What the events of this request descend from."""
    traceparent = request.headers.get("traceparent")
    metadata, remote = {"userId": user}, request.remote
    if remote:
        metadata["ipAddress"] = remote
    return Origin(
        correlation_id=correlation_id(request),
        organization=organization,
        traceparent=traceparent if traceparent and is_traceparent(traceparent) else None,
        metadata=metadata,
    )


def is_traceparent(text: str) -> bool:
    """Whether this is one. Another value is to be dropped, as W3C wants it: no request fails because of its tracing."""
    return _TRACEPARENT.fullmatch(text) is not None
