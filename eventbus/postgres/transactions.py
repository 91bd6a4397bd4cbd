"""What handlers write into: a transaction with its outbox, and that of a batch."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from eventbus.contract.aggregates import Aggregate, Key, key_of
from eventbus.contract.codec import MAX_PAYLOAD, envelop, open_event
from eventbus.contract.dedupe import WINDOW, Dedupe, once
from eventbus.contract.outgoing import Outgoing, outgoing
from eventbus.contract.transaction import Connection
from eventbus.event import NORMAL_PRIORITY, Envelope, Event, Origin
from eventbus.postgres import aggregates
from eventbus.postgres.outbox import insert

A = TypeVar("A", bound=Aggregate)

_WITHDRAW = "DELETE FROM eventbus_inbox WHERE event_id = ANY($1::uuid[]) AND group_name = $2"


class CommittedBefore(BaseException):
    """Leaves the block of an inbox transaction whose effect is there already.

    It is a BaseException, so that no `except Exception` inside the block keeps it from ending the block."""


class PostgresTransaction:
    """See eventbus.contract.transaction.Transaction. Events are written in one statement, just before the commit."""

    def __init__(
        self, connection: Connection, origin: Origin, *, max_payload: int = MAX_PAYLOAD, committed: bool = False
    ) -> None:
        self._connection = connection
        self._origin = origin
        self._max_payload = max_payload
        self._committed = committed
        self._waiting: list[Outgoing] = []

    @property
    def connection(self) -> Connection:
        if self._committed:
            raise CommittedBefore
        return self._connection

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
        if self._committed:
            raise CommittedBefore
        envelope = envelop(
            event, self._origin, key=key, priority=priority, organization=organization, max_payload=self._max_payload
        )
        self._waiting.append(outgoing(envelope, delay, at, once(dedupe_key, dedupe_window, dedupe)))
        return envelope.id

    async def load(self, cls: type[A], organization: str, aggregate_id: str) -> A:
        return await aggregates.load(self.connection, cls, key_of(cls, organization, aggregate_id))

    async def append(self, aggregate: Aggregate, *events: Event) -> None:
        if not events:
            return
        connection, facts = self.connection, self._facts(aggregate.key, events)
        # Apply the events as `load` will read them: with a list where there was a tuple, for example.
        after = aggregate.followed_by([open_event(fact) for fact in facts])
        snapshot = after.next_snapshot()
        await aggregates.append(connection, aggregate.key, facts, expected=aggregate.version, snapshot=snapshot)
        self._waiting += map(Outgoing, facts)
        aggregate.become(after)

    async def append_to(
        self,
        cls: type[Aggregate],
        organization: str,
        aggregate_id: str,
        *events: Event,
        expected_version: int | None,
    ) -> int:
        connection, key = self.connection, key_of(cls, organization, aggregate_id)
        for event in events:
            cls.applier(event)
        facts = self._facts(key, events)
        version = await aggregates.append(connection, key, facts, expected=expected_version)
        self._waiting += map(Outgoing, facts)
        return version

    def _facts(self, key: Key, events: Sequence[Event]) -> list[Envelope]:
        return [
            envelop(event, self._origin, key=key.id, organization=key.organization, max_payload=self._max_payload)
            for event in events
        ]

    def take(self) -> list[Outgoing]:
        """Hand over the events that were published and are not written yet: the caller is to write them."""
        waiting, self._waiting = self._waiting, []
        return waiting

    async def flush(self) -> None:
        await insert(self._connection, self.take())


class PostgresBatchInbox:
    """See eventbus.contract.transaction.BatchInbox."""

    def __init__(self, connection: Connection, group: str, fresh: frozenset[str], *, max_payload: int) -> None:
        self.connection = connection
        self._max_payload = max_payload
        self.fresh = fresh
        self._group = group
        self._withdrawn: frozenset[str] = frozenset()
        self._outboxes: dict[str | None, PostgresTransaction] = {}

    def outbox(self, origin: Origin) -> PostgresTransaction:
        outbox = PostgresTransaction(self.connection, origin, max_payload=self._max_payload)
        return self._outboxes.setdefault(origin.causation_id, outbox)

    def withdraw(self, event_ids: Sequence[str]) -> None:
        self._withdrawn = frozenset(event_ids)

    async def flush(self) -> None:
        if self._withdrawn:
            await self.connection.execute(_WITHDRAW, list(self._withdrawn), self._group)
        kept = [outbox for cause, outbox in self._outboxes.items() if cause not in self._withdrawn]
        await insert(self.connection, [waiting for outbox in kept for waiting in outbox.take()])
