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
from eventbus.upcasting import upcast

Fields = Mapping[bytes, bytes]

MAX_PAYLOAD = 2**20  # bytes of JSON
_FLAT = 8  # four fields and their values
_SURELY_READABLE = 200  # levels of nesting that the parser bears

_UUID7 = re.compile(rb"0[0-9a-f]{7}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")  # until the year 2527
# The attributes behind causationId, by their names on the wire, and what they are when they are left out.
_OTHERS = ("traceparent", "source", "priority", "metadata", "only", "version", "replayed")
_USUAL: list[object] = [None, SOURCE, NORMAL_PRIORITY, {}, None, 1, False]
_ATTRIBUTES = ("subject", "organization", "correlationId", "causationId", *_OTHERS)
_PLACES = {name: place for place, name in enumerate(_ATTRIBUTES)}
_DEFAULTS = (None, None, None, None, *_USUAL)
_TEXTS = frozenset(_ATTRIBUTES) - {"priority", "metadata", "version", "replayed"}


def envelop(
    event: Event,
    origin: Origin = Origin(),
    *,
    key: str | None = None,
    priority: int = NORMAL_PRIORITY,
    organization: str | None = None,
    max_payload: int = MAX_PAYLOAD,
    source: str = SOURCE,
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
    # What is stored must be readable: a dead letter is no place to learn that it is not.
    if len(packed) > max_payload or packed.count(b"[") + packed.count(b"{") > _SURELY_READABLE:
        _check_payload(event.event_type, packed, max_payload)
    owner = organization or getattr(event, "organization_id", None) or origin.organization
    correlation_id, causation_id, _, traceparent, metadata = origin
    owner = owner if owner is None else str(owner)
    # In their order, which is quicker than by name.
    return Envelope(
        uuid7(),
        event.event_type,
        packed,
        key,
        owner,
        correlation_id,
        causation_id,
        traceparent,
        source,
        priority,
        metadata,
        None,
        event.event_version,
    )


def _check_payload(event_type: str, packed: bytes, limit: int) -> None:
    """There may be as many levels as there are brackets, or only lists."""
    if len(packed) > limit:
        raise CodecError(
            f"{event_type} has {len(packed):,} bytes of JSON and the limit is {limit:,}: publish a reference to what "
            "is large, or raise EventBus(max_payload=…)"
        )
    try:
        from_json(packed)
    except ValueError as error:
        raise CodecError(f"{event_type} could not be read again: {error}") from None


def open_event(envelope: Envelope) -> Event:
    """The typed event inside an envelope; an older version is upcast first, a newer one is read as far as it is known.

    Raises CodecError (UnknownEventType, or data that does not fit the type, or cannot be upcast)."""
    cls = event_class(envelope.type)
    older = envelope.version < cls.event_version
    data = upcast(cls, envelope.version, envelope.data) if older else envelope.data
    try:
        event: Event = cls.__pydantic_validator__.validate_json(data, extra="ignore")
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'data'}: {e['msg']}" for e in error.errors()[:5])
        raise CodecError(f"data does not fit {_versioned(envelope, cls)}: {faults}") from None
    except Exception as error:  # a validator of the event's own that stumbles over what it was given
        raise CodecError(f"data does not fit {_versioned(envelope, cls)}: {type(error).__name__}: {error}") from error
    return event


def _versioned(envelope: Envelope, cls: type[Event]) -> str:
    """The type; and both versions, if there are two."""
    if envelope.version == cls.event_version:
        return envelope.type
    return f"{envelope.type} (it is of version {envelope.version}, and this process has {cls.event_version})"


def encode(envelope: Envelope) -> tuple[bytes | str, ...]:
    """The flat field, value, … list of a stream entry. Raises CodecError if an attribute is not fit for JSON."""
    event_id, event_type, data, subject, organization, correlation_id, causation_id, *others = envelope
    meta: dict[str, object] = {}
    if subject is not None:
        meta["subject"] = subject
    if organization is not None:
        meta["organization"] = organization
    if correlation_id is not None:
        meta["correlationId"] = correlation_id
    if causation_id is not None:
        meta["causationId"] = causation_id
    if others != _USUAL:
        meta |= {name: other for name, other, usual in zip(_OTHERS, others, _USUAL, strict=True) if other != usual}
    try:
        packed = orjson.dumps(meta) if meta else b""
    except orjson.JSONEncodeError as error:
        raise CodecError(f"an attribute of {event_type} cannot be written as JSON: {error}") from error
    return ("id", event_id, "type", event_type, "meta", packed, "data", data)


def decode(fields: Fields) -> Envelope:
    """The envelope of a stream entry. Raises CodecError if it is not one of ours."""
    try:
        event_id, event_type = _event_id(fields[b"id"]), fields[b"type"].decode()
        packed, data = fields[b"meta"], fields[b"data"]
        if not packed:
            return Envelope(event_id, event_type, data)
        return Envelope(event_id, event_type, data, *_attributes(packed))
    except KeyError as error:
        raise CodecError(f"the entry has no field {error.args[0].decode()!r}") from None
    except ValueError as error:
        raise CodecError(f"the entry is not an envelope: {error}") from None


def _event_id(raw: bytes) -> str:
    """Raises ValueError if it is no UUIDv7: all that reads the time in it relies on that."""
    if not _UUID7.fullmatch(raw):
        raise ValueError("its id is no UUIDv7")
    return raw.decode()


def _attributes(packed: bytes) -> list[Any]:
    """All that an envelope has behind its data, in its order. Those that we know are what they should be; others may be
    a newer version's. Raises ValueError."""
    meta = orjson.loads(packed)
    if not isinstance(meta, dict):
        raise ValueError("its meta is no JSON object")  # noqa: TRY004 - decode makes one error of all
    found = list(_DEFAULTS)
    for name, value in meta.items():
        place = _PLACES.get(name)
        if place is None:
            continue
        if type(value) is not str or name not in _TEXTS:
            _check_attribute(name, value)
        found[place] = value
    return found


def _check_attribute(name: str, value: object) -> None:
    if name == "priority":
        fits = type(value) is int and 1 <= value <= 10
    elif name == "version":
        fits = type(value) is int and value >= 1
    elif name == "replayed":
        fits = type(value) is bool
    else:
        fits = name == "metadata" and isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if not fits:
        raise ValueError(f"its {name} is {value!r}")


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A flat field, value, … list as a mapping."""
    if len(flat) == _FLAT:  # an entry of ours; all of this is done for every event
        a, b, c, d, e, f, g, h = flat
        return {a: b, c: d, e: f, g: h}
    parts = iter(flat)
    return dict(zip(parts, parts, strict=True))
