"""What the streams hold, read in one write: one script for each stream, so that its numbers are of one moment."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from eventbus.contract.inspection import BACKLOG_LIMIT, ConsumerState, GroupState, StreamState, whole_streams
from eventbus.event import stream_of
from eventbus.redis import scripts
from eventbus.redis.keys import PARKED, QUEUED, stream_keys
from eventbus.redis.links import Command, Links, Reply
from eventbus.redis.partitions import logs_of_streams
from eventbus.redis.scanning import keys_like

_KINDS = re.compile(r"stream(:p\d+)?|due|dead")


async def find_logs(links: Links, namespace: str, streams: Collection[str] | None = None) -> list[str]:
    """The logs of these streams, sorted; without them, all that have entries, groups, scheduled events or dead letters.

    That looks through all keys of the database, in small steps: not to be done often."""
    if streams is not None:
        return sorted(set(await logs_of_streams(links, namespace, streams)))
    found: set[str] = set()
    prefix = f"{namespace}:{{"
    async for keys in keys_like(links, f"{_literal(prefix)}*}}:[sd]*"):
        for key in keys:
            stream, _, kind = key.decode(errors="replace").removeprefix(prefix).partition("}:")
            if _KINDS.fullmatch(kind):
                found.add(stream)
    return sorted(found)


async def find_streams(links: Links, namespace: str) -> list[str]:
    """The streams that these logs belong to, sorted."""
    return sorted({stream_of(each) for each in await find_logs(links, namespace)})


async def read_streams(links: Links, namespace: str, streams: Collection[str] | None = None) -> list[StreamState]:
    """The state of these streams, each with all its logs, or of all that there are; sorted by name. Two round trips if
    they are named."""
    return whole_streams(await read_logs(links, namespace, await find_logs(links, namespace, streams)))


async def read_logs(links: Links, namespace: str, logs: Sequence[str]) -> list[StreamState]:
    """The state of each log. One round trip."""
    replies = await scripts.run_all(links, [_inspection(namespace, name) for name in logs])
    return [_stream(name, reply) for name, reply in zip(logs, replies, strict=True)]


def _literal(text: str) -> str:
    """For a MATCH pattern."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)


def _inspection(namespace: str, stream: str) -> Command:
    keys = stream_keys(namespace, stream)
    return scripts.INSPECT((keys.due, keys.dead, *keys.lanes), BACKLOG_LIMIT)


class _Part(NamedTuple):
    """What one lane tells of one group. Times are entry ids in ms; consumers: name to entries in hand and idle ms."""

    lag: int | None
    undelivered: int
    oldest_undelivered: int | None
    pending: int = 0
    oldest_unacked: int | None = None
    consumers: Mapping[str, tuple[int, int]] = {}


class _Lane(NamedTuple):
    length: int
    oldest: int | None
    groups: dict[str, _Part]

    def part(self, group: str) -> _Part:
        """A group that is not there (yet) will be created at the beginning: all is still to come for it."""
        return self.groups.get(group) or _Part(self.length, self.length, self.oldest)


def _stream(name: str, reply: Reply) -> StreamState:
    now, scheduled, dead, found = reply
    parts = [
        _Lane(length, _ms(oldest), {group[0].decode(): _part(group[1:]) for group in groups})
        for length, oldest, groups in found
    ]
    names = sorted({group for lane in parts for group in lane.groups})
    groups = tuple(_group(group, [lane.part(group) for lane in parts], now) for group in names)
    return StreamState(name, sum(lane.length for lane in parts), scheduled, dead, groups)


def _part(reply: Reply) -> _Part:
    lag, undelivered, waiting, pending, unacked, consumers = reply
    hands = {name.decode(): (held, idle) for name, held, idle in consumers}
    return _Part(None if lag < 0 else lag, undelivered, _ms(waiting), pending, _ms(unacked), hands)


def _group(name: str, parts: list[_Part], now: int) -> GroupState:
    lags = [part.lag for part in parts]
    hands: dict[str, tuple[int, int]] = {}
    for part in parts:
        for consumer, (held, idle) in part.consumers.items():
            before = hands.get(consumer, (0, idle))
            hands[consumer] = (before[0] + held, min(before[1], idle))
    delayed = hands.pop(PARKED, (0, 0))[0]
    hands.pop(QUEUED, None)  # they are nobody's: each waits behind another of its key
    return GroupState(
        name,
        lag=None if None in lags else sum(lag for lag in lags if lag is not None),
        backlog=sum(part.undelivered for part in parts),
        pending=sum(part.pending for part in parts),
        delayed=delayed,
        oldest_undelivered=_age((part.oldest_undelivered for part in parts), now),
        oldest_unacked=_age((part.oldest_unacked for part in parts), now),
        consumers=tuple(ConsumerState(who, held, idle / 1000) for who, (held, idle) in sorted(hands.items())),
    )


def _age(times: Iterable[int | None], now: int) -> float | None:
    oldest = min((time for time in times if time is not None), default=None)
    return None if oldest is None else max(0, now - oldest) / 1000


def _ms(entry_id: bytes) -> int | None:
    return int(entry_id.split(b"-")[0]) if entry_id else None
