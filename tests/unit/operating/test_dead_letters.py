"""Which dead letters a filter means."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from eventbus.contract.dead_letters import DeadLetter
from eventbus.contract.delivery import Dead, Failure
from eventbus.contract.outgoing import Outgoing
from eventbus.memory import MemoryTransport
from eventbus.operating.dead_letters import DeadLetters, Filter, Reference, Swept
from tests.samples import consumer, envelope, receive, settle

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LETTER = DeadLetter(
    id="1-0",
    stream="order",
    group="billing",
    envelope=envelope(1),
    fields={},
    error="ConnectionError: bank [A] is away",
    traceback="",
    attempts=1,
    crashes=0,
    first_failed_at=NOW,
    died_at=NOW - timedelta(hours=2),
)


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (Filter(), True),
        (Filter(group="billing"), True),
        (Filter(group="bill"), False),
        (Filter(type="order.placed"), True),
        (Filter(type="order.*"), True),
        (Filter(type="order"), False),
        (Filter(error="BANK [a]"), True),
        (Filter(error="b*nk"), False),
        (Filter(older_than=timedelta(hours=1)), True),
        (Filter(older_than=timedelta(hours=3)), False),
        (Filter(newer_than=timedelta(hours=3)), True),
        (Filter(newer_than=timedelta(hours=1)), False),
        (Filter(group="billing", error="away", type="invoice.*"), False),
    ],
)
def test_a_letter_is_meant_if_all_holds(wanted: Filter, meant: bool) -> None:
    assert wanted.means(LETTER, NOW) is meant
    assert bool(wanted) is (wanted != Filter())


def test_what_is_no_envelope_has_no_type() -> None:
    assert not Filter(type="*").means(LETTER._replace(envelope=None), NOW)


def test_an_audit_line_says_what_was_asked_for() -> None:
    assert Filter(error="x", older_than=timedelta(hours=1)).described() == {"error": "x", "older_than": "3600s"}


async def test_a_replay_counts_what_became_of_each() -> None:
    transport = MemoryTransport()
    await transport.append([Outgoing(envelope(n)) for n in range(4)])
    await transport.append([Outgoing(envelope(id="no uuid"))])
    await settle(transport, await receive(transport, consumer(), 5), Dead(Failure("no"), 1))
    letters = DeadLetters(transport)
    references = [Reference.of(letter) async for letter in letters.select()]
    await transport.discard((await transport.dead_letters("order"))[0])
    started = time.monotonic()
    swept = await letters.replay(references, rate=100.0)
    assert (swept.done, swept.gone, swept.left) == (3, 1, 1)
    assert time.monotonic() - started >= 0.039, "five at 100 a second"


async def test_a_discard_that_is_cut_short_knows_how_far_it_came() -> None:
    transport = MemoryTransport()
    await transport.append([Outgoing(envelope(n)) for n in range(3)])
    await settle(transport, await receive(transport, consumer(), 3), Dead(Failure("no"), 1))
    letters, swept = DeadLetters(transport), Swept()
    references = [Reference.of(letter) async for letter in letters.select()]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await letters.discard(references, rate=0.1, swept=swept)
    assert (swept.done, len(await transport.dead_letters("order"))) == (1, 2)
