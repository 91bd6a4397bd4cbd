"""What has come into the file since it was last looked at, so that nobody reads all of it again and again."""

import os
import threading
from pathlib import Path

from eventbus.errors import CodecError
from eventbus.publishing.spool.record import MARK, Mark, digest, unpack

TAIL = 64  # bytes


class Follower:
    """`news(file)`: the whole lines that have come since the last call. `anew`: it is another file by now, or was
    emptied, and these are all its lines. `end`: the byte behind the last of them."""

    def __init__(self) -> None:
        self._file = (0, 0)
        self._tail = b""
        self.end = 0
        self.anew = True

    def news(self, file: int) -> bytes:
        stat = os.fstat(file)
        known = (stat.st_dev, stat.st_ino) == self._file and stat.st_size >= self.end
        self.anew = not known or tail(file, self.end) != self._tail
        if self.anew:
            self.end = 0
        found = os.pread(file, stat.st_size - self.end, self.end)
        lines = found[: found.rfind(b"\n") + 1]
        self.end += len(lines)
        self._file, self._tail = (stat.st_dev, stat.st_ino), tail(file, self.end)
        return lines


class LastMark:
    """Up to which byte all is in Redis, as the last good mark says."""

    def __init__(self) -> None:
        self._follower = Follower()
        self._replayed = 0

    def read(self, file: int) -> int:
        news = self._follower.news(file)
        if self._follower.anew:
            self._replayed = 0
        marks = [line for line in news.splitlines() if line.startswith(MARK)]
        good = (mark.replayed for line in reversed(marks) if (mark := _true_mark(file, line)))
        self._replayed = next(good, self._replayed)
        return self._replayed


class Backlog:
    """How many lines stand behind the last mark, for a gauge. They are counted, and not looked into. Any thread may
    ask."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._follower = Follower()
        self._count = 0
        self._asking = threading.Lock()

    def count(self) -> int:
        with self._asking:
            try:
                file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return 0
            try:
                return self._look(file)
            finally:
                os.close(file)

    def _look(self, file: int) -> int:
        news = self._follower.news(file)
        if self._follower.anew:
            self._count = 0
        last = (b"\n" + news).rfind(b"\n" + MARK)
        replayed = news[last + len(MARK) :].partition(b",")[0] if last >= 0 else b""
        if replayed.isdigit():
            start = int(replayed)
            self._count = _records(os.pread(file, max(0, self._follower.end - start), start))
        else:
            self._count += _records(news)
        return self._count


def tail(file: int, end: int) -> bytes:
    """The last bytes before `end`: more than a checksum, so that no two places are alike."""
    start = max(0, end - TAIL)
    return os.pread(file, end - start, start)


def _records(lines: bytes) -> int:
    return lines.count(b"\n") - lines.count(b"\n" + MARK) - lines.startswith(MARK)


def _true_mark(file: int, line: bytes) -> Mark | None:
    """The mark in a line, if it was made for this very file."""
    try:
        mark = unpack(line.rstrip(b"\n"))
    except CodecError:
        return None
    if not isinstance(mark, Mark) or mark.behind != digest(tail(file, mark.replayed)):
        return None
    return mark
