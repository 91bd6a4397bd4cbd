"""`eventbus replay`: a count and a question before anything is sent, and a record of it afterwards."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from eventbus import EventBus
from eventbus.contract.delivery import Ack, Dead
from eventbus.contract.history import Selection
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Envelope
from tests.integration.commands import CLEAN, Run, assert_fits
from tests.integration.commands import eventbus_here as eventbus
from tests.samples import FAILED, consumer, envelope, receive, settle
from tests.stored import id_of, partition, record
from tests.waiting import PATIENCE

NOW = datetime.now(UTC)
PLACED = [
    Envelope(id_of(NOW - timedelta(minutes=9 - n)), "order.placed", b"{}", f"order-{n % 2}", "acme", f"c-{n}")
    for n in range(4)
]
PAID = Envelope(id_of(NOW - timedelta(minutes=1)), "order.paid", b"{}", "order-1", "umbrella", "c-9")


@pytest.fixture
async def bus(redis_url: str, migrated_url: str) -> AsyncIterator[EventBus]:
    async with EventBus(redis_url, database=migrated_url) as bus:
        async with bus.transaction() as tx:
            await partition(tx.connection)
            await record(tx.connection, [*PLACED, PAID])
        await bus.transport.read(consumer(), 1, 0.0)
        yield bus


@pytest.fixture
def here(redis_url: str, migrated_url: str) -> dict[str, str]:
    return {"EVENTBUS_REDIS_URL": redis_url, "EVENTBUS_DATABASE_URL": migrated_url}


async def sent(bus: EventBus) -> int:
    return len(await bus.transport.read(consumer(), 100, 0.0))


def said(run: Run) -> str:
    return " ".join(run.stderr.replace("│", " ").split())


async def test_a_dry_run_counts_and_sends_nothing(bus: EventBus, here: dict[str, str]) -> None:
    run = eventbus("replay", "--group", "billing", "--subject", "order-1", "--dry-run", **here)
    assert (run.returncode, run.stdout) == (0, "1 order.paid, 2 order.placed\nwould send 3 to billing\n"), run.stderr
    told = json.loads(eventbus("replay", "-g", "billing", "--all", "--dry-run", "--json", **here).stdout)
    assert (told["count"], told["matched"], told["dryRun"]) == (5, {"order.paid": 1, "order.placed": 4}, True)
    assert (await sent(bus), eventbus("replay", "list", **here).stdout) == (0, "nothing was sent again\n")


async def test_it_asks_before_it_sends_and_is_kept(bus: EventBus, here: dict[str, str]) -> None:
    asked = ("replay", "--group", "billing", "--type", "order.placed", "--subject", "order-1", "--why", "wrong sum")
    refused = eventbus(*asked, answer="n\n", **here)
    assert (refused.returncode, "2 order.placed. Send 2 to billing? [y/N]" in refused.stderr) == (1, True)
    assert await sent(bus) == 0
    agreed = eventbus(*asked, answer="y\n", **here)
    assert (agreed.returncode, agreed.stdout) == (0, "2 order.placed\nsent 2 to billing\n"), agreed.stderr
    line = json.loads(agreed.stderr.partition("[y/N] ")[2])
    assert (line["audit"], line["count"], line["of"], line["why"]) == ("replay", 2, 2, "wrong sum")
    assert line["filter"]["subject"] == "order-1"
    assert await sent(bus) == 2
    listed = eventbus("replay", "list", **here)
    assert_fits(listed)
    assert "history  billing  2 of 2  wrong sum" in listed.stdout
    [kept] = json.loads(eventbus("replay", "list", "--json", **here).stdout)["items"]
    assert (kept["group"], kept["replayed"], kept["filter"]["types"]) == ("billing", 2, ["order.placed"])


async def test_each_filter_is_understood(bus: EventBus, here: dict[str, str]) -> None:
    cases: list[tuple[tuple[str, ...], int]] = [
        (("--organization", "umbrella"), 1),
        (("--correlation", "c-2"), 1),
        (("--event", PLACED[0].id, "--event", PAID.id), 2),
        (("--type", "order.paid", "--type", "order.placed"), 5),
        (("--type", "order.*"), 5),
        (("--since", "1h"), 5),
        (("--since", PAID.time.isoformat()), 1),
        (("--until", "1h"), 0),
        (("--after", PLACED[2].id), 2),
    ]
    for filters, count in cases:
        run = eventbus("replay", "-g", "billing", *filters, "--why", "test", "--yes", "--rate", "100", "--json", **here)
        assert run.returncode == 0, run.stderr
        assert (json.loads(run.stdout)["replayed"], await sent(bus)) == (count, count), filters


async def test_nothing_is_sent_by_leaving_out_a_word_or_misspelling_one(bus: EventBus, here: dict[str, str]) -> None:
    for arguments in (
        ("--all", "--why", "x"),  # to whom?
        ("--group", "billing", "--why", "x"),  # what?
        ("--group", "billing", "--all"),  # why?
        ("--group", "billing", "--type", "order", "--why", "x"),
        ("--group", "billing", "--event", "42", "--why", "x"),
        ("--group", "billing", "--since", "2026-01-01", "--why", "x"),
    ):
        run = eventbus("replay", *arguments, "--yes", **here)
        assert run.returncode == 2, (arguments, run.stdout, run.stderr)
    run = eventbus("replay", "--group", "biling", "--all", "--why", "x", "--yes", **here)
    assert run.returncode == 1
    assert "no stream knows a group 'biling'; there are billing" in said(run)
    run = eventbus("replay", "--group", "billing", "--type", "parcel.*", "--why", "x", "--yes", **here)
    assert run.returncode == 1
    assert "does not read parcel" in said(run)
    assert await sent(bus) == 0


async def test_new_ids_are_asked_for_by_name(bus: EventBus, here: dict[str, str]) -> None:
    asked = ("replay", "-g", "billing", "--event", PAID.id, "--new-ids", "--why", "once more")
    run = eventbus(*asked, answer="y\n", **here)
    assert "Send 1 to billing as new events?" in run.stderr
    [found] = await receive(bus.transport, consumer())
    assert found.fields[b"id"] != PAID.id.encode()
    assert "once more (new ids)" in eventbus("replay", "list", **here).stdout


async def test_dead_letters_are_on_the_same_record(bus: EventBus, here: dict[str, str]) -> None:
    await bus.transport.append([Outgoing(envelope(n, subject=f"s-{n}", organization="acme")) for n in range(3)])
    await settle(bus.transport, await receive(bus.transport, consumer(), 3), Dead(FAILED, 1))
    chosen = ("--group", "billing", "--subject", "s-1", "--organization", "acme")
    nobody = eventbus("dead", "replay", "--organization", "umbrella", "--json", **here)
    assert json.loads(nobody.stdout)["replayed"] == 0
    run = eventbus("dead", "replay", *chosen, "--why", "mended", "--json", **here)
    assert json.loads(run.stdout) == {"replayed": 1, "gone": 0, "left": 0}, run.stderr
    kept, _ = json.loads(eventbus("replay", "list", "--json", **here).stdout)["items"]
    assert (kept["source"], kept["group"], kept["why"], kept["matched"], kept["replayed"]) == (
        "dead letters",
        "billing",
        "mended",
        1,
        1,
    )
    assert kept["filter"] == {"group": "billing", "subject": "s-1", "organization": "acme"}
    assert kept["endedAt"] is not None
    away = here | {"EVENTBUS_DATABASE_URL": "postgresql://app:sesame@127.0.0.1:1/app"}
    run = eventbus("dead", "replay", "--all", **away)
    assert (run.returncode, run.stdout) == (0, "replayed 2\n"), "a database that is away keeps nobody from mending"
    assert "not on record" in run.stderr
    assert "sesame" not in run.stderr


async def test_what_is_replayed_is_told_as_such(bus: EventBus, here: dict[str, str]) -> None:
    """The first entry is done, and not dead: nobody can tell any more."""
    await bus.transport.append([Outgoing(PAID)])
    await settle(bus.transport, await receive(bus.transport, consumer()), Ack())
    await bus.transport.read(consumer(group="shipping"), 1, 0.0)
    await bus.events.replay("billing", Selection(ids=[PAID.id]), why="test")
    told = " ".join(eventbus("explain", PAID.id, **here).stdout.split())
    assert "done or dead before, and replayed" in told
    assert "waiting, 0 of its priority before it" in told
    assert "not for this group: a replay for another one" in told


def test_a_server_that_is_away(bus: EventBus, here: dict[str, str]) -> None:
    asked = ("replay", "-g", "billing", "--all", "--why", "x", "--yes")
    for name, url in (
        ("EVENTBUS_REDIS_URL", "redis://:sesame@127.0.0.1:1"),
        ("EVENTBUS_DATABASE_URL", "postgresql://u:sesame@127.0.0.1:1/x"),
    ):
        run = eventbus(*asked, **here | {name: url})
        assert run.returncode == 3, run.stderr
        assert "sesame" not in run.stderr


async def test_one_that_is_killed_is_on_record_and_can_be_done_again(bus: EventBus, here: dict[str, str]) -> None:
    asked = ["replay", "-g", "billing", "--all", "--why", "test", "--yes"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "eventbus.cli", *asked, "--rate", "0.5", env={**CLEAN, **here}
    )
    try:
        await receive(bus.transport, consumer(), 1)
    finally:
        process.kill()
        await process.wait()
    assert "of 5, not ended" in eventbus("replay", "list", **here).stdout
    again = json.loads(eventbus(*asked, "--json", **here).stdout)
    assert (again["replayed"], again["count"], await sent(bus)) == (5, 5, 5)


async def test_one_that_is_interrupted_says_where_to_go_on(bus: EventBus, here: dict[str, str]) -> None:
    asked = ["replay", "-g", "billing", "--type", "order.*", "--why", "test", "--yes", "--rate", "1"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "eventbus.cli", *asked, env={**CLEAN, **here}, stderr=asyncio.subprocess.PIPE
    )
    try:
        await receive(bus.transport, consumer(), 2)
        process.send_signal(signal.SIGINT)
        _, printed = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 130, printed.decode()
    told, line = printed.decode().splitlines()
    assert json.loads(line)["count"] in {1, 2}, "of the last one nobody may know whether it was sent"
    last = PLACED[json.loads(line)["count"] - 1].id
    assert told == f"cut short: with --after {last} the same command goes on there"
    assert "of 5, not ended" in eventbus("replay", "list", **here).stdout
    rest = eventbus(*asked[:-2], "--after", last, "--json", **here)
    assert json.loads(rest.stdout)["last"] == PAID.id
