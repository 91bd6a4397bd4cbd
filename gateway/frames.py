"""What is said on `/ws/chat`: JSON frames `{"type": …, "data": {…}}`."""

from typing import Any

import orjson

from handlers.notification.models import Notification


class BadFrame(Exception):
    """Answered with an `error` frame; the socket stays open."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def connected(socket_id: str) -> str:
    return _frame("connected", {"socketId": socket_id})


def pong() -> str:
    return _frame("pong")


def error(code: str, message: str) -> str:
    return _frame("error", {"code": code, "message": message})


def notification(pushed: Notification) -> str:
    return _frame("notification", pushed.model_dump(mode="json", by_alias=True))


def kind_of(text: str) -> str:
    """The type of a client's frame. Raises BadFrame."""
    try:
        frame = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise BadFrame("BAD_FRAME", "the frame is no JSON") from None
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise BadFrame("BAD_FRAME", 'a frame is an object with a "type"')
    kind: str = frame["type"]
    return kind


def _frame(kind: str, content: dict[str, Any] | None = None) -> str:
    frame: dict[str, Any] = {"type": kind}
    if content is not None:
        frame["data"] = content
    return orjson.dumps(frame).decode()
