"""Asking whether limits let deliveries start, and whether a quota is spent."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from eventbus.contract.limits import Limit, RateLimit

ASK_AGAIN = 0.1  # seconds after which a delivery that found all places taken asks again


class Scope(NamedTuple):
    """What a limit counts: a group's n-th limit, and of that one key ('' for the whole group)."""

    group: str
    limit: int
    key: str


class Bound(NamedTuple):
    """A limit that concerns a delivery, and the scope in which it counts it."""

    scope: Scope
    limit: Limit


class Request(NamedTuple):
    """A delivery that wants to start: its name, all limits that concern it, and the seconds that a place in flight is
    kept without being renewed."""

    member: str
    bounds: Sequence[Bound]
    lease: float


def member_of(stream: str, entry_id: str) -> str:
    """What a delivery is called among those that limits let start: a group may read several streams."""
    return f"{stream}/{entry_id}"


class Answer(NamedTuple):
    """If `admitted`, it may start, and is counted. Otherwise `refused` refuses it, and it asks again after `wait`
    seconds, which is `at`, in ms by the transport's clock. If it is neither admitted nor refused, it may start as
    soon as its process lets it. `error`: what the server said instead of an answer."""

    admitted: bool
    wait: float = 0.0
    refused: Bound | None = None
    at: int | None = None
    error: str | None = None


class Spent(NamedTuple):
    """Of a quota: how many of those wanted were taken, how many are left, and the seconds until there is more; 0.0
    while all are there."""

    granted: int
    left: int
    opens: float


class Limiting(Protocol):
    """Limits that all processes keep together."""

    async def admit(self, requests: Sequence[Request], most: int) -> list[Answer]:
        """Whether all limits of each request let it start: see eventbus.memory.limits. All requests are of one group;
        at most `most` are admitted. Asking again for one that has a place in flight is harmless."""

    async def stay(self, requests: Sequence[Request]) -> None:
        """Keep the places in flight of those that still run."""

    async def leave(self, requests: Sequence[Request]) -> None:
        """Give their places in flight back."""

    async def spend(self, quota: str, limit: RateLimit, wanted: int) -> Spent:
        """Take from a quota that all processes know by this text: `limit.count` in any `limit.per` seconds. What was
        taken comes back after `limit.per`, or up to a hundredth of it later. Raises Unavailable (taken or not:
        unknown) or Full."""
