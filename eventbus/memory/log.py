"""One stream inside one process: its entries by lane, and how far each group has come."""

import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from eventbus.contract.codec import Fields, decode
from eventbus.contract.dead_letters import DeadLetter
from eventbus.contract.delivery import Subscription
from eventbus.contract.priorities import LANES, shares
from eventbus.errors import CodecError
from eventbus.event import Envelope


@dataclass(slots=True)
class Pending:
    """A delivered entry: with `due` it rests until then and nobody owns it, without it `owner` holds a lease."""

    owner: str
    touched: float
    due: float | None = None
    failures: int = 0
    crashes: int = 0
    first_failed_at: float | None = None


@dataclass(slots=True)
class Cursor:
    delivered: dict[int, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    pending: dict[str, Pending] = field(default_factory=dict)
    lines: dict[tuple[str | None, str], list[str]] = field(default_factory=dict)  # of an ordered group, by key
    freed: dict[str, list[str]] = field(default_factory=dict)  # by consumer: handed out when others were settled


@dataclass(slots=True)
class Log:
    entries: dict[str, Fields] = field(default_factory=dict)
    lanes: dict[int, list[str]] = field(default_factory=lambda: {priority: [] for priority in LANES})
    stored_at: dict[str, float] = field(default_factory=dict)
    event_ids: set[str] = field(default_factory=set)
    scheduled: dict[str, tuple[float, Envelope]] = field(default_factory=dict)
    next_due: float = math.inf  # when the first of the scheduled comes due, or somewhat before
    groups: dict[str, Cursor] = field(default_factory=dict)
    dead: dict[str, DeadLetter] = field(default_factory=dict)
    holders: dict[tuple[str, str, str], tuple[str, float]] = field(default_factory=dict)
    fired: dict[str, datetime] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)


def unread(log: Log, cursor: Cursor) -> bool:
    return any(cursor.delivered[priority] < len(log.lanes[priority]) for priority in LANES)


def take_next(log: Log, cursor: Cursor, credit: int) -> list[str]:
    """The next entries: each lane gives its share, then the most urgent ones fill up what is left of the credit."""
    batch: list[str] = []
    for counts in (shares(credit), [credit] * len(LANES)):
        for priority, count in zip(LANES, counts, strict=True):
            start = cursor.delivered[priority]
            found = log.lanes[priority][start : start + min(count, credit - len(batch))]
            cursor.delivered[priority] += len(found)
            batch += found
    return batch


def key_of(fields: Fields) -> tuple[str | None, str] | None:
    """What an event is ordered by: its organization and its key; None without a key."""
    try:
        envelope = decode(fields)
    except CodecError:
        return None
    return None if envelope.subject is None else (envelope.organization, envelope.subject)


def may_begin(log: Log, cursor: Cursor, entry_id: str) -> bool:
    """Whether nothing of its key is before this entry, which was read just now. Else it waits in line."""
    key = key_of(log.entries[entry_id])
    if key is None:
        return True
    line = cursor.lines.setdefault(key, [])
    line.append(entry_id)
    return len(line) == 1


def following(log: Log, cursor: Cursor, entry_id: str) -> str | None:
    """The next of its key, now that this entry is settled."""
    key = key_of(log.entries[entry_id]) if entry_id in log.entries else None
    line = cursor.lines.get(key, []) if key is not None else []
    if not line or line[0] != entry_id or key is None:
        return None
    del line[0]
    if not line:
        del cursor.lines[key]
    return line[0] if line else None


def claimable(cursor: Cursor, subscription: Subscription, now: float) -> Iterator[tuple[str, Pending, int]]:
    """The entries that may be taken over now, with their counts of crashes: due ones first, then those of lost leases.

    A lost lease is one crash more, but not for suspects that ran together: one has done it, and nobody knows which."""
    resting = [(p.due, entry_id, p) for entry_id, p in cursor.pending.items() if p.due is not None and p.due <= now]
    yield from ((entry_id, pending, pending.crashes) for _, entry_id, pending in sorted(resting, key=lambda r: r[0]))
    lost = [
        (entry_id, pending)
        for entry_id, pending in cursor.pending.items()
        if pending.owner != subscription.consumer  # entries of this consumer are in its hands
        and pending.due is None
        and now - pending.touched >= subscription.lease
    ]
    suspects = Counter(pending.owner for _, pending in lost if pending.crashes >= subscription.suspect_from)
    for entry_id, pending in lost:
        together = pending.crashes >= subscription.suspect_from and suspects[pending.owner] > 1
        yield entry_id, pending, pending.crashes + (0 if together else 1)


def half_of_the_suspects(cursor: Cursor, subscription: Subscription, now: float) -> list[tuple[str, Pending, int]]:
    """The first half, rounded up, of the smallest set of suspects: of those that one consumer held, or of those at
    rest."""
    sets: dict[str | None, list[tuple[str, Pending, int]]] = {}
    for entry_id, pending, crashes in claimable(cursor, subscription, now):
        if subscription.suspect_from <= crashes < subscription.condemned_from:
            owner = pending.owner if pending.due is None else None
            sets.setdefault(owner, []).append((entry_id, pending, crashes))
    chosen = min(sets.values(), key=len, default=[])
    return chosen[: math.ceil(len(chosen) / 2)]
