"""What the handler of a batch has in its hands.

    @history.on_batch(LeadCreated, LeadMoved, max_size=500, max_wait=0.2)
    async def keep(batch: Batch[LeadCreated | LeadMoved]) -> None:
        async with batch.transaction() as tx:
            await tx.connection.executemany("INSERT …", [row(item.event) for item in tx.items])

Each event is settled by itself: those that `fail` by the error that they were given, others by how the handler ends.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Generic, TypeVar, overload

import structlog

from eventbus.context import Context, HandlerBus
from eventbus.contract.transaction import BatchInbox, Connection, Outbox
from eventbus.errors import ConfigurationError
from eventbus.event import Event
from eventbus.process.safe_logging import get_logger

E_co = TypeVar("E_co", bound=Event, covariant=True)


class Item(Generic[E_co]):
    """One event of a batch, with the context that a handler of its own would have had."""

    def __init__(self, event: E_co, ctx: Context) -> None:
        self.event: E_co = event
        self.ctx = ctx
        self.error: BaseException | None = None  # what it failed with
        self.trace: TracebackType | None = None
        self.judged = False

    def fail(self, error: BaseException) -> None:
        """This event ends as if a handler of its own had raised the error: a verdict (`Reject("no such lead")`,
        `RetryLater(30)`, `SnoozeFor(5)`) or any other exception. The last word counts, `done` included."""
        self.error, self.trace, self.judged = error, error.__traceback__, True

    def done(self) -> None:
        """This event has succeeded, even if the batch's handler raises later on."""
        self.error, self.trace, self.judged = None, None, True

    def settle(self, error: BaseException | None) -> None:
        """The handler has ended, raising `error` or not. That decides for an event that was neither failed nor done."""
        if self.judged:
            return
        if error is None:
            self.done()
        else:
            self.fail(error)


class Batch(Sequence[Item[E_co]]):
    """Events that are handled together, in the order of their arrival. Never empty."""

    def __init__(self, bus: HandlerBus, items: Sequence[Item[E_co]]) -> None:
        self._bus = bus
        self._items = items
        self.group = items[0].ctx.group
        self.log: structlog.stdlib.BoundLogger = get_logger("eventbus.handler", group=self.group, batch=len(items))

    @overload
    def __getitem__(self, place: int) -> Item[E_co]: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Item[E_co]]: ...
    def __getitem__(self, place: int | slice) -> Item[E_co] | Sequence[Item[E_co]]:
        return self._items[place]

    def __len__(self) -> int:
        return len(self._items)

    @property
    def events(self) -> list[E_co]:
        return [item.event for item in self._items]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["BatchTransaction[E_co]"]:
        """`async with batch.transaction() as tx:` commits effects, outgoing events and one inbox row for each event
        together. Only what is in `tx.items` is to be done: the others' effects have committed before.

        If an item is failed before the block ends, neither its inbox row nor its outgoing events are kept, so that it
        is new again when it is retried. What was written for it through the connection is kept: so judge it first.
        An event has one transaction, so none of the items may have had one of its own. Raises Unavailable while
        PostgreSQL is away (all are put off, no attempt spent), ConfigurationError if the bus has no database.
        """
        by_id: dict[str, Item[E_co]] = {}
        for item in self._items:
            item.ctx.claim_transaction()
            by_id.setdefault(item.ctx.event_id, item)  # an event that was stored twice is done once
        async with self._bus.transactions.inbox_batch(self.group, list(by_id)) as inbox:
            items = [item for event_id, item in by_id.items() if event_id in inbox.fresh]
            yield BatchTransaction(inbox, items)
            inbox.withdraw([item.ctx.event_id for item in items if item.error is not None])


class BatchTransaction(Generic[E_co]):
    """An open transaction of a batch. `items` are those whose effect is not there yet; there may be none."""

    def __init__(self, inbox: BatchInbox, items: Sequence[Item[E_co]]) -> None:
        self._inbox = inbox
        self.items = items

    @property
    def connection(self) -> Connection:
        return self._inbox.connection

    def outbox(self, item: Item[Event]) -> Outbox:
        """`await tx.outbox(item).publish(event)`: what descends from this item. Never published if the item fails, or
        if the transaction rolls back."""
        if item.ctx.event_id not in self._inbox.fresh:
            raise ConfigurationError(f"{item.ctx.event_id} is not in tx.items: what it led to was published before")
        return self._inbox.outbox(item.ctx.origin)
