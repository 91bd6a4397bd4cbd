"""From the spool to Redis: in order, batch by batch, each marked when it is there.

A replay that dies between the two leaves a batch that is in Redis already; the next one applies it again, and each
operation knows what it has done: events by their ids, additions to sessions by theirs.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple, ParamSpec, TypeVar

from eventbus.contract.broker import Broker
from eventbus.errors import CodecError, EventBusError, Full, Unavailable
from eventbus.process import crash_points
from eventbus.process.safe_logging import get_logger
from eventbus.publishing.breaker import Breaker
from eventbus.publishing.spool.file import BATCH, SpoolFile
from eventbus.publishing.spool.record import Mark, Operation, Refused, pack, unpack

PAUSE = 0.5  # seconds between looks at the file, and between tries while Redis is away
_NOTE_EVERY = 120  # failed tries

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger("eventbus.spool")


class Replayed(NamedTuple):
    """How many operations were handed to Redis, and how many lines set aside."""

    records: int = 0
    rejected: int = 0


async def replay(file: SpoolFile, transport: Broker) -> Replayed | None:
    """Everything that is in the file. None, if another process is at it.

    Raises Unavailable, Full, or OSError if the file cannot be read or marked: what was not marked is still there."""
    with file.claim() as mine:
        if not mine:
            return None
        await transport.connect()  # before the file is read: it may be large, and the server away for long
        done = Replayed()
        start = await _in_thread(file.replayed)
        while (batch := await _in_thread(file.batch, start)).end > start:
            if batch.rejected:
                await _in_thread(file.reject, batch.rejected)
                log.error("spool: lines set aside", path=str(file.rejected_path), count=len(batch.rejected))
                crash_points.point("spool.rejected")
            refused = await _apply(batch.records, transport)
            if refused:
                await _set_aside(file, refused)
            crash_points.point("spool.replayed")
            start = await _in_thread(file.mark, batch)
            crash_points.point("spool.marked")
            aside = len(batch.rejected) + len(refused)
            done = Replayed(done.records + len(batch.records) - len(refused), done.rejected + aside)
        return done


async def replay_rejected(file: SpoolFile, transport: Broker) -> Replayed | None:
    """Replay what was set aside, once the cause is gone. Lines that are taken now are removed; those that are refused
    again, or cannot be read, stay. Returns None and raises as `replay` does."""
    with file.claim() as mine:
        if not mine:
            return None
        lines = await _in_thread(file.aside.lines)
        taken: set[bytes] = set()
        for start in range(0, len(lines), BATCH):
            found = {line: operation for line in lines[start : start + BATCH] if (operation := _operation(line))}
            refused = await _apply(list(found.values()), transport)
            still = {id(operation) for operation, _ in refused}
            taken |= {line for line, operation in found.items() if id(operation) not in still}
        await _in_thread(file.aside.replace, [line for line in lines if line not in taken])
        return Replayed(len(taken), len(lines) - len(taken))


def _operation(line: bytes) -> Operation | None:
    try:
        found = unpack(line)
    except CodecError:
        return None
    return None if isinstance(found, Mark) else found


async def _apply(records: Sequence[Operation], transport: Broker) -> list[Refused]:
    """Apply all of these, in order: those of one series that follow each other, together."""
    if not records:
        return []
    # A server that was frozen works off what its sockets hold. Let it do that first: these may be among it.
    await transport.connect()
    refused: list[Refused] = []
    for _, run in groupby(records, key=_series):
        refused += await _apply_run(list(run), transport)
    return refused


async def _apply_run(run: list[Operation], transport: Broker) -> list[Refused]:
    """An unforeseen error may be the fault of one operation: then they are applied one by one."""
    try:
        return await type(run[0]).replay(run, transport)
    except (Unavailable, Full, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the others must not wait for ever
        if len(run) == 1:
            return [Refused(run[0], str(error) or type(error).__name__)]
    return [each for operation in run for each in await _apply_run([operation], transport)]


def _series(operation: Operation) -> object:
    return operation.series


async def _set_aside(file: SpoolFile, refused: list[Refused]) -> None:
    """Somebody was told that this is done, and it is not: people must see it."""
    reasons = {pack(operation).rstrip(b"\n"): reason for operation, reason in refused}
    await _in_thread(file.reject, list(reasons), reasons)
    told = Counter((type(operation).__name__, reason) for operation, reason in refused)
    for (kind, reason), count in told.items():
        named = {"operation": kind, "count": count, "reason": reason, "mend": "eventbus spool replay --rejected"}
        log.error("spool: refused and set aside", path=str(file.rejected_path), **named)


class Replayer:
    """`run()` for ever, in every process that spools: whoever has the claim replays, the others stand by."""

    def __init__(self, file: SpoolFile, transport: Broker, breaker: Breaker) -> None:
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
            except Exception as error:  # noqa: BLE001 - whatever it is: who ends here replays nothing any more
                self._note(error)
            await asyncio.sleep(PAUSE)

    async def _replay(self) -> None:
        done = await replay(self._file, self._transport)
        if done is not None:
            self._breaker.succeeded()
            log.info("spool replayed", path=str(self._file.path), records=done.records, rejected=done.rejected)

    def _note(self, error: Exception) -> None:
        """Log an error when it begins, then once a minute."""
        if self._failures % _NOTE_EVERY == 0:
            foreseen = isinstance(error, (EventBusError, OSError))
            exc_info = None if foreseen else error
            log.error("the spool is not replayed", path=str(self._file.path), error=str(error), exc_info=exc_info)
        self._failures += 1


async def _in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """When this returns or raises, the call has ended: nothing may touch the file behind the back of the next claim."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
