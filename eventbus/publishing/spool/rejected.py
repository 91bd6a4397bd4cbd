"""Lines that were set aside from the spool, as they were; and why those that could be read were refused.

PATH.rejected        the lines
PATH.rejected.why    for each that Redis or a session has refused: {"line": its digest, "reason": …, "at": …}
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson

from eventbus.publishing.spool.record import digest

TORN = "torn, changed, or none of ours"
_REASON = 500  # characters


class Rejected:
    """Only the holder of the claim may use it, except that anybody may count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._why = path.with_name(path.name + ".why")
        self._counted = ((0, 0, 0), 0)  # size, and number of lines, of the file as it was

    def add(self, lines: Sequence[bytes], reasons: Mapping[bytes, str]) -> None:
        """Set lines aside, each of them once: the replay that did it last may have died before it could say so."""
        known = self.lines()
        new = set(lines) - set(known)
        if not new:
            return
        at = datetime.now(UTC).isoformat(timespec="seconds")
        notes = [
            orjson.dumps({"line": digest(line), "reason": reasons[line][:_REASON], "at": at}) + b"\n"
            for line in lines
            if line in new and line in reasons
        ]
        _append(self._why, b"".join(notes))
        _append(self.path, b"".join(line + b"\n" for line in lines if line in new))

    def replace(self, lines: Sequence[bytes]) -> None:
        """Keep only these lines; if there are none, delete both files."""
        if not lines:
            self.path.unlink(missing_ok=True)
            self._why.unlink(missing_ok=True)
            return
        new = self.path.with_name(self.path.name + ".new")
        new.unlink(missing_ok=True)
        _append(new, b"".join(line + b"\n" for line in lines))
        new.replace(self.path)

    def lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines() if self.path.exists() else []

    def count(self) -> int:
        """How many lines. Any thread may ask; the file is read when it has changed."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return 0
        state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if self._counted[0] != state:
            self._counted = (state, self.path.read_bytes().count(b"\n"))
        return self._counted[1]

    def reasons(self) -> dict[str, int]:
        """Why, and how many lines for each reason, the commonest first."""
        notes = self._why.read_bytes().splitlines() if self._why.exists() else []
        why = {note["line"]: note["reason"] for note in map(_note, notes) if note}
        return dict(Counter(why.get(digest(line), TORN) for line in self.lines()).most_common())


def _note(line: bytes) -> dict[str, str]:
    """What a note says: nothing, if its writer died before its end."""
    try:
        found = orjson.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and {"line", "reason"} <= found.keys() else {}


def _append(path: Path, content: bytes) -> None:
    if not content:
        return
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    finally:
        os.close(file)
