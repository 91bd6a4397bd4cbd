"""Opening what was published some time ago, and telling what does not open."""

from typing import Any

from eventbus.contract.codec import Fields, encode, pairs
from eventbus.event import Envelope, Event, uuid7
from eventbus.operating.schemas import NAMED, NO_TYPE, OTHERS, REASONS, Examination, Storage


class Signed(Event, type="schemas.signed", version=2):
    contract_id: str


@Signed.upcast(from_version=1)
def with_id(data: dict[str, Any]) -> dict[str, Any]:
    return {"contractId": data["contract"]}


def fields(data: bytes = b"{}", version: int = 1, event_type: str = "schemas.signed") -> Fields:
    flat = encode(Envelope(uuid7(), event_type, data, version=version))
    return pairs([part if isinstance(part, bytes) else part.encode() for part in flat])


def test_what_opens_is_counted_by_type_version_and_place() -> None:
    examination = Examination()
    for place in (Storage.STREAM, Storage.STREAM, Storage.DEAD):
        examination.look(place, fields(b'{"contract": "c"}'))
    examination.look(Storage.STORED, fields(b'{"contractId": "c"}', 2))
    first, second = examination.found
    assert (first.type, first.version, first.known, first.failing) == ("schemas.signed", 1, 2, 0)
    assert first.looked_at == {Storage.STREAM: 2, Storage.DEAD: 1}
    assert (second.version, second.looked_at) == (2, {Storage.STORED: 1})


def test_what_does_not_open_comes_first_with_reasons_and_the_first_few_ids() -> None:
    examination = Examination()
    examination.look(Storage.STREAM, fields(b'{"contractId": "c"}', 2))
    bad = [fields(b'{"kontrakt": "c"}') for _ in range(5)]
    for one in bad:
        examination.look(Storage.STREAM, one)
    examination.look(Storage.DEAD, bad[0], "schemas/1-0")
    examination.look(Storage.DEAD, fields(event_type="schemas.nobody_knows"))
    examination.look(Storage.DEAD, {b"id": b"1"}, "schemas/2-0")
    found = examination.found
    assert [(one.type, one.version, one.known, one.failing) for one in found] == [
        (NO_TYPE, 0, None, 1),
        ("schemas.nobody_knows", 1, None, 1),
        ("schemas.signed", 1, 2, 6),
        ("schemas.signed", 2, 2, 0),
    ]
    in_stream, dead = found[2].faults.values()
    assert (in_stream.place, in_stream.count) == (Storage.STREAM, 5)
    assert in_stream.ids == [one[b"id"].decode() for one in bad[:NAMED]]
    assert "KeyError: 'contract'" in in_stream.reason
    assert (dead.place, dead.ids) == (Storage.DEAD, ["schemas/1-0"])
    assert "imported" in next(iter(found[1].faults.values())).reason


def test_reasons_are_bounded() -> None:
    class Quoting(Event, type="schemas.quoting", version=2):
        pass

    @Quoting.upcast(from_version=1)
    def quote(data: dict[str, Any]) -> dict[str, Any]:
        raise ValueError(data["n"])

    examination = Examination()
    for n in range(100):
        examination.look(Storage.STREAM, fields(b'{"n": %d}' % n, 1, "schemas.quoting"))
    [found] = examination.found
    assert (found.failing, len(found.faults)) == (100, REASONS + 1)
    assert found.faults[Storage.STREAM, OTHERS].count == 100 - REASONS
