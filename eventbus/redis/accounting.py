"""Entries that a stream has taken in and that are neither settled, nor pending, nor still to come: they are missing."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from eventbus.contract.codec import pairs
from eventbus.contract.inspection import SCHEDULE, Account, Gap
from eventbus.redis import scripts
from eventbus.redis.keys import lane_key, stream_keys
from eventbus.redis.links import Links, Reply
from eventbus.redis.scripts import moment

LOOK = 50_000  # entries that are counted in one step
MOST_LOOKS = 100  # steps for one lane; if more entries wait than these count, their number is not known
LETTERS = 200  # dead letters that are read at a time

Counts = Mapping[str, str]


async def accounts(links: Links, namespace: str, stream: str) -> list[Account]:
    """One for the schedule, if there ever was anything in it, and one for each group that reads the stream, by name.
    The counts of all of them are of the same moment; the dead letters that are there are read right after it."""
    keys = stream_keys(namespace, stream)
    where = (*keys.lanes, keys.counts, keys.due, keys.scheduled)
    _, flat, groups = await scripts.call(links, scripts.ACCOUNT(where))
    counts = {name.decode(): value.decode() for name, value in pairs(flat).items()}
    letters = await _letters(links, keys.dead, counts)
    found = []
    for name, known, missing, unknown in groups:
        group = name.decode()
        total = missing if known else await _add_unknown(links, namespace, stream, missing, unknown)
        found.append(_account(stream, group, counts, total, letters[group]))
    return sorted(found, key=lambda account: account.group)


async def _add_unknown(links: Links, namespace: str, stream: str, missing: int, unknown: Reply) -> int | None:
    """`missing`, and what is missing in lanes where the server has lost count: the entries that wait there are counted
    here. None if they are too many."""
    for lane, after, last, left in unknown:
        waiting = await _count(links, lane_key(namespace, stream, lane), f"({after.decode()}", last.decode())
        if waiting is None:
            return None
        missing += int(left) - waiting
    return missing


async def _count(links: Links, lane: str, start: str, last: str) -> int | None:
    total: int = 0
    for _ in range(MOST_LOOKS):
        found, following = await scripts.call(links, scripts.COUNT((lane,), start, last, LOOK))
        total += int(found)
        start = following.decode()
        if not start:
            return total
    return None


async def _letters(links: Links, log: str, counts: Counts) -> Counter[str]:
    """By group, the dead letters that are there, of those that were counted as they died: since `lettersSince`."""
    found: Counter[str] = Counter()
    start = "-"
    while entries := await links.execute("XRANGE", log, start, "+", "COUNT", LETTERS):
        for entry_id, flat in entries:
            group = pairs(flat).get(b"dead.group", b"").decode(errors="replace")
            since = _number(counts, f"lettersSince:{group}")
            if since is not None and int(entry_id.partition(b"-")[0]) >= since:
                found[group] += 1
        start = f"({entries[-1][0].decode()}"
    return found


def _account(stream: str, group: str, counts: Counts, missing: int | None, letters: int) -> Account:
    def total(name: str) -> int:
        return sum(_number(counts, f"{name}:{lane}:{group}") or 0 for lane in range(1, 11))

    acknowledged, buried = total("acked"), total("buried")
    if group == SCHEDULE:
        acknowledged = (_number(counts, "promoted") or 0) + (_number(counts, "withdrawn") or 0)
        buried = _number(counts, "aside") or 0
    since = _number(counts, f"since:{group}")
    removed = _number(counts, f"removed:{group}") or 0
    return Account(
        stream,
        group,
        since=None if since is None else moment(since),
        acknowledged=acknowledged,
        buried=buried,
        missing=None if since is None else missing,
        letters_missing=max(0, (_number(counts, f"letters:{group}") or 0) - removed - letters),
        gaps=_gaps(counts.get(f"gaps:{group}", "")),
        looked=_moment(_number(counts, "looked")),
    )


def _gaps(text: str) -> tuple[Gap, ...]:
    """The gaps that can be read. A long list has lost its beginning, and so may start in the middle of a gap."""
    found = []
    for part in text.split(";"):
        numbers = part.split()
        if len(numbers) == 3 and all(number.isdigit() for number in numbers):
            since, until, count = map(int, numbers)
            found.append(Gap(moment(since), moment(until), count))
    return tuple(found)


def _number(counts: Counts, name: str) -> int | None:
    value = counts.get(name, "")
    return int(value) if value.isdigit() and len(value) < 16 else None


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else moment(ms)
