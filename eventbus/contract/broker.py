"""All that a bus asks of what carries it. RedisTransport and MemoryTransport are brokers.

Who needs a part of it asks for that part: see the protocols that are put together here.
"""

from typing import Protocol

from eventbus.contract.activity_stats import Tallies
from eventbus.contract.broadcasting import Broadcasting
from eventbus.contract.circuits import Circuits
from eventbus.contract.controls import Controls
from eventbus.contract.dead_letters import DeadLetterStore
from eventbus.contract.firings import Firings
from eventbus.contract.inspection import Inspection
from eventbus.contract.limiting import Limiting
from eventbus.contract.outgoing import Outlet
from eventbus.contract.recent_cache import Recent
from eventbus.contract.replication import Replication
from eventbus.contract.session_store import Ledger
from eventbus.contract.states import Records
from eventbus.contract.transport import Transport
from eventbus.contract.upkeep import Upkeep


class Broker(
    Transport,
    Outlet,
    Limiting,
    DeadLetterStore,
    Inspection,
    Upkeep,
    Controls,
    Firings,
    Broadcasting,
    Replication,
    Protocol,
):
    """The six verbs of a Transport, what operators and roles ask for, and the stores beside the streams."""

    @property
    def records(self) -> Records:
        """What is written down of events in tracked groups."""

    @property
    def circuits(self) -> Circuits:
        """The state of circuit breakers, for all processes."""

    @property
    def recent(self) -> Recent:
        """Copies of the last things of something, kept for a while."""

    @property
    def tallies(self) -> Tallies:
        """What has become of each organization's events lately, counted by all workers."""

    @property
    def sessions(self) -> Ledger:
        """Events that are collected, and then published together or not at all."""
