"""The seam between the bus and what carries it. Redis and the in-process transport both pass `tests/conformance`.

Six verbs move events (append, read, reclaim, renew, settle, close). Beside them stand five for the dead letters, for
an operator to see and mend, one takes back what is scheduled, two are for what recurs, others look and change nothing,
and two are for notices that nobody keeps.

* `append` returns when every envelope is stored (or scheduled), and raises Unavailable when that is not known.
  Append again with `again=True`: what is there already is found by its event id and not stored twice.
* `read` and `reclaim` hand out deliveries. From then on this consumer owns them, for `lease` seconds at a time:
  `renew` keeps them, `settle` ends them, and whoever does neither loses them to the next `reclaim` of any consumer.
* Neither `read` nor `reclaim` may be cancelled: a cut read leaves its batch behind in the pending list. A read ends by
  itself within `wait` seconds; an abandoned one costs its deliveries a lease, never the events.
* `settle` may be cancelled or fail halfway; settling the same deliveries again is harmless. An Ack counts even from a
  consumer that has lost its lease (the work is done); every other outcome counts only from the owner. One settlement
  that is refused keeps no other from being settled.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from eventbus.checks.validation import moment, seconds, wrong_type
from eventbus.contract.activity_stats import Tallies
from eventbus.contract.circuits import Circuits
from eventbus.contract.codec import MAX_PAYLOAD, Fields, check_envelope, decode
from eventbus.contract.dedupe import Once, check_once
from eventbus.contract.inspection import EventStanding, GroupStanding, Related, StreamState
from eventbus.contract.limits import Limit, RateLimit
from eventbus.contract.recent_cache import Recent
from eventbus.contract.retention import Retention
from eventbus.contract.session_store import Ledger
from eventbus.contract.states import Records
from eventbus.errors import CodecError, EventBusError, Full, Unavailable, WrongValue
from eventbus.event import Envelope, Status

SUSPECT_FROM = 2  # crashes from which on an entry is handed out to run alone: see eventbus.consuming.suspects
NEVER = 2**31  # crashes: of a group that makes nothing of them


class NotBegun(EventBusError):
    """What `begin` began has changed nothing, and `append` may well do it."""


Fate = Status | EventBusError  # of one of several: what became of it, or why that is not known or nothing did


class Incomplete(EventBusError):
    """Of several that were to be appended, not all are known to be stored: see `fates_of`."""

    def __init__(self, fates: Sequence[Fate]) -> None:
        super().__init__(f"{sum(isinstance(fate, Status) for fate in fates)} of {len(fates)} were stored")
        self.fates = fates


def statuses(fates: Sequence[Fate]) -> list[Status]:
    """What became of each, if that is known of all. Raises what `append` raises otherwise: Unavailable, else Full, else
    the first refusal, with an Incomplete as its cause."""
    errors = [fate for fate in fates if isinstance(fate, EventBusError)]
    for error in sorted(errors, key=lambda error: (not isinstance(error, Unavailable), not isinstance(error, Full))):
        raise error from Incomplete(fates)
    return [fate for fate in fates if isinstance(fate, Status)]


def fates_of(error: EventBusError, count: int) -> Sequence[Fate]:
    """Of each of the `count` that were given to an `append` which has raised this: its status; Unavailable, if it may
    be stored or not; or what it was refused with, and it is not stored."""
    return error.__cause__.fates if isinstance(error.__cause__, Incomplete) else [error] * count


class Subscription(NamedTuple):
    """One consumer of one group on one stream. `lease` in seconds; `crash_budget` as in Group."""

    stream: str
    group: str
    consumer: str
    lease: float
    crash_budget: int | None

    @property
    def suspect_from(self) -> int:
        """Crashes from which on an entry is handed out to run alone: see eventbus.consuming.suspects."""
        return SUSPECT_FROM if self.crash_budget is not None else NEVER

    @property
    def condemned_from(self) -> int:
        """Crashes, in company and alone, with which an entry is not run any more."""
        return SUSPECT_FROM + self.crash_budget if self.crash_budget is not None else NEVER


@dataclass(slots=True, eq=False)
class Delivery:
    """A stream entry in the hands of one consumer. `fields` are raw: decoding is the executor's business.

    `failures`   attempts that ended in an exception
    `crashes`    times that a consumer died while it held this entry
    `aborted`    why its handler was told to stop: see eventbus.operating.aborting
    `given_up`   its handler went on after its time was up, and its result is ignored: see eventbus.consuming.overruns
    `together`   of a suspect, how many run at that time, it included: see eventbus.consuming.suspects
    `again`      the same entry as it was handed to the same consumer later: see `catch_up`
    """

    subscription: Subscription
    entry_id: str
    fields: Fields
    failures: int = 0
    crashes: int = 0
    aborted: str | None = None
    given_up: bool = False
    together: int = 1
    again: "Delivery | None" = None

    @property
    def attempt(self) -> int:
        return self.failures + 1

    def catch_up(self) -> None:
        """Before it begins: what it came to in other hands meanwhile counts. Later it does not: a failure whose reply
        was lost is told again, and would count twice."""
        if (later := self.again) is not None:
            self.failures, self.crashes = max(self.failures, later.failures), max(self.crashes, later.crashes)

    def named(self) -> dict[str, object]:
        """How log lines name it where there is no Context: as much of it as can be read."""
        names: dict[str, object] = {
            "group": self.subscription.group,
            "stream": self.subscription.stream,
            "entry_id": self.entry_id,
            "attempt": self.attempt,
            "event_id": self.fields.get(b"id", b"").decode(errors="backslashreplace"),
        }
        try:
            envelope = decode(self.fields)
        except CodecError:
            return names
        return {**names, "event_type": envelope.type, "correlation_id": envelope.correlation}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a delivery did not succeed: one line, and the traceback if an exception was the reason."""

    error: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Ack:
    """Done."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Failed: again in `delay` seconds, one attempt spent."""

    delay: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Snooze:
    """Not now: again in `delay` seconds, no attempt spent. `at`: exactly then, however long settling takes, by the
    clock of the transport in ms, as an Answer told it."""

    delay: float
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Given back: anyone may have it at once, no attempt spent."""


@dataclass(frozen=True, slots=True)
class Dead:
    """Never again: to the dead letters. `attempts` is how often the handler was tried."""

    failure: Failure
    attempts: int


Outcome = Ack | Retry | Snooze | Release | Dead


class Settlement(NamedTuple):
    delivery: Delivery
    outcome: Outcome


class Refusal(NamedTuple):
    """A settlement that the transport did not take, and why; its delivery is still this consumer's."""

    settlement: Settlement
    error: Exception


class Outgoing(NamedTuple):
    """An envelope to append: at once, or `delay` seconds from now, or not before `at`, a moment with a time zone.

    Both by the transport's own clock, which is the server's. With `once`, unless another one holds its dedupe key."""

    envelope: Envelope
    delay: float = 0.0
    at: datetime | None = None
    once: Once | None = None

    @property
    def later(self) -> bool:
        """Whether it is to be scheduled. A moment may turn out to have passed: that is for the transport to see."""
        return self.delay > 0 or self.at is not None


def outgoing(envelope: Envelope, delay: float | None, at: datetime | None, once: Once | None = None) -> Outgoing:
    """An envelope as its publisher wants it. Raises WrongType or WrongValue for what is no point in time."""
    if delay is not None and at is not None:
        raise WrongValue(f"publish(delay={delay!r}, at={at!r}): give one of them; a delay is a number of seconds")
    soonest = 0.0 if delay is None else seconds("delay", delay)
    return Outgoing(envelope, soonest, None if at is None else moment("at", at), once)


def check_outgoing(item: Outgoing, max_payload: int = MAX_PAYLOAD) -> Outgoing:
    """One that was made elsewhere, as it is kept. Raises as `outgoing` and eventbus.contract.codec.check_envelope."""
    if not isinstance(item, Outgoing):
        raise wrong_type("item", item, "an Outgoing")
    once = None if item.once is None else check_once(item.once)
    delay = item.delay or None  # that of a moment is 0
    return outgoing(check_envelope(item.envelope, max_payload), delay, item.at, once)


@dataclass(slots=True)
class Reclaimed:
    """What one look at the pending list found.

    `next_due`: seconds until the next retry or scheduled event of the stream comes due, None if there is none.
    `suspects`: entries wait that may have killed their consumers; they are handed out when asked for, and alone.
    `quiet`: seconds until a lease can run out.
    """

    deliveries: list[Delivery] = field(default_factory=list)
    next_due: float | None = None
    suspects: bool = False
    quiet: float = field(default=0.0, compare=False)  # how long it may rest, not what it found


class DeadLetter(NamedTuple):
    """An entry of a dead-letter stream. `envelope` is None if the entry was no envelope."""

    id: str
    stream: str
    group: str
    envelope: Envelope | None
    fields: Fields
    error: str
    traceback: str
    attempts: int
    crashes: int
    first_failed_at: datetime
    died_at: datetime


ASK_AGAIN = 0.1  # seconds until who found all places taken asks again


class Scope(NamedTuple):
    """What a limit counts: a group's n-th limit, and of that one key ('' for the whole group)."""

    group: str
    limit: int
    key: str


class Bound(NamedTuple):
    """A limit that concerns a delivery, and what it counts it under."""

    scope: Scope
    limit: Limit


class Request(NamedTuple):
    """A delivery that wants to start: its name, all limits that concern it, and the seconds that a place in flight is
    kept without being renewed."""

    member: str
    bounds: Sequence[Bound]
    lease: float


def member_of(stream: str, entry_id: str) -> str:
    """What a delivery is called among those that limits let start: a group may read several streams."""
    return f"{stream}/{entry_id}"


class Answer(NamedTuple):
    """It may start, and is counted; or it asks again after `wait` seconds, for `refused` refuses it; that is `at`, by
    the clock of the transport in ms. If no limit refuses it, it may start as soon as its process lets it. `error`: what
    the server said instead of an answer."""

    admitted: bool
    wait: float = 0.0
    refused: Bound | None = None
    at: int | None = None
    error: str | None = None


class Spent(NamedTuple):
    """Of a quota: how many of those wanted were taken, how many are left, and the seconds until there is more; 0.0
    while all are there."""

    granted: int
    left: int
    opens: float


class Tidied(NamedTuple):
    """What a round of housekeeping did to a stream. `missing_groups` keep it from being trimmed; `left` entries are
    still there. `vanished`: groups, and how many of their entries have gone since the round before without having been
    settled; '' for what was scheduled."""

    entries: int = 0
    consumers: int = 0
    dead_letters: int = 0
    missing_groups: Sequence[str] = ()
    left: int = 0
    vanished: Sequence[tuple[str, int]] = ()


IMPOSSIBLE_FIRING = (
    "the record of a last firing is no time that can have been, and counts as now: was the server's clock ahead?"
)
FIRED_AHEAD = 5.0  # seconds that a firing may seem to be ahead of the server's clock, which may be set back a little


class LastFiring(NamedTuple):
    """What the server knows of a recurring function: the time there, and the moment of its last firing.

    A record that says what cannot be, a time ahead of the clock or none at all, begins with the present instead; that
    is an error in the log."""

    now: datetime
    due: datetime


class LeaseKeeper(Protocol):
    """Renews from a thread what the event loop cannot, because it is blocked. Not for the loop: its calls block."""

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """As Transport.renew: only what is still its consumer's is kept. Raises Unavailable, after seconds at most."""

    def close(self) -> None:
        """Let go of the server for now; `renew` may be called again."""


class Appender(Protocol):
    """The first of the six verbs, for whoever needs no other."""

    async def append(self, outgoing: Sequence[Outgoing], *, again: bool = False) -> list[Status]:
        """Store or schedule, in order. Raises Unavailable (stored or not: unknown), Full, or what the server refused
        one with; of several, the others may be stored all the same: `fates_of` tells of each.

        DUPLICATE: it was there, appended before; or, of one with `once`, another holds its dedupe key."""


class Transport(Appender, Protocol):
    """See the module's docstring for who owns what, and when."""

    def begin(self, outgoing: Outgoing, /) -> asyncio.Future[object] | None:
        """As `append` of this one, if that can begin at once: the future is done when it is stored, and may raise what
        `append` raises, or NotBegun. None, and nothing was done, where it takes more than that; then there is `append`.

        For one with `once`, `begun` tells what the future's result says of it."""

    def begun(self, reply: object, /) -> Status:
        """What became of one with `once`."""

    async def holder(self, envelope: Envelope, once: Once) -> str | None:
        """The id of the event that holds this one's dedupe key; None if none does (any more)."""

    async def connect(self) -> None:
        """Reach the server and check that it can be relied on. Raises Unavailable or ConfigurationError."""

    async def cancel(self, event_id: str, stream: str | None = None) -> bool:
        """Take back what is scheduled; without a stream, wherever it is. False if it is not scheduled (any more)."""

    async def read(self, subscription: Subscription, credit: int, wait: float) -> list[Delivery]:
        """At most `credit` events that no consumer of the group has seen; waits up to `wait` seconds for the first.
        Where several priorities wait, each gets its share: see eventbus.contract.priorities. When several fill in the
        moment before it waits, it may be half of the credit, or one, of each.

        Creates the group, at the beginning of the stream, if it is not there (any more)."""

    async def interrupt(self, subscriptions: Sequence[Subscription]) -> None:
        """Let their waiting reads return now, with nothing. Raises Unavailable."""

    async def unsubscribe(self, subscriptions: Sequence[Subscription], *, give_back: bool = True) -> None:
        """Nothing is read or reclaimed for them any more: what is kept for that is let go of. What the server handed to
        a read or a reclaim that was cancelled goes to others at once, as after a Release, if `give_back` and the server
        answers within a second; else when its lease runs out. Raises nothing."""

    async def reclaim(self, subscription: Subscription, credit: int, *, suspect: bool = False) -> Reclaimed:
        """Promote what was scheduled and is due; take over due retries and entries whose lease ran out.

        With `suspect`, take only what may have killed its consumers, and of those that died together the first half,
        rounded up; with a credit of 1 that is one. While several run together their crashes are not counted: it is not
        known whose they are. The caller runs
        nothing else meanwhile."""

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend the leases; returns those that are lost to another consumer. They, too, are still to be settled."""

    def keeper(self) -> LeaseKeeper | None:
        """Something to renew with from a thread; None if nobody outside of this process could take over its leases."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Refusal]:
        """End each delivery by its outcome. Returns those that were refused, each with its error: Full where there is
        no memory for it. All others are settled. Raises Unavailable if it is not known of any."""

    async def close(self) -> None:
        """Let go of the server. Nothing may be called afterwards."""

    async def admit(self, requests: Sequence[Request], most: int) -> list[Answer]:
        """For each, all of one group, whether all of its limits let it start: see eventbus.memory.limits. At most
        `most` do. Asking again for one that has a place in flight is harmless."""

    async def stay(self, requests: Sequence[Request]) -> None:
        """Keep the places in flight of those that still run."""

    async def leave(self, requests: Sequence[Request]) -> None:
        """Give their places in flight back."""

    async def spend(self, quota: str, limit: RateLimit, wanted: int) -> Spent:
        """Take from a quota that all processes know by this text: `limit.count` in any `limit.per` seconds. What was
        taken comes back that much later, and up to a hundredth of it. Raises Unavailable (taken or not: unknown) or
        Full."""

    async def control(self, name: str, value: bytes | None) -> bool:
        """Set, or with None remove, what all workers are to know: see eventbus.operating.control. Whether it was there
        before."""

    async def controls(self) -> Mapping[str, bytes]:
        """All that is set."""

    async def tidy(self, stream: str, retention: Retention, *, consumers: bool = True) -> Tidied:
        """Trim what all groups have settled, bound the dead letters, and forget consumers that are gone if told to."""

    async def forget_group(self, stream: str, group: str) -> bool:
        """Drop a group with all that it has not settled; False if there is none. Its workers would create it again."""

    async def dead_letters(self, stream: str, *, after: str = "", limit: int = 100) -> list[DeadLetter]:
        """Dead letters of a stream, oldest first, behind the one with the id `after`."""

    async def dead_letter(self, stream: str, letter_id: str) -> DeadLetter | None:
        """The one with this id; None if there is none (any more)."""

    async def streams(self) -> list[str]:
        """The streams that hold dead letters, sorted."""

    async def replay(self, letter: DeadLetter) -> bool:
        """Put a dead letter back into its stream, for the group where it died; False if it is gone already."""

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
        first there. That is what can be told in passing, and not all that there is. An event may be told of twice, and
        without its data if that is large."""

    @property
    def records(self) -> Records:
        """What is written down of events in tracked groups."""

    @property
    def circuits(self) -> Circuits:
        """The state of circuit breakers, for all processes."""

    @property
    def recent(self) -> Recent:
        """Copies of the last things of something, kept for a while."""

    @property
    def tallies(self) -> Tallies:
        """What has become of each organization's events lately, counted by all workers."""

    @property
    def sessions(self) -> Ledger:
        """Events that are collected, and then published together or not at all."""

    async def discard(self, letter: DeadLetter) -> bool:
        """Forget a dead letter for good; False if it is gone already."""

    async def last_firing(self, stream: str, name: str) -> LastFiring:
        """Of the recurring function `name` whose firings go to `stream`. The first time that anybody asks, the record
        begins with the present: nothing was missed before."""

    async def fire(self, firing: Envelope, name: str, due: datetime) -> bool:
        """Store a firing, due at a moment that has come; False if it, or a later one, has been stored by anybody."""

    async def broadcast(self, channel: str, message: bytes) -> None:
        """Tell whoever listens now. Kept for nobody. Raises Unavailable."""

    def listen(self, channel: str, joined: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        """Messages broadcast from now on, for as long as the iterator lives. What passes while the server is away is
        lost; `joined` is called whenever messages arrive from then on, in the beginning and behind every gap."""
