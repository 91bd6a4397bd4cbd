"""What runs around a handler, in which order, and what it may do."""

from typing import Any, cast

import pytest

from eventbus.bus import EventBus
from eventbus.context import Context
from eventbus.errors import ConfigurationError
from eventbus.event import Event
from eventbus.group import Group
from eventbus.handling.middleware import CallNext, Middleware, compose, find_faults


class Wrapped(Event, type="gift.wrapped"):
    paper: str = "red"


NO_CONTEXT = cast(Context, None)  # nobody here looks at it


def recording(name: str, way: list[str]) -> Middleware:
    async def record(event: Event, ctx: Context, call_next: CallNext) -> None:
        way.append(f"into {name}")
        await call_next(event, ctx)
        way.append(f"out of {name}")

    return record


async def test_the_first_is_the_outermost() -> None:
    way: list[str] = []

    async def handle(event: Event, ctx: Context) -> None:
        way.append("handler")

    await compose(handle, [recording("first", way), recording("second", way)])(Wrapped(), NO_CONTEXT)
    assert way == ["into first", "into second", "handler", "out of second", "out of first"]


def test_nothing_around_a_handler_is_the_handler() -> None:
    async def handle(event: Event, ctx: Context) -> None:
        return

    assert compose(handle, []) is handle


async def test_middleware_may_hand_on_another_event() -> None:
    given: list[Event] = []

    async def handle(event: Event, ctx: Context) -> None:
        given.append(event)

    async def repaint(event: Event, ctx: Context, call_next: CallNext) -> None:
        await call_next(Wrapped(paper="blue"), ctx)

    await compose(handle, [repaint])(Wrapped(), NO_CONTEXT)
    assert given == [Wrapped(paper="blue")]


def test_what_is_not_asynchronous_is_refused_by_group_and_bus() -> None:
    def plain(event: Event, ctx: Context, call_next: CallNext) -> None:
        return

    class Layer:
        async def __call__(self, event: Event, ctx: Context, call_next: CallNext) -> None:
            await call_next(event, ctx)

    assert find_faults([Layer(), Layer().__call__]) == []
    for build in (lambda middleware: Group("gifts", middleware=middleware), bus_of):
        with pytest.raises(ConfigurationError, match=r"plain.* must be an async function; middleware 5 must"):
            build(cast(Any, [plain, Layer(), 5]))


def bus_of(middleware: list[Middleware]) -> object:
    return EventBus("memory://", middleware=middleware)
