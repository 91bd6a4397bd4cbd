"""A line of the spool brings back every byte of an event, or is found to be bad."""

import pytest

from eventbus.contract.dedupe import Once
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import CodecError
from eventbus.event import Envelope, uuid7
from eventbus.publishing.spool.record import Mark, Spooled, pack, pack_mark, unpack

ENVELOPE = Envelope(
    id=uuid7(),
    type="order.placed",
    data='{"big":123456789012345678901234567890,"text":"ä\\n\\"}{\\"","pi":3.10}'.encode(),
    subject="o-1",
    organization="acme",
    correlation_id="c",
    priority=1,
    metadata={"userId": "u"},
    only="billing",
)
NOW = 1_800_000_000.0


def test_an_event_comes_back_whole() -> None:
    line = pack(Spooled.of(Outgoing(ENVELOPE), NOW))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert unpack(line[:-1]) == Spooled(ENVELOPE, None)


def test_a_delayed_event_keeps_its_due_time_and_is_never_early() -> None:
    found = unpack(pack(Spooled.of(Outgoing(ENVELOPE, 10.0001), NOW))[:-1])
    assert isinstance(found, Spooled)
    assert found.due is not None
    assert NOW + 10.0001 <= found.due <= NOW + 10.0021
    assert found.outgoing(NOW + 4).delay == pytest.approx(6, abs=0.01)
    assert found.outgoing(NOW + 60).delay == 0.0


def test_a_mark_comes_back() -> None:
    assert unpack(pack_mark(Mark(12, "ab"))[:-1]) == Mark(12, "ab")


@pytest.mark.parametrize("line", [pack(Spooled.of(Outgoing(ENVELOPE, 5.0), NOW))[:-1], pack_mark(Mark(12, "ab"))[:-1]])
def test_every_flipped_byte_and_every_tear_is_noticed(line: bytes) -> None:
    for place in range(len(line)):
        flipped = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        for bad in (flipped, line[:place]):
            with pytest.raises(CodecError):
                unpack(bad)


def test_what_is_no_record_is_bad_whatever_its_checksum_says() -> None:
    good = pack(Spooled.of(Outgoing(ENVELOPE), NOW))[:-1]
    body = good.rpartition(b',"checksum"')[0]
    from eventbus.publishing.spool.record import digest  # noqa: PLC0415 - to forge a line

    for forged in (body.replace(b'"id"', b'"ix"'), body.replace(ENVELOPE.id.encode(), b"7"), b"[1", b'{"replayed":"x"'):
        with pytest.raises(CodecError):
            unpack(forged + b',"checksum":"' + digest(forged).encode() + b'"}')


def test_a_dedupe_key_comes_back() -> None:
    item = Outgoing(ENVELOPE, once=Once("k", 60.0, replace=True))
    spooled = unpack(pack(Spooled.of(item, 0.0)).rstrip(b"\n"))
    assert isinstance(spooled, Spooled)
    assert spooled.outgoing(0.0) == item
