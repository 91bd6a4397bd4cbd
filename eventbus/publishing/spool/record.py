"""A line of the spool: JSON whose last member is the checksum of all that stands before it.

    {"id":"…","type":"lead.created","meta":{…},"data":"{…}","dueAt":"…","checksum":"…"}    an event
    {"operation":"session.add",…,"checksum":"…"}                                           any other operation
    {"replayed":12345,"behind":"…","checksum":"…"}                                         a mark

An operation was acknowledged, and Redis has not heard of it. It knows how it is replayed; those that are no events are
declared where they come from, with `spoolable`. No line may hold `"}` followed by `{"`, directly or with one character
between them (text in strings cannot): that is where two lines are split that have lost what was between them.

`meta` and `data` are those of a stream entry (eventbus.contract.codec); `data` is a string, so that every byte of it
comes back.
`dueAt`, of delayed events alone, is wall-clock time; `dedupe` is there if the event has a dedupe key. A mark says that
all before this byte of the file is in Redis; `behind` is the digest of the bytes that end there, so that a mark in a
file it was not made for says nothing.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import orjson

from eventbus.contract.broker import Broker
from eventbus.contract.codec import decode, encode
from eventbus.contract.dedupe import Once, check_once
from eventbus.contract.outgoing import Outgoing, fates_of
from eventbus.errors import CodecError, EventBusError, Full, Unavailable
from eventbus.event import Envelope

MARK = b'{"replayed":'  # how the line of a mark begins

_TAIL = b',"checksum":"'
_CLOSING = b'"}'

Parts = Mapping[str, Any]  # of a line, as JSON has them


class Operation(Protocol):
    """Acknowledged, and kept on the disk until Redis has it."""

    @property
    def time(self) -> datetime:
        """When it was made."""

    @property
    def series(self) -> object:
        """Operations that follow each other and have the same one are replayed in one run."""

    def parts(self) -> dict[str, object]:
        """All that is needed to replay it, for a line."""

    @classmethod
    async def replay(cls, run: "Sequence[Self]", transport: Broker) -> "list[Refused]":
        """Apply these, in order. What was applied before changes nothing.

        Raises Unavailable or Full: then they stay in the spool, all of them. What can never be applied is returned."""


class Refused(NamedTuple):
    """An operation that was acknowledged and cannot be applied, and why."""

    operation: Operation
    reason: str


O = TypeVar("O", bound=Operation)  # noqa: E741

_read: dict[str, Callable[[Parts], Operation]] = {}


class Spooled(NamedTuple):
    """An event that waits. `due`: seconds since the epoch before which it is not to be delivered, or None.
    `once`: its dedupe key, if it has one, which is asked for when it is replayed."""

    envelope: Envelope
    due: float | None
    once: Once | None = None

    @classmethod
    def of(cls, item: Outgoing, now: float) -> Self:
        """What is to be published, spooled at this time of the wall clock."""
        due = None
        if item.later:
            due = item.at.timestamp() if item.at is not None else now + item.delay
            due = math.ceil(due * 1000) / 1000  # never early
        return cls(item.envelope, due, item.once)

    def outgoing(self, now: float) -> Outgoing:
        """What is to be appended at this time of the wall clock: overdue events at once."""
        return Outgoing(self.envelope, 0.0 if self.due is None else max(0.0, self.due - now), once=self.once)

    @property
    def time(self) -> datetime:
        return self.envelope.time

    @property
    def series(self) -> object:
        return "publishes"

    def parts(self) -> dict[str, object]:
        event_id, kind, meta, content = encode(self.envelope)[1::2]
        assert isinstance(content, bytes)
        parts: dict[str, object] = {
            "id": event_id,
            "type": kind,
            "meta": orjson.Fragment(meta or b"{}"),
            "data": content.decode(),
        }
        if self.due is not None:
            parts["dueAt"] = datetime.fromtimestamp(self.due, UTC).isoformat()
        if self.once is not None:
            parts["dedupe"] = self.once._asdict()
        return parts

    @classmethod
    def read(cls, parts: Parts) -> Self:
        return cls(_envelope(parts), _due(parts), check_once(Once(**parts["dedupe"])) if "dedupe" in parts else None)

    @classmethod
    async def replay(cls, run: Sequence[Self], transport: Broker) -> list[Refused]:
        now = time.time()
        try:
            await transport.append([record.outgoing(now) for record in run], again=True)
        except EventBusError as error:
            fates = fates_of(error, len(run))
            for fate in fates:
                if isinstance(fate, (Unavailable, Full)):
                    raise fate from None
            pairs = zip(run, fates, strict=True)
            return [Refused(record, str(fate)) for record, fate in pairs if isinstance(fate, EventBusError)]
        return []


class Mark(NamedTuple):
    """All before the byte `replayed` is in Redis; `behind` is the digest of the bytes that end there."""

    replayed: int
    behind: str


def spoolable(name: str, read: Callable[[Parts], O]) -> None:
    """Read lines whose `operation` is `name` with this function. It may raise what a missing or odd part raises."""
    _read[name] = read


def pack(operation: Operation) -> bytes:
    """The line of an operation, its newline included."""
    return _sealed(orjson.dumps(operation.parts()))


def pack_mark(mark: Mark) -> bytes:
    return _sealed(orjson.dumps(mark._asdict()))


def unpack(line: bytes) -> Operation | Mark:
    """A line without its newline. Raises CodecError if it is torn, changed, or none of ours."""
    body, tail, checksum = line.rpartition(_TAIL)
    if not tail or checksum != digest(body).encode() + _CLOSING:
        raise CodecError("its checksum is missing or wrong")
    try:
        parts = orjson.loads(body + b"}")
        if body.startswith(MARK):
            return Mark(int(parts["replayed"]), str(parts["behind"]))
        return _read[parts["operation"]](parts) if "operation" in parts else Spooled.read(parts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CodecError(f"it is no record of the spool: {error!r}") from None


def digest(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()


def _sealed(body: bytes) -> bytes:
    body = body.removesuffix(b"}")
    return b"".join((body, _TAIL, digest(body).encode(), _CLOSING, b"\n"))


def _envelope(parts: Parts) -> Envelope:
    meta = parts["meta"]
    return decode(
        {
            b"id": parts["id"].encode(),
            b"type": parts["type"].encode(),
            b"meta": orjson.dumps(meta) if meta else b"",
            b"data": parts["data"].encode(),
        }
    )


def _due(parts: Parts) -> float | None:
    return datetime.fromisoformat(parts["dueAt"]).timestamp() if "dueAt" in parts else None
