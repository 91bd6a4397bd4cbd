"""Rows and events that commit together: transactions, outbox, inbox, relay, and the store of what has passed. A part of
`EventBus`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from eventbus.contract.broker import Broker
from eventbus.contract.codec import check_origin
from eventbus.contract.history import History
from eventbus.contract.outgoing import Appender
from eventbus.contract.tap import Passing
from eventbus.contract.transaction import Connection, Database, OpenBatchInbox, OpenTransaction, Outbox, Role
from eventbus.errors import ConfigurationError
from eventbus.event import Origin


class Tracing(Protocol):
    """What is asked of eventbus.telemetry.publishing."""

    def descend(self, origin: Origin) -> Origin: ...
    def relayed(self, appender: Appender) -> Appender: ...


class Committing(ABC):
    """The transactions of a bus; `database` is None if the bus has none."""

    database: Database | None
    _publishing: Tracing

    @property
    @abstractmethod
    def transport(self) -> Broker: ...

    # Transactions -----------------------------------------------------------------------------------------------------

    def transaction(self, origin: Origin = Origin()) -> OpenTransaction:
        """`async with bus.transaction() as tx:` rows written through tx.connection and events published through
        tx.publish commit together. Raises Unavailable while PostgreSQL is away."""
        return self._require_database().transaction(self._publishing.descend(check_origin(origin)))

    def outbox(self, connection: Connection, origin: Origin = Origin()) -> Outbox:
        """Publish inside a transaction that somebody else owns, on its asyncpg connection."""
        return self._require_database().outbox(connection, self._publishing.descend(check_origin(origin)))

    def inbox(self, group: str, event_id: str, origin: Origin) -> OpenTransaction:
        """What Context.transaction opens."""
        return self._require_database().inbox(group, event_id, self._publishing.descend(origin))

    def relay(self) -> Role | None:
        """Moves the outbox into the streams; None without a database."""
        return None if self.database is None else self.database.relay(self._publishing.relayed(self.transport))

    def inbox_batch(self, group: str, event_ids: Sequence[str]) -> OpenBatchInbox:
        """What Batch.transaction opens."""
        return self._require_database().inbox_batch(group, event_ids)

    @property
    def history(self) -> History:
        """The store of all events: see eventbus.contract.history. Raises ConfigurationError without a database."""
        return self._require_database().history

    async def record(self, events: Sequence[Passing]) -> None:
        """Keep events as they pass: what the group of eventbus.roles.history_group does."""
        await self._require_database().recorder.record(events)

    def _require_database(self) -> Database:
        if self.database is None:
            raise ConfigurationError("this needs PostgreSQL: EventBus(…, database='postgresql://…')")
        return self.database
