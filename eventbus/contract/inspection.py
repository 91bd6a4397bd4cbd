"""What a stream and its groups hold at one moment, whatever the transport: what metrics, `status` and `doctor` read."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from eventbus.event import Envelope, stream_of

BACKLOG_LIMIT = 1_000  # undelivered entries of a lane that are counted where the server keeps no count
AHEAD_LIMIT = 10_000  # entries before an event that are counted, when somebody asks about it


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """One consumer of a group. `pending`: entries in its hands; `idle`: seconds since it last asked for something."""

    name: str
    pending: int
    idle: float


@dataclass(frozen=True, slots=True)
class GroupState:
    """One group on one stream.

    lag        entries that the group has not been given, by the server's own count; None: it cannot tell
    backlog    as `lag`; where the server cannot tell, they are counted, at most BACKLOG_LIMIT of each lane
    pending    entries given to a consumer and not settled, the resting ones included
    delayed    those of the pending that rest until their retry is due
    oldest_undelivered, oldest_unacked  seconds since the oldest such entry was stored; None: there is none
    consumers  whoever reads for the group, sorted by name; the name under which entries rest is none of them
    """

    name: str
    lag: int | None
    backlog: int
    pending: int
    delayed: int
    oldest_undelivered: float | None
    oldest_unacked: float | None
    consumers: tuple[ConsumerState, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream: `length` entries in the log, `scheduled` events that are not due, `dead` letters, groups by name. It
    may have several partitions, and then this is what they have together."""

    name: str
    length: int
    scheduled: int
    dead: int
    groups: tuple[GroupState, ...] = ()
    partitions: int = 1


def whole_streams(logs: Iterable[StreamState]) -> list[StreamState]:
    """The state of each stream, of the states of all its logs; sorted by name."""
    by_stream: dict[str, list[StreamState]] = {}
    for log in logs:
        by_stream.setdefault(stream_of(log.name), []).append(log)
    return [parts[0] if len(parts) == 1 else _whole(name, parts) for name, parts in sorted(by_stream.items())]


def _whole(name: str, logs: Sequence[StreamState]) -> StreamState:
    names = sorted({group.name for log in logs for group in log.groups})
    return StreamState(
        name,
        sum(log.length for log in logs),
        sum(log.scheduled for log in logs),
        sum(log.dead for log in logs),
        tuple(_whole_group(group, logs) for group in names),
        len(logs),
    )


def _whole_group(name: str, logs: Sequence[StreamState]) -> GroupState:
    """Where the group is not yet, all is still to come for it: it will be created at the beginning."""
    parts = [
        next((group for group in log.groups if group.name == name), None)
        or GroupState(name, log.length, log.length, 0, 0, None, None)
        for log in logs
    ]
    lags = [part.lag for part in parts]
    hands: dict[str, ConsumerState] = {}
    for each in (consumer for part in parts for consumer in part.consumers):
        known = hands.get(each.name, ConsumerState(each.name, 0, each.idle))
        hands[each.name] = ConsumerState(each.name, known.pending + each.pending, min(known.idle, each.idle))
    return GroupState(
        name,
        None if None in lags else sum(lag for lag in lags if lag is not None),
        sum(part.backlog for part in parts),
        sum(part.pending for part in parts),
        sum(part.delayed for part in parts),
        _largest(part.oldest_undelivered for part in parts),
        _largest(part.oldest_unacked for part in parts),
        tuple(hands[consumer] for consumer in sorted(hands)),
    )


def _largest(ages: Iterable[float | None]) -> float | None:
    return max((age for age in ages if age is not None), default=None)


class Standing(StrEnum):
    """Where an event is, for one group."""

    WAITING = "waiting"  # in the log, not given to the group yet; or, in an ordered group, behind another of its key
    RUNNING = "running"  # in the hands of a consumer
    RESTING = "resting"  # until its retry is due
    DONE = "done"
    DEAD = "dead"
    REPLAYED = "replayed"  # it was done or died, and a later entry of the event is its replay
    PASSED = "passed"  # a replay that is addressed to another group


@dataclass(frozen=True, slots=True)
class InLine:
    """An entry waits for a limit by key: the limit in words, the key, how many of that key come before it."""

    limit: str
    key: str
    ahead: int


@dataclass(frozen=True, slots=True)
class GroupStanding:
    """What became of one entry of an event in one group. What does not apply is None, or 0.

    ahead      entries of the same priority that the group takes first, counted up to AHEAD_LIMIT
    consumer   who has it in hand; `seconds`: since it was delivered or its lease was last renewed
    due        seconds until the retry, below 0 if it is overdue
    failures   attempts that failed so far; `first_failed`: seconds since the first of them
    crashes    workers that died with it; with `suspect` it is run alone from now on
    letter     the dead letter's STREAM/ID, and `error` why it died
    lines      the limits for which it waits
    """

    group: str
    entry: str
    standing: Standing
    ahead: int | None = None
    consumer: str | None = None
    seconds: float | None = None
    due: float | None = None
    failures: int = 0
    first_failed: float | None = None
    crashes: int = 0
    suspect: bool = False
    letter: str | None = None
    error: str | None = None
    lines: tuple[InLine, ...] = ()


@dataclass(frozen=True, slots=True)
class EventStanding:
    """Where an event is. `scheduled`: seconds until it is due, if it is kept back. `stream` is None if it was not
    found. `envelope` is there if it was found and can be read."""

    event_id: str
    stream: str | None = None
    type: str | None = None
    subject: str | None = None
    priority: int | None = None
    scheduled: float | None = None
    groups: tuple[GroupStanding, ...] = ()
    envelope: Envelope | None = None


class Related(NamedTuple):
    """An event of the same request. `scheduled`: seconds until it is due, if it is kept back."""

    envelope: Envelope
    scheduled: float | None


@dataclass(frozen=True, slots=True)
class Trace:
    """What a database remembers of an event.

    committed  when its outbox row was written; None: it did not go through the outbox, or the row has been pruned
    published  when the relay appended it; None: not yet
    refused    why it was set aside there, or waits longer than others; None: it was not
    effects    by group, when its transaction committed, nearly
    """

    type: str | None = None
    subject: str | None = None
    committed: datetime | None = None
    due: datetime | None = None
    published: datetime | None = None
    effects: Mapping[str, datetime] = field(default_factory=dict)
    refused: str | None = None


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"  # it works, and will not for ever
    ERROR = "error"  # it does not work, or events can be lost


class RowsWaiting(NamedTuple):
    """Rows of one stream that wait for the relay; the oldest for so many seconds. `error`: why Redis refuses them."""

    stream: str
    rows: int
    seconds: float
    error: str | None


class RowAside(NamedTuple):
    """A row that cannot reach its stream as it is."""

    position: int
    event_id: str
    type: str
    subject: str | None
    organization: str | None
    created_at: datetime
    failed_at: datetime
    error: str


class OutboxStanding(NamedTuple):
    """`waiting`: the first 10,000 rows that wait, by stream. `aside`: how many were set aside, counted up
    to 10,000; `first` of them."""

    waiting: Sequence[RowsWaiting]
    aside: int
    first: Sequence[RowAside]
    relay_at_work: bool

    @property
    def rows(self) -> int:
        return sum(waiting.rows for waiting in self.waiting)

    @property
    def seconds(self) -> float:
        return max((waiting.seconds for waiting in self.waiting), default=0.0)


class Finding(NamedTuple):
    """One thing that was looked at: what it is like, and what to do about it unless it is in order."""

    check: str
    severity: Severity
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Balance:
    """What became of everything that a group's stream has ever accepted: accepted = done + pending + lost + waiting
    + dead + skipped. What the server does not count is None.

    accepted   entries ever added, replays among them
    done       acknowledged: what was delivered and is none of the others
    pending    in hand or resting
    waiting    not delivered
    dead       dead letters of this group that are kept
    skipped    entries that vanished before they were delivered: trimmed or deleted by something that is not the bus
    lost       ids of pending entries that are not in the stream any more
    """

    stream: str
    group: str
    accepted: int
    done: int | None
    pending: int
    waiting: int | None
    dead: int
    skipped: int | None
    lost: tuple[str, ...]


class Gap(NamedTuple):
    """Entries that have vanished between two looks."""

    since: datetime
    until: datetime
    entries: int


SCHEDULE = ""  # the name that the schedule has among the groups of an Account


@dataclass(frozen=True, slots=True)
class Account:
    """What a group is known to have settled since the counting began, and what nothing accounts for.

    The group '' is the schedule: its entries are events that were kept back. They are acknowledged when they are
    promoted into the stream, cancelled, or replaced by a later one, and buried when that cannot be done.

    since           when the counting began: with the group, or when an older group was first looked at; None: not yet
    acknowledged    entries, as often as the server found them pending
    buried          entries that became dead letters
    missing         entries that are not among these, not pending and not still to come; None where that is not known
    letters_missing dead letters that are gone and were neither replayed nor discarded, nor had expired
    gaps            when entries were found to be missing, as far as housekeeping has noted it
    looked          when housekeeping looked last: what is missing and not among the gaps has vanished since then
    """

    stream: str
    group: str
    since: datetime | None
    acknowledged: int
    buried: int
    missing: int | None
    letters_missing: int
    gaps: tuple[Gap, ...] = ()
    looked: datetime | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a stream keeps back. `stuck`: ids that have a body and no due time, so that they never come due; `empty`: a
    due time, and no body any more."""

    stream: str
    scheduled: int
    stuck: tuple[str, ...]
    empty: tuple[str, ...]


class Inspection(Protocol):
    """Looks and changes nothing."""

    async def find_streams(self) -> list[str]:
        """The streams that hold anything: entries, groups, delayed events, dead letters; sorted. May take long where
        there are many keys."""

    async def inspect(self, streams: Collection[str]) -> list[StreamState]:
        """What these streams hold, sorted by name; one that is not there holds nothing. One round trip."""

    async def locate(self, event_id: str, streams: Collection[str] | None = None) -> EventStanding:
        """Where an event is, and what every group has made of it. Looks through these streams, or all: may take long.

        event_id must be a UUIDv7."""

    async def pending(self, stream: str, group: str, entry: str) -> GroupStanding | None:
        """How one entry stands that was given to the group and is not settled; None if there is none (any more). One
        round trip."""

    async def related(self, correlation_id: str, streams: Collection[str] | None = None) -> list[Related]:
        """The events of a correlation id among the newest entries of these streams, or of all, and among what comes due
        first there. That is what can be found cheaply, and not all that there is. An event may be among them twice, and
        without its data if that is large."""
