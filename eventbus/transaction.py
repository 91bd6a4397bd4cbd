"""What the bus, a handler or a service sees of a database. `eventbus.postgres` implements it with asyncpg, an extra."""

from collections.abc import Awaitable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from eventbus.dedupe import WINDOW, Dedupe
from eventbus.event import NORMAL_PRIORITY, Event, Origin
from eventbus.transport import Appender


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
        priority: int = NORMAL_PRIORITY,
        dedupe_key: str | None = None,
        dedupe_window: float = WINDOW,
        dedupe: Dedupe = "keep",
        organization: str | None = None,
    ) -> str:
        """Put an event into the outbox; returns its id. It reaches its stream after the commit, `delay` seconds later,
        and never if the transaction rolls back. With a `dedupe_key`, see EventBus.publish, that is decided there and
        then: an event that is a duplicate goes no further, and nobody is told."""


class Transaction(Outbox, Protocol):
    """An open transaction: what is written through `connection` and published through `publish` commits together."""

    @property
    def connection(self) -> Connection: ...


OpenTransaction = AbstractAsyncContextManager[Transaction]


class Role(Protocol):
    """Something that a worker runs beside its groups."""

    def run(self) -> Awaitable[None]: ...


class Database(Protocol):
    """Where rows, outbox and inbox live. Every call raises Unavailable while the server is away."""

    async def connect(self) -> None: ...
    async def close(self) -> None: ...
    def transaction(self, origin: Origin = Origin()) -> OpenTransaction: ...
    def inbox(self, group: str, event_id: str, origin: Origin) -> OpenTransaction: ...
    def outbox(self, connection: Connection, origin: Origin = Origin()) -> Outbox: ...
    def relay(self, appender: Appender) -> Role: ...
