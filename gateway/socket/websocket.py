"""`/ws/chat?token=…` or `?ticket=…`: the handshake, the bounds of a socket, and the listener that feeds all of them."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator

from aiohttp import WSCloseCode, web
from pydantic import ValidationError

from eventbus import EventBus, Unavailable
from eventbus.process.safe_logging import get_logger
from eventbus.process.supervision import Background, supervise
from gateway.callers import tickets
from gateway.callers.auth import Caller
from gateway.endpoints.dispatch import AUTHENTICATOR, BUS, DEADLINE
from gateway.http.correlation import origin
from gateway.http.problems import Problem
from gateway.http.server_log import keep_handshakes_out_of_logs
from gateway.socket import frames
from gateway.socket.chat import Chat
from gateway.socket.sockets import TOKEN_REFUSED, TOO_MANY, Socket, Sockets
from gateway.socket.waiting_answers import Responses
from handlers.common.deadline import within
from handlers.common.pushing import PUSH_CHANNEL, Push

HEARTBEAT = 30.0  # seconds between pings; a client that does not answer within half of that is gone
RELISTEN_PAUSE = 1.0  # seconds
HANDSHAKE_CLOSE = 2.0  # seconds that a refused client has to say goodbye
SOCKETS_PER_USER = 20  # at one gateway
MAX_FRAME = 64 * 1024  # bytes
LONGEST_TIMER = 24 * 3_600.0  # seconds until the clock is read again: it may have been set meanwhile

SOCKETS = web.AppKey("sockets", Sockets)
RESPONSES = web.AppKey("responses", Responses)

BACKGROUND = Background("websocket")

log = get_logger("gateway")


async def chat(request: web.Request) -> web.WebSocketResponse:
    """Accept every handshake; a close code tells why a client is refused. Browsers cannot read the status of a
    handshake.

    Frames are not compressed: they are short, and each socket would need a quarter of a megabyte for that."""
    response = web.WebSocketResponse(
        heartbeat=HEARTBEAT, timeout=HANDSHAKE_CLOSE, max_msg_size=MAX_FRAME, autoping=False, compress=False
    )
    await response.prepare(request)
    try:
        caller = await _caller(request)
    except Problem as problem:
        await response.close(code=TOKEN_REFUSED, message=problem.detail.encode())
    except (Unavailable, TimeoutError) as error:
        log.warning("socket refused", reason=str(error) or "the deadline has passed")
        await response.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"a server is away")
    else:
        await _converse(request, response, caller)
    return response


async def _caller(request: web.Request) -> Caller:
    """The caller by his ticket, or else by his token. Raises Problem(401), Unavailable, TimeoutError."""
    ticket = request.query.get("ticket")
    if ticket is None:
        return await request.app[AUTHENTICATOR].caller(request.query.get("token", ""))

    async def redeem() -> Caller:
        async with request.app[BUS].transaction() as tx:
            return await tickets.redeem(tx, ticket)

    return await within(DEADLINE, redeem())


async def _converse(request: web.Request, response: web.WebSocketResponse, caller: Caller) -> None:
    sockets, responses, owner = request.app[SOCKETS], request.app[RESPONSES], (caller.organization, caller.user)
    if len(sockets.of(owner)) >= SOCKETS_PER_USER:
        await response.close(code=TOO_MANY, message=f"more than {SOCKETS_PER_USER} sockets".encode())
        return
    socket = Socket(owner, response, request.transport)
    sockets.add(socket)
    socket.answer(frames.connected(socket.id))
    responses.look(owner)  # after `add`: later pushes reach the socket, earlier ones are rows
    expiring = BACKGROUND.start(_expire(socket, caller.until), f"expiry:{socket.id}")
    try:
        descent = origin(request, caller.organization, caller.user)
        await Chat(request.app[BUS], responses, socket, caller, descent).run(response)
    finally:
        expiring.cancel()
        sockets.remove(socket)
        await socket.close(response.close_code or 1000)


async def _expire(socket: Socket, until: int) -> None:
    """Close the socket when its token expires."""
    while (left := until - time.time()) > 0:
        await asyncio.sleep(min(left, LONGEST_TIMER))
    socket.refuse(TOKEN_REFUSED, "the token has expired")


async def _feed(app: web.Application) -> AsyncIterator[None]:
    """While the application runs, send out what is broadcast and what waits."""
    working = [
        asyncio.create_task(supervise(name, run), name=name)
        for name, run in (
            ("pushes", functools.partial(_listen, app[BUS], app[SOCKETS], app[RESPONSES])),
            ("responses", app[RESPONSES].run),
        )
    ]
    yield
    # Before Python 3.12 asyncio.wait_for, which redis-py connects with, may swallow a cancellation.
    while left := [task for task in working if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.1)


async def _listen(bus: EventBus, sockets: Sockets, responses: Responses) -> None:
    while True:
        try:
            async for message in bus.shared.listen(PUSH_CHANNEL, responses.look_for_missed):
                _hand_on(sockets, message)
        except Exception:  # one message or one server must not silence all sockets
            log.exception("pushes stopped, listening again")
        await asyncio.sleep(RELISTEN_PAUSE)


def _hand_on(sockets: Sockets, message: bytes) -> None:
    try:
        push = Push.model_validate_json(message)
    except ValidationError as error:
        log.warning("push ignored", reason=f"{error.error_count()} faults")
        return
    found = sockets.of((push.organization_id, push.user_id))
    if not found:
        return
    frame, message_id = frames.frame(push.type, push.data), push.data.get("messageId")
    for socket in found:
        if push.type == "message" and isinstance(message_id, str):
            socket.deliver(message_id, frame)
        else:
            socket.send(frame)


async def _close_sockets(app: web.Application) -> None:
    await app[SOCKETS].close_all()


def mount(app: web.Application, bus: EventBus) -> None:
    keep_handshakes_out_of_logs()
    app[SOCKETS] = Sockets()
    app[RESPONSES] = Responses(bus, app[SOCKETS])
    app.on_shutdown.append(_close_sockets)
    app.cleanup_ctx.append(_feed)
