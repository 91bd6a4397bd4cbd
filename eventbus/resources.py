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

A test, or a program that has one already, gives its own: `bus.provide(SESSION, session)`.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, TypeVar, cast

import structlog

from eventbus.errors import ConfigurationError

T = TypeVar("T")

log = structlog.get_logger("eventbus")


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
        self._opening: dict[Resource[Any], asyncio.Task[Any]] = {}
        self._open: list[tuple[Resource[Any], AbstractAsyncContextManager[Any]]] = []  # in the order of opening
        self._closed = False

    def provide(self, resource: Resource[T], value: T) -> None:
        """Use this value; whoever gives it closes it. Raises ConfigurationError if the resource is open already."""
        if resource in self._values or resource in self._opening:
            raise ConfigurationError(f"{resource.name} is in use already: provide it before anything uses it")
        self._values[resource] = value

    async def use(self, resource: Resource[T], /) -> T:
        """Raises whatever opening it raises, and the next to use it tries again. Who comes meanwhile waits for the same
        attempt; a caller that is cancelled cancels it for nobody else."""
        if resource in self._values:
            return cast(T, self._values[resource])
        if self._closed:
            raise ConfigurationError(f"{resource.name} cannot be opened: this bus is closed")
        opening = self._opening.get(resource)
        if opening is None:
            opening = asyncio.create_task(self._enter(resource), name=f"open:{resource.name}")
            opening.add_done_callback(_look)
            self._opening[resource] = opening
        return cast(T, await asyncio.shield(opening))

    async def _enter(self, resource: Resource[T]) -> T:
        try:
            opened = resource.open(self.use)
            value = await opened.__aenter__()
            self._open.append((resource, opened))
            self._values[resource] = value
            return value
        finally:
            del self._opening[resource]

    async def close(self) -> None:
        """The last opened first. One that fails to close is logged, and does not keep the others open."""
        self._closed = True
        for opening in tuple(self._opening.values()):
            opening.cancel()
            await asyncio.wait({opening})
        self._values.clear()
        while self._open:
            resource, opened = self._open.pop()
            try:
                await opened.__aexit__(None, None, None)
            except Exception:  # it is nobody's to handle any more, and no reason to leave the others open
                log.exception("a resource did not close", resource=resource.name)


def _look(opening: "asyncio.Task[Any]") -> None:
    """All who waited for it may be gone: keep asyncio from reporting how it ended."""
    if not opening.cancelled():
        opening.exception()
