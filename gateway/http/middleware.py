"""What surrounds every request, in one middleware: each further one would cost every request a coroutine."""

import time

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.http import access_log, correlation, problems
from gateway.http.traffic import TRAFFIC


@web.middleware
async def surroundings(request: web.Request, handler: Handler) -> web.StreamResponse:
    """From the outside in: an id for all that happens, a count and a line in the log for every answer, an answer to
    every failure."""
    bound = correlation.begin(request)
    try:
        began = time.perf_counter()
        try:
            response = await handler(request)
        except Exception as error:  # noqa: BLE001 - the last place that can answer
            response = problems.answer(error, request)
        seconds = time.perf_counter() - began
        request.app[TRAFFIC].count(request, response.status, seconds)
        access_log.tell(request, response, seconds)
        return response
    finally:
        correlation.end(bound)
