"""What runs around handlers: callables, composed once for each handler."""

import inspect
from collections.abc import Awaitable, Callable, Sequence

from eventbus.context import Context
from eventbus.event import Event

CallNext = Callable[[Event, Context], Awaitable[None]]

# `async def middleware(event, ctx, call_next)`: awaits `call_next(event, ctx)` for the rest of the way to the handler.
# What it raises is the handler's failure, verdicts included; returning without that call is success, and the handler
# does not run. The group's timeout covers it.
Middleware = Callable[[Event, Context, CallNext], Awaitable[None]]


def compose(handler: CallNext, middleware: Sequence[Middleware]) -> CallNext:
    """The handler inside of its middleware; the first of the list is the outermost."""
    for layer in reversed(middleware):
        handler = _around(layer, handler)
    return handler


def _around(layer: Middleware, call_next: CallNext) -> CallNext:
    return lambda event, ctx: layer(event, ctx, call_next)


def find_faults(middleware: Sequence[Middleware]) -> list[str]:
    """What is wrong with them: one line for each that is not asynchronous."""
    return [f"middleware {layer!r} must be an async function" for layer in middleware if not _is_async(layer)]


def _is_async(layer: Middleware) -> bool:
    # The second is an object with `async def __call__`.
    return inspect.iscoroutinefunction(layer) or inspect.iscoroutinefunction(getattr(layer, "__call__", None))  # noqa: B004
