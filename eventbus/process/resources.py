"""What handlers need beside the bus: HTTP sessions, pools, settings. One of each in a process, opened when it is first
used and closed with the bus.

    async def open_session(use: Use) -> AsyncIterator[ClientSession]:
        settings = await use(SETTINGS)                  # resources may stand on others
        async with ClientSession(settings.crm_url) as session:
            yield session

    SESSION = Resource("CRM", asynccontextmanager(open_session))

    @group.on(LeadCreated)
    async def tell_crm(event: LeadCreated, ctx: Context) -> None:
        session = await ctx.use(SESSION)

A test, or a program that has one already, gives its own: `bus.resources.provide(SESSION, session)`.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from typing import Any, Generic, Protocol, TypeVar, cast

from eventbus.errors import ConfigurationError
from eventbus.process.loop import begin
from eventbus.process.safe_logging import get_logger

T = TypeVar("T")

log = get_logger("eventbus")


class Use(Protocol):
    """`await use(resource)`: the resource's value, opened by now."""

    async def __call__(self, resource: "Resource[T]", /) -> T: ...


class Resource(Generic[T]):
    """How to open something, and what to call it in messages. `open` is given `use`, for what it stands on itself."""

    def __init__(self, name: str, open: Callable[[Use], AbstractAsyncContextManager[T]]) -> None:  # noqa: A002
        self.name = name
        self.open = open

    def __repr__(self) -> str:
        return f"Resource({self.name!r})"


class Resources:
    """The resources of one bus."""

    def __init__(self) -> None:
        self._values: dict[Resource[Any], Any] = {}
        self._owners: dict[Resource[Any], _Owner] = {}  # of what is being opened or open, in the order of opening
        self._context = copy_context()  # what a resource begins must not run in the context of an event
        self._closed = False

    def provide(self, resource: Resource[T], value: T) -> None:
        """Use this value; whoever gives it closes it. Raises ConfigurationError if the resource is open already."""
        if resource in self._values or resource in self._owners:
            raise ConfigurationError(f"{resource.name} is in use already: provide it before anything uses it")
        self._values[resource] = value

    async def use(self, resource: Resource[T], /) -> T:
        """Raises whatever opening it raises, and the next to use it tries again. Callers that come meanwhile wait for
        the same attempt; one that is cancelled cancels it for nobody else."""
        if resource in self._values:
            return cast(T, self._values[resource])
        if self._closed:
            raise ConfigurationError(f"{resource.name} cannot be opened: this bus is closed")
        owner = self._owners.get(resource)
        if owner is None:
            owner = self._owners[resource] = _Owner(resource)
            owner.task = begin(self._own(resource, owner), self._context.copy())
        return cast(T, await asyncio.shield(owner.opened))

    async def close(self) -> None:
        """The last opened first. One that fails to close is logged, and does not keep the others open."""
        self._closed = True
        owners = list(self._owners.values())
        opening = [owner for owner in owners if not owner.opened.done()]
        for owner in (*reversed(opening), *reversed([owner for owner in owners if owner not in opening])):
            await owner.end()
        self._values.clear()

    async def _own(self, resource: Resource[Any], owner: "_Owner") -> None:
        """Open it, hold it and close it. All in one task: cancel scopes, task groups and context variables must be left
        where they were entered."""
        try:
            async with resource.open(self.use) as value:
                self._owners[resource] = self._owners.pop(resource)  # behind what it stands on
                self._values[resource] = value
                if not owner.opened.done():
                    owner.opened.set_result(value)
                await owner.closing.wait()
        except BaseException as error:
            if not owner.opened.done():
                owner.fail(error)
            elif not isinstance(error, asyncio.CancelledError):
                # Nobody is left to handle it, and it is no reason to leave the others open.
                told = "a resource did not close" if owner.closing.is_set() else "a resource ended while it was in use"
                log.exception(told, resource=resource.name)
            if isinstance(error, KeyboardInterrupt | GeneratorExit):
                raise
        finally:
            self._values.pop(resource, None)  # who uses it next opens it again
            self._owners.pop(resource, None)


class _Owner:
    """The task that one resource is opened and closed in."""

    def __init__(self, resource: Resource[Any]) -> None:
        self.opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.opened.add_done_callback(_look)
        self.closing = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._name = resource.name

    def fail(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            self.opened.cancel()
        elif isinstance(error, StopIteration):  # no future takes one
            self.opened.set_exception(RuntimeError(f"{self._name} cannot be opened: {error!r}"))
        else:
            self.opened.set_exception(error)

    async def end(self) -> None:
        """Returns when it is closed; what is still being opened is cancelled."""
        self.closing.set()
        if self.task is None:
            return
        if not self.opened.done():
            self.task.cancel()
        await asyncio.wait([self.task])


def _look(opened: "asyncio.Future[Any]") -> None:
    """Keep asyncio from reporting an error that nobody has seen: all who waited for it may be gone."""
    if not opened.cancelled():
        opened.exception()
