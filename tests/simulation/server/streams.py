"""A stream with its groups, as Redis 7 keeps them."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

Id = tuple[int, int]

FIRST: Id = (0, 0)
LAST: Id = (2**64 - 1, 2**64 - 1)


@dataclass(slots=True)
class Pending:
    """An entry in the hands of a consumer, since `at` (ms), given out `count` times."""

    consumer: bytes
    at: int
    count: int


@dataclass(slots=True)
class Consumer:
    """When it last tried something, in ms."""

    seen: int


@dataclass(slots=True)
class StreamGroup:
    last: Id
    pending: dict[Id, Pending] = field(default_factory=dict)
    consumers: dict[bytes, Consumer] = field(default_factory=dict)

    def consumer(self, name: bytes, now: int) -> Consumer:
        found = self.consumers.get(name)
        if found is None:
            found = self.consumers[name] = Consumer(now)
        found.seen = now
        return found

    def held(self, start: Id = FIRST, end: Id = LAST, consumer: bytes | None = None) -> list[Id]:
        """Ids of pending entries in order."""
        return sorted(
            entry
            for entry, pending in self.pending.items()
            if start <= entry <= end and (consumer is None or pending.consumer == consumer)
        )


class Stream:
    def __init__(self) -> None:
        self.ids: list[Id] = []  # in order
        self.fields: dict[Id, list[bytes]] = {}
        self.last: Id = (0, 0)
        self.added = 0  # entries ever
        self.groups: dict[bytes, StreamGroup] = {}

    def next_id(self, now: int) -> Id:
        ms, sequence = self.last
        return (now, 0) if now > ms else (ms, sequence + 1)

    def add(self, entry: Id, fields: list[bytes]) -> None:
        self.ids.append(entry)
        self.fields[entry] = fields
        self.last = entry
        self.added += 1

    def between(self, start: Id, end: Id) -> list[Id]:
        return self.ids[bisect_left(self.ids, start) : bisect_right(self.ids, end)]

    def behind(self, after: Id, count: int) -> list[Id]:
        begin = bisect_right(self.ids, after)
        return self.ids[begin : begin + count]

    def remove(self, entry: Id) -> bool:
        if self.fields.pop(entry, None) is None:
            return False
        del self.ids[bisect_left(self.ids, entry)]
        return True

    def cut(self, number: int) -> int:
        """Drop so many of the oldest."""
        gone, self.ids = self.ids[:number], self.ids[number:]
        for entry in gone:
            del self.fields[entry]
        return len(gone)


def spell(entry: Id) -> bytes:
    return b"%d-%d" % entry
