"""Finding the event that kills workers, without blaming those that ran beside it.

After a crash every event that the dead process held is a suspect, and most are innocent. The first crash proves
nothing: all run again at once. From the one before the last on (`crash_budget - 1`) a suspect is taken over only while
nothing else runs in this process, so the next crash can be nobody's fault but its own.
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
        self._idle = asyncio.Event()
        self._idle.set()
        self._running = 0

    async def enter(self) -> None:
        """Wait until no suspect runs, then count as running. Each `enter` needs one `leave`."""
        while not self._open.is_set():
            await self._open.wait()
        self._running += 1
        self._idle.clear()

    def leave(self) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Nothing else starts inside this block; what runs already has some seconds to end first.

        Whatever takes longer than that runs on beside the suspect: one slow handler must not stop a whole process, and
        it is a risk to the suspect only, and only if the slow one kills the process now."""
        async with self._turn:
            self._open.clear()
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE):
                        await self._idle.wait()
                yield
            finally:
                self._open.set()
