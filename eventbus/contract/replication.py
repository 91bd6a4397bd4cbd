"""What becomes of events when a replica takes the place of the primary."""

from typing import Protocol


class Replication(Protocol):
    """What a publisher asks for who wants more than one server to have an event, and the relay of the outbox."""

    @property
    def primary(self) -> str:
        """Names the primary that the last connection reached, and the time since it became one: another name means that
        what was stored before may be gone. '' if that is not known."""

    async def replicated(self, count: int, primary: str) -> int:
        """How many replicas of that primary have what was stored there: waits until it is `count`, or time is up."""
