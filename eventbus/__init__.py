"""An event bus for Python services: publish typed events, handle them in async functions, lose nothing."""

from eventbus.bus import EventBus
from eventbus.context import Context
from eventbus.contract.activity_stats import Activity, DeadEvent
from eventbus.contract.aggregates import Aggregate, applies
from eventbus.contract.circuits import Circuit
from eventbus.contract.limits import InFlight, RateLimit, SlowLane
from eventbus.contract.recurring import Tick
from eventbus.contract.retention import Retention
from eventbus.contract.session_store import SessionStatus
from eventbus.contract.states import Counts, Notice, Occasion, Phase, State
from eventbus.contract.transaction import Connection, Transaction
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
from eventbus.handling.batch import Batch, BatchTransaction, Item
from eventbus.handling.listeners import Finished, Listener
from eventbus.handling.middleware import CallNext, Middleware
from eventbus.policy import Backoff, RetryPolicy
from eventbus.process.resources import Resource, Use
from eventbus.sessions import Session
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
