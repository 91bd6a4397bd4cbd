"""Circuits in one small hash: only those that have failed are in it."""

import time

from eventbus.contract.circuits import FORGET_AFTER, Circuit, CircuitState
from eventbus.contract.codec import pairs
from eventbus.redis import scripts
from eventbus.redis.keys import circuits_key
from eventbus.redis.links import Links
from eventbus.redis.scripts import ms

KEEP = 86_400.0  # seconds that all is kept after the last failure


class RedisCircuits:
    """See eventbus.contract.circuits.Circuits."""

    def __init__(self, links: Links, namespace: str) -> None:
        self._links = links
        self._key = circuits_key(namespace)

    async def ask(self, circuit: Circuit) -> float:
        command = scripts.CIRCUIT_ASK((self._key,), circuit.name, ms(circuit.probe))
        wait: int = await scripts.call(self._links, command)
        return wait / 1000

    async def failed(self, circuit: Circuit) -> bool:
        times = (ms(circuit.pause), ms(FORGET_AFTER), ms(KEEP))
        return bool(
            await scripts.call(
                self._links, scripts.CIRCUIT_FAILED((self._key,), circuit.name, circuit.failures, *times)
            )
        )

    async def succeeded(self, circuit: Circuit) -> None:
        await self._links.execute("HDEL", self._key, circuit.name)

    async def troubled(self) -> list[CircuitState]:
        """Waits are told by this machine's clock, which may differ from the server's: they are for people to read."""
        found = pairs(await self._links.execute("HGETALL", self._key))
        states = [_state(name.decode(errors="replace"), state) for name, state in found.items()]
        return sorted(state for state in states if state is not None)


def _state(name: str, packed: bytes) -> CircuitState | None:
    """None for a value that is no state: somebody else has put it there."""
    parts = packed.split()
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        return None
    failures, open_until, probed_until, _ = map(int, parts)
    wait = max(open_until, probed_until) / 1000 - time.time() if open_until else 0.0
    return CircuitState(name, failures, open_until > 0, max(0.0, wait))
