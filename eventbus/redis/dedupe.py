"""Publishes that carry a dedupe key: each takes a script. Publishes without one pay nothing for it.

The holder of a key is a string that expires by itself. It is written in the same step as the event, so that neither is
ever there without the other.
"""

from functools import lru_cache
from urllib.parse import quote

from eventbus.contract.codec import encode
from eventbus.contract.dedupe import Once
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Envelope
from eventbus.redis import scripts
from eventbus.redis.keys import stream_keys
from eventbus.redis.links import Command
from eventbus.redis.scripts import ms


def holder_key(namespace: str, log: str, envelope: Envelope, once: Once) -> str:
    """Neither a type nor a quoted organization has a colon in it, so that no two scopes share a name."""
    event_type, organization, key = once.scope(envelope)
    return f"{namespace}:{{{log}}}:once:{event_type}:{_quoted(organization)}:{key}"


@lru_cache(4096)
def _places(namespace: str, log: str, priority: int) -> tuple[str, str, str, str]:
    """Keys that an envelope is written to: its lane, or else due and scheduled; and the counts."""
    keys = stream_keys(namespace, log)
    return keys.lane(priority), keys.due, keys.scheduled, keys.counts


@lru_cache(4096)
def _quoted(organization: str) -> str:
    return quote(organization, safe="")


def command(namespace: str, item: Outgoing, log: str, once: Once, due: tuple[int, int]) -> Command:
    """`due` as once.lua takes it: delay in ms, and ms since the epoch."""
    envelope = item.envelope
    where = (holder_key(namespace, log, envelope, once), *_places(namespace, log, envelope.priority))
    return scripts.ONCE(where, ms(once.window), int(once.replace), *due, envelope.priority, *encode(envelope))
