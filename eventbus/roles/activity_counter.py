"""Counting what executions come to, for `bus.events.activity`: a few additions for an event, and a write a second.

Counts wait in memory until they are written. A process that dies loses what it has counted within the last second.
While Redis is away, the counts of 10,000 organizations wait; those of others are not kept. A write that may have
arrived is sent again under the same number, and counted once.
"""

import asyncio
import secrets
from collections.abc import Mapping
from itertools import islice

import orjson

from eventbus.contract.activity_stats import ERROR_LIMIT, FAILURES, TYPE_LIMIT, Share, Sums, Tallies
from eventbus.contract.delivery import Ack, Dead, Outcome, Retry
from eventbus.errors import EventBusError, Unavailable
from eventbus.event import Envelope
from eventbus.process.safe_logging import get_logger

INTERVAL = 1.0  # seconds between writes
CLOSE_GRACE = 2.0  # seconds that the last write may take
BATCH = 500  # organizations in a write
LIMIT = 10_000  # organizations whose counts may wait
FAILURES_LIMIT = 1_000  # failures of all organizations that may wait; those beyond are counted without details

log = get_logger("eventbus.counting")


class _Counts:
    """The counts of one organization since the last write."""

    __slots__ = ("dead", "done", "failures", "ran", "retried", "seconds")

    def __init__(self) -> None:
        self.done = self.dead = self.retried = self.ran = 0
        self.seconds = 0.0
        self.failures: list[bytes] = []

    def share(self, organization: str | None) -> Share:
        sums = Sums(self.done, self.dead, self.retried, self.ran, round(self.seconds * 1e6))
        return Share(organization, sums, self.failures)


class Counter:
    """Counts executions, and is the role that writes the counts. Writes nothing while there are none."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self._writer = secrets.token_hex(6)
        self._number = 1  # of the next write
        self._counted: dict[str | None, _Counts] = {}
        self._leaving: dict[str | None, _Counts] = {}  # what is being written; not changed any more
        self._failures = 0  # that wait
        self._due = asyncio.Event()
        self._writing = asyncio.Lock()
        self._trouble = False

    def count(self, group: str, outcome: Outcome, envelope: Envelope | None, seconds: float) -> None:
        """Count an execution: see eventbus.handling.listeners.Finished. Called for every event: must be quick."""
        counts = self._counted.get(envelope.organization if envelope is not None else None)
        if counts is None:
            counts = self._begin(envelope)
        kind: type[Outcome] = type(outcome)
        if kind is Ack:
            counts.done += 1
        elif kind is Retry:
            counts.retried += 1
        elif isinstance(outcome, Dead):
            counts.dead += 1
            self._tell(counts, group, outcome, envelope)
        else:
            return
        if seconds:  # else nothing ran
            counts.ran += 1
            counts.seconds += seconds

    def _begin(self, envelope: Envelope | None) -> _Counts:
        if len(self._counted) >= LIMIT:
            self._note("there are too many organizations")
            return _Counts()
        self._due.set()
        counts = self._counted[envelope.organization if envelope is not None else None] = _Counts()
        return counts

    def _tell(self, counts: _Counts, group: str, outcome: Dead, envelope: Envelope | None) -> None:
        """Note a dead letter. One that cannot be decoded is of no known organization: it is counted, but not noted."""
        if envelope is None or self._failures >= FAILURES_LIMIT:
            return
        told = {
            "eventId": envelope.id,
            "type": envelope.type[:TYPE_LIMIT],
            "group": group,
            "error": outcome.failure.error[:ERROR_LIMIT].encode(errors="backslashreplace").decode(),
            "attempts": outcome.attempts,
        }
        self._failures += 1
        counts.failures.append(orjson.dumps(told))
        if len(counts.failures) > FAILURES:
            del counts.failures[0]
            self._failures -= 1

    # Writing ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        if self._leaving or self._counted:  # left by a run that ended
            self._due.set()
        while True:
            await self._due.wait()
            await asyncio.sleep(INTERVAL)
            self._due.clear()
            if not await self.write() or self._counted:  # a write may send only the rest of the last one
                self._due.set()

    async def close(self) -> None:
        """Write what is left, if the server is there to take it."""
        try:
            async with asyncio.timeout(CLOSE_GRACE):
                while (self._leaving or self._counted) and await self.write():
                    pass
        except TimeoutError:
            log.warning("counts are not written", reason="the server did not answer in time")

    async def write(self) -> bool:
        """Write what is left of the last write, or else all that has been counted. False if the server is away."""
        async with self._writing:
            if not self._leaving:
                self._leaving, self._counted, self._failures = self._counted, {}, 0
            while self._leaving:
                batch = dict(islice(self._leaving.items(), BATCH))
                try:
                    await self._tallies.add(self._writer, self._number, _shares(batch))
                except Unavailable:
                    return False
                except EventBusError as error:  # no memory: these are dropped, being worth less than events
                    self._note(str(error))
                else:
                    self._trouble = False
                self._number += 1
                for organization in batch:
                    del self._leaving[organization]
            return True

    def _note(self, reason: str) -> None:
        if not self._trouble:  # once, until it works again
            log.warning("activity counts are incomplete", reason=reason)
        self._trouble = True


def _shares(counted: Mapping[str | None, _Counts]) -> list[Share]:
    return [counts.share(organization) for organization, counts in counted.items()]
