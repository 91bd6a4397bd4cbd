"""The commands that store an envelope, or schedule it."""

from eventbus.contract.codec import encode
from eventbus.contract.outgoing import Outgoing
from eventbus.event import stream_of
from eventbus.redis import dedupe, scripts
from eventbus.redis.keys import lane_key, stream_keys
from eventbus.redis.links import Command
from eventbus.redis.scripts import ms, unix

AT_ONCE = (0, 0)  # see due


def command(namespace: str, item: Outgoing) -> Command:
    """The command that appends this item: at once, later, or under its dedupe key."""
    if item.once is not None:
        return dedupe.command(namespace, item, item.once, due(item) if item.later else AT_ONCE)
    return _schedule(namespace, item) if item.later else xadd(namespace, item)


def xadd(namespace: str, item: Outgoing) -> Command:
    envelope = item.envelope
    lane = lane_key(namespace, stream_of(envelope.type), envelope.priority)
    return ("XADD", lane, "*", *encode(envelope))


def _schedule(namespace: str, item: Outgoing) -> Command:
    keys = stream_keys(namespace, item.envelope.stream)
    envelope = item.envelope
    where = (keys.lane(envelope.priority), keys.due, keys.scheduled, keys.counts)
    return scripts.SCHEDULE(where, *due(item), envelope.id, envelope.priority, *encode(envelope))


def due(item: Outgoing) -> tuple[int, int]:
    """(delay in ms, earliest time in ms since the epoch); 0 means none. The script uses the later of the two."""
    return ms(max(0.0, item.delay)), 0 if item.at is None else unix(item.at)
