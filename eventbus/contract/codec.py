"""Envelope to stream entry and back.

Every entry of every stream has the same four fields, which makes the field names nearly free in Redis' memory:

    id    the event id (UUIDv7; it carries the time)
    type  the dotted type
    meta  JSON of the attributes that are present and differ from their default, or nothing
    data  JSON of the event
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json

from eventbus.checks import validation
from eventbus.checks.fidelity import ALWAYS, NONE, Doubts, difference, survey
from eventbus.checks.validation import LONGEST, optional_text, text
from eventbus.contract.upcasting import upcast
from eventbus.errors import CodecError, EventBusError, WrongValue
from eventbus.event import NORMAL_PRIORITY, SOURCE, Envelope, Event, Origin, event_class, published, uuid7

Fields = Mapping[bytes, bytes]

MAX_PAYLOAD = 2**20  # bytes of JSON
_FLAT = 8  # four fields and their values
_SURELY_READABLE = 200  # levels of nesting that the parser bears
_SMALL = 400

_UUID7 = re.compile(validation.EVENT_ID.encode())
# The attributes behind causationId, by their names on the wire, and what they are when they are left out.
_OTHERS = ("traceparent", "source", "priority", "metadata", "only", "version", "replayed")
_USUAL: list[object] = [None, SOURCE, NORMAL_PRIORITY, {}, None, 1, False]
_ATTRIBUTES = ("subject", "organization", "correlationId", "causationId", *_OTHERS)
_PLACES = {name: place for place, name in enumerate(_ATTRIBUTES)}
_DEFAULTS = (None, None, None, None, *_USUAL)
_TEXTS = frozenset(_ATTRIBUTES) - {"priority", "metadata", "version", "replayed"}


class _Kind(NamedTuple):
    """What is known of an event class since its first publish.

    owned   its events may name an organization
    doubts  when an event must be read back before it is published; None: never"""

    type: str
    version: int
    owned: bool
    write: Callable[..., bytes]
    doubts: Doubts | None


_kinds: dict[type, _Kind] = published
# Stands in for an argument that is no Origin: it never passes as plain, so check_origin sees the argument.
_UNKNOWN: Any = (None, None, None, None, None)


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
    Raises WrongType or WrongValue for an argument that eventbus.checks.validation does not let pass; CodecError if the
    event's class has no type, or the event does not fit JSON, is longer than `max_payload` bytes, or nested too deeply.
    """
    kind = _kinds.get(type(event)) or _kind_of(event)
    packed = _pack(event, kind, max_payload)
    own = getattr(event, "organization_id", None) if kind.owned else None
    owner = organization or own
    correlation, cause, inherited, trace, metadata = origin if type(origin) is Origin else _UNKNOWN
    # One expression, since every publish pays for it. If not all is of the plainest kind, each is checked by itself.
    if not (
        type(priority) is int
        and 1 <= priority <= 10
        and (key is None or (type(key) is str and key.isascii() and len(key) <= LONGEST))
        and (owner is None or (type(owner) is str and owner.isascii() and len(owner) <= LONGEST))
        and (organization is None or type(organization) is str)
        and (inherited is None or (type(inherited) is str and inherited.isascii() and len(inherited) <= LONGEST))
        and (
            correlation is None or (type(correlation) is str and correlation.isascii() and len(correlation) <= LONGEST)
        )
        and (cause is None or (type(cause) is str and cause.isascii() and len(cause) <= LONGEST))
        and (trace is None or (type(trace) is str and trace.isascii() and len(trace) <= LONGEST))
        and type(metadata) is dict
        and not metadata
        and source is SOURCE
    ):
        key, priority, source = _checked(key, priority, source)
        owner = optional_text("organization", organization) or (None if own is None else text("organization", str(own)))
        correlation, cause, inherited, trace, metadata = check_origin(origin)
    about = (uuid7(), kind.type, packed, key, owner or inherited, correlation, cause, trace)
    # Without the detour through Envelope.__new__, which takes a tenth of all this.
    return tuple.__new__(Envelope, about + (source, priority, metadata, None, kind.version, False))  # noqa: RUF005 - half the time


def _pack(event: Event, kind: _Kind, max_payload: int) -> bytes:
    """The event as JSON. Raises CodecError for one that could not be read again."""
    event_type, _, _, write, doubts = kind
    try:
        # All fields, those that are None too: left out, they would come back as their defaults.
        packed = write(event, by_alias=True)
    except (PydanticSerializationError, ValueError) as error:
        raise CodecError(f"{event_type} cannot be written as JSON: {error}") from error
    # What is stored must be readable: a dead letter is no place to learn that it is not.
    size = len(packed)
    if size > max_payload or (size > _SMALL and packed.count(b"[") + packed.count(b"{") > _SURELY_READABLE):
        _check_payload(event_type, packed, max_payload)
    if doubts is not None and doubts.concern(packed):
        _check_fidelity(event, packed)
    return packed


def _checked(key: str | None, priority: int, source: str) -> tuple[str | None, int, str]:
    return optional_text("key", key), validation.priority("priority", priority), text("source", source)


def _kind_of(event: Event) -> _Kind:
    """What is known of a class whose first event is about to be published: that one is read back, whatever its class.

    Raises WrongType for what is no event, CodecError for one of a class without a type."""
    cls = type(event)
    if not isinstance(event, Event):
        raise validation.wrong_type("event", event, "an instance of an event class")
    if not cls.event_type:
        raise CodecError(f"{cls.__qualname__} has no event type: declare it with class …(…, type='…')")
    # pydantic fields are not attributes of the class. Where extra fields are allowed, each event is asked.
    owned = "organization_id" in cls.model_fields or hasattr(cls, "organization_id")
    owned = owned or cls.model_config.get("extra") == "allow"
    return _Kind(cls.event_type, cls.event_version, owned, cls.__pydantic_serializer__.to_json, ALWAYS)


def _check_fidelity(event: Event, packed: bytes) -> None:
    """Raises CodecError for an event that would not come back as it is."""
    cls = type(event)
    known = _kinds.get(cls)
    found = None if known is not None else survey(cls)
    if found is not None and found.faults:
        raise CodecError(f"{cls.__qualname__} could be published and not be read: {'; '.join(found.faults)}")
    try:
        changed = difference(event, _read(event_class(cls.event_type), packed))
    except ValidationError as error:
        changed = _told(error)
    except EventBusError as error:
        changed = str(error)
    except Exception as error:  # noqa: BLE001 - a validator of the event's own
        changed = f"{type(error).__name__}: {error}"
    if changed is not None:
        raise WrongValue(
            f"{cls.event_type} would not come back as it is: {changed}; see `What does not survive` in docs/schemas.md"
        )
    if found is not None:
        _kinds[cls] = _kind_of(event)._replace(doubts=None if found.doubts == NONE else found.doubts)


def _check_payload(event_type: str, packed: bytes, limit: int) -> None:
    """Raises CodecError for JSON that is too long, or nested too deeply: many brackets may also stand side by side, so
    the parser has to tell."""
    _check_size(event_type, packed, limit)
    try:
        from_json(packed)
    except ValueError as error:
        raise CodecError(f"{event_type} could not be read again: {error}") from None


def _check_size(event_type: str, packed: bytes, limit: int) -> None:
    if len(packed) > limit:
        raise CodecError(
            f"{event_type} has {len(packed):,} bytes of JSON and the limit is {limit:,}: publish a reference to what "
            "is large, or raise EventBus(max_payload=…)"
        )


def check_origin(origin: Origin) -> Origin:
    """The origin as it is kept, once checked. Raises WrongType or WrongValue."""
    if not isinstance(origin, Origin):
        raise validation.wrong_type("origin", origin, "an Origin")
    return Origin(
        optional_text("origin.correlation_id", origin.correlation_id),
        optional_text("origin.causation_id", origin.causation_id),
        optional_text("origin.organization", origin.organization),
        optional_text("origin.traceparent", origin.traceparent),
        validation.metadata("origin.metadata", origin.metadata),
    )


def check_envelope(envelope: Envelope, max_payload: int = MAX_PAYLOAD) -> Envelope:
    """An envelope that was made elsewhere, as it is kept, once checked. Its type may be unknown here, its data no JSON.
    Raises WrongType or WrongValue; CodecError for data that is too large."""
    if not isinstance(envelope, Envelope):
        raise validation.wrong_type("envelope", envelope, "an Envelope")
    if type(envelope.data) is not bytes:
        raise validation.wrong_type("envelope.data", envelope.data, "bytes of JSON")
    event_type = validation.event_type("envelope.type", envelope.type)
    _check_size(event_type, envelope.data, max_payload)
    try:
        envelope.data.decode()
    except UnicodeDecodeError as error:
        raise WrongValue(f"envelope.data of {event_type} is no UTF-8: {error}") from None
    return Envelope(
        validation.event_id("envelope.id", envelope.id),
        event_type,
        envelope.data,
        optional_text("envelope.subject", envelope.subject),
        optional_text("envelope.organization", envelope.organization),
        optional_text("envelope.correlation_id", envelope.correlation_id),
        optional_text("envelope.causation_id", envelope.causation_id),
        optional_text("envelope.traceparent", envelope.traceparent),
        text("envelope.source", envelope.source),
        validation.priority("envelope.priority", envelope.priority),
        validation.metadata("envelope.metadata", envelope.metadata),
        optional_text("envelope.only", envelope.only),
        validation.version("envelope.version", envelope.version),
        validation.flag("envelope.replayed", envelope.replayed),
    )


def open_event(envelope: Envelope) -> Event:
    """The typed event inside an envelope; an older version is upcast first, a newer one is read as far as it is known.

    Raises CodecError (UnknownEventType, or data that does not fit the type, or cannot be upcast)."""
    cls = event_class(envelope.type)
    older = envelope.version < cls.event_version
    data = upcast(cls, envelope.version, envelope.data) if older else envelope.data
    try:
        event: Event = cls.__pydantic_validator__.validate_json(data, extra="ignore")  # as _read, for every event
    except ValidationError as error:
        raise CodecError(f"data does not fit {_versioned(envelope, cls)}: {_told(error)}") from None
    except Exception as error:  # a validator of the event's own that stumbles over what it was given
        raise CodecError(f"data does not fit {_versioned(envelope, cls)}: {type(error).__name__}: {error}") from error
    return event


def _read(cls: type[Event], data: bytes) -> Event:
    event: Event = cls.__pydantic_validator__.validate_json(data, extra="ignore")
    return event


def _told(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'data'}: {e['msg']}" for e in error.errors()[:5])


def _versioned(envelope: Envelope, cls: type[Event]) -> str:
    """The type of an envelope; and both versions, if that of the class is another."""
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
        attributes = _attributes(packed) if packed else _DEFAULTS
        return tuple.__new__(Envelope, (event_id, event_type, data, *attributes))  # as in envelop
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
    """The values of all fields that an Envelope has behind its data, in their order. Known attributes are checked;
    others may be a newer version's, and are passed over. Raises ValueError."""
    meta = orjson.loads(packed)
    if not isinstance(meta, dict):
        raise ValueError("its meta is no JSON object")  # noqa: TRY004 - decode makes one error of all
    found = list(_DEFAULTS)
    for name, value in meta.items():
        place = _PLACES.get(name)
        if place is None:
            continue
        if type(value) is not str or name not in _TEXTS:
            validation.ATTRIBUTES[name](f"its {name}", value)
        found[place] = value
    return found


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A flat field, value, … list as a mapping."""
    if len(flat) == _FLAT:  # an entry of ours; all of this is done for every event
        a, b, c, d, e, f, g, h = flat
        return {a: b, c: d, e: f, g: h}
    parts = iter(flat)
    return dict(zip(parts, parts, strict=True))
