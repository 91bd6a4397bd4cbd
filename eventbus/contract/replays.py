"""Sending again what was sent before: the record of it, and what the database knows of the events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from eventbus.contract.history import Selection
from eventbus.event import Envelope


class Source(StrEnum):
    HISTORY = "history"
    DEAD_LETTERS = "dead letters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One replay, as it is kept for those who come after.

    group     None for dead letters of several groups, each of which goes to its own
    filter    what was asked for, as a person would say it
    matched   how many were to be sent; `replayed`: how many are known to have been
    last      the id of the last one that was sent
    ended_at  None while it runs, and if it was cut short
    """

    id: str
    began_at: datetime
    by: str
    why: str
    source: Source
    group: str | None
    filter: Mapping[str, object]
    new_ids: bool
    matched: int
    replayed: int = 0
    last: str | None = None
    ended_at: datetime | None = None


class Matched(NamedTuple):
    """Events of one type. `forgotten` of the `total` are older than what the inbox remembers."""

    type: str
    total: int
    forgotten: int


class Replays(Protocol):
    """The database's part. All raise Unavailable while PostgreSQL is away.

    Events that were addressed to another group are left out: each is a copy, whose original is there as well. Those
    that were addressed to this group alone are included with `copies`."""

    async def count(self, wanted: Selection, group: str, *, copies: bool) -> list[Matched]:
        """By type. An event is forgotten if the group may have had its effect so long ago that the inbox row of it has
        been pruned: handled again, it would have the effect once more. Not so if all that is recorded of it in this
        group are failures."""

    async def page(self, wanted: Selection, group: str, *, copies: bool, forgotten: bool, limit: int) -> list[Envelope]:
        """Events, oldest first; with `forgotten`, those that are forgotten are among them."""

    async def keep(self, replay: Replay) -> None:
        """Write it down, in place of what was written of it before."""

    async def latest(self, limit: int) -> Sequence[Replay]:
        """The last ones, newest first."""
