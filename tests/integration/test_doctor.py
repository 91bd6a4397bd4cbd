"""`eventbus doctor` on servers that are well, and on servers that are not."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from eventbus import EventBus
from eventbus.cli.checks import examine
from eventbus.contract.delivery import Dead
from eventbus.contract.inspection import ConsumerState, Finding, GroupState, Severity, StreamState
from eventbus.redis import RedisTransport, health, rights
from eventbus.redis.link import Link
from tests.integration.commands import assert_fits
from tests.integration.commands import eventbus_here as eventbus
from tests.samples import FAILED, consumer, outgoing, receive, settle
from tests.servers import OwnRedis

DROPS = {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}


@asynccontextmanager
async def reached(url: str) -> AsyncIterator[Link]:
    link = Link(url, timeout=5, name="test")
    try:
        yield link
    finally:
        await link.close()


async def findings(url: str) -> Mapping[str, Finding]:
    """By check; of several of one check the worst."""
    async with reached(url) as link:
        found = await health.examine(link, "eb")
    return {finding.check: finding for finding in sorted(found, key=lambda f: f.severity is not Severity.OK)}


async def test_a_server_that_is_well(any_redis_url: str) -> None:
    found = await findings(any_redis_url)
    wrong = {name for name, finding in found.items() if finding.severity is not Severity.OK}
    assert wrong <= {"memory"}, found  # the tests' servers have no limit
    async with reached(any_redis_url) as link:
        assert await link.execute("DBSIZE") == 0, "it leaves nothing behind"


async def test_a_server_that_drops_loses_or_hangs_up(own_redis: OwnRedis, redis_binary: Path) -> None:
    server = own_redis(
        binary=redis_binary,
        options={
            "maxmemory": "100mb",
            "maxmemory-policy": "allkeys-lru",
            "appendonly": "no",
            "save": "",
            "timeout": "3",
        },
    )
    found = await findings(server.url)
    assert found["eviction"].severity is Severity.ERROR
    assert "noeviction" in found["eviction"].remedy
    assert found["persistence"].severity is Severity.ERROR
    assert found["timeout"].severity is Severity.WARNING
    async with reached(server.url) as link:
        await link.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await link.execute("CONFIG", "SET", "save", "3600 1")
        await link.execute("CONFIG", "SET", "maxmemory", "1mb")
    found = await findings(server.url)
    assert found["persistence"].severity is Severity.WARNING, "snapshots alone"
    assert found["memory"].severity is Severity.ERROR, "it is full"
    run = eventbus("doctor", "--watch", "0", EVENTBUS_REDIS_URL=server.url)
    assert run.returncode == 1
    assert_fits(run)


async def test_a_login_that_may_not_do_what_is_needed(own_redis: OwnRedis, redis_binary: Path) -> None:
    server = own_redis(binary=redis_binary)
    async with reached(server.url) as link:
        await link.execute(
            "ACL", "SETUSER", "guest", "on", ">g", "~eb:*", "&*", "+@all", "-xclaim", "-publish", "-config"
        )
        await link.execute("ACL", "SETUSER", "deaf", "on", ">g", "resetchannels", *rights.rules("eb"), "resetchannels")
        await link.execute("ACL", "SETUSER", "slow", "on", ">g", "~eb:*", "&*", "+@all", "-@dangerous", "+info")
    guest = "redis://guest:g@" + server.url.rpartition("@")[2]
    refused = (await findings(guest))["permissions"]
    assert (refused.severity, refused.message) == (Severity.ERROR, "this login may not XCLAIM, PUBLISH")
    deaf = (await findings(guest.replace("guest:", "deaf:")))["permissions"]
    assert deaf.message == "this login may not PUBLISH on channels *, SUBSCRIBE on channels *"
    slow = (await findings(guest.replace("guest:", "slow:")))["permissions"]
    assert slow.message == "this login may not CLIENT UNBLOCK, CLIENT KILL"
    assert all(rule in slow.remedy for rule in rights.rules("eb"))


async def test_a_replica_takes_no_events(own_redis: OwnRedis) -> None:
    server = own_redis()
    async with reached(server.url) as link:
        await link.execute("REPLICAOF", "127.0.0.1", "1")
    run = eventbus("doctor", "--json", EVENTBUS_REDIS_URL=server.url)
    by_check = {finding["check"]: finding for finding in json.loads(run.stdout)["findings"]}
    assert (run.returncode, by_check["role"]["severity"]) == (1, "error")


async def test_events_that_nobody_works_on(any_redis_url: str) -> None:
    transport = RedisTransport(any_redis_url)
    await transport.append(outgoing(1, 2) + outgoing(3, stream="invoice"))
    await settle(transport, await receive(transport, consumer(), 1), Dead(FAILED, 1))
    await transport.close()
    run = eventbus("doctor", "--watch", "0", EVENTBUS_REDIS_URL=any_redis_url)
    assert_fits(run)
    assert "no group reads stream invoice (1 entries)" in run.stdout
    assert "dead letters: 1 in order" in run.stdout
    assert "do: see why: eventbus dead list" in run.stdout
    assert run.returncode == 0, "warnings alone"


async def test_a_database_that_is_away_or_not_migrated(redis_url: str, database_url: str, migrated_url: str) -> None:
    async def doctor(database: str) -> tuple[int, str]:
        run = await asyncio.to_thread(
            eventbus, "doctor", "--watch", "0", EVENTBUS_REDIS_URL=redis_url, EVENTBUS_DATABASE_URL=database
        )
        assert "sesame" not in run.stdout + run.stderr
        return run.returncode, run.stdout

    code, told = await doctor("postgresql://app:sesame@127.0.0.1:1/app")
    assert (code, "postgresql is away" in told) == (3, True)
    code, told = await doctor(migrated_url)  # without the tables of the application
    assert (code, "do: eventbus migrate" in told) == (1, True)
    async with EventBus(redis_url, database=migrated_url):
        pass


def group(**state: object) -> GroupState:
    whole: dict[str, object] = {
        "name": "g",
        "lag": 0,
        "backlog": 0,
        "pending": 0,
        "delayed": 0,
        "oldest_undelivered": None,
        "oldest_unacked": None,
        "consumers": (ConsumerState("ann", 0, 0.1),),
        **state,
    }
    return GroupState(**whole)  # type: ignore[arg-type]


def told(now: GroupState, before: GroupState | None = None) -> dict[str, Severity]:
    def stream(state: GroupState) -> StreamState:
        return StreamState("s", 1, 0, 0, (state,))

    return {finding.check: finding.severity for finding in examine([stream(before or now)], [stream(now)])}


def test_what_is_made_of_a_group() -> None:
    assert told(group()) == {"lag": Severity.OK, "dead letters": Severity.OK}
    assert told(group(consumers=()))["workers"] is Severity.WARNING
    assert told(group(consumers=(ConsumerState("gone", 3, 900.0),), pending=3))["workers"] is Severity.ERROR
    both = (ConsumerState("ann", 0, 0.1), ConsumerState("gone", 3, 900.0))
    assert told(group(consumers=both, pending=3))["orphans"] is Severity.WARNING
    assert told(group(backlog=500), group(backlog=100))["lag"] is Severity.WARNING
    assert told(group(backlog=5, oldest_undelivered=90.0))["lag"] is Severity.WARNING
    assert told(group(pending=5, oldest_unacked=7_200.0))["pending"] is Severity.WARNING
    assert told(group(pending=500), group())["pending"] is Severity.WARNING


async def test_what_is_dated_ahead_of_the_clock_is_named(any_redis_url: str) -> None:
    async with reached(any_redis_url) as link, EventBus(any_redis_url) as bus:
        seconds, _ = await link.execute("TIME")
        ahead = (int(seconds) + 86_400) * 1000
        await link.execute("XADD", "eb:{order}:stream:p3", f"{ahead}-0", "field", "value")
        await bus.transport.append(outgoing(1, stream="invoice"))
        await link.execute("HSET", "eb:{invoice}:fired", "close", ahead, "odd", "x")
    run = eventbus("doctor", "--watch", "0", "--json", EVENTBUS_REDIS_URL=any_redis_url)
    told = [finding["message"] for finding in json.loads(run.stdout)["findings"] if finding["check"] == "dates"]
    assert [message.partition(":")[0] for message in told] == [
        "stream invoice has what is dated ahead of the server's clock",
        "stream order has what is dated ahead of the server's clock",
    ]
    assert "the last firing of close, 24.0 h ahead" in told[0]
    assert f"eb:{{order}}:stream:p3 has the id {ahead}-0, 24.0 h ahead" in told[1]


async def test_a_log_that_nobody_reads_is_named(any_redis_url: str) -> None:
    transport = RedisTransport(any_redis_url, partitions={"order": 4})
    await transport.connect()
    await transport.append(outgoing(*range(50)))  # without a key: they are spread
    await transport.close()
    async with reached(any_redis_url) as link:
        told = json.loads(eventbus("doctor", "--json", "--watch", "0", EVENTBUS_REDIS_URL=any_redis_url).stdout)
        assert [each["severity"] for each in told["findings"] if each["check"] == "partitions"] == ["ok"]
        await link.execute("DEL", "eb:partitions")
        run = eventbus("doctor", "--json", "--watch", "0", EVENTBUS_REDIS_URL=any_redis_url)
    [found] = [each for each in json.loads(run.stdout)["findings"] if each["check"] == "partitions"]
    assert (run.returncode, found["severity"]) == (1, "error")
    assert "nobody reads order." in found["message"]
    count = int(found["remedy"].partition("EVENTBUS_PARTITIONS=order=")[2])
    async with EventBus(any_redis_url, partitions={"order": count}) as bus:
        assert await bus.transport.find_streams() == ["order"]
    assert eventbus("doctor", "--watch", "0", EVENTBUS_REDIS_URL=any_redis_url).returncode == 0
