"""What a handler may ask, and what it is given in the event's name."""

from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import pytest

from eventbus.context import Context, HandlerBus
from eventbus.contract.delivery import Delivery, Subscription
from eventbus.errors import ConfigurationError
from eventbus.event import Envelope, Event, Origin, uuid7


class Poured(Event, type="glass.poured"):
    pass


class Recorder:
    """A bus that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def publish(self, event: Event, **options: Any) -> None:
        self.asked.append((event, options))

    @property
    def shared(self) -> "Recorder":
        return self

    @property
    def transactions(self) -> "Recorder":
        return self

    async def broadcast(self, channel: str, message: bytes) -> None:
        self.asked.append((channel, message))

    async def cancel(self, event_id: str, event_type: type[Event] | str | None = None) -> bool:
        self.asked.append((event_id, event_type))
        return True

    def transaction(self, origin: Origin) -> AbstractAsyncContextManager[None]:
        self.asked.append(("transaction", origin))
        return cast(AbstractAsyncContextManager[None], self)

    def inbox(self, group: str, event_id: str, origin: Origin) -> AbstractAsyncContextManager[None]:
        self.asked.append((group, event_id, origin))
        return cast(AbstractAsyncContextManager[None], self)


ENVELOPE = Envelope(uuid7(), "glass.poured", b"{}", organization="org", correlation_id="c", traceparent="t")
ORIGIN = Origin("c", ENVELOPE.id, "org", "t")


def context_of(recorder: Recorder) -> Context:
    return Context(cast(HandlerBus, recorder), ENVELOPE, "waiters", 2)


async def test_what_a_handler_publishes_descends_from_its_event() -> None:
    recorder = Recorder()
    asked: dict[str, Any] = {
        "key": "k",
        "delay": 1.0,
        "at": None,
        "priority": 2,
        "dedupe_key": "d",
        "dedupe_window": 5.0,
        "dedupe": "replace",
        "organization": "other",
    }
    await context_of(recorder).publish(Poured(), **asked)
    assert recorder.asked == [(Poured(), {**asked, "origin": ORIGIN})]


async def test_a_handler_may_broadcast() -> None:
    recorder = Recorder()
    await context_of(recorder).broadcast("channel", b"message")
    assert recorder.asked == [("channel", b"message")]


async def test_a_handler_may_take_back_what_is_scheduled() -> None:
    recorder = Recorder()
    assert await context_of(recorder).cancel("event-1", Poured)
    assert recorder.asked == [("event-1", Poured)]


def test_a_side_transaction_has_no_inbox_and_may_be_repeated() -> None:
    recorder = Recorder()
    context = context_of(recorder)
    context.side_transaction()
    context.side_transaction()
    context.transaction()
    assert recorder.asked == [("transaction", ORIGIN)] * 2 + [("waiters", ENVELOPE.id, ORIGIN)]


def test_the_transaction_is_the_inbox_of_the_group_and_the_event() -> None:
    recorder = Recorder()
    context_of(recorder).transaction()
    assert recorder.asked == [("waiters", ENVELOPE.id, ORIGIN)]


def test_a_second_transaction_is_refused_and_not_silently_skipped() -> None:
    context = context_of(Recorder())
    context.transaction()
    with pytest.raises(ConfigurationError, match=r"waiters: one transaction\(\) for each event"):
        context.transaction()


async def test_a_context_that_is_renewed_knows_all_that_it_knew() -> None:
    told: list[object] = []
    ctx = Context(cast(HandlerBus, Recorder()), ENVELOPE, "waiters", 2, "5-0", suspect=True)
    ctx.delivery = Delivery(Subscription("s", "waiters", "c", 10.0, 3), "5-0", {})
    ctx.on_progress = told.append
    ctx.claim_transaction()
    renewed = ctx.renewed()
    await renewed.progress(50)
    assert (told, renewed.delivery, renewed.suspect, renewed.attempt) == ([50], ctx.delivery, True, 2)
    assert renewed.log._context["entry_id"] == "5-0"
    renewed.claim_transaction()
