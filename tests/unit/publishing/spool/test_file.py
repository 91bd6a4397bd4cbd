"""The file of the spool: shared by processes, bounded, and never in need of repair."""

import shutil
import threading
from pathlib import Path

import pytest

from eventbus.contract.outgoing import Outgoing
from eventbus.publishing.spool.file import BATCH, Batch, SpoolFile
from eventbus.publishing.spool.record import Spooled, pack
from tests.samples import envelope

LIMIT = 2**20


@pytest.fixture
def file(tmp_path: Path) -> SpoolFile:
    return SpoolFile(tmp_path / "log.jsonl", LIMIT)


def lines(*numbers: int) -> list[bytes]:
    return [pack(Spooled.of(Outgoing(envelope(number)), 0.0)) for number in numbers]


def told(batch: Batch) -> list[int]:
    return [int(record.envelope.data) for record in batch.records if isinstance(record, Spooled)]


def numbers(file: SpoolFile, start: int = 0) -> list[int]:
    return told(file.batch(start))


def test_only_its_owner_may_read_it(file: SpoolFile) -> None:
    file.path.touch(mode=0o644)
    file.append(lines(1))
    file.reject([b"bad"])
    with file.claim():
        for path in file.path.parent.iterdir():
            assert path.stat().st_mode & 0o777 == 0o600, path


def test_it_takes_what_there_is_room_for_and_no_more(tmp_path: Path) -> None:
    records = lines(1, 2, 3)
    file = SpoolFile(tmp_path / "log", sum(map(len, records)) - 1)
    assert file.append(records) == 2
    assert file.append(records[:1]) == 0
    assert file.size() <= file.limit
    assert numbers(file) == [1, 2]


def test_it_tells_what_room_there_is(tmp_path: Path) -> None:
    folder = tmp_path / "spools"
    file = SpoolFile(folder / "log", LIMIT)
    with pytest.raises(OSError, match="spools"):
        file.room()
    folder.mkdir()
    assert file.room() == LIMIT
    file.append(lines(1))
    assert file.room() == LIMIT - file.size()
    assert SpoolFile(file.path, 1).room() == 0
    assert SpoolFile(file.path, 2**60).room() <= shutil.disk_usage(folder).total, "the disk is smaller than that"


def test_a_record_behind_a_torn_line_is_whole(file: SpoolFile) -> None:
    first, second = lines(1, 2)
    file.path.write_bytes(first + second[:50])
    file.append(lines(3))
    batch = file.batch(0)
    assert told(batch) == [1, 3]
    assert batch.rejected == [second[:50]]


def test_what_is_marked_is_not_read_again_and_what_came_meanwhile_is(file: SpoolFile) -> None:
    file.append(lines(*range(BATCH + 1)))
    batch = file.batch(0)
    assert len(batch.records) == BATCH
    file.append(lines(1000))
    assert file.mark(batch) == batch.end == file.replayed()
    assert numbers(file, batch.end) == [BATCH, 1000]
    assert file.waiting() == 2
    rest = file.batch(batch.end)
    assert (file.mark(rest), file.size(), file.replayed()) == (0, 0, 0), "emptied"


def test_a_mark_of_another_file_says_nothing(file: SpoolFile) -> None:
    file.append(lines(1, 2))
    batch = file.batch(0)
    file.append(lines(3))
    file.mark(batch)
    foreign = file.path.read_bytes()
    file.path.write_bytes(b"".join(lines(*range(10, 20))) + foreign)
    assert file.replayed() == 0


def test_a_file_that_was_replaced_meanwhile_is_not_emptied(file: SpoolFile) -> None:
    file.append(lines(1, 2))
    batch = file.batch(0)
    file.path.unlink()
    file.append(lines(3, 4))
    assert file.mark(batch) == 0
    assert numbers(file) == [3, 4]


def test_one_replays_at_a_time(file: SpoolFile) -> None:
    other = SpoolFile(file.path, LIMIT)
    with file.claim() as mine, other.claim() as theirs:
        assert (mine, theirs) == (True, False)
    with other.claim() as theirs:
        assert theirs


def test_many_writers_lose_nothing_while_one_replays(file: SpoolFile) -> None:
    """Each has the file open by itself, as processes have: locks belong to the opening."""
    expected = {n * 1000 + i for n in range(4) for i in range(40)}
    writers = [
        threading.Thread(
            target=lambda n=n: [SpoolFile(file.path, LIMIT).append(lines(n * 1000 + i)) for i in range(40)]
        )
        for n in range(4)
    ]
    for writer in writers:
        writer.start()
    seen: list[int] = []
    start = 0
    while any(writer.is_alive() for writer in writers) or file.size():
        batch = file.batch(start)
        seen += told(batch)
        start = file.mark(batch) if batch.end > start else start
    assert sorted(seen) == sorted(expected)


def test_a_bad_line_is_set_aside_once(file: SpoolFile) -> None:
    for _ in range(2):
        file.reject([b"\xff torn", b"flipped"])
    assert file.rejected_path.read_bytes() == b"\xff torn\nflipped\n"


def test_status_tells_what_waits(file: SpoolFile) -> None:
    assert file.waiting() == file.status().records
    assert file.status()._asdict() == {
        "path": str(file.path),
        "records": 0,
        "bytes": 0,
        "oldest": None,
        "rejected": 0,
    }
    assert not file.path.exists(), "to look is not to touch"
    file.append(lines(1, 2))
    file.reject([b"x"])
    found = file.status()
    assert (found.records, found.bytes, found.rejected) == (2, file.path.stat().st_size, 1)
    assert found.oldest is not None
    assert file.waiting() == 2


def test_the_gauge_follows_marks_and_a_file_that_was_emptied_or_replaced(file: SpoolFile) -> None:
    assert file.waiting() == 0
    file.append(lines(*range(BATCH + 3)))
    assert file.waiting() == BATCH + 3
    first = file.batch(0)
    file.mark(first)
    assert file.waiting() == 3
    assert file.replayed() == first.end
    file.append(lines(1))
    assert file.waiting() == 4
    other = SpoolFile(file.path, LIMIT)
    assert other.waiting() == 4
    assert other.replayed() == first.end
    other.mark(other.batch(first.end))
    assert (file.size(), file.waiting(), file.replayed()) == (0, 0, 0)
    file.append(lines(*range(2 * BATCH)))
    assert file.waiting() == 2 * BATCH, "longer than it was, and none of it was read before"
    assert file.replayed() == 0
    file.path.unlink()
    file.append(lines(1, 2))
    assert file.waiting() == 2
    with file.path.open("ab") as torn:
        torn.write(b"torn")
    assert file.waiting() == 2, "a line is whole when it ends"
