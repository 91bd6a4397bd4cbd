"""What is said on `/ws/chat`: JSON frames `{"type": …, "data": {…}}`."""

from collections.abc import Mapping
from typing import Any

import orjson


class BadFrame(Exception):
    """Answered with an `error` frame; the socket stays open."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def frame(kind: str, content: Mapping[str, Any] | None = None) -> str:
    said: dict[str, Any] = {"type": kind}
    if content is not None:
        said["data"] = content
    return orjson.dumps(said).decode()


def connected(socket_id: str) -> str:
    return frame("connected", {"socketId": socket_id})


def pong() -> str:
    return frame("pong")


def error(code: str, message: str) -> str:
    return frame("error", {"code": code, "message": message})


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
