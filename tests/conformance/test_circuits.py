"""Circuits: opened by failures in a row, wherever they happen; one is let through after the pause."""

import asyncio

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.circuits import Circuit, CircuitState
from eventbus.redis import RedisTransport
from eventbus.redis.link import Link

N8N = Circuit("n8n:ä:*", failures=3, pause=0.2, probe=0.3)


async def fail(transport: Broker, times: int, circuit: Circuit = N8N) -> list[bool]:
    return [await transport.circuits.failed(circuit) for _ in range(times)]


async def test_failures_in_a_row_open_it(transport: Broker) -> None:
    assert await transport.circuits.ask(N8N) == 0.0
    assert await fail(transport, 2) == [False, False]
    assert await transport.circuits.ask(N8N) == 0.0
    assert await transport.circuits.troubled() == [CircuitState("n8n:ä:*", 2, False, 0.0)]
    assert await fail(transport, 1) == [True]
    assert 0.1 < await transport.circuits.ask(N8N) <= 0.2
    [state] = await transport.circuits.troubled()
    assert (state.name, state.failures, state.is_open) == ("n8n:ä:*", 3, True)
    assert 0.0 < state.retry_in <= 0.25
    assert await transport.circuits.ask(Circuit("other")) == 0.0


async def test_an_answer_in_between_begins_the_row_anew(transport: Broker) -> None:
    await fail(transport, 2)
    await transport.circuits.succeeded(N8N)
    assert await transport.circuits.troubled() == []
    assert await fail(transport, 3) == [False, False, True]


async def test_one_is_let_through_after_the_pause_however_many_ask(transport: Broker) -> None:
    await fail(transport, 3)
    await asyncio.sleep(0.21)
    waits = await asyncio.gather(*(transport.circuits.ask(N8N) for _ in range(10)))
    assert sorted(waits)[0] == 0.0
    assert len([wait for wait in waits if 0.2 < wait <= 0.3]) == 9, "for as long as the one may take"


async def test_the_one_closes_it_or_opens_it_again(transport: Broker) -> None:
    await fail(transport, 3)
    await asyncio.sleep(0.21)
    assert await transport.circuits.ask(N8N) == 0.0
    assert await fail(transport, 1) == [True]
    assert 0.1 < await transport.circuits.ask(N8N) <= 0.2, "another pause, and not the time that the one had"
    await asyncio.sleep(0.21)
    assert await transport.circuits.ask(N8N) == 0.0
    await transport.circuits.succeeded(N8N)
    assert await transport.circuits.ask(N8N) == await transport.circuits.ask(N8N) == 0.0


async def test_late_failures_do_not_make_the_pause_longer(transport: Broker) -> None:
    await fail(transport, 3)
    await asyncio.sleep(0.15)
    assert await fail(transport, 2) == [True, True]
    assert await transport.circuits.ask(N8N) <= 0.06


async def test_who_was_let_through_and_never_tells_is_not_waited_for(transport: Broker) -> None:
    await fail(transport, 3)
    await asyncio.sleep(0.21)
    assert await transport.circuits.ask(N8N) == 0.0
    assert await transport.circuits.ask(N8N) > 0.0
    await asyncio.sleep(0.31)
    assert await transport.circuits.ask(N8N) == 0.0


async def test_failures_long_ago_are_in_no_row_and_all_is_forgotten_in_the_end(
    redis_transport: RedisTransport, raw: Link
) -> None:
    await raw.execute("DEL", "eb:circuits")
    await fail(redis_transport, 2)
    assert 86_000_000 < await raw.execute("PTTL", "eb:circuits") <= 86_400_000
    await raw.execute("HSET", "eb:circuits", N8N.name, "2 0 0 1000000000000")
    assert await fail(redis_transport, 3) == [False, False, True]
    await raw.execute("DEL", "eb:circuits")


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"pause": 0.0}, {"probe": -1.0}])
def test_a_circuit_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Exception, match=next(iter(wrong))):
        Circuit("n8n", **wrong)  # type: ignore[arg-type]


async def test_what_is_no_state_says_nothing(redis_transport: RedisTransport, raw: Link) -> None:
    for garbage in ("x", "", "1 2", "1 2 3 x", "a b c d"):
        await raw.execute("DEL", "eb:circuits")
        await raw.execute("HSET", "eb:circuits", N8N.name, garbage, b"\xff", "1 0 0 5")
        assert await redis_transport.circuits.ask(N8N) == 0.0
        assert len(await redis_transport.circuits.troubled()) == 1
        assert await fail(redis_transport, 3) == [False, False, True]
