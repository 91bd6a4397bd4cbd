"""Keeping the logs in order: what RedisTransport.tidy does."""

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from eventbus.contract.delivery import Subscription
from eventbus.contract.retention import Retention
from eventbus.contract.upkeep import Tidied
from eventbus.errors import EventBusError
from eventbus.redis import scripts
from eventbus.redis.keys import PARKED, stream_keys
from eventbus.redis.links import Links
from eventbus.redis.partitions import Partitions
from eventbus.redis.scripts import ms

KEEP_AT_LEAST = 10_000  # ms; a publish is repeated within a few seconds, and must find what it stored
UPDATE_HOLDS = 3_600_000  # ms after the counting began for which workers of an older version may settle uncounted
CONSUMER_TTL = 3_600_000  # ms until an idle consumer without entries is forgotten


class _Round:
    """Whose turn it is among the logs of a stream, and what was found when it was theirs last."""

    def __init__(self) -> None:
        self.turns: deque[str] = deque()
        self.consumers: set[str] = set()  # logs in which consumers are still to be looked for
        self.found: dict[str, Tidied] = {}


class Tidying:
    """`tidy` for each stream, again and again."""

    def __init__(self, links: Links, namespace: str, partitions: Partitions) -> None:
        self._links = links
        self._namespace = namespace
        self._partitions = partitions
        self._rounds: dict[str, _Round] = {}
        self._settled: dict[str, set[str]] = {}  # logs of each stream in which something was settled since their turn

    def note(self, subscriptions: Iterable[Subscription]) -> None:
        """Something of these was settled: it is to be trimmed soon."""
        for each in subscriptions:
            self._settled.setdefault(each.stream, set()).add(each.log)

    async def tidy(self, stream: str, retention: Retention, *, consumers: bool) -> Tidied:
        """See eventbus.contract.upkeep. Of the logs of a stream, those in which something was settled here have their
        turn each time, and one of the others. What it tells of all others is what was found before."""
        turn = self._rounds.setdefault(stream, _Round())
        logs = self._partitions.logs(stream)
        turn.turns.extend(log for log in logs if log not in turn.turns)
        turn.consumers.update(logs if consumers else ())
        settled = self._settled.pop(stream, set())
        others = (log for log in turn.turns if log not in settled)
        now = sorted({*settled.intersection(logs), *islice(others, 1)})
        for log in now:
            turn.turns.remove(log)
        turn.turns.extend(now)
        mine = replace(
            retention,
            settled_count=math.ceil(retention.settled_count / len(logs)),
            dead_count=math.ceil(retention.dead_count / len(logs)),
        )
        try:
            tidied = await asyncio.gather(*(self._tidy(log, mine, log in turn.consumers) for log in now))
        except EventBusError:
            self._settled.setdefault(stream, set()).update(settled)
            raise
        turn.found.update(zip(now, tidied, strict=True))
        turn.consumers.difference_update(now)
        standing = turn.found.values()
        return Tidied(
            sum(each.entries for each in tidied),
            sum(each.consumers for each in tidied),
            sum(each.dead_letters for each in tidied),
            sorted({group for each in standing for group in each.missing_groups}),
            sum(each.left for each in standing) + len(turn.turns) - len(standing),  # of those not seen yet: some
            tuple(lost for each in tidied for lost in each.vanished),
        )

    async def _tidy(self, log: str, retention: Retention, consumers: bool) -> Tidied:
        keys = stream_keys(self._namespace, log)
        entries, forgotten, dead_letters, missing, left, vanished = await scripts.call(
            self._links,
            scripts.TIDY(
                (*keys.lanes, keys.groups, keys.dead, keys.counts, keys.due, keys.scheduled),
                *(ms(retention.settled), retention.settled_count, KEEP_AT_LEAST, CONSUMER_TTL, PARKED),
                *(ms(retention.dead), retention.dead_count, int(consumers), UPDATE_HOLDS),
            ),
        )
        names = sorted(name.decode() for name in missing)
        lost = tuple((name.decode(), count) for name, count in zip(vanished[::2], vanished[1::2], strict=True))
        return Tidied(entries, forgotten, dead_letters, names, left, lost)
