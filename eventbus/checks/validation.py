"""What the arguments of a publish and the attributes of an envelope may be: one table, for writers and readers.

Each check returns the value as it is kept, and raises WrongType or WrongValue, which name the argument, its value, and
what to write instead. Whoever publishes is told at the call, before anything is stored. What is read back from a
stream, an outbox or a spool is checked in `eventbus.contract.codec.decode`: numbers, times and metadata by the same
checks, while a type or a text of any length is taken, since what is stored must stay readable.

Text may hold any character that can be written as UTF-8. Redis and PostgreSQL keep all of them, the null character
included, since attributes travel as JSON.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from eventbus.checks.numbers import LATEST, longest_delay
from eventbus.errors import WrongType, WrongValue

LONGEST_TYPE = 200  # characters; PostgreSQL has it in an index
LONGEST = 4_096  # characters of an attribute
MOST_REPLICAS = 100
MOST_METADATA = 65_536  # characters of all names and texts of the metadata

EVENT_ID = r"0[0-9a-f]{7}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"  # a UUIDv7, until the year 2527
EVENT_TYPE = r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+"

_EVENT_ID, _EVENT_TYPE = re.compile(EVENT_ID), re.compile(EVENT_TYPE)
_FARTHEST = 1e12  # seconds that a delay may be over
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN = 100  # characters of a value in a message


def text(name: str, value: object, longest: int = LONGEST) -> str:
    """A subclass of str, such as a member of a StrEnum, is kept as the text that it is."""
    if not isinstance(value, str):
        raise WrongType(f"{_wrong(name, value, 'text')}: write {name}={_as_text(value)}")
    if len(value) > longest:
        raise WrongValue(f"{name}={_shown(value)} has {len(value):,} characters, and at most {longest:,} are taken")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise WrongValue(
            f"{name}={_shown(value)} cannot be written as UTF-8: at {error.start} it has half of a character"
        ) from None
    return value if type(value) is str else str.__str__(value)


def optional_text(name: str, value: object) -> str | None:
    return None if value is None else text(name, value)


def priority(name: str, value: object) -> int:
    found = _whole(name, value)
    if not 1 <= found <= 10:
        raise WrongValue(f"{name}={_shown(value)} is not 1 (first) to 10 (last)")
    return found


def replicas(name: str, value: object) -> int:
    found = _whole(name, value)
    if not 0 <= found <= MOST_REPLICAS:
        raise WrongValue(f"{name}={_shown(value)} is not 0 to {MOST_REPLICAS}")
    return found


def version(name: str, value: object) -> int:
    found = _whole(name, value)
    if found < 1:
        raise WrongValue(f"{name}={_shown(value)} must be at least 1")
    return found


def _whole(name: str, value: object) -> int:
    """No bool: True is 1 to Python, and something else to everybody who reads it."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise WrongType(f"{_wrong(name, value, 'a whole number')}: write {name}=5, for example")
    return value if type(value) is int else int.__int__(value)


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongType(_wrong(name, value, "True or False"))
    return value


def texts(name: str, value: object) -> dict[str, str]:
    """A copy: what is scheduled or collected must not change with what its publisher does next."""
    if not isinstance(value, Mapping):
        raise WrongType(_wrong(name, value, "a mapping of text to text"))
    return {
        text(f"a name in {name}", key, MOST_METADATA): text(f"{name}[{_shown(key)}]", each, MOST_METADATA)
        for key, each in value.items()
    }


def metadata(name: str, value: object) -> dict[str, str]:
    found = texts(name, value)
    if sum(len(key) + len(each) for key, each in found.items()) > MOST_METADATA:
        raise WrongValue(f"{name} has more than {MOST_METADATA:,} characters: publish a reference to what is large")
    return found


def seconds(name: str, value: object) -> float:
    """A delay, at least 0.0: one below zero is over already."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        how = "….total_seconds()" if isinstance(value, timedelta) else "float(…)"
        raise WrongType(f"{_wrong(name, value, 'a number of seconds')}: write {name}={how}")
    if not -_FARTHEST <= value <= longest_delay():  # what is no number is not within bounds either
        raise WrongValue(f"{name}={_shown(value)} is no number of seconds that ends before {LATEST:%Y-%m-%d}")
    return float(max(0, value))


def moment(name: str, value: object) -> datetime:
    if not isinstance(value, datetime):
        raise WrongType(f"{_wrong(name, value, 'a datetime with a time zone')}: write {name}=datetime(…, tzinfo=UTC)")
    if value.utcoffset() is None:
        raise WrongValue(f"{name}={value!r}: which time zone? For example datetime(…, tzinfo=UTC), or at.astimezone()")
    if value > LATEST:
        raise WrongValue(f"{name}={value.isoformat()}: nothing is kept back for longer than until {LATEST:%Y-%m-%d}")
    return max(value, _EPOCH)  # all that is over is alike, and not every calendar goes as far back


def json_object(name: str, value: object) -> dict[str, Any]:
    """A copy of a mapping that comes back from JSON as it is."""
    if not isinstance(value, Mapping):
        raise WrongType(_wrong(name, value, "a mapping of text to what JSON has"))
    try:
        found: dict[str, Any] = orjson.loads(orjson.dumps(dict(value)))
    except (TypeError, ValueError) as error:  # of orjson, all are one or the other
        raise WrongType(f"{name}={_shown(value)} cannot be written as JSON: {error}") from None
    if found != value:
        raise WrongValue(f"{name}={_shown(value)} would come back from JSON as {_shown(found)}")
    return found


def event_type(name: str, value: object) -> str:
    found = text(name, value, LONGEST_TYPE)
    if not _EVENT_TYPE.fullmatch(found):
        raise WrongValue(f"{name}={_shown(value)} is not of the form 'stream.name' in lower case")
    return found


def event_id(name: str, value: object) -> str:
    found = text(name, value)
    if not _EVENT_ID.fullmatch(found):
        raise WrongValue(f"{name}={_shown(value)} is no UUIDv7, as eventbus.event.uuid7() makes them")
    return found


# The checks of stored attributes, by their names on the wire. Their length was checked before they were stored.
ATTRIBUTES: Mapping[str, Callable[[str, object], object]] = {
    "subject": text,
    "organization": text,
    "correlationId": text,
    "causationId": text,
    "traceparent": text,
    "source": text,
    "priority": priority,
    "metadata": texts,
    "only": text,
    "version": version,
    "replayed": flag,
}


def wrong_type(name: str, value: object, wanted: str) -> WrongType:
    return WrongType(_wrong(name, value, wanted))


def _wrong(name: str, value: object, wanted: str) -> str:
    return f"{name}={_shown(value)} must be {wanted}, and is {_kind(value)}"


def _kind(value: object) -> str:
    kind = type(value)
    if value is None:
        return "None"
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _shown(value: object) -> str:
    """The value as far as it can be shown: an object's own __repr__ may be long, or raise."""
    try:
        shown = repr(value)
    except Exception as error:  # noqa: BLE001 - the message says what was wrong, whatever else is
        shown = f"<{_kind(value)}: {type(error).__name__}>"
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"


def _as_text(value: object) -> str:
    return "….decode()" if isinstance(value, (bytes, bytearray)) else f"str({_shown(value)})"
