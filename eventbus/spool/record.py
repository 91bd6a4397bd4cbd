"""A line of the spool: JSON whose last member is the checksum of all that stands before it.

    {"id":"…","type":"lead.created","meta":{…},"data":"{…}","dueAt":"…","checksum":"…"}    an event
    {"replayed":12345,"behind":"…","checksum":"…"}                                         a mark

`meta` and `data` are those of a stream entry (eventbus.codec); `data` is a string, so that every byte of it comes back.
`dueAt`, of delayed events alone, is wall-clock time; `dedupe` is there if the event has a dedupe key. A mark says that
all before this byte of the file is in Redis; `behind` is the digest of the bytes that end there, so that a mark in a
file it was not made for says nothing.
"""

import math
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from eventbus.codec import decode, encode
from eventbus.dedupe import Once
from eventbus.errors import CodecError
from eventbus.event import Envelope
from eventbus.transport import Outgoing

MARK = b'{"replayed":'  # how the line of a mark begins

_TAIL = b',"checksum":"'
_CLOSING = b'"}'


class Spooled(NamedTuple):
    """An event that waits. `due`: seconds since the epoch before which it is not to be delivered, or None.
    `once`: its dedupe key, if it has one, which is asked for when it is replayed."""

    envelope: Envelope
    due: float | None
    once: Once | None = None

    def outgoing(self, now: float) -> Outgoing:
        """What is to be appended at this time of the wall clock: overdue events at once."""
        return Outgoing(self.envelope, 0.0 if self.due is None else max(0.0, self.due - now), once=self.once)


class Mark(NamedTuple):
    """All before the byte `replayed` is in Redis; `behind` is the digest of the bytes that end there."""

    replayed: int
    behind: str


def pack(item: Outgoing, now: float) -> bytes:
    """The line of an event that is spooled at this time of the wall clock, its newline included."""
    fields = encode(item.envelope)
    event_id, kind, meta, content = fields[1::2]
    assert isinstance(content, bytes)
    parts: dict[str, object] = {
        "id": event_id,
        "type": kind,
        "meta": orjson.Fragment(meta or b"{}"),
        "data": content.decode(),
    }
    if item.later:
        due = item.at.timestamp() if item.at is not None else now + item.delay
        due = math.ceil(due * 1000) / 1000  # never early
        parts["dueAt"] = datetime.fromtimestamp(due, UTC).isoformat()
    if item.once is not None:
        parts["dedupe"] = item.once._asdict()
    return _sealed(orjson.dumps(parts))


def pack_mark(mark: Mark) -> bytes:
    return _sealed(orjson.dumps(mark._asdict()))


def unpack(line: bytes) -> Spooled | Mark:
    """A line without its newline. Raises CodecError if it is torn, changed, or none of ours."""
    body, tail, checksum = line.rpartition(_TAIL)
    if not tail or checksum != digest(body).encode() + _CLOSING:
        raise CodecError("its checksum is missing or wrong")
    try:
        parts = orjson.loads(body + b"}")
        if body.startswith(MARK):
            return Mark(int(parts["replayed"]), str(parts["behind"]))
        return Spooled(_envelope(parts), _due(parts), Once(**parts["dedupe"]) if "dedupe" in parts else None)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CodecError(f"it is no record of the spool: {error!r}") from None


def digest(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()


def _sealed(body: bytes) -> bytes:
    body = body.removesuffix(b"}")
    return b"".join((body, _TAIL, digest(body).encode(), _CLOSING, b"\n"))


def _envelope(parts: dict[str, Any]) -> Envelope:
    meta = parts["meta"]
    return decode(
        {
            b"id": parts["id"].encode(),
            b"type": parts["type"].encode(),
            b"meta": orjson.dumps(meta) if meta else b"",
            b"data": parts["data"].encode(),
        }
    )


def _due(parts: dict[str, Any]) -> float | None:
    return datetime.fromisoformat(parts["dueAt"]).timestamp() if "dueAt" in parts else None
