"""One log line a request. The path goes in, the query string never: it may hold a token."""

from aiohttp import web

from eventbus.process.safe_logging import get_logger

log = get_logger("gateway.access")

QUIET = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds


def tell(request: web.Request, response: web.StreamResponse, seconds: float) -> None:
    """A WebSocket's line is written when it ends."""
    path = request.rel_url.raw_path
    write = log.debug if path in QUIET else log.info
    write(
        "request",
        method=request.method,
        path=path,
        status=response.status,
        ms=round(seconds * 1000, 1),
        client=request.remote,
    )
