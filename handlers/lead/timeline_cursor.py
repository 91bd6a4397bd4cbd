"""Where the reader of a timeline is, between two pages.

Events come in the order of their ids, which is the order in which they were made. An event can be seen somewhat later
than it was made: when its transaction commits, or, if it was published straight to Redis, when it is recorded. A reader
who went on after the last id on his page would miss events with smaller ids that can only be seen from now on. So he
goes on after the events that were made LATE ago, and the cursor names the younger ones that he has seen already.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, NamedTuple, Self
from uuid import UUID

from pydantic import PlainValidator, WithJsonSchema

LATE = 60.0  # seconds
MOST_SEEN = 100  # ids in a cursor, which then still fits into any URL

_BYTES = 16  # of an id
_LAST = UUID(int=1 << 124)  # in the year 2527: no event has a larger id


class TimelineCursor(NamedTuple):
    """`behind`: no event up to this id is shown any more. `seen`: larger ids that are not shown any more, either."""

    behind: UUID = UUID(int=0)
    seen: frozenset[UUID] = frozenset()

    def after(self, page: Sequence[UUID], now: float) -> Self:
        """The cursor once this page has been seen, too. The page is not empty; `now`: seconds since the epoch."""
        behind = max(self.behind, min(page[-1], _first_id(now - LATE)))
        seen = sorted(each for each in self.seen.union(page) if each > behind)
        if len(seen) > MOST_SEEN:
            behind = seen[-MOST_SEEN - 1]
        return type(self)(behind, frozenset(seen[-MOST_SEEN:]))

    def encode(self) -> str:
        """Opaque to clients, so that what it holds may change."""
        packed = b"".join(each.bytes for each in (self.behind, *sorted(self.seen)))
        return urlsafe_b64encode(packed).decode().rstrip("=")


def _decode(cursor: object) -> TimelineCursor:
    try:
        packed = urlsafe_b64decode(f"{cursor}==")
        behind, *seen = [UUID(bytes=packed[at : at + _BYTES]) for at in range(0, len(packed), _BYTES)]
    except ValueError:
        raise ValueError("not a cursor of this list") from None
    if len(seen) > MOST_SEEN or behind >= _LAST:
        raise ValueError("not a cursor of this list")
    return TimelineCursor(behind, frozenset(seen))


CursorParameter = Annotated[TimelineCursor, PlainValidator(_decode), WithJsonSchema({"type": "string"})]


def _first_id(seconds: float) -> UUID:
    """Smaller than all ids that are made at this time or later: a UUIDv7 begins with its milliseconds."""
    return UUID(int=int(seconds * 1000) << 80)
