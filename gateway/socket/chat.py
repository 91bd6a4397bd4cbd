"""The conversation of one socket: what its client says, one frame after the other, and what is answered."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import WSMessage, WSMsgType, web

from eventbus import EventBus, Full, Origin, Unavailable
from eventbus.event import uuid7
from eventbus.process.safe_logging import get_logger
from gateway.callers.auth import Caller
from gateway.endpoints.dispatch import DEADLINE
from gateway.socket import frames
from gateway.socket.frames import BadFrame, MessageFrame, Said
from gateway.socket.sockets import TOO_MANY, Socket
from gateway.socket.waiting_answers import Responses
from handlers.common.deadline import within
from handlers.common.errors import Conflict, Invalid, Refused
from handlers.message import service
from handlers.message.events import Channel
from handlers.message.models import NewMessage

FRAMES_AT_ONCE = 60
FRAMES_PER_SECOND = 10.0  # in the long run; the socket of a client that sends more is closed

log = get_logger("gateway")


class Allowance:
    """A token bucket: `burst` at once, `rate` a second in the long run."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = float(burst), clock()

    def take(self) -> bool:
        """Take one; False if none is left."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True)
class Chat:
    """Frames are answered in their order. While one is being stored the next is not read: a client that sends faster
    than messages can be stored is slowed down by its own connection."""

    bus: EventBus
    responses: Responses
    socket: Socket
    caller: Caller
    origin: Origin

    async def run(self, response: web.WebSocketResponse) -> None:
        """Answer frames until the client leaves, or is sent away."""
        allowance = Allowance(FRAMES_PER_SECOND, FRAMES_AT_ONCE)
        async for message in response:
            if message.type is WSMsgType.ERROR:
                return
            if message.type is WSMsgType.PONG:
                self.responses.taken(self.socket.owner, self.socket.confirmed(message.data))
            elif not allowance.take():
                self.socket.refuse(TOO_MANY, f"more than {FRAMES_PER_SECOND:g} frames a second")
                return
            elif message.type is WSMsgType.PING:
                await response.pong(message.data)
            else:
                await self._answer(message)

    async def _answer(self, message: WSMessage) -> None:
        try:
            frame = frames.parse(message.data if message.type is WSMsgType.TEXT else "")
        except BadFrame as bad:
            self.socket.answer(frames.error(bad.code, str(bad)))
            return
        if isinstance(frame, MessageFrame):
            await self._take(frame)
        else:
            self.socket.answer(frames.pong())

    async def _take(self, frame: MessageFrame) -> None:
        with self.socket.holding():
            self.socket.answer(*await self._store(frame.data))

    async def _store(self, said: Said) -> tuple[str, ...]:
        """Store a message. Returns the frames that say what became of it."""
        new = NewMessage.model_validate(
            {
                "agent_id": said.agent_id,
                "message": said.content,
                "conversation_id": said.conversation_id,
                "channel": Channel.WEB,
                "id": said.id,
            },
            by_name=True,
        )
        caller, origin = self.caller, self.origin._replace(correlation_id=uuid7())  # one of its own for each message
        accepting = service.accept_now(self.bus, origin, caller.user, caller.tier, new)
        try:
            return frames.accepted(await within(DEADLINE, accepting))
        except Refused as refused:
            return (frames.error(_code_of(refused), str(refused), new.id),)
        except (Unavailable, Full, TimeoutError) as error:
            log.warning("message refused", socket_id=self.socket.id, reason=str(error) or "the deadline has passed")
            told = "a server is away, or does not answer: send it again, with the same id if it has one"
            return (frames.error("UNAVAILABLE", told, new.id),)
        except Exception:  # the last place that can answer
            log.exception("message failed", socket_id=self.socket.id, correlation_id=origin.correlation_id)
            told = f"an unexpected error; its traceback is in the log under {origin.correlation_id}"
            return (frames.error("INTERNAL", told, new.id),)


def _code_of(refused: Refused) -> str:
    match refused:
        case Conflict():
            return "CONFLICT"
        case Invalid():
            return "INVALID"
        case _:
            return "NOT_FOUND"
