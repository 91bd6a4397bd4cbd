"""What a tap sees: events as they pass, of every type, whether this process knows the type or not.

    everything = Group("everything", concurrency=1, retry=RetryPolicy(attempts=None), crash_budget=None)

    @everything.tap(max_size=500, max_wait=0.1)
    async def keep(events: Sequence[Passing], bus: HandlerBus) -> None:
        await archive([(event.envelope.id, event.fields) for event in events])

Nothing is opened or validated: `envelope.data` is what was published. Envelopes that were addressed to another group
are among the events. Each event is settled by itself, as in eventbus.handling.batch: one that was failed by its error,
all others by how the handler ends. An entry that is no envelope becomes a dead letter of the group, as everywhere.
"""

from eventbus.contract.codec import Fields
from eventbus.event import Envelope


class Passing:
    """An event on the wire. `fields`: the four of its entry, as they are stored."""

    __slots__ = ("envelope", "error", "fields")

    def __init__(self, envelope: Envelope, fields: Fields) -> None:
        self.envelope = envelope
        self.fields = fields
        self.error: BaseException | None = None  # what it failed with

    def fail(self, error: BaseException) -> None:
        """This event ends as if a handler of its own had raised the error: verdicts (`Reject("…")`) or others."""
        self.error = error
