"""What is known of groups, and what is asked of them in all processes: `bus.groups`."""

from collections.abc import AsyncIterator

from eventbus.contract.broker import Broker
from eventbus.contract.states import Counts, Notice, State
from eventbus.event import unix_ms
from eventbus.group import Group
from eventbus.operating import control, state_queries
from eventbus.operating.control import Pause


class Groups:
    """The groups of a bus. A group is named by itself, or by its name. Every call may raise Unavailable."""

    def __init__(self, transport: Broker) -> None:
        self._transport = transport

    async def pause(self, group: Group | str, reason: str = "") -> bool:
        """Let a group take nothing new, in any process; handlers that run go on to their end. Workers see it within a
        second, and it holds until `resume`. False if the group is paused already."""
        return await control.pause(self._transport, name_of(group), reason)

    async def resume(self, group: Group | str) -> bool:
        """Let a group go on. False if it was not paused."""
        return await control.resume(self._transport, name_of(group))

    async def paused(self) -> dict[str, Pause]:
        """The paused groups: by whom, since when, why."""
        return await control.paused(self._transport)

    async def counts(self, group: Group | str) -> Counts:
        """How many events of a group wait, are delayed or active; and have completed or failed since it was tracked."""
        streams = None if isinstance(group, str) else group.streams
        return await state_queries.counts(self._transport, name_of(group), streams)

    async def state(self, group: Group | str, event_id: str) -> State:
        """The state of an event in a group with `track=True`: waiting, delayed, active, completed or failed, and what
        else is known. It is a tenth of a second old, or so; two seconds, if a worker died with the event in hand. In
        other groups, it is what can be seen from outside. Raises ValueError if the id is none of an event."""
        unix_ms(event_id)
        return await state_queries.state(self._transport, group, event_id)

    async def recorded(self, group: Group | str, event_id: str) -> State | None:
        """What is written down of an event in a tracked group; None if nothing is (any more)."""
        return await state_queries.recorded(self._transport.records, name_of(group), event_id)

    def watch(self, group: Group | str) -> AsyncIterator[Notice]:
        """Notices of what happens in a tracked group from now on: completed, failed, dead, progress. Only those who
        listen get them: publish an event for what must be acted upon."""
        return state_queries.watch(self._transport.records, name_of(group))


def name_of(group: Group | str) -> str:
    """The group's name."""
    return group if isinstance(group, str) else group.name
