"""What a Redis user must be allowed: the rules that grant it, and a look whether a login is.

Each command that is sent, or called in a script, is tried on keys that nobody else uses. A server that refuses some of
them works all the same for a while: what is missing shows later, as a stop that takes long or a push that never comes.
"""

import secrets
from collections.abc import Iterator

from eventbus.contract.inspection import Finding, Severity
from eventbus.redis.keys import NAMESPACE, channel_name
from eventbus.redis.links import Argument, Links, Reply, ReplyError

CONTAINERS = {"CLIENT", "XGROUP", "XINFO"}  # a right for each of their commands
NOBODY = 2**62  # the number of a connection that no server has

Probe = tuple[Argument, ...]


def rules(namespace: str) -> tuple[str, ...]:
    """For ACL SETUSER, beside a password. INFO is for the check at the start; the two of CLIENT, which Redis calls
    dangerous, end reads when a worker stops, and connections that this program has given up."""
    channels = "&*" if namespace == NAMESPACE else f"&{namespace}:*"  # see eventbus.redis.keys.channel_name
    return f"~{namespace}:*", channels, "+@all", "-@dangerous", "+info", "+client|unblock", "+client|kill"


def remedy(namespace: str) -> str:
    """The command that grants it all. Rules are quoted: a shell would take some for its own."""
    return f"redis-cli ACL SETUSER … {' '.join(repr(rule) for rule in rules(namespace))}"


async def examine(links: Links, namespace: str) -> Finding:
    """Tries every command, and removes the keys that it made."""
    probes = list(probes_of(namespace, links.database))
    replies = await links.pipeline(probes)
    refused = [_name(probe, reply, namespace) for probe, reply in zip(probes, replies, strict=True) if _refused(reply)]
    if refused:
        told = f"this login may not {', '.join(dict.fromkeys(refused))}"
        return Finding("permissions", Severity.ERROR, told, remedy(namespace))
    return Finding("permissions", Severity.OK, "all commands that the bus uses")


def probes_of(namespace: str, database: int) -> Iterator[Probe]:
    """Every command once. Only whether it is refused counts, so it need not make sense; but it needs as many arguments
    as it takes, for those are counted before rights are looked at."""
    own = secrets.token_hex(4)
    log, marks, records, items, names, text = (
        f"{namespace}:{{doctor}}:{own}:{kind}" for kind in ("log", "set", "hash", "list", "names", "text")
    )
    yield from _of_streams(log)
    yield from _of_sets(marks, names)
    yield from _of_hashes(records)
    yield from _of_lists(items)
    yield from _of_texts(text)
    yield from [
        ("CLIENT", "ID"),
        ("CLIENT", "INFO"),
        ("CLIENT", "TRACKING", "OFF"),
        ("HELLO",),
        ("CLIENT", "SETNAME", "eventbus-operator"),
        ("CLIENT", "UNBLOCK", NOBODY),
        ("CLIENT", "KILL", "ID", NOBODY),
        ("INFO", "server"),
        ("PING",),
        ("SCAN", "0", "COUNT", 1),
        ("TIME",),
        ("WAIT", 0, 1),
        ("EVAL", "return redis.call('EXISTS', KEYS[1])", 1, log),
        ("EVALSHA", "0" * 40, 1, log),
        ("UNLINK", log, marks, names, records, items, text),
        ("DEL", log),
    ]
    channel = channel_name(namespace, database, f"doctor:{own}")  # nobody is told: nobody else knows it
    yield from [("PUBLISH", channel, ""), ("SUBSCRIBE", channel), ("UNSUBSCRIBE", channel)]


def _of_streams(log: str) -> list[Probe]:
    return [
        ("XADD", log, "1-1", "field", "value"),
        ("XGROUP", "CREATE", log, "probe", "0"),
        ("XREADGROUP", "GROUP", "probe", "doctor", "COUNT", 1, "STREAMS", log, ">"),
        ("XPENDING", log, "probe"),
        ("XCLAIM", log, "probe", "doctor", 0, "1-1", "JUSTID"),
        ("XINFO", "GROUPS", log),
        ("XINFO", "CONSUMERS", log, "probe"),
        ("XINFO", "STREAM", log),
        ("XACK", log, "probe", "1-1"),
        ("XGROUP", "DELCONSUMER", log, "probe", "doctor"),
        ("XGROUP", "DESTROY", log, "probe"),
        ("XRANGE", log, "-", "+"),
        ("XREVRANGE", log, "+", "-"),
        ("XLEN", log),
        ("XDEL", log, "1-1"),
        ("XTRIM", log, "MINID", "2"),
    ]


def _of_sets(marks: str, names: str) -> list[Probe]:
    return [
        ("ZADD", marks, 1, "member"),
        ("ZSCORE", marks, "member"),
        ("ZRANK", marks, "member"),
        ("ZCARD", marks),
        ("ZCOUNT", marks, "-inf", "+inf"),
        ("ZRANGE", marks, 0, -1),
        ("ZREVRANGE", marks, 0, -1),
        ("ZRANGEBYSCORE", marks, "-inf", "+inf"),
        ("ZREMRANGEBYRANK", marks, 5, 5),
        ("ZREMRANGEBYSCORE", marks, 5, 5),
        ("ZREM", marks, "member"),
        ("SADD", names, "member"),
        ("SISMEMBER", names, "member"),
    ]


def _of_hashes(records: str) -> list[Probe]:
    return [
        ("HSET", records, "field", "value"),
        ("HSETNX", records, "field", "value"),
        ("HGET", records, "field"),
        ("HMGET", records, "field"),
        ("HGETALL", records),
        ("HKEYS", records),
        ("HVALS", records),
        ("HLEN", records),
        ("HSCAN", records, 0),
        ("HINCRBY", records, "count", 1),
        ("HDEL", records, "field"),
    ]


def _of_lists(items: str) -> list[Probe]:
    return [
        ("RPUSH", items, "value"),
        ("LPUSH", items, "value"),
        ("LINDEX", items, 0),
        ("LLEN", items),
        ("LRANGE", items, 0, -1),
        ("LSET", items, 0, "value"),
        ("LTRIM", items, 0, 1),
        ("LPOP", items),
    ]


def _of_texts(text: str) -> list[Probe]:
    return [
        ("SET", text, "value", "PX", 60_000),
        ("GET", text),
        ("EXISTS", text),
        ("TYPE", text),
        ("PTTL", text),
        ("PERSIST", text),
        ("PEXPIRE", text, 60_000),
        ("PEXPIREAT", text, 1),
    ]


def _name(probe: Probe, reply: ReplyError, namespace: str) -> str:
    name = " ".join(map(str, probe[: 2 if probe[0] in CONTAINERS else 1]))
    channels = "*" if namespace == NAMESPACE else f"{namespace}:*"
    return f"{name} on channels {channels}" if "channel" in str(reply) else name


def _refused(reply: Reply) -> bool:
    return isinstance(reply, ReplyError) and str(reply).startswith(("NOPERM", "ERR unknown command", "ERR This user"))
