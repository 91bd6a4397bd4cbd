"""The file of the spool, shared by all processes that are given its path. Every call blocks: they run in threads.

Lines are only ever appended. What is replayed is marked by one more line, and when nothing else is left the file is
emptied; it is never rewritten, so that nobody can append to a file that is about to be replaced.

    PATH            the records; a writer locks it for one write and its fsync, a reader for one batch
    PATH.lock       held by whoever replays, from the first batch to the last
    PATH.rejected   lines that are torn, changed or refused, as they were found

A writer that dies leaves a torn last line at the worst; the next one begins a new line behind it.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from eventbus.errors import CodecError
from eventbus.publishing.spool.following import Backlog, LastMark, tail
from eventbus.publishing.spool.record import Mark, Operation, digest, pack_mark, unpack
from eventbus.publishing.spool.rejected import Rejected

BATCH = 500  # records
BATCH_BYTES = 2**20
LOCK_PATIENCE = 2.0  # seconds; a lock is held for one write and its fsync
_LOCK_PAUSE = 0.002  # seconds
_SEAM = re.compile(rb'(?<="}).?(?={")')  # between two records; inside of one, such quotes have a backslash before them


class Batch(NamedTuple):
    """What stands between two bytes of the file. `tail`: its last bytes, by which `mark` knows the file again."""

    records: list[Operation]
    rejected: list[bytes]
    end: int
    tail: bytes


class SpoolStatus(NamedTuple):
    """`records` wait; the oldest of the first batch was made at `oldest` (ISO 8601). `rejected` lines are set aside."""

    path: str
    records: int
    bytes: int
    oldest: str | None
    rejected: int


class SpoolFile:
    """`limit`: bytes that it may grow to."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.rejected_path = path.with_name(path.name + ".rejected")
        self.aside = Rejected(self.rejected_path)
        self._claim_path = path.with_name(path.name + ".lock")
        self._backlog = Backlog(path)
        self._last_mark = LastMark()

    def size(self) -> int:
        """Bytes; 0 if there is no file."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def room(self) -> int:
        """Bytes that it can take yet: within the limit, and on the disk. Raises OSError if it cannot be written."""
        where = self.path if self.path.exists() else self.path.parent
        if not os.access(where, os.W_OK):
            raise PermissionError(f"{where} must not be written by this process, or is not there")
        disk = os.statvfs(where)
        return max(0, min(self.limit - self.size(), disk.f_bavail * disk.f_frsize))

    def waiting(self) -> int:
        """How many records wait, for a gauge: what stands behind the last mark is counted, and not looked into. Reads
        what has come since it was last asked."""
        return self._backlog.count()

    # Writing ----------------------------------------------------------------------------------------------------------

    def append(self, lines: Sequence[bytes]) -> int:
        """How many of them are on the disk when it returns: all, or as many as there was room for.

        Raises OSError, and then none is."""
        with self._locked() as file:
            size = os.fstat(file).st_size
            seal = _seal(file, size)
            room, taken = self.limit - size - len(seal), 0
            while taken < len(lines) and len(lines[taken]) <= room:
                room -= len(lines[taken])
                taken += 1
            if taken:
                self._write(file, size, seal + b"".join(lines[:taken]))
            return taken

    def _write(self, file: int, size: int, content: bytes) -> None:
        try:
            _write_all(file, content)
            if size == 0:
                os.fchmod(file, 0o600)  # somebody may have made it with other rights
                _sync_folder(self.path.parent)
        except OSError:
            with suppress(OSError):  # otherwise a torn line is left, which will be found to be one
                os.ftruncate(file, size)
            raise

    # Replaying --------------------------------------------------------------------------------------------------------

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Whether this process may replay now. One does at a time."""
        file = os.open(self._claim_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _try_lock(file)
        finally:
            os.close(file)

    def replayed(self) -> int:
        """The byte up to which the last good mark says that all is in Redis. For the holder of the claim."""
        with self._locked() as file:
            return self._last_mark.read(file)

    def batch(self, start: int) -> Batch:
        """The records behind the byte `start`. Its end is `start` if there is nothing."""
        found, end = Batch([], [], start, b""), start
        with self._locked() as file, open(file, "rb", closefd=False) as reader:
            reader.seek(start)
            for line in reader:
                end += len(line)
                _sort(line.rstrip(b"\n"), found)
                if len(found.records) + len(found.rejected) >= BATCH or end - start >= BATCH_BYTES:
                    break
            return found._replace(end=end, tail=tail(file, end))

    def reject(self, lines: Sequence[bytes], reasons: Mapping[bytes, str] = {}) -> None:
        """Set lines aside, each of them once, and say why of those whose reasons are known."""
        self.aside.add(lines, reasons)
        _sync_folder(self.path.parent)

    def mark(self, batch: Batch) -> int:
        """All up to the end of the batch is in Redis. Empties the file if that is all there is.

        Returns where to go on; the beginning if the file is another by now."""
        with self._locked() as file:
            size = os.fstat(file).st_size
            if tail(file, batch.end) != batch.tail:
                return 0
            if size == batch.end:
                os.ftruncate(file, 0)
                os.fsync(file)
                return 0
            line = pack_mark(Mark(batch.end, digest(batch.tail)))
            self._write(file, size, _seal(file, size) + line)
            return batch.end

    def status(self) -> SpoolStatus:
        """Looks through the whole file. Raises OSError."""
        records, oldest, size = 0, None, self.size()
        if size:
            start = self.replayed()
            while (batch := self.batch(start)).end > start:
                if oldest is None and batch.records:
                    oldest = min(record.time for record in batch.records).isoformat()
                records, start = records + len(batch.records), batch.end
        return SpoolStatus(str(self.path), records, size, oldest, self.rejected())

    def rejected(self) -> int:
        """How many lines were set aside."""
        return self.aside.count()

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, open, and nobody else's until it is closed."""
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                while not _try_lock(file):
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"another process has kept it locked for {LOCK_PATIENCE:g} s")
                    time.sleep(_LOCK_PAUSE)
                if _is_at(file, self.path):  # not moved away since it was opened
                    yield file
                    return
            finally:
                os.close(file)


def _sort(line: bytes, batch: Batch) -> None:
    """Add a line to the records of the batch, or to its rejected lines. Where a newline was lost, it may hold two."""
    try:
        found = [unpack(line)] if line else []
    except CodecError:
        pieces = _SEAM.split(line)
        if len(pieces) == 1:
            batch.rejected.append(line)
        else:
            for piece in pieces:
                _sort(piece, batch)
    else:
        batch.records.extend(record for record in found if not isinstance(record, Mark))


def _seal(file: int, size: int) -> bytes:
    """A newline, if whoever wrote the last line died before its end; else nothing."""
    return b"" if size == 0 or os.pread(file, 1, size - 1) == b"\n" else b"\n"


def _write_all(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
    os.fsync(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """A new file is on the disk when its folder is."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
