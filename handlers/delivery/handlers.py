"""Group `delivery`: an agent's answer goes to the channel that the question came from.

The sender of the channel is called again when the event is delivered again: see handlers.delivery.record for what that
means with services that cannot recognize a repeat.
"""

from collections.abc import Awaitable, Callable

from eventbus import Backoff, Context, Group, Reject, RetryPolicy
from handlers.delivery import callback, telegram, web, whatsapp
from handlers.delivery.record import give_up
from handlers.message.events import Channel, MessageResponded

Sender = Callable[[MessageResponded, Context], Awaitable[None]]

SENDERS: dict[Channel, Sender] = {
    Channel.WEB: web.send,
    Channel.WHATSAPP: whatsapp.send,
    Channel.TELEGRAM: telegram.send,
    Channel.API: callback.send,
}

delivery = Group(
    "delivery",
    retry=RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0)),
    concurrency=5,
    timeout=120.0,  # a call has 10 s, PostgreSQL 30 s to come back for the record, and a message may have parts
)
delivery.on_dead(give_up)


@delivery.on(MessageResponded)
async def deliver(event: MessageResponded, ctx: Context) -> None:
    """Raises Reject for a channel that nothing delivers to."""
    sender = SENDERS.get(event.channel)
    if sender is None:
        raise Reject(f"nothing delivers to the channel {event.channel}")
    await sender(event, ctx)
