"""Finding the event that kills workers, without blaming those that ran beside it, or those that were in the hands of a
worker that somebody else killed.

After a crash every event that the dead process held may have done it, and most are innocent. So the first crash proves
nothing, and all run again at once. After the second (`transport.SUSPECT_FROM`) an event is a suspect: it is taken over
only while nothing else runs in this process. Its next crashes are its own, and `crash_budget` of those condemn it. One
would not do: where workers are being killed from outside, by a person, a deployment or for want of memory, some event
is alone in one of them now and then, but hardly the same event time after time.

A handler of batches has hundreds in its hands, and one by one they would take hours. Of those that died together half
are taken over, and run together and with nothing else: the guilty one is alone after as many crashes as it takes to
halve them, and until then the crashes are nobody's, but for the last of a set: see docs/decisions/0004. Who died
together is in the pending list: it is what one consumer holds whose leases have run out.
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
        self._idle = asyncio.Event()  # looked at, and set, only while a suspect waits for it
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
        """Nothing else starts inside this block; what runs already has some seconds to end first.

        Whatever takes longer than that runs on beside the suspect: one slow handler must not stop a whole process, and
        it is a risk to the suspect only, and only if the slow one kills the process now."""
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
