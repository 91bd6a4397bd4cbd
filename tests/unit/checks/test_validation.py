"""What is no argument is refused at the call, with its name, its value, and what to write instead."""

import math
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import pytest

from eventbus import Event, EventBus, Origin
from eventbus.checks.numbers import longest_delay
from eventbus.checks.validation import ATTRIBUTES, LONGEST, MOST_METADATA
from eventbus.contract.codec import check_envelope, decode, encode, envelop, pairs
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import CodecError, EventBusError
from eventbus.event import Envelope, uuid7
from eventbus.memory import MemoryTransport
from eventbus.publishing.spool.record import Spooled

HALF = "\ud83d"  # of a character


class Filed(Event, type="doors.filed"):
    number: int = 0


class Urgency(IntEnum):
    HIGH = 2


class Subject(StrEnum):
    LEAD = "lead-1"


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("not even that")


def origin(**fields: Any) -> dict[str, Any]:
    return {"origin": Origin(**fields)}


def values(*values: Any) -> tuple[Any, ...]:
    return values


WRONG_TYPES: list[tuple[dict[str, Any], str]] = [
    *(({"priority": value}, "priority=.* must be a whole number") for value in values(2.0, True, "5", None, 2.5, [])),
    *(({"key": value}, r"key=.*: write key=") for value in values(4711, b"lead-1", True, 1.5, [], object(), Broken())),
    *(({"organization": value}, "organization=") for value in values(4711, 0, False, b"", ["acme"])),
    *(
        ({"delay": value}, "delay=.* must be a number of seconds")
        for value in values(True, "5", timedelta(seconds=5), [])
    ),
    *(({"at": value}, "at=.* must be a datetime") for value in values(1e9, "2030-01-01T00:00:00Z", date(2030, 1, 1))),
    *(({"dedupe_key": value}, "dedupe_key=") for value in values(4711, b"k", True)),
    *(({"dedupe_key": "k", "dedupe_window": value}, "dedupe_window=") for value in values(True, "5", timedelta(1))),
    *((origin(correlation_id=value), "origin.correlation_id=") for value in values(4711, b"c")),
    (origin(causation_id=4711), "origin.causation_id="),
    (origin(organization=4711), "origin.organization="),
    (origin(traceparent=b"00"), "origin.traceparent="),
    *(
        (origin(metadata=value), "origin.metadata")
        for value in values({"attempt": 1}, {1: "a"}, None, "ab", [("a", "b")])
    ),
    *(({"origin": value}, "origin=.* must be an Origin") for value in values(None, "abcde", (None,) * 5, {})),
]
WRONG_VALUES: list[tuple[dict[str, Any], str]] = [
    *(({"priority": value}, "priority=.* is not 1") for value in values(0, 11, -1, 10**400)),
    *(({"key": value}, "key=") for value in values(HALF, "k" * (LONGEST + 1), "é" * (LONGEST + 1))),
    *(
        ({"delay": value}, "delay=")
        for value in values(math.nan, math.inf, -math.inf, 1e306, 2 * longest_delay(), 10**400)
    ),
    *(({"at": value}, "at=") for value in values(datetime(2030, 1, 1), datetime.max.replace(tzinfo=UTC))),  # noqa: DTZ001
    *(({"dedupe_key": value}, "dedupe_key") for value in values("", "k\0", "k" * 513, HALF)),
    *(({"dedupe_key": "k", "dedupe_window": value}, "dedupe_window") for value in values(0, -1, math.nan, 1e-9, 1e12)),
    *(({"dedupe_key": "k", "dedupe": value}, "dedupe ") for value in values("replaced", None, ["keep"])),
    *((origin(**{name: HALF}), f"origin.{name}=") for name in ("correlation_id", "causation_id", "organization")),
    *((origin(**{name: "c" * (LONGEST + 1)}), f"origin.{name}=") for name in ("correlation_id", "traceparent")),
    *(
        (origin(metadata=value), "origin.metadata")
        for value in values({"a": HALF}, {HALF: "a"}, {"a": "b" * MOST_METADATA})
    ),
]
WRONG = [(TypeError, *each) for each in WRONG_TYPES] + [(ValueError, *each) for each in WRONG_VALUES]


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


def stored(bus: EventBus) -> list[object]:
    assert isinstance(bus.transport, MemoryTransport)
    return [kept for log in bus.transport._logs.values() for kept in (*log.entries, *log.scheduled)]


async def test_what_is_no_argument_is_refused_by_every_publish(bus: EventBus) -> None:
    for kind, arguments, said in WRONG:
        with pytest.raises(kind, match=said) as refused:
            await bus.publish(Filed(), **arguments)
        assert isinstance(refused.value, CodecError), arguments  # what callers have caught so far
        many = {f"{name}s" if name == "dedupe_key" else name: value for name, value in arguments.items()}
        if many.keys() & {"priority", "organization", "dedupe"}:
            continue
        if "dedupe_keys" in many:
            many["dedupe_keys"] = [None, many["dedupe_keys"]]
        with pytest.raises(kind, match=said):
            await bus.publish_many([Filed(), Filed()], **many)
    assert not stored(bus)


async def test_what_is_no_event_is_refused(bus: EventBus) -> None:
    wrong: list[Any] = [Filed, {"number": 1}, None, "doors.filed", Origin()]
    for value in wrong:
        with pytest.raises(TypeError, match="must be an instance of an event class"):
            await bus.publish(value)
        with pytest.raises(TypeError, match="must be an instance of an event class"):
            await bus.publish_many([Filed(), value])
    assert not stored(bus)


async def test_a_list_with_one_that_is_refused_is_refused_whole(bus: EventBus) -> None:
    right = envelop(Filed())
    wrong: dict[str, list[Any]] = {
        "id": ["4711", 4711, uuid7().upper(), f"{uuid7()}\n"],
        "type": ["Filed", "filed", 1, "doors.filed\n"],
        "data": ["{}", bytearray(b"{}"), b"\xff", None],
        "subject": [4711, HALF],
        "organization": [4711],
        "correlation_id": [4711],
        "causation_id": [4711],
        "traceparent": [b"00"],
        "source": [None, 4711],
        "priority": [2.0, True, 0, 11],
        "metadata": [None, {"a": 1}],
        "only": [4711],
        "version": [True, 0, 1.0],
        "replayed": [1, "yes"],
    }
    items: list[Any] = [right]  # an envelope is not yet an item
    items += [Outgoing(right._replace(**{name: value})) for name, each in wrong.items() for value in each]
    items += [Outgoing(right, delay) for delay in values(math.nan, "1", True)]
    items += [Outgoing(right, at=datetime(2030, 1, 1))]  # noqa: DTZ001
    for item in items:
        with pytest.raises((TypeError, ValueError)) as refused:
            await bus.forward([Outgoing(envelop(Filed())), item])
        assert isinstance(refused.value, EventBusError), item
    assert not stored(bus)
    with pytest.raises(CodecError, match="the limit is"):
        check_envelope(right, max_payload=1)


async def test_sessions_and_transactions_refuse_at_the_call(bus: EventBus) -> None:
    wrong: list[tuple[str, Any]] = [
        ("organization", 4711),
        ("origin", None),
        ("metadata", {"a": object()}),
        ("metadata", []),
    ]
    for name, value in wrong:
        with pytest.raises(TypeError, match=name):
            async with bus.session(**{name: value}):
                pass
    with pytest.raises(ValueError, match="metadata"):
        async with bus.session(metadata={"a": math.nan}):
            pass
    descent: Any = Origin(correlation_id=4711)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"origin\.correlation_id=4711"):
        async with bus.session(origin=descent):
            pass
    async with bus.session() as session:
        for arguments in ({"key": 4711}, {"priority": 2.0}, {"priority": True}, {"key": HALF}):
            with pytest.raises((TypeError, ValueError)):
                await session.add(Filed(), **arguments)
        await session.add(Filed(number=1))
    assert len(stored(bus)) == 1


def test_what_is_text_or_a_number_to_python_is_kept_as_that() -> None:
    fields = MappingProxyType({"a": Subject.LEAD})
    envelope = envelop(Filed(), Origin(metadata=fields), key=Subject.LEAD, priority=Urgency.HIGH)
    assert (type(envelope.subject), type(envelope.priority)) == (str, int)
    assert envelope[3] == "lead-1"
    assert envelope.metadata == {"a": "lead-1"}
    assert decode(pairs([part if isinstance(part, bytes) else part.encode() for part in encode(envelope)])) == envelope


def test_what_a_publisher_does_with_its_metadata_later_changes_nothing() -> None:
    metadata = {"user": "ann"}
    envelope = envelop(Filed(), Origin(metadata=metadata))
    metadata["user"] = "eve"
    assert envelope.metadata == {"user": "ann"}


def test_readers_check_every_attribute_by_the_same_table() -> None:
    envelope = envelop(Filed())
    for name in ATTRIBUTES:
        fields = dict(pairs([part if isinstance(part, bytes) else part.encode() for part in encode(envelope)]))
        fields[b"meta"] = b'{"%s": [4711]}' % name.encode()
        with pytest.raises(CodecError, match=f"its {name}="):
            decode(fields)


def test_a_record_of_the_spool_that_was_changed_by_hand_is_none() -> None:
    parts: dict[str, Any] = {**Spooled(envelop(Filed()), None).parts(), "meta": {"subject": 4711}}
    with pytest.raises(CodecError, match="its subject=4711"):
        Spooled.read(parts)
    with pytest.raises(CodecError, match="dedupe_window"):
        Spooled.read({**parts, "meta": {}, "dedupe": {"key": "k", "window": -1.0, "replace": False}})


def test_every_attribute_of_an_envelope_is_in_the_table() -> None:
    assert len(ATTRIBUTES) == len(Envelope._fields) - 3  # id, type and data have fields of their own
