"""An event bus for Python services: publish typed events, handle them in async functions, lose nothing."""

from eventbus.activity import Activity, DeadEvent
from eventbus.aggregates import Aggregate, applies
from eventbus.batch import Batch, BatchTransaction, Item
from eventbus.bus import EventBus
from eventbus.circuits import Circuit
from eventbus.context import Context
from eventbus.errors import (
    Cancelled,
    ConfigurationError,
    Conflict,
    EventBusError,
    Full,
    MissingEvents,
    NoSuchSession,
    Reject,
    RetryLater,
    SessionFull,
    SessionRefused,
    SnoozeFor,
    Unavailable,
    WrongState,
    WrongVersion,
)
from eventbus.event import Envelope, Event, Origin, Receipt, Status
from eventbus.group import Group
from eventbus.ledger import SessionStatus
from eventbus.lifecycle import Finished, Listener
from eventbus.limits import InFlight, RateLimit, SlowLane
from eventbus.middleware import CallNext, Middleware
from eventbus.policy import Backoff, RetryPolicy
from eventbus.resources import Resource, Use
from eventbus.retention import Retention
from eventbus.schedule import Tick
from eventbus.sessions import Session
from eventbus.states import Counts, Notice, Occasion, Phase, State
from eventbus.transaction import Connection, Transaction
from eventbus.worker import Worker

__all__ = [
    "Activity",
    "Aggregate",
    "Backoff",
    "Batch",
    "BatchTransaction",
    "CallNext",
    "Cancelled",
    "Circuit",
    "ConfigurationError",
    "Conflict",
    "Connection",
    "Context",
    "Counts",
    "DeadEvent",
    "Envelope",
    "Event",
    "EventBus",
    "EventBusError",
    "Finished",
    "Full",
    "Group",
    "InFlight",
    "Item",
    "Listener",
    "Middleware",
    "MissingEvents",
    "NoSuchSession",
    "Notice",
    "Occasion",
    "Origin",
    "Phase",
    "RateLimit",
    "Receipt",
    "Reject",
    "Resource",
    "Retention",
    "RetryLater",
    "RetryPolicy",
    "Session",
    "SessionFull",
    "SessionRefused",
    "SessionStatus",
    "SlowLane",
    "SnoozeFor",
    "State",
    "Status",
    "Tick",
    "Transaction",
    "Unavailable",
    "Use",
    "Worker",
    "WrongState",
    "WrongVersion",
    "applies",
]
