"""Events of older versions, brought to that of their class; those of newer ones, read as far as they are known."""

from typing import Any

import pytest

from eventbus import Context, EventBus, Group, Worker
from eventbus.contract.codec import decode, encode, envelop, open_event, pairs
from eventbus.contract.upcasting import find_gaps, opens_from
from eventbus.errors import CodecError, ConfigurationError
from eventbus.event import Envelope, Event, uuid7


class Posted(Event, type="upcast.posted", version=3):
    first_name: str
    last_name: str | None = None
    grams: int = 0


calls: list[int] = []


@Posted.upcast(from_version=1)
def in_grams(data: dict[str, Any]) -> dict[str, Any]:
    calls.append(1)
    return {"sender": data["sender"], "grams": round(data.get("kilos", 0) * 1000)}


@Posted.upcast(from_version=2)
def two_names(data: dict[str, Any]) -> dict[str, Any]:
    calls.append(2)
    first, _, last = data.pop("sender").partition(" ")
    return {**data, "firstName": first, "lastName": last or None}


class Weighed(Event, type="upcast.weighed", version=4):
    grams: int


@Weighed.upcast(from_version=1)
def odd(data: dict[str, Any]) -> Any:
    match data.get("how"):
        case "raise":
            raise LookupError("no such scale")
        case "list":
            return [data]
        case "object":
            return {"grams": object()}
        case "exit":
            raise SystemExit(3)
    return data


@Weighed.upcast(from_version=3)
def same(data: dict[str, Any]) -> dict[str, Any]:
    return data


class Fresh(Event, type="upcast.fresh", version=2):
    name: str


def envelope_of(data: bytes, version: int, event_type: str = "upcast.posted") -> Envelope:
    return Envelope(uuid7(), event_type, data, version=version)


def test_each_step_is_taken_from_the_version_that_the_envelope_tells() -> None:
    expected = Posted(first_name="Ada", last_name="L", grams=1500)
    steps = {
        1: b'{"sender": "Ada L", "kilos": 1.5}',
        2: b'{"sender": "Ada L", "grams": 1500}',
        3: b'{"firstName": "Ada", "lastName": "L", "grams": 1500}',
    }
    for version, data in steps.items():
        calls.clear()
        assert open_event(envelope_of(data, version)) == expected
        assert calls == [1, 2][version - 1 :]


def test_the_version_travels_with_the_event_and_is_read_from_the_wire() -> None:
    envelope = envelop(Posted(first_name="Ada"))
    assert envelope.version == 3
    fields = pairs([part if isinstance(part, bytes) else part.encode() for part in encode(envelope)])
    assert decode(fields).version == 3
    without = {**fields, b"meta": b"", b"data": b'{"sender": "Bo"}'}
    assert open_event(decode(without)) == Posted(first_name="Bo"), "what tells no version is the first"


def test_numbers_texts_and_nothing_come_through_as_they_were() -> None:
    class Odd(Event, type="upcast.odd", version=2):
        whole: int
        text: str
        real: float
        nothing: None

    @Odd.upcast(from_version=1)
    def keep(data: dict[str, Any]) -> dict[str, Any]:
        return data

    before = Odd(whole=2**70, text="ä\u2028\x00", real=float("inf"), nothing=None)
    packed = envelop(before).data
    assert open_event(envelope_of(packed, 1, "upcast.odd")) == before


@pytest.mark.parametrize(
    ("data", "version", "reason"),
    [
        (b'{"how": "raise"}', 1, r"upcast\.weighed of version 1: upcaster odd, from version 1: LookupError: no such"),
        (b'{"how": "list"}', 1, "returned list, not a dict"),
        (b"{}", 1, r"nothing leads from version 2 to 3. Register @Weighed\.upcast\(from_version=2\)"),
        (b"{}", 2, "nothing leads from version 2 to 3"),
        (b"[]", 3, "is no JSON object"),
        (b"{", 3, "is no JSON"),
        (b"[" * 10_000, 3, "is no JSON"),
        (b"{}", 3, r"data does not fit upcast\.weighed \(it is of version 3, and this process has 4\): grams"),
    ],
)
def test_what_cannot_be_brought_there_is_a_codec_error(data: bytes, version: int, reason: str) -> None:
    with pytest.raises(CodecError, match=reason):
        open_event(envelope_of(data, version, "upcast.weighed"))


def test_what_an_upcaster_returns_must_be_json() -> None:
    class Bad(Event, type="upcast.bad", version=2):
        pass

    @Bad.upcast(from_version=1)
    def spoil(data: dict[str, Any]) -> dict[str, Any]:
        return {"what": object()}

    with pytest.raises(CodecError, match=r"upcast\.bad of version 1 cannot be written as JSON"):
        open_event(envelope_of(b"{}", 1, "upcast.bad"))


def test_an_upcaster_that_wants_to_exit_is_not_taken_for_data() -> None:
    with pytest.raises(SystemExit):
        open_event(envelope_of(b'{"how": "exit"}', 1, "upcast.weighed"))


def test_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    newer = envelope_of(b'{"firstName": "Ada", "color": "red"}', 7)
    assert open_event(newer) == Posted(first_name="Ada")
    with pytest.raises(CodecError, match=r"\(it is of version 7, and this process has 3\): firstName: Field required"):
        open_event(envelope_of(b'{"names": ["Ada"]}', 7))


def test_an_upcaster_leads_from_an_older_version_and_is_the_only_one() -> None:
    with pytest.raises(ConfigurationError, match="in_grams does that already"):
        Posted.upcast(from_version=1)
    for version in (0, 3, 4, -1):
        with pytest.raises(ConfigurationError, match="the class has version 3"):
            Posted.upcast(from_version=version)
    with pytest.raises(ConfigurationError, match="of type ''"):
        Event.upcast(from_version=1)


def test_classes_share_no_upcasters() -> None:
    class Base(Event, type="upcast.base", version=2):
        pass

    class Derived(Base, type="upcast.derived", version=2):
        pass

    Base.upcast(from_version=1)(lambda data: data)
    assert (list(Base.event_upcasters), list(Derived.event_upcasters), Event.event_upcasters) == ([1], [], {})


def test_gaps_are_links_that_lack_behind_another_one() -> None:
    assert [opens_from(cls) for cls in (Posted, Weighed, Fresh)] == [1, 3, 2]
    assert find_gaps([Posted, Fresh]) == []
    [gap] = find_gaps([Weighed])
    assert gap.startswith("upcast.weighed: nothing leads from version 2 to 3")


async def test_a_worker_does_not_start_with_a_gap() -> None:
    group = Group("scales")

    @group.on(Weighed)
    async def weigh(event: Weighed, ctx: Context) -> None: ...

    async with EventBus("memory://") as bus:
        with pytest.raises(ConfigurationError, match="from version 2 to 3"):
            Worker(bus, [group])
