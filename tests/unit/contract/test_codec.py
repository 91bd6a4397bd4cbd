"""Envelopes survive the wire, and what is no envelope is told apart from one."""

import json
import math
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, field_validator

from eventbus.contract.codec import decode, encode, envelop, open_event, pairs
from eventbus.errors import CodecError, UnknownEventType
from eventbus.event import Envelope, Event, Origin, uuid7

TEXT = st.text(st.characters(codec="utf-8"))  # control characters included, lone surrogates not
MAYBE = st.none() | TEXT


class Signed(Event, type="codec.signed"):
    contract_id: str
    organization_id: str | None = None
    note: str | None
    discount: int | None = 5
    terms: dict[str, Any] = Field(default_factory=dict)
    share: float = 0.0


class Owned(Event, type="codec.owned"):
    organization_id: UUID


class Picky(Event, type="codec.picky"):
    value: Any

    @field_validator("value")
    @classmethod
    def _stumble(cls, value: Any) -> Any:
        return {"known": value}[value]  # a KeyError, which pydantic does not take for a validation error


def wire(envelope: Envelope) -> dict[bytes, bytes]:
    """The fields as they come back from the server."""
    return pairs([part if isinstance(part, bytes) else part.encode() for part in encode(envelope)])


envelopes = st.builds(
    Envelope,
    id=st.builds(uuid7),
    type=st.just("codec.signed"),
    data=st.binary(),
    subject=MAYBE,
    organization=MAYBE,
    correlation_id=MAYBE,
    causation_id=MAYBE,
    traceparent=MAYBE,
    source=TEXT,
    priority=st.integers(1, 10),
    metadata=st.dictionaries(TEXT, TEXT, max_size=3),
    only=MAYBE,
    version=st.integers(1, 99),
    replayed=st.booleans(),
)


@given(envelopes)
def test_every_envelope_survives_the_wire(envelope: Envelope) -> None:
    assert decode(wire(envelope)) == envelope


events = st.builds(
    lambda **fields: Signed(**fields),  # noqa: PLW0108 - of the class itself it would guess the aliases as well
    contract_id=TEXT,
    organization_id=MAYBE,
    note=MAYBE,
    discount=st.none() | st.integers(),
    terms=st.dictionaries(TEXT, st.none() | st.booleans() | TEXT, max_size=3),
    share=st.floats(allow_nan=False),
)


@given(events)
def test_every_event_survives_the_wire(event: Signed) -> None:
    assert open_event(decode(wire(envelop(event)))) == event


def test_what_is_no_number_survives_the_wire() -> None:
    event = open_event(decode(wire(envelop(Signed(contract_id="c", note=None, share=math.nan)))))
    assert isinstance(event, Signed)
    assert math.isnan(event.share)


def test_an_envelope_without_attributes_costs_no_bytes_for_them() -> None:
    assert wire(Envelope(uuid7(), "codec.signed", b"{}"))[b"meta"] == b""


def test_the_version_of_the_class_travels_with_the_event() -> None:
    class Sealed(Event, type="codec.sealed", version=2):
        pass

    assert json.loads(wire(envelop(Sealed()))[b"meta"]) == {"version": 2}


def test_data_is_camel_case_json() -> None:
    envelope = envelop(Signed(contract_id="c", note="n"))
    assert json.loads(envelope.data)["contractId"] == "c"


# Envelop --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "own", "origin", "expected"),
    [("a", "b", "c", "a"), (None, "b", "c", "b"), (None, None, "c", "c"), (None, None, None, None)],
)
def test_the_organization_is_the_arguments_then_the_events_then_the_origins(
    argument: str | None, own: str | None, origin: str | None, expected: str | None
) -> None:
    event = Signed(contract_id="c", note=None, organization_id=own)
    assert envelop(event, Origin(organization=origin), organization=argument).organization == expected


def test_an_organization_of_another_type_travels_as_text() -> None:
    organization = UUID(uuid7())
    envelope = envelop(Owned(organization_id=organization))
    assert envelope.organization == str(organization)
    assert decode(wire(envelope)) == envelope


def test_an_event_descends_from_its_origin() -> None:
    origin = Origin("correlation", "causation", "org", "traceparent", {"user": "u"})
    envelope = envelop(Signed(contract_id="c", note=None), origin, key="c-1", priority=1)
    assert (envelope.correlation_id, envelope.causation_id, envelope.traceparent) == origin[:2] + origin[3:4]
    assert (envelope.subject, envelope.priority, envelope.metadata) == ("c-1", 1, {"user": "u"})


@pytest.mark.parametrize("priority", [0, 11, -1])
def test_a_priority_outside_of_1_to_10_is_refused(priority: int) -> None:
    with pytest.raises(CodecError, match="priority"):
        envelop(Signed(contract_id="c", note=None), priority=priority)


def test_an_abstract_event_is_refused() -> None:
    class Abstract(Event):
        pass

    with pytest.raises(CodecError, match="has no event type"):
        envelop(Abstract())


def test_an_event_at_the_limit_is_published_and_one_byte_more_is_refused() -> None:
    size = len(envelop(Signed(contract_id="c", note="")).data)
    assert len(envelop(Signed(contract_id="c", note="x" * 100), max_payload=size + 100).data) == size + 100
    with pytest.raises(
        CodecError, match=rf"codec.signed has {size + 101} bytes of JSON and the limit is {size + 100}:"
    ):
        envelop(Signed(contract_id="c", note="x" * 101), max_payload=size + 100)


@pytest.mark.parametrize("depth", [1, 150, 198, 200, 230, 10_000])
def test_what_is_nested_too_deeply_to_be_read_is_refused_where_it_is_published(depth: int) -> None:
    terms: dict[str, Any] = {}
    for _ in range(depth):
        terms = {"deeper": terms}
    try:
        envelope = envelop(Signed(contract_id="c", note=None, terms=terms))
    except CodecError as error:
        assert depth > 190, error  # noqa: PT017 - either it is refused, or it can be read
    else:
        assert open_event(decode(wire(envelope))) == Signed(contract_id="c", note=None, terms=terms)


def test_many_brackets_are_no_depth() -> None:
    event = Signed(contract_id="c", note="[" * 1000, terms={"rows": [[] for _ in range(1000)]})
    assert open_event(decode(wire(envelop(event)))) == event


def test_text_that_is_no_unicode_is_refused_where_it_is_published() -> None:
    with pytest.raises(CodecError):
        envelop(Signed(contract_id="\udcff", note=None))
    with pytest.raises(CodecError):
        encode(envelop(Signed(contract_id="c", note=None), key="\udcff"))


# What is no envelope --------------------------------------------------------------------------------------------------

GOOD = wire(Envelope("01a20191-c186-7000-a264-345fb96b2574", "codec.signed", b'{"contractId": "c", "note": null}'))


@pytest.mark.parametrize("name", [b"id", b"type", b"meta", b"data"])
def test_a_missing_field_is_named(name: bytes) -> None:
    with pytest.raises(CodecError, match=f"no field '{name.decode()}'"):
        decode({field: value for field, value in GOOD.items() if field != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((b"id", bad) for bad in (b"", b"1", b"no uuid", b"\xff", GOOD[b"id"][:-1], GOOD[b"id"] + b"0", b"1_0")),
        (b"type", b"\xff"),
        *((b"meta", bad) for bad in (b"{", b"\xff", b"null", b"5", b"[]", b'"text"', b"true", b'[["subject", "x"]]')),
        *(
            (b"meta", orjson.dumps({attribute: wrong}))
            for attribute in (
                "subject",
                "organization",
                "correlationId",
                "causationId",
                "traceparent",
                "source",
                "only",
            )
            for wrong in (5, ["a"], {"a": "b"}, True)
        ),
        *((b"meta", orjson.dumps({"priority": wrong})) for wrong in ("high", None, 1.5, [5], 0, 11, True)),
        *((b"meta", orjson.dumps({"version": wrong})) for wrong in ("2", None, 1.5, 0, True)),
        *((b"meta", orjson.dumps({"replayed": wrong})) for wrong in ("true", None, 1)),
        *((b"meta", orjson.dumps({"metadata": wrong})) for wrong in ("text", 5, ["a"], None, {"a": 5})),
        (b"meta", b'{"source": null}'),
    ],
)
def test_what_does_not_fit_is_no_envelope(name: bytes, value: bytes) -> None:
    with pytest.raises(CodecError):
        decode({**GOOD, name: value})


@given(st.fixed_dictionaries(dict.fromkeys(GOOD, st.binary() | st.text().map(str.encode))))
def test_bytes_of_any_kind_are_an_envelope_or_a_codec_error(fields: dict[bytes, bytes]) -> None:
    try:
        envelope = decode(fields)
    except CodecError:
        return
    assert wire(envelope) == fields
    assert envelope.time.year >= 1970


def test_attributes_of_a_newer_version_are_ignored() -> None:
    assert decode({**GOOD, b"meta": b'{"color": "red"}', b"extra": b"x"}) == decode(GOOD)


# What is no event -----------------------------------------------------------------------------------------------------


def envelope_of(event_type: str, data: bytes) -> Envelope:
    return Envelope(uuid7(), event_type, data)


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(UnknownEventType, match=r"codec\.nobody_knows"):
        open_event(envelope_of("codec.nobody_knows", b"{}"))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"null", b"[]", b"\xff", b'{"note": null}', b'{"contractId": 5, "note": null}', b"[" * 10_000]
)
def test_data_that_does_not_fit_is_a_codec_error(data: bytes) -> None:
    with pytest.raises(CodecError, match=r"data does not fit codec\.signed"):
        open_event(envelope_of("codec.signed", data))


def test_faults_are_told_by_field_and_without_the_payload() -> None:
    with pytest.raises(CodecError, match="contractId: ") as caught:
        open_event(envelope_of("codec.signed", b'{"contractId": ["secret"], "note": null}'))
    assert "secret" not in str(caught.value)


def test_a_validator_that_stumbles_is_a_codec_error() -> None:
    with pytest.raises(CodecError, match="KeyError"):
        open_event(envelope_of("codec.picky", b'{"value": "unknown"}'))


def test_fields_of_a_newer_publisher_are_ignored() -> None:
    event = open_event(envelope_of("codec.signed", b'{"contractId": "c", "note": null, "color": "red"}'))
    assert event == Signed(contract_id="c", note=None)
