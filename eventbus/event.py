"""Events (what a program says) and envelopes (what travels).

An event is a frozen pydantic model with a dotted type. On the wire its data is camelCase JSON inside an envelope with
the attributes of CloudEvents 1.0 and five of our own: organization, correlationId, causationId, traceparent, metadata.
"""

import os
import re
import sys
import time as clock
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, TypeVar, Unpack

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from eventbus.checks.fidelity import survey
from eventbus.checks.validation import EVENT_TYPE, LONGEST_TYPE
from eventbus.errors import ConfigurationError, UnknownEventType

_TYPE = re.compile(EVENT_TYPE)
_registry: dict[str, type["Event"]] = {}
_replaced: dict[type["Event"], type["Event"] | None] = {}  # for a class being made: the class that had its type
# What eventbus.contract.codec knows of classes whose events have been published. It is cleared when a class is made: if
# the class replaces another, events of the first are read as the second, and must be checked anew.
published: dict[type, Any] = {}

# Makes the data of the next version from that of one, with names as on the wire. Any: JSON that no model checks now.
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
U = TypeVar("U", bound=Upcaster)

NORMAL_PRIORITY = 5
SOURCE = "eventbus"


class Event(BaseModel):
    """Base of all events: `class LeadCreated(Event, type="lead.created")`.

    The first segment of the type names the stream. Construction refuses unknown fields, so that a typo is found where
    it is made; decoding ignores them, so that a newer publisher does not break an older handler.
    A class without `type` is abstract: it may share fields, and cannot be published.
    What is published must come back as it is: a class that cannot do that is refused when it is made, with
    ConfigurationError; see eventbus.checks.fidelity. A generic class has no type, its concrete subclasses have.
    `version` is that of the fields, and travels with each event: `class Lead(Event, type="lead.created", version=2)`;
    see `upcast` for what was published before.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        ser_json_inf_nan="strings",  # JSON has no numbers for them, and null would not come back
    )

    event_type: ClassVar[str] = ""
    event_version: ClassVar[int] = 1
    event_upcasters: ClassVar[dict[int, Upcaster]] = {}

    def __init_subclass__(
        cls,
        *,
        type: str = "",  # noqa: A002 - reads as `class X(Event, type=…)`
        version: int = 1,
        **kwargs: Unpack[ConfigDict],
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls.event_type, cls.event_version, cls.event_upcasters = type, version, {}
        if version < 1:
            raise ConfigurationError(f"{cls.__qualname__}: version {version} must be at least 1")
        if not type:
            return
        if not _TYPE.fullmatch(type) or len(type) > LONGEST_TYPE:
            raise ConfigurationError(
                f"{cls.__qualname__}: type {type!r:.250} is not of the form 'stream.name' in lower case, of at most "
                f"{LONGEST_TYPE} characters"
            )
        known = _registry.get(type)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigurationError(_taken(type, known, cls))
        _replaced[cls], _registry[type] = known, cls

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Check the class: its fields are known by now, which they are not in __init_subclass__."""
        super().__pydantic_init_subclass__(**kwargs)
        known = _replaced.pop(cls, None)
        if not cls.event_type:
            return
        wrong = _generic_fault(cls) or "; ".join(survey(cls).faults if cls.__pydantic_complete__ else ())
        if wrong:
            _registry.pop(cls.event_type)
            if known is not None:
                _registry[cls.event_type] = known
            raise ConfigurationError(f"{cls.__qualname__} could be published and not be read: {wrong}")
        published.clear()
        if known is not None and _shape(known) != _shape(cls):
            # A warning, not an error: notebooks do this, and modules that are loaded again.
            warnings.warn(
                f"{cls.__module__}.{cls.__qualname__} was made a second time, with other fields: events of type "
                f"{cls.event_type!r} are read as the second one from now on, and give the first one another type",
                RuntimeWarning,
                stacklevel=3,
            )

    @classmethod
    def upcast(cls, *, from_version: int) -> Callable[[U], U]:
        """Register a function that turns data of `from_version` into that of the next: `@Lead.upcast(from_version=1)`.

        It takes and returns a dict, with names as they are on the wire, and may change the dict that it was given. It
        is called when an event of an older version is opened. If it raises, the event becomes a dead letter."""
        if not cls.event_type or not 1 <= from_version < cls.event_version:
            raise ConfigurationError(
                f"{cls.__qualname__}.upcast(from_version={from_version}): it leads to the next version, and the class "
                f"has version {cls.event_version} of type {cls.event_type!r}"
            )
        known = cls.event_upcasters.get(from_version)
        if known is not None:
            raise ConfigurationError(
                f"{cls.__qualname__}.upcast(from_version={from_version}): {known.__qualname__} does that already"
            )

        def register(upcaster: U) -> U:
            cls.event_upcasters[from_version] = upcaster
            return upcaster

        return register


def _taken(event_type: str, known: type[Event], cls: type[Event]) -> str:
    here, there = _file_of(cls), _file_of(known)
    told = (
        f"event type {event_type!r} is already taken by {known.__module__}.{known.__qualname__} ({there}), "
        f"and cannot be that of {cls.__module__}.{cls.__qualname__} ({here}) as well"
    )
    if here == there != "?" and known.__qualname__ == cls.__qualname__:
        told += ": one file is imported under two names; import it under one, and start a program with `python -m …`"
    return told


def _file_of(cls: type[Event]) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or "?"


def _generic_fault(cls: type[Event]) -> str:
    parameters = cls.__pydantic_generic_metadata__["parameters"]
    if not parameters:
        return ""
    return (
        f"it is generic in {', '.join(map(str, parameters))}: leave out its type, and give one to each concrete class, "
        f"for example class …({cls.__name__}[int], type='…')"
    )


def _shape(cls: type[Event]) -> dict[str, tuple[str, bool]]:
    return {name: (repr(found.annotation), found.is_required()) for name, found in cls.model_fields.items()}


def event_class(event_type: str) -> type[Event]:
    """The class registered for a type. Raises UnknownEventType if no imported module defines it."""
    try:
        return _registry[event_type]
    except KeyError:
        raise UnknownEventType(f"no event class for type {event_type!r} is imported in this process") from None


def is_event_type(text: str) -> bool:
    """Whether a class could have this type."""
    return _TYPE.fullmatch(text) is not None


def event_types() -> list[str]:
    """All types that imported modules define, sorted."""
    return sorted(_registry)


@lru_cache(4096)
def stream_of(event_type: str) -> str:
    """The stream that events of this type go to: the first segment of the type."""
    return event_type.partition(".")[0]


class Origin(NamedTuple):
    """What an event descends from. A request or a delivery hands it to everything that it publishes."""

    correlation_id: str | None = None
    causation_id: str | None = None
    organization: str | None = None
    traceparent: str | None = None
    metadata: Mapping[str, str] = {}


class Envelope(NamedTuple):
    """An event on the wire. `data` is the event's JSON, kept as bytes so that it is decoded once, where it is handled.

    `only` addresses a replayed event to one group: every other group passes it by. `version` is that of the event's
    class when it was published. `replayed` marks what was published before, and is sent again.
    """

    id: str
    type: str
    data: bytes
    subject: str | None = None
    organization: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    source: str = SOURCE
    priority: int = NORMAL_PRIORITY
    metadata: Mapping[str, str] = {}
    only: str | None = None
    version: int = 1
    replayed: bool = False

    @property
    def stream(self) -> str:
        return stream_of(self.type)

    @property
    def time(self) -> datetime:
        """When the event was made, to the millisecond: it is part of the id."""
        return datetime.fromtimestamp(unix_ms(self.id) / 1000, UTC)

    @property
    def correlation(self) -> str:
        """The correlation id. The first event of a chain has none: its own id is that of the chain."""
        return self.correlation_id or self.id


class Status(StrEnum):
    """What became of a publish. SPOOLED: Redis could not take it; it is on this machine's disk and gets there later."""

    STORED = "stored"
    SCHEDULED = "scheduled"
    DUPLICATE = "duplicate"
    SPOOLED = "spooled"


class _Pair(NamedTuple):
    id: str
    status: Status


class Receipt(_Pair):
    """The answer to a publish: the event's id, and what became of it.

    replicas  how many of them had the event within a second; None if nobody asked. It is no item of the pair: who takes
              a receipt apart goes on to get two"""

    replicas: int | None = None


_ms, _count = 0, 0  # of the last id: its Unix millisecond, and how many ids were made in it before
_head = ""  # the text of `_ms`, up to the count
_tails: list[str] = []  # the ids' ends, drawn many at a time: a system call for each would be a third of an id's cost
_VARIANT = bytes(octet & 0x3F | 0x80 for octet in range(256))  # RFC 9562, 4.1: two fixed bits, six random ones


def uuid7() -> str:
    """A new UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random bits; rising within this process.

    Written here because the standard library has it from Python 3.14 on only.
    """
    global _ms, _count, _head  # noqa: PLW0603 - ids rise within a process, not within a caller
    now = clock.time_ns() // 1_000_000
    if now > _ms or _count == 0xFFF:  # rand_a counts within a millisecond (RFC 9562, 6.2, method 1)
        _ms, _count = max(now, _ms + 1), 0
        text = f"{_ms:012x}"
        _head = f"{text[:8]}-{text[8:]}-7"
    else:
        _count += 1
    tail = _tails.pop() if _tails else _draw_tails()
    return f"{_head}{_count:03x}-{tail}"


def _draw_tails() -> str:
    """Returns one tail, and puts a few hundred into `_tails` for later."""
    octets = bytearray(os.urandom(4096))
    octets[::8] = octets[::8].translate(_VARIANT)
    digits = octets.hex()
    _tails.extend([f"{digits[i : i + 4]}-{digits[i + 4 : i + 16]}" for i in range(16, len(digits), 16)])
    return f"{digits[:4]}-{digits[4:16]}"


os.register_at_fork(after_in_child=_tails.clear)  # parent and child must not draw the same


def unix_ms(event_id: str) -> int:
    """The milliseconds since the epoch that a UUIDv7 carries. Raises ValueError for what is no UUID."""
    return int(event_id[:8] + event_id[9:13], 16)
