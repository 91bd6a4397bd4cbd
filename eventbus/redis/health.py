"""Whether a Redis server can be relied on: what it is, what it keeps, what it lets us do, what time it has."""

import time
from collections.abc import Iterator

from eventbus.contract.inspection import Finding, Severity
from eventbus.errors import Full, Unavailable
from eventbus.redis import replication, rights
from eventbus.redis.links import Links, ReplyError

AWAY = "a node is away"  # the name of that check
MINIMUM = 7  # the major version of Redis; every Valkey calls itself 7 or above
NEARLY_FULL = 0.8  # of maxmemory, or of the connections
CLOCK_NOTICE, CLOCK_LIMIT = 1.0, 60.0  # seconds; a repeated append looks a minute further back than an event is old
SHORT_TIMEOUT = 10  # seconds of the server's `timeout` below which quiet publishers reconnect all the time

Info = dict[str, str]


async def examine(links: Links, namespace: str) -> list[Finding]:
    """All findings, those about what is well among them: of each primary, where there are several. One of several that
    is away is a finding. Raises Unavailable."""
    found, nodes = list[Finding](), await links.nodes()
    for node in nodes:
        try:
            told = await _examine(node)
        except Unavailable as error:
            if len(nodes) == 1:
                raise
            told = [_bad(AWAY, error.detail, "start it again; streams are looked at when all nodes answer")]
        found += [one._replace(message=f"{node.name}: {one.message}") for one in told] if len(nodes) > 1 else told
    if any(one.check in {"role", AWAY} and one.severity is Severity.ERROR for one in found):
        return found  # a replica would refuse the probes
    return [*found, await rights.examine(links, namespace)]


async def _examine(links: Links) -> list[Finding]:
    before = time.time()
    clock = await links.execute("TIME")
    skew = int(clock[0]) + int(clock[1]) / 1e6 - (before + time.time()) / 2
    info = _info(await links.execute("INFO"))
    config = await _config(links)
    return [
        _version(info),
        _role(info),
        *_memory(info),
        *_persistence(info, config),
        *_connections(info, config),
        _clock(skew),
        *(replication.examine(info, await replication.needed_replicas(links)) if info.get("role") == "master" else ()),
    ]


def _version(info: Info) -> Finding:
    name, version = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    if int(info["redis_version"].partition(".")[0]) < MINIMUM:
        return _bad("version", f"{name} {version} is too old", "upgrade to Redis 7.0 or later, or to any Valkey")
    return _good("version", f"{name} {version}")


def _role(info: Info) -> Finding:
    if info.get("role") != "master":
        return _bad("role", "this server is a replica: it refuses writes", "set EVENTBUS_REDIS_URL to the primary")
    return _good("role", f"primary with {info.get('connected_slaves', '0')} replicas")


def _memory(info: Info) -> Iterator[Finding]:
    policy = info["maxmemory_policy"]
    if policy.startswith("allkeys"):
        remedy = "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in its configuration file"
        yield _bad("eviction", f"maxmemory-policy {policy} drops whole streams without a word", remedy)
    else:
        yield _good("eviction", policy)
    used, limit = int(info["used_memory"]), int(info["maxmemory"])
    told = f"{_bytes(used)} of {_bytes(limit)}" if limit else f"{_bytes(used)}, no limit"
    if limit and used > limit * NEARLY_FULL:
        severity = Severity.ERROR if used >= limit else Severity.WARNING
        remedy = "see `eventbus status` for what waits and `eventbus dead list` for what can go; or raise maxmemory"
        yield Finding("memory", severity, f"{told}: when it is full, publishes are refused", remedy)
    elif not limit:
        remedy = "set maxmemory below what the machine has: a refused publish is better than a killed server"
        yield _odd("memory", told, remedy)
    else:
        yield _good("memory", told)


def _persistence(info: Info, config: Info) -> Iterator[Finding]:
    snapshots = config.get("save", "unknown")
    if info["aof_enabled"] == "1":
        yield _fsync(config)
    elif snapshots in {"", "unknown"}:
        lost = "no append-only file" + (", no snapshots" if not snapshots else "")
        yield _bad("persistence", f"{lost}: a restart loses every event", "redis-cli CONFIG SET appendonly yes")
    else:
        yield _odd(
            "persistence",
            f"snapshots alone ({snapshots}): a crash loses all since the last",
            "redis-cli CONFIG SET appendonly yes",
        )
    for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"):
        if info.get(name, "ok") != "ok":
            yield _bad("disk", f"{name} is {info[name]}", "look at the server's log and at the space on its disk")


def _fsync(config: Info) -> Finding:
    how = config.get("appendfsync", "unknown")
    if how == "no":
        remedy = "redis-cli CONFIG SET appendfsync everysec"
        return _odd("persistence", "append-only file, flushed when the system likes: a crash may lose minutes", remedy)
    return _good("persistence", f"append-only file, appendfsync {how}")


def _connections(info: Info, config: Info) -> Iterator[Finding]:
    used, limit = int(info["connected_clients"]), int(info.get("maxclients", 0))
    told = f"{used} of {limit}"
    if limit and used > limit * NEARLY_FULL:
        yield _odd(
            "connections", f"{told} are taken", "raise maxclients, or find who holds them: redis-cli CLIENT LIST"
        )
    else:
        yield _good("connections", told)
    seconds = int(config.get("timeout", 0))
    if 0 < seconds < SHORT_TIMEOUT:
        remedy = "redis-cli CONFIG SET timeout 0, or at least 60"
        yield _odd("timeout", f"the server closes connections that are quiet for {seconds} s", remedy)
    elif config.get("tcp-keepalive") == "0":
        remedy = "redis-cli CONFIG SET tcp-keepalive 60"
        yield _odd("timeout", "tcp-keepalive is off: readers that vanished keep their connections", remedy)
    else:
        yield _good("timeout", f"{seconds} s" if "timeout" in config else "unknown: CONFIG is not allowed")


def _clock(skew: float) -> Finding:
    told = f"the server's is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    if abs(skew) < CLOCK_NOTICE:
        return _good("clock", "the same as here")
    severity = Severity.ERROR if abs(skew) >= CLOCK_LIMIT else Severity.WARNING
    return Finding("clock", severity, told, "let both follow NTP: due times and leases go by the server's")


async def _config(links: Links) -> Info:
    """The settings that the server tells of; a managed server may tell none."""
    wanted = ("save", "appendfsync", "timeout", "tcp-keepalive")
    found: Info = {}
    for reply in await links.pipeline([("CONFIG", "GET", name) for name in wanted]):
        if not isinstance(reply, (ReplyError, Full)) and reply:
            found[reply[0].decode()] = reply[1].decode()
    return found


def _info(text: bytes) -> Info:
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"


def _good(check: str, message: str) -> Finding:
    return Finding(check, Severity.OK, message)


def _odd(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, Severity.WARNING, message, remedy)


def _bad(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, Severity.ERROR, message, remedy)
