"""What becomes of events when a replica takes the place of the primary."""

from collections.abc import Collection
from typing import Protocol


class Replication(Protocol):
    """What a publisher asks for who wants more than one server to have an event, and the relay of the outbox."""

    @property
    def primary(self) -> str:
        """Names the primary that the last connection reached, and the time since it became one: another name means that
        what was stored before may be gone. '' if that is not known."""

    async def replicated(self, count: int, streams: Collection[str]) -> int:
        """How many replicas have what was stored in these streams: waits until it is `count`, or time is up; 0 if
        another primary has taken over since. If each stream has replicas of its own, the fewest count."""
