"""The seam between the bus and what carries it. Redis and the in-process transport both pass `tests/conformance`.

Six verbs move events: append, read, reclaim, renew, settle, close. All else that a bus asks for stands in protocols of
its own beside this one: eventbus.contract.broker puts them together.

* `append` returns when every envelope is stored (or scheduled), and raises Unavailable when that is not known.
  Append again with `again=True`: what is there already is found by its event id and not stored twice.
* `read` and `reclaim` hand out deliveries. From then on this consumer owns them, for `lease` seconds at a time:
  `renew` keeps them, `settle` ends them, and whoever does neither loses them to the next `reclaim` of any consumer.
* Neither `read` nor `reclaim` may be cancelled: a cut read leaves its batch behind in the pending list. A read ends by
  itself within `wait` seconds; an abandoned one costs its deliveries a lease, never the events.
* `settle` may be cancelled or fail halfway; settling the same deliveries again is harmless. An Ack counts even from a
  consumer that has lost its lease (the work is done); every other outcome counts only from the owner. One settlement
  that is refused keeps no other from being settled.
* In an ordered group, of the events of one key only the first that is not settled is handed out. Settling it frees the
  next, for the consumer that has settled it: see `freed`. There an Ack counts only from the owner, too.
"""

from collections.abc import Sequence
from typing import Protocol

from eventbus.contract.delivery import Delivery, Reclaimed, Refusal, Settlement, Subscription
from eventbus.contract.outgoing import Appender


class LeaseKeeper(Protocol):
    """Renews leases from a thread while the event loop is blocked. Not to be used in the loop: its calls block."""

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """As Transport.renew: only what is still its consumer's is kept. Raises Unavailable, after seconds at most."""

    def close(self) -> None:
        """Let go of the server for now; `renew` may be called again."""


class Transport(Appender, Protocol):
    """See the module's docstring for who owns what, and when."""

    async def connect(self) -> None:
        """Reach the server and check that it can be relied on. Raises Unavailable or ConfigurationError."""

    async def read(self, subscription: Subscription, credit: int, wait: float) -> list[Delivery]:
        """At most `credit` events that no consumer of the group has seen; waits up to `wait` seconds for the first.
        Where several priorities wait, each gets its share: see eventbus.contract.priorities. When several fill in the
        moment before the read begins to wait, it may exceed the credit: half of it, but at least one, of each priority.

        Creates the group, at the beginning of the stream, if it is not there (any more)."""

    async def interrupt(self, subscriptions: Sequence[Subscription]) -> None:
        """Let their waiting reads return now, with nothing. Raises Unavailable."""

    async def unsubscribe(self, subscriptions: Sequence[Subscription], *, give_back: bool = True) -> None:
        """Nothing is read or reclaimed for them any more: what is kept for that is let go of. Entries that the server
        handed to a cancelled read or reclaim go to others at once, as after a Release, if `give_back` is set and the
        server answers within a second; otherwise when their leases run out. Raises nothing."""

    async def reclaim(self, subscription: Subscription, credit: int, *, suspect: bool = False) -> Reclaimed:
        """Promote what was scheduled and is due; take over due retries and entries whose lease ran out.

        With `suspect`, take only entries that may have killed their consumers: of those that one consumer held as it
        died, the first half, rounded up; with a credit of 1 that is one. While several run together, a crash is counted
        for none of them, since nobody knows which one caused it. The caller runs nothing else meanwhile."""

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend the leases; returns those that are lost to another consumer. They, too, are still to be settled."""

    def keeper(self) -> LeaseKeeper | None:
        """Something to renew with from a thread; None if nobody outside of this process could take over its leases."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Refusal]:
        """End each delivery by its outcome. Returns those that were refused, each with its error: Full where there is
        no memory for it. All others are settled. Raises Unavailable if it is not known of any of them."""

    def freed(self, subscription: Subscription) -> list[Delivery]:
        """What settling has handed to this consumer since the last call, in an ordered group: the next events of keys.
        They are its own as if it had read them. None in other groups."""

    async def close(self) -> None:
        """Let go of the server. Nothing may be called afterwards."""
