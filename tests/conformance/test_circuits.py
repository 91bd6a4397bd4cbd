"""Circuits: opened by failures in a row, wherever they happen; one is let through after the pause."""

import asyncio

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.circuits import Circuit, CircuitState
from eventbus.redis import RedisTransport
from eventbus.redis.links import Links
from tests.waiting import in_a_span

N8N = Circuit("n8n:ä:*", failures=3, pause=0.2, probe=0.3)


async def fail(transport: Broker, times: int, circuit: Circuit = N8N) -> list[bool]:
    return [await transport.circuits.failed(circuit) for _ in range(times)]


def of(seconds: float) -> Circuit:
    """A circuit for a test that takes some such spans; each of its tries has one of its own."""
    return Circuit(f"{N8N.name} {seconds}", failures=3, pause=2 * seconds, probe=3 * seconds)


async def test_failures_in_a_row_open_it(transport: Broker) -> None:
    async def open_within(seconds: float) -> None:
        circuit = of(seconds)
        assert await transport.circuits.ask(circuit) == 0.0
        assert await fail(transport, 2, circuit) == [False, False]
        assert await transport.circuits.ask(circuit) == 0.0
        assert CircuitState(circuit.name, 2, False, 0.0) in await transport.circuits.troubled()
        assert await fail(transport, 1, circuit) == [True]
        assert circuit.pause / 2 < await transport.circuits.ask(circuit) <= circuit.pause
        [state] = [each for each in await transport.circuits.troubled() if each.name == circuit.name]
        assert (state.failures, state.is_open) == (3, True)
        assert 0.0 < state.retry_in <= circuit.pause + 0.05
        assert await transport.circuits.ask(Circuit("other")) == 0.0

    await in_a_span(open_within)


async def test_an_answer_in_between_begins_the_row_anew(transport: Broker) -> None:
    await fail(transport, 2)
    await transport.circuits.succeeded(N8N)
    assert await transport.circuits.troubled() == []
    assert await fail(transport, 3) == [False, False, True]


async def test_one_is_let_through_after_the_pause_however_many_ask(transport: Broker) -> None:
    async def let_through(seconds: float) -> None:
        circuit = of(seconds)
        await fail(transport, 3, circuit)
        await asyncio.sleep(circuit.pause + 0.01)
        waits = await asyncio.gather(*(transport.circuits.ask(circuit) for _ in range(10)))
        assert sorted(waits)[0] == 0.0
        assert len([wait for wait in waits if circuit.pause < wait <= circuit.probe]) == 9, (
            "as long as the one may take"
        )

    await in_a_span(let_through)


async def test_the_one_closes_it_or_opens_it_again(transport: Broker) -> None:
    async def tells(seconds: float) -> None:
        circuit = of(seconds)
        await fail(transport, 3, circuit)
        await asyncio.sleep(circuit.pause + 0.01)
        assert await transport.circuits.ask(circuit) == 0.0
        assert await fail(transport, 1, circuit) == [True]
        wait = await transport.circuits.ask(circuit)
        assert circuit.pause / 2 < wait <= circuit.pause, "another pause, and not the time that the one had"
        await asyncio.sleep(circuit.pause + 0.01)
        assert await transport.circuits.ask(circuit) == 0.0
        await transport.circuits.succeeded(circuit)
        assert await transport.circuits.ask(circuit) == await transport.circuits.ask(circuit) == 0.0

    await in_a_span(tells)


async def test_late_failures_do_not_make_the_pause_longer(transport: Broker) -> None:
    async def fail_late(seconds: float) -> None:
        circuit = of(seconds)
        await fail(transport, 3, circuit)
        await asyncio.sleep(0.75 * circuit.pause)
        assert await fail(transport, 2, circuit) == [True, True]
        assert await transport.circuits.ask(circuit) <= 0.3 * circuit.pause

    await in_a_span(fail_late)


async def test_who_was_let_through_and_never_tells_is_not_waited_for(transport: Broker) -> None:
    async def never_tells(seconds: float) -> None:
        circuit = of(seconds)
        await fail(transport, 3, circuit)
        await asyncio.sleep(circuit.pause + 0.01)
        assert await transport.circuits.ask(circuit) == 0.0
        assert await transport.circuits.ask(circuit) > 0.0
        await asyncio.sleep(circuit.probe + 0.01)
        assert await transport.circuits.ask(circuit) == 0.0

    await in_a_span(never_tells)


async def test_failures_long_ago_are_in_no_row_and_all_is_forgotten_in_the_end(
    redis_transport: RedisTransport, raw: Links
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


async def test_what_is_no_state_says_nothing(redis_transport: RedisTransport, raw: Links) -> None:
    for garbage in ("x", "", "1 2", "1 2 3 x", "a b c d"):
        await raw.execute("DEL", "eb:circuits")
        await raw.execute("HSET", "eb:circuits", N8N.name, garbage, b"\xff", "1 0 0 5")
        assert await redis_transport.circuits.ask(N8N) == 0.0
        assert len(await redis_transport.circuits.troubled()) == 1
        assert await fail(redis_transport, 3) == [False, False, True]
