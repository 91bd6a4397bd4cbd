"""Partitions: a stream may be several logs, so that it has room on several servers of a cluster.

The first log of `lead` is called `lead`, as when it has no other; the others `lead.1`, `lead.2`, … (no stream has a dot
in its name). What is stored under a log's name, its lanes, its schedule, its dead letters, its groups, stays on one
server. The key of an event decides which log it goes to, always the same one; events without a key are spread.

A stream may get more logs while it is in use, and never fewer. Then some keys go to a new log, and none to another of
the old ones (Lamping and Veach, A Fast, Minimal Memory, Consistent Hash Algorithm, 2014). What was stored before stays
where it is: of a key that has moved, later events may be handled before earlier ones.
"""

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from eventbus.checks.numbers import count_faults
from eventbus.contract.dedupe import Once
from eventbus.event import Envelope, is_event_type

MOST = 1_024  # logs of a stream

_MASK = 2**64 - 1


class Division(NamedTuple):
    """Into how many logs a stream is divided: now, and before it last grew."""

    now: int = 1
    before: int = 1


Divisions = Mapping[str, Division]  # by stream; those that are not in it have one log
WHOLE = Division()


@lru_cache(8192)
def log_name(stream: str, number: int) -> str:
    """The name of the stream's log of this number, from 0 on. `eventbus.event.stream_of` is its inverse."""
    return f"{stream}.{number}" if number else stream


@lru_cache(1024)
def logs_of(stream: str, count: int) -> tuple[str, ...]:
    """The names of the stream's logs."""
    return tuple(log_name(stream, number) for number in range(count))


def log_of(envelope: Envelope, once: Once | None, count: int) -> str:
    """The log that an event goes to, where its stream has so many. One without a key is found by its dedupe key, so
    that others with the same one meet it there; and one without either by its id."""
    if count == 1:
        return envelope.stream
    key = envelope.subject or (once and once.key)
    return log_name(envelope.stream, _number(key, count) if key else _spread(envelope.id, count))


def _spread(event_id: str, count: int) -> int:
    try:
        return int(event_id[-8:], 16) % count  # a UUIDv7 ends with what was drawn by lot
    except ValueError:  # somebody else's id
        return _number(event_id, count)


@lru_cache(4096)
def _number(key: str, count: int) -> int:
    """Where the jumps of this key end below `count`."""
    state = int.from_bytes(blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
    number, jump = -1, 0
    while jump < count:
        number = jump
        state = (state * 2862933555777941757 + 1) & _MASK
        jump = int((number + 1) * (1 << 31) / ((state >> 33) + 1))
    return number


def division_faults(partitions: object) -> list[str]:
    """What is wrong with `partitions`, as EventBus takes them."""
    if not isinstance(partitions, Mapping):
        return [f"partitions={partitions!r:.120} must be a dict of streams and counts, such as {{'lead': 16}}"]
    faults: list[str] = []
    for stream, count in partitions.items():
        if not (isinstance(stream, str) and "." not in stream and is_event_type(f"{stream}.x")):
            faults.append(f"partitions: {stream!r:.120} is no stream; that of an event is the first part of its type")
        faults += count_faults(f"partitions[{stream!r:.120}]", count, most=MOST)
    return faults
