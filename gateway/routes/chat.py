"""/ws/chat. What is said there: see gateway.socket.websocket."""

from aiohttp import web

from gateway.endpoints.api import Routes
from gateway.socket import websocket
from handlers.common.fields import Query

chat = Routes("/ws/chat")


class ChatQuery(Query):
    """`token`: as in the Authorization header, which a browser cannot send along with a handshake; or a `ticket`."""

    token: str = ""
    ticket: str | None = None


@chat.raw("GET", token=False, answers={101: {}}, problems={400})
async def open_chat(request: web.Request, query: ChatQuery) -> web.StreamResponse:  # noqa: ARG001
    """Open a WebSocket.

    A bad token is told by close code 4401: a browser cannot read the status of a handshake that is refused."""
    return await websocket.chat(request)
