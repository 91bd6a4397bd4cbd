"""What an operator or a program asks of a bus while it runs: the part of `EventBus` that publishes nothing."""

from collections.abc import AsyncIterator, Collection
from datetime import timedelta

from eventbus.contract import activity_stats
from eventbus.contract.activity_stats import FIVE_MINUTES, Activity
from eventbus.contract.history import Selection
from eventbus.contract.inspection import EventStanding
from eventbus.contract.states import Counts, Notice, State
from eventbus.event import unix_ms
from eventbus.group import Group
from eventbus.handling.committing import Committing
from eventbus.operating import aborting, control, state_queries
from eventbus.operating.aborting import WITHIN
from eventbus.operating.control import Pause
from eventbus.operating.replaying import Replayed, Replaying, replay


class Operations(Committing):
    """The operations of a bus."""

    # Pausing ----------------------------------------------------------------------------------------------------------

    async def pause(self, group: str, reason: str = "") -> bool:
        """Let a group take nothing new, in any process; handlers that run go on to their end. Workers see it within a
        second, and it holds until `resume`. False if the group is paused already. Raises Unavailable."""
        return await control.pause(self.transport, group, reason)

    async def resume(self, group: str) -> bool:
        """Let a group go on. False if it was not paused. Raises Unavailable."""
        return await control.resume(self.transport, group)

    async def paused(self) -> dict[str, Pause]:
        """The paused groups: by whom, since when, why. Raises Unavailable."""
        return await control.paused(self.transport)

    # Aborting ---------------------------------------------------------------------------------------------------------

    async def abort(
        self, event_id: str, group: Group | str | None = None, *, reason: str = "", within: timedelta = WITHIN
    ) -> None:
        """Stop the handlers of an event in all processes, and let none begin: those of one group, or of all. Running
        ones are cancelled within a second; what they do then is up to them. The deliveries become dead letters, as
        `Cancelled`, and can be replayed when the abort is over. It stands for `within`; nothing is said of an event
        that is done.

        Raises Unavailable."""
        name = None if group is None else named(group)[0]
        await aborting.abort(self.transport, event_id, name, reason, within)

    # State of tracked groups ------------------------------------------------------------------------------------------

    async def locate(self, event_id: str, streams: Collection[str] | None = None) -> EventStanding:
        """Where an event is and what every group has made of it, as far as Redis knows: an event that all are done with
        is trimmed. Looks through these streams, or through all, which may take long. Raises Unavailable, ValueError if
        the id is none of an event."""
        unix_ms(event_id)
        return await self.transport.locate(event_id, streams)

    async def recorded(self, group: str, event_id: str) -> State | None:
        """What is written down of an event in a tracked group; None if nothing is (any more). Raises Unavailable."""
        return await state_queries.recorded(self.transport.records, group, event_id)

    async def state(self, group: Group | str, event_id: str) -> State:
        """The state of an event in a group with `track=True`: waiting, delayed, active, completed or failed, and what
        else is known. It is a tenth of a second old, or so; two seconds, if a worker died with the event in hand. In
        other groups, it is what can be seen from outside. Raises Unavailable, ValueError if the id is none of an
        event."""
        unix_ms(event_id)
        return await state_queries.state(self.transport, group, event_id)

    async def counts(self, group: Group | str) -> Counts:
        """How many events of a group wait, are delayed or active; and have completed or failed since it was tracked.
        Raises Unavailable."""
        return await state_queries.counts(self.transport, *named(group))

    def watch(self, group: Group | str) -> AsyncIterator[Notice]:
        """Notices of what happens in a tracked group from now on: completed, failed, dead, progress. Only those who
        listen get them: publish an event for what must be acted upon."""
        return state_queries.watch(self.transport.records, named(group)[0])

    # Activity ---------------------------------------------------------------------------------------------------------

    async def activity(self, organization: str | None, window: timedelta = FIVE_MINUTES) -> Activity:
        """What all workers have made of an organization's events within the last five minutes, or the last hour; None:
        of events that have no organization. A second old, or so. Raises Unavailable."""
        return await activity_stats.activity(self.transport.tallies, organization, window)

    # Replays ----------------------------------------------------------------------------------------------------------

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

        Raises NoSuchGroup if the group reads none of it, Unavailable or Full when it was cut short."""
        replays, name = self._require_database().replays, named(group)[0]
        replaying = Replaying(self.transport, replays, name, wanted, new_ids=new_ids, forgotten=forgotten)
        return await replay(replaying, why=why, by=by, rate=rate, dry_run=dry_run)


def named(group: Group | str) -> tuple[str, list[str] | None]:
    """(the group's name, its streams or None if they are not known)."""
    return (group, None) if isinstance(group, str) else (group.name, group.streams)
