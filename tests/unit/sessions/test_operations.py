"""A spooled operation comes back whole, or is found to be bad."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from eventbus.contract.session_store import SessionId
from eventbus.errors import CodecError
from eventbus.event import Envelope, uuid7
from eventbus.publishing.spool import SpoolFile
from eventbus.publishing.spool.record import digest, pack, unpack
from eventbus.sessions.operations import AddEvents, CommitSession, RollBackSession, SessionOperation, StartSession

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, UTC)
SESSION = SessionId('a"}{"cme\n', uuid7())
EVENTS = [
    Envelope(
        id=uuid7(),
        type="order.placed",
        data='{"big":123456789012345678901234567890,"text":"ä\\n\\"}{\\"","list":[{"a":"b"},{"a":"b"}]}'.encode(),
        subject="o-1",
        organization="acme",
        correlation_id="c",
        causation_id=uuid7(),
        traceparent="00-1-2-01",
        metadata={"userId": 'u"},{"'},
        priority=2,
    ),
    Envelope(id=uuid7(), type="order.placed", data=b"{}"),
]
OPERATIONS: list[SessionOperation] = [
    StartSession(SESSION, NOW, {"a": [{"b": "c"}, {"d": "e"}]}),
    AddEvents(SESSION, NOW, 'x"},{"y', EVENTS),
    CommitSession(SESSION, NOW),
    RollBackSession(SESSION, NOW),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
def test_it_comes_back_whole(operation: SessionOperation) -> None:
    line = pack(operation)
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    found = unpack(line[:-1])
    assert (type(found), found) == (type(operation), operation)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
def test_every_flipped_byte_and_every_tear_is_noticed(operation: SessionOperation) -> None:
    line = pack(operation)[:-1]
    for place in range(len(line)):
        for bad in (line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :], line[:place]):
            with pytest.raises(CodecError):
                unpack(bad)


def test_lines_that_have_lost_what_was_between_them_are_told_apart(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "spool", 10**6)
    lines = [pack(operation) for operation in OPERATIONS]
    for between in (b"", b"\x0b"):
        file.path.write_bytes(between.join(line.rstrip(b"\n") for line in lines) + b"\n")
        batch = file.batch(0)
        assert (batch.records, batch.rejected) == (OPERATIONS, [])


@pytest.mark.parametrize("wrong", ["session.nope", ""])
def test_an_operation_that_nobody_knows_is_bad(wrong: str) -> None:
    body = pack(OPERATIONS[2])[:-1].rpartition(b',"checksum"')[0].replace(b"session.commit", wrong.encode())
    with pytest.raises(CodecError):
        unpack(body + b',"checksum":"' + digest(body).encode() + b'"}')
