"""What is handed out to a consumer, and the outcomes that end it."""

from dataclasses import dataclass, field
from typing import NamedTuple

from eventbus.contract.codec import Fields, decode
from eventbus.contract.partitions import log_name
from eventbus.errors import CodecError

SUSPECT_FROM = 2  # crashes from which on an entry is handed out to run alone: see eventbus.consuming.suspects
NEVER = 2**31  # stands for the number of crashes in a group without a crash budget


class Subscription(NamedTuple):
    """One consumer of one group on one stream. `lease` in seconds; `crash_budget` and `ordered` as in Group. That of a
    delivery names the `partition` it came from; whoever reads does so for the whole stream, by the one of partition 0.
    """

    stream: str
    group: str
    consumer: str
    lease: float
    crash_budget: int | None
    ordered: bool = False
    partition: int = 0

    @property
    def log(self) -> str:
        """What its keys are named by: see eventbus.contract.partitions."""
        return log_name(self.stream, self.partition)

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
    `given_up`   its handler went on after its time was up, its result is ignored: see consuming.stubborn_handlers
    `together`   of a suspect, how many run at that time, it included: see eventbus.consuming.suspects
    `again`      the later delivery, if the same consumer was handed this entry again: see `catch_up`
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
        """Take over the counts of `again`: what became of the entry in other hands meanwhile. To be called before it
        begins, and not later: a failure whose reply was lost is told again, and would count twice."""
        if (later := self.again) is not None:
            self.failures, self.crashes = max(self.failures, later.failures), max(self.crashes, later.crashes)

    def named(self) -> dict[str, object]:
        """How log lines name it where there is no Context: as much of it as can be read."""
        names: dict[str, object] = {
            "group": self.subscription.group,
            "stream": self.subscription.log,
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
    """Not now: again in `delay` seconds, no attempt spent. `at`, if given: exactly at this time, however long settling
    takes, in ms by the transport's clock, as an Answer told it."""

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


@dataclass(slots=True)
class Reclaimed:
    """What one look at the pending list found.

    `next_due`: seconds until the next retry or scheduled event of the stream comes due, None if there is none.
    `suspects`: entries wait that may have killed their consumers; they are handed out when asked for, and alone.
    `quiet`: seconds until a lease can run out.
    `idle`: nobody has anything of it in hand or at rest; False if that was not looked at.
    """

    deliveries: list[Delivery] = field(default_factory=list)
    next_due: float | None = None
    suspects: bool = False
    quiet: float = field(default=0.0, compare=False)  # how long it may rest, not what it found
    idle: bool = field(default=False, compare=False)
