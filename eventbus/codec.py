"""Envelope to stream entry and back.

Every entry of every stream has the same four fields, which makes the field names nearly free in Redis' memory:

    id    the event id (UUIDv7; it carries the time)
    type  the dotted type
    meta  JSON of the attributes that are present and differ from their default, or nothing
    data  JSON of the event
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json

from eventbus.errors import CodecError
from eventbus.event import NORMAL_PRIORITY, SOURCE, Envelope, Event, Origin, event_class, uuid7

Fields = Mapping[bytes, bytes]

MAX_PAYLOAD = 2**20  # bytes of JSON
_SURELY_READABLE = 200  # levels of nesting that the parser bears

_UUID7 = re.compile(rb"0[0-9a-f]{7}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")  # until the year 2527
_TEXTS = frozenset({"subject", "organization", "correlationId", "causationId", "traceparent", "source", "only"})


def envelop(
    event: Event,
    origin: Origin = Origin(),
    *,
    key: str | None = None,
    priority: int = NORMAL_PRIORITY,
    organization: str | None = None,
    max_payload: int = MAX_PAYLOAD,
) -> Envelope:
    """Wrap an event that is about to be published.

    The organization is, in this order: the argument, the event's own `organization_id`, that of the origin.
    Raises CodecError if the event's class has no type, the priority is not 1 to 10, or the event is not fit for JSON,
    has more bytes of it than `max_payload`, or is nested so deeply that nobody could read it.
    """
    if not event.event_type:
        raise CodecError(f"{type(event).__qualname__} has no event type: declare it with class …(Event, type='…')")
    if not 1 <= priority <= 10:
        raise CodecError(f"priority {priority} is not 1 (first) to 10 (last)")
    try:
        # All fields, those that are None too: left out, they would come back as their defaults.
        packed = event.__pydantic_serializer__.to_json(event, by_alias=True)
    except PydanticSerializationError as error:
        raise CodecError(f"{event.event_type} cannot be written as JSON: {error}") from error
    _check_payload(event.event_type, packed, max_payload)
    owner = organization or getattr(event, "organization_id", None) or origin.organization
    return Envelope(
        id=uuid7(),
        type=event.event_type,
        data=packed,
        subject=key,
        organization=owner if owner is None else str(owner),
        correlation_id=origin.correlation_id,
        causation_id=origin.causation_id,
        traceparent=origin.traceparent,
        priority=priority,
        metadata=origin.metadata,
    )


def _check_payload(event_type: str, packed: bytes, limit: int) -> None:
    """What is stored must be readable: a dead letter is no place to learn that it is not."""
    if len(packed) > limit:
        raise CodecError(
            f"{event_type} has {len(packed):,} bytes of JSON and the limit is {limit:,}: publish a reference to what "
            "is large, or raise EventBus(max_payload=…)"
        )
    if packed.count(b"[") + packed.count(b"{") > _SURELY_READABLE:  # there may be that many levels, or only lists
        try:
            from_json(packed)
        except ValueError as error:
            raise CodecError(f"{event_type} could not be read again: {error}") from None


def open_event(envelope: Envelope) -> Event:
    """The typed event inside an envelope. Raises CodecError (UnknownEventType, or data that does not fit the type)."""
    cls = event_class(envelope.type)
    try:
        return cls.__pydantic_validator__.validate_json(envelope.data, extra="ignore")
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'data'}: {e['msg']}" for e in error.errors()[:5])
        raise CodecError(f"data does not fit {envelope.type}: {faults}") from None
    except Exception as error:  # a validator of the event's own that stumbles over what it was given
        raise CodecError(f"data does not fit {envelope.type}: {type(error).__name__}: {error}") from error


def encode(envelope: Envelope) -> tuple[bytes | str, ...]:
    """The flat field, value, … list of a stream entry. Raises CodecError if an attribute is not fit for JSON."""
    try:
        meta = _meta(envelope)
    except orjson.JSONEncodeError as error:
        raise CodecError(f"an attribute of {envelope.type} cannot be written as JSON: {error}") from error
    return ("id", envelope.id, "type", envelope.type, "meta", meta, "data", envelope.data)


def _meta(envelope: Envelope) -> bytes:
    meta: dict[str, object] = {}
    if envelope.subject is not None:
        meta["subject"] = envelope.subject
    if envelope.organization is not None:
        meta["organization"] = envelope.organization
    if envelope.correlation_id is not None:
        meta["correlationId"] = envelope.correlation_id
    if envelope.causation_id is not None:
        meta["causationId"] = envelope.causation_id
    if envelope.traceparent is not None:
        meta["traceparent"] = envelope.traceparent
    if envelope.source != SOURCE:
        meta["source"] = envelope.source
    if envelope.priority != NORMAL_PRIORITY:
        meta["priority"] = envelope.priority
    if envelope.metadata:
        meta["metadata"] = envelope.metadata
    if envelope.only is not None:
        meta["only"] = envelope.only
    return orjson.dumps(meta) if meta else b""


def decode(fields: Fields) -> Envelope:
    """The envelope of a stream entry. Raises CodecError if it is not one of ours."""
    try:
        packed = fields[b"meta"]
        meta = _attributes(packed) if packed else {}
        return Envelope(
            id=_event_id(fields[b"id"]),
            type=fields[b"type"].decode(),
            data=fields[b"data"],
            subject=meta.get("subject"),
            organization=meta.get("organization"),
            correlation_id=meta.get("correlationId"),
            causation_id=meta.get("causationId"),
            traceparent=meta.get("traceparent"),
            source=meta.get("source", SOURCE),
            priority=meta.get("priority", NORMAL_PRIORITY),
            metadata=meta.get("metadata", {}),
            only=meta.get("only"),
        )
    except KeyError as error:
        raise CodecError(f"the entry has no field {error.args[0].decode()!r}") from None
    except ValueError as error:
        raise CodecError(f"the entry is not an envelope: {error}") from None


def _event_id(raw: bytes) -> str:
    """Raises ValueError if it is no UUIDv7: all that reads the time in it relies on that."""
    if not _UUID7.fullmatch(raw):
        raise ValueError("its id is no UUIDv7")
    return raw.decode()


def _attributes(packed: bytes) -> dict[str, Any]:
    """Those that we know are what they should be; others may be a newer version's. Raises ValueError."""
    meta = orjson.loads(packed)
    if not isinstance(meta, dict):
        raise ValueError("its meta is no JSON object")  # noqa: TRY004 - decode makes one error of all
    for name, value in meta.items():
        if name == "priority":
            fits = type(value) is int and 1 <= value <= 10
        elif name == "metadata":
            fits = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
        else:
            fits = isinstance(value, str) or name not in _TEXTS
        if not fits:
            raise ValueError(f"its {name} is {value!r}")
    return meta


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A flat field, value, … list as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
