"""One row holds up no other: what cannot be read or is refused is set aside, and what was appended is marked."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from eventbus.contract.delivery import Delivery, Subscription
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import CodecError
from eventbus.event import Status, unix_ms, uuid7
from eventbus.postgres import Database, outbox, relay_decisions
from eventbus.postgres import relay as module
from eventbus.redis import RedisTransport
from eventbus.redis.link import Link
from tests.integration.test_relay import (
    READER,
    Breakable,
    Filed,
    file,
    nothing_waits,
    read,
    terminate_others,
    waiting,
)
from tests.integration.test_relay import relaying as at_work
from tests.integration.test_relay_at_rest import asleep
from tests.proxy import Proxy
from tests.samples import receive
from tests.waiting import eventually, until

GOOD = {
    "type": "paper.filed",
    "meta": "",
    "data": '{"number":0}',
    "due_at": None,
    "dedupe_key": None,
    "dedupe_window": None,
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_PAUSE", 0.02)
    monkeypatch.setattr(relay_decisions, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(relay_decisions, "LONGEST_PAUSE", 0.2)


@pytest.fixture
async def transport(redis_url: str) -> AsyncIterator[Breakable]:
    transport = Breakable(redis_url)
    yield transport
    await transport.close()


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Link]:
    link = Link(redis_url, timeout=5, name="test")
    yield link
    await link.close()


async def insert(database: Database, **columns: Any) -> str:
    """A row by SQL of somebody's own."""
    row = {"event_id": uuid7(), **GOOD, **columns}
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO eventbus_outbox (event_id, type, meta, data, due_at, dedupe_key, dedupe_window) "
            "VALUES ($1::text::uuid, $2, $3, $4, $5::text::timestamptz, $6, $7)",
            *row.values(),
        )
    return str(row["event_id"])


async def set_aside(database: Database) -> dict[str, str]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT event_id, error FROM eventbus_outbox WHERE failed_at IS NOT NULL")
        return {str(row["event_id"]): row["error"] for row in rows}


def uuid7_at(ms: int) -> str:
    digits = f"{ms:012x}"
    return f"{digits[:8]}-{digits[8:]}{uuid7()[13:]}"


async def test_rows_that_nobody_can_read_are_set_aside_and_told(
    database: Database, migrated_url: str, transport: Breakable
) -> None:
    await file(database, 1)
    bad = {
        await insert(database, event_id="2f1e3b6a-9d2c-4c1a-8f7e-1b2c3d4e5f60"): "no UUIDv7",
        await insert(database, meta='{"priority":2.0}'): "priority",
        await insert(database, meta='{"priority":true}'): "priority",
        await insert(database, meta='{"correlationId":4711}'): "correlationId",
        await insert(database, meta='{"metadata":{"attempt":1}}'): "attempt",
        await insert(database, meta="garbage"): "not an envelope",
        await insert(database, meta="[1]"): "no JSON object",
        await insert(database, type="Garbage {x}"): "'Garbage {x}' is not of the form",
        await insert(database, type=""): "is not of the form",
        await insert(database, due_at="infinity"): "due in inf seconds",
        await insert(database, dedupe_key="", dedupe_window=1.0): "dedupe_key",
        await insert(database, dedupe_key="k", dedupe_window=float("nan")): "dedupe_window",
        await insert(database, dedupe_key="k", dedupe_window=1e300): "dedupe_window",
    }
    await file(database, 2)
    with capture_logs() as lines:
        async with at_work(migrated_url, transport):
            assert await read(transport, 2) == [1, 2]
            await eventually(lambda: nothing_but_what_is_aside(database))
            await file(database, 3)
            assert await read(transport, 1) == [3]
    found = await set_aside(database)
    assert found.keys() == bad.keys()
    assert {event_id: reason in found[event_id] for event_id, reason in bad.items()} == dict.fromkeys(bad, True), found
    told = {line["event_id"]: line for line in lines if line["event"] == "a row of the outbox is set aside"}
    assert told.keys() == bad.keys()
    assert all(line["log_level"] == "error" and line["position"] for line in told.values())
    assert await database.unpublished() == 0, "who waits for the outbox does not wait for them"


async def test_rows_of_no_real_time_flow_as_any_other(
    database: Database, migrated_url: str, transport: Breakable
) -> None:
    """A clock has lost its battery. The first batch of a relay is looked for, by the time in the ids."""
    for number, made_at in enumerate((30_000, 4_102_444_799_999)):
        event_id = await insert(database, event_id=uuid7_at(made_at), data=f'{{"number":{number}}}')
        assert unix_ms(event_id) == made_at
    await insert(database, due_at="-infinity", data='{"number":2}')
    async with at_work(migrated_url, transport):
        assert await read(transport, 3) == [0, 1, 2]
        await eventually(lambda: nothing_waits(database))


async def nothing_but_what_is_aside(database: Database) -> bool:
    return await waiting(database) == len(await set_aside(database))


async def wrong_type(raw: Link) -> None:
    await raw.execute("SET", "eb:{secret}:stream", "no stream")


async def right_type(raw: Link) -> None:
    await raw.execute("DEL", "eb:{secret}:stream")


async def no_rights(raw: Link) -> None:
    await raw.execute("ACL", "SETUSER", "limited", "reset", "on", ">pw", "+@all", "&*", "~eb:{paper}:*", "~eb:control")


async def all_rights(raw: Link) -> None:
    await raw.execute("ACL", "SETUSER", "limited", "~eb:*")


Change = Callable[[Link], Awaitable[None]]


@pytest.mark.parametrize("change", [(wrong_type, right_type), (no_rights, all_rights)], ids=["type", "acl"])
async def test_a_stream_that_refuses_holds_up_its_own_rows_alone_and_heals(
    database: Database, migrated_url: str, redis_url: str, raw: Link, change: tuple[Change, Change]
) -> None:
    refuse, relent = change
    await no_rights(raw)
    await all_rights(raw)
    await refuse(raw)
    parts = urlsplit(redis_url)
    limited = Breakable(parts._replace(netloc=f"limited:pw@{parts.hostname}:{parts.port}").geturl())
    secret = Subscription("secret", "archive", "ann", 30.0, None)
    good = Breakable(redis_url)
    try:
        for number in range(10):
            await insert(database, type="secret.kept", data=f'{{"number":{number}}}')
            await file(database, number)
        async with at_work(migrated_url, limited):
            assert await read(good, 10) == list(range(10))
            await eventually(lambda: only_secrets_wait(database, 10))
            await insert(database, type="secret.kept", data='{"number":10}')
            await file(database, 10)
            assert await read(good, 1) == [10], "each is appended once, though its batch was refused in part"
            await eventually(lambda: told_why(database))
            appends = limited.appends
            await asyncio.sleep(0.5)
            assert limited.appends - appends <= 15, "a slow pace: at most each 0.05 s, and slower and slower"
            await relent(raw)
            await eventually(lambda: nothing_waits(database))
        assert await set_aside(database) == {}
        assert [_number(d) for d in await receive(good, secret, 11)] == list(range(11)), "in their order"
    finally:
        await raw.execute("ACL", "DELUSER", "limited")
        await right_type(raw)
        await limited.close()
        await good.close()


async def only_secrets_wait(database: Database, count: int) -> bool:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT type FROM eventbus_outbox WHERE published_at IS NULL")
        return [row["type"] for row in rows] == ["secret.kept"] * count


async def told_why(database: Database) -> bool:
    async with database.connection() as connection:
        reason = await connection.fetchval("SELECT error FROM eventbus_outbox WHERE error IS NOT NULL LIMIT 1")
        return reason is not None and reason.startswith(("WRONGTYPE", "NOPERM"))


def _number(delivery: Delivery) -> int:
    return int(delivery.fields[b"data"][len(b'{"number":') : -1])


async def test_one_dedupe_key_that_refuses_is_set_aside_while_others_flow(
    database: Database, migrated_url: str, transport: Breakable, raw: Link
) -> None:
    await raw.execute("HSET", "eb:{paper}:once:paper.filed::b", "no", "string")
    async with database.transaction() as tx:
        for number, key in enumerate("abc"):
            await tx.publish(Filed(number=number), dedupe_key=key)
    async with at_work(migrated_url, transport):
        assert await read(transport, 2) == [0, 2]
        await eventually(lambda: nothing_but_what_is_aside(database))
    [reason] = (await set_aside(database)).values()
    assert "WRONGTYPE" in reason


async def test_a_row_that_is_too_large_for_the_server_is_set_aside(
    database: Database, migrated_url: str, transport: Breakable, raw: Link
) -> None:
    """The server hangs up on it, in the midst of a batch."""
    await raw.execute("CONFIG", "SET", "proto-max-bulk-len", 2**20)
    try:
        await file(database, 1)
        large = await insert(database, data='"' + "x" * 2**20 + '"')
        await file(database, 2)
        async with at_work(migrated_url, transport):
            assert await read(transport, 2) == [1, 2]
            await eventually(lambda: nothing_but_what_is_aside(database))
    finally:
        await raw.execute("CONFIG", "SET", "proto-max-bulk-len", 512 * 2**20)
    assert list(await set_aside(database)) == [large]


async def test_a_reply_lost_and_a_lower_position_in_between_store_nothing_twice(
    database: Database, migrated_url: str, redis_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The late one pushes the last of those that were appended out of the batch that is looked for."""
    monkeypatch.setattr(module, "BATCH", 5)
    monkeypatch.setattr(module, "IN_DOUBT", 1)
    monkeypatch.setattr(module, "RETRY_PAUSE", 0.5)  # in which the late one commits
    async with Proxy(redis_url) as proxy, database.connection() as late:
        relayed = RedisTransport(proxy.url)
        await relayed.connect()
        async with at_work(migrated_url, relayed):
            await file(database, 100)
            assert await read(transport, 1) == [100]
            await eventually(lambda: nothing_waits(database))
            lost = proxy.lose_reply_to(b"paper.filed")
            transaction = late.transaction()
            await transaction.start()
            await database.outbox(late).publish(Filed(number=0))
            await file(database, 1, 2, 3, 4, 5)
            await until(lost.is_set)
            await transaction.commit()
            await eventually(lambda: nothing_waits(database))
            assert sorted(await read(transport, 6)) == [0, 1, 2, 3, 4, 5]
        await relayed.close()


async def test_a_relay_that_slept_between_look_and_append_stores_nothing_twice(
    database: Database, migrated_url: str, redis_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after SIGSTOP: its session is gone, another relay has done its work, and it has not noticed yet."""
    monkeypatch.setattr(relay_decisions, "STALE", 0.1)
    stopped, awake, done = threading.Event(), threading.Event(), threading.Event()
    sleeping, envelope_of = threading.Thread(target=lambda: asyncio.run(relay_for_a_while())), outbox.envelope_of

    async def relay_for_a_while() -> None:
        slept = Breakable(redis_url)
        await slept.connect()
        async with at_work(migrated_url, slept):
            await asyncio.to_thread(done.wait, 60)
        await slept.close()

    def sleep_first(row: Any) -> Any:
        if threading.current_thread() is sleeping and not awake.is_set():
            stopped.set()
            awake.wait(60)
        return envelope_of(row)

    monkeypatch.setattr(module, "envelope_of", sleep_first)
    sleeping.start()
    try:
        await eventually(lambda: asleep(database))  # it has seen an empty outbox: nothing is in doubt
        await file(database, *range(20))
        await until(stopped.is_set)
        slept_at = time.monotonic()
        await terminate_others(database)
        async with at_work(migrated_url, transport):
            await eventually(lambda: nothing_waits(database))
            await until(lambda: time.monotonic() - slept_at > 2 * relay_decisions.STALE)
            awake.set()
            await file(database, 20)
            assert await read(transport, 21) == list(range(21))
    finally:
        awake.set()
        done.set()
        await asyncio.to_thread(sleeping.join)
    assert await transport.read(READER, 100, 0.1) == []


async def test_what_nobody_has_foreseen_holds_up_its_own_row(
    database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelope_of = outbox.envelope_of

    def stumble(row: Any) -> Any:
        return row["what was never there"] if row["data"] == '{"number":1}' else envelope_of(row)

    monkeypatch.setattr(module, "envelope_of", stumble)
    await file(database, 0, 1, 2)
    async with at_work(migrated_url, transport):
        assert await read(transport, 2) == [0, 2]
        assert await set_aside(database) == {}, "it is not known to be the row's fault"
        monkeypatch.undo()
        assert await read(transport, 1) == [1]


async def test_rows_are_taken_by_their_weight_as_well(
    database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five hundred of them may have a megabyte each, and a process is to hold only some."""
    monkeypatch.setattr(module, "_SELECT", module._SELECT.replace(str(module.BATCH_BYTES), "40"))
    await file(database, *range(10))  # of 12 bytes each
    async with at_work(migrated_url, transport):
        assert await read(transport, 10) == list(range(10))
        await eventually(lambda: nothing_waits(database))
    assert transport.appends == 3, "what begins below the bound is taken"


async def test_one_that_cannot_be_sent_is_found_among_its_batch(
    database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = transport.append

    async def refuse(items: Sequence[Outgoing], *, again: bool = False) -> list[Status]:
        if any(item.envelope.data == b'{"number":1}' for item in items):
            raise CodecError("it cannot be written")
        return await append(items, again=again)

    monkeypatch.setattr(transport, "append", refuse)
    await file(database, 0, 1, 2)
    async with at_work(migrated_url, transport):
        assert await read(transport, 2) == [0, 2]
        await eventually(lambda: nothing_but_what_is_aside(database))
    assert list((await set_aside(database)).values()) == ["it cannot be written"]
