"""What is passed to a publish is refused at the call, with nothing stored, or arrives as it is. Memory and the servers
say the same of it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from itertools import count
from types import new_class
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue

from eventbus import Backoff, ConfigurationError, Event, EventBus, Group, Origin, Receipt, RetryPolicy, Status
from eventbus.checks.numbers import longest_delay
from eventbus.contract.codec import decode, encode, envelop, open_event, pairs
from eventbus.contract.delivery import Ack, Settlement, Subscription
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import CodecError
from eventbus.event import Envelope, _registry, event_class, uuid7
from eventbus.redis.keys import group_keys, stream_keys
from tests import servers
from tests.properties import few
from tests.samples import receive

NAMESPACE = "property"


class Sent(Event, type="property.sent"):
    number: int = 0


class Colour(StrEnum):
    RED = "red"


class Rank(IntEnum):
    HIGH = 2


class Size(Enum):
    SMALL = "s"
    LARGE = 2


class Part(BaseModel):
    name: str
    share: float = 0.0


class Special(Part):
    extra: int


# Anything that a program may have in its hands.
texts = st.text() | st.sampled_from(["", "\0", "\ud83d", "a" * 5_000, "é" * 4_096, "{x}:*", "\n\r\t", "0", "None"])
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.decimals(),
    st.sampled_from([0, 1, 5, 10, 11, 2.0, 2.5, 1e306, 10**400, 2**53 + 1, -1, 1e-320, 0.05]),
)
moments = st.one_of(
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(timezones=st.timezones()),
    st.sampled_from([datetime.min, datetime.max]).map(lambda at: at.replace(tzinfo=timezone(timedelta(hours=14)))),  # noqa: DTZ901
)
simple = st.none() | texts | numbers | st.binary(max_size=9) | moments | st.sampled_from([Size.LARGE, object()])
values = simple | st.lists(simple, max_size=2) | st.dictionaries(texts, simple, max_size=2)

mostly_fine = {
    "key": st.none() | texts,
    "priority": st.integers(1, 10),
    "organization": st.none() | texts,
    "delay": st.none() | st.floats(-10, 10_000),
    "dedupe_key": st.none() | texts,
    "dedupe_window": st.floats(0.001, 10_000),
    "dedupe": st.sampled_from(["keep", "replace"]),
}
origins = st.builds(
    Origin,
    correlation_id=st.none() | texts | simple,
    causation_id=st.none() | texts,
    organization=st.none() | texts | simple,
    traceparent=st.none() | texts,
    metadata=st.dictionaries(texts, texts | simple, max_size=3) | simple,
)
arguments = st.fixed_dictionaries({}, optional={name: fine | values for name, fine in mostly_fine.items()}).flatmap(
    lambda found: st.fixed_dictionaries({}, optional={"origin": origins, "at": moments | simple}).map(
        lambda more: {**found, **more}
    )
)


class Place:
    """A bus, and what is in it."""

    def __init__(self, bus: EventBus, client: redis.Redis | None) -> None:
        self.bus, self.client = bus, client
        self.reader = Subscription("property", "readers", "ann", 60.0, None)

    async def outcome(self, publish: Callable[[EventBus], Any]) -> object:
        """What it was, in words that are the same in every place."""
        receipts: list[Receipt] | None = None
        refused: type[CodecError] | None = None
        try:
            receipts = await publish(self.bus)
        except CodecError as error:  # any other error is none of ours
            refused = type(error)
        if receipts is None:
            assert await self.taken() == [], "refused, and stored"
            return refused
        statuses: list[Status] = []
        for receipt in receipts:
            scheduled = receipt.status is Status.SCHEDULED
            statuses.append(receipt.status)
            assert not scheduled or await self.bus.cancel(receipt.id, Sent)
        return statuses, [_without_id(envelope) for envelope in await self.taken(statuses.count(Status.STORED))]

    async def taken(self, count: int = 0) -> list[Envelope]:
        """What there is; as many at least."""
        deliveries = await receive(self.bus.transport, self.reader, count) if count else []
        deliveries += await self.bus.transport.read(self.reader, 100, 0.0)
        assert not await self.bus.transport.settle([Settlement(delivery, Ack()) for delivery in deliveries])
        found = [decode(delivery.fields) for delivery in deliveries]
        assert all(open_event(envelope) for envelope in found)
        return found

    def strangers(self) -> set[str]:
        """Keys that nobody would look at."""
        if self.client is None:
            return set()
        keys = stream_keys(NAMESPACE, "property")
        known = {*keys, *keys.lanes, *group_keys(NAMESPACE, "property", "readers")}
        found = {key.decode() for key in self.client.scan_iter(f"{NAMESPACE}:*", count=1000)}
        return {key for key in found - known if ":once:" not in key}


def _without_id(envelope: Envelope) -> Envelope:
    return envelope._replace(id="")


@pytest.fixture
async def places(pytestconfig: pytest.Config, redis_servers: Callable[[str], str]) -> AsyncIterator[list[Place]]:
    """Memory first, then each server of the matrix."""
    async with AsyncExitStack() as stack:
        found = [Place(await stack.enter_async_context(EventBus("memory://")), None)]
        for name in servers.redis_names(pytestconfig):
            client = stack.enter_context(redis.Redis.from_url(redis_servers(name)))
            client.flushdb()
            bus = await stack.enter_async_context(EventBus(redis_servers(name), namespace=NAMESPACE))
            found.append(Place(bus, client))
        for place in found:
            await place.taken()  # from now on
        yield found
        for place in found:
            assert place.strangers() == set()


async def told_alike(places: Sequence[Place], publish: Callable[[EventBus], Any]) -> object:
    outcomes = [await place.outcome(publish) for place in places]
    assert all(outcome == outcomes[0] for outcome in outcomes), outcomes
    return outcomes[0]


@few(30)
@given(passed=arguments)
async def test_every_place_says_the_same_of_a_publish(places: list[Place], passed: dict[str, Any]) -> None:
    async def publish(bus: EventBus) -> Any:
        return [await bus.publish(Sent(number=1), **passed)]

    outcome = await told_alike(places, publish)
    if isinstance(outcome, tuple):
        for envelope in outcome[1]:
            assert open_event(envelope._replace(id=uuid7())) == Sent(number=1)
            assert envelope.subject == passed.get("key")
            assert envelope.priority == passed.get("priority", 5)
            assert dict(envelope.metadata) == passed.get("origin", Origin()).metadata


@few(15)
@given(field=st.sampled_from(Envelope._fields), value=values, delay=st.just(0.0) | values, again=st.booleans())
async def test_every_place_says_the_same_of_what_is_forwarded(
    places: list[Place], field: str, value: Any, delay: Any, again: bool
) -> None:
    changed = envelop(Sent(number=1))._replace(**({} if again else {field: value}))
    if field == "type":  # another type would go to another stream
        return

    async def publish(bus: EventBus) -> Any:
        fresh = changed._replace(id=uuid7()) if field != "id" or again else changed
        return await bus.forward([Outgoing(fresh, delay)])

    await told_alike(places, publish)


@few(15)
@given(number=st.integers(0, 2**48 - 1), repeated=st.booleans(), delay=st.sampled_from([0.0, 1_000.0]))
async def test_ids_of_any_age_are_published_once(
    places: list[Place], number: int, repeated: bool, delay: float
) -> None:
    """1970, 2090, and as far as ids go."""
    digits = f"{number % 0x0FFF_FFFF_FFFF:012x}"
    event_id = f"{digits[:8]}-{digits[8:]}-7{uuid4().hex[:3]}-8{uuid4().hex[:3]}-{uuid4().hex[:12]}"
    item = Outgoing(envelop(Sent())._replace(id=event_id), delay)

    async def publish(bus: EventBus) -> Any:
        receipts = await bus.forward([item])
        if repeated:
            statuses = await bus.transport.append([item], again=True)
            assert statuses == [Status.DUPLICATE], statuses
        return receipts

    await told_alike(places, publish)


# Payloads -------------------------------------------------------------------------------------------------------------

plain: list[Any] = [
    *(int, float, str, bool, bytes, Decimal, UUID, date, datetime, time, timedelta, Size, Colour, Rank, JsonValue, Any),
    *(list[int], set[str], frozenset[int], tuple[int, str], dict[str, float], dict[int, str], dict[Size, int]),
    *(int | str, int | None, float | str, datetime | str, UUID | str, date | datetime, bool | int, int | float),
    *(Decimal | float, bytes | str, set[int] | list[int], timedelta | str, list[Any], dict[str, Any], dict[Any, int]),
    *(Part, list[Part], dict[str, Part], Part | None, Part | Special, list[Part | int], tuple[Part, ...]),
]
_number = count()


def _class_of(annotation: Any) -> Any:
    number = next(_number)
    body = {"__annotations__": {"value": annotation}, "__module__": __name__}
    return new_class(f"Of{number}", (Event,), {"type": f"payload.of_{number}"}, lambda space: space.update(body))


CLASSES = [_class_of(annotation) for annotation in plain]
parts = st.builds(Part, name=st.text(max_size=5), share=st.floats())
specials = st.builds(Special, name=st.just("s"), extra=st.integers())
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["12345", "2026-01-01T00:00:00Z", "PT5S", str(uuid4()), "NaN", "null", "1.5"]),
    st.binary(max_size=4),
    st.decimals(),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.none() | st.timezones()),
    st.times(timezones=st.none() | st.just(UTC)),
    st.timedeltas(),
    st.sampled_from(Size),  # of subclasses of str and int hypothesis loses count; tests/unit has them
    parts,
    specials,
)
payloads = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.uuids(), inner, max_size=2)
        | st.sets(st.integers() | st.text(max_size=2), max_size=3)
    ),
    max_leaves=4,
)


@few(400)
@given(cls=st.sampled_from(CLASSES), value=payloads)
def test_what_was_published_is_what_is_handled(cls: Any, value: Any) -> None:
    try:
        event = cls(value=value)
    except ValueError:  # it does not fit the field
        return
    try:
        envelope = envelop(event)
    except (
        CodecError,
        UserWarning,
    ):  # pydantic lets an Enum whose value is text into a field of int, and warns of it here
        return
    flat = [part if isinstance(part, bytes) else part.encode() for part in encode(envelope)]
    back: Any = open_event(decode(pairs(flat)))
    assert alike(event.value, back.value), (event, back)


def alike(before: Any, after: Any) -> bool:
    """Equal, and of the same kind. Written anew here: what is tested has an equality of its own."""
    if isinstance(before, BaseModel):
        pairs_of = zip(before.model_dump().items(), after.model_dump().items(), strict=True)
        return type(before) is type(after) and all(one[0] == two[0] and alike(one[1], two[1]) for one, two in pairs_of)
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(alike, before, after)) and isinstance(after, (list, tuple))
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(alike(before[name], after[name]) for name in before)
    if isinstance(before, float) and before != before:  # noqa: PLR0124 - NaN
        return isinstance(after, float) and after != after  # noqa: PLR0124
    if isinstance(before, datetime) and before.tzinfo is not None:
        offset = before.utcoffset()
        assert offset is not None
        return after.tzinfo is not None and after.astimezone(UTC).isoformat() == (
            (before.replace(tzinfo=None, fold=0) - offset).replace(tzinfo=UTC).isoformat()
        )
    numbers_of = (int, float, Decimal)
    kinds = type(before) is type(after) or (isinstance(before, numbers_of) and isinstance(after, numbers_of))
    return bool(before == after) and kinds and isinstance(before, bool) is isinstance(after, bool)


# Names ----------------------------------------------------------------------------------------------------------------

names = st.one_of(
    st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,30}", fullmatch=True),
    st.text(max_size=10),
    st.sampled_from(["", "a\n", "{a}", "a:b", "a*", "a" * 10_000, "é", "A", "a\0", "retry", "dead", "stream"]),
    st.sampled_from([None, 5, b"a"]),
)


@few(15)
@given(name=names)
async def test_a_group_has_a_name_that_every_place_bears(places: list[Place], name: Any) -> None:
    try:
        group = Group(name)
    except ConfigurationError:
        return
    for place in places:
        reader = place.reader._replace(group=group.name)
        await place.bus.publish(Sent(number=7))
        transport = place.bus.transport
        [delivery] = (await receive(transport, reader, 1))[:1]
        assert decode(delivery.fields).type == Sent.event_type
        assert not await transport.settle([Settlement(delivery, Ack())])
        assert await transport.forget_group("property", group.name)
        await place.taken(1)


@few(60)
@given(name=st.text(max_size=20) | st.from_regex(r"[a-z0-9_.]{1,30}", fullmatch=True) | st.just("a." + "b" * 5_000))
def test_an_event_type_is_refused_or_known(name: str) -> None:
    try:
        cls: Any = new_class("Named", (Event,), {"type": name} if name else {}, lambda space: space.update(body()))
    except ConfigurationError:
        return
    if name:
        assert event_class(name) is cls
        assert decode(pairs([p if isinstance(p, bytes) else p.encode() for p in encode(envelop(cls()))])).type == name
        del _registry[name]


def body() -> dict[str, Any]:
    return {"__module__": f"{__name__}.{next(_number)}"}


async def test_a_bus_has_a_namespace_that_is_found_again() -> None:
    for namespace in ("a{b}", "a*", "a[b]", "", "a b", "a\n", "é", "a" * 300, None, 5):
        with pytest.raises(ConfigurationError, match="namespace="):
            EventBus("redis://localhost", namespace=namespace)  # type: ignore[arg-type]
    EventBus("redis://localhost", namespace="prod.eu-1:crm_2")


# Policies ------------------------------------------------------------------------------------------------------------


@few(150)
@given(
    first=simple | st.floats(0, 10),
    factor=simple | st.floats(1, 3),
    cap=simple,
    attempts=simple | st.integers(1, 9),
    failures=st.integers(1, 10_000),
)
def test_a_policy_is_refused_or_gives_a_delay_that_can_be_counted(
    first: Any, factor: Any, cap: Any, attempts: Any, failures: int
) -> None:
    try:
        policy = RetryPolicy(attempts=attempts, backoff=Backoff(first, factor, cap))
    except ConfigurationError:
        return
    delay = policy.delay_after(failures)
    assert delay is None or (type(delay) in {int, float} and 0 <= delay <= longest_delay())
    assert (delay is None) == (attempts is not None and failures >= attempts)
