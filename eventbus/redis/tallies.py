"""Counts of organizations: a ring of minutes and a list of failures for each."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import orjson

from eventbus.contract.activity_stats import (
    FAILURES,
    KEPT,
    MINUTES,
    DeadEvent,
    Found,
    Share,
    Sums,
    minute_of,
    moment_of,
)
from eventbus.redis import scripts
from eventbus.redis.keys import tally_keys
from eventbus.redis.links import Command, Links
from eventbus.redis.scripts import ms


class RedisTallies:
    """See eventbus.contract.activity_stats.Tallies."""

    def __init__(self, links: Links, namespace: str) -> None:
        self._links = links
        self._namespace = namespace

    async def add(self, writer: str, number: int, shares: Sequence[Share]) -> None:
        await scripts.run_all(self._links, [self._addition(writer, number, share) for share in shares])

    async def read(self, organization: str | None, minutes: int) -> Found:
        keys = tally_keys(self._namespace, organization)
        look: list[Command] = [("TIME",), ("HVALS", keys.minutes), ("LRANGE", keys.failures, 0, FAILURES - 1)]
        (seconds, micros), rows, failures = await scripts.run_all(self._links, look)
        now = moment_of(int(seconds) * 1000) + timedelta(microseconds=int(micros))
        sums = Sums()
        for row in rows:
            numbers = row.split()
            if len(numbers) != 6 or not all(number.isdigit() for number in numbers):  # somebody else's
                continue
            minute, *counts = map(int, numbers)
            if 0 <= minute_of(now) - minute <= minutes:
                sums = sums.plus(Sums(*counts))
        return Found(now, sums, [found for found in map(_failure, failures) if found is not None])

    def _addition(self, writer: str, number: int, share: Share) -> Command:
        keys = tally_keys(self._namespace, share.organization)
        kept = (ms(KEPT), MINUTES, FAILURES)
        return scripts.TALLY((*keys, keys.prefix + writer), number, *kept, *share.sums, *share.failures)


def _failure(told: bytes) -> DeadEvent | None:
    """None for a value that tells of no failure: somebody else has put it there."""
    at, _, packed = told.partition(b" ")
    try:
        fields = orjson.loads(packed)
        moment: datetime = moment_of(int(at))
        return DeadEvent(
            fields["eventId"], fields["type"], fields["group"], fields["error"], fields["attempts"], moment
        )
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
