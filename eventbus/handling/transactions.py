"""Rows and events that commit together: `bus.transactions` holds transactions, outbox, inbox and relay."""

from collections.abc import Callable, Sequence
from typing import Protocol

from eventbus.contract.codec import check_origin
from eventbus.contract.outgoing import Appender
from eventbus.contract.tap import Passing
from eventbus.contract.transaction import Connection, Database, OpenBatchInbox, OpenTransaction, Outbox, Role
from eventbus.errors import ConfigurationError
from eventbus.event import Origin


class Tracing(Protocol):
    """What is asked of eventbus.telemetry.publishing."""

    def descend(self, origin: Origin) -> Origin: ...
    def relayed(self, appender: Appender) -> Appender: ...


class Transactions:
    """The transactions of a bus. All but `relay` raise ConfigurationError if the bus has no database."""

    def __init__(self, database: Database | None, tracing: Tracing) -> None:
        self._database = database
        self._tracing = tracing

    @property
    def database(self) -> Database:
        """Raises ConfigurationError if the bus has none."""
        if self._database is None:
            raise ConfigurationError("this needs PostgreSQL: EventBus(…, database='postgresql://…')")
        return self._database

    def begin(self, origin: Origin = Origin()) -> OpenTransaction:
        """`async with bus.transaction() as tx:` rows written through tx.connection and events published through
        tx.publish commit together. Raises Unavailable while PostgreSQL is away."""
        return self.database.transaction(self._tracing.descend(check_origin(origin)))

    def outbox(self, connection: Connection, origin: Origin = Origin()) -> Outbox:
        """Publish inside a transaction that somebody else owns, on its asyncpg connection."""
        return self.database.outbox(connection, self._tracing.descend(check_origin(origin)))

    def inbox(self, group: str, event_id: str, origin: Origin) -> OpenTransaction:
        """What Context.transaction opens."""
        return self.database.inbox(group, event_id, self._tracing.descend(origin))

    def inbox_batch(self, group: str, event_ids: Sequence[str]) -> OpenBatchInbox:
        """What Batch.transaction opens."""
        return self.database.inbox_batch(group, event_ids)

    def relay(self, target: Appender, primary: Callable[[], str]) -> Role | None:
        """Moves the outbox into the streams; None without a database. `primary`: see eventbus.contract.replication."""
        return None if self._database is None else self._database.relay(self._tracing.relayed(target), primary)

    async def record(self, events: Sequence[Passing]) -> None:
        """Keep events as they pass: what the group of eventbus.roles.history_group does."""
        await self.database.recorder.record(events)
