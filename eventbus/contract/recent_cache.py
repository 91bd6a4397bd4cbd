"""The last few things of something, for a while: a conversation's messages, a user's searches.

What is kept here may be lost at any time, so it is a copy of what is somewhere else. Adding is idempotent, and two who
add at once lose nothing of each other's: things are kept in the order of their positions, each once.
"""

from collections.abc import Mapping
from typing import Protocol


class Recent(Protocol):
    """Every call raises Unavailable."""

    async def add(self, name: str, items: Mapping[bytes, int], *, keep: int, seconds: float) -> None:
        """`items`: what is to be kept, and its position. The `keep` items with the highest positions stay, for
        `seconds` from now on. Raises Full."""

    async def read(self, name: str) -> list[bytes]:
        """The items by position; none if they were never there, or are not any more."""
