"""`eventbus schema`: what it looks at, how much of it, and what it says."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from eventbus import EventBus
from eventbus import event as events
from eventbus.contract.codec import encode
from eventbus.contract.delivery import Ack, Dead, Retry
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.session_store import SessionId
from eventbus.event import Envelope, uuid7
from eventbus.postgres import apply, installed
from eventbus.postgres.outbox import insert
from eventbus.redis import RedisTransport
from tests.integration.commands import Run, assert_fits
from tests.integration.commands import eventbus as eventbus_apart
from tests.integration.commands import eventbus_here as eventbus
from tests.samples import FAILED, consumer, receive, settle

MODULE = """
from eventbus import Context, Event, Group

class Paid(Event, type="schemacmd.paid", version=2):
    cents: int

@Paid.upcast(from_version=1)
def in_cents(data):
    return {"cents": round(data["euros"] * 100)}

class Refunded(Event, type="schemacmd.refunded"):
    cents: int

bank = Group("bank")

@bank.on(Paid)
async def book(event: Paid, ctx: Context) -> None: ...
"""
GAP = """
from eventbus import Event

class Torn(Event, type="schemacmd.torn", version=3):
    cents: int

@Torn.upcast(from_version=1)
def whole(data):
    return data
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(events, "_registry", {})  # other tests have types with gaps
    monkeypatch.delitem(sys.modules, "schemacmd_bank", raising=False)
    (tmp_path / "schemacmd_bank.py").write_text(MODULE)
    (tmp_path / "schemacmd_torn.py").write_text(GAP)


@pytest.fixture
async def transport(any_redis_url: str) -> AsyncIterator[RedisTransport]:
    transport = RedisTransport(any_redis_url)
    yield transport
    await transport.close()


def paid(data: bytes = b'{"euros": 1.5}', version: int = 1, **attributes: Any) -> Outgoing:
    return Outgoing(Envelope(uuid7(), "schemacmd.paid", data, version=version, **attributes))


async def check(url: str, *options: str, app: str = "schemacmd_bank", **environment: str) -> Run:
    arguments = ("schema", "check", "--app", app, *options)
    return await asyncio.to_thread(lambda: eventbus(*arguments, EVENTBUS_REDIS_URL=url, **environment))


async def looked_at(url: str, *options: str, **environment: str) -> dict[str, Any]:
    """By type and version."""
    told = json.loads((await check(url, "--json", *options, **environment)).stdout)
    return {f"{one['type']} {one['version']}": one["lookedAt"] for one in told["types"]}


async def test_what_all_groups_have_settled_is_not_looked_at(transport: RedisTransport, any_redis_url: str) -> None:
    bank, shop = consumer(group="bank", stream="schemacmd"), consumer(group="shop", stream="schemacmd")
    await transport.append([paid() for _ in range(10)])
    assert await looked_at(any_redis_url) == {"schemacmd.paid 1": {"stream": 10}}, "nobody has read any"
    first = await receive(transport, bank, 6)
    await settle(transport, first[:4], Ack())
    assert await looked_at(any_redis_url) == {"schemacmd.paid 1": {"stream": 6}}
    await settle(transport, await receive(transport, shop, 8), Ack())
    assert await looked_at(any_redis_url) == {"schemacmd.paid 1": {"stream": 6}}, "the slowest decides"
    await settle(transport, [first[4]], Retry(600, FAILED))
    await settle(transport, [first[5]], Dead(FAILED, 1))
    assert await looked_at(any_redis_url) == {"schemacmd.paid 1": {"stream": 5, "dead": 1}}
    await transport.append([paid(priority=1), paid(version=2, data=b'{"cents": 1}')._replace(delay=60.0)])
    assert await looked_at(any_redis_url) == {
        "schemacmd.paid 1": {"stream": 6, "dead": 1},
        "schemacmd.paid 2": {"scheduled": 1},
    }
    await receive(transport, consumer(group="late", stream="schemacmd"), 11)
    assert await looked_at(any_redis_url, "--in", "stream") == {"schemacmd.paid 1": {"stream": 11}}, "each once"
    assert await looked_at(any_redis_url, "--in", "dead") == {"schemacmd.paid 1": {"dead": 1}}
    assert await looked_at(any_redis_url, "--stream", "elsewhere") == {}


async def test_open_sessions_are_looked_at(transport: RedisTransport, any_redis_url: str) -> None:
    def kept(count: int, kind: str = "schemacmd.paid") -> list[Envelope]:
        return [Envelope(uuid7(), kind, b'{"euros": 1, "note": "a\\nb"}') for _ in range(count)]

    sessions = [SessionId(name, uuid7()) for name in ("acme", "umbrella: *{}", "acme", "acme")]
    for session in sessions:
        await transport.sessions.start(session, {}, 60.0)
        await transport.sessions.add(session, "first", kept(230))
    await transport.sessions.add(sessions[0], "second", kept(1, "other.thing"))
    await transport.sessions.roll_back(sessions[2])
    await transport.sessions.begin(sessions[3], await transport.sessions.register(sessions[3]))
    await transport.sessions.finish(sessions[3], 1, ["schemacmd"])
    assert await looked_at(any_redis_url, "--in", "session") == {
        "other.thing 1": {"session": 1},
        "schemacmd.paid 1": {"session": 460},
    }
    found = await looked_at(any_redis_url, "--in", "session", "--stream", "other")
    assert found == {"other.thing 1": {"session": 1}}


async def test_pages_are_put_together(transport: RedisTransport, any_redis_url: str) -> None:
    bank, shop = consumer(group="bank", stream="schemacmd"), consumer(group="shop", stream="schemacmd")
    await transport.append([paid() for _ in range(700)])
    held = await receive(transport, bank, 450)
    await settle(transport, await receive(transport, shop, 500), Ack())
    await settle(transport, held[::2], Dead(FAILED, 1))
    await transport.append([paid()._replace(delay=60.0) for _ in range(650)])
    expected = {"stream": 225 + 250, "dead": 225, "scheduled": 650}
    assert await looked_at(any_redis_url) == {"schemacmd.paid 1": expected}


async def test_more_than_the_limit_is_said(transport: RedisTransport, any_redis_url: str) -> None:
    await transport.append([paid() for _ in range(5)])
    told = json.loads((await check(any_redis_url, "--json", "--limit", "4")).stdout)
    assert (told["types"][0]["lookedAt"], told["partly"]) == (
        {"stream": 4},
        ["stream: 4, the oldest of schemacmd, priority 5"],
    )
    told = json.loads((await check(any_redis_url, "--json", "--limit", "5")).stdout)
    assert (told["types"][0]["lookedAt"], told["partly"]) == ({"stream": 5}, [])


async def test_all_that_can_be_wrong_is_one_screen(transport: RedisTransport, any_redis_url: str) -> None:
    good = await check(any_redis_url)
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "there are no events")
    await transport.append([paid(), paid(version=3, data=b'{"cents": 1, "vat": 0}')])
    good = await check(any_redis_url)
    assert (good.returncode, "2 events of 1 types: all open" in good.stdout) == (0, True)
    assert "3, here 2" in good.stdout
    await transport.append([paid(b'{"yen": \x1b[2J}'), paid(b"{}", 2), paid(b'{"cents": "a"}', 2)])
    for number in range(30):
        kind = "schemacmd." + "unheard_of_" * 5 + str(number)
        await transport.append([Outgoing(Envelope(uuid7(), kind, b"{}")) for _ in range(5)])
    await transport.append([Outgoing(Envelope("no uuid", "schemacmd.paid", b"{}"))])
    bad = await check(any_redis_url, "--limit", "100")
    assert bad.returncode == 1
    assert_fits(bad)
    assert "not all: stream: 100, the oldest of schemacmd" in bad.stdout
    assert "not looked at: outbox, stored, aggregate: no database" in bad.stdout
    told = json.loads((await check(any_redis_url, "--json")).stdout)
    faults = {(one["type"][:14], one["version"]): one["faults"][0] for one in told["types"] if one["faults"]}
    assert told["failing"] == 3 + 150 + 1
    assert faults["?", 0]["reason"] == "the entry is not an envelope: its id is no UUIDv7"
    assert "no event class for type" in faults["schemacmd.unhe", 1]["reason"]
    assert len(faults["schemacmd.unhe", 1]["ids"]) == 3
    assert "data of schemacmd.paid of version 1 is no JSON" in faults["schemacmd.paid", 1]["reason"]


async def test_a_dead_letter_is_named_as_the_other_commands_name_it(
    transport: RedisTransport, any_redis_url: str
) -> None:
    await transport.append([paid(b"{}")])
    await settle(transport, await receive(transport, consumer(stream="schemacmd")), Dead(FAILED, 1))
    [letter] = await transport.dead_letters("schemacmd")
    run = await check(any_redis_url)
    assert f"FAIL  schemacmd.paid 1, 1 in dead: schemacmd/{letter.id}" in run.stdout
    assert "KeyError: 'euros'" in " ".join(run.stdout.split())
    assert run.returncode == 1


async def test_a_gap_is_told_without_any_event(redis_url: str) -> None:
    path = ":".join(entry for entry in sys.path if entry)  # in a process of its own: what is imported here, stays
    arguments = ("schema", "check", "--app", "schemacmd_torn")
    run = await asyncio.to_thread(lambda: eventbus_apart(*arguments, EVENTBUS_REDIS_URL=redis_url, PYTHONPATH=path))
    assert run.returncode == 1
    assert "GAP: schemacmd.torn: nothing leads from version 2 to 3" in run.stdout
    assert_fits(run)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    await apply(connection, [one for one in installed() if one.source == "eventbus"])
    await connection.execute("CREATE TABLE eventbus_events_all PARTITION OF eventbus_events DEFAULT")
    yield connection
    await connection.close()


async def store(connection: asyncpg.Connection, made: datetime, kind: str, version: int, data: bytes) -> None:
    ms = round(made.timestamp() * 1000)
    head = f"{ms:012x}"
    _, _, _, event_type, _, meta, _, packed = encode(
        Envelope(f"{head[:8]}-{head[8:]}{uuid7()[13:]}", kind, data, version=version)
    )
    await connection.execute(
        "INSERT INTO eventbus_events (event_id, made_at, type, correlation_id, meta, data) "
        "VALUES ($1, $2, $3, '', $4, $5)",
        f"{head[:8]}-{head[8:]}{uuid7()[13:]}",
        made,
        event_type,
        meta.decode() if isinstance(meta, bytes) else meta,
        packed.decode() if isinstance(packed, bytes) else packed,
    )


async def test_a_store_that_is_large_is_looked_at_all_along(
    database: asyncpg.Connection, redis_url: str, database_url: str
) -> None:
    """What lay between two versions for a tenth of the time is found by one in twenty."""
    now = datetime.now(UTC)
    for number in range(600):
        version, data = (1, b"{}") if 300 <= number < 360 else (2, b'{"cents": 1}')
        await store(database, now - timedelta(hours=600 - number), "schemacmd.paid", version, data)
    for kind in ("schemacmd.refunded", "schemacmd.unheard_of", "other.paid"):
        await store(database, now, kind, 1, b'{"cents": 1}')
    run = await check(redis_url, "--json", "--limit", "100", EVENTBUS_DATABASE_URL=database_url)
    assert run.returncode == 1
    told = json.loads(run.stdout)
    stored = {f"{one['type']} {one['version']}": one["lookedAt"]["stored"] for one in told["types"]}
    assert stored["schemacmd.paid 1"] in {10, 15}, "two or three of twenty slices"
    assert stored["schemacmd.paid 1"] + stored["schemacmd.paid 2"] == 100
    assert {name for name in stored if not name.startswith("schemacmd.paid")} == {
        "schemacmd.refunded 1",
        "schemacmd.unheard_of 1",
        "other.paid 1",
    }
    assert told["partly"] == ["stored: 100, spread over the time between the first and the last of schemacmd.paid"]
    only = await looked_at(redis_url, "--stream", "other", EVENTBUS_DATABASE_URL=database_url)
    assert only == {"other.paid 1": {"stored": 1}}
    whole = await looked_at(redis_url, "--limit", "600", EVENTBUS_DATABASE_URL=database_url)
    assert (whole["schemacmd.paid 1"], whole["schemacmd.paid 2"]) == ({"stored": 60}, {"stored": 540})


async def test_events_of_aggregates_are_looked_at(
    database: asyncpg.Connection, redis_url: str, database_url: str
) -> None:
    """They are kept when the event store has forgotten them, and a state cannot be rebuilt without them."""
    for number, (kind, data) in enumerate([("schemacmd.paid", "{}"), ("schemacmd.unheard_of", "{}")], start=1):
        await database.execute(
            "INSERT INTO eventbus_aggregate_events VALUES ('acme', 'account', 'a-1', $1, $2, $3, '', $4)",
            *(number, uuid7(), kind, data),
        )
    run = await check(redis_url, "--json", EVENTBUS_DATABASE_URL=database_url)
    assert run.returncode == 1
    told = json.loads(run.stdout)
    assert {one["type"]: one["lookedAt"] for one in told["types"]} == {
        "schemacmd.paid": {"aggregate": 1},
        "schemacmd.unheard_of": {"aggregate": 1},
    }


async def test_the_outbox_is_looked_at_as_far_as_it_is_not_relayed(
    database: asyncpg.Connection, redis_url: str, database_url: str
) -> None:
    await insert(database, [paid() for _ in range(450)])
    await database.execute("UPDATE eventbus_outbox SET published_at = now() WHERE position <= 40")
    found = await looked_at(redis_url, EVENTBUS_DATABASE_URL=database_url)
    assert found == {"schemacmd.paid 1": {"outbox": 410}}
    assert await looked_at(redis_url, "--stream", "other", EVENTBUS_DATABASE_URL=database_url) == {}


async def test_what_cannot_be_looked_at_is_said_or_ends_it(redis_url: str, database_url: str) -> None:
    run = await check(redis_url, EVENTBUS_DATABASE_URL=database_url)
    assert run.returncode == 0
    assert "not looked at (and 2 more): outbox: there is no table eventbus_outbox" in run.stdout
    away = "postgresql://nobody@127.0.0.1:9/none"
    assert (await check(redis_url, EVENTBUS_DATABASE_URL=away)).returncode == 3, "nobody should deploy on half a look"
    assert (await check(redis_url, "--in", "stream", EVENTBUS_DATABASE_URL=away)).returncode == 0
    assert (await check("redis://127.0.0.1:9")).returncode == 3
    assert (await check(redis_url, "--in", "nowhere")).returncode == 2


def test_the_list_tells_what_is_known() -> None:
    run = eventbus("schema", "list", "--app", "schemacmd_bank", "--json")
    assert run.returncode == 0, run.stderr
    known = {one["type"]: one for one in json.loads(run.stdout)["types"]}
    assert known["schemacmd.paid"] == {"type": "schemacmd.paid", "version": 2, "opensFrom": 1, "groups": ["bank"]}
    assert known["schemacmd.refunded"]["groups"] == []
    rows = [line.split() for line in eventbus("schema", "list", "--app", "schemacmd_bank").stdout.splitlines()]
    assert ["schemacmd.paid", "1", "to", "2", "bank"] in rows
    assert ["schemacmd.refunded", "1", "none"] in rows


async def test_looking_changes_nothing(transport: RedisTransport, any_redis_url: str) -> None:
    await transport.append([paid(), paid()._replace(delay=60.0)])
    [held] = await receive(transport, consumer(stream="schemacmd"))
    before = await transport.inspect(["schemacmd"])
    await check(any_redis_url)
    [after] = await transport.inspect(["schemacmd"])
    assert [after.length, after.scheduled, after.groups[0].pending] == [before[0].length, 1, 1]
    await settle(transport, [held], Ack())
    async with EventBus(any_redis_url) as bus:
        assert await bus.transport.find_streams() == ["schemacmd"]
