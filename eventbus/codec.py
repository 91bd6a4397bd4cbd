"""Envelope to stream entry and back.

Every entry of every stream has the same four fields, which makes the field names nearly free in Redis' memory:

    id    the event id (UUIDv7; it carries the time)
    type  the dotted type
    meta  JSON of the attributes that are present and differ from their default, or nothing
    data  JSON of the event
"""

from collections.abc import Mapping, Sequence

import orjson
from pydantic import ValidationError

from eventbus.errors import CodecError
from eventbus.event import NORMAL_PRIORITY, SOURCE, Envelope, Event, Origin, event_class, unix_ms, uuid7

Fields = Mapping[bytes, bytes]


def envelop(
    event: Event,
    origin: Origin = Origin(),
    *,
    key: str | None = None,
    priority: int = NORMAL_PRIORITY,
    organization: str | None = None,
) -> Envelope:
    """Wrap an event that is about to be published.

    The organization is, in this order: the argument, the event's own `organization_id`, that of the origin.
    Raises CodecError if the event's class has no type or the priority is not 1 to 10.
    """
    if not event.event_type:
        raise CodecError(f"{type(event).__qualname__} has no event type: declare it with class …(Event, type='…')")
    if not 1 <= priority <= 10:
        raise CodecError(f"priority {priority} is not 1 (first) to 10 (last)")
    return Envelope(
        id=uuid7(),
        type=event.event_type,
        data=event.__pydantic_serializer__.to_json(event, by_alias=True, exclude_none=True),
        subject=key,
        organization=organization or getattr(event, "organization_id", None) or origin.organization,
        correlation_id=origin.correlation_id,
        causation_id=origin.causation_id,
        traceparent=origin.traceparent,
        priority=priority,
        metadata=origin.metadata,
    )


def open_event(envelope: Envelope) -> Event:
    """The typed event inside an envelope. Raises CodecError (UnknownEventType, or data that does not fit the type)."""
    cls = event_class(envelope.type)
    try:
        return cls.model_validate_json(envelope.data, extra="ignore")
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'data'}: {e['msg']}" for e in error.errors()[:5])
        raise CodecError(f"data does not fit {envelope.type}: {faults}") from None


def encode(envelope: Envelope) -> tuple[bytes | str, ...]:
    """The flat field, value, … list of a stream entry."""
    return ("id", envelope.id, "type", envelope.type, "meta", _meta(envelope), "data", envelope.data)


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
        event_id = fields[b"id"].decode()
        unix_ms(event_id)
        packed = fields[b"meta"]
        meta = orjson.loads(packed) if packed else {}
        return Envelope(
            id=event_id,
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
    except (ValueError, AttributeError) as error:
        raise CodecError(f"the entry is not an envelope: {error}") from None


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A flat field, value, … list as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
