"""`eventbus dead`: filters, a dry run, a question before what cannot be undone, an audit line."""

import json
import subprocess
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from eventbus.contract.delivery import Dead, Failure
from eventbus.contract.outgoing import Outgoing
from eventbus.event import uuid7
from eventbus.redis import RedisTransport
from tests.integration.commands import eventbus_here as eventbus
from tests.samples import consumer, envelope, receive, settle


@pytest.fixture
async def transport(any_redis_url: str) -> AsyncIterator[RedisTransport]:
    """Three dead letters of two groups, one of them no envelope."""
    transport = RedisTransport(any_redis_url)
    await transport.append([Outgoing(envelope(1)), Outgoing(envelope(2, id="no uuid"))])
    one, two = await receive(transport, consumer(), 2)
    await settle(transport, [one], Dead(Failure("OSError: bank away"), 3))
    await settle(transport, [two], Dead(Failure("CodecError: no envelope"), 0))
    await settle(transport, await receive(transport, consumer(group="shipping"), 2), Dead(Failure("ValueError: x"), 1))
    yield transport
    await transport.close()


def dead(url: str, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    return eventbus("dead", *arguments, answer=answer, EVENTBUS_REDIS_URL=url)


async def test_a_filter_a_dry_run_and_a_replay_that_is_audited(transport: RedisTransport, any_redis_url: str) -> None:
    listed = json.loads(dead(any_redis_url, "list", "--group", "billing", "--error", "BANK", "--json").stdout)
    assert [item["error"] for item in listed["items"]] == ["OSError: bank away"]
    choice = ("--group", "billing", "--newer-than", "1h")
    dry = json.loads(dead(any_redis_url, "replay", *choice, "--dry-run", "--json").stdout)
    assert (dry["dryRun"], dry["count"], len(await transport.dead_letters("order"))) == (True, 2, 4)
    run = dead(any_redis_url, "replay", *choice, "--rate", "50", "--json")
    assert json.loads(run.stdout) == {"replayed": 1, "gone": 0, "left": 1}
    [line] = [json.loads(line) for line in run.stderr.splitlines()]
    assert (line["audit"], line["count"], line["of"]) == ("dead.replay", 1, 2)
    assert line["filter"] == {"group": "billing", "newer_than": "3600s"}
    assert "@" in line["by"]
    [again] = await receive(transport, consumer(), 1)
    assert b'"only":"billing"' in again.fields[b"meta"]
    assert b'"replayed":true' in again.fields[b"meta"]


async def test_discard_asks_first_and_lets_go_of_what_it_asked_about(
    transport: RedisTransport, any_redis_url: str
) -> None:
    refused = dead(any_redis_url, "discard", "--group", "shipping", answer="n\n")
    assert (refused.returncode, "discard 2 dead letters for good?" in refused.stderr) == (1, True)
    assert len(await transport.dead_letters("order")) == 4
    agreed = dead(any_redis_url, "discard", "--group", "shipping", answer="y\n")
    assert (agreed.returncode, agreed.stdout) == (0, "discarded 2\n")
    [first, second] = await transport.dead_letters("order")
    assert {first.group, second.group} == {"billing"}
    named = dead(any_redis_url, "discard", f"order/{second.id}")
    assert (named.stdout, '"ids":["order/' in named.stderr) == ("discarded 1\n", True), "and asks about no single one"
    assert dead(any_redis_url, "discard", f"order/{second.id}").returncode == 1, "it is gone"


async def test_a_list_fits_the_screen_and_says_what_it_left_out(transport: RedisTransport, any_redis_url: str) -> None:
    await transport.append([Outgoing(envelope(n, id=uuid7(), subject=f"order-{uuid4()}")) for n in range(2)])
    await settle(transport, await receive(transport, consumer(), 2), Dead(Failure("ValueError: " + "long " * 60), 1))
    run = dead(any_redis_url, "list", "--limit", "5")
    assert max(map(len, run.stdout.splitlines())) <= 80, run.stdout
    assert "1 more: --limit 6 shows all" in run.stdout


def test_nothing_is_replayed_or_discarded_by_leaving_out_a_word(redis_url: str) -> None:
    for verb in ("replay", "discard"):
        assert dead(redis_url, verb).returncode == 2
        assert dead(redis_url, verb, "order/1-0", "--all").returncode == 2
        assert dead(redis_url, verb, "--older-than", "soon").returncode == 2
