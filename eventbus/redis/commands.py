"""Commands that concern one log: what stores an envelope in it, or schedules it there, and what creates a group."""

from eventbus.contract.codec import encode
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Envelope
from eventbus.redis import dedupe, scripts
from eventbus.redis.keys import lane_key, stream_keys
from eventbus.redis.links import Command
from eventbus.redis.scripts import ms, unix

AT_ONCE = (0, 0)  # see due


def command(namespace: str, item: Outgoing, log: str) -> Command:
    """The command that appends this item: at once, later, or under its dedupe key."""
    if item.once is not None:
        return dedupe.command(namespace, item, log, item.once, due(item) if item.later else AT_ONCE)
    return _schedule(namespace, item, log) if item.later else xadd(namespace, item.envelope, log)


def xadd(namespace: str, envelope: Envelope, log: str) -> Command:
    return ("XADD", lane_key(namespace, log, envelope.priority), "*", *encode(envelope))


def _schedule(namespace: str, item: Outgoing, log: str) -> Command:
    keys = stream_keys(namespace, log)
    envelope = item.envelope
    where = (keys.lane(envelope.priority), keys.due, keys.scheduled, keys.counts)
    return scripts.SCHEDULE(where, *due(item), envelope.id, envelope.priority, *encode(envelope))


def creation(namespace: str, log: str, group: str) -> Command:
    """Creates a group in a log, at its beginning, unless it is there. The reply: in how many lanes it was missing."""
    keys = stream_keys(namespace, log)
    return scripts.CREATE_GROUP((*keys.lanes, keys.groups, keys.counts), group)


def due(item: Outgoing) -> tuple[int, int]:
    """(delay in ms, earliest time in ms since the epoch); 0 means none. The script uses the later of the two."""
    return ms(max(0.0, item.delay)), 0 if item.at is None else unix(item.at)
