"""What is between processes and the server: connections whose bytes take their time, in order, and may get no further.

latency     each write takes some moments; those of one connection and direction never overtake one another
partition   what a process sends, or is sent, stays on the way until it is over; then it arrives late, or the
            connection turns out to be dead. The longer it was, the longer may TCP wait until it tries again what
                it held, while a new connection gets through at once
cut         a connection dies now; what was under way to the server may still arrive, and be executed
"""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.simulation.loop import Loop, Process, current
from tests.simulation.server.server import Client, Server

USUAL = 0.5  # seconds; no command takes longer without a fault


class Connection(asyncio.Transport):
    """The client's end of a connection, and both ways of its bytes."""

    def __init__(self, network: "Network", process: Process, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._network = network
        self._protocol = protocol
        self.process = process
        self.open = True
        self.reached = 0.0  # when the last byte to the server arrives
        self.answered = 0.0  # when the last byte to the client arrives
        self.lossy = False  # bytes were lost in a partition: it is dead, and nobody knows
        self.client: Client = network.server.accept(self._send_down, self._hang_up)
        self.client.owner = process.name

    # What the engine calls --------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if self.open and self.process.alive:
            self._network.send_up(self, bytes(data))

    def abort(self) -> None:
        """The kernel still sends what it was given, and then the end."""
        if self.open:
            self.open = False
            self._network.send_up(self, None)
            self._network.loop.call_soon(self._protocol.connection_lost, None)

    def close(self) -> None:
        self.abort()

    def is_closing(self) -> bool:
        return not self.open

    # What fate does ---------------------------------------------------------------------------------------------------

    def cut(self, *, lose: bool) -> None:
        """It dies now. `lose`: with all that is under way to the server."""
        if not self.open:
            return
        self.open = False
        if lose:
            self.lossy = True
            self._network.server.drop(self.client)
        else:
            self._network.send_up(self, None)
        self.process.post(self._protocol.connection_lost, ConnectionResetError("Connection reset by peer"))

    def closed_by_kernel(self) -> None:
        """Its process has died."""
        if self.open:
            self.open = False
            self._network.send_up(self, None)

    # The way down -----------------------------------------------------------------------------------------------------

    def _send_down(self, data: bytes) -> None:
        self._network.send_down(self, data)

    def _hang_up(self) -> None:
        self._network.send_down(self, None)

    def arrive(self, data: bytes | None) -> None:
        if not self.open or self.lossy:
            return
        if data is None:
            self.open = False
            self.process.post(self._protocol.connection_lost, ConnectionResetError("Connection reset by peer"))
        else:
            self.process.post(self._receive, data)

    def _receive(self, data: bytes) -> None:
        if self.open:
            self._protocol.data_received(data)


class _Cut:
    """What stays on the way of a process, until when."""

    def __init__(self) -> None:
        self.up = 0.0
        self.down = 0.0
        self.seconds = 0.0  # how long it takes
        self.lossy = False


class Network:
    def __init__(self, loop: Loop, server: Server, rng: random.Random) -> None:
        self.loop = loop
        self.server = server
        self._rng = rng
        self._cuts: dict[Process, _Cut] = {}
        self._lag, self._lags_until = 0.0, 0.0
        self.connections: list[Connection] = []
        self.late_until = 0.0  # when the last arrives of what takes longer to the server than it usually does
        loop.connect = self.connect

    async def connect(self, process: Process, factory: Callable[[], asyncio.Protocol]) -> tuple[Any, asyncio.Protocol]:
        cut = self._cuts.get(process)
        while cut is not None and max(cut.up, cut.down) > self.loop.now:
            await asyncio.sleep(max(cut.up, cut.down) - self.loop.now)
        await asyncio.sleep(self._latency())
        if not self.server.up:
            raise ConnectionRefusedError("Connection refused")
        protocol = factory()
        connection = Connection(self, process, protocol)
        self.connections = [each for each in self.connections if each.open]
        self.connections.append(connection)
        protocol.connection_made(connection)
        return connection, protocol

    def of(self, process: Process) -> list[Connection]:
        """Its open connections."""
        return [each for each in self.connections if each.open and each.process is process]

    def of_client(self, client: Client) -> Connection | None:
        return next((each for each in self.connections if each.client is client and each.open), None)

    # Faults -----------------------------------------------------------------------------------------------------------

    def partition(self, process: Process, seconds: float, *, up: bool, down: bool, lossy: bool) -> None:
        """`lossy`: what met it is lost, and connections that lost something are reset when it is over."""
        cut = self._cuts.setdefault(process, _Cut())
        until = self.loop.now + seconds
        cut.up, cut.down, cut.lossy = until if up else cut.up, until if down else cut.down, lossy
        cut.seconds = seconds
        if lossy:
            self.loop.at(until, partial(self._reset_lossy, process))

    def _reset_lossy(self, process: Process) -> None:
        for connection in self.of(process):
            if connection.lossy:
                connection.cut(lose=True)

    def lag(self, seconds: float, duration: float) -> None:
        """Everything takes that much longer, for a while."""
        self._lag, self._lags_until = seconds, self.loop.now + duration

    def heal(self) -> None:
        self._lags_until = 0.0
        for process, cut in self._cuts.items():
            cut.up = cut.down = 0.0
            self._reset_lossy(process)

    # Bytes ------------------------------------------------------------------------------------------------------------

    def _latency(self) -> float:
        usual = 0.0001 + self._rng.expovariate(3000)
        if self._lags_until > self.loop.now:
            usual += self._rng.uniform(0, self._lag)
        return usual if self._rng.random() > 0.02 else usual + self._rng.uniform(0, 0.2)

    def send_up(self, connection: Connection, data: bytes | None) -> None:
        arrival = self.loop.now + self._latency()
        cut = self._cuts.get(connection.process)
        if cut is not None and cut.up > self.loop.now:
            if cut.lossy:
                connection.lossy = True
            arrival = max(arrival, cut.up + self._rng.uniform(0, cut.seconds))
        if connection.lossy and data is not None:
            return
        connection.reached = arrival = max(arrival, connection.reached)
        if arrival - self.loop.now > USUAL:
            self.late_until = max(self.late_until, arrival)
        self.loop.at(arrival, partial(self._arrive_up, connection, data, self.loop.now))

    def _arrive_up(self, connection: Connection, data: bytes | None, sent: float) -> None:
        if data is None or not connection.lossy:
            self.server.deliver(connection.client, data, sent)

    def send_down(self, connection: Connection, data: bytes | None) -> None:
        arrival = self.loop.now + self._latency()
        cut = self._cuts.get(connection.process)
        if cut is not None and cut.down > self.loop.now:
            if cut.lossy:
                connection.lossy = True
            arrival = max(arrival, cut.down + self._rng.uniform(0, cut.seconds))
        connection.answered = arrival = max(arrival, connection.answered)
        self.loop.at(arrival, partial(connection.arrive, data))


def owner() -> Process:
    """The process whose code runs now."""
    process = current()
    assert process is not None
    return process
