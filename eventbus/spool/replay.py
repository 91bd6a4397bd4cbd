"""From the spool to Redis: in order, batch by batch, each marked when it is there.

A replay that dies between the two leaves a batch that is in Redis already; the next one applies it again, and each
operation knows what it has done: events by their ids, additions to sessions by theirs.
"""

import asyncio
from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple, ParamSpec, TypeVar

from eventbus import crash
from eventbus.breaker import Breaker
from eventbus.errors import EventBusError, Full, Unavailable
from eventbus.spool.file import Batch, SpoolFile
from eventbus.spool.record import Operation, Refused, pack
from eventbus.telling import get_logger
from eventbus.transport import Transport

PAUSE = 0.5  # seconds between looks at the file, and between tries while Redis is away
_NOTE_EVERY = 120  # failed tries

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger("eventbus.spool")


class Replayed(NamedTuple):
    """How many operations were handed to Redis, and how many lines set aside."""

    records: int = 0
    rejected: int = 0


async def replay(file: SpoolFile, transport: Transport) -> Replayed | None:
    """Everything that is in the file. None, if another process is at it.

    Raises Unavailable, Full, or OSError if the file cannot be read or marked: what was not marked is still there."""
    with file.claim() as mine:
        if not mine:
            return None
        done = Replayed()
        start = await _in_thread(file.replayed)
        while (batch := await _in_thread(file.batch, start)).end > start:
            if batch.rejected:
                await _in_thread(file.reject, batch.rejected)
                log.error("spool: lines set aside", path=str(file.rejected_path), count=len(batch.rejected))
                crash.point("spool.rejected")
            refused = await _apply(batch, transport)
            if refused:
                await _set_aside(file, refused)
            crash.point("spool.replayed")
            start = await _in_thread(file.mark, batch)
            crash.point("spool.marked")
            aside = len(batch.rejected) + len(refused)
            done = Replayed(done.records + len(batch.records) - len(refused), done.rejected + aside)
        return done


async def _apply(batch: Batch, transport: Transport) -> list[Refused]:
    """All of a batch, in order: those of one kind that follow each other together."""
    if not batch.records:
        return []
    # A server that was frozen works off what its sockets hold: first, for these may be among it.
    await transport.connect()
    refused: list[Refused] = []
    for kind, run in groupby(batch.records, key=_kind):
        refused += await kind.replay(list(run), transport)
    return refused


def _kind(operation: Operation) -> type[Operation]:
    return type(operation)


async def _set_aside(file: SpoolFile, refused: list[Refused]) -> None:
    """Somebody was told that this is done, and it never will be: people must see it."""
    await _in_thread(file.reject, [pack(operation).rstrip(b"\n") for operation, _ in refused])
    for operation, reason in refused:
        kind = type(operation).__name__
        log.error("spool: refused and set aside", path=str(file.rejected_path), operation=kind, reason=reason)


class Replayer:
    """`run()` for ever, in every process that spools: whoever has the claim replays, the others stand by."""

    def __init__(self, file: SpoolFile, transport: Transport, breaker: Breaker) -> None:
        self._file = file
        self._transport = transport
        self._breaker = breaker
        self._failures = 0

    async def run(self) -> None:
        while True:
            try:
                if self._file.size():
                    await self._replay()
                self._failures = 0
            except Unavailable as error:  # the link has said so
                self._breaker.failed(error, away=True)
            except Full as error:
                self._note(error)
            except (EventBusError, OSError) as error:
                self._note(error)
            await asyncio.sleep(PAUSE)

    async def _replay(self) -> None:
        done = await replay(self._file, self._transport)
        if done is not None:
            self._breaker.succeeded()
            log.info("spool replayed", path=str(self._file.path), records=done.records, rejected=done.rejected)

    def _note(self, error: Exception) -> None:
        """When it begins, then once a minute."""
        if self._failures % _NOTE_EVERY == 0:
            log.error("the spool waits", path=str(self._file.path), error=str(error))
        self._failures += 1


async def _in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """When this returns or raises, it has ended: nothing may touch the file behind the back of the next claim."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
