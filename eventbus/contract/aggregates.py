"""Event sourcing: things whose state is what their events have made of it.

    class Account(Aggregate, name="account", snapshot_every=100):
        balance: int = 0

        @applies(Deposited)
        def deposit(self, event: Deposited) -> None:
            self.balance += event.amount

    async with bus.transaction() as tx:
        account = await tx.load(Account, "acme", "account-1")
        await tx.append(account, Deposited(amount=5))

An event that is appended is published as well, with the aggregate's id as its key. Its place among the events of its
aggregate is the version that it led to: 1, 2, 3, … Whoever appends says which version they saw last; if that is no
longer the last one, WrongVersion is raised, and nothing has been written.

Whether something may happen is decided before it is appended. The methods that apply events decide nothing: what has
happened has happened.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import ClassVar, NamedTuple, Self, TypeVar, Unpack

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from eventbus.errors import ConfigurationError
from eventbus.event import Event

LONGEST = 300  # characters of an organization or an id: with a name, they fit into an entry of PostgreSQL's index

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_OURS = frozenset({"organization", "id", "version"})

A = TypeVar("A", bound="Aggregate")
E = TypeVar("E", bound=Event)


class Key(NamedTuple):
    """Which aggregate it is. Each belongs to an organization."""

    organization: str
    name: str
    id: str

    def __str__(self) -> str:
        return f"{self.name} {self.id!r} of {self.organization!r}"


class Snapshot(NamedTuple):
    """A state as JSON, and the fingerprint of the class that it was written by."""

    state: str
    schema: str


def applies(event_type: type[E]) -> Callable[[Callable[[A, E], None]], Callable[[A, E], None]]:
    """Register a method as what events of this type do to the state. It may depend on the state and the event alone."""

    def register(method: Callable[[A, E], None]) -> Callable[[A, E], None]:
        if not event_type.event_type:
            raise ConfigurationError(f"{method.__qualname__}: {event_type.__qualname__} has no event type")
        if inspect.iscoroutinefunction(method):
            raise ConfigurationError(f"{method.__qualname__} must not be async: it is run again at each load")
        method.__applies__ = event_type.event_type  # type: ignore[attr-defined]
        return method

    return register


class Aggregate(BaseModel):
    """The state, as fields of which each has a default, and what events do to it.

    name            what it is called in the database. A class without one is abstract: it may share fields and methods
    version         raise it when a method that applies events changes: older snapshots are not used any more then.
                    When a field changes, they are not used either, and the version may stay
    snapshot_every  `append` writes a snapshot when so many events have followed the last one; None: never
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    aggregate_name: ClassVar[str] = ""
    aggregate_version: ClassVar[int] = 1
    snapshot_every: ClassVar[int | None] = None
    appliers: ClassVar[Mapping[str, str]] = {}  # event type -> name of the method

    _key: Key | None = PrivateAttr(None)
    _version: int = PrivateAttr(0)
    _snapshot_version: int = PrivateAttr(0)

    def __init_subclass__(
        cls, *, name: str = "", version: int = 1, snapshot_every: int | None = None, **kwargs: Unpack[ConfigDict]
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls.aggregate_name, cls.aggregate_version, cls.snapshot_every = name, version, snapshot_every
        if name and not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{cls.__qualname__}: name {name!r} is not up to 63 lower-case letters, digits, - and _"
            )
        if version < 1 or (snapshot_every is not None and snapshot_every < 1):
            raise ConfigurationError(f"{cls.__qualname__}: version and snapshot_every must be at least 1")

    @classmethod
    def __pydantic_init_subclass__(cls, **_options: object) -> None:
        """Checks the fields, and finds the appliers, as soon as pydantic knows the fields."""
        wrong = [field for field, found in cls.model_fields.items() if found.is_required()]
        if wrong:
            raise ConfigurationError(f"{cls.__qualname__}: without events it has no state: {wrong} need a default")
        if taken := sorted(_OURS & cls.model_fields.keys()):
            raise ConfigurationError(f"{cls.__qualname__}: each aggregate has these by itself: {taken}")
        cls.appliers = _appliers(cls)

    @property
    def key(self) -> Key:
        """Raises ConfigurationError if the aggregate was not loaded."""
        if self._key is None:
            raise ConfigurationError(
                f"this {type(self).__qualname__} was not loaded: await tx.load(…) knows which it is"
            )
        return self._key

    @property
    def organization(self) -> str:
        return self.key.organization

    @property
    def id(self) -> str:
        return self.key.id

    @property
    def version(self) -> int:
        """How many events it has had; 0: there is none yet."""
        return self._version

    def apply(self, event: Event) -> None:
        """Change the state, and nothing else: for tests, and for what is only tried out."""
        getattr(self, self.applier(event))(event)

    @classmethod
    def applier(cls, event: Event) -> str:
        """The name of the method that applies such events. Raises ConfigurationError if there is none."""
        found = cls.appliers.get(event.event_type)
        if found is None:
            raise ConfigurationError(f"{cls.__qualname__} has no method that @applies({type(event).__qualname__})")
        return found

    def followed_by(self, events: Sequence[Event]) -> Self:
        """A copy that these events have happened to; the state of this one does not change."""
        after = self.model_copy(deep=True)
        for event in events:
            after.apply(event)
        after._version += len(events)
        return after

    def become(self, after: Self) -> None:
        """Take over the state and version of `after`."""
        vars(self).update(vars(after))
        self._version, self._snapshot_version = after._version, after._snapshot_version

    def next_snapshot(self) -> Snapshot | None:
        """A snapshot, if one is due at this version; it counts as the last one from then on. Raises ConfigurationError
        if the state would not come back from JSON as it is."""
        if self.snapshot_every is None or self._version - self._snapshot_version < self.snapshot_every:
            return None
        snapshot = Snapshot(self.model_dump_json(round_trip=True), fingerprint(type(self)))
        back = _read(type(self), snapshot)
        if back is None or vars(back) != vars(self):
            raise ConfigurationError(f"{type(self).__qualname__}: a field of {self.key} is not the same behind JSON")
        self._snapshot_version = self._version
        return snapshot


def restore(cls: type[A], key: Key, snapshot: Snapshot | None, version: int) -> A:
    """In the state of the snapshot, which is of `version`. At version 0 if there is none, or it cannot be used."""
    found = None if snapshot is None or snapshot.schema != fingerprint(cls) else _read(cls, snapshot)
    aggregate = cls() if found is None else found
    aggregate._key = key
    aggregate._version = aggregate._snapshot_version = 0 if found is None else version
    return aggregate


def replay(aggregate: Aggregate, event: Event, version: int) -> None:
    """Apply an event of the past, which led to `version`. To be called in their order."""
    aggregate.apply(event)
    aggregate._version = version


def key_of(cls: type[Aggregate], organization: str, aggregate_id: str) -> Key:
    """Raises ConfigurationError for a class without a name, ValueError for an id that PostgreSQL cannot keep."""
    if not cls.aggregate_name:
        raise ConfigurationError(f"{cls.__qualname__} has no name: declare it with class …(Aggregate, name='…')")
    if not aggregate_id or any("\0" in text or len(text) > LONGEST for text in (organization, aggregate_id)):
        named = f"{cls.aggregate_name} {aggregate_id[:LONGEST]!r} of {organization[:LONGEST]!r}"
        raise ValueError(f"{named}: an id is text without NUL, 1 to {LONGEST} characters")
    return Key(organization, cls.aggregate_name, aggregate_id)


@cache
def fingerprint(cls: type[Aggregate]) -> str:
    """Identifies the fields and the version of a class: it changes when one of them does."""
    schema = json.dumps([cls.aggregate_version, cls.model_json_schema(mode="serialization")], sort_keys=True)
    return hashlib.sha256(schema.encode()).hexdigest()[:32]


def _read(cls: type[A], snapshot: Snapshot) -> A | None:
    try:
        return cls.model_validate_json(snapshot.state)
    except ValidationError:
        return None


def _appliers(cls: type[Aggregate]) -> dict[str, str]:
    """By event type, the name of the method. Raises ConfigurationError if a class has two methods for one type."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        own: dict[str, str] = {}
        for name, value in vars(owner).items():
            event_type = getattr(value, "__applies__", None)
            if event_type is None:
                continue
            if event_type in own:
                raise ConfigurationError(f"{owner.__qualname__}.{name}: {own[event_type]} applies {event_type} already")
            own[event_type] = name
        found |= own
    return found
