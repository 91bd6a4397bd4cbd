"""What processes share beside events: `bus.shared` holds circuits, recent things, and messages to all processes.

All of it may be lost at any time: what must arrive, or must be kept, is an event or a row.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from eventbus.contract import circuits
from eventbus.contract.broker import Broker
from eventbus.contract.circuits import Calls, Circuit


class Shared:
    """What the processes of a bus share. `calls`: those of this process."""

    def __init__(self, transport: Broker, calls: Calls) -> None:
        self._transport = transport
        self._calls = calls

    def guarded(self, circuit: Circuit, age: float = 0.0) -> AbstractAsyncContextManager[None]:
        """Around a call to a service outside that may fail as a whole: raises SnoozeFor while its circuit is open. A
        handler uses ctx.guarded, which knows the event's age in seconds. See eventbus.contract.circuits."""
        return circuits.guarded(self._transport.circuits, self._calls, circuit, age)

    async def remember(self, name: str, items: Mapping[bytes, int], *, keep: int, seconds: float) -> None:
        """Add to the last things of something, by position: the `keep` with the highest positions stay for `seconds`
        more. Adding again changes nothing. Raises Unavailable, Full."""
        await self._transport.recent.add(name, items, keep=keep, seconds=seconds)

    async def recall(self, name: str) -> list[bytes]:
        """What `remember` was given, by position; nothing if it is not there (any more). Raises Unavailable."""
        return await self._transport.recent.read(name)

    async def broadcast(self, channel: str, message: bytes) -> None:
        """Tell every process that listens to the channel now. Kept for nobody. Raises Unavailable."""
        await self._transport.broadcast(channel, message)

    def listen(self, channel: str, joined: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
        """Messages broadcast on the channel from now on. What passes while Redis is away is lost. `joined` is called
        each time that listening begins to work: at first, and after every gap."""
        return self._transport.listen(channel, joined)
