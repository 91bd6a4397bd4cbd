"""One log line a request. The path goes in, the query string never: it may hold a token."""

import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

log = structlog.get_logger("gateway.access")

QUIET = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds


@web.middleware
async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A WebSocket's line is written when it ends."""
    began = time.perf_counter()
    response = await handler(request)
    write = log.debug if request.path in QUIET else log.info
    write(
        "request",
        method=request.method,
        path=request.rel_url.raw_path,
        status=response.status,
        ms=round((time.perf_counter() - began) * 1000, 1),
        client=request.remote,
    )
    return response
