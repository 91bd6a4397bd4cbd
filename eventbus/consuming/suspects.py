"""Finding the event that kills workers, without blaming events that ran beside it, or events of a worker that somebody
else killed.

After a crash, every event that the dead process held may have caused it, and most are innocent. So the first crash
proves nothing, and all of them run again at once. After the second (`contract.delivery.SUSPECT_FROM`) an event is a
suspect: it is taken over only while nothing else runs in this process. From then on its crashes are its own, and
`crash_budget` of them condemn it. One would not be enough: where workers are killed from outside, by a person, a
deployment or for want of memory, some event is alone in one of them now and then, but hardly the same one every time.

A group with handlers of batches holds hundreds of events, which would take hours one by one. So half of those that died
together are taken over, and run together while nothing else runs. The guilty one is alone after as many crashes as it
takes to halve the set down to it. Until then the crashes are charged to no event, except to the last one left of a set:
see docs/decisions/0004. The pending list tells which events died together: one consumer holds them, and their leases
have run out.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

PATIENCE = 10.0  # seconds that a suspect waits for what runs before it


class Isolation:
    """One per process: many handlers at a time, or one suspect alone."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()  # used only while a suspect waits for it
        self._closed = False
        self.running = 0

    async def enter(self) -> None:
        """Wait until no suspect runs, then count as running. Each `enter` needs one `leave`."""
        while not self.enter_at_once():
            await self._open.wait()

    def enter_at_once(self) -> bool:
        """As `enter`, but False where that would wait."""
        if self._closed:
            return False
        self.running += 1
        return True

    def leave(self) -> None:
        self.running -= 1
        if self._closed and not self.running:
            self._idle.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Nothing else starts inside this block; what runs already has PATIENCE seconds to end first.

        Whatever takes longer runs on beside the suspect: one slow handler must not stop a whole process. That is a risk
        to the suspect alone, and only if the slow handler kills the process just then."""
        async with self._turn:
            self._closed = True
            self._open.clear()
            try:
                if self.running:
                    self._idle.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(PATIENCE):
                            await self._idle.wait()
                yield
            finally:
                self._closed = False
                self._open.set()
