"""Files that other processes write to while they are read."""

from pathlib import Path


def whole_lines(path: Path) -> list[str]:
    """Without the last one, if its end is still to come."""
    return path.read_bytes().rpartition(b"\n")[0].decode().splitlines()
