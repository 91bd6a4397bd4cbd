"""Keeping streams in order: trimming, and forgetting what is gone."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from eventbus.contract.retention import Retention


class Tidied(NamedTuple):
    """What a round of housekeeping did to a stream. `missing_groups` keep it from being trimmed; `left` entries are
    still there. `vanished`: groups, and how many of their entries have gone since the round before without having been
    settled; '' for what was scheduled."""

    entries: int = 0
    consumers: int = 0
    dead_letters: int = 0
    missing_groups: Sequence[str] = ()
    left: int = 0
    vanished: Sequence[tuple[str, int]] = ()


class Upkeep(Protocol):
    """What housekeeping asks for, and an operator who forgets a group."""

    async def tidy(self, stream: str, retention: Retention, *, consumers: bool = True) -> Tidied:
        """Trim what all groups have settled, bound the dead letters, and forget consumers that are gone if told to."""

    async def forget_group(self, stream: str, group: str) -> bool:
        """Drop a group with all that it has not settled; False if there is none. Its workers would create it again."""
