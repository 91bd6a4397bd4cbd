"""Frames for the WebSockets that a user has open, at any gateway. They are broadcast, and not stored.

A push reaches only sockets that are open now: what must arrive is written down before it is pushed.
"""

from typing import Any, Protocol

from pydantic import JsonValue

from eventbus import Unavailable
from eventbus.process.safe_logging import get_logger
from handlers.common.fields import Answer

PUSH_CHANNEL = "pubsub:push"

log = get_logger("handlers")


class Push(Answer):
    """What goes over PUSH_CHANNEL. Every gateway hands `{"type": …, "data": …}` to the sockets of this user."""

    organization_id: str
    user_id: str
    type: str
    data: dict[str, JsonValue]


class Broadcaster(Protocol):
    """A Context, or `bus.shared`."""

    async def broadcast(self, channel: str, message: bytes) -> None: ...


async def push(to: Broadcaster, organization: str, user: str, kind: str, data: dict[str, Any]) -> None:
    """Push a frame of type `kind` to all sockets of the user; `data` is JSON. While Redis is away, it reaches none."""
    try:
        await push_surely(to, organization, user, kind, data)
    except Unavailable as error:
        log.warning("not pushed", kind=kind, reason=str(error))


async def push_surely(to: Broadcaster, organization: str, user: str, kind: str, data: dict[str, Any]) -> None:
    """As `push`, but raises Unavailable while Redis is away: for a handler that is to run again then."""
    frame = Push(organization_id=organization, user_id=user, type=kind, data=data)
    await to.broadcast(PUSH_CHANNEL, frame.model_dump_json(by_alias=True).encode())
