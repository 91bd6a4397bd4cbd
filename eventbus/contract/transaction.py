"""What the bus, a handler or a service sees of a database. `eventbus.postgres` implements it with asyncpg, an extra."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol, TypeVar

from eventbus.contract.aggregates import Aggregate
from eventbus.contract.dedupe import WINDOW, Dedupe
from eventbus.contract.history import History, HistoryWriter
from eventbus.contract.inspection import OutboxStanding
from eventbus.contract.outgoing import Appender
from eventbus.contract.replays import Replays
from eventbus.event import NORMAL_PRIORITY, Event, Origin

A = TypeVar("A", bound=Aggregate)


class Row(Protocol):
    """A row of a result: a mapping by column name. Column values are whatever the database holds, hence Any."""

    def __getitem__(self, key: str) -> Any: ...
    def keys(self) -> Iterable[str]: ...


class Connection(Protocol):
    """The part of asyncpg.Connection that is used inside a transaction. Values are Any because SQL is untyped here."""

    async def execute(self, query: str, *args: Any) -> str: ...
    async def executemany(self, command: str, args: Iterable[Sequence[Any]]) -> None: ...
    async def fetch(self, query: str, *args: Any) -> Sequence[Row]: ...
    async def fetchrow(self, query: str, *args: Any) -> Row | None: ...
    async def fetchval(self, query: str, *args: Any) -> Any: ...


class Outbox(Protocol):
    """Publishes inside a transaction."""

    async def publish(
        self,
        event: Event,
        *,
        key: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        priority: int = NORMAL_PRIORITY,
        dedupe_key: str | None = None,
        dedupe_window: float = WINDOW,
        dedupe: Dedupe = "keep",
        organization: str | None = None,
    ) -> str:
        """Put an event into the outbox; returns its id. It reaches its stream after the commit, `delay` seconds later
        or at the moment `at` (which must have a time zone), and never if the transaction rolls back. Both are measured
        by the clock of PostgreSQL. With a `dedupe_key` (see EventBus.publish), whether the event is a duplicate is
        decided when it reaches its stream: a duplicate goes no further, and nobody is told."""


class Transaction(Outbox, Protocol):
    """An open transaction: what is written through `connection` and published through `publish` commits together."""

    @property
    def connection(self) -> Connection:
        """It is given back to its pool as it is. Use what ends with the transaction: SET LOCAL, set_config(…, true),
        pg_advisory_xact_lock."""

    async def load(self, cls: type[A], organization: str, aggregate_id: str) -> A:
        """An aggregate as its events have made it; at version 0 if there is none yet. See eventbus.contract.aggregates.

        Raises MissingEvents if events are gone that no snapshot stands for, CodecError for one that cannot be read, and
        ConfigurationError for one that no method of the class applies."""

    async def append(self, aggregate: Aggregate, *events: Event) -> None:
        """Let these events happen to an aggregate that was loaded: they are applied to it, and commit and are published
        with the transaction. If its methods raise, it stays as it was.

        Raises WrongVersion if the aggregate has had others meanwhile. In a handler let that pass: it is run again."""

    async def append_to(
        self,
        cls: type[Aggregate],
        organization: str,
        aggregate_id: str,
        *events: Event,
        expected_version: int | None,
    ) -> int:
        """As `append`, for callers that know the version without loading the state; returns the version that the events
        led to. `expected_version`: 0 for a new aggregate; None for any, if the caller's lock lets nobody else write.

        Writes no snapshot."""


OpenTransaction = AbstractAsyncContextManager[Transaction]


class BatchInbox(Protocol):
    """An open transaction with an inbox row for each of several events. `fresh`: ids of those that had none before."""

    fresh: frozenset[str]

    @property
    def connection(self) -> Connection: ...

    def outbox(self, origin: Origin) -> Outbox:
        """Publishes what descends from one of the events, with the commit."""

    def withdraw(self, event_ids: Sequence[str]) -> None:
        """Commit neither the inbox rows of these events nor what descends from them."""


OpenBatchInbox = AbstractAsyncContextManager[BatchInbox]


class Role(Protocol):
    """Something that a worker runs beside its groups."""

    def run(self) -> Awaitable[None]: ...


class Database(Protocol):
    """Where rows, outbox and inbox live. Every call raises Unavailable while the server is away."""

    async def connect(self) -> None: ...
    async def close(self) -> None: ...
    def transaction(self, origin: Origin = Origin()) -> OpenTransaction: ...
    def inbox(self, group: str, event_id: str, origin: Origin) -> OpenTransaction: ...
    def inbox_batch(self, group: str, event_ids: Sequence[str]) -> OpenBatchInbox: ...
    def outbox(self, connection: Connection, origin: Origin = Origin()) -> Outbox: ...
    def relay(self, appender: Appender, primary: Callable[[], str]) -> Role: ...

    @property
    def history(self) -> History: ...
    @property
    def recorder(self) -> HistoryWriter: ...

    @property
    def replays(self) -> Replays: ...

    async def unpublished(self) -> int:
        """How many events of the outbox have not reached their stream yet; without those that were set aside."""

    async def outbox_standing(self) -> OutboxStanding | None:
        """How the outbox stands; None if there is none, or it lacks a migration."""
