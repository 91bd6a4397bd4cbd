"""`/ws/chat?token=…`: one socket from handshake to end, and the listener that feeds all of them."""

import asyncio
from collections.abc import AsyncIterator

import structlog
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from gateway import frames
from gateway.auth import Caller
from gateway.dispatch import AUTHENTICATOR, BUS, MAX_BODY
from gateway.problems import Problem
from gateway.sockets import TOKEN_REFUSED, Socket, Sockets
from handlers.pushing import PUSH_CHANNEL, Push

HEARTBEAT = 30.0  # seconds between pings; a client that does not answer within half of that is gone
RELISTEN_PAUSE = 1.0  # seconds
HANDSHAKE_CLOSE = 2.0  # seconds that a refused client has to say goodbye

SOCKETS = web.AppKey("sockets", Sockets)

log = structlog.get_logger("gateway")


async def chat(request: web.Request) -> web.WebSocketResponse:
    """A browser cannot read the status of a refused handshake: a bad token is told by close code 4401."""
    response = web.WebSocketResponse(heartbeat=HEARTBEAT, timeout=HANDSHAKE_CLOSE, max_msg_size=MAX_BODY)
    await response.prepare(request)
    try:
        caller = await request.app[AUTHENTICATOR].caller(request.query.get("token", ""))
    except Problem as problem:
        await response.close(code=TOKEN_REFUSED, message=problem.detail.encode())
        return response
    await _converse(request, response, caller)
    return response


async def _converse(request: web.Request, response: web.WebSocketResponse, caller: Caller) -> None:
    sockets = request.app[SOCKETS]
    socket = Socket((caller.organization, caller.user), response, request.transport)
    sockets.add(socket)
    try:
        socket.send(frames.connected(socket.id))
        async for message in response:
            if message.type is WSMsgType.ERROR:
                break
            socket.send(_answer(message.data if message.type is WSMsgType.TEXT else ""))
    finally:
        sockets.remove(socket)
        await socket.close(response.close_code or 1000)


def _answer(text: str) -> str:
    try:
        match frames.kind_of(text):
            case "ping":
                return frames.pong()
            case "message":
                return frames.error("NOT_IMPLEMENTED", "this gateway takes no messages yet")
            case other:
                return frames.error("UNKNOWN_TYPE", f"there is no frame of type {other[:64]!r}")
    except frames.BadFrame as bad:
        return frames.error(bad.code, str(bad))


async def feed(app: web.Application) -> AsyncIterator[None]:
    """For `cleanup_ctx`: pushes what is broadcast, for as long as the application runs."""
    listening = asyncio.create_task(_listen(app), name="pushes")
    yield
    # Before Python 3.12 asyncio.wait_for, which redis-py connects with, may swallow a cancellation.
    while not listening.done():
        listening.cancel()
        await asyncio.wait({listening}, timeout=0.1)


async def _listen(app: web.Application) -> None:
    while True:
        try:
            async for message in app[BUS].listen(PUSH_CHANNEL):
                _hand_on(app[SOCKETS], message)
        except Exception:  # one message or one server must not silence all sockets
            log.exception("pushes stopped, listening again")
        await asyncio.sleep(RELISTEN_PAUSE)


def _hand_on(sockets: Sockets, message: bytes) -> None:
    try:
        push = Push.model_validate_json(message)
    except ValidationError as error:
        log.warning("push ignored", reason=f"{error.error_count()} faults")
        return
    sockets.send((push.organization_id, push.user_id), frames.frame(push.type, push.data))


async def close_sockets(app: web.Application) -> None:
    """For `on_shutdown`."""
    await app[SOCKETS].close_all()
