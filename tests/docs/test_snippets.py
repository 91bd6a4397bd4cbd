"""Every block of Python in the documents runs: what a reader copies works."""

import ast
import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import asyncpg
import pytest
from redis.asyncio import Redis

from eventbus import Envelope, Event, EventBus, Finished
from eventbus import event as events
from eventbus.contract.delivery import Dead, Failure, Subscription
from eventbus.contract.outgoing import Outgoing
from eventbus.event import uuid7
from eventbus.memory import MemoryTransport
from eventbus.postgres import apply, load
from eventbus.postgres.outbox import envelope_of
from eventbus.redis.keys import stream_keys
from tests.docs.pages import PAGES, Block, blocks
from tests.samples import consumer, envelope, receive, settle
from tests.stored import partition, record
from tests.waiting import PATIENCE, eventually, until
from tests.working import working

# A block is known by a function that it defines.
PROGRAMS = {  # run as they are, until they have printed this
    "charge": "charging 42 for o-1, attempt 1",
    "greet": "hello Ada",
    "call_back": "do not forget t-1",
    "write_report": "completed at 100 %",
    "take_row": "committed: 3 events",
    "ship": "order 7 is on its way",
}
# No programs by themselves: each has a test below that drives it.
PARTS = {
    *(
        "bill",
        "send_letter",
        "store_contact",
        "try_mail_again",
        "book",
        "count_views",
        "open_carrier",
        "stamp",
        "send_again",
        "pay_in",
    ),
    *("tell_story", "on_record"),
}
# Files of services, which test_services.py writes and runs.
FILES = {"charge_order", "test_a_large_order_is_charged_at_the_second_try", "remind"}

BLOCKS = [block for page in PAGES for block in blocks(page) if block.language == "python"]

LOCAL_REDIS = "redis://localhost:6379"
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("EVENTBUS_", "REDIS_", "DATABASE_"))}
TABLES = """
CREATE TABLE invoices (id text, amount int);
CREATE TABLE payments (invoice_id text, amount int);  -- nothing unique: duplicates are to be counted
CREATE TABLE views (path text, seconds float8);
"""


@pytest.fixture(autouse=True)
def no_types_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader's types are his own: whatever tests ran before in this process have taken names, too."""
    theirs: dict[str, type[Event]] = {
        name: found for name, found in events._registry.items() if not found.__module__.startswith("tests.")
    }
    monkeypatch.setattr(events, "_registry", theirs)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_somebody_runs(block: Block) -> None:
    kind = PROGRAMS.keys() if "asyncio.run(" in block.text else PARTS | FILES
    assert len(_functions(block) & kind) == 1, f"{block.place}: a new block; tell this file how to run it"


@pytest.mark.parametrize("function", PROGRAMS)
async def test_a_program_does_what_it_says_until_sigterm(function: str, tmp_path: Path, redis_url: str) -> None:
    text = _the_block(function).text
    assert LOCAL_REDIS in text
    program, printed = tmp_path / "program.py", tmp_path / "printed"
    program.write_text(text.replace(LOCAL_REDIS, redis_url))
    with _running(program, printed) as process:
        with suppress(TimeoutError):  # what it printed instead is told below
            await until(lambda: PROGRAMS[function] in _lines(printed) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0, printed.read_text(encoding="utf-8")
    assert _lines(printed).count(PROGRAMS[function]) == 1, printed.read_text(encoding="utf-8")


async def test_a_bill_is_paid_once_however_often_it_is_delivered(redis_url: str, database_url: str) -> None:
    snippet = _module("bill")
    stream = stream_keys("eb", "invoice").stream

    async def published() -> bool:
        return await client.xlen(stream) == 2

    async def settled() -> bool:
        [group] = await client.xinfo_groups(stream)
        return await client.xlen(stream) >= 3 and not group["pending"] and not group["lag"]

    async with (
        _prepared(database_url) as connection,
        Redis.from_url(redis_url, socket_timeout=PATIENCE) as client,
        EventBus(redis_url, database=database_url) as bus,
        working(bus, snippet.accounts),
    ):
        await snippet.bill(bus, "i-1", 100)
        await eventually(published)
        [due] = await connection.fetch("SELECT * FROM eventbus_outbox WHERE type = 'invoice.due'")
        await bus.transport.append([Outgoing(envelope_of(due))])
        await eventually(settled)
        invoices, payments, paid = [
            [tuple(row) for row in await connection.fetch(query)]
            for query in (
                "SELECT * FROM invoices",
                "SELECT * FROM payments",
                "SELECT subject FROM eventbus_outbox WHERE type = 'invoice.paid'",
            )
        ]
        assert (invoices, payments, paid) == ([("i-1", 100)], [("i-1", 100)], [("i-1",)])


async def test_a_contact_ends_as_its_handler_says(capsys: pytest.CaptureFixture[str]) -> None:
    snippet = _module("store_contact")
    said: list[str] = []

    def enough() -> bool:
        said.extend(line for line in capsys.readouterr().out.splitlines() if line.startswith(("contact", "dead")))
        return len(said) >= 4

    async with EventBus("memory://") as bus, working(bus, snippet.crm):
        emails = ["ada@example.org", "busy@example.org", "nobody", "twice@example.org"]
        await bus.publish_many([snippet.ContactFound(email=email) for email in emails])
        await until(enough)
    assert sorted(said) == [
        "contact.found done at attempt 1",
        "contact.found done at attempt 2",
        "dead: Duplicate('twice@example.org')",
        "dead: Reject('no address')",
    ]


async def test_mail_is_tried_again() -> None:
    snippet = _module("try_mail_again")
    transport = MemoryTransport()
    await transport.append([Outgoing(envelope(n)) for n in range(3)])
    refused = Dead(Failure("OSError: Connection refused"), 3)
    await settle(transport, await receive(transport, consumer(group="email"), 2), refused)
    await settle(transport, await receive(transport, consumer(group="email"), 1), Dead(Failure("no address"), 1))
    async with EventBus("memory://") as bus:
        bus.transport = transport
        assert await snippet.try_mail_again(bus) == 2
    [left] = await transport.dead_letters("order")
    assert left.error == "no address"


async def test_a_letter_is_sent_under_limits() -> None:
    snippet = _module("send_letter")
    told: list[Finished] = []
    snippet.letters.on_completed(told.append)
    async with EventBus("memory://") as bus:
        await snippet.announce(bus)
        assert await bus.groups.paused() == {}
        async with working(bus, snippet.letters):
            await until(lambda: told)
    [finished] = told
    assert finished.envelope is not None
    assert finished.envelope.priority == 1


async def test_views_are_counted_in_batches_and_once(database_url: str) -> None:
    snippet = _module("count_views")
    told: list[Finished] = []
    snippet.statistics.on_error(told.append)
    async with _prepared(database_url) as connection, EventBus("memory://", database=database_url) as bus:
        views = [snippet.PageViewed(path="/", seconds=seconds) for seconds in (1, 2, -3, 4)]
        async with working(bus, snippet.statistics):
            await bus.publish_many(views)
            await eventually(lambda: connection.fetchval("SELECT count(*) = 3 FROM views"))
            await until(lambda: told)
        assert [repr(finished.error) for finished in told] == ["Reject('time runs forwards')"]
        assert await connection.fetchval("SELECT count(*) FROM eventbus_outbox WHERE type = 'visit.logged'") == 3


async def test_an_account_s_changes_are_booked_in_order(redis_url: str) -> None:
    snippet = _module("book")
    booked: list[int] = []

    def note(finished: Finished) -> None:
        assert finished.envelope is not None
        booked.append(json.loads(finished.envelope.data)["balance"])

    snippet.ledger.on_completed(note)
    async with EventBus(redis_url) as bus, working(bus, snippet.ledger):
        for balance in range(50):
            await bus.publish(snippet.AccountChanged(account_id="a-1", balance=balance), key="a-1")
        await until(lambda: len(booked) == 50)
    assert booked == list(range(50))


async def test_a_carrier_is_opened_once_and_left_alone_while_it_fails() -> None:
    snippet = _module("open_carrier")

    class Asleep:
        called = 0

        async def announce(self, _parcel_id: str) -> None:
            self.called += 1
            raise OSError("asleep")

    carrier = Asleep()
    async with EventBus("memory://") as bus, working(bus, snippet.parcels):
        bus.resources.provide(snippet.CARRIER, carrier)
        await bus.publish_many([snippet.ParcelSent(parcel_id=str(number)) for number in range(20)])
        await until(lambda: carrier.called == snippet.CALLS.failures)
        [circuit] = await bus.transport.circuits.troubled()
        assert circuit.is_open
    async with EventBus("memory://") as bus:
        assert await bus.resources.use(snippet.CARRIER) is await bus.resources.use(snippet.CARRIER)


async def test_a_parcel_of_each_version_is_stamped(capsys: pytest.CaptureFixture[str]) -> None:
    snippet = _module("stamp")
    steps = [
        b'{"sender": "Ada L", "kilos": 1.5}',
        b'{"sender": "Ada L", "grams": 1500}',
        b'{"firstName": "Ada", "grams": 1500}',
    ]
    said: list[str] = []

    def enough() -> bool:
        said.extend(line for line in capsys.readouterr().out.splitlines() if line.startswith("Ada"))
        return len(said) >= 3

    async with EventBus("memory://") as bus, working(bus, snippet.post):
        for version, data in enumerate(steps, start=1):
            await bus.forward([Outgoing(Envelope(uuid7(), "parcel.posted", data, version=version))])
        await until(enough)
    assert sorted(said) == [f"Ada: 1500 g, published as version {version}" for version in (1, 2, 3)]


async def test_what_a_ledger_has_missed_is_sent_again(redis_url: str, database_url: str) -> None:
    snippet = _module("send_again")
    placed = [Envelope(uuid7(), "order.placed", b"{}", None, organization, "c-1") for organization in ("a", "a", "b")]
    ledger = Subscription("order", "ledger", "test", 30.0, 3)
    async with _prepared(database_url) as connection, EventBus(redis_url, database=database_url) as bus:
        await bus.transport.read(ledger, 1, 0.0)
        await partition(connection)
        await record(connection, placed)
        assert await snippet.send_again(bus, "a", "ann") == 2
        assert len(await bus.transport.read(ledger, 9, 0.0)) == 2


async def test_an_account_is_never_overdrawn(redis_url: str, database_url: str) -> None:
    snippet = _module("pay_in")
    told: list[Finished] = []
    snippet.teller.on_completed(told.append)
    snippet.teller.on_error(told.append)
    async with _prepared(database_url), EventBus(redis_url, database=database_url) as bus:
        assert [await snippet.pay_in(bus, "a-1", amount) for amount in (70, 30)] == [70, 100]
        async with working(bus, snippet.teller):
            await bus.publish_many([snippet.WithdrawMoney(account="a-1", amount=30) for _ in range(5)])
            await until(lambda: len(told) == 5)
        assert [repr(finished.error) for finished in told if finished.error] == ["Reject('there are 10 in it')"] * 2
        async with bus.transaction() as tx:
            account = await tx.load(snippet.Account, "acme", "a-1")
        assert (account.balance, account.version) == (10, 5)


async def test_what_happened_to_a_meter_is_on_record(
    redis_url: str, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, reading = _module("on_record"), _module("tell_story")
    async with _prepared(database_url), recording.on_record(redis_url, database_url) as bus:
        working = asyncio.create_task(recording.work(bus))
        event = recording.MeterRead(reading=42)
        receipt = await bus.publish(event, key="meter-1", organization="acme")

        async def told() -> bool:
            return bool(await bus.history.find(receipt.id) and await bus.history.executions([receipt.id]))

        await eventually(told)
        capsys.readouterr()
        await reading.tell_story(bus, "acme", "meter-1")
        working.cancel()
        await asyncio.wait([working])
    printed = capsys.readouterr().out
    assert "meter.read b'{\"reading\":42}'" in printed
    assert "meters completed" in printed


@contextmanager
def _running(program: Path, printed: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to a file; it does not outlive the block."""
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, program], cwd=program.parent, env=CLEAN, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def _prepared(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the database, which has the bus' tables and the reader's own."""
    connection = await asyncpg.connect(url)
    try:
        await apply(connection, load("eventbus", files("eventbus.postgres") / "migrations"))
        await connection.execute(TABLES)
        yield connection
    finally:
        await connection.close()


def _module(function: str) -> ModuleType:
    """A block as a module. Always of the same name: an event type belongs to one class of one module."""
    module = ModuleType(f"snippet_{function}")
    exec(compile(_the_block(function).text, _the_block(function).place, "exec"), module.__dict__)
    return module


def _the_block(function: str) -> Block:
    [block] = [block for block in BLOCKS if function in _functions(block)]
    return block


def _functions(block: Block) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(block.text).body if isinstance(node, kinds)}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
