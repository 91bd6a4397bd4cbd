"""The contingency log: what was asked for is written here, to the disk, while Redis cannot take it.

record  what a line looks like            file    the file that several processes share
replay  from the file back to Redis       here    many publishes, one write and one fsync
rejected  what was set aside, and why     following  what is new in the file
"""

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from eventbus.contract.broker import Broker
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import ConfigurationError, Full, Unavailable
from eventbus.process.affinity import Affinity
from eventbus.process.supervision import supervise
from eventbus.publishing.breaker import Breaker
from eventbus.publishing.spool.file import SpoolFile, SpoolStatus
from eventbus.publishing.spool.record import Operation, Refused, Spooled, pack, spoolable
from eventbus.publishing.spool.replay import Replayed, Replayer, replay, replay_rejected

__all__ = [
    "SPOOL_BYTES",
    "Operation",
    "Refused",
    "Replayed",
    "Spool",
    "SpoolFile",
    "SpoolStatus",
    "patience",
    "replay",
    "replay_rejected",
    "spoolable",
]

SPOOL_BYTES = 64 * 2**20
# What is left of a timeout for the disk, when Redis had its chance: this share of it, and so many seconds at most.
SHARE, MARGIN = 0.5, 1.0


def patience(timeout: float, spool: "Spool | None") -> float:
    """Seconds that Redis has, of a timeout in which the spool is to have its turn as well."""
    return timeout if spool is None else timeout - min(MARGIN, timeout * SHARE)


def refused_by_both(
    error: Unavailable | Full, refused: Unavailable | Full | TimeoutError, spool: str, server: str
) -> Unavailable | Full:
    """Why neither Redis (`error`) nor the spool (`refused`) has taken something. Full only if both say so: else
    it is not known whether it was done."""
    reason = str(refused) or f"{spool} has not confirmed in time"
    if isinstance(error, Unavailable):
        return Unavailable(error.server, f"{error.detail}; and {reason}")
    if isinstance(refused, Full):
        return Full(f"{error}; and {reason}")
    return Unavailable(server, f"{error}; and {reason}")


class Spool:
    """The spool as one process sees it.

    path   several processes of one application may share it; those of another Redis or namespace may not
    limit  bytes

    Raises ConfigurationError if it cannot be written there.
    """

    def __init__(self, path: Path | str, *, limit: int = SPOOL_BYTES) -> None:
        self.file = SpoolFile(Path(path), limit)
        if not os.access(self.file.path.parent, os.W_OK | os.X_OK) or self.file.path.is_dir():
            raise ConfigurationError(
                f"spool {str(path)!r}: its folder is not there, or this process must not write into it; "
                "name a file elsewhere (EVENTBUS_SPOOL_PATH, empty for no spool)"
            )
        self._waiting: list[tuple[list[bytes], asyncio.Future[None]]] = []
        self._queued = 0  # bytes of what waits to be written
        self._writing: asyncio.Task[None] | None = None
        # Of its own: the loop's other threads may all be busy when this one is needed most.
        self._threads = ThreadPoolExecutor(1, "eventbus-spool")
        self._replaying: asyncio.Task[None] | None = None
        self._affinity = Affinity()

    def start(self, transport: Broker, breaker: Breaker) -> None:
        """Replay what is there, and what will be, whenever the transport takes it."""
        self._affinity.enter()
        name = "eventbus-spool-replay"
        self._replaying = asyncio.create_task(supervise(name, Replayer(self.file, transport, breaker).run), name=name)

    async def close(self) -> None:
        """What is being written is written first. What is not replayed stays for the next start."""
        tasks = [task for task in (self._replaying, self._writing) if task is not None]
        if self._replaying is not None:
            self._replaying.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False)

    async def append(self, outgoing: Sequence[Outgoing]) -> None:
        """As `keep`, of publishes."""
        now = time.time()
        await self.keep([Spooled.of(item, now) for item in outgoing])

    async def keep(self, operations: Sequence[Operation]) -> None:
        """All of them are on the disk when it returns. Calls that come while a write is under way share the next one.

        Raises Full (nothing is kept), Unavailable if the disk fails (nothing is kept), CodecError."""
        lines = [pack(operation) for operation in operations]
        loop = asyncio.get_running_loop()
        # The thread that writes is that loop's, and no process that is forked has it.
        if loop is not self._affinity.loop:
            self._affinity.check()
        written = loop.create_future()
        self._waiting.append((lines, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="eventbus-spool-write")
        await written

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            calls = [b"".join(lines) for lines, _ in batch]
            try:
                taken = await loop.run_in_executor(self._threads, self.file.append, calls)
            except Exception as error:  # noqa: BLE001 - the disk, a bus that is closed, or anything: nobody waits for ever
                self._refuse(batch, Unavailable(self.name, str(error) or type(error).__name__))
                continue
            for _, written in batch[:taken]:
                if not written.done():
                    written.set_result(None)
            self._refuse(batch[taken:], Full(self._full()))

    def _full(self) -> str:
        return f"{self.name} is full: {self.file.size()} of {self.file.limit} bytes"

    @property
    def records(self) -> int:
        """How many records wait: of this process, and of those that share the file. Any thread may ask."""
        return self.file.waiting()

    @property
    def size(self) -> int:
        """Bytes; the size of the file. Any thread may ask."""
        return self.file.size()

    @property
    def limit(self) -> int:
        """Bytes that the file may grow to."""
        return self.file.limit

    @property
    def room(self) -> int:
        """Bytes that it can take yet: within its limit, and on its disk. Any thread may ask.

        Raises Unavailable if it cannot be written."""
        try:
            return self.file.room()
        except OSError as error:
            raise Unavailable(self.name, str(error)) from None

    @property
    def waits(self) -> bool:
        """Whether anything is in it that may not be in Redis: of this process, and of those that share the file."""
        return self.file.size() > 0

    @property
    def rejected(self) -> int:
        """How many lines were set aside, and wait for somebody to look at them. Any thread may ask."""
        return self.file.rejected()

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"spool {self.file.path}"

    @staticmethod
    def _refuse(batch: list[tuple[list[bytes], asyncio.Future[None]]], error: Exception) -> None:
        for _, written in batch:
            if not written.done():
                written.set_exception(error)
