"""Whether everything that was accepted is accounted for."""

from collections import Counter
from collections.abc import Collection, Mapping

from eventbus.contract.codec import pairs
from eventbus.contract.inspection import Balance, Schedule
from eventbus.redis import scripts
from eventbus.redis.inspection import find_logs
from eventbus.redis.keys import entry_name, stream_keys
from eventbus.redis.links import Links, ReplyError

COUNTED = 50_000  # undelivered entries of a lane that are counted; if there are more, their number is not known
LOOK = 1_000  # pending entries, or dead letters, that are read at a time


async def audit(
    links: Links, namespace: str, streams: Collection[str] | None = None
) -> tuple[list[Balance], list[Schedule]]:
    """A Balance for each log and group, and a Schedule for each log. While a stream is written to, an event on
    its way from one place to another may seem to be missing: one that is gone is missing in a second audit as well."""
    names = await find_logs(links, namespace, streams)
    balances = [balance for name in names for balance in await _balances(links, namespace, name)]
    return balances, [await _schedule(links, namespace, name) for name in names]


async def _balances(links: Links, namespace: str, stream: str) -> list[Balance]:
    keys = stream_keys(namespace, stream)
    found = await scripts.run_all(links, [scripts.BALANCE((lane,), COUNTED) for lane in keys.lanes])
    lanes = {lane: reply for lane, reply in zip(keys.lanes, found, strict=True) if reply is not None}
    dead = await _dead(links, keys.dead)
    names = sorted({group[0].decode() for _, _, groups in lanes.values() for group in groups})
    balances = []
    for name in names:
        parts = [_Part.of(reply, name) for reply in lanes.values()]
        lost = [entry for lane in lanes for entry in await _lost(links, lane, name)]
        balances.append(_sum(stream, name, parts, dead.get(name, 0), lost))
    return balances


class _Part:
    """What one lane has for one group."""

    def __init__(self, added: int, length: int, read: int, waiting: int, pending: int) -> None:
        self.added = added
        self.pending = pending
        self.waiting = None if waiting < 0 else waiting
        self.read = None if read < 0 else read
        if added == length:
            self.skipped: int | None = 0
        elif self.read is None or self.waiting is None:  # the entries that are gone may be older than the group
            self.skipped = None
        else:
            self.skipped = max(0, added - self.read - self.waiting)

    @classmethod
    def of(cls, reply: tuple[int, int, list[list[bytes]]], name: str) -> "_Part":
        """`reply`: of balance.lua. A group that the lane lacks will begin at its start: all entries wait for it."""
        added, length, groups = reply
        for found, read, waiting, pending in groups:
            if found.decode() == name:
                return cls(added, length, int(read), int(waiting), int(pending))
        return cls(added, length, -1, length, 0)


def _sum(stream: str, group: str, parts: list[_Part], dead: int, lost: list[str]) -> Balance:
    accepted, pending = sum(part.added for part in parts), sum(part.pending for part in parts)
    waiting, skipped = _total([part.waiting for part in parts]), _total([part.skipped for part in parts])
    done = None if waiting is None or skipped is None else accepted - waiting - pending - skipped - dead
    return Balance(stream, group, accepted, done, pending - len(lost), waiting, dead, skipped, tuple(lost))


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


async def _lost(links: Links, lane: str, group: str) -> list[str]:
    lost: list[str] = []
    start = "-"
    while start:
        try:
            following, ids = await scripts.call(links, scripts.GONE((lane,), group, start, LOOK))
        except ReplyError as error:
            if str(error).startswith("NOGROUP"):
                return lost
            raise
        start = following.decode()
        lost += [entry_name(lane, entry_id.decode()) for entry_id in ids]
    return lost


async def _dead(links: Links, log: str) -> Mapping[str, int]:
    """How many dead letters each group has."""
    counts: Counter[str] = Counter()
    start = "-"
    while entries := await links.execute("XRANGE", log, start, "+", "COUNT", LOOK):
        counts.update(pairs(fields).get(b"dead.group", b"").decode(errors="replace") for _, fields in entries)
        start = f"({entries[-1][0].decode()}"
    return counts


async def _schedule(links: Links, namespace: str, stream: str) -> Schedule:
    keys = stream_keys(namespace, stream)
    due = {member.decode() for member in await links.execute("ZRANGE", keys.due, 0, -1)}
    kept = {member.decode() for member in await links.execute("HKEYS", keys.scheduled)}
    return Schedule(stream, len(due & kept), tuple(sorted(kept - due)), tuple(sorted(due - kept)))
