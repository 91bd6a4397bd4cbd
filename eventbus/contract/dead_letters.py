"""Dead letters: what is kept of them, and what an operator does with them."""

from datetime import datetime
from typing import NamedTuple, Protocol

from eventbus.contract.codec import Fields
from eventbus.event import Envelope


class DeadLetter(NamedTuple):
    """An entry of a dead-letter stream. `envelope` is None if the entry was no envelope."""

    id: str
    stream: str
    group: str
    envelope: Envelope | None
    fields: Fields
    error: str
    traceback: str
    attempts: int
    crashes: int
    first_failed_at: datetime
    died_at: datetime


class DeadLetterStore(Protocol):
    """The dead letters of all streams."""

    async def dead_letters(self, stream: str, *, after: str = "", limit: int = 100) -> list[DeadLetter]:
        """Dead letters of a stream, oldest first, behind the one with the id `after`."""

    async def dead_letter(self, stream: str, letter_id: str) -> DeadLetter | None:
        """The one with this id; None if there is none (any more)."""

    async def streams(self) -> list[str]:
        """The streams that hold dead letters, sorted."""

    async def replay(self, letter: DeadLetter) -> bool:
        """Put a dead letter back into its stream, for the group where it died; False if it is gone already."""

    async def discard(self, letter: DeadLetter) -> bool:
        """Forget a dead letter for good; False if it is gone already."""
