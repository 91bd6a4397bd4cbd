"""What groups make of events, for the event store: gathered as executions end, and written a few times a second.

No handler waits for a write. A process that dies loses what it has not written. That an effect was committed is known
all the same: it is read from the inbox.
"""

import asyncio
from collections import deque
from datetime import UTC, datetime
from itertools import islice
from time import time

from eventbus.contract.delivery import Ack, Dead, Outcome, Release, Retry, Snooze
from eventbus.contract.history import Ending, Execution, HistoryWriter
from eventbus.errors import Unavailable
from eventbus.event import uuid7
from eventbus.handling.listeners import Finished
from eventbus.handling.verdict import GivenBack, failure_of, leaves
from eventbus.process.safe_logging import get_logger

INTERVAL = 0.25  # seconds between writes
AWAY_PAUSE = 1.0  # seconds until another try, while PostgreSQL is away
CLOSE_GRACE = 2.0  # seconds that the last writes may take
BATCH = 1_000  # executions in a write
LIMIT = 50_000  # executions that may wait to be written; those beyond are dropped

# Event, group, attempt, outcome, seconds, error, and when, in seconds since the epoch. This is made for every event, so
# it is turned into an Execution only when it is written.
_Ended = tuple[str, str, int, Outcome, float, BaseException | None, float]
_ENDINGS: dict[type[Outcome], Ending] = {
    Ack: Ending.COMPLETED,
    Retry: Ending.FAILED,
    Snooze: Ending.SNOOZED,
    Release: Ending.RELEASED,
    Dead: Ending.DEAD,
}

log = get_logger("eventbus.history")


class Executions:
    """Listener of all groups without a tap, and the role that writes."""

    def __init__(self, store: HistoryWriter) -> None:
        self._store = store
        self._waiting: deque[_Ended] = deque()
        self._unwritten: list[tuple[str, Execution]] = []  # in the write that is under way, or has failed
        self._due = asyncio.Event()
        self._dropped = 0

    def ended(self, finished: Finished) -> None:
        """The listener."""
        group, delivery, outcome, envelope, seconds, error, _ = finished
        if envelope is None or (type(outcome) is Snooze and _is_nothing(error)):
            return
        waiting = self._waiting
        if len(waiting) >= LIMIT:
            self._drop()
            return
        waiting.append((envelope.id, group, delivery.failures + 1, outcome, seconds, error, time()))
        if len(waiting) == 1:
            self._due.set()

    async def run(self) -> None:
        if self._waiting or self._unwritten:  # left by a run that ended
            self._due.set()
        while True:
            await self._due.wait()
            await asyncio.sleep(INTERVAL)
            self._due.clear()
            while not await self.write():
                await asyncio.sleep(AWAY_PAUSE)

    async def close(self) -> None:
        """Write what is left, if the server is there to take it."""
        try:
            async with asyncio.timeout(CLOSE_GRACE):
                written = await self.write()
        except TimeoutError:
            written = False
        if not written:
            lost = len(self._waiting) + len(self._unwritten)
            log.warning("executions are not recorded", count=lost, reason="PostgreSQL did not take them in time")

    async def write(self) -> bool:
        """Write all that has ended by now. False if PostgreSQL is away: the rest is kept for the next write, with the
        ids of what may have been written."""
        while self._unwritten or self._waiting:
            if not self._unwritten:
                some = list(islice(self._waiting, BATCH))
                self._unwritten = [(uuid7(), _execution(each)) for each in some]
                for _ in some:
                    self._waiting.popleft()
            try:
                await self._store.note(self._unwritten)
            except Unavailable:
                return False
            except Exception as error:  # noqa: BLE001 - these are dropped, being worth less than events
                log.error("executions are not recorded", count=len(self._unwritten), error=str(error))  # noqa: TRY400
            self._unwritten = []
        self._catch_up()
        return True

    def _drop(self) -> None:
        if not self._dropped:  # once, until they have been written
            log.error("executions are not recorded any more: too many wait for PostgreSQL", waiting=LIMIT)
        self._dropped += 1

    def _catch_up(self) -> None:
        if self._dropped:
            log.info("executions are recorded again", missing=self._dropped)
            self._dropped = 0


def _is_nothing(error: BaseException | None) -> bool:
    """Whether a snooze is no news: a server is away, or the event came to its batch too late. Such snoozes come for
    every event, every second."""
    return error is not None and all(isinstance(each, Unavailable | GivenBack) for each in leaves(error))


def _execution(ended: _Ended) -> Execution:
    event_id, group, attempt, outcome, seconds, error, finished = ended
    match outcome:
        case Retry(_, failure) | Dead(failure):
            told: str | None = failure.error
        case _:
            told = None if error is None else failure_of(error).error
    return Execution(
        event_id, group, attempt, _ENDINGS[type(outcome)], seconds, told, datetime.fromtimestamp(finished, UTC)
    )
