"""A gateway that is about to leave says so: to balancers by /readyz, to clients by `Connection: close`."""

from http import HTTPStatus

from aiohttp import hdrs, web


class Drain:
    """Whether this process has been told to leave. What it is asked meanwhile, it serves as ever."""

    under_way = False

    def begin(self) -> None:
        self.under_way = True


DRAIN = web.AppKey("drain", Drain)


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`. A connection that a client keeps is closed when the drain is over, perhaps while his
    next request is on its way; one that ends with an answer loses none. A WebSocket is told by its close frame."""
    if request.app[DRAIN].under_way and response.status != HTTPStatus.SWITCHING_PROTOCOLS:
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"  # aiohttp has written its own header before this hook
