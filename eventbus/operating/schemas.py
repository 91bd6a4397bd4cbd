"""Whether events that were published some time ago can still be opened, by the classes that are imported now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from eventbus.contract.codec import Fields, decode, open_event
from eventbus.errors import CodecError, UnknownEventType
from eventbus.event import event_class

NAMED = 3  # ids that are kept for each reason
REASONS, OTHERS = 10, "other reasons"  # that are told apart, of a type and version; and what the rest is called
NO_TYPE = "?"  # the type of what is no envelope
REASON_LIMIT, TYPE_LIMIT = 500, 200  # characters


class Storage(StrEnum):
    """Where an event is found: in a session, in the outbox, delayed, in a stream and not settled, dead, in the event
    store, among those of an aggregate."""

    SESSION = "session"
    OUTBOX = "outbox"
    SCHEDULED = "scheduled"
    STREAM = "stream"
    DEAD = "dead"
    STORED = "stored"
    AGGREGATE = "aggregate"


@dataclass(slots=True)
class Fault:
    """Why some events cannot be opened; `ids` are those of the first few."""

    place: Storage
    reason: str
    count: int = 0
    ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Examined:
    """Events of one type and version. `known`: the version of this process' class, None if it has none."""

    type: str
    version: int
    known: int | None
    looked_at: dict[Storage, int] = field(default_factory=dict)
    faults: dict[tuple[Storage, str], Fault] = field(default_factory=dict)

    @property
    def failing(self) -> int:
        return sum(fault.count for fault in self.faults.values())

    def fault(self, place: Storage, reason: str) -> Fault:
        """The fault for this reason, or for OTHERS beyond REASONS: a reason may quote the event, and so differ for
        each."""
        if (place, reason) not in self.faults and len(self.faults) >= REASONS:
            reason = OTHERS
        return self.faults.setdefault((place, reason), Fault(place, reason))


class Examination:
    """Opens whatever it is shown, and remembers of each type and version how many there were, and which do not open."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], Examined] = {}

    @property
    def found(self) -> Sequence[Examined]:
        """By type and version; what does not open first."""
        return sorted(self._found.values(), key=lambda one: (not one.faults, one.type, one.version))

    def look(self, place: Storage, fields: Fields, name: str | None = None) -> None:
        """Open one event. `name`: what it is known by in this place, if not by its id."""
        event_type, version, reason = NO_TYPE, 0, None
        try:
            envelope = decode(fields)
            event_type, version = envelope.type[:TYPE_LIMIT], envelope.version
            open_event(envelope)
        except CodecError as error:
            reason = str(error)[:REASON_LIMIT]
        examined = self._examined(event_type, version)
        examined.looked_at[place] = examined.looked_at.get(place, 0) + 1
        if reason is not None:
            fault = examined.fault(place, reason)
            fault.count += 1
            if len(fault.ids) < NAMED:
                fault.ids.append(name or _id_of(fields))

    def _examined(self, event_type: str, version: int) -> Examined:
        key = (event_type, version)
        if key not in self._found:
            self._found[key] = Examined(event_type, version, _known(event_type))
        return self._found[key]


def _known(event_type: str) -> int | None:
    try:
        return event_class(event_type).event_version
    except UnknownEventType:
        return None


def _id_of(fields: Mapping[bytes, bytes]) -> str:
    return fields.get(b"id", b"?").decode(errors="backslashreplace")[:TYPE_LIMIT]
