"""What is said on `/ws/chat`: JSON frames `{"type": …, "data": {…}}`."""

from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

import orjson
from pydantic import Field, ValidationError

from gateway.http.problems import faults_of
from handlers.common.fields import Request
from handlers.message.models import Accepted, Content, MessageId

TOLD = 10  # faults in one answer


class BadFrame(Exception):
    """Answered with an `error` frame; the socket stays open."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Said(Request):
    """The data of a client's `message` frame. The same `id` again is the same message."""

    agent_id: UUID
    content: Content
    conversation_id: UUID | None = None
    id: MessageId | None = None


class MessageFrame(Request):
    type: Literal["message"]
    data: Said


class PingFrame(Request):
    type: Literal["ping"]
    data: dict[str, Any] | None = Field(default=None, max_length=0)


_FRAMES: dict[str, type[MessageFrame] | type[PingFrame]] = {"message": MessageFrame, "ping": PingFrame}


def parse(text: str) -> MessageFrame | PingFrame:
    """A client's frame. Raises BadFrame."""
    try:
        frame = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise BadFrame("BAD_FRAME", "the frame is no JSON") from None
    kind = frame.get("type") if isinstance(frame, dict) else None
    if not isinstance(kind, str):
        raise BadFrame("BAD_FRAME", 'a frame is an object with a "type"')
    if kind not in _FRAMES:
        raise BadFrame("UNKNOWN_TYPE", f"there is no frame of type {kind[:64]!r}")
    try:
        return _FRAMES[kind].model_validate_json(text)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, place)) or 'data'}: {message}" for place, message in faults_of(error)]
        more = [f"and {len(faults) - TOLD} more"] if len(faults) > TOLD else []
        raise BadFrame("INVALID", "; ".join(faults[:TOLD] + more)) from None


def frame(kind: str, content: Mapping[str, Any] | None = None) -> str:
    said: dict[str, Any] = {"type": kind}
    if content is not None:
        said["data"] = content
    return orjson.dumps(said).decode()


def response(content: str) -> str:
    """A `message` frame. `content` is text that is JSON already."""
    return f'{{"type":"message","data":{content}}}'


def connected(socket_id: str) -> str:
    return frame("connected", {"socketId": socket_id})


def pong() -> str:
    return frame("pong")


def accepted(answer: Accepted) -> tuple[str, str]:
    """The two frames that answer a message which is stored, and no other."""
    job = answer.data.model_dump(mode="json", by_alias=True, exclude={"estimated_time"})
    return frame("queued", {"message": answer.message}), frame("processing", job)


def error(code: str, message: str, message_id: str | None = None) -> str:
    """`message_id`: as the client gave it, if it gave one that could be read."""
    about = {} if message_id is None else {"messageId": message_id}
    return frame("error", {**about, "code": code, "message": message})
