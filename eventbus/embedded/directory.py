"""The directory that one embedded server keeps everything in: data, log, port, password, and the lock of its owner."""

import fcntl
import os
from pathlib import Path

from eventbus.errors import ConfigurationError

_LOG_LIMIT = 1_000_000


class DataDirectory:
    """A private directory with one owner at a time; the lock ends with the process that holds it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).resolve()
        self._lock: int | None = None

    def acquire(self) -> None:
        """Become the owner; nothing is done if we are it already. Raises ConfigurationError if somebody else is."""
        if self._lock is not None:
            return
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Not lockf: its locks do not exclude a second owner in the same process.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(lock, 20).decode(errors="replace").strip()
            os.close(lock)
            raise ConfigurationError(
                f"{self.path} is in use by process {owner or 'unknown'}. "
                "Stop that one first, or choose another directory (EVENTBUS_DATA_DIR)."
            ) from error
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def recall(self, name: str) -> str | None:
        """What `remember` kept under this name, in whichever process."""
        try:
            return (self.path / name).read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None

    def remember(self, name: str, value: str) -> None:
        """Keep a short text for later owners, readable for this user alone."""
        fresh = self.path / f"{name}.new"
        # The file is readable for its owner only, from the first byte on. It is replaced as a whole or not at all.
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600, exist_ok=False)
        fresh.write_text(f"{value}\n", encoding="utf-8")
        fresh.replace(self.path / name)

    @property
    def log(self) -> Path:
        return self.path / "server.log"

    def open_log(self) -> int:
        """A descriptor that appends to the log. A log grown large starts anew, and the old one is kept once."""
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def log_tail(self, lines: int = 12) -> str:
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return "(nothing logged)"
        return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "(nothing logged)"
