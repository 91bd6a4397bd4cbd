"""What is known of single events, and what is asked of them in all processes: `bus.events`."""

from collections.abc import Collection
from datetime import timedelta

from eventbus.contract import activity_stats
from eventbus.contract.activity_stats import FIVE_MINUTES, Activity
from eventbus.contract.broker import Broker
from eventbus.contract.history import Selection
from eventbus.contract.inspection import EventStanding
from eventbus.event import unix_ms
from eventbus.group import Group
from eventbus.handling.transactions import Transactions
from eventbus.operating import aborting
from eventbus.operating.aborting import WITHIN
from eventbus.operating.groups import name_of
from eventbus.operating.replaying import Replayed, Replaying, replay


class Events:
    """The events of a bus. Every call may raise Unavailable."""

    def __init__(self, transport: Broker, transactions: Transactions) -> None:
        self._transport = transport
        self._transactions = transactions

    async def locate(self, event_id: str, streams: Collection[str] | None = None) -> EventStanding:
        """Where an event is and what every group has made of it, as far as Redis knows: an event that all are done with
        is trimmed. Looks through these streams, or through all, which may take long. Raises ValueError if the id is
        none of an event."""
        unix_ms(event_id)
        return await self._transport.locate(event_id, streams)

    async def abort(
        self, event_id: str, group: Group | str | None = None, *, reason: str = "", within: timedelta = WITHIN
    ) -> None:
        """Stop the handlers of an event in all processes, and let none begin: those of one group, or of all. Running
        ones are cancelled within a second; what they do then is up to them. The deliveries become dead letters, as
        `Cancelled`, and can be replayed when the abort is over. It stands for `within`; nothing is said of an event
        that is done."""
        name = None if group is None else name_of(group)
        await aborting.abort(self._transport, event_id, name, reason, within)

    async def replay(
        self,
        group: Group | str,
        wanted: Selection,
        *,
        why: str,
        by: str = "",
        rate: float | None = None,
        new_ids: bool = False,
        forgotten: bool = False,
        dry_run: bool = False,
    ) -> Replayed:
        """Send events of the store again, to one group, at most `rate` a second; with `dry_run`, only count them.

        They keep their ids, so that an effect which a transaction has committed is not repeated. Events older than the
        inbox remembers are left out, because their effects might be; with `forgotten` they are sent, too. With
        `new_ids` all effects are repeated. `why`, and `by` whom (default: the user of this process), are kept. See
        eventbus.operating.replaying.

        Raises NoSuchGroup if the group reads none of it, Full when it was cut short, ConfigurationError without a
        database."""
        store = self._transactions.database.replays
        replaying = Replaying(self._transport, store, name_of(group), wanted, new_ids=new_ids, forgotten=forgotten)
        return await replay(replaying, why=why, by=by, rate=rate, dry_run=dry_run)

    async def activity(self, organization: str | None, window: timedelta = FIVE_MINUTES) -> Activity:
        """What all workers have made of an organization's events within the last five minutes, or the last hour; None:
        of events that have no organization. A second old, or so."""
        return await activity_stats.activity(self._transport.tallies, organization, window)
