"""Names that methods of a bus had before its parts became objects. They stay until 1.0, and do what the new ones do."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from eventbus.handling.sharing import Shared
from eventbus.handling.transactions import Transactions
from eventbus.operating.events import Events
from eventbus.operating.groups import Groups
from eventbus.process.resources import Resources

P = ParamSpec("P")
R = TypeVar("R")


def _former(part: str, method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """The method of a bus that calls this one of the bus' part. Its documentation names the new way."""

    @functools.wraps(method)
    def call(bus: object, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(getattr(bus, part), *args, **kwargs)

    @functools.wraps(method)
    async def call_async(bus: object, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        return await cast(Awaitable[Any], call(bus, *args, **kwargs))

    # One that is asynchronous stays so for whoever looks: a mock made after it, for example.
    former = cast("Callable[Concatenate[Any, P], R]", call_async if inspect.iscoroutinefunction(method) else call)
    former.__doc__ = f"Deprecated: `bus.{part}.{method.__name__}` now. {method.__doc__}"
    return former


class FormerNames:
    """A bus under its former names; nothing warns while a program runs."""

    locate = _former("events", Events.locate)
    abort = _former("events", Events.abort)
    replay = _former("events", Events.replay)
    activity = _former("events", Events.activity)
    pause = _former("groups", Groups.pause)
    resume = _former("groups", Groups.resume)
    paused = _former("groups", Groups.paused)
    counts = _former("groups", Groups.counts)
    state = _former("groups", Groups.state)
    recorded = _former("groups", Groups.recorded)
    watch = _former("groups", Groups.watch)
    inbox = _former("transactions", Transactions.inbox)
    inbox_batch = _former("transactions", Transactions.inbox_batch)
    record = _former("transactions", Transactions.record)
    guarded = _former("shared", Shared.guarded)
    remember = _former("shared", Shared.remember)
    recall = _former("shared", Shared.recall)
    broadcast = _former("shared", Shared.broadcast)
    listen = _former("shared", Shared.listen)
    use = _former("resources", Resources.use)
    provide = _former("resources", Resources.provide)
