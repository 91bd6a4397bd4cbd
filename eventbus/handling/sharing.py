"""What handlers need beside events: resources, circuits, recent things, messages to all processes. A part of
`EventBus`."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from eventbus.contract import circuits
from eventbus.contract.broker import Broker
from eventbus.contract.circuits import Calls, Circuit
from eventbus.process.resources import Resource, Resources

T = TypeVar("T")


class Sharing(ABC):
    """The part of a bus that handlers use beside events."""

    _calls: Calls
    _resources: Resources

    @property
    @abstractmethod
    def transport(self) -> Broker: ...

    # Resources --------------------------------------------------------------------------------------------------------

    async def use(self, resource: Resource[T], /) -> T:
        """What handlers need beside the bus; opened when it is first used, closed with the bus. See
        eventbus.process.resources.

        Raises what opening it raises; then the next use tries again."""
        return await self._resources.use(resource)

    def provide(self, resource: Resource[T], value: T) -> None:
        """Use this value for the resource, and open none. Raises ConfigurationError if it is in use already."""
        self._resources.provide(resource, value)

    # What all processes share ---------------------------------------------------------------------------------------

    def guarded(self, circuit: Circuit, age: float = 0.0) -> AbstractAsyncContextManager[None]:
        """Around a call to a service outside that may fail as a whole: raises SnoozeFor while its circuit is open. A
        handler uses ctx.guarded, which knows the event's age. See eventbus.contract.circuits."""
        return circuits.guarded(self.transport.circuits, self._calls, circuit, age)

    async def remember(self, name: str, items: Mapping[bytes, int], *, keep: int, seconds: float) -> None:
        """Add to the last things of something, by position: the `keep` with the highest positions stay for `seconds`
        more. Adding again changes nothing. They are copies, which may be lost at any time.

        Raises Unavailable, Full."""
        await self.transport.recent.add(name, items, keep=keep, seconds=seconds)

    async def recall(self, name: str) -> list[bytes]:
        """What `remember` was given, by position; nothing if it is not there (any more). Raises Unavailable."""
        return await self.transport.recent.read(name)

    # Notices ----------------------------------------------------------------------------------------------------------

    async def broadcast(self, channel: str, message: bytes) -> None:
        """Tell every process that listens to the channel now. Kept for nobody: what must arrive is an event."""
        await self.transport.broadcast(channel, message)

    def listen(self, channel: str, joined: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        """Messages broadcast on the channel from now on. What passes while Redis is away is lost. `joined` is called
        each time that listening begins to work: at first, and after every gap."""
        return self.transport.listen(channel, joined)
