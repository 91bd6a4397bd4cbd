"""What a command answers, and how that looks on the wire (RESP2)."""

from typing import Any

# bytes, int, None, Status or nested lists of them
Reply = Any


class Status(bytes):
    """A simple string, as +OK."""

    __slots__ = ()


class Refused(Exception):
    """An error reply: its code and its words."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


OK = Status(b"OK")
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


def encode(reply: Reply) -> bytes:
    """The bytes that a server sends."""
    out: list[bytes] = []
    _encode(reply, out)
    return b"".join(out)


def _encode(reply: Reply, out: list[bytes]) -> None:
    if reply is None:
        out.append(b"$-1\r\n")
    elif isinstance(reply, Status):
        out.append(b"+%b\r\n" % reply)
    elif isinstance(reply, bytes):
        out.append(b"$%d\r\n%b\r\n" % (len(reply), reply))
    elif isinstance(reply, int):
        out.append(b":%d\r\n" % reply)
    elif isinstance(reply, Refused):
        out.append(b"-%b\r\n" % reply.text.encode())
    elif isinstance(reply, NilArray):
        out.append(b"*-1\r\n")
    else:
        out.append(b"*%d\r\n" % len(reply))
        for part in reply:
            _encode(part, out)


class NilArray:
    """A null array: what a blocking read answers when its time is over."""


NIL_ARRAY = NilArray()
